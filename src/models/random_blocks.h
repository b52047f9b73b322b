// Random weights, made directly in their stored form: nothing is quantised, so that gigabytes take seconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/tensor_type.h"

namespace reprise {

// SplitMix64: small, fast, of full period, and the same on every machine.
class RandomBits {
 public:
  explicit RandomBits(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // In [0, 1), a multiple of 2^-24.
  float Unit() { return static_cast<float>(Next() >> 40) * 0x1p-24f; }

 private:
  uint64_t state_;
};

// F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K, MXFP4.
bool CanFillRandomly(TensorType type);

// Whole blocks of values that are uniform around zero with this standard deviation. Block scales vary by a quarter, so that a kernel that
// takes the scale of the wrong block is seen.
void FillRandomly(TensorType type, float deviation, RandomBits& random, std::span<std::byte> blocks);

}  // namespace reprise
