// Arithmetic on sizes that came from a file: every product, sum and round-up says when it does not fit.
#pragma once

#include <cstdint>
#include <optional>

namespace reprise {

inline std::optional<uint64_t> CheckedMul(uint64_t a, uint64_t b) {
  uint64_t r;
  if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}

inline std::optional<uint64_t> CheckedAdd(uint64_t a, uint64_t b) {
  uint64_t r;
  if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}

// `alignment` must be a power of two.
inline std::optional<uint64_t> CheckedAlignUp(uint64_t n, uint64_t alignment) {
  auto sum = CheckedAdd(n, alignment - 1);
  if (!sum) return std::nullopt;
  return *sum & ~(alignment - 1);
}

inline constexpr uint64_t AlignUp(uint64_t n, uint64_t alignment) { return (n + alignment - 1) & ~(alignment - 1); }
inline constexpr uint64_t CeilDiv(uint64_t n, uint64_t d) { return (n + d - 1) / d; }

}  // namespace reprise
