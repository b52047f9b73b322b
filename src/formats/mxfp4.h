// MXFP4: the floats of four bits, E2M1, and the powers of two, E8M0, that its blocks are made of (OCP Microscaling Formats, version 1.0).
//
// A code is a sign (bit 3) and one of eight magnitudes, which are whole numbers when doubled. So everybody computes with doubled values and halved
// scales: a value is HalfScale(e) times a whole number, one multiplication of what floats hold exactly. Every exponent byte has a half scale:
// of 0 and 1 they are subnormal. 255 is not made a NaN, as the specification would have it, but goes on as the exponent that it is, as in ggml: of
// the values of such a block those of magnitude 0 and 0.5 are finite, and the others infinite.
#pragma once

#include <bit>
#include <cstdint>

namespace reprise {

// Of codes 0 to 15; -0 is 0.
inline constexpr int8_t kTwiceE2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
inline constexpr int kMostTwiceE2M1 = 12;

// 2^(exponent - 128), as the bits of a float: the greater of what is right from 2 on and what is right of 0 and 1.
constexpr int32_t HalfScaleBits(int32_t exponent) {
  const int32_t normal = (exponent - 1) * (1 << 23), subnormal = (exponent + 1) * (1 << 21);
  return normal > subnormal ? normal : subnormal;
}
constexpr float HalfScale(uint8_t exponent) { return std::bit_cast<float>(HalfScaleBits(exponent)); }

}  // namespace reprise
