// The inner loops that products share: sums over inputs for 16 columns at once, in floats and in bytes.
#if defined(REPRISE_BACKEND_CPU_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_DOT_INL_H_
#undef REPRISE_BACKEND_CPU_DOT_INL_H_
#else
#define REPRISE_BACKEND_CPU_DOT_INL_H_
#endif

#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Rows whose sums stay in registers together. AVX-512: 12 integer and 12 float sums, and what is left of 32 registers for weights and
// scales; 12 chains also cover the dot product's latency of 4 at one or two a cycle. AVX2 has 16 registers of half the width, NEON 32 of a
// quarter.
#if HWY_MAX_BYTES == 64
inline constexpr int kRowGroup = 12;
#elif HWY_MAX_BYTES == 32
inline constexpr int kRowGroup = 4;
#elif HWY_TARGET == HWY_NEON
inline constexpr int kRowGroup = 4;
#else
inline constexpr int kRowGroup = 2;
#endif

struct NoFetch {
  HWY_INLINE void operator()(int64_t) const {}
};

// out[c][r] = sum over k of w[c][k][16] * a[k][R], k ascending; the C tiles of w lie `tile_stride` elements apart. `fetch`, called with
// every k, may prefetch what comes after.
template <int R, int C, class Loader, class Fetch = NoFetch>
HWY_INLINE void DotTiles(const typename Loader::Element* w, int64_t tile_stride, const float* a, int64_t inputs, Floats* out,
                         const Fetch& fetch = Fetch()) {
  Floats total[C][R];
  REPRISE_UNROLL for (int c = 0; c < C; ++c) { REPRISE_UNROLL for (int r = 0; r < R; ++r) total[c][r] = Zeros(); }
  for (int64_t k = 0; k < inputs; ++k) {
    fetch(k);
    Floats weight[C];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) weight[c] = Loader::At(w + c * tile_stride + k * 16);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      const Floats x = Set(a[k * R + r]);
      REPRISE_UNROLL for (int c = 0; c < C; ++c) total[c][r] = MulAdd(weight[c], x, total[c][r]);
    }
  }
  REPRISE_UNROLL for (int c = 0; c < C; ++c) { REPRISE_UNROLL for (int r = 0; r < R; ++r) out[c * R + r] = total[c][r]; }
}

