// What attention reads of the state: the element types of keys and values, and the scores of queries against tiles of 16 keys.
//
// A state type says how 16 columns of a row become floats. Its scorer holds the queries of an item in the form in which they meet the keys,
// and transposes keys once for all of them, so that a lane of a vector is a position.
#if defined(REPRISE_BACKEND_CPU_ATTENTION_KEYS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_ATTENTION_KEYS_INL_H_
#undef REPRISE_BACKEND_CPU_ATTENTION_KEYS_INL_H_
#else
#define REPRISE_BACKEND_CPU_ATTENTION_KEYS_INL_H_
#endif

#include "backend/cpu/attention.h"
#include "backend/cpu/dot-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

template <class State>
class FloatScorer;

// Element types of keys and values. Columns gives 16 numbers of a head from `column` on, `row` being where the head begins in a row of the
// state; FirstColumns the first `count` of them, where a head's width is no multiple of 16.
struct StateF32 {
  using Element = float;
  using Scorer = FloatScorer<StateF32>;
  static HWY_INLINE Floats All(const float* p) { return Load(p); }
  static HWY_INLINE Floats Columns(const std::byte* row, int64_t, int column) { return Load(reinterpret_cast<const float*>(row) + column); }
  static HWY_INLINE Floats FirstColumns(const std::byte* row, int column, int count) {
    return LoadFirst(reinterpret_cast<const float*>(row) + column, count);
  }
};
struct StateF16 {
  using Element = uint16_t;
  using Scorer = FloatScorer<StateF16>;
  static HWY_INLINE Floats All(const uint16_t* p) { return LoadHalf(p); }
  static HWY_INLINE Floats Columns(const std::byte* row, int64_t, int column) {
    return LoadHalf(reinterpret_cast<const uint16_t*>(row) + column);
  }
  static HWY_INLINE Floats FirstColumns(const std::byte* row, int column, int count) {
    return LoadHalfFirst(reinterpret_cast<const uint16_t*>(row) + column, count);
  }
};
template <class State>
struct LoadKeys {
  using Element = typename State::Element;
  static HWY_INLINE Floats At(const Element* p) { return State::All(p); }
};

// The transpositions below work in 128-bit vectors on every machine: the wide ones would need as many shuffles again to cross their halves.
template <class T>
HWY_INLINE void TransposeSquare(const T* from, int64_t stride, T* to);

template <>
HWY_INLINE void TransposeSquare<float>(const float* from, int64_t stride, float* to) {
  const hn::CappedTag<float, 4> d;
  const hn::Repartition<uint64_t, decltype(d)> d64;
  const auto a = hn::LoadU(d, from), b = hn::LoadU(d, from + stride);
  const auto c = hn::LoadU(d, from + 2 * stride), e = hn::LoadU(d, from + 3 * stride);
  const auto ab0 = hn::BitCast(d64, hn::InterleaveLower(d, a, b)), ab1 = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
  const auto ce0 = hn::BitCast(d64, hn::InterleaveLower(d, c, e)), ce1 = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab0, ce0)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab0, ce0)), d, to + 16);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab1, ce1)), d, to + 32);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab1, ce1)), d, to + 48);
}

template <>
HWY_INLINE void TransposeSquare<uint16_t>(const uint16_t* from, int64_t stride, uint16_t* to) {
  const hn::CappedTag<uint16_t, 8> d;
  const hn::Repartition<uint32_t, decltype(d)> d32;
  const hn::Repartition<uint64_t, decltype(d)> d64;
  hn::Vec<decltype(d32)> pairs[8];
  REPRISE_UNROLL for (int i = 0; i < 4; ++i) {
    const auto a = hn::LoadU(d, from + 2 * i * stride), b = hn::LoadU(d, from + (2 * i + 1) * stride);
    pairs[i] = hn::BitCast(d32, hn::InterleaveLower(d, a, b));      // elements 0 to 3 of two rows
    pairs[i + 4] = hn::BitCast(d32, hn::InterleaveUpper(d, a, b));  // elements 4 to 7
  }
  REPRISE_UNROLL for (int half = 0; half < 8; half += 4) {
    const auto a0 = hn::BitCast(d64, hn::InterleaveLower(d32, pairs[half], pairs[half + 1]));
    const auto a1 = hn::BitCast(d64, hn::InterleaveUpper(d32, pairs[half], pairs[half + 1]));
    const auto b0 = hn::BitCast(d64, hn::InterleaveLower(d32, pairs[half + 2], pairs[half + 3]));
    const auto b1 = hn::BitCast(d64, hn::InterleaveUpper(d32, pairs[half + 2], pairs[half + 3]));
    uint16_t* const out = to + half * 16;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, a0, b0)), d, out);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, a0, b0)), d, out + 16);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, a1, b1)), d, out + 32);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, a1, b1)), d, out + 48);
  }
}

