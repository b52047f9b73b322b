// PackedWeight: a weight matrix laid out for coalesced reads, and the one order in which a product over its inputs is summed.
//
// Outputs go in tiles of 32, one a lane of a warp; inputs in segments of 128 (four blocks of 32). The bytes of a tile and segment lie together:
//   header  [words][32 lanes] uint32   scales and minimums of the four blocks
//   chunks  [chunks][32 lanes] 16 bytes
// so that a warp that gives each lane an output reads 512 consecutive bytes at a time, and the 4 bytes x 8 outputs that a tensor-core
// instruction wants of a lane quartet are 128 consecutive bytes of it. Outputs past the last and inputs past the last are zero.
//
// Quants are signed bytes. Byte forms: chunk c holds inputs 16 c to 16 c + 15 of the segment. Nibble forms: chunk b is block b; byte i holds
// input i in its low half and input 16 + i in its high half. A centred nibble n stands for 16 (n - 8), which is what a nibble moved to the top
// of a signed byte is, and its scale for a sixteenth: both exact. Of MXFP4 nibbles are codes of 4-bit floats, and lie as those who look them up want
// them: word w of a chunk has inputs 4 w to 4 w + 3 in its low half, and 16 + 4 w to 16 + 4 w + 3 in its high half. Floats of 32 bits: chunk c holds inputs 4 c to 4 c + 3. Floats of 16 bits lie as
// the lanes of a warp bring them to the tensor cores: chunk 2 s + m has 16 outputs from 16 m on and 16 inputs from 16 s on, four times two of each
// lane (ShortAt).
//
// Promise 3: an output is the sum of its segments in ascending order, each summed from zero over its blocks in ascending order, and a block's
// integer product is exact. Whoever computes a segment, however many rows share it, AddBlock below is the only arithmetic. (Of 16-bit floats:
// short_matmul_kernels.h.)
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/arithmetic.h"
#include "formats/mxfp4.h"

namespace reprise::cuda {

inline constexpr int kTileOutputs = 32;
inline constexpr int kSegment = 128;
inline constexpr int kBlock = 32;
inline constexpr int kSegmentBlocks = kSegment / kBlock;

enum class Form : uint8_t {
  kF32,
  kF16,
  kBF16,
  kByte,        // Q8_0, Q5_0: half scale a block
  kByteMin,     // Q5_1: half scale and minimum a block
  kByteK,       // Q5_K: half d and dmin, 6-bit scale and minimum a block
  kByteK16,     // Q6_K: half d, signed 8-bit scale for 16 inputs
  kNibble,      // Q4_0, centred
  kNibbleMin,   // Q4_1
  kNibbleK,     // Q4_K
  kNibbleE2M1,  // MXFP4: an exponent a block
};
inline constexpr int kForms = 11;

REPRISE_HD constexpr bool IsFloat(Form form) { return form <= Form::kBF16; }
REPRISE_HD constexpr bool IsShort(Form form) { return form == Form::kF16 || form == Form::kBF16; }  // floats of 16 bits
REPRISE_HD constexpr bool IsNibble(Form form) { return form >= Form::kNibble; }
REPRISE_HD constexpr bool HasMin(Form form) {
  return form == Form::kByteMin || form == Form::kByteK || form == Form::kNibbleMin || form == Form::kNibbleK;
}
REPRISE_HD constexpr int HeaderWords(Form form) {
  switch (form) {
    case Form::kByte:
    case Form::kNibble: return 2;
    case Form::kByteMin:
    case Form::kNibbleMin: return 4;
    case Form::kByteK:
    case Form::kByteK16:
    case Form::kNibbleK: return 3;
    case Form::kNibbleE2M1: return 1;
    default: return 0;
  }
}
REPRISE_HD constexpr int Chunks(Form form) {  // of 16 bytes, of one output and segment
  return form == Form::kF32 ? 32 : IsFloat(form) ? 16 : IsNibble(form) ? 4 : 8;
}
REPRISE_HD constexpr int HeaderBytes(Form form) { return HeaderWords(form) * kTileOutputs * 4; }
REPRISE_HD constexpr int SegmentBytes(Form form) { return HeaderBytes(form) + Chunks(form) * kTileOutputs * 16; }

struct WeightView {
  const std::byte* data;
  int32_t inputs, outputs;
  int32_t segments;  // of an output
  Form form;