// The bit pairs 2 j, 2 j + 1 of each byte of `tops`, where the mask has bits 4 and 5. WithTops puts them above nibbles.
template <int j>
HWY_INLINE hn::Vec<TagI> TopBits(hn::Vec<TagI> tops, int32_t mask) {
  if constexpr (j < 2) return hn::And(hn::ShiftLeft<4 - 2 * j>(tops), hn::Set(kTagI, mask));
  if constexpr (j == 2) return hn::And(tops, hn::Set(kTagI, mask));
  if constexpr (j > 2) return hn::And(hn::ShiftRight<2 * j - 4>(tops), hn::Set(kTagI, mask));
}
// 64 bytes: of 16 columns, four unsigned bytes each. DotBytes adds to each column's sum the products with four signed bytes at `acts`.
// Where kSignedBytes, DotWide is for bytes beyond 127 and takes them less 128; elsewhere it is DotBytes.
#if HWY_TARGET == HWY_AVX3
struct PackedWords {
  hn::Vec<TagI> v;
};
HWY_INLINE PackedWords LoadWords(const uint8_t* p) { return {hn::LoadU(kTagI, reinterpret_cast<const int32_t*>(p))}; }
HWY_INLINE PackedWords LowNibbles(PackedWords w) { return {hn::And(w.v, hn::Set(kTagI, 0x0f0f0f0f))}; }
HWY_INLINE PackedWords HighNibbles(PackedWords w) { return {hn::And(hn::ShiftRight<4>(w.v), hn::Set(kTagI, 0x0f0f0f0f))}; }
template <int j>
HWY_INLINE PackedWords WithTops(PackedWords w, PackedWords tops) {
  return {hn::Or(w.v, TopBits<j>(tops.v, 0x30303030))};
}
HWY_INLINE Ints DotBytes(Ints sum, PackedWords w, const int8_t* acts) {
  // As assembly, so that the four activations are always broadcast by the instruction itself instead of being kept in (and spilled from)
  // registers, and so that no compiler flag beyond AVX-512 is needed.
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum.v[0].raw) : "v"(w.v.raw), "m"(*reinterpret_cast<const int32_t*>(acts)));
  return sum;
}
inline constexpr bool kSignedBytes = false;
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
// A multiplication of unsigned with signed bytes that adds neighbours to 16-bit numbers, which 2 * 127 * 127 does not exceed.
struct PackedWords {
  hn::Vec<TagI> v[kParts];
};
#if HWY_TARGET == HWY_AVX2
HWY_INLINE hn::Vec<TagI> PairSums(hn::Vec<TagI> bytes, hn::Vec<TagI> acts) { return {_mm256_maddubs_epi16(bytes.raw, acts.raw)}; }
HWY_INLINE hn::Vec<TagI> AddPairs(hn::Vec<TagI> shorts) { return {_mm256_madd_epi16(shorts.raw, _mm256_set1_epi16(1))}; }
HWY_INLINE hn::Vec<TagI> AddShorts(hn::Vec<TagI> a, hn::Vec<TagI> b) { return {_mm256_add_epi16(a.raw, b.raw)}; }
HWY_INLINE hn::Vec<TagI> WithSignsOf(hn::Vec<TagI> a, hn::Vec<TagI> signs) { return {_mm256_sign_epi8(a.raw, signs.raw)}; }
#else
HWY_INLINE hn::Vec<TagI> PairSums(hn::Vec<TagI> bytes, hn::Vec<TagI> acts) { return {_mm_maddubs_epi16(bytes.raw, acts.raw)}; }
HWY_INLINE hn::Vec<TagI> AddPairs(hn::Vec<TagI> shorts) { return {_mm_madd_epi16(shorts.raw, _mm_set1_epi16(1))}; }
HWY_INLINE hn::Vec<TagI> AddShorts(hn::Vec<TagI> a, hn::Vec<TagI> b) { return {_mm_add_epi16(a.raw, b.raw)}; }
HWY_INLINE hn::Vec<TagI> WithSignsOf(hn::Vec<TagI> a, hn::Vec<TagI> signs) { return {_mm_sign_epi8(a.raw, signs.raw)}; }
#endif
HWY_INLINE PackedWords LoadWords(const uint8_t* from) {
  PackedWords r;
  REPRISE_PARTS r.v[p] = hn::LoadU(kTagI, reinterpret_cast<const int32_t*>(from) + p * kPartLanes);
  return r;
}
HWY_INLINE PackedWords LowNibbles(PackedWords w) {
  REPRISE_PARTS w.v[p] = hn::And(w.v[p], hn::Set(kTagI, 0x0f0f0f0f));
  return w;
}
HWY_INLINE PackedWords HighNibbles(PackedWords w) {
  REPRISE_PARTS w.v[p] = hn::And(hn::ShiftRight<4>(w.v[p]), hn::Set(kTagI, 0x0f0f0f0f));
  return w;
}
template <int j>
HWY_INLINE PackedWords WithTops(PackedWords w, const PackedWords& tops) {
  REPRISE_PARTS w.v[p] = hn::Or(w.v[p], TopBits<j>(tops.v[p], 0x30303030));
  return w;
}
HWY_INLINE hn::Vec<TagI> FourActs(const int8_t* acts) {
  int32_t four;
  std::memcpy(&four, acts, sizeof(four));
  return hn::Set(kTagI, four);
}
HWY_INLINE Ints DotBytes(Ints sum, const PackedWords& w, const int8_t* acts) {
  const auto four = FourActs(acts);
  REPRISE_PARTS sum.v[p] = hn::Add(sum.v[p], AddPairs(PairSums(w.v[p], four)));
  return sum;
}
inline constexpr bool kSignedBytes = true;
HWY_INLINE Ints DotWide(Ints sum, const PackedWords& w, const int8_t* acts) {
  const auto four = FourActs(acts);
  REPRISE_PARTS {
    const auto bytes = hn::Xor(w.v[p], hn::Set(kTagI, static_cast<int32_t>(0x80808080u)));
    sum.v[p] = hn::Add(sum.v[p], AddPairs(PairSums(WithSignsOf(bytes, bytes), WithSignsOf(four, bytes))));
  }
  return sum;
}
#else
// Without a dot product of bytes: split into even and odd bytes as 16-bit numbers, and multiply those in pairs. No intermediate can
// overflow: |255 * 127 * 2| < 2^31.
inline constexpr bool kSignedBytes = false;
struct PackedWords {
  hn::Vec<TagI> even[kParts], odd[kParts];
};
HWY_INLINE PackedWords Widen(const hn::Vec<TagI>* bytes) {
  PackedWords r;
  const hn::Repartition<uint16_t, TagI> d16;
  REPRISE_PARTS {
    r.even[p] = hn::And(bytes[p], hn::Set(kTagI, 0x00ff00ff));
    r.odd[p] = hn::BitCast(kTagI, hn::ShiftRight<8>(hn::BitCast(d16, bytes[p])));
  }
  return r;
}
HWY_INLINE PackedWords LoadWords(const uint8_t* from) {
  hn::Vec<TagI> bytes[kParts];
  REPRISE_PARTS bytes[p] = hn::LoadU(kTagI, reinterpret_cast<const int32_t*>(from) + p * kPartLanes);
  return Widen(bytes);
}
HWY_INLINE PackedWords LowNibbles(PackedWords w) {
  const auto mask = hn::Set(kTagI, 0x000f000f);
  REPRISE_PARTS {
    w.even[p] = hn::And(w.even[p], mask);
    w.odd[p] = hn::And(w.odd[p], mask);
  }
  return w;
}
HWY_INLINE PackedWords HighNibbles(PackedWords w) {
  REPRISE_PARTS {
    w.even[p] = hn::ShiftRight<4>(w.even[p]);
    w.odd[p] = hn::ShiftRight<4>(w.odd[p]);
  }
  return LowNibbles(w);
}
template <int j>
HWY_INLINE PackedWords WithTops(PackedWords w, const PackedWords& tops) {
  REPRISE_PARTS {
    w.even[p] = hn::Or(w.even[p], TopBits<j>(tops.even[p], 0x00300030));
    w.odd[p] = hn::Or(w.odd[p], TopBits<j>(tops.odd[p], 0x00300030));
  }
  return w;
}
// In each 32-bit lane: the sum of the products of its two pairs of 16-bit numbers.
HWY_INLINE hn::Vec<TagI> DotPairs(hn::Vec<TagI> a, hn::Vec<TagI> b) {
#if HWY_TARGET == HWY_NEON
  const int16x8_t x = vreinterpretq_s16_s32(a.raw), y = vreinterpretq_s16_s32(b.raw);
  return hn::Vec<TagI>(vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
#else
  const auto low = [](auto v) HWY_ATTR { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
  return hn::Add(hn::Mul(low(a), low(b)), hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b)));
#endif
}
HWY_INLINE Ints DotBytes(Ints sum, const PackedWords& w, const int8_t* acts) {
  int32_t four;
  std::memcpy(&four, acts, sizeof(four));
  const hn::Repartition<int16_t, TagI> d16;
  const auto both = hn::BitCast(d16, hn::Set(kTagI, four));
  const auto even = hn::BitCast(kTagI, hn::ShiftRight<8>(hn::ShiftLeft<8>(both)));
  const auto odd = hn::BitCast(kTagI, hn::ShiftRight<8>(both));
  REPRISE_PARTS sum.v[p] = hn::Add(sum.v[p], hn::Add(DotPairs(w.even[p], even), DotPairs(w.odd[p], odd)));
  return sum;
}
#endif
#if HWY_TARGET != HWY_AVX2 && HWY_TARGET != HWY_SSE4
HWY_INLINE Ints DotWide(Ints sum, const PackedWords& w, const int8_t* acts) { return DotBytes(sum, w, acts); }
#endif

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
