// One block of attention: the scores of some queries against up to kAttentionBlock positions, and the values weighted by them.
#if defined(REPRISE_BACKEND_CPU_ATTENTION_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_ATTENTION_BLOCK_INL_H_
#undef REPRISE_BACKEND_CPU_ATTENTION_BLOCK_INL_H_
#else
#define REPRISE_BACKEND_CPU_ATTENTION_BLOCK_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "backend/cpu/attention.h"
#include "backend/cpu/dot-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Element types of keys and values.
struct StateF32 {
  using Element = float;
  static HWY_INLINE Floats All(const float* p) { return Load(p); }
  static HWY_INLINE Floats First(const float* p, int count) { return LoadFirst(p, count); }
};
struct StateF16 {
  using Element = uint16_t;
  static HWY_INLINE Floats All(const uint16_t* p) { return LoadHalf(p); }
  static HWY_INLINE Floats First(const uint16_t* p, int count) { return LoadHalfFirst(p, count); }
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

// A thread's scratch, cut up.
struct Work {
  float* q;     // [group][width][R], scaled
  float* keys;  // [width][16], and twice that in the state's own type
  void* own_keys;
  float* scores;  // [query][kAttentionBlock]
  float* sums;    // [query][width]: the partial's weighted values
  float* most;    // [query]
  float* total;   // [query]
  Work(const AttentionArgs& args, int thread) {
    const int64_t width = AttentionWidth(args);
    q = args.scratch + thread * args.scratch_floats;
    keys = q + kMostQueries * width;
    own_keys = keys + 16 * width;
    scores = keys + 48 * width;
    sums = scores + kMostQueries * kAttentionBlock;
    most = sums + kMostQueries * width;
    total = most + kMostQueries;
  }
};

// Fetches rows of keys and values into the second cache, some lines at every call, spread over the time that the tiles before them take: a row
// of one head lies too far from the next for the machine to guess, and all lines at once would exceed what a core can have under way.
struct FetchTiles {
  int64_t row_bytes;
  int lines;  // of a row
  int tiles = 0;
  const std::byte* tile[4];  // 16 rows each
  int a_call = 1;
  mutable int at = 0, row = 0, line = 0;

  FetchTiles(int64_t row_bytes_in, int64_t head_bytes) : row_bytes(row_bytes_in), lines(static_cast<int>((head_bytes + 63) / 64)) {}
  void Add(const void* rows) { tile[tiles++] = static_cast<const std::byte*>(rows); }
  void Spread(int calls) { a_call = (tiles * 16 * lines + calls - 1) / calls; }
  HWY_INLINE void operator()(int64_t) const {
    for (int i = 0; i < a_call && at < tiles; ++i) {
      FetchFar(tile[at] + row * row_bytes + line * 64);
      if (++line < lines) continue;
      line = 0;
      if (++row < 16) continue;
      row = 0;
      ++at;
    }
  }
};

// Scores of `rows` queries against C tiles of 16 positions, `tile_stride` elements apart. out: [C][rows].
template <class Loader, int C, int kMost, int R = 1, class Fetch>
HWY_INLINE void ScoreTiles(int rows, const typename Loader::Element* keys, int64_t tile_stride, const float* q, int64_t width, Floats* out,
                           const Fetch& fetch) {
  if constexpr (R < kMost) {
    if (rows != R) return ScoreTiles<Loader, C, kMost, R + 1>(rows, keys, tile_stride, q, width, out, fetch);
  }
  DotTiles<R, C, Loader>(keys, tile_stride, q, width, out, fetch);
}

inline void LoadQueries(const AttentionArgs& args, const Queries& queries, const Work& work) {
  const RowGroups groups(queries.count(), kRowGroup);
  const int width = args.q.width;
  for (int g = 0; g < groups.count; ++g) {
    const int first = groups.First(g), size = groups.Size(g);
    float* to = work.q + static_cast<int64_t>(first) * width;
    for (int r = 0; r < size; ++r) {
      const int query = first + r;
      const float* from = RowAt(args.q.rows, queries.Row(query)) + static_cast<int64_t>(queries.Head(query)) * args.q.stride;
      for (int i = 0; i < width; ++i) to[static_cast<int64_t>(i) * size + r] = from[i] * args.scale;
    }
  }
}

// Some positions of one extent: rows of values `stride` elements apart, and the weights of each query, kAttentionBlock apart.
template <class T>
struct ValueRun {
  const T* values;
  int64_t stride;
  int count;
  const float* weights;
};

// Adds the weighted values of a run to the sums of R queries, for C vectors of columns.
template <class State, int R, int C>
HWY_INLINE void WeighColumns(const ValueRun<typename State::Element>& run, int column, float* sums, int64_t padded) {
  Floats acc[R][C];
  REPRISE_UNROLL for (int r = 0; r < R; ++r) {
    REPRISE_UNROLL for (int c = 0; c < C; ++c) acc[r][c] = Load(sums + r * padded + column + c * 16);
  }
  const auto* v = run.values + column;
  for (int i = 0; i < run.count; ++i, v += run.stride) {
    Floats value[C];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) value[c] = State::All(v + c * 16);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      const Floats weight = Set(run.weights[r * kAttentionBlock + i]);
      REPRISE_UNROLL for (int c = 0; c < C; ++c) acc[r][c] = MulAdd(weight, value[c], acc[r][c]);
    }
  }
  REPRISE_UNROLL for (int r = 0; r < R; ++r) {
    REPRISE_UNROLL for (int c = 0; c < C; ++c) Store(acc[r][c], sums + r * padded + column + c * 16);
  }
}

