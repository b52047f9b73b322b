// Keys and values multiplied as 16-bit integers: both of halves, and values of bytes.
//
// A head of a row becomes integers under a power of two of its own, rounded by at most 2^-14 of its greatest magnitude (a half itself is rounded
// by up to 2^-12). What it is multiplied with, a query or the weights of a block, gets a unit by the sum of its magnitudes, such that no sum of
// products leaves 32 bits. So a product costs half of one in floats, and what a query gets depends on no row that it does not see.
#if defined(REPRISE_BACKEND_CPU_ATTENTION_SHORTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_ATTENTION_SHORTS_INL_H_
#undef REPRISE_BACKEND_CPU_ATTENTION_SHORTS_INL_H_
#else
#define REPRISE_BACKEND_CPU_ATTENTION_SHORTS_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "backend/cpu/attention_work-inl.h"
#include "backend/cpu/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Integers of keys and values are at most 2 to this, and the magnitudes that they meet in one sum add up to less than 2 to 31 less this.
constexpr int kKeyBits = 14, kValueBits = 14;
// Pairs of inputs in an integer sum of a score: fewer leave more bits to the query, and cost more conversions to floats.
constexpr int kSumPairs = 32;

// The unit of up to `count` numbers of which `sum` and `top` are the sum and the greatest of the magnitudes: as integers they are at most
// 32,767 and sum up to less than 2^(31 - bits), roundings included. 0 where all are next to nothing, NaN where one is no number.
inline float UnitOf(float sum, float top, int bits, int count) {
  if (!(sum <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::quiet_NaN();
  if (sum < 1e-30f) return 0.0f;
  const auto most_sum = static_cast<float>((1 << (31 - bits)) - count);
  return std::max(sum / most_sum, top / 32767.0f);
}
// What turns numbers into integers of that unit; 0 where they are not to be converted.
inline float InverseOf(float unit) { return unit > 0.0f ? 1.0f / unit : 0.0f; }

// Of 16 rows: the power of two that is 1, and its inverse.
struct RowUnits {
  Floats unit, inverse;
};
// `tops`: the greatest magnitude of each row. A row with a NaN or an infinity gets the unit NaN.
template <int kBits>
HWY_INLINE RowUnits UnitsOf(Floats tops) {
  RowUnits r;
  REPRISE_PARTS {
    const auto exponent = hn::And(hn::BitCast(kTagI, tops.v[p]), hn::Set(kTagI, 0x7f800000));
    const auto broken = hn::RebindMask(kTagF, hn::Eq(exponent, hn::Set(kTagI, 0x7f800000)));
    const auto none = hn::RebindMask(kTagF, hn::Eq(exponent, hn::Zero(kTagI)));
    const auto unit = hn::BitCast(kTagF, hn::Sub(exponent, hn::Set(kTagI, (kBits - 1) << 23)));
    const auto inverse = hn::BitCast(kTagF, hn::Sub(hn::Set(kTagI, (254 + kBits - 1) << 23), exponent));
    r.unit.v[p] = hn::IfThenElse(broken, hn::Set(kTagF, std::numeric_limits<float>::quiet_NaN()), hn::IfThenZeroElse(none, unit));
    r.inverse.v[p] = hn::IfThenZeroElse(hn::Or(broken, none), inverse);
  }
  return r;
}

// Pairs of 16-bit integers: a * a_inverse in the low halves, b * b_inverse in the high ones, rounded to the nearest. To 1.5 * 2^23 a small
// number is added as an integer, which then is the low bits of the sum.
HWY_INLINE Ints ShortPairs(Floats a, Floats a_inverse, Floats b, Floats b_inverse) {
  const Floats magic = Set(12582912.0f);
  const Floats low = MulAdd(a, a_inverse, magic), high = MulAdd(b, b_inverse, magic);
  const hn::Repartition<int16_t, TagI> d16;
  Ints r;
  REPRISE_PARTS {
    const auto top = hn::ShiftLeft<16>(hn::BitCast(kTagI, high.v[p]));
    r.v[p] = hn::BitCast(kTagI, hn::OddEven(hn::BitCast(d16, top), hn::BitCast(d16, low.v[p])));
  }
  return r;
}

class ShortScorer;

struct StateF16 {
  using Scorer = ShortScorer;
  static HWY_INLINE Floats Columns(const std::byte* row, int64_t, int column) {
    return LoadHalf(reinterpret_cast<const uint16_t*>(row) + column);
  }
  static HWY_INLINE Floats FirstColumns(const std::byte* row, int column, int count) {
    return LoadHalfFirst(reinterpret_cast<const uint16_t*>(row) + column, count);
  }
  // The greatest magnitude of each of 16 rows.
  static HWY_INLINE Floats Tops(const std::byte* rows, int64_t stride, int64_t, int width) {
    const hn::Repartition<uint16_t, TagI> d;
    constexpr int kLanes = 2 * kPartLanes;
    const int whole = width / kLanes * kLanes;
    HWY_ALIGN uint16_t tops[16];
    for (int first = 0; first < 16; first += 8) {
      Eight most[8];
      REPRISE_UNROLL for (int r = 0; r < 8; ++r) {
        const auto* const row = reinterpret_cast<const uint16_t*>(rows + (first + r) * stride);
        auto greatest = hn::Zero(d);
        for (int i = 0; i < whole; i += kLanes) greatest = hn::Max(greatest, hn::And(hn::LoadU(d, row + i), hn::Set(d, uint16_t{0x7fff})));
        most[r] = Folded(d, greatest);
      }
      hn::StoreU(MostOfEach(most), kEight, tops + first);
    }
    for (int r = 0; whole < width && r < 16; ++r) {
      const auto* const row = reinterpret_cast<const uint16_t*>(rows + r * stride);
      for (int i = whole; i < width; ++i) tops[r] = std::max<uint16_t>(tops[r], row[i] & 0x7fff);
    }
    return LoadHalf(tops);
  }

 private:
  static constexpr hn::CappedTag<uint16_t, 8> kEight{};
  using Eight = hn::Vec<decltype(kEight)>;

  // Halves of a vector against each other until eight lanes are left.
  template <class D, class V>
  static HWY_INLINE Eight Folded(D, V x) {
    if constexpr (sizeof(V) == sizeof(Eight)) {
      return x;
    } else {
      const hn::Half<D> half;
      return Folded(half, hn::Max(hn::LowerHalf(half, x), hn::UpperHalf(half, x)));
    }
  }
  // Lane i = the greatest of x[i]: rows two by two, four by four and all eight side by side, and each time half as many numbers of each.
  static HWY_INLINE Eight MostOfEach(const Eight (&x)[8]) {
    const auto meet = [](auto d, Eight a, Eight b) HWY_ATTR {
      const auto p = hn::BitCast(d, a), q = hn::BitCast(d, b);
      return hn::Max(hn::BitCast(kEight, hn::InterleaveLower(d, p, q)), hn::BitCast(kEight, hn::InterleaveUpper(d, p, q)));
    };
    const hn::Repartition<uint32_t, decltype(kEight)> d32;
    const hn::Repartition<uint64_t, decltype(kEight)> d64;
    const Eight low = meet(d32, meet(kEight, x[0], x[1]), meet(kEight, x[2], x[3]));
    const Eight high = meet(d32, meet(kEight, x[4], x[5]), meet(kEight, x[6], x[7]));
    return meet(d64, low, high);
  }
};

// 16 columns of a head, zeros past its width.
template <class State>
HWY_INLINE Floats ColumnsWithin(const std::byte* row, int64_t scales, int column, int width) {
  if (column + 16 <= width) return State::Columns(row, scales, column);
  if constexpr (requires { &State::FirstColumns; }) {  // otherwise heads are whole blocks
    if (column < width) return State::FirstColumns(row, column, width - column);
  }
  return Zeros();
}

// Scores of halves. Two inputs of a position are a pair: i and i + 16 of each 32.
//
//   q     [group of rows][pairs][R], and a unit of each row
//   keys  [2 tiles][pairs][16], then the units [2 tiles][16]
class ShortScorer {
 public:
  ShortScorer(const AttentionArgs& args, const HeadPlace&, const Work& work)
      : width_(args.q.width),
        pairs_(Pairs(args)),
        stride_(static_cast<int64_t>(args.k.bytes)),
        q_(reinterpret_cast<const int32_t*>(work.q)),
        q_units_(work.q_units),
        words_(reinterpret_cast<int32_t*>(work.tiles)),
        units_(work.tiles + 2 * int64_t{16} * pairs_) {}

  static void LoadQueries(const AttentionArgs& args, const Queries& queries, const Work& work) {
    const RowGroups groups(queries.count(), kRowGroup);
    const int width = args.q.width, pairs = Pairs(args);
    const Floats scale = Set(args.spec.scale);
    for (int g = 0; g < groups.count; ++g) {
      const int first = groups.First(g), size = groups.Size(g);
      auto* const to = reinterpret_cast<int32_t*>(work.q) + int64_t{first} * pairs;
      for (int r = 0; r < size; ++r) {
        const float* const from = QueryAt(args, queries, first + r);
        const auto columns = [&](int i) HWY_ATTR { return i < width ? Mul(LoadFirst(from + i, width - i), scale) : Zeros(); };
        float most = 0.0f, top = 0.0f;
        for (int begin = 0; begin < width && most == most; begin += 2 * kSumPairs) {
          Floats sum = Zeros(), tops = Zeros();
          for (int i = begin; i < begin + 2 * kSumPairs; i += 16) {
            const Floats magnitude = Abs(columns(i));
            sum = Add(sum, magnitude);
            tops = Max(tops, magnitude);
          }
          const float all = Sum(sum);
          if (!(all <= most)) most = all;  // a NaN is to stay
          top = std::max(top, MaxLane(tops));
        }
        const float unit = UnitOf(most, top, kKeyBits, 2 * kSumPairs);
        work.q_units[first + r] = unit;
        const Floats inverse = Set(InverseOf(unit));
        for (int b = 0; b < 2 * pairs; b += 32) {
          HWY_ALIGN int32_t words[16];
          Store(ShortPairs(columns(b), inverse, columns(b + 16), inverse), words);
          for (int i = 0; i < 16; ++i) to[(b / 2 + i) * size + r] = words[i];
        }
      }
    }
  }

  int fetches(int tiles) const { return (1 + tiles) * pairs_; }

  template <class Fetch>
  void TakeKeys(int t, const std::byte* keys, const Fetch& fetch) {
    const RowUnits units = UnitsOf<kKeyBits>(StateF16::Tops(keys, stride_, 0, width_));
    Store(units.unit, units_ + t * 16);
    HWY_ALIGN float inverses[16];
    Store(units.inverse, inverses);
    int32_t* const words = words_ + int64_t{t} * 16 * pairs_;
    for (int b = 0; b < pairs_; b += 16) {
      HWY_ALIGN int32_t square[16 * 16];  // [position][pair]
      for (int p = 0; p < 16; ++p) {
        fetch(p);
        const Floats inverse = Set(inverses[p]);
        const std::byte* const row = keys + p * stride_;
        const Floats low = ColumnsWithin<StateF16>(row, 0, 2 * b, width_), high = ColumnsWithin<StateF16>(row, 0, 2 * b + 16, width_);
        Store(ShortPairs(low, inverse, high, inverse), square + p * 16);
      }
      TransposeKeys(square, 16, 16, words + b * 16);
    }
  }

  template <int C, int kMost, class Fetch>
  HWY_INLINE void Score(int first, int size, Floats* scores, const Fetch& fetch) const {
    WithRows<kMost>(size, [&](auto rows) HWY_ATTR { ScoreRows<rows, C>(first, scores, fetch); });
  }

 private:
  static int Pairs(const AttentionArgs& args) { return (args.q.width + 31) / 32 * 16; }

  template <int R, int C, class Fetch>
  HWY_INLINE void ScoreRows(int first, Floats* scores, const Fetch& fetch) const {
    const int pairs = pairs_;
    const int32_t *q = q_ + int64_t{first} * pairs, *words = words_;
    Floats total[C][R];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) { REPRISE_UNROLL for (int r = 0; r < R; ++r) total[c][r] = Zeros(); }
    for (int begin = 0; begin < pairs; begin += kSumPairs) {
      Ints dots[C][R];
      REPRISE_UNROLL for (int c = 0; c < C; ++c) { REPRISE_UNROLL for (int r = 0; r < R; ++r) dots[c][r] = SetInts(0); }
      const int end = std::min(begin + kSumPairs, pairs);
      for (int i = begin; i < end; ++i) {
        fetch(i);
        REPRISE_UNROLL for (int c = 0; c < C; ++c) {
          const PairWords keys = LoadPairs(words + int64_t{c} * 16 * pairs);
          REPRISE_UNROLL for (int r = 0; r < R; ++r) dots[c][r] = AddPairs(dots[c][r], keys, q + r);
        }
        q += R;
        words += 16;
      }
      REPRISE_UNROLL for (int c = 0; c < C; ++c) {
        REPRISE_UNROLL for (int r = 0; r < R; ++r) total[c][r] = Add(total[c][r], ToFloats(dots[c][r]));
      }
    }
    REPRISE_UNROLL for (int c = 0; c < C; ++c) {
      const Floats unit = Load(units_ + c * 16);
      REPRISE_UNROLL for (int r = 0; r < R; ++r) scores[c * R + r] = Mul(total[c][r], Mul(unit, Set(q_units_[first + r])));
    }
  }

  int width_, pairs_;
  int64_t stride_;  // bytes from one row to the next
  const int32_t* q_;
  const float* q_units_;
  int32_t* words_;
  float* units_;
};

// The values of a head in a block of positions. Two positions are a pair.
template <class State>
struct ShortValues {
  // Columns that are converted and weighed together.
  static constexpr int kPanel = 16 * kWeighVectors;
  static constexpr int kPairs = kAttentionBlock / 2;

  const std::byte* extent[kAttentionBlock / kExtentRows];
  int64_t stride, scales;
  int width;
  HWY_ALIGN float units[kAttentionBlock];
  HWY_ALIGN float inverses[kAttentionBlock];

  const std::byte* Row(int i) const { return extent[i / kExtentRows] + i % kExtentRows * stride; }

  // Units of positions [from, end), and of what it takes to make that whole tiles of 16; `from` is a multiple.
  void Measure(int from, int end) {
    for (int i = from; i < end; i += 16) {
      const RowUnits of = UnitsOf<kValueBits>(State::Tops(Row(i), stride, scales, width));
      Store(of.unit, units + i);
      Store(of.inverse, inverses + i);
    }
  }

  HWY_INLINE Ints Pair(int pair, int column) const {
    const std::byte *const a = Row(2 * pair), *const b = a + stride;
    return ShortPairs(ColumnsWithin<State>(a, scales, column, width), Set(inverses[2 * pair]),
                      ColumnsWithin<State>(b, scales, column, width), Set(inverses[2 * pair + 1]));
  }
};

// Values converted as they are met, for few queries.
template <class State>
struct PassingPairs {
  const ShortValues<State>* values;
  HWY_INLINE PairWords At(int pair, int column) const { return ToPairs(values->Pair(pair, column)); }
};
// Values converted before, for many: [columns / kPanel][kPairs][kPanel].
template <class State>
struct StoredPairs {
  using Values = ShortValues<State>;
  int32_t* words;
  HWY_INLINE int32_t* Place(int pair, int column) const {
    return words + (int64_t{column / Values::kPanel} * Values::kPairs + pair) * Values::kPanel + column % Values::kPanel;
  }
  HWY_INLINE PairWords At(int pair, int column) const { return LoadPairs(Place(pair, column)); }
  void Take(const Values& values, int from, int end) const {
    for (int pair = from; pair < end; ++pair) {
      for (int column = 0; column < values.width; column += 16) Store(values.Pair(pair, column), Place(pair, column));
    }
  }
};

// sums[r][column...] = the values of pairs [from, end) weighed for R queries, for C vectors of columns. weights: 2 * kAttentionBlock apart.
template <int R, int C, class Pairs>
HWY_INLINE void WeighColumns(const Pairs& values, int from, int end, const int16_t* weights, const float* units, int column, float* sums,
                             int64_t padded) {
  Ints acc[R][C];
  REPRISE_UNROLL for (int r = 0; r < R; ++r) { REPRISE_UNROLL for (int c = 0; c < C; ++c) acc[r][c] = SetInts(0); }
  for (int i = from; i < end; ++i) {
    PairWords value[C];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) value[c] = values.At(i, column + c * 16);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      int32_t two;
      std::memcpy(&two, weights + (r * kAttentionBlock + i) * 2, sizeof(two));
      const PairFactor weight = ToFactor(two);
      REPRISE_UNROLL for (int c = 0; c < C; ++c) acc[r][c] = AddPairs(acc[r][c], value[c], weight);
    }
  }
  REPRISE_UNROLL for (int r = 0; r < R; ++r) {
    REPRISE_UNROLL for (int c = 0; c < C; ++c) Store(Mul(ToFloats(acc[r][c]), Set(units[r])), sums + r * padded + column + c * 16);
  }
}

