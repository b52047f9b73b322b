#include "backend/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "base/checked.h"
#include "base/half.h"

namespace reprise {
namespace {

struct TypeForm {
  PackedForm form;
  int zero;
};
std::optional<TypeForm> FormOf(TensorType type) {
  switch (type) {
    case TensorType::kF32: return TypeForm{PackedForm::kF32, 0};
    case TensorType::kF16: return TypeForm{PackedForm::kF16, 0};
    case TensorType::kBF16: return TypeForm{PackedForm::kBF16, 0};
    case TensorType::kQ8_0: return TypeForm{PackedForm::kByte, 128};
    case TensorType::kQ5_0: return TypeForm{PackedForm::kFive, 16};
    case TensorType::kQ5_1: return TypeForm{PackedForm::kFiveMin, 0};
    case TensorType::kQ4_0: return TypeForm{PackedForm::kNibble, 8};
    case TensorType::kQ4_1: return TypeForm{PackedForm::kNibbleMin, 0};
    case TensorType::kQ4_K: return TypeForm{PackedForm::kNibbleMinK, 0};
    case TensorType::kQ5_K: return TypeForm{PackedForm::kFiveMinK, 0};
    case TensorType::kQ6_K: return TypeForm{PackedForm::kSixK, 32};
    case TensorType::kMXFP4: return TypeForm{PackedForm::kNibbleE2M1, kMostTwiceE2M1};
    default: return std::nullopt;
  }
}

uint16_t ReadU16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
uint8_t U8(std::byte b) { return static_cast<uint8_t>(b); }

// One block of 32 inputs of one output, in the common form.
struct Block {
  uint8_t quants[kQuantBlock];
  uint16_t scale;         // halves
  uint16_t min;           // K types: subtracted, not added
  uint8_t scale_byte[2];  // K types: what multiplies the halves; signed in Q6_K, which has two. MXFP4: the exponent
  uint8_t min_byte;
};

// The 6-bit scale and minimum of sub-block `j` of a Q4_K or Q5_K super-block: eight of each in 12 bytes.
void ScaleAndMin(const std::byte* packed, int j, int* scale, int* min) {
  if (j < 4) {
    *scale = U8(packed[j]) & 63;
    *min = U8(packed[j + 4]) & 63;
  } else {
    *scale = (U8(packed[j + 4]) & 0x0f) | ((U8(packed[j - 4]) >> 6) << 4);
    *min = (U8(packed[j + 4]) >> 4) | ((U8(packed[j]) >> 6) << 4);
  }
}

// Reads block `b` (of 32 inputs) of a row at `row`.
void ReadBlock(TensorType type, const std::byte* row, int b, Block* out) {
  const auto nibbles = [out](const std::byte* q) {
    for (int i = 0; i < 16; ++i) {
      out->quants[i] = U8(q[i]) & 0x0f;
      out->quants[i + 16] = U8(q[i]) >> 4;
    }
  };
  const auto fifth_bits = [out](const std::byte* q) {
    uint32_t bits;
    std::memcpy(&bits, q, sizeof(bits));
    for (int i = 0; i < 32; ++i) out->quants[i] |= static_cast<uint8_t>(((bits >> i) & 1) << 4);
  };
  switch (type) {
    case TensorType::kQ8_0: {
      const std::byte* p = row + b * 34;
      out->scale = ReadU16(p);
      for (int i = 0; i < 32; ++i) out->quants[i] = U8(p[2 + i]) ^ 0x80;
      return;
    }
    case TensorType::kQ4_0: {
      const std::byte* p = row + b * 18;
      out->scale = ReadU16(p);
      nibbles(p + 2);
      return;
    }
    case TensorType::kQ4_1: {
      const std::byte* p = row + b * 20;
      out->scale = ReadU16(p);
      out->min = ReadU16(p + 2);
      nibbles(p + 4);
      return;
    }
    case TensorType::kQ5_0: {
      const std::byte* p = row + b * 22;
      out->scale = ReadU16(p);
      nibbles(p + 6);
      fifth_bits(p + 2);
      return;
    }
    case TensorType::kQ5_1: {
      const std::byte* p = row + b * 24;
      out->scale = ReadU16(p);
      out->min = ReadU16(p + 2);
      nibbles(p + 8);
      fifth_bits(p + 4);
      return;
    }
    case TensorType::kQ4_K:
    case TensorType::kQ5_K: {
      // A super-block of 256: d, dmin, 12 bytes of scales, (Q5_K: 32 bytes of fifth bits,) 128 bytes of nibbles. Sub-blocks 2j and 2j + 1
      // are the low and the high halves of the same 32 bytes.
      const bool five = type == TensorType::kQ5_K;
      const std::byte* p = row + (b / 8) * (five ? 176 : 144);
      const int j = b % 8;
      int scale, min;
      ScaleAndMin(p + 4, j, &scale, &min);
      out->scale = ReadU16(p);
      out->min = ReadU16(p + 2);
      out->scale_byte[0] = static_cast<uint8_t>(scale);
      out->min_byte = static_cast<uint8_t>(min);
      const std::byte* q = p + (five ? 48 : 16) + (j / 2) * 32;
      for (int i = 0; i < 32; ++i) out->quants[i] = (j & 1) ? U8(q[i]) >> 4 : U8(q[i]) & 0x0f;
      if (five) {
        for (int i = 0; i < 32; ++i) out->quants[i] |= static_cast<uint8_t>(((U8(p[16 + i]) >> j) & 1) << 4);
      }
      return;
    }
    case TensorType::kQ6_K: {
      // 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d. Half h of 128 elements; within it, element 32 j + i.
      const std::byte* p = row + (b / 8) * 210;
      const int h = (b % 8) / 4, j = b % 4;
      const std::byte* low = p + h * 64 + (j & 1) * 32;
      const std::byte* high = p + 128 + h * 32;
      for (int i = 0; i < 32; ++i) {
        const int lo = j < 2 ? U8(low[i]) & 0x0f : U8(low[i]) >> 4;
        out->quants[i] = static_cast<uint8_t>(lo | (((U8(high[i]) >> (2 * j)) & 3) << 4));
      }
      out->scale = ReadU16(p + 208);
      for (int s = 0; s < 2; ++s) out->scale_byte[s] = U8(p[192 + h * 8 + j * 2 + s]);
      return;
    }
    case TensorType::kMXFP4: {
      const std::byte* p = row + b * 17;
      out->scale_byte[0] = U8(p[0]);
      nibbles(p + 1);
      return;
    }
    default: return;
  }
}

// Writes the quants of column `c` (0 to 15) of a tile's block: its four bytes of each line, of which there are as many as a quant has bits.
void PutQuants(const uint8_t* from, int bits, int c, uint8_t* block) {
  uint32_t lines[8] = {};
  for (int g = 0; g < 8; ++g) {
    uint32_t quants;
    std::memcpy(&quants, from + g * 4, sizeof(quants));
    if (bits == 8) {
      lines[g] = quants;
      continue;
    }
    lines[g % 4] |= (quants & 0x0f0f0f0f) << (g < 4 ? 0 : 4);
    if (bits == 4) continue;
    const TopBits at = TopBitsOf(bits, g);
    lines[at.line] |= (quants >> 4 & 0x0f0f0f0f) << at.bit;
  }
  for (int line = 0; line < bits; ++line) std::memcpy(block + (line * kTileColumns + c) * 4, &lines[line], sizeof(lines[line]));
}

// What PutQuants wrote for input `k` (0 to 31) of the block.
int QuantAt(const std::byte* block, int bits, int c, int k) {
  const auto byte = [&](int line) { return int{U8(block[(line * kTileColumns + c) * 4 + k % 4])}; };
  const int g = k / 4;
  if (bits == 8) return byte(g);
  const int nibble = g < 4 ? byte(g) & 0x0f : byte(g - 4) >> 4;
  if (bits == 4) return nibble;
  const TopBits at = TopBitsOf(bits, g);
  return nibble | (byte(at.line) >> at.bit << 4 & ((1 << bits) - 1));
}

}  // namespace

Result<PackedMatrix> PackedMatrix::Plan(const WeightSource& source) {
  const auto form = FormOf(source.type);
  if (!form) {
    return Unsupported("weight " + std::string(source.name) + ": the CPU backend has no matrix product for type " +
                       std::string(TensorTypeName(source.type)));
  }
  PackedMatrix m;
  REPRISE_ASSIGN_OR_RETURN(m.source_row_bytes, CheckMatrix(source));
  m.outputs = static_cast<int>(source.outputs);
  m.inputs = static_cast<int>(source.inputs);
  m.type = source.type;
  m.form = form->form;
  m.zero = form->zero;
  const FormTraits traits = TraitsOf(m.form);
  if (!traits.quantised()) {
    m.tile_bytes = AlignUp(static_cast<uint64_t>(m.inputs) * kTileColumns * (m.form == PackedForm::kF32 ? 4 : 2), 64);
    return m;
  }
  m.blocks = m.inputs / kQuantBlock;
  const auto blocks = static_cast<uint64_t>(m.blocks);
  const uint64_t scale_bytes = blocks * kTileColumns * static_cast<uint64_t>(traits.scale_bytes());
  m.scales_offset = AlignUp(blocks / kSuperBlocks * static_cast<uint64_t>(traits.super_bytes()), 64);
  m.mins_offset = m.scales_offset + AlignUp(scale_bytes * static_cast<uint64_t>(kQuantBlock / traits.scale_inputs), 64);
  m.quants_offset = m.mins_offset + (traits.has_min ? AlignUp(scale_bytes, 64) : 0);
  m.tile_bytes = m.quants_offset + blocks * static_cast<uint64_t>(traits.block_bytes());
  return m;
}

void PackedMatrix::PackTile(const std::byte* source, int index) const {
  std::byte* const to = data + tile_bytes * static_cast<size_t>(index);
  const int first = index * kTileColumns;
  const int columns = std::min(kTileColumns, outputs - first);
  const FormTraits traits = TraitsOf(form);
  if (columns < kTileColumns) std::memset(to, 0, tile_bytes);

  if (!traits.quantised()) {
    const auto transpose = [&]<class T>(T* out) {
      for (int c = 0; c < columns; ++c) {
        const std::byte* row = source + static_cast<size_t>(first + c) * source_row_bytes;
        for (int k = 0; k < inputs; ++k) {
          std::memcpy(out + static_cast<size_t>(k) * kTileColumns + c, row + static_cast<size_t>(k) * sizeof(T), sizeof(T));
        }
      }
    };
    form == PackedForm::kF32 ? transpose(reinterpret_cast<uint32_t*>(to)) : transpose(reinterpret_cast<uint16_t*>(to));
    return;
  }

  const auto scale_size = static_cast<size_t>(traits.scale_bytes());
  const int scales = kQuantBlock / traits.scale_inputs;
  for (int b = 0; b < blocks; ++b) {
    std::byte* const super_row = to + static_cast<size_t>(b / kSuperBlocks) * static_cast<size_t>(traits.super_bytes());
    std::byte* const scale_row = to + scales_offset + static_cast<size_t>(b * scales) * kTileColumns * scale_size;
    std::byte* const min_row = to + mins_offset + static_cast<size_t>(b) * kTileColumns * scale_size;
    auto* const quants =
        reinterpret_cast<uint8_t*>(to + quants_offset) + static_cast<size_t>(b) * static_cast<size_t>(traits.block_bytes());
    for (int c = 0; c < columns; ++c) {
      Block block{};
      ReadBlock(type, source + static_cast<size_t>(first + c) * source_row_bytes, b, &block);
      if (traits.k_type) {
        std::memcpy(super_row + c * 2, &block.scale, 2);
        for (int s = 0; s < scales; ++s) std::memcpy(scale_row + s * kTileColumns + c, &block.scale_byte[s], 1);
        if (traits.has_min) {
          std::memcpy(super_row + (kTileColumns + c) * 2, &block.min, 2);
          std::memcpy(min_row + c, &block.min_byte, 1);
        }
      } else if (traits.e2m1) {
        std::memcpy(scale_row + c, &block.scale_byte[0], 1);
      } else {
        std::memcpy(scale_row + c * 2, &block.scale, 2);
        if (traits.has_min) std::memcpy(min_row + c * 2, &block.min, 2);
      }
      PutQuants(block.quants, traits.bits, c, quants);
    }
  }
}

void PackedMatrix::UnpackRow(int row, float* out) const {
  const std::byte* const from = tile(row / kTileColumns);
  const int c = row % kTileColumns;
  const FormTraits traits = TraitsOf(form);
  if (!traits.quantised()) {
    for (int k = 0; k < inputs; ++k) {
      const size_t at = static_cast<size_t>(k) * kTileColumns + static_cast<size_t>(c);
      if (form == PackedForm::kF32) {
        std::memcpy(out + k, from + at * 4, 4);
      } else {
        const uint16_t bits = ReadU16(from + at * 2);
        out[k] = form == PackedForm::kF16 ? HalfToFloat(bits) : BFloat16ToFloat(bits);
      }
    }
    return;
  }
  const auto half = [&](size_t at) { return HalfToFloat(ReadU16(from + at + static_cast<size_t>(c) * 2)); };
  // The number in `line` of a plane: a half, in the K types a byte times its super-block's half, or a power of two.
  const auto number = [&](size_t plane, int line, int block, bool min) {
    const size_t at = plane + static_cast<size_t>(line) * kTileColumns * static_cast<size_t>(traits.scale_bytes());
    if (!traits.k_type && !traits.e2m1) return half(at);
    const int byte = U8(from[at + static_cast<size_t>(c)]);
    if (traits.e2m1) return HalfScale(static_cast<uint8_t>(byte));
    const float super =
        half(static_cast<size_t>(block / kSuperBlocks) * static_cast<size_t>(traits.super_bytes()) + (min ? kTileColumns * 2 : 0));
    return (min ? -super : super) * static_cast<float>(traits.bits == 6 ? static_cast<int8_t>(byte) : byte);
  };
  const int scales = kQuantBlock / traits.scale_inputs;
  for (int b = 0; b < blocks; ++b) {
    const std::byte* const quants = from + quants_offset + static_cast<size_t>(b) * static_cast<size_t>(traits.block_bytes());
    const float min = traits.has_min ? number(mins_offset, b, b, true) : 0.0f;
    for (int i = 0; i < kQuantBlock; ++i) {
      const int quant = QuantAt(quants, traits.bits, c, i);
      const float product = number(scales_offset, b * scales + i / traits.scale_inputs, b, false) *
                            static_cast<float>(traits.e2m1 ? kTwiceE2M1[quant] : quant - zero);
      out[b * kQuantBlock + i] = traits.has_min ? product + min : product;
    }
  }
}

}  // namespace reprise
