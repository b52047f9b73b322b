// The inner loops that products share: sums over inputs for 16 columns at once, in floats and in bytes.
#if defined(REPRISE_BACKEND_CPU_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_DOT_INL_H_
#undef REPRISE_BACKEND_CPU_DOT_INL_H_
#else
#define REPRISE_BACKEND_CPU_DOT_INL_H_
#endif

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd-inl.h"
#include "formats/mxfp4.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Rows whose sums stay in registers together. AVX-512: 12 integer and 12 float sums, and what is left of 32 registers for weights and
// scales; 12 chains also cover the dot product's latency of 4 at one or two a cycle. AVX2 has 16 registers of half the width, NEON 32 of a
// quarter: 16 sums, at most 8 of weights and one of activations, while the float sums wait in memory for the end of a block.
#if HWY_MAX_BYTES == 64
inline constexpr int kRowGroup = 12;
#elif HWY_MAX_BYTES == 32
inline constexpr int kRowGroup = 4;
#elif HWY_TARGET == HWY_NEON
inline constexpr int kRowGroup = 4;
#else
inline constexpr int kRowGroup = 2;
#endif

// How many tiles of 16 columns the many rows of a product with a matrix go through together. Where processors make two products a cycle, they
// load no more than two vectors in it: a product for each load is half of what they can do, so with AVX-512 six rows share their loads among two
// tiles. Few rows are one group, which takes tile after tile: it waits for memory.
#if HWY_TARGET == HWY_AVX3
inline constexpr int kProductTiles = 2;
#else
inline constexpr int kProductTiles = 1;
#endif
inline constexpr int kProductRows = kRowGroup / kProductTiles;
HWY_INLINE RowGroups ProductGroups(int rows) { return RowGroups(rows, rows > kRowGroup ? kProductRows : kRowGroup); }

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

// Bytes are multiplied by a struct of
//   Words          64 bytes of weights: of 16 columns, four unsigned bytes each
//   Dot<kWide, i>  a sum for each column plus the products with the i-th four signed bytes at `acts`; kWide for weights beyond 127
//   Four, DotFour  the same, with the four loaded before, for several tiles; where kProductTiles is more than one
//   kSignedBytes   whether those are taken less 128
//   Kernel<kBody>  kBody, which is to be inlined, in a function of the compiler target that Dot needs
// A target has TargetDot; 64-bit ARM has two more, for processors with more instructions.

// As they lie in memory.
struct ByteWords {
  hn::Vec<TagI> v[kParts];

  static HWY_INLINE ByteWords Load(const uint8_t* from) {
    ByteWords r;
    REPRISE_PARTS r.v[p] = hn::LoadU(kTagI, reinterpret_cast<const int32_t*>(from) + p * kPartLanes);
    return r;
  }
};
HWY_INLINE ByteWords LowNibbles(ByteWords w) {
  REPRISE_PARTS w.v[p] = hn::And(w.v[p], hn::Set(kTagI, 0x0f0f0f0f));
  return w;
}
HWY_INLINE ByteWords HighNibbles(ByteWords w) {
  const hn::Repartition<uint8_t, TagI> d8;
  REPRISE_PARTS w.v[p] = hn::BitCast(kTagI, hn::ShiftRight<4>(hn::BitCast(d8, w.v[p])));
  return w;
}
// Tops with bit b of each byte moved to bit 4, and only the bits of the mask kept. WithTops puts them above nibbles.
template <int b>
HWY_INLINE hn::Vec<TagI> AboveNibbles(hn::Vec<TagI> tops, int32_t mask) {
  if constexpr (b < 4) return hn::And(hn::ShiftLeft<4 - b>(tops), hn::Set(kTagI, mask));
  if constexpr (b == 4) return hn::And(tops, hn::Set(kTagI, mask));
  if constexpr (b > 4) return hn::And(hn::ShiftRight<b - 4>(tops), hn::Set(kTagI, mask));
}
// Of kBits in all.
template <int kBits, int b>
HWY_INLINE ByteWords WithTops(ByteWords w, const ByteWords& tops) {
  REPRISE_PARTS w.v[p] = hn::Or(w.v[p], AboveNibbles<b>(tops.v[p], ((1 << kBits) - 16) * 0x01010101));
  return w;
}
// Codes of 4-bit floats, one in the low half of each byte, as quants whose zero is kMostTwiceE2M1.
struct E2M1Table {
  alignas(16) uint8_t quant[16];
  constexpr E2M1Table() : quant() {
    for (int code = 0; code < 16; ++code) quant[code] = static_cast<uint8_t>(kTwiceE2M1[code] + kMostTwiceE2M1);
  }
};
inline constexpr E2M1Table kE2M1Table;
HWY_INLINE hn::Vec<TagI> LookUpE2M1(hn::Vec<TagI> codes) {
  const hn::Repartition<uint8_t, TagI> d8;
  return hn::BitCast(kTagI, hn::TableLookupBytes(hn::LoadDup128(d8, kE2M1Table.quant), hn::BitCast(d8, codes)));
}
HWY_INLINE ByteWords E2M1Quants(ByteWords codes) {
  REPRISE_PARTS codes.v[p] = LookUpE2M1(codes.v[p]);
  return codes;
}
HWY_INLINE ByteWords Less128(ByteWords w) {  // unsigned bytes less 128, as signed bytes
  REPRISE_PARTS w.v[p] = hn::Xor(w.v[p], hn::Set(kTagI, static_cast<int32_t>(0x80808080u)));
  return w;
}

