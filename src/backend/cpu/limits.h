// What the processors of this machine can do at most, measured: the yardstick that benchmarks hold their figures against.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/targets.h"

namespace reprise {

// The loops of one instruction set; what they return keeps the compiler from leaving them out.
struct LimitLoops {
  int32_t (*multiply)(const uint8_t* weights, const int8_t* acts, int64_t products) = nullptr;  // 64 multiplications of bytes each
  int32_t (*read)(const std::byte* from, size_t bytes) = nullptr;
};

// On `threads` threads at once, with the instruction set `target` (a Highway target) and its products of bytes. Takes about a second and 256 MiB.
BackendLimits MeasureCpuLimits(int64_t target, ByteDot dot, int threads);

}  // namespace reprise
