#include "formats/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "formats/mxfp4.h"

namespace reprise {
namespace {

using Byte = unsigned char;

template <class T>
T Load(const Byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <class T>
void Store(Byte* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

float LoadHalf(const Byte* at) { return HalfToFloat(Load<uint16_t>(at)); }

// ---- Blocks to floats. Each reads one block and writes its elements. ----

void DequantizeF32(const Byte* in, float* out) { *out = Load<float>(in); }
void DequantizeF16(const Byte* in, float* out) { *out = LoadHalf(in); }
void DequantizeBF16(const Byte* in, float* out) { *out = BFloat16ToFloat(Load<uint16_t>(in)); }

void DequantizeQ4_0(const Byte* in, float* out) {
  const float d = LoadHalf(in);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((in[2 + i] & 15) - 8) * d;
    out[i + 16] = static_cast<float>((in[2 + i] >> 4) - 8) * d;
  }
}

void DequantizeQ4_1(const Byte* in, float* out) {
  const float d = LoadHalf(in), m = LoadHalf(in + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(in[4 + i] & 15) * d + m;
    out[i + 16] = static_cast<float>(in[4 + i] >> 4) * d + m;
  }
}

void DequantizeQ5_0(const Byte* in, float* out) {
  const float d = LoadHalf(in);
  const auto fifth = Load<uint32_t>(in + 2);
  for (int i = 0; i < 16; ++i) {
    const int low = (in[6 + i] & 15) | static_cast<int>(fifth >> i & 1) << 4;
    const int high = in[6 + i] >> 4 | static_cast<int>(fifth >> (i + 16) & 1) << 4;
    out[i] = static_cast<float>(low - 16) * d;
    out[i + 16] = static_cast<float>(high - 16) * d;
  }
}

void DequantizeQ5_1(const Byte* in, float* out) {
  const float d = LoadHalf(in), m = LoadHalf(in + 2);
  const auto fifth = Load<uint32_t>(in + 4);
  for (int i = 0; i < 16; ++i) {
    const int low = (in[8 + i] & 15) | static_cast<int>(fifth >> i & 1) << 4;
    const int high = in[8 + i] >> 4 | static_cast<int>(fifth >> (i + 16) & 1) << 4;
    out[i] = static_cast<float>(low) * d + m;
    out[i + 16] = static_cast<float>(high) * d + m;
  }
}

void DequantizeQ8_0(const Byte* in, float* out) {
  const float d = LoadHalf(in);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(in[2 + i])) * d;
}

struct ScaleAndMin {
  int scale;
  int min;
};

// The 12 bytes hold, for groups 0-3, scale and minimum in the low 6 bits of bytes g and g + 4; for groups 4-7 their low 4 bits in the
// nibbles of byte g + 4, and their high 2 bits on top of bytes g - 4 and g.
ScaleAndMin UnpackScale(const Byte* packed, int group) {
  if (group < 4) return {packed[group] & 63, packed[group + 4] & 63};
  return {(packed[group + 4] & 15) | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4};
}

void DequantizeQ4_K(const Byte* in, float* out) {
  const float d = LoadHalf(in), dmin = LoadHalf(in + 2);
  const Byte* nibbles = in + 16;
  for (int group = 0; group < 8; ++group) {
    const auto [scale, min] = UnpackScale(in + 4, group);
    const float step = d * static_cast<float>(scale), base = dmin * static_cast<float>(min);
    const Byte* q = nibbles + group / 2 * 32;
    for (int i = 0; i < 32; ++i) *out++ = step * static_cast<float>(group % 2 == 0 ? q[i] & 15 : q[i] >> 4) - base;
  }
}

void DequantizeQ5_K(const Byte* in, float* out) {
  const float d = LoadHalf(in), dmin = LoadHalf(in + 2);
  const Byte* fifth = in + 16;  // bit g of byte i belongs to element i of group g
  const Byte* nibbles = in + 48;
  for (int group = 0; group < 8; ++group) {
    const auto [scale, min] = UnpackScale(in + 4, group);
    const float step = d * static_cast<float>(scale), base = dmin * static_cast<float>(min);
    const Byte* q = nibbles + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int value = (group % 2 == 0 ? q[i] & 15 : q[i] >> 4) | (fifth[i] >> group & 1) << 4;
      *out++ = step * static_cast<float>(value) - base;
    }
  }
}

void DequantizeQ6_K(const Byte* in, float* out) {
  const float d = LoadHalf(in + 208);
  for (int half = 0; half < 2; ++half) {  // of 128 elements: four runs of 32, two nibbles and four pairs of high bits abreast
    const Byte* low = in + half * 64;
    const Byte* high = in + 128 + half * 32;
    const Byte* scales = in + 192 + half * 8;
    for (int run = 0; run < 4; ++run) {
      for (int i = 0; i < 32; ++i) {
        const int nibbles = low[i + run % 2 * 32];
        const int value = (run < 2 ? nibbles & 15 : nibbles >> 4) | (high[i] >> (2 * run) & 3) << 4;
        const auto scale = static_cast<int8_t>(scales[run * 2 + i / 16]);
        *out++ = d * static_cast<float>(scale) * static_cast<float>(value - 32);
      }
    }
  }
}

void DequantizeMXFP4(const Byte* in, float* out) {
  const float half = HalfScale(in[0]);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(kTwiceE2M1[in[1 + i] & 15]) * half;
    out[i + 16] = static_cast<float>(kTwiceE2M1[in[1 + i] >> 4]) * half;
  }
}