struct PlainKernels {
  template <auto kBody, class Return, class... Args>
  static Return Kernel(Args... args) {
    return kBody(args...);
  }
};

#if HWY_TARGET != HWY_AVX3 && HWY_TARGET != HWY_AVX2 && HWY_TARGET != HWY_SSE4
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
#endif

// Products of 16-bit integers, two by two. PairWords are the two of each of 16 columns, a PairFactor two that all columns are multiplied with;
// AddPairs adds to each column the products of its two with them.
#if HWY_TARGET == HWY_NEON
struct PairWords {
  int16x8_t first[2], second[2];  // of 8 columns
};
HWY_INLINE PairWords ToPairs(const Ints& words) {
  PairWords r;
  REPRISE_UNROLL for (int h = 0; h < 2; ++h) {
    const int16x8_t a = vreinterpretq_s16_s32(words.v[2 * h].raw), b = vreinterpretq_s16_s32(words.v[2 * h + 1].raw);
    r.first[h] = vuzp1q_s16(a, b);
    r.second[h] = vuzp2q_s16(a, b);
  }
  return r;
}
using PairFactor = int16x4_t;
HWY_INLINE PairFactor ToFactor(int32_t pair) { return vreinterpret_s16_s32(vdup_n_s32(pair)); }
HWY_INLINE Ints AddPairs(Ints sum, const PairWords& words, const PairFactor& pair) {
  REPRISE_UNROLL for (int h = 0; h < 2; ++h) {
    int32x4_t &low = sum.v[2 * h].raw, &high = sum.v[2 * h + 1].raw;
    low = vmlal_lane_s16(vmlal_lane_s16(low, vget_low_s16(words.first[h]), pair, 0), vget_low_s16(words.second[h]), pair, 1);
    high = vmlal_high_lane_s16(vmlal_high_lane_s16(high, words.first[h], pair, 0), words.second[h], pair, 1);
  }
  return sum;
}
#else
using PairWords = Ints;
HWY_INLINE PairWords ToPairs(const Ints& words) { return words; }
using PairFactor = Ints;
HWY_INLINE PairFactor ToFactor(int32_t pair) { return SetInts(pair); }
HWY_INLINE Ints AddPairs(Ints sum, const PairWords& words, const PairFactor& pair) {
#if HWY_TARGET == HWY_AVX3
  asm("vpdpwssd %2, %1, %0" : "+v"(sum.v[0].raw) : "v"(words.v[0].raw), "v"(pair.v[0].raw));
#elif HWY_TARGET == HWY_AVX2
  REPRISE_PARTS sum.v[p].raw = _mm256_add_epi32(sum.v[p].raw, _mm256_madd_epi16(words.v[p].raw, pair.v[p].raw));
#elif HWY_TARGET == HWY_SSE4
  REPRISE_PARTS sum.v[p].raw = _mm_add_epi32(sum.v[p].raw, _mm_madd_epi16(words.v[p].raw, pair.v[p].raw));
#else
  REPRISE_PARTS sum.v[p] = hn::Add(sum.v[p], DotPairs(words.v[p], pair.v[p]));
#endif
  return sum;
}
#endif
HWY_INLINE PairWords LoadPairs(const int32_t* from) { return ToPairs(LoadInts(from)); }
HWY_INLINE Ints AddPairs(Ints sum, const PairWords& words, const int32_t* pair) {
#if HWY_TARGET == HWY_AVX3
  // As assembly for the reasons that TargetDot has.
  asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum.v[0].raw) : "v"(words.v[0].raw), "m"(*pair));
  return sum;