// The last columns of a head whose width is no multiple of 16.
template <class State>
void WeighTail(const ValueRun<typename State::Element>& run, int column, int count, const float* weights, float* sums) {
  Floats acc = Load(sums + column);
  for (int i = 0; i < run.count; ++i) acc = MulAdd(Set(weights[i]), State::First(run.values + i * run.stride + column, count), acc);
  Store(acc, sums + column);
}

// Queries and vectors of columns whose sums stay in registers. AVX-512: 6 x 4 of 32, beside 4 vectors of values and a weight. AVX2 has 16
// registers of half the width.
constexpr int kWeighQueries = kParts == 1 ? 6 : 2;
constexpr int kWeighVectors = kParts == 1 ? 4 : (kParts == 2 ? 2 : 1);

template <class State, int R>
void WeighQueries(const ValueRun<typename State::Element>& run, int width, float* sums, int64_t padded) {
  constexpr int kStep = 16 * kWeighVectors;
  int i = 0;
  for (; i + kStep <= width; i += kStep) WeighColumns<State, R, kWeighVectors>(run, i, sums, padded);
  for (; i + 16 <= width; i += 16) WeighColumns<State, R, 1>(run, i, sums, padded);
  if (i < width) {
    for (int r = 0; r < R; ++r) WeighTail<State>(run, i, width - i, run.weights + r * kAttentionBlock, sums + r * padded);
  }
}
template <class State, int R = 1>
void WeighGroup(int queries, const ValueRun<typename State::Element>& run, int width, float* sums, int64_t padded) {
  if constexpr (R < kWeighQueries) {
    if (queries != R) return WeighGroup<State, R + 1>(queries, run, width, sums, padded);
  }
  WeighQueries<State, R>(run, width, sums, padded);
}

// A block of positions as one key-value head's queries see it.
struct Block {
  int64_t column;  // of the head in a row of keys or values
  int first;
  int from, end;     // what is seen of it
  const void* then;  // keys that will be wanted after it, or null
};

// Scores of all queries for positions [from, end) of the block, into work.scores; -infinity where a query must not look.
template <class State>
void ScoreBlock(const AttentionArgs& args, const Queries& queries, const Block& block, const Work& work) {
  using Element = typename State::Element;
  const int width = args.q.width, block_first = block.first, from = block.from, end = block.end;
  const float nothing = -std::numeric_limits<float>::infinity();
  const int64_t stride = static_cast<int64_t>(args.k.bytes / sizeof(Element));
  const auto row_at = [&](const StateRef& state, int position) {
    return reinterpret_cast<const Element*>(StateRow(*queries.lane, state, position)) + block.column;
  };
  const auto end_of = [&](int query) { return std::min(queries.Position(query) + 1, block_first + kAttentionBlock); };
  Element* const own_keys = static_cast<Element*>(work.own_keys);
  const auto keep = [&](const Floats* scores, int tile, int first, int size) {
    for (int r = 0; r < size; ++r) {
      float* to = work.scores + static_cast<int64_t>(first + r) * kAttentionBlock + (tile - block_first);
      Store(scores[r], to);
      for (int p = tile; p < from; ++p) to[p - tile] = nothing;
      for (int p = std::max(tile, end_of(first + r)); p < tile + 16; ++p) to[p - tile] = nothing;
    }
  };
  const RowGroups groups(queries.count(), kRowGroup);
  // Few queries are few chains of additions, which would wait for one another: two tiles side by side make twice as many.
  constexpr int kFew = kRowGroup / 2;
  const int at_once = queries.count() <= kFew ? 2 : 1;
  int tile = from & ~15;
  while (tile < end) {
    const int tiles = tile + 16 < end ? at_once : 1;
    // What comes next: the keys of the tiles after these, and the values of these, which are wanted when all of the block is scored.
    FetchTiles fetch(static_cast<int64_t>(args.k.bytes), width * static_cast<int64_t>(sizeof(Element)));
    for (int t = 0; t < tiles; ++t) {
      const int next = tile + (t + tiles) * 16;
      if (next < end) fetch.Add(row_at(args.k, next));
      fetch.Add(row_at(args.v, tile + t * 16));
      TransposeKeys<Element>(row_at(args.k, tile + t * 16), stride, width, own_keys + t * 16 * width);
    }
    if (block.then && tile + 16 * tiles >= end) fetch.Add(block.then);
    fetch.Spread(width);
    Floats scores[2 * kRowGroup];
    if (tiles == 2) {
      ScoreTiles<LoadKeys<State>, 2, kFew>(queries.count(), own_keys, 16 * width, work.q, width, scores, fetch);
      keep(scores, tile, 0, queries.count());
      keep(scores + queries.count(), tile + 16, 0, queries.count());
    } else {
      // Many groups share one conversion.
      const bool convert = groups.count > 2 && sizeof(Element) != sizeof(float);
      if (convert) {
        for (int i = 0; i < width; ++i) Store(State::All(own_keys + i * 16), work.keys + i * 16);
      }
      bool fetched = false;
      for (int g = 0; g < groups.count; ++g) {
        const int first = groups.First(g), size = groups.Size(g);
        if (end_of(first + size - 1) <= tile) continue;
        const float* q = work.q + static_cast<int64_t>(first) * width;
        if (!convert) {
          ScoreTiles<LoadKeys<State>, 1, kRowGroup>(size, own_keys, 0, q, width, scores, fetch);
        } else if (!fetched) {
          ScoreTiles<LoadKeys<StateF32>, 1, kRowGroup>(size, work.keys, 0, q, width, scores, fetch);
        } else {
          ScoreTiles<LoadKeys<StateF32>, 1, kRowGroup>(size, work.keys, 0, q, width, scores, NoFetch());
        }
        fetched = true;
        keep(scores, tile, first, size);
      }
    }
    tile += 16 * tiles;
  }
}

