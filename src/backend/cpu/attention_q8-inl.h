// Keys and values as blocks of 32 bytes under a half-precision scale (ElementType::kQ8_0).
//
// The queries are quantised alike, each for itself and block by block, so a score is a sum over the blocks in ascending order of two scales
// times an exact sum of byte products: the same whatever the instruction set computes that with.
#if defined(REPRISE_BACKEND_CPU_ATTENTION_Q8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_ATTENTION_Q8_INL_H_
#undef REPRISE_BACKEND_CPU_ATTENTION_Q8_INL_H_
#else
#define REPRISE_BACKEND_CPU_ATTENTION_Q8_INL_H_
#endif

#include <algorithm>

#include "backend/cpu/attention_work-inl.h"
#include "backend/cpu/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

class ByteScorer;

struct StateQ8 {
  using Scorer = ByteScorer;
  // `scales`: bytes from where the head begins to its scales.
  static HWY_INLINE Floats Columns(const std::byte* row, int64_t scales, int column) {
    const auto* const scale = reinterpret_cast<const uint16_t*>(row + scales) + column / kQ8Values;
    return Mul(LoadBytes(reinterpret_cast<const int8_t*>(row) + column), OneHalf(*scale));
  }
  // What no magnitude of each of 16 rows exceeds: 128 times the greatest scale. Less than that by the rounding of the scale alone, since a
  // block's greatest magnitude is 127 of its units.
  static HWY_INLINE Floats Tops(const std::byte* rows, int64_t stride, int64_t scales, int width) {
    HWY_ALIGN uint16_t tops[16] = {};
    for (int r = 0; r < 16; ++r) {
      const auto* const of = reinterpret_cast<const uint16_t*>(rows + r * stride + scales);
      for (int b = 0; b < width / kQ8Values; ++b) tops[r] = std::max<uint16_t>(tops[r], of[b] & 0x7fff);
    }
    return Mul(LoadHalf(tops), Set(128.0f));
  }

 private:
  static HWY_INLINE Floats OneHalf(uint16_t bits) {
#if HWY_TARGET == HWY_SSE4
    return Set(HalfToFloat(bits));
#else
    Floats r;
    const hn::Rebind<uint16_t, TagF> d16;
    const hn::Rebind<hwy::float16_t, TagF> half;
    REPRISE_PARTS r.v[p] = hn::PromoteTo(kTagF, hn::BitCast(half, hn::Set(d16, bits)));
    return r;
#endif
  }
};

// 4 rows of 16 bytes, `stride` apart, to 4 lines of a tile: line i gets the rows' bytes 4 i to 4 i + 3, one row after another. The bytes
// are made unsigned by adding 128, as dot products of bytes want one of their factors.
HWY_INLINE void TransposeWords(const uint8_t* from, int64_t stride, uint8_t* to) {
  const hn::CappedTag<uint8_t, 16> d;
  const hn::Repartition<uint32_t, decltype(d)> d32;
  const auto words = [&](int row) HWY_ATTR { return hn::BitCast(d32, hn::Xor(hn::LoadU(d, from + row * stride), hn::Set(d, 128))); };
  StoreSquare(words(0), words(1), words(2), words(3), reinterpret_cast<uint32_t*>(to));
}

// Scores in bytes.
//
//   q     [group of rows][blocks][8][R][4] int8, then [group][blocks][R] scales, then as many shifts: what the keys' 128 add to a dot product
//   keys  [2 tiles][blocks][8][16][4] uint8, then [2 tiles][blocks][16] half scales
class ByteScorer {
 public:
  ByteScorer(const AttentionArgs& args, const HeadPlace& place, const Work& work)
      : quants_(work.q, args.q.width),
        stride_(static_cast<int64_t>(args.k.bytes)),
        scales_from_(place.scales),
        words_(reinterpret_cast<uint8_t*>(work.tiles)),
        scales_(reinterpret_cast<uint16_t*>(words_ + 2 * int64_t{16} * args.q.width)) {}

  static void LoadQueries(const AttentionArgs& args, const Queries& queries, const Work& work) {
    const Quants to(work.q, args.q.width);
    const RowGroups groups(queries.count(), kRowGroup);
    for (int g = 0; g < groups.count; ++g) {
      for (int b = 0; b < to.blocks; ++b) to.Quantize(args, queries, groups.First(g), groups.Size(g), b);
    }
  }

  int fetches(int) const { return quants_.blocks * 8; }