#else
  return AddPairs(sum, words, ToFactor(*pair));
#endif
}

#if HWY_TARGET == HWY_AVX3
struct TargetDot : PlainKernels {
  using Words = ByteWords;
  static constexpr bool kSignedBytes = false;

  // As assembly, so that the four activations are always broadcast by the instruction itself instead of being kept in (and spilled from)
  // registers, and so that no compiler flag beyond AVX-512 is needed.
  template <bool kWide, int i>
  static HWY_INLINE Ints Dot(Ints sum, const ByteWords& w, const int8_t* acts) {
    const auto& four = *reinterpret_cast<const int32_t*>(acts + 4 * i);
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum.v[0].raw) : "v"(w.v[0].raw), "m"(four));
    return sum;
  }
  static HWY_INLINE Ints Four(const int8_t* acts) {
    Ints r;
    asm("vpbroadcastd %1, %0" : "=v"(r.v[0].raw) : "m"(*reinterpret_cast<const int32_t*>(acts)));
    return r;
  }
  static HWY_INLINE Ints DotFour(Ints sum, const ByteWords& w, const Ints& four) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.v[0].raw) : "v"(w.v[0].raw), "v"(four.v[0].raw));
    return sum;
  }
};
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
// A multiplication of unsigned with signed bytes that adds neighbours to 16-bit numbers, which 2 * 127 * 127 does not exceed.
#if HWY_TARGET == HWY_AVX2
HWY_INLINE hn::Vec<TagI> PairSums(hn::Vec<TagI> bytes, hn::Vec<TagI> acts) { return {_mm256_maddubs_epi16(bytes.raw, acts.raw)}; }
HWY_INLINE hn::Vec<TagI> AddNeighbours(hn::Vec<TagI> shorts) { return {_mm256_madd_epi16(shorts.raw, _mm256_set1_epi16(1))}; }
HWY_INLINE hn::Vec<TagI> AddShorts(hn::Vec<TagI> a, hn::Vec<TagI> b) { return {_mm256_add_epi16(a.raw, b.raw)}; }
HWY_INLINE hn::Vec<TagI> WithSignsOf(hn::Vec<TagI> a, hn::Vec<TagI> signs) { return {_mm256_sign_epi8(a.raw, signs.raw)}; }
#else
HWY_INLINE hn::Vec<TagI> PairSums(hn::Vec<TagI> bytes, hn::Vec<TagI> acts) { return {_mm_maddubs_epi16(bytes.raw, acts.raw)}; }
HWY_INLINE hn::Vec<TagI> AddNeighbours(hn::Vec<TagI> shorts) { return {_mm_madd_epi16(shorts.raw, _mm_set1_epi16(1))}; }
HWY_INLINE hn::Vec<TagI> AddShorts(hn::Vec<TagI> a, hn::Vec<TagI> b) { return {_mm_add_epi16(a.raw, b.raw)}; }
HWY_INLINE hn::Vec<TagI> WithSignsOf(hn::Vec<TagI> a, hn::Vec<TagI> signs) { return {_mm_sign_epi8(a.raw, signs.raw)}; }
#endif
HWY_INLINE hn::Vec<TagI> FourActs(const int8_t* acts) {
  int32_t four;
  std::memcpy(&four, acts, sizeof(four));
  return hn::Set(kTagI, four);
}
struct TargetDot : PlainKernels {
  using Words = ByteWords;
  static constexpr bool kSignedBytes = true;

