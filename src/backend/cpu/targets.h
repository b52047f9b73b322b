// Which instruction sets the kernels are compiled for. Include before any Highway header, in every file that holds kernels.
//
// SSE4 is the least that an x86 processor must have. AVX3 (Skylake's AVX-512) is used only where the processor has VNNI too, so that one
// AVX-512 path remains; the dot product itself is a line of assembly and needs no compiler target of its own.
// Scalable vectors are left out: the kernels assume that 16 floats are a fixed number of vectors.
#pragma once

#include <cstdint>

#define HWY_WANT_SSE4 1
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

// Before a loop over registers: it must disappear.
#if defined(__clang__)
#define REPRISE_UNROLL _Pragma("unroll")
#else
#define REPRISE_UNROLL _Pragma("GCC unroll 16")
#endif

namespace reprise {

// Which instructions multiply bytes, where processors of one target differ in it. They all compute the same sums.
enum class ByteDot : uint8_t {
  kTarget,  // what every processor of the target has
  kSigned,  // 64-bit ARM with dotprod: sdot, of signed bytes
  kMixed,   // 64-bit ARM with i8mm: usdot, of unsigned with signed bytes
};

}  // namespace reprise