// The weights of each query times the units of the values become 16-bit integers, in place, with a unit in `units`: zeros at positions that
// the query does not see. value_units: of the block's positions.
inline void ShortenWeights(const AttentionArgs& args, const Queries& queries, const Block& block, const float* value_units,
                           const Work& work, float* units) {
  const int first = (block.from & ~15) - block.first, end = block.end - block.first;
  for (int query = 0; query < queries.count(); ++query) {
    float* const weights = work.scores + static_cast<int64_t>(query) * kAttentionBlock;
    const int from = block.BeginFor(args, queries, query) - block.first, stop = block.EndFor(queries, query) - block.first;
    Floats sum = Zeros(), top = Zeros();
    for (int i = from & ~15; i < stop; i += 16) {
      Floats weight;
      if (from <= i && i + 16 <= stop) {
        weight = Mul(Load(weights + i), Load(value_units + i));
      } else {
        HWY_ALIGN float seen[16];
        for (int p = i; p < i + 16; ++p) seen[p - i] = from <= p && p < stop ? weights[p] * value_units[p] : 0.0f;
        weight = Load(seen);
      }
      Store(weight, weights + i);
      sum = Add(sum, weight);
      top = Max(top, weight);
    }
    units[query] = UnitOf(Sum(sum), MaxLane(top), kValueBits, kAttentionBlock);
    const Floats inverse = Set(InverseOf(units[query]));
    const bool some = units[query] > 0.0f;  // what is no number has no nearest integer
    auto* const shorts = reinterpret_cast<int16_t*>(weights);
    const hn::Rebind<int16_t, TagI> d16;
    for (int i = first; i < end; i += 16) {
      const Ints weight = some && i + 16 > from && i < stop ? Nearest(Mul(Load(weights + i), inverse)) : SetInts(0);
      REPRISE_PARTS hn::StoreU(hn::DemoteTo(d16, weight.v[p]), d16, shorts + i + p * kPartLanes);
    }
  }
}