  REPRISE_HD int tiles() const { return (outputs + kTileOutputs - 1) / kTileOutputs; }
  REPRISE_HD const std::byte* Segment(int tile, int segment) const {
    return data + (static_cast<int64_t>(tile) * segments + segment) * SegmentBytes(form);
  }
};

// Offsets within the bytes of a tile and segment.
REPRISE_HD constexpr int HeaderAt(int word, int lane) { return (word * kTileOutputs + lane) * 4; }
REPRISE_HD constexpr int ChunkAt(Form form, int chunk, int lane) { return HeaderBytes(form) + (chunk * kTileOutputs + lane) * 16; }

// Of 16-bit floats: the 16 inputs that one product of the tensor cores takes are a step. Lane 4 g + t brings inputs 4t to 4t + 3 of it, of outputs g
// and g + 8 of 16: words 0 and 2 are the first output's, 1 and 3 the second's.
inline constexpr int kStepInputs = 16;
inline constexpr int kSegmentSteps = kSegment / kStepInputs;
REPRISE_HD constexpr int ShortAt(int output, int input) {
  const int chunk = input / kStepInputs * 2 + output / 16, lane = output % 8 * 4 + input % kStepInputs / 4;
  const int word = input % 4 / 2 * 2 + output % 16 / 8;
  return ChunkAt(Form::kF16, chunk, lane) + word * 4 + input % 2 * 2;
}

// Four nibbles of a word as signed bytes: the low halves (inputs i to i + 3 of a block) and the high ones (16 + i to 16 + i + 3).
struct NibblePair {
  uint32_t low, high;
};
// The codes of 4-bit floats in the low half of `codes`, doubled: found among the magnitudes and among what is as far below zero, and then chosen by sign.
REPRISE_HD uint32_t TwiceE2M1(uint32_t codes) {
  const uint32_t above = PickBytes(0x03020100u, 0x0c080604u, codes), below = PickBytes(0xfdfeff00u, 0xf4f8fafcu, codes);
  return PickBytes(above, below, 0x3210u | (codes >> 1 & 0x4444u));
}
template <Form kForm>
REPRISE_HD NibblePair Nibbles(uint32_t word) {
  if (kForm == Form::kNibbleE2M1) return {TwiceE2M1(word), TwiceE2M1(word >> 16)};
  if (kForm == Form::kNibble) {
    word ^= 0x88888888u;
    return {(word << 4) & 0xf0f0f0f0u, word & 0xf0f0f0f0u};
  }
  return {word & 0x0f0f0f0fu, (word >> 4) & 0x0f0f0f0fu};
}

// What a block is scaled by: `scale` for its integer product (of Q6_K: for each half), `min` for the sum of the activations.
struct BlockScale {
  float scale, second, min;
};
// `header`: word w of the segment's header at header[w * stride].
template <Form kForm>
REPRISE_HD BlockScale ScaleOf(const uint32_t* header, int stride, int block) {
  BlockScale s{0.0f, 0.0f, 0.0f};
  if (kForm == Form::kByte || kForm == Form::kNibble) {
    s.scale = HalfBitsToFloat((header[(block / 2) * stride] >> (16 * (block % 2))) & 0xffffu);
    if (kForm == Form::kNibble) s.scale *= 0.0625f;
  } else if (kForm == Form::kByteMin || kForm == Form::kNibbleMin) {
    s.scale = HalfBitsToFloat(header[block * stride] & 0xffffu);
    s.min = HalfBitsToFloat(header[block * stride] >> 16);
  } else if (kForm == Form::kByteK || kForm == Form::kNibbleK) {
    s.scale = HalfBitsToFloat(header[0] & 0xffffu) * static_cast<float>((header[stride] >> (8 * block)) & 0xffu);
    s.min = -(HalfBitsToFloat(header[0] >> 16) * static_cast<float>((header[2 * stride] >> (8 * block)) & 0xffu));
  } else if (kForm == Form::kByteK16) {
    const uint32_t pair = (header[(1 + block / 2) * stride] >> (16 * (block % 2))) & 0xffffu;
    const float d = HalfBitsToFloat(header[0] & 0xffffu);
    s.scale = d * static_cast<float>(static_cast<int8_t>(pair & 0xffu));
    s.second = d * static_cast<float>(static_cast<int8_t>(pair >> 8));
  } else if (kForm == Form::kNibbleE2M1) {
    s.scale = FloatOf(static_cast<uint32_t>(HalfScaleBits(static_cast<int32_t>((header[0] >> (8 * block)) & 0xffu))));
  }
  return s;
}

// The integer products of one block of a weight with one of activations: all 32 inputs, or for Q6_K each 16 of them.
struct BlockDot {
  int first, second;
};
// sum + the block. `act_sum` is the activations' scale times the sum of their quants.
template <Form kForm>
REPRISE_HD float AddBlock(float sum, BlockDot dot, const BlockScale& weight, float act_scale, float act_sum) {
  sum = fmaf(static_cast<float>(dot.first), weight.scale * act_scale, sum);
  if (kForm == Form::kByteK16) sum = fmaf(static_cast<float>(dot.second), weight.second * act_scale, sum);
  if (HasMin(kForm)) sum = fmaf(weight.min, act_sum, sum);
  return sum;
}

template <Form kForm>
REPRISE_HD float ShortToFloat(uint32_t bits) {
  return kForm == Form::kF16 ? HalfBitsToFloat(bits) : FloatOf(bits << 16);
}

// Weight [output][input] as a float, exactly the file's own dequantisation.
template <Form kForm>
REPRISE_HD float UnpackAs(const WeightView& w, int output, int input) {
  const int lane = output % kTileOutputs, within = input % kSegment;
  const std::byte* segment = w.Segment(output / kTileOutputs, input / kSegment);
  if constexpr (kForm == Form::kF32) {
    return reinterpret_cast<const float*>(segment + ChunkAt(kForm, within / 4, lane))[within % 4];
  } else if constexpr (IsShort(kForm)) {
    return ShortToFloat<kForm>(*reinterpret_cast<const uint16_t*>(segment + ShortAt(lane, within)));
  } else {
    const int block = within / kBlock, i = within % kBlock;
    int8_t quant;
    if constexpr (IsNibble(kForm)) {
      const auto* words = reinterpret_cast<const uint32_t*>(segment + ChunkAt(kForm, block, lane));
      const NibblePair pair = Nibbles<kForm>(words[i % 16 / 4]);
      quant = static_cast<int8_t>(((i < 16 ? pair.low : pair.high) >> (8 * (i % 4))) & 0xffu);
    } else {
      quant = static_cast<int8_t>(segment[ChunkAt(kForm, within / 16, lane) + within % 16]);
    }
    const BlockScale s = ScaleOf<kForm>(reinterpret_cast<const uint32_t*>(segment) + lane, kTileOutputs, block);
    const float product = (kForm == Form::kByteK16 && i >= 16 ? s.second : s.scale) * static_cast<float>(quant);
    return HasMin(kForm) ? product + s.min : product;
  }
}
REPRISE_HD float Unpack(const WeightView& w, int output, int input) {
  switch (w.form) {
    case Form::kF32: return UnpackAs<Form::kF32>(w, output, input);
    case Form::kF16: return UnpackAs<Form::kF16>(w, output, input);
    case Form::kBF16: return UnpackAs<Form::kBF16>(w, output, input);
    case Form::kByte: return UnpackAs<Form::kByte>(w, output, input);
    case Form::kByteMin: return UnpackAs<Form::kByteMin>(w, output, input);
    case Form::kByteK: return UnpackAs<Form::kByteK>(w, output, input);
    case Form::kByteK16: return UnpackAs<Form::kByteK16>(w, output, input);
    case Form::kNibble: return UnpackAs<Form::kNibble>(w, output, input);
    case Form::kNibbleMin: return UnpackAs<Form::kNibbleMin>(w, output, input);
    case Form::kNibbleK: return UnpackAs<Form::kNibbleK>(w, output, input);
    case Form::kNibbleE2M1: return UnpackAs<Form::kNibbleE2M1>(w, output, input);
  }
  return 0.0f;
}

class PackedWeight : public Matrix {
 public:
  // Checks `source` (type, sizes) and computes the layout; view.data is then to be set to total_bytes() of device memory.
  static Result<PackedWeight> Plan(const WeightSource& source);

  size_t tile_bytes() const { return static_cast<size_t>(view.segments) * static_cast<size_t>(SegmentBytes(view.form)); }
  size_t total_bytes() const { return tile_bytes() * static_cast<size_t>(view.tiles()); }
  // Fills `to`, of tile_bytes(), with tile `index`.
  void PackTile(const std::byte* source, int index, std::byte* to) const;

  WeightView view{};
  TensorType type{};
  size_t source_row_bytes = 0;
};

}  // namespace reprise::cuda
