// Arithmetic that decides bits, the same on device and host: every product and sum is rounded as written (nvcc runs with -fmad=false, the host
// compiler with -ffp-contract=off), and what is fused is fused by name. So the emulator's results are the device's results, bit for bit, but for sums
// of products of 16-bit floats on the tensor cores, which each kind of device rounds in its own way (half_attention_kernels.h, short_matmul_kernels.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "backend/cuda/platform.h"
#include "backend/ops.h"
#include "base/half.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace reprise::cuda {

REPRISE_HD uint32_t BitsOf(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
#endif
}
REPRISE_HD float FloatOf(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
#endif
}
REPRISE_HD float HalfBitsToFloat(uint32_t half) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(static_cast<unsigned short>(half)));
#else
  return HalfToFloat(static_cast<uint16_t>(half));
#endif
}
// Four of the eight bytes of `low` and `high`, which the three low bits of each of the four lower nibbles of `which` say.
REPRISE_HD uint32_t PickBytes(uint32_t low, uint32_t high, uint32_t which) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(low, high, which);
#else
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) picked |= static_cast<uint32_t>(bytes >> (8 * (which >> (4 * i) & 7)) & 0xff) << (8 * i);
  return picked;
#endif
}
REPRISE_HD uint16_t FloatToHalfBits(float x) {
#if defined(__CUDA_ARCH__)
  return __half_as_ushort(__float2half_rn(x));
#else
  return FloatToHalf(x);
#endif
}

// Within 2 units in the last place; 0 below -87.3, infinity above 88.72, NaN for NaN. The CPU backend's polynomial.
REPRISE_HD float Exp(float x) {
  const float clamped = fminf(fmaxf(x, -88.0f), 88.8f);
  const float nf = rintf(clamped * 1.44269504f);
  const int n = static_cast<int>(nf);
  float r = fmaf(nf, -0.693359375f, clamped);
  r = fmaf(nf, 2.12194440e-4f, r);
  float poly = 1.9891030647e-4f;
  poly = fmaf(poly, r, 1.3933685863e-3f);
  poly = fmaf(poly, r, 8.3333108896e-3f);
  poly = fmaf(poly, r, 4.1666464602e-2f);
  poly = fmaf(poly, r, 1.6666666682e-1f);
  poly = fmaf(poly, r, 5.0000000135e-1f);
  poly = fmaf(poly, r * r, r) + 1.0f;
  const int half = n >> 1;  // 2^n in two factors, because n may be 128
  const float y = poly * FloatOf(static_cast<uint32_t>(half + 127) << 23) * FloatOf(static_cast<uint32_t>(n - half + 127) << 23);
  if (x != x) return x;
  if (x < -87.3f) return 0.0f;
  if (x > 88.72283f) return FloatOf(0x7f800000u);
  return y;
}
REPRISE_HD float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }
REPRISE_HD float Silu(float x) { return x / (1.0f + Exp(-x)); }
// The form with a hyperbolic tangent: x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
REPRISE_HD float Gelu(float x) { return x / (1.0f + Exp(x * fmaf(x * x, -1.5957691216f * 0.044715f, -1.5957691216f))); }
// As Activation::kClampedSwiGlu says. A NaN stays one.
REPRISE_HD float ClampedSwiGlu(float gate, float up) {
  const float g = gate > kClamp ? float{kClamp} : gate, u = up > kClamp ? float{kClamp} : up < -kClamp ? -kClamp : up;
  return (u + 1.0f) * (g / (1.0f + Exp(g * -kGateSlope)));
}

// log(1 + exp(x)) = max(x, 0) + log1p(y), y = exp(-|x|); log1p(y) = 2 atanh(s), s = y / (2 + y) <= 1/3, by its series.
REPRISE_HD float Softplus(float x) {
  const float y = Exp(-fabsf(x));
  const float s = y / (2.0f + y);
  const float z = s * s;
  float poly = 1.0f / 17;
  poly = fmaf(poly, z, 1.0f / 15);
  poly = fmaf(poly, z, 1.0f / 13);
  poly = fmaf(poly, z, 1.0f / 11);
  poly = fmaf(poly, z, 1.0f / 9);
  poly = fmaf(poly, z, 1.0f / 7);
  poly = fmaf(poly, z, 1.0f / 5);
  poly = fmaf(poly, z, 1.0f / 3);
  poly = fmaf(poly, z, 1.0f);
  return fmaf(s + s, poly, x > 0.0f ? x : x != x ? x : 0.0f);
}

