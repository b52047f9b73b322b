// REPRISE_DISPATCH(target, Call): Call of the namespace of `target`, for use once a file, after all targets have been compiled.
#pragma once

#include "backend/cpu/targets.h"
#include "hwy/highway.h"

#if HWY_TARGETS & HWY_AVX3
#define REPRISE_CASE_AVX3(call) \
  case HWY_AVX3:                \
    N_AVX3::call;               \
    break;
#else
#define REPRISE_CASE_AVX3(call)
#endif
#if HWY_TARGETS & HWY_AVX2
#define REPRISE_CASE_AVX2(call) \
  case HWY_AVX2:                \
    N_AVX2::call;               \
    break;
#else
#define REPRISE_CASE_AVX2(call)
#endif
#if HWY_TARGETS & HWY_SSE4
#define REPRISE_CASE_SSE4(call) \
  case HWY_SSE4:                \
    N_SSE4::call;               \
    break;
#else
#define REPRISE_CASE_SSE4(call)
#endif
#if HWY_TARGETS & HWY_NEON
#define REPRISE_CASE_NEON(call) \
  case HWY_NEON:                \
    N_NEON::call;               \
    break;
#else
#define REPRISE_CASE_NEON(call)
#endif

#define REPRISE_DISPATCH(target, call) \
  switch (target) {                    \
    REPRISE_CASE_AVX3(call)            \
    REPRISE_CASE_AVX2(call)            \
    REPRISE_CASE_SSE4(call)            \
    REPRISE_CASE_NEON(call)            \
    default: break;                    \
  }