  template <bool kWide, int i>
  static HWY_INLINE Ints Dot(Ints sum, const ByteWords& w, const int8_t* acts) {
    const auto four = FourActs(acts + 4 * i);
    const ByteWords bytes = kWide ? Less128(w) : w;
    REPRISE_PARTS {
      const auto pairs = kWide ? PairSums(WithSignsOf(bytes.v[p], bytes.v[p]), WithSignsOf(four, bytes.v[p])) : PairSums(bytes.v[p], four);
      sum.v[p] = hn::Add(sum.v[p], AddNeighbours(pairs));
    }
    return sum;
  }
};
#else
// Without a dot product of bytes: split into even and odd bytes as 16-bit numbers, and multiply those in pairs. No intermediate can
// overflow: |255 * 127 * 2| < 2^31.
struct WidenedWords {
  hn::Vec<TagI> even[kParts], odd[kParts];

  static HWY_INLINE WidenedWords Load(const uint8_t* from) {
    const ByteWords bytes = ByteWords::Load(from);
    WidenedWords r;
    const hn::Repartition<uint16_t, TagI> d16;
    REPRISE_PARTS {
      r.even[p] = hn::And(bytes.v[p], hn::Set(kTagI, 0x00ff00ff));
      r.odd[p] = hn::BitCast(kTagI, hn::ShiftRight<8>(hn::BitCast(d16, bytes.v[p])));
    }
    return r;
  }
};
HWY_INLINE WidenedWords LowNibbles(WidenedWords w) {
  const auto mask = hn::Set(kTagI, 0x000f000f);
  REPRISE_PARTS {
    w.even[p] = hn::And(w.even[p], mask);
    w.odd[p] = hn::And(w.odd[p], mask);
  }
  return w;
}
HWY_INLINE WidenedWords HighNibbles(WidenedWords w) {
  REPRISE_PARTS {
    w.even[p] = hn::ShiftRight<4>(w.even[p]);
    w.odd[p] = hn::ShiftRight<4>(w.odd[p]);
  }
  return LowNibbles(w);
}
template <int kBits, int b>
HWY_INLINE WidenedWords WithTops(WidenedWords w, const WidenedWords& tops) {
  constexpr int32_t kMask = ((1 << kBits) - 16) * 0x00010001;
  REPRISE_PARTS {
    w.even[p] = hn::Or(w.even[p], AboveNibbles<b>(tops.even[p], kMask));
    w.odd[p] = hn::Or(w.odd[p], AboveNibbles<b>(tops.odd[p], kMask));
  }
  return w;
}
HWY_INLINE WidenedWords E2M1Quants(WidenedWords codes) {
  const auto mask = hn::Set(kTagI, 0x00ff00ff);  // the byte beside each code found a quant as well
  REPRISE_PARTS {
    codes.even[p] = hn::And(LookUpE2M1(codes.even[p]), mask);
    codes.odd[p] = hn::And(LookUpE2M1(codes.odd[p]), mask);
  }
  return codes;
}
struct TargetDot : PlainKernels {
  using Words = WidenedWords;
  static constexpr bool kSignedBytes = false;

  template <bool kWide, int i>
  static HWY_INLINE Ints Dot(Ints sum, const WidenedWords& w, const int8_t* acts) {
    int32_t four;
    std::memcpy(&four, acts + 4 * i, sizeof(four));
    const hn::Repartition<int16_t, TagI> d16;
    const auto both = hn::BitCast(d16, hn::Set(kTagI, four));
    const auto even = hn::BitCast(kTagI, hn::ShiftRight<8>(hn::ShiftLeft<8>(both)));
    const auto odd = hn::BitCast(kTagI, hn::ShiftRight<8>(both));
    REPRISE_PARTS sum.v[p] = hn::Add(sum.v[p], hn::Add(DotPairs(w.even[p], even), DotPairs(w.odd[p], odd)));
    return sum;
  }
};
#endif