// ---- Floats to blocks. False when the block's values have no such form. ----

bool QuantizeF32(const float* in, Byte* out) { return Store(out, *in), true; }
bool QuantizeF16(const float* in, Byte* out) { return Store(out, FloatToHalf(*in)), true; }
bool QuantizeBF16(const float* in, Byte* out) { return Store(out, FloatToBFloat16(*in)), true; }

bool StoreHalf(Byte* at, float value) {
  const uint16_t half = FloatToHalf(value);
  Store(at, half);
  return (half & 0x7c00) != 0x7c00;
}

bool AllFinite(const float* in) {
  return std::all_of(in, in + 32, [](float x) { return std::isfinite(x); });
}

// Of a step so small that its inverse overflows, the half is zero as well: such a block becomes zero.
float Inverse(float step) {
  const float inverse = step != 0 ? 1.0f / step : 0.0f;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

bool QuantizeQ8_0(const float* in, Byte* out) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(in[i]));
  const float d = largest / 127.0f;
  const float inverse = Inverse(d);
  if (!AllFinite(in) || !StoreHalf(out, d)) return false;
  for (int i = 0; i < 32; ++i) out[2 + i] = static_cast<Byte>(static_cast<int8_t>(std::round(in[i] * inverse)));
  return true;
}

void StoreNibbles(Byte* out, const int* q) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<Byte>(q[i] | q[i + 16] << 4);
}

bool QuantizeQ4_0(const float* in, Byte* out) {
  float extreme = 0;  // the first of the largest magnitude, with its sign: it lands on -8, exactly
  for (int i = 0; i < 32; ++i) extreme = std::fabs(in[i]) > std::fabs(extreme) ? in[i] : extreme;
  const float d = extreme / -8.0f;
  const float inverse = Inverse(d);
  if (!AllFinite(in) || !StoreHalf(out, d)) return false;
  int q[32];
  for (int i = 0; i < 32; ++i) q[i] = std::min(15, static_cast<int>(in[i] * inverse + 8.5f));
  StoreNibbles(out + 2, q);
  return true;
}

bool QuantizeQ4_1(const float* in, Byte* out) {
  if (!AllFinite(in)) return false;
  const auto [least, most] = std::minmax_element(in, in + 32);
  const float min = *least;
  const float d = (*most - min) / 15.0f;
  const float inverse = Inverse(d);
  if (!StoreHalf(out, d) || !StoreHalf(out + 2, min)) return false;
  int q[32];
  for (int i = 0; i < 32; ++i) q[i] = std::min(15, static_cast<int>(std::lround((in[i] - min) * inverse)));
  StoreNibbles(out + 4, q);
  return true;
}

