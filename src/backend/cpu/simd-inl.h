// Floats and Ints: 16 logical lanes, whatever the width of the machine's vectors (1 AVX-512 register, 2 AVX2, 4 SSE or NEON).
//
// Every kernel works in these units, so that which sums are formed in which order is the same on every instruction set. Reductions over the
// lanes go through one fixed tree. Included once a target (Highway's foreach_target).
#if defined(REPRISE_BACKEND_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_SIMD_INL_H_
#undef REPRISE_BACKEND_CPU_SIMD_INL_H_
#else
#define REPRISE_BACKEND_CPU_SIMD_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "backend/cpu/targets.h"
#include "base/half.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using TagF = hn::CappedTag<float, 16>;
using TagI = hn::RebindToSigned<TagF>;
inline constexpr TagF kTagF{};
inline constexpr TagI kTagI{};
inline constexpr int kPartLanes = HWY_LANES(float);
inline constexpr int kParts = 16 / kPartLanes;

struct Floats {
  hn::Vec<TagF> v[kParts];
};
struct Ints {
  hn::Vec<TagI> v[kParts];
};

#define REPRISE_PARTS REPRISE_UNROLL for (int p = 0; p < kParts; ++p)

// Fetches the line of `p` into the second-level cache. Any address will do.
HWY_INLINE void FetchFar(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, /*write=*/0, /*locality=*/2);
#else
  (void)p;
#endif
}

// The same for a line that will be written.
HWY_INLINE void FetchToWrite(const void* p) {
#if defined(__x86_64__) && defined(__GNUC__)
  // The builtin makes a prefetch for reading of it, unless the compiler is told of this instruction; every 64-bit processor at least ignores it.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#elif defined(__GNUC__)
  __builtin_prefetch(p, /*write=*/1, /*locality=*/2);
#else
  (void)p;
#endif
}

HWY_INLINE Floats Set(float x) {
  Floats r;
  REPRISE_PARTS r.v[p] = hn::Set(kTagF, x);
  return r;
}
HWY_INLINE Floats Zeros() {
  Floats r;
  REPRISE_PARTS r.v[p] = hn::Zero(kTagF);
  return r;
}
HWY_INLINE Ints SetInts(int32_t x) {
  Ints r;
  REPRISE_PARTS r.v[p] = hn::Set(kTagI, x);
  return r;
}
HWY_INLINE Floats Load(const float* from) {
  Floats r;
  REPRISE_PARTS r.v[p] = hn::LoadU(kTagF, from + p * kPartLanes);
  return r;
}
HWY_INLINE Ints LoadInts(const int32_t* from) {
  Ints r;
  REPRISE_PARTS r.v[p] = hn::LoadU(kTagI, from + p * kPartLanes);
  return r;
}
HWY_INLINE void Store(const Ints& x, int32_t* to) { REPRISE_PARTS hn::StoreU(x.v[p], kTagI, to + p * kPartLanes); }
HWY_INLINE void Store(Floats x, float* to) { REPRISE_PARTS hn::StoreU(x.v[p], kTagF, to + p * kPartLanes); }
// Past the caches, to an address that is a multiple of 64. hwy::FlushStream before anyone else reads it.
HWY_INLINE void StreamStore(Floats x, float* to) { REPRISE_PARTS hn::Stream(x.v[p], kTagF, to + p * kPartLanes); }

// The first `count` (0 to 16) floats, zeros after them; reads nothing else.
HWY_INLINE Floats LoadFirst(const float* from, int count) {
  if (count >= 16) return Load(from);
  HWY_ALIGN float padded[16] = {};
  std::memcpy(padded, from, static_cast<size_t>(count) * sizeof(float));
  return Load(padded);
}
HWY_INLINE void StoreFirst(Floats x, float* to, int count) {
  if (count >= 16) return Store(x, to);
  HWY_ALIGN float padded[16];
  Store(x, padded);
  std::memcpy(to, padded, static_cast<size_t>(count) * sizeof(float));
}

HWY_INLINE Floats Add(Floats a, Floats b) {
  REPRISE_PARTS a.v[p] = hn::Add(a.v[p], b.v[p]);
  return a;
}
HWY_INLINE Floats Sub(Floats a, Floats b) {
  REPRISE_PARTS a.v[p] = hn::Sub(a.v[p], b.v[p]);
  return a;
}
HWY_INLINE Floats Mul(Floats a, Floats b) {
  REPRISE_PARTS a.v[p] = hn::Mul(a.v[p], b.v[p]);
  return a;
}
HWY_INLINE Floats Div(Floats a, Floats b) {
  REPRISE_PARTS a.v[p] = hn::Div(a.v[p], b.v[p]);
  return a;
}
HWY_INLINE Floats Max(Floats a, Floats b) {
  REPRISE_PARTS a.v[p] = hn::Max(a.v[p], b.v[p]);
  return a;
}
HWY_INLINE Floats Min(Floats a, Floats b) {
  REPRISE_PARTS a.v[p] = hn::Min(a.v[p], b.v[p]);
  return a;
}
// x * x where x > 0, otherwise 0.
HWY_INLINE Floats SquarePositive(Floats x) {
  REPRISE_PARTS x.v[p] = hn::IfThenElseZero(hn::Gt(x.v[p], hn::Zero(kTagF)), hn::Mul(x.v[p], x.v[p]));
  return x;
}
HWY_INLINE Floats Neg(Floats a) {
  REPRISE_PARTS a.v[p] = hn::Neg(a.v[p]);
  return a;
}
HWY_INLINE Floats Abs(Floats a) {
  REPRISE_PARTS a.v[p] = hn::Abs(a.v[p]);
  return a;
}
// a * b + c, in one rounding where the machine has it (see numerics()).
HWY_INLINE Floats MulAdd(Floats a, Floats b, Floats c) {
  REPRISE_PARTS c.v[p] = hn::MulAdd(a.v[p], b.v[p], c.v[p]);
  return c;
}
HWY_INLINE float MulAdd(float a, float b, float c) {
  const hn::CappedTag<float, 1> d;
  return hn::GetLane(hn::MulAdd(hn::Set(d, a), hn::Set(d, b), hn::Set(d, c)));
}

