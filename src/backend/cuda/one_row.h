// What a step of one row does in fewer launches than a step of more rows.
//
// A launch of one row is microseconds of waiting for the one before, whatever it computes, so a small model's token is mostly that. Here launches that
// follow one another become one: what makes the input of a product of quantised weights (a norm, or quantising) goes into the product, the SwiGLU of
// its two results as well; a token's convolution, delta rule and gated norm become one launch, and so do what turns queries and keys and what appends
// keys and values. Everything that the single launches leave in memory for later ones is left there all the same, but for their scratch; the bits are
// the same (one_row_kernels.h).
//
// Two launches become one only where no block of threads writes what another still has to read, which is checked by address: rows that are never alive
// together may share memory (models/loader.h, NewSharedRows).
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/kernels.h"

namespace reprise::cuda {

// The launches of a bucket: `launches`, or fewer where the bucket's steps, or a launch's rows, are one.
std::vector<Launch> FuseOneRow(std::span<const Launch> launches, const Bucket& bucket);

}  // namespace reprise::cuda