#if HWY_TARGET == HWY_NEON
// GCC wants the architecture that an extension is of, unless its own flags have it.
#if defined(__clang__)
#define REPRISE_ARM_EXTENSION(name) __attribute__((target(name)))
#else
#define REPRISE_ARM_EXTENSION(name) __attribute__((target("arch=armv8.2-a+crypto+" name)))
#endif
#if defined(__ARM_FEATURE_DOTPROD)
#define REPRISE_DOTPROD
#else
#define REPRISE_DOTPROD REPRISE_ARM_EXTENSION("dotprod")
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define REPRISE_I8MM
#else
#define REPRISE_I8MM REPRISE_ARM_EXTENSION("i8mm")
#endif

// The products are assembly because intrinsics are allowed in functions of their target alone, and the bodies of kernels are of any.
// The four activations are a quarter of 16 bytes, which are loaded once for all four rows of a group, or for several groups of fewer rows.
struct SignedDot {
  using Words = ByteWords;
  static constexpr bool kSignedBytes = true;

  template <bool kWide, int i>
  static HWY_INLINE Ints Dot(Ints sum, const ByteWords& w, const int8_t* acts) {
    const int8x16_t fours = vld1q_s8(acts + i / 4 * 16);
    const ByteWords bytes = kWide ? Less128(w) : w;
    REPRISE_PARTS asm("sdot %0.4s, %1.16b, %2.4b[%c3]" : "+w"(sum.v[p].raw) : "w"(bytes.v[p].raw), "w"(fours), "i"(i % 4));
    return sum;
  }
  template <auto kBody, class Return, class... Args>
  REPRISE_DOTPROD static Return Kernel(Args... args) {
    return kBody(args...);
  }
};
struct MixedDot {
  using Words = ByteWords;
  static constexpr bool kSignedBytes = false;

  template <bool kWide, int i>
  static HWY_INLINE Ints Dot(Ints sum, const ByteWords& w, const int8_t* acts) {
    const int8x16_t fours = vld1q_s8(acts + i / 4 * 16);
    REPRISE_PARTS asm("usdot %0.4s, %1.16b, %2.4b[%c3]" : "+w"(sum.v[p].raw) : "w"(w.v[p].raw), "w"(fours), "i"(i % 4));
    return sum;
  }
  template <auto kBody, class Return, class... Args>
  REPRISE_I8MM static Return Kernel(Args... args) {
    return kBody(args...);
  }
};
#endif

// Calls visit.operator()<Dot>() with the struct that `dot` stands for.
template <class Visit>
void WithDot([[maybe_unused]] ByteDot dot, const Visit& visit) {
#if HWY_TARGET == HWY_NEON
  if (dot == ByteDot::kSigned) return visit.template operator()<SignedDot>();
  if (dot == ByteDot::kMixed) return visit.template operator()<MixedDot>();
#endif
  visit.template operator()<TargetDot>();
}

// sums[r] += the products of `words` with the four activations first + r at `acts`, for R rows. What lies at `acts` are whole 16 bytes.
template <class Dot, bool kWide, int R, int first, int r = 0>
HWY_INLINE void DotRows(const typename Dot::Words& words, const int8_t* acts, Ints* sums) {
  if constexpr (r < R) {
    sums[r] = Dot::template Dot<kWide, first + r>(sums[r], words, acts);
    DotRows<Dot, kWide, R, first, r + 1>(words, acts, sums);
  }
}
// The same with C tiles.
template <class Dot, bool kWide, int R, int C, int first>
HWY_INLINE void DotRowsOfTiles(const typename Dot::Words* words, const int8_t* acts, Ints (*sums)[R]) {
  if constexpr (C == 1) {
    DotRows<Dot, kWide, R, first>(words[0], acts, sums[0]);
  } else {
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      const auto four = Dot::Four(acts + 4 * (first + r));
      REPRISE_UNROLL for (int c = 0; c < C; ++c) sums[c][r] = Dot::DotFour(sums[c][r], words[c], four);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
