// An exponential made of additions and multiplications alone, so that two machines with different C libraries, and a device (constexpr is for nvcc), draw
// the same token.
// It needs a compiler that neither fuses nor reorders them (-ffp-contract=off, no -ffast-math).
#pragma once

#include <bit>
#include <cstdint>

namespace reprise {

// e^x for -700 <= x <= 0, to within 2 units in the last place.
constexpr double PortableExp(double x) {
  constexpr double kLog2E = 0x1.71547652b82fep+0;
  // ln 2 in two parts; the first has trailing zeros enough that k * kLn2High is exact.
  constexpr double kLn2High = 0x1.62e42feep-1;
  constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  // Adding 1.5 * 2^52 leaves no room for a fraction: the sum is rounded to the nearest integer.
  constexpr double kRound = 0x1.8p52;
  const double k = (x * kLog2E + kRound) - kRound;
  const double r = (x - k * kLn2High) - k * kLn2Low;  // |r| <= ln(2) / 2
  // Taylor's series: its 14th term is below 2^-57 there.
  constexpr double kInverseFactorials[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0};
  double sum = 0;
  for (const double c : kInverseFactorials) sum = sum * r + c;
  const auto exponent = static_cast<int64_t>(k) + 1023;
  return sum * std::bit_cast<double>(static_cast<uint64_t>(exponent) << 52);
}

}  // namespace reprise
