// What the same source needs to be compiled three ways: by nvcc for a device, by the host compiler as plain functions (packing, unit tests),
// and by the host compiler for the emulator, which runs the kernels themselves where there is no device (emulator/README.md).
#pragma once

#if defined(__CUDACC__)
#define REPRISE_HD __host__ __device__ __forceinline__
#else
#define REPRISE_HD inline
#endif

#if defined(__CUDACC__)
#define REPRISE_UNROLLED _Pragma("unroll")
#define REPRISE_ROLLED _Pragma("unroll 1")
#else
#define REPRISE_UNROLLED
#define REPRISE_ROLLED
#endif
