// PackedMatrix: a weight matrix laid out so that a SIMD lane is an output column.
//
// Columns (outputs) go in tiles of 16; a tile is contiguous, and tiles follow one another, so a product streams through memory in one line.
//
// Float forms: a tile is [inputs][16] elements of the file's own type.
//
// Quantised forms: inputs go in blocks of 32. A tile holds planes, each aligned to 64 bytes:
//   supers  K types: [blocks / 8][16] halves that the scales of 8 blocks are multiples of, each line followed by one for the mins
//   scales  [blocks][16], or [2 blocks][16] where a scale covers 16 inputs (Q6_K): halves, or bytes in the K types
//   mins    [blocks][16], for the types that have one, likewise: weight = scale * quant + min
//   quants  bytes: [blocks][8 groups of 4 inputs][16 columns][4]; nibbles: [blocks][4 groups][16 columns][4], of which the low halves are
//           the groups 0 to 3 and the high halves the groups 4 to 7; five and six bits: the nibbles of a block, and then one or two lines
//           [16 columns][4] of the bits above them, one or two of each group from the lowest, group after group
// MXFP4 keeps the file's codes as nibbles, which kernels look up in a table of sixteen unsigned quants, and of scales the exponent bytes.
// A quant is an unsigned number, from which `zero` is subtracted: that is what the machine's dot product wants of one of its operands, and
// the term zero * sum(activations) is one number a row and block, whatever the column. Scales stay as the file has them: a half, the product
// of a half and a byte, or a power of two, each of which a float holds exactly.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "backend/ops.h"
#include "formats/mxfp4.h"
#include "formats/tensor_type.h"
#include "reprise/status.h"

namespace reprise {

inline constexpr int kTileColumns = 16;
inline constexpr int kQuantBlock = 32;

enum class PackedForm : uint8_t {
  kF32,
  kF16,
  kBF16,
  kByte,        // Q8_0
  kNibble,      // Q4_0
  kNibbleMin,   // Q4_1
  kNibbleMinK,  // Q4_K
  kFive,        // Q5_0
  kFiveMin,     // Q5_1
  kFiveMinK,    // Q5_K
  kSixK,        // Q6_K
  kNibbleE2M1,  // MXFP4
};
inline constexpr int kSuperBlocks = 8;  // blocks that share a half in the K types

struct FormTraits {
  int bits;  // of a quant in memory: 4, 5, 6 or 8; 0 for floats
  bool has_min;
  bool k_type;
  int scale_inputs;   // inputs that share a scale: 32 or 16
  bool e2m1 = false;  // quants are codes of 4-bit floats, and scales exponents (formats/mxfp4.h)

  constexpr bool quantised() const { return bits > 0; }
  constexpr int block_bytes() const { return kTileColumns * kQuantBlock * bits / 8; }
  constexpr int most() const { return e2m1 ? 2 * kMostTwiceE2M1 : (1 << bits) - 1; }  // that a quant can be
  constexpr int scale_bytes() const { return k_type || e2m1 ? 1 : 2; }
  constexpr int super_bytes() const { return k_type ? kTileColumns * 2 * (has_min ? 2 : 1) : 0; }  // a line
};
constexpr FormTraits TraitsOf(PackedForm form) {
  switch (form) {
    case PackedForm::kF32:
    case PackedForm::kF16:
    case PackedForm::kBF16: return {0, false, false, 0};
    case PackedForm::kByte: return {8, false, false, 32};
    case PackedForm::kNibble: return {4, false, false, 32};
    case PackedForm::kNibbleMin: return {4, true, false, 32};
    case PackedForm::kNibbleMinK: return {4, true, true, 32};
    case PackedForm::kFive: return {5, false, false, 32};
    case PackedForm::kFiveMin: return {5, true, false, 32};
    case PackedForm::kFiveMinK: return {5, true, true, 32};
    case PackedForm::kSixK: return {6, false, true, 16};
    case PackedForm::kNibbleE2M1: return {4, false, false, 32, true};
  }
  return {};
}

// Where quants of five and six bits have those above the nibble: for group g of a block, in each byte of `line` (of 64), from `bit` on.
struct TopBits {
  int line, bit;
};
constexpr TopBits TopBitsOf(int bits, int g) {
  const int at = g * (bits - 4);
  return {4 + at / 8, at % 8};
}

class PackedMatrix : public Matrix {
 public:
  // Checks `source` (type, sizes) and computes the layout; `data` is then to be set to total_bytes() of 64-byte aligned memory.
  static Result<PackedMatrix> Plan(const WeightSource& source);

  int tiles() const { return (outputs + kTileColumns - 1) / kTileColumns; }
  size_t total_bytes() const { return tile_bytes * static_cast<size_t>(tiles()); }
  // Of a tile: quants, scales and minima together.
  int64_t block_bytes() const { return static_cast<int64_t>(tile_bytes) / blocks; }
  const std::byte* tile(int index) const { return data + tile_bytes * static_cast<size_t>(index); }

  // Fills tile `index` from the source bytes. Columns past the last output are zero.
  void PackTile(const std::byte* source, int index) const;

  // Output row `row` as floats, exactly the file's own dequantisation.
  void UnpackRow(int row, float* out) const;

  TensorType type{};
  PackedForm form{};
  int zero = 0;    // quantised forms: subtracted from every quant
  int blocks = 0;  // quantised forms: inputs / 32
  size_t scales_offset = 0;
  size_t mins_offset = 0;
  size_t quants_offset = 0;
  size_t tile_bytes = 0;
  size_t source_row_bytes = 0;
  std::byte* data = nullptr;
};

}  // namespace reprise
