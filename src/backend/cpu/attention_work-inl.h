// What an item of attention works on: its queries, a block of positions, a thread's scratch; and how keys are transposed, so that a lane of a
// vector is a position.
#if defined(REPRISE_BACKEND_CPU_ATTENTION_WORK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_ATTENTION_WORK_INL_H_
#undef REPRISE_BACKEND_CPU_ATTENTION_WORK_INL_H_
#else
#define REPRISE_BACKEND_CPU_ATTENTION_WORK_INL_H_
#endif

#include <algorithm>

#include "backend/cpu/attention.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// The transpositions below work in 128-bit vectors on every machine: the wide ones would need as many shuffles again to cross their halves.
// Four rows of four words to four lines, 16 words apart.
template <class T, class V>
HWY_INLINE void StoreSquare(V a, V b, V c, V e, T* to) {
  const hn::CappedTag<T, 4> d;
  const hn::Repartition<uint64_t, decltype(d)> d64;
  const auto ab0 = hn::BitCast(d64, hn::InterleaveLower(d, a, b)), ab1 = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
  const auto ce0 = hn::BitCast(d64, hn::InterleaveLower(d, c, e)), ce1 = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab0, ce0)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab0, ce0)), d, to + 16);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab1, ce1)), d, to + 32);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab1, ce1)), d, to + 48);
}

template <class T>
HWY_INLINE void TransposeSquare(const T* from, int64_t stride, T* to) {
  static_assert(sizeof(T) == 4);
  const hn::CappedTag<T, 4> d;
  StoreSquare(hn::LoadU(d, from), hn::LoadU(d, from + stride), hn::LoadU(d, from + 2 * stride), hn::LoadU(d, from + 3 * stride), to);
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
  // The first position from `from` on that any of them sees.
  int FirstSeen(const AttentionArgs& args, int from) const {
    int first = INT32_MAX;
    for (int i = 0; i < rows; ++i) first = std::min(first, args.spec.First(position[i]));
    return std::max(first, from);
  }
};

inline const float* QueryAt(const AttentionArgs& args, const Queries& queries, int query) {
  return RowAt(args.q.rows, queries.Row(query)) + static_cast<int64_t>(queries.Head(query)) * args.q.stride;
}

// A block of positions as one key-value head's queries see it.
struct Block {
  HeadPlace place;
  int first;
  int from, end;          // what is seen of it
  const std::byte* then;  // keys that will be wanted after it, or null

  // What a query sees of it; of `end` not more than `begin` where that is nothing.
  int BeginFor(const AttentionArgs& args, const Queries& queries, int query) const {
    return std::max(first, args.spec.First(queries.Position(query)));
  }
  // The first position that any of `count` queries sees.
  int BeginFor(const AttentionArgs& args, const Queries& queries, int query, int count) const {
    int begin = BeginFor(args, queries, query);
    for (int i = 1; args.spec.window && i < count; ++i) begin = std::min(begin, BeginFor(args, queries, query + i));
    return begin;
  }
  int EndFor(const Queries& queries, int query) const { return std::min(queries.Position(query) + 1, first + kAttentionBlock); }
  const std::byte* RowAt(const Queries& queries, const StateRef& state, int position) const {
    return StateRow(*queries.lane, state, position) + place.first;
  }
};

// A thread's scratch, cut up.
struct Work {
  float* q;        // the queries as their scorer keeps them: at most [query][width]
  float* q_units;  // [query], for scorers that have them
  float* tiles;    // of keys while scores are made, of values afterwards
  float* scores;   // [query][kAttentionBlock]
  float* sums;     // [query][width]: the partial's weighted values
  float* most;     // [query]
  float* total;    // [query]
  Work(const AttentionArgs& args, int thread) {
    const int64_t width = AttentionWidth(args);
    q = args.scratch + thread * args.scratch_floats;
    q_units = q + kMostQueries * width;
    tiles = q_units + kMostQueries;
    scores = tiles + AttentionTileFloats(args);
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

// Queries and vectors of columns whose sums stay in registers while values are weighed. AVX-512: 6 x 4 of 32, beside 4 vectors of values and a
// weight. AVX2 has 16 registers of half the width.
constexpr int kWeighQueries = kParts == 1 ? 6 : 2;
constexpr int kWeighVectors = kParts == 1 ? 4 : (kParts == 2 ? 2 : 1);

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
