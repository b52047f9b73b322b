#include "models/random_blocks.h"

#include <cassert>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "formats/mxfp4.h"

namespace reprise {
namespace {

// The standard deviation of a uniform distribution: of q in steps 0 .. n - 1, and of a value in [-1, 1).
float StepsDeviation(float n) { return std::sqrt((n * n - 1.0f) / 12.0f); }
const float kUnitDeviation = std::sqrt(1.0f / 3.0f);

void Put(std::byte*& out, uint16_t value) {
  std::memcpy(out, &value, sizeof(value));
  out += sizeof(value);
}

void PutBits(std::byte*& out, RandomBits& random, size_t count) {
  for (; count > 0; count -= sizeof(uint64_t), out += sizeof(uint64_t)) {
    const uint64_t bits = random.Next();
    std::memcpy(out, &bits, sizeof(bits));
  }
}

// 0.75 to 1.25 of `scale`.
float Varied(float scale, RandomBits& random) { return scale * (0.75f + 0.5f * random.Unit()); }

void FillQ8_0(float deviation, RandomBits& random, std::span<std::byte> blocks) {
  const float scale = deviation / StepsDeviation(255);
  for (std::byte *out = blocks.data(), *end = out + blocks.size(); out < end;) {
    Put(out, FloatToHalf(Varied(scale, random)));
    PutBits(out, random, 32);
    // Quantisers give -127 to 127, so -128 (which a kernel may not negate in 8 bits) has no place here.
    for (std::byte* q = out - 32; q < out; ++q) *q = *q == std::byte{0x80} ? std::byte{0} : *q;
  }
}

void FillQ4_0(float deviation, RandomBits& random, std::span<std::byte> blocks) {
  const float scale = deviation / StepsDeviation(16);
  for (std::byte *out = blocks.data(), *end = out + blocks.size(); out < end;) {
    // Nibbles mean -8 to 7, half a step below zero on average; with scales of both signs the weights as a whole are not.
    const float sign = random.Next() & 1 ? 1.0f : -1.0f;
    Put(out, FloatToHalf(sign * Varied(scale, random)));
    PutBits(out, random, 16);
  }
}

void FillQ4_1(float deviation, RandomBits& random, std::span<std::byte> blocks) {
  const float scale = deviation / StepsDeviation(16);
  for (std::byte *out = blocks.data(), *end = out + blocks.size(); out < end;) {
    const float d = Varied(scale, random);
    Put(out, FloatToHalf(d));
    Put(out, FloatToHalf(-7.5f * d));
    PutBits(out, random, 16);
  }
}

// The scales of a block of 256 vary by a quarter too, around the middle of their 6 bits; -8 to 8 of 32 steps.
constexpr int kMiddleScale = 32;
int VariedScale(RandomBits& random) { return kMiddleScale - 8 + static_cast<int>(random.Next() % 17); }

void FillQ4_K(float deviation, RandomBits& random, std::span<std::byte> blocks) {
  const float step = deviation / StepsDeviation(16) / kMiddleScale;
  for (std::byte *out = blocks.data(), *end = out + blocks.size(); out < end;) {
    // With minima equal to the scales, and 7.5 times their step, the weights are zero on average.
    Put(out, FloatToHalf(step));
    Put(out, FloatToHalf(7.5f * step));
    // 8 scales, then 8 minima, of 6 bits in 12 bytes (formats/quantize.h).
    int scale[8];
    for (int& one : scale) one = VariedScale(random);
    for (int g = 0; g < 4; ++g) {
      const auto packed = static_cast<std::byte>(scale[g] | scale[g + 4] >> 4 << 6);
      out[g] = out[g + 4] = packed;
      out[g + 8] = static_cast<std::byte>((scale[g + 4] & 15) | (scale[g + 4] & 15) << 4);
    }
    out += 12;
    PutBits(out, random, 128);
  }
}

void FillQ6_K(float deviation, RandomBits& random, std::span<std::byte> blocks) {
  const float step = deviation / StepsDeviation(64) / kMiddleScale;
  for (std::byte *out = blocks.data(), *end = out + blocks.size(); out < end;) {
    PutBits(out, random, 128 + 64);
    // Values mean -32 to 31, half a step below zero on average; with scales of both signs the weights as a whole are not.
    for (int g = 0; g < 16; ++g) *out++ = static_cast<std::byte>(random.Next() & 1 ? VariedScale(random) : -VariedScale(random));
    Put(out, FloatToHalf(step));
  }
}

void FillMXFP4(float deviation, RandomBits& random, std::span<std::byte> blocks) {
  // Of two neighbouring powers of two the greater is as frequent as the mean square asks for.
  float square = 0;
  for (const int8_t value : kTwiceE2M1) square += static_cast<float>(value * value) / 16;
  int exponent;
  const float ratio = 2 * std::frexp(deviation / std::sqrt(square), &exponent);  // of what half a scale is to be to 2^(exponent - 1)
  const float greater = (ratio * ratio - 1) / 3;
  for (std::byte *out = blocks.data(), *end = out + blocks.size(); out < end;) {
    *out++ = static_cast<std::byte>(exponent - 1 + 128 + (random.Unit() < greater ? 1 : 0));
    PutBits(out, random, 16);
  }
}

template <class T, class Convert>
void FillValues(float deviation, RandomBits& random, std::span<std::byte> blocks, Convert convert) {
  const float reach = deviation / kUnitDeviation;
  for (std::byte *out = blocks.data(), *end = out + blocks.size(); out < end; out += sizeof(T)) {
    const T value = convert((2 * random.Unit() - 1) * reach);
    std::memcpy(out, &value, sizeof(value));
  }
}

}  // namespace

bool CanFillRandomly(TensorType type) {
  switch (type) {
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
    case TensorType::kQ8_0:
    case TensorType::kQ4_0:
    case TensorType::kQ4_1:
    case TensorType::kQ4_K:
    case TensorType::kQ6_K:
    case TensorType::kMXFP4: return true;
    default: return false;
  }
}

void FillRandomly(TensorType type, float deviation, RandomBits& random, std::span<std::byte> blocks) {
  switch (type) {
    case TensorType::kF32: return FillValues<float>(deviation, random, blocks, [](float x) { return x; });
    case TensorType::kF16: return FillValues<uint16_t>(deviation, random, blocks, FloatToHalf);
    case TensorType::kBF16: return FillValues<uint16_t>(deviation, random, blocks, FloatToBFloat16);
    case TensorType::kQ8_0: return FillQ8_0(deviation, random, blocks);
    case TensorType::kQ4_0: return FillQ4_0(deviation, random, blocks);
    case TensorType::kQ4_1: return FillQ4_1(deviation, random, blocks);
    case TensorType::kQ4_K: return FillQ4_K(deviation, random, blocks);
    case TensorType::kQ6_K: return FillQ6_K(deviation, random, blocks);
    case TensorType::kMXFP4: return FillMXFP4(deviation, random, blocks);
    default: assert(false);
  }
}

}  // namespace reprise