// The scale is the power of two that the greatest magnitude is less than 8 times of, and at least 4 times; where that would be less than the least, the
// least.
bool QuantizeMXFP4(const float* in, Byte* out) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(in[i]));
  if (!AllFinite(in)) return false;
  const int exponent = largest > 0 ? std::max(0, std::ilogb(largest) - 2 + 127) : 0;
  out[0] = static_cast<Byte>(exponent);
  const float half = HalfScale(out[0]);
  int q[32];
  for (int i = 0; i < 32; ++i) {
    const auto error = [&](int code) { return std::fabs(static_cast<float>(kTwiceE2M1[code]) * half - in[i]); };
    q[i] = 0;
    for (int code = 1; code < 16; ++code) q[i] = error(code) < error(q[i]) ? code : q[i];
  }
  StoreNibbles(out + 1, q);
  return true;
}

struct Conversion {
  TensorType type;
  void (*dequantize)(const Byte*, float*);
  bool (*quantize)(const float*, Byte*);  // null where it is not offered
};

constexpr Conversion kConversions[] = {
    {TensorType::kF32, DequantizeF32, QuantizeF32},    {TensorType::kF16, DequantizeF16, QuantizeF16},
    {TensorType::kBF16, DequantizeBF16, QuantizeBF16}, {TensorType::kQ4_0, DequantizeQ4_0, QuantizeQ4_0},
    {TensorType::kQ4_1, DequantizeQ4_1, QuantizeQ4_1}, {TensorType::kQ5_0, DequantizeQ5_0, nullptr},
    {TensorType::kQ5_1, DequantizeQ5_1, nullptr},      {TensorType::kQ8_0, DequantizeQ8_0, QuantizeQ8_0},
    {TensorType::kQ4_K, DequantizeQ4_K, nullptr},      {TensorType::kQ5_K, DequantizeQ5_K, nullptr},
    {TensorType::kQ6_K, DequantizeQ6_K, nullptr},      {TensorType::kMXFP4, DequantizeMXFP4, QuantizeMXFP4},
};

const Conversion* FindConversion(TensorType type) {
  const auto* it = std::ranges::find(kConversions, type, &Conversion::type);
  return it != std::end(kConversions) ? it : nullptr;
}

// How many blocks a row is, or an error when the sizes of its two forms disagree.
Result<size_t> Blocks(TensorType type, size_t elements, size_t bytes) {
  const TensorTypeTraits& t = TraitsOf(type);
  if (elements % t.block_elements != 0 || elements / t.block_elements * t.block_bytes != bytes) {
    return InvalidArgument(fmt::format("{} elements and {} bytes are not one row of {}", elements, bytes, t.name));
  }
  return elements / t.block_elements;
}

}  // namespace

bool CanDequantize(TensorType type) { return FindConversion(type) != nullptr; }

bool CanQuantize(TensorType type) {
  const Conversion* conversion = FindConversion(type);
  return conversion != nullptr && conversion->quantize != nullptr;
}

Status DequantizeRow(TensorType type, std::span<const std::byte> blocks, std::span<float> row) {
  const Conversion* conversion = FindConversion(type);
  if (conversion == nullptr) return Unsupported(fmt::format("{} weights cannot be computed with", TensorTypeName(type)));
  REPRISE_ASSIGN_OR_RETURN(const size_t count, Blocks(type, row.size(), blocks.size()));
  const TensorTypeTraits& t = TraitsOf(type);
  const auto* in = reinterpret_cast<const Byte*>(blocks.data());
  for (size_t b = 0; b < count; ++b) conversion->dequantize(in + b * t.block_bytes, row.data() + b * t.block_elements);
  return Ok();
}

Status QuantizeRow(TensorType type, std::span<const float> row, std::span<std::byte> blocks) {
  if (!CanQuantize(type)) return Unsupported(fmt::format("weights cannot be quantised to {}", TensorTypeName(type)));
  REPRISE_ASSIGN_OR_RETURN(const size_t count, Blocks(type, row.size(), blocks.size()));
  const TensorTypeTraits& t = TraitsOf(type);
  auto* out = reinterpret_cast<Byte*>(blocks.data());
  for (size_t b = 0; b < count; ++b) {
    if (!FindConversion(type)->quantize(row.data() + b * t.block_elements, out + b * t.block_bytes)) {
      return InvalidArgument(fmt::format("elements {} to {} hold a value that {} cannot: infinite, not a number, or too large",
                                         b * t.block_elements, (b + 1) * t.block_elements - 1, t.name));
    }
  }
  return Ok();
}

}  // namespace reprise