// The partials of all queries for the block that starts at `block_first`, into work.most, total and sums. A query that sees no position of
// the block gets most = -infinity and total = 0. `then`: keys that will be wanted after the block, or null.
template <class State>
void BlockPartials(const AttentionArgs& args, const Queries& queries, int kv_head, int block_first, const void* then, const Work& work) {
  using Element = typename State::Element;
  const int width = args.q.width;
  const int64_t padded = AttentionWidth(args);
  const float nothing = -std::numeric_limits<float>::infinity();
  const int64_t column = static_cast<int64_t>(kv_head) * width;
  const int from = std::max(block_first, args.first_position);
  const int block_end = block_first + kAttentionBlock;
  const auto end_of = [&](int query) { return std::min(queries.Position(query) + 1, block_end); };
  const int end = end_of(queries.count() - 1);

  ScoreBlock<State>(args, queries, {column, block_first, from, end, then}, work);

  for (int query = 0; query < queries.count(); ++query) {
    float* scores = work.scores + static_cast<int64_t>(query) * kAttentionBlock;
    std::fill_n(work.sums + query * padded, padded, 0.0f);
    const int begin = (from & ~15) - block_first, stop = end_of(query) - block_first;
    if (end_of(query) <= from) {
      work.most[query] = nothing;
      work.total[query] = 0.0f;
      continue;
    }
    Floats top = Set(nothing);
    for (int i = begin; i < stop; i += 16) top = Max(top, Load(scores + i));
    const float most = MaxLane(top);
    Floats total = Zeros();
    for (int i = begin; i < stop; i += 16) {
      const Floats weight = Exp(Sub(Load(scores + i), Set(most)));
      Store(weight, scores + i);
      total = Add(total, weight);
    }
    work.most[query] = most;
    work.total[query] = Sum(total);
  }

  // Extent by extent. Positions that all queries of a group see are weighed together, the few more of its later rows one query at a time: a
  // position that a row must not see is not even multiplied by zero, so that a NaN there cannot reach it.
  const RowGroups groups(queries.count(), kWeighQueries);
  const int64_t stride = static_cast<int64_t>(args.v.bytes / sizeof(Element));
  for (int begin = from; begin < end;) {
    const int stop = std::min(end, (begin / kExtentRows + 1) * kExtentRows);
    ValueRun<Element> run{};
    const auto* const values = reinterpret_cast<const Element*>(StateRow(*queries.lane, args.v, begin)) + column;
    run.stride = stride;
    const auto weigh = [&](int first, int count, int run_from, int run_to) {
      if (run_from >= run_to) return;
      run.values = values + (run_from - begin) * stride;
      run.count = run_to - run_from;
      run.weights = work.scores + static_cast<int64_t>(first) * kAttentionBlock + (run_from - block_first);
      WeighGroup<State>(count, run, width, work.sums + first * padded, padded);
    };
    for (int g = 0; g < groups.count; ++g) {
      const int first = groups.First(g), size = groups.Size(g);
      const int common = std::clamp(end_of(first), begin, stop);
      weigh(first, size, begin, common);
      for (int query = first; query < first + size; ++query) weigh(query, 1, common, std::min(end_of(query), stop));
    }
    begin = stop;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