// to[i][16] = element i of 16 consecutive key rows, which lie `stride` elements apart.
template <class T>
void TransposeKeys(const T* keys, int64_t stride, int width, T* to) {
  constexpr int kSide = 16 / sizeof(T);
  const int whole = width / kSide * kSide;
  for (int p = 0; p < 16; p += kSide) {
    for (int i = 0; i < whole; i += kSide) {
      TransposeSquare<T>(keys + p * stride + i, stride, to + i * 16 + p);
    }
    for (int i = whole; i < width; ++i) {
      for (int j = 0; j < kSide; ++j) to[i * 16 + p + j] = keys[(p + j) * stride + i];
    }
  }
}

// Queries of an item, in the order row by row, head by head. Where rows see different ends of a block, the later ones see more.
struct Queries {
  const LaneBinding* lane;  // whose extents hold what they see
  int rows;
  int heads;  // query heads that share the key-value head
  int first_head;
  int row[kMostQueries];       // of the step
  int position[kMostQueries];  // of each row
  int count() const { return rows * heads; }
  int Row(int query) const { return row[query / heads]; }
  int Head(int query) const { return first_head + query % heads; }
  int Position(int query) const { return position[query / heads]; }
};

inline const float* QueryAt(const AttentionArgs& args, const Queries& queries, int query) {
  return RowAt(args.q.rows, queries.Row(query)) + static_cast<int64_t>(queries.Head(query)) * args.q.stride;
}

// A thread's scratch, cut up.
struct Work {
  float* q;       // the queries as their scorer keeps them: at most [query][width]
  float* keys;    // tiles of keys while scores are made, of values afterwards
  float* scores;  // [query][kAttentionBlock]
  float* sums;    // [query][width]: the partial's weighted values
  float* most;    // [query]
  float* total;   // [query]
  Work(const AttentionArgs& args, int thread) {
    const int64_t width = AttentionWidth(args);
    q = args.scratch + thread * args.scratch_floats;
    keys = q + kMostQueries * width;
    scores = keys + AttentionTileFloats(args);
    sums = scores + kMostQueries * kAttentionBlock;
    most = sums + kMostQueries * width;
    total = most + kMostQueries;
  }
};

// Calls `call` with the number of rows, 1 to kMost, as a compile-time constant.
template <int kMost, int R = 1, class Call>
HWY_INLINE void WithRows(int rows, const Call& call) {
  if constexpr (R < kMost) {
    if (rows != R) return WithRows<kMost, R + 1>(rows, call);
  }
  call(std::integral_constant<int, R>());
}

// Scores as sums over the width in ascending order, in floats.
//
//   q     [group of rows][width][R], scaled
//   keys  [2 tiles][width][16] in the state's own type, and one tile as floats
template <class State>
class FloatScorer {
 public:
  using Element = typename State::Element;

  FloatScorer(const AttentionArgs& args, const HeadPlace&, const Work& work)
      : width_(args.q.width),
        stride_(static_cast<int64_t>(args.k.bytes / sizeof(Element))),
        q_(work.q),
        floats_(work.keys),
        own_(reinterpret_cast<Element*>(work.keys + 16 * AttentionWidth(args))) {}

  static void LoadQueries(const AttentionArgs& args, const Queries& queries, const Work& work) {
    const RowGroups groups(queries.count(), kRowGroup);
    const int width = args.q.width;
    for (int g = 0; g < groups.count; ++g) {
      const int first = groups.First(g), size = groups.Size(g);
      float* const to = work.q + static_cast<int64_t>(first) * width;
      for (int r = 0; r < size; ++r) {
        const float* const from = QueryAt(args, queries, first + r);
        for (int i = 0; i < width; ++i) to[static_cast<int64_t>(i) * size + r] = from[i] * args.scale;
      }
    }
  }

  // How often a call of Score calls its `fetch`.
  int fetches() const { return width_; }

  // Tile `t` (0 or 1): the head's keys of 16 rows. `groups`: of queries that will meet it.
  void TakeKeys(int t, const std::byte* keys, int groups) {
    TransposeKeys<Element>(reinterpret_cast<const Element*>(keys), stride_, width_, own_ + t * 16 * width_);
    // Many groups share one conversion.
    converted_ = groups > 2 && sizeof(Element) != sizeof(float);
    for (int i = 0; converted_ && i < width_; ++i) Store(State::All(own_ + i * 16), floats_ + i * 16);
  }

  // Scores of the group of `size` queries that begins with `first` against the first C tiles. scores: [C][size].
  template <int C, int kMost, class Fetch>
  HWY_INLINE void Score(int first, int size, Floats* scores, const Fetch& fetch) const {
    const float* const q = q_ + static_cast<int64_t>(first) * width_;
    WithRows<kMost>(size, [&](auto rows) HWY_ATTR {
      if (C == 1 && converted_) {
        DotTiles<rows, 1, LoadKeys<StateF32>>(floats_, 0, q, width_, scores, fetch);
      } else {
        DotTiles<rows, C, LoadKeys<State>>(own_, 16 * width_, q, width_, scores, fetch);
      }
    });
  }

 private:
  int width_;
  int64_t stride_;  // elements from one row to the next
  const float* q_;
  float* floats_;
  Element* own_;
  bool converted_ = false;
};

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
