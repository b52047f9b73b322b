#include "backend/cuda/packed_weight.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

namespace reprise::cuda {
namespace {

std::optional<Form> FormOf(TensorType type) {
  switch (type) {
    case TensorType::kF32: return Form::kF32;
    case TensorType::kF16: return Form::kF16;
    case TensorType::kBF16: return Form::kBF16;
    case TensorType::kQ8_0:
    case TensorType::kQ5_0: return Form::kByte;
    case TensorType::kQ5_1: return Form::kByteMin;
    case TensorType::kQ5_K: return Form::kByteK;
    case TensorType::kQ6_K: return Form::kByteK16;
    case TensorType::kQ4_0: return Form::kNibble;
    case TensorType::kQ4_1: return Form::kNibbleMin;
    case TensorType::kQ4_K: return Form::kNibbleK;
    case TensorType::kMXFP4: return Form::kNibbleE2M1;
    default: return std::nullopt;
  }
}

uint32_t U8(std::byte b) { return static_cast<uint8_t>(b); }
uint32_t U16(const std::byte* p) { return U8(p[0]) | U8(p[1]) << 8; }

// The 6-bit scale and minimum of sub-block `j` of a Q4_K or Q5_K super-block: eight of each in 12 bytes.
uint32_t KScale(const std::byte* p, int j) { return j < 4 ? U8(p[j]) & 63 : (U8(p[j + 4]) & 0x0f) | ((U8(p[j - 4]) >> 6) << 4); }
uint32_t KMin(const std::byte* p, int j) { return j < 4 ? U8(p[j + 4]) & 63 : (U8(p[j + 4]) >> 4) | ((U8(p[j]) >> 6) << 4); }

// One block of 32 inputs: quants as the form wants them (signed bytes, or plain nibbles), and its part of the segment's header.
struct Block {
  uint8_t quants[kBlock];
  uint32_t header[4] = {};  // of the whole segment, with only this block's bits set
};

void ReadNibbles(const std::byte* q, uint8_t* quants) {
  for (int i = 0; i < 16; ++i) {
    quants[i] = static_cast<uint8_t>(U8(q[i]) & 0x0f);
    quants[i + 16] = static_cast<uint8_t>(U8(q[i]) >> 4);
  }
}
void ReadFifthBits(const std::byte* q, uint8_t* quants) {
  const uint32_t bits = U16(q) | U16(q + 2) << 16;
  for (int i = 0; i < 32; ++i) quants[i] |= static_cast<uint8_t>(((bits >> i) & 1) << 4);
}

// Reads block `b` of a row at `row`.
Block ReadBlock(TensorType type, const std::byte* row, int b) {
  Block out;
  const int at = b % kSegmentBlocks;
  const auto own_scale = [&](uint32_t half) { out.header[at / 2] = half << (16 * (at % 2)); };
  const auto scale_and_min = [&](const std::byte* p) { out.header[at] = U16(p) | U16(p + 2) << 16; };
  switch (type) {
    case TensorType::kQ8_0: {
      const std::byte* p = row + b * 34;
      own_scale(U16(p));
      std::memcpy(out.quants, p + 2, 32);
      break;
    }
    case TensorType::kQ4_0: {
      const std::byte* p = row + b * 18;
      own_scale(U16(p));
      ReadNibbles(p + 2, out.quants);
      break;
    }
    case TensorType::kQ4_1: {
      const std::byte* p = row + b * 20;
      scale_and_min(p);
      ReadNibbles(p + 4, out.quants);
      break;
    }
    case TensorType::kQ5_0: {
      const std::byte* p = row + b * 22;
      own_scale(U16(p));
      ReadNibbles(p + 6, out.quants);
      ReadFifthBits(p + 2, out.quants);
      for (uint8_t& q : out.quants) q = static_cast<uint8_t>(q - 16);
      break;
    }
    case TensorType::kQ5_1: {
      const std::byte* p = row + b * 24;
      scale_and_min(p);
      ReadNibbles(p + 8, out.quants);
      ReadFifthBits(p + 4, out.quants);
      break;
    }
    case TensorType::kQ4_K:
    case TensorType::kQ5_K: {
      // A super-block of 256: d, dmin, 12 bytes of scales, (Q5_K: 32 bytes of fifth bits,) 128 bytes of nibbles. Sub-blocks 2j and 2j + 1
      // are the low and the high halves of the same 32 bytes.
      const bool five = type == TensorType::kQ5_K;
      const std::byte* p = row + (b / 8) * (five ? 176 : 144);
      const int j = b % 8;
      out.header[0] = U16(p) | U16(p + 2) << 16;
      out.header[1] = KScale(p + 4, j) << (8 * at);
      out.header[2] = KMin(p + 4, j) << (8 * at);
      const std::byte* q = p + (five ? 48 : 16) + (j / 2) * 32;
      for (int i = 0; i < 32; ++i) {
        uint32_t quant = (j & 1) ? U8(q[i]) >> 4 : U8(q[i]) & 0x0f;
        if (five) quant |= ((U8(p[16 + i]) >> j) & 1) << 4;
        out.quants[i] = static_cast<uint8_t>(quant);
      }
      break;
    }
    case TensorType::kQ6_K: {
      // 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d. Half h of 128 elements; within it, element 32 j + i.
      const std::byte* p = row + (b / 8) * 210;
      const int h = (b % 8) / 4, j = b % 4;
      const std::byte* low = p + h * 64 + (j & 1) * 32;
      const std::byte* high = p + 128 + h * 32;
      for (int i = 0; i < 32; ++i) {
        const uint32_t lo = j < 2 ? U8(low[i]) & 0x0f : U8(low[i]) >> 4;
        out.quants[i] = static_cast<uint8_t>((lo | (((U8(high[i]) >> (2 * j)) & 3) << 4)) - 32);
      }
      out.header[0] = U16(p + 208);
      out.header[1 + at / 2] = U16(p + 192 + h * 8 + j * 2) << (16 * (at % 2));
      break;
    }
    case TensorType::kMXFP4: {
      const std::byte* p = row + b * 17;
      out.header[0] = U8(p[0]) << (8 * at);
      ReadNibbles(p + 1, out.quants);
      break;
    }
    default: break;
  }
  return out;
}

void Or(std::byte* to, uint32_t bits) {
  uint32_t word;
  std::memcpy(&word, to, 4);
  word |= bits;
  std::memcpy(to, &word, 4);
}

}  // namespace

Result<PackedWeight> PackedWeight::Plan(const WeightSource& source) {
  const auto form = FormOf(source.type);
  if (!form) {
    return Unsupported("weight " + std::string(source.name) + ": the CUDA backend has no matrix product for type " +
                       std::string(TensorTypeName(source.type)));
  }
  PackedWeight m;
  REPRISE_ASSIGN_OR_RETURN(m.source_row_bytes, CheckMatrix(source));
  m.outputs = static_cast<int>(source.outputs);
  m.inputs = static_cast<int>(source.inputs);
  m.type = source.type;
  m.view = {nullptr, m.inputs, m.outputs, (m.inputs + kSegment - 1) / kSegment, *form};
  return m;
}

void PackedWeight::PackTile(const std::byte* source, int index, std::byte* to) const {
  std::memset(to, 0, tile_bytes());
  const int first = index * kTileOutputs;
  const int lanes = std::min(kTileOutputs, outputs - first);
  const Form form = view.form;
  for (int lane = 0; lane < lanes; ++lane) {
    const std::byte* row = source + static_cast<size_t>(first + lane) * source_row_bytes;
    if (form == Form::kF32) {
      for (size_t at = 0; at < source_row_bytes; at += 16) {  // chunks of the file and of a lane are the same bytes
        const auto chunk = static_cast<int>(at / 16);
        std::byte* segment = to + static_cast<size_t>(chunk / Chunks(form)) * static_cast<size_t>(SegmentBytes(form));
        std::memcpy(segment + ChunkAt(form, chunk % Chunks(form), lane), row + at, std::min<size_t>(16, source_row_bytes - at));
      }
      continue;
    }
    if (IsShort(form)) {
      for (int input = 0; input < inputs; ++input) {
        std::byte* segment = to + static_cast<size_t>(input / kSegment) * static_cast<size_t>(SegmentBytes(form));
        std::memcpy(segment + ShortAt(lane, input % kSegment), row + static_cast<size_t>(input) * 2, 2);
      }
      continue;
    }
    for (int b = 0; b < inputs / kBlock; ++b) {
      const Block block = ReadBlock(type, row, b);
      std::byte* segment = to + static_cast<size_t>(b / kSegmentBlocks) * static_cast<size_t>(SegmentBytes(form));
      // A header word that blocks share gets the same bits from each of them, or bits of their own.
      for (int word = 0; word < HeaderWords(form); ++word) Or(segment + HeaderAt(word, lane), block.header[word]);
      const int at = b % kSegmentBlocks;
      if (IsNibble(form)) {
        std::byte* chunk = segment + ChunkAt(form, at, lane);
        for (int i = 0; i < 16; ++i) {
          const int pair = (i % 4 < 2 ? 0 : 16) + i / 4 * 4 + i % 2 * 2;  // the inputs of MXFP4
          chunk[i] = form == Form::kNibbleE2M1 ? static_cast<std::byte>(block.quants[pair] | block.quants[pair + 1] << 4)
                                               : static_cast<std::byte>(block.quants[i] | block.quants[i + 16] << 4);
        }
      } else {
        for (int half = 0; half < 2; ++half) std::memcpy(segment + ChunkAt(form, at * 2 + half, lane), block.quants + half * 16, 16);
      }
    }
  }
}

}  // namespace reprise::cuda
