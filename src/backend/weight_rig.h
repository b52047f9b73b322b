// For tests: weights and vectors for the jobs of job_rig.h.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "backend/job_rig.h"
#include "base/half.h"
#include "formats/tensor_type.h"

namespace reprise {

inline Vector LoadFloats(Backend& backend, const Floats1d& x, int64_t outputs = 1) {
  const auto bytes = BytesOf(x);
  auto vector = backend.LoadVector({"test", TensorType::kF32, static_cast<int64_t>(x.size()) / outputs, outputs, bytes});
  EXPECT_TRUE(vector.ok()) << vector.status().message();
  return *vector;
}

// Bytes of a random matrix of `type`: random blocks, with sensible scales.
inline std::vector<std::byte> RandomWeight(TensorType type, int inputs, int outputs, uint32_t seed) {
  const TensorTypeTraits& traits = TraitsOf(type);
  const size_t bytes = *TensorBytes(type, static_cast<uint64_t>(inputs), static_cast<uint64_t>(outputs));
  std::vector<std::byte> data(bytes);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  const auto half_at = [&](size_t at, float x) {
    const uint16_t bits = FloatToHalf(x);
    std::memcpy(data.data() + at, &bits, 2);
  };
  if (type == TensorType::kF32) {
    for (size_t i = 0; i < bytes; i += 4) {
      const float x = uniform(random);
      std::memcpy(data.data() + i, &x, 4);
    }
    return data;
  }
  if (type == TensorType::kF16 || type == TensorType::kBF16) {
    for (size_t i = 0; i < bytes; i += 2) {
      const uint16_t bits = type == TensorType::kF16 ? FloatToHalf(uniform(random)) : FloatToBFloat16(uniform(random));
      std::memcpy(data.data() + i, &bits, 2);
    }
    return data;
  }
  for (std::byte& b : data) b = static_cast<std::byte>(random());
  for (size_t block = 0; block < bytes; block += traits.block_bytes) {
    if (type == TensorType::kQ6_K) {
      half_at(block + 208, uniform(random) * 0.01f);
    } else if (type == TensorType::kMXFP4) {
      data[block] = static_cast<std::byte>(119 + random() % 5);  // 2^-8 to 2^-4
    } else {
      half_at(block, uniform(random) * 0.1f);
      if (type == TensorType::kQ4_1 || type == TensorType::kQ5_1 || type == TensorType::kQ4_K || type == TensorType::kQ5_K) {
        half_at(block + 2, uniform(random) * 0.1f);
      }
    }
  }
  return data;
}

}  // namespace reprise
