// Blocks of 32 numbers as scale * [-127, 127], for products of bytes: what inputs of matrices and queries of attention have in common.
#if defined(REPRISE_BACKEND_CPU_QUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_QUANTIZE_INL_H_
#undef REPRISE_BACKEND_CPU_QUANTIZE_INL_H_
#else
#define REPRISE_BACKEND_CPU_QUANTIZE_INL_H_
#endif

#include <limits>

#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// The greatest magnitude of a block, as its bits: ordered as integers, magnitudes keep their order, and infinities and NaNs come out on top.
HWY_INLINE int32_t GreatestBits(Floats x0, Floats x1) {
  const Ints magnitude = SetInts(0x7fffffff);
  Ints most;
  REPRISE_PARTS {
    const auto a = hn::And(hn::BitCast(kTagI, x0.v[p]), magnitude.v[p]);
    const auto b = hn::And(hn::BitCast(kTagI, x1.v[p]), magnitude.v[p]);
    most.v[p] = hn::Max(a, b);
  }
  return MaxLane(most);
}

// The scales of up to 16 rows, and what their inputs are multiplied with, from the bits of each row's greatest magnitude. A block that holds a
// NaN or an infinity gets the scale NaN: what was broken stays visible.
HWY_INLINE void ScalesOf(const int32_t* top_bits, float* scales, float* inverses) {
  const Floats top = Load(reinterpret_cast<const float*>(top_bits)), most = Set(127.0f);
  Floats scale = Div(top, most), inverse = Div(most, top);
  REPRISE_PARTS {
    const auto broken = hn::RebindMask(kTagF, hn::Gt(hn::BitCast(kTagI, top.v[p]), hn::Set(kTagI, 0x7f7fffff)));
    const auto none = hn::Lt(top.v[p], hn::Set(kTagF, 1e-30f));
    scale.v[p] = hn::IfThenZeroElse(none, scale.v[p]);
    scale.v[p] = hn::IfThenElse(broken, hn::Set(kTagF, std::numeric_limits<float>::quiet_NaN()), scale.v[p]);
    inverse.v[p] = hn::IfThenZeroElse(hn::Or(broken, none), inverse.v[p]);
  }
  Store(scale, scales);
  Store(inverse, inverses);
}

// A number of no more than 2^22 plus this is rounded to the nearest integer, of which the lowest bits are those of the sum.
inline constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
inline constexpr uint32_t kRounderBits = 0x4b400000;

// The quants of a row's block, 16 and 16, each plus kRounderBits; and their sums: of the first half, and of all.
struct BlockQuants {
  Ints low, high;
  HWY_INLINE int32_t low_sum() const { return Less(Sum(low), 16); }
  HWY_INLINE int32_t sum() const { return Less(Sum(Add(low, high)), 32); }

 private:
  static int32_t Less(int32_t sum, uint32_t count) { return static_cast<int32_t>(static_cast<uint32_t>(sum) - count * kRounderBits); }
};

// Writes the quants of a row's block to its places among `size` interleaved rows: [8 groups][size][4], `to` being those of its first four.
// Each number times `inverse` is within 127; an inverse of 0 makes quants of 0 of whatever the numbers are.
HWY_INLINE BlockQuants StoreQuants(Floats x0, Floats x1, float inverse, int size, int8_t* to) {
  Floats low = Set(kRounder), high = low;
  if (inverse != 0.0f) {  // infinities have no nearest integer
    low = Add(Mul(x0, Set(inverse)), low);
    high = Add(Mul(x1, Set(inverse)), high);
  }
  BlockQuants q;
  HWY_ALIGN uint8_t bytes[32];
  const hn::RebindToUnsigned<TagI> d32;
  const hn::Rebind<uint8_t, TagI> d8;
  REPRISE_PARTS {
    q.low.v[p] = hn::BitCast(kTagI, low.v[p]);
    q.high.v[p] = hn::BitCast(kTagI, high.v[p]);
    hn::StoreU(hn::TruncateTo(d8, hn::BitCast(d32, low.v[p])), d8, bytes + p * kPartLanes);
    hn::StoreU(hn::TruncateTo(d8, hn::BitCast(d32, high.v[p])), d8, bytes + 16 + p * kPartLanes);
  }
  for (int g = 0; g < 8; ++g) std::memcpy(to + g * size * 4, bytes + g * 4, 4);
  return q;
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