HWY_INLINE Ints Add(Ints a, Ints b) {
  REPRISE_PARTS a.v[p] = hn::Add(a.v[p], b.v[p]);
  return a;
}
HWY_INLINE Floats ToFloats(Ints a) {
  Floats r;
  REPRISE_PARTS r.v[p] = hn::ConvertTo(kTagF, a.v[p]);
  return r;
}
HWY_INLINE Ints Nearest(Floats a) {
  Ints r;
  REPRISE_PARTS r.v[p] = hn::NearestInt(a.v[p]);
  return r;
}

// The lanes' sum, in this tree: l + (l + 8), then + 4, + 2, + 1.
template <class Tag, class V, class Op>
HWY_INLINE auto ReduceTree(Tag, const V& x, Op op) {
  [[maybe_unused]] const hn::CappedTag<hn::TFromD<Tag>, 4> d4;
#if HWY_MAX_BYTES == 64
  const hn::Half<Tag> d8;
  const auto eight = op(hn::LowerHalf(d8, x.v[0]), hn::UpperHalf(d8, x.v[0]));
  const auto four = op(hn::LowerHalf(d4, eight), hn::UpperHalf(d4, eight));
#elif HWY_MAX_BYTES == 32
  const auto eight = op(x.v[0], x.v[1]);
  const auto four = op(hn::LowerHalf(d4, eight), hn::UpperHalf(d4, eight));
#else
  const auto four = op(op(x.v[0], x.v[2]), op(x.v[1], x.v[3]));
#endif
  const auto two = op(four, hn::Shuffle1032(four));
  return hn::GetLane(op(two, hn::Shuffle2301(two)));
}

struct AddOp {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Add(a, b);
  }
};
struct MaxOp {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Max(a, b);
  }
};
HWY_INLINE float Sum(Floats x) { return ReduceTree(kTagF, x, AddOp()); }
HWY_INLINE int32_t Sum(Ints x) { return ReduceTree(kTagI, x, AddOp()); }
HWY_INLINE float MaxLane(Floats x) { return ReduceTree(kTagF, x, MaxOp()); }
HWY_INLINE int32_t MaxLane(Ints x) { return ReduceTree(kTagI, x, MaxOp()); }

// 16 half-precision values, exactly.
HWY_INLINE Floats LoadHalf(const uint16_t* from) {
#if HWY_TARGET == HWY_SSE4
  // No conversion instruction: by way of the exponent, exact for every finite half.
  HWY_ALIGN float wide[16];
  for (int i = 0; i < 16; ++i) wide[i] = HalfToFloat(from[i]);
  return Load(wide);
#else
  Floats r;
  const hn::Rebind<hwy::float16_t, TagF> d16;
  REPRISE_PARTS r.v[p] = hn::PromoteTo(kTagF, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from) + p * kPartLanes));
  return r;
#endif
}
HWY_INLINE Floats LoadHalfFirst(const uint16_t* from, int count) {
  if (count >= 16) return LoadHalf(from);
  HWY_ALIGN uint16_t padded[16] = {};
  std::memcpy(padded, from, static_cast<size_t>(count) * sizeof(uint16_t));
  return LoadHalf(padded);
}
HWY_INLINE Floats LoadBrain(const uint16_t* from) {
  Floats r;
  const hn::Rebind<uint16_t, TagF> d16;
  const hn::RebindToUnsigned<TagF> d32;
  REPRISE_PARTS r.v[p] = hn::BitCast(kTagF, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, from + p * kPartLanes))));
  return r;
}

// 16 bytes as numbers.
template <class T>
HWY_INLINE Floats LoadBytes(const T* from) {
  static_assert(sizeof(T) == 1);
  Floats r;
  const hn::Rebind<T, TagF> d8;
  REPRISE_PARTS r.v[p] = hn::ConvertTo(kTagF, hn::PromoteTo(kTagI, hn::LoadU(d8, from + p * kPartLanes)));
  return r;
}

// 2^(e - 128) of 16 bytes e, as HalfScale of formats/mxfp4.h has it.
HWY_INLINE Floats LoadHalfScales(const uint8_t* from) {
  Floats r;
  const hn::Rebind<uint8_t, TagF> d8;
  const auto one = hn::Set(kTagI, 1);
  REPRISE_PARTS {
    const auto e = hn::PromoteTo(kTagI, hn::LoadU(d8, from + p * kPartLanes));
    r.v[p] = hn::BitCast(kTagF, hn::Max(hn::ShiftLeft<23>(hn::Sub(e, one)), hn::ShiftLeft<21>(hn::Add(e, one))));
  }
  return r;
}

// 16 pairs of bytes as pairs of 16-bit integers: of each, the low half from `low` and the high one from `high`.
HWY_INLINE Ints BytePairs(const uint8_t* low, const uint8_t* high) {
  Ints r;
  const hn::Rebind<uint8_t, TagF> d8;
  REPRISE_PARTS {
    const auto a = hn::PromoteTo(kTagI, hn::LoadU(d8, low + p * kPartLanes)),
               b = hn::PromoteTo(kTagI, hn::LoadU(d8, high + p * kPartLanes));
    r.v[p] = hn::Or(a, hn::ShiftLeft<16>(b));
  }
  return r;
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