template <class Pairs>
void WeighPairs(const AttentionArgs& args, const Queries& queries, const Block& block, const Pairs& values, const float* units,
                const Work& work) {
  const int width = args.q.width;
  const int64_t padded = AttentionWidth(args);
  const RowGroups groups(queries.count(), kWeighQueries);
  for (int g = 0; g < groups.count; ++g) {
    const int first = groups.First(g), size = groups.Size(g);
    const int from = ((block.BeginFor(args, queries, first, size) & ~15) - block.first) / 2;
    const int end = std::max(from, (block.EndFor(queries, first + size - 1) - block.first + 1) / 2);
    const auto* const weights = reinterpret_cast<const int16_t*>(work.scores + static_cast<int64_t>(first) * kAttentionBlock);
    float* const sums = work.sums + first * padded;
    WithRows<kWeighQueries>(size, [&](auto rows) HWY_ATTR {
      int i = 0;
      for (; i + 16 * kWeighVectors <= width; i += 16 * kWeighVectors) {
        WeighColumns<rows, kWeighVectors>(values, from, end, weights, units + first, i, sums, padded);
      }
      for (; i < width; i += 16) WeighColumns<rows, 1>(values, from, end, weights, units + first, i, sums, padded);
    });
  }
}

// The values of the block weighted for each query, into work.sums.
template <class State>
void WeighShorts(const AttentionArgs& args, const Queries& queries, const Block& block, const Work& work) {
  const int from = (block.from & ~15) - block.first, end = block.end - block.first;
  ShortValues<State> values;
  values.stride = static_cast<int64_t>(args.v.bytes);
  values.scales = block.place.scales;
  values.width = args.q.width;
  for (int i = from / kExtentRows; i * kExtentRows < end; ++i)
    values.extent[i] = block.RowAt(queries, args.v, block.first + i * kExtentRows);
  values.Measure(from, end);
  HWY_ALIGN float units[kMostQueries];
  ShortenWeights(args, queries, block, values.units, work, units);
  if (queries.count() <= kWeighQueries) {
    WeighPairs(args, queries, block, PassingPairs<State>{&values}, units, work);
  } else {
    const StoredPairs<State> stored{reinterpret_cast<int32_t*>(work.tiles)};
    stored.Take(values, from / 2, (end + 1) / 2);
    WeighPairs(args, queries, block, stored, units, work);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