// Cosine and sine of `turn` / 2^64 of a full turn; see backend/cpu/kernels_portable.cc.
REPRISE_HD void CosSin(uint64_t turn, float* cosine, float* sine) {
  const uint64_t quarter = (turn + (uint64_t{1} << 61)) >> 62;
  const auto rest = static_cast<int64_t>(turn - (quarter << 62));
  const double x = static_cast<double>(rest) * (6.283185307179586476925286766559 / 18446744073709551616.0);
  const double z = x * x;
  const double s = x * (1 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800))))));
  const double c =
      1 + z * (-1.0 / 2 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600))))));
  const int q = static_cast<int>(quarter & 3);
  *cosine = static_cast<float>(q == 0 ? c : q == 1 ? -s : q == 2 ? -c : s);
  *sine = static_cast<float>(q == 0 ? s : q == 1 ? c : q == 2 ? -s : -c);
}

// How a block of 32 activations is quantised, from the bits of its greatest magnitude. A block that holds a NaN or an infinity gets the scale
// NaN: what was broken stays visible. Ordered as integers, magnitudes keep their order, and infinities and NaNs come out on top.
struct QuantScale {
  float scale, inverse;
};
REPRISE_HD QuantScale ScaleOfTop(uint32_t top_bits) {
  if (top_bits >= 0x7f800000u) return {FloatOf(0x7fc00000u), 0.0f};
  const float top = FloatOf(top_bits);
  if (top < 1e-30f) return {0.0f, 0.0f};
  return {top / 127.0f, 127.0f / top};
}
REPRISE_HD int Quantise(float x, float inverse) { return inverse != 0.0f ? static_cast<int>(rintf(x * inverse)) : 0; }

// How a block of 32 keys or values is kept as bytes (ElementType::kQ8_0): to the bit as the CPU's backend does it (kernels_portable.cc).
struct KeptScale {
  uint16_t scale;  // a half
  float inverse;
};
REPRISE_HD KeptScale KeptScaleOfTop(uint32_t top_bits) {
  constexpr uint16_t kNaN = 0x7e00;
  if (top_bits >= 0x7f800000u) return {kNaN, 0.0f};
  const float scale = FloatOf(top_bits) / 127.0f;
  return {FloatToHalfBits(scale), scale < FloatOf(0x00800000u) ? 0.0f : 1.0f / scale};
}
REPRISE_HD int8_t KeptQuant(float x, float inverse) {
  const float scaled = inverse == 0.0f ? 0.0f : x * inverse;
  return static_cast<int8_t>(static_cast<int>(scaled + copysignf(0.5f, scaled)));  // halves away from zero
}

// Floats as sums of 16-bit floats, which the tensor cores multiply. Both of a pair at once: the first is the lower half of each word.
//
// Three bfloat16 hold a float's 24 bits: each part is the upper half of what the ones before it leave, and every difference is exact. An infinity
// leaves NaN.
REPRISE_HD void SplitToBFloats(float first, float second, uint32_t parts[3]) {
  REPRISE_UNROLLED for (int i = 0; i < 3; ++i) {
    const uint32_t lower = BitsOf(first), upper = BitsOf(second) & 0xffff0000u;
    parts[i] = lower >> 16 | upper;
    first = first - FloatOf(lower & 0xffff0000u);
    second = second - FloatOf(upper);
  }
}
// Two halves hold 22 bits of numbers from 2^-2 to 2^15; of smaller ones what is above 2^-25.
REPRISE_HD void SplitToHalves(float first, float second, uint32_t parts[2]) {
  REPRISE_UNROLLED for (int i = 0; i < 2; ++i) {
    const uint32_t lower = FloatToHalfBits(first), upper = FloatToHalfBits(second);
    parts[i] = lower | upper << 16;
    first = first - HalfBitsToFloat(lower);
    second = second - HalfBitsToFloat(upper);
  }
}
// The powers of two that bring numbers, by the bits of their greatest magnitude, below 2^15 and no further than needed, and back. Infinities and NaNs
// stay what they are.
struct PowerScale {
  float up, down;
};
REPRISE_HD PowerScale PowerOfTop(uint32_t top_bits) {
  uint32_t exponent = top_bits >> 23;
  if (exponent == 255) exponent = 127 + 14;
  if (exponent < 27) exponent = 27;  // lest 2^14 / 2^(exponent - 127) is no float
  return {FloatOf((2 * 127 + 14 - exponent) << 23), FloatOf((exponent - 14) << 23)};
}

// The factors with which a running softmax takes in the partial of the next block: sums = fma(next, joined, sums * kept). A block in which
// nothing was seen changes nothing, not even the sign of a zero: `joined` is -1 then.
struct JoinFactors {
  float most, kept, joined;
};
REPRISE_HD JoinFactors Join(float most, float next_most, float next_total) {
  if (next_total == 0.0f && next_most == -FloatOf(0x7f800000u)) return {most, 1.0f, -1.0f};
  const float both = most > next_most ? most : next_most;
  return {both, Exp(most - both), Exp(next_most - both)};
}
REPRISE_HD float Joined(float sum, float next, const JoinFactors& f) { return f.joined < 0.0f ? sum : fmaf(next, f.joined, sum * f.kept); }

}  // namespace reprise::cuda
