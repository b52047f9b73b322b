// Raw files of token ids and logits: little-endian int32 and float32, nothing else in them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reprise/status.h"

namespace reprise {

// The ids of an IDS.i32 file, at least one, each within [0, vocabulary). kCorrupt for a size that is no multiple of four; kInvalidArgument
// names the first id outside, and where it stands.
Result<std::vector<int32_t>> ReadTokenFile(const std::string& path, int vocabulary);

// How many ids the file holds, by its size; for sizing memory before the vocabulary is known.
Result<uint64_t> CountTokenFile(const std::string& path);

}  // namespace reprise
