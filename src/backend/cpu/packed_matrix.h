// PackedMatrix: a weight matrix laid out so that a SIMD lane is an output column.
//
// Columns (outputs) go in tiles of 16; a tile is contiguous, and tiles follow one another, so a product streams through memory in one line.
//
// Float forms: a tile is [inputs][16] elements of the file's own type.
//
// Quantised forms: inputs go in blocks of 32. A tile holds three planes, each aligned to 64 bytes:
//   scales  [blocks][16], or [2 blocks][16] where a scale covers 16 inputs (Q6_K)
//   mins    [blocks][16], for the types that have one: weight = scale * quant + min
//   quants  bytes: [blocks][8 groups of 4 inputs][16 columns][4]; nibbles: [blocks][4 groups][16 columns][4], of which the low halves are
//           the groups 0 to 3 and the high halves the groups 4 to 7
// A quant is an unsigned byte, from which `zero` is subtracted: that is what the machine's dot product wants of one of its operands, and
// the term zero * sum(activations) is one number a row and block, whatever the column. Scales stay in the file's precision: half where the
// file has a half a block, float where the file has a product (the K types).
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "backend/ops.h"
#include "formats/tensor_type.h"
#include "reprise/status.h"

namespace reprise {

inline constexpr int kTileColumns = 16;
inline constexpr int kQuantBlock = 32;

enum class PackedForm : uint8_t {
  kF32,
  kF16,
  kBF16,
  kByte,          // Q8_0, Q5_0
  kByteMin,       // Q5_1
  kNibble,        // Q4_0
  kNibbleMin,     // Q4_1
  kByteMinF32,    // Q5_K
  kNibbleMinF32,  // Q4_K
  kByte16F32,     // Q6_K
};
inline constexpr int kPackedForms = 10;

struct FormTraits {
  bool quantised;
  bool nibbles;
  bool has_min;
  bool half_scales;
  int scale_inputs;  // inputs that share a scale: 32 or 16
};
constexpr FormTraits TraitsOf(PackedForm form) {
  switch (form) {
    case PackedForm::kF32:
    case PackedForm::kF16:
    case PackedForm::kBF16: return {false, false, false, false, 0};
    case PackedForm::kByte: return {true, false, false, true, 32};
    case PackedForm::kByteMin: return {true, false, true, true, 32};
    case PackedForm::kNibble: return {true, true, false, true, 32};
    case PackedForm::kNibbleMin: return {true, true, true, true, 32};
    case PackedForm::kByteMinF32: return {true, false, true, false, 32};
    case PackedForm::kNibbleMinF32: return {true, true, true, false, 32};
    case PackedForm::kByte16F32: return {true, false, false, false, 16};
  }
  return {};
}

class PackedMatrix : public Matrix {
 public:
  // Checks `source` (type, sizes) and computes the layout; `data` is then to be set to total_bytes() of 64-byte aligned memory.
  static Result<PackedMatrix> Plan(const WeightSource& source);

  int tiles() const { return (outputs + kTileColumns - 1) / kTileColumns; }
  size_t total_bytes() const { return tile_bytes * static_cast<size_t>(tiles()); }
  const std::byte* tile(int index) const { return data + tile_bytes * static_cast<size_t>(index); }

  // Fills tile `index` from the source bytes. Columns past the last output are zero.
  void PackTile(const std::byte* source, int index) const;

  // Output row `row` as floats, exactly the file's own dequantisation.
  void UnpackRow(int row, float* out) const;

  TensorType type{};
  PackedForm form{};
  int zero = 0;    // quantised forms: subtracted from every quant
  int blocks = 0;  // quantised forms: inputs / 32
  size_t mins_offset = 0;
  size_t quants_offset = 0;
  size_t tile_bytes = 0;
  size_t source_row_bytes = 0;
  std::byte* data = nullptr;
};

}  // namespace reprise
