// TensorType: how the elements of a weight are stored, with the ids, names and block sizes of GGUF.
//
// A type packs `block_elements` consecutive elements of a row into `block_bytes` bytes; a row is a whole number of blocks. The table knows
// every type that a GGUF file may hold today, so that a file can be listed and its sizes checked; quantize.h says which can be computed
// with. Ids, names and sizes: the GGUF specification (ggml, docs/gguf.md) and ggml's block definitions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "reprise/status.h"

namespace reprise {

enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

struct TensorTypeTraits {
  TensorType type{};
  std::string_view name;  // as people write it: "Q8_0"
  uint32_t block_elements = 0;
  uint32_t block_bytes = 0;
};

// All of them, by ascending id.
std::span<const TensorTypeTraits> TensorTypes();

// Of a value of the enumeration; a value cast from an unchecked number is a programming error (use TensorTypeFromId).
const TensorTypeTraits& TraitsOf(TensorType type);
inline std::string_view TensorTypeName(TensorType type) { return TraitsOf(type).name; }

// kUnsupported, naming the id, for an id that is not in the table: ids 4, 5, 31-33 and 36-38 were withdrawn, 9 and 15 never lie in files.
Result<TensorType> TensorTypeFromId(uint32_t id);

// By name, whatever its case ("q8_0"). kInvalidArgument, naming the name, otherwise.
Result<TensorType> TensorTypeFromName(std::string_view name);

// Bytes of `rows` rows of `row_elements` elements. kCorrupt when a row is no whole number of blocks or the product overflows.
Result<uint64_t> TensorBytes(TensorType type, uint64_t row_elements, uint64_t rows);

}  // namespace reprise
