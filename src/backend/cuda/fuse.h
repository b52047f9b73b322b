// Launches that follow one another and become one, where a step has so few rows that it gains by it.
//
// A launch of few rows is microseconds of waiting for the one before, whatever it computes, so a small model's token is mostly that. Of one row,
// what makes the input of a product (a norm, of a whole row or of groups of it, or quantising) goes into the product, and what is made of its
// results element by element (SwiGLU, GeGLU, squares) as well; of weights of 32-bit floats neither. Of few rows, a recurrence becomes one launch
// from its convolution on: the delta rule with the gated norm, Mamba-2's with its gate, both also where they run again for their states alone; a
// short convolution with the products around it; and Mamba-1's scan with its gate. Of any number, so do what turns queries and keys and what
// appends keys and values, and norms that have nothing to do with one another. Everything that the single launches leave in memory for later ones
// is left there all the same, but for their scratch; the bits are the same (fused_kernels.h, fused_state_kernels.h).
//
// Two launches become one only where no block of threads writes what another still has to read, which is checked by address: rows that are never alive
// together may share memory (models/loader.h, NewSharedRows).
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/kernels.h"

namespace reprise::cuda {

inline constexpr int kFewRows = 8;  // beyond it, by count and unmeasured, tokens one after another take longer than several launches

// Whether some of the first `count` rows of one and of the other share memory.
bool Overlap(const Rows& a, const Rows& b, int count = 1);

// The launches for the steps of a bucket, which do what `launches` do.
std::vector<Launch> Fuse(std::span<const Launch> launches, const Bucket& bucket);

}  // namespace reprise::cuda