  template <class Fetch>
  void TakeKeys(int t, const std::byte* keys, const Fetch&) {
    const auto* const bytes = reinterpret_cast<const uint8_t*>(keys);
    uint8_t* const words = words_ + t * int64_t{16} * quants_.width;
    for (int p = 0; p < 16; p += 4) {
      for (int i = 0; i < quants_.width; i += 16) TransposeWords(bytes + p * stride_ + i, stride_, words + i * 16 + p * 4);
    }
    TransposeKeys(reinterpret_cast<const uint16_t*>(keys + scales_from_), stride_ / 2, quants_.blocks, scales_ + t * 16 * quants_.blocks);
  }

  template <int C, int kMost, class Fetch>
  HWY_INLINE void Score(int first, int size, Floats* scores, const Fetch& fetch) const {
    WithRows<kMost>(size, [&](auto rows) HWY_ATTR { ScoreRows<rows, C>(first, scores, fetch); });
  }

 private:
  struct Quants {
    int width, blocks;
    int8_t* bytes;
    float* scales;
    int32_t* shifts;

    Quants(float* memory, int width_in) : width(width_in), blocks(width_in / kQ8Values) {
      bytes = reinterpret_cast<int8_t*>(memory);
      scales = memory + kMostQueries * width / 4;
      shifts = reinterpret_cast<int32_t*>(scales + kMostQueries * blocks);
    }

    // Block `b` of the group of `size` queries from `first` on.
    void Quantize(const AttentionArgs& args, const Queries& queries, int first, int size, int b) const {
      static_assert(kRowGroup <= 16);
      const auto half = [&](int r, int from)
                            HWY_ATTR { return Mul(Load(QueryAt(args, queries, first + r) + b * kQ8Values + from), Set(args.spec.scale)); };
      HWY_ALIGN int32_t tops[16] = {};
      HWY_ALIGN float block_scales[16], inverses[16];
      for (int r = 0; r < size; ++r) tops[r] = GreatestBits(half(r, 0), half(r, 16));
      ScalesOf(tops, block_scales, inverses);
      int8_t* const to = bytes + int64_t{first} * width + int64_t{b} * kQ8Values * size;
      const int64_t at = int64_t{first} * blocks + int64_t{b} * size;
      for (int r = 0; r < size; ++r) {
        [[maybe_unused]] const BlockQuants stored = StoreQuants(half(r, 0), half(r, 16), inverses[r], size, to + r * 4);
        scales[at + r] = block_scales[r];
        // Where a dot product takes the 128 off itself, nothing is left to correct.
        shifts[at + r] = TargetDot::kSignedBytes ? 0 : -128 * stored.sum();
      }
    }
  };

  template <int R, int C, class Fetch>
  HWY_INLINE void ScoreRows(int first, Floats* scores, const Fetch& fetch) const {
    const int blocks = quants_.blocks;
    const int8_t* acts = quants_.bytes + int64_t{first} * quants_.width;
    const float* act_scales = quants_.scales + int64_t{first} * blocks;
    const int32_t* shifts = quants_.shifts + int64_t{first} * blocks;
    const uint8_t* words = words_;
    const uint16_t* key_scales = scales_;
    Floats total[C][R];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) { REPRISE_UNROLL for (int r = 0; r < R; ++r) total[c][r] = Zeros(); }
    for (int b = 0; b < blocks; ++b) {
      Ints dots[C][R];
      REPRISE_UNROLL for (int c = 0; c < C; ++c) { REPRISE_UNROLL for (int r = 0; r < R; ++r) dots[c][r] = SetInts(shifts[r]); }
      for (int g = 0; g < 8; ++g) {
        fetch(g);
        REPRISE_UNROLL for (int c = 0; c < C; ++c) {
          const auto keys = TargetDot::Words::Load(words + (int64_t{c} * blocks * 8 + g) * 64);
          DotRows<TargetDot, /*kWide=*/true, R, 0>(keys, acts + g * R * 4, dots[c]);
        }
      }
      REPRISE_UNROLL for (int c = 0; c < C; ++c) {
        const Floats scale = LoadHalf(key_scales + int64_t{c} * blocks * 16);
        REPRISE_UNROLL for (int r = 0; r < R; ++r) {
          total[c][r] = MulAdd(ToFloats(dots[c][r]), Mul(scale, Set(act_scales[r])), total[c][r]);
        }
      }
      acts += kQ8Values * R;
      act_scales += R;
      shifts += R;
      words += 8 * 64;
      key_scales += 16;
    }
    REPRISE_UNROLL for (int c = 0; c < C; ++c) { REPRISE_UNROLL for (int r = 0; r < R; ++r) scores[c * R + r] = total[c][r]; }
  }

  Quants quants_;
  int64_t stride_;       // bytes from one row of keys to the next
  int64_t scales_from_;  // bytes from where the head begins to its scales
  uint8_t* words_;
  uint16_t* scales_;
};

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
