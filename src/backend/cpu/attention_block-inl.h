// One block of attention: the scores of some queries against up to kAttentionBlock positions, and the values weighted by them.
#if defined(REPRISE_BACKEND_CPU_ATTENTION_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_ATTENTION_BLOCK_INL_H_
#undef REPRISE_BACKEND_CPU_ATTENTION_BLOCK_INL_H_
#else
#define REPRISE_BACKEND_CPU_ATTENTION_BLOCK_INL_H_
#endif

#include <algorithm>
#include <limits>
#include <type_traits>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_keys-inl.h"
#include "backend/cpu/attention_q8-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Fetches rows of keys and values into the second cache, some lines at every call, spread over the time that the tiles before them take: a row
// of one head lies too far from the next for the machine to guess, and all lines at once would exceed what a core can have under way.
struct FetchTiles {
  int64_t row_bytes, scales;
  int lines;  // of a row; with those of its scales, if they lie apart
  int tiles = 0;
  const std::byte* tile[4];  // 16 rows each
  int a_call = 1;
  mutable int at = 0, row = 0, line = 0;

  FetchTiles(size_t row_bytes_in, const HeadPlace& place)
      : row_bytes(static_cast<int64_t>(row_bytes_in)),
        scales(place.scales),
        lines(static_cast<int>((place.bytes + 63) / 64) + (place.scales ? 1 : 0)) {}
  void Add(const std::byte* rows) { tile[tiles++] = rows; }
  void Spread(int calls) { a_call = (tiles * 16 * lines + calls - 1) / calls; }
  HWY_INLINE void operator()(int64_t) const {
    for (int i = 0; i < a_call && at < tiles; ++i) {
      const std::byte* const from = tile[at] + row * row_bytes;
      const bool last = ++line == lines;
      FetchFar(last && scales ? from + scales : from + (line - 1) * 64);
      if (!last) continue;
      line = 0;
      if (++row < 16) continue;
      row = 0;
      ++at;
    }
  }
};

// Some positions of one extent: rows of a head's values `stride` bytes apart, and the weights of each query, kAttentionBlock apart.
struct ValueRun {
  const std::byte* values;
  int64_t stride;
  int64_t scales;  // bytes from a row to its scales
  int count;
  const float* weights;
};

// Adds the weighted values of a run to the sums of R queries, for C vectors of columns.
template <class State, int R, int C>
HWY_INLINE void WeighColumns(const ValueRun& run, int column, float* sums, int64_t padded) {
  Floats acc[R][C];
  REPRISE_UNROLL for (int r = 0; r < R; ++r) {
    REPRISE_UNROLL for (int c = 0; c < C; ++c) acc[r][c] = Load(sums + r * padded + column + c * 16);
  }
  const std::byte* v = run.values;
  for (int i = 0; i < run.count; ++i, v += run.stride) {
    Floats value[C];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) value[c] = State::Columns(v, run.scales, column + c * 16);
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
void WeighTail(const ValueRun& run, int column, int count, const float* weights, float* sums) {
  Floats acc = Load(sums + column);
  for (int i = 0; i < run.count; ++i) {
    acc = MulAdd(Set(weights[i]), State::FirstColumns(run.values + i * run.stride, column, count), acc);
  }
  Store(acc, sums + column);
}

// Queries and vectors of columns whose sums stay in registers. AVX-512: 6 x 4 of 32, beside 4 vectors of values and a weight. AVX2 has 16
// registers of half the width.
constexpr int kWeighQueries = kParts == 1 ? 6 : 2;
constexpr int kWeighVectors = kParts == 1 ? 4 : (kParts == 2 ? 2 : 1);

template <class State, int R>
void WeighQueries(const ValueRun& run, int width, float* sums, int64_t padded) {
  constexpr int kStep = 16 * kWeighVectors;
  int i = 0;
  for (; i + kStep <= width; i += kStep) WeighColumns<State, R, kWeighVectors>(run, i, sums, padded);
  for (; i + 16 <= width; i += 16) WeighColumns<State, R, 1>(run, i, sums, padded);
  if constexpr (requires { &State::FirstColumns; }) {  // otherwise heads are whole blocks
    for (int r = 0; i < width && r < R; ++r) WeighTail<State>(run, i, width - i, run.weights + r * kAttentionBlock, sums + r * padded);
  }
}
template <class State, int R = 1>
void WeighGroup(int queries, const ValueRun& run, int width, float* sums, int64_t padded) {
  if constexpr (R < kWeighQueries) {
    if (queries != R) return WeighGroup<State, R + 1>(queries, run, width, sums, padded);
  }
  WeighQueries<State, R>(run, width, sums, padded);
}

// Values as floats, in panels of as many columns as are weighed at a time: [columns / kPanel][position][kPanel].
struct StatePanels {
  static constexpr int kPanel = 16 * kWeighVectors;
  static_assert(kPanel <= 64);  // see AttentionTileFloats
  static HWY_INLINE Floats Columns(const std::byte* row, int64_t panel_bytes, int column) {
    return Load(reinterpret_cast<const float*>(row + column / kPanel * panel_bytes) + column % kPanel);
  }
};

// Positions whose values are converted at a time, where many queries weigh them: a panel of them stays in the first cache.
constexpr int kSharedPositions = 32;

// The values of a run as panels, in `to`.
inline ValueRun Panels(const ValueRun& run, int width, float* to) {
  constexpr int kPanel = StatePanels::kPanel;
  for (int i = 0; i < run.count; ++i) {
    for (int column = 0; column < width; column += 16) {
      const int64_t row = int64_t{column / kPanel} * kSharedPositions + i;
      Store(StateQ8::Columns(run.values + i * run.stride, run.scales, column), to + row * kPanel + column % kPanel);
    }
  }
  constexpr int64_t kRow = kPanel * sizeof(float);
  return {reinterpret_cast<const std::byte*>(to), kRow, kRow * kSharedPositions, run.count, run.weights};
}

// A block of positions as one key-value head's queries see it.
struct Block {
  HeadPlace place;
  int first;
  int from, end;          // what is seen of it
  const std::byte* then;  // keys that will be wanted after it, or null

  int EndFor(const Queries& queries, int query) const { return std::min(queries.Position(query) + 1, first + kAttentionBlock); }
  const std::byte* RowAt(const Queries& queries, const StateRef& state, int position) const {
    return StateRow(*queries.lane, state, position) + place.first;
  }
};

// Scores of all queries for positions [from, end) of the block, into work.scores; -infinity where a query must not look.
template <class State>
void ScoreBlock(const AttentionArgs& args, const Queries& queries, const Block& block, const Work& work) {
  const float nothing = -std::numeric_limits<float>::infinity();
  const auto keep = [&](const Floats* scores, int tile, int first, int size) {
    for (int r = 0; r < size; ++r) {
      float* to = work.scores + static_cast<int64_t>(first + r) * kAttentionBlock + (tile - block.first);
      Store(scores[r], to);
      for (int p = tile; p < block.from; ++p) to[p - tile] = nothing;
      for (int p = std::max(tile, block.EndFor(queries, first + r)); p < tile + 16; ++p) to[p - tile] = nothing;
    }
  };
  const RowGroups groups(queries.count(), kRowGroup);
  typename State::Scorer scorer(args, block.place, work);
  // Few queries are few chains of additions, which would wait for one another: two tiles side by side make twice as many.
  constexpr int kFew = kRowGroup / 2;
  const int at_once = queries.count() <= kFew ? 2 : 1;
  int tile = block.from & ~15;
  while (tile < block.end) {
    const int tiles = tile + 16 < block.end ? at_once : 1;
    // What comes next: the keys of the tiles after these, and the values of these, which are wanted when all of the block is scored.
    FetchTiles fetch(args.k.bytes, block.place);
    for (int t = 0; t < tiles; ++t) {
      const int next = tile + (t + tiles) * 16;
      if (next < block.end) fetch.Add(block.RowAt(queries, args.k, next));
      fetch.Add(block.RowAt(queries, args.v, tile + t * 16));
      scorer.TakeKeys(t, block.RowAt(queries, args.k, tile + t * 16), groups.count);
    }
    if (block.then && tile + 16 * tiles >= block.end) fetch.Add(block.then);
    fetch.Spread(scorer.fetches());
    Floats scores[2 * kRowGroup];
    if (tiles == 2) {
      scorer.template Score<2, kFew>(0, queries.count(), scores, fetch);
      keep(scores, tile, 0, queries.count());
      keep(scores + queries.count(), tile + 16, 0, queries.count());
    } else {
      bool fetched = false;
      for (int g = 0; g < groups.count; ++g) {
        const int first = groups.First(g), size = groups.Size(g);
        if (block.EndFor(queries, first + size - 1) <= tile) continue;
        if (!fetched) {
          scorer.template Score<1, kRowGroup>(first, size, scores, fetch);
        } else {
          scorer.template Score<1, kRowGroup>(first, size, scores, NoFetch());
        }
        fetched = true;
        keep(scores, tile, first, size);
      }
    }
    tile += 16 * tiles;
  }
}

// Scores become weights, and make work.most and total. A query that sees no position of the block gets most = -infinity and total = 0.
inline void WeightsOfScores(const Queries& queries, const Block& block, const Work& work) {
  const float nothing = -std::numeric_limits<float>::infinity();
  for (int query = 0; query < queries.count(); ++query) {
    float* scores = work.scores + static_cast<int64_t>(query) * kAttentionBlock;
    const int begin = (block.from & ~15) - block.first, stop = block.EndFor(queries, query) - block.first;
    if (stop <= block.from - block.first) {
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
}

// The values of the block weighted for each query, into work.sums. Extent by extent, in pieces. Positions that all queries of a group see are
// weighed together, the few more of its later rows one query at a time: a position that a row must not see is not even multiplied by zero, so
// that a NaN there cannot reach it.
template <class State>
void WeighBlock(const AttentionArgs& args, const Queries& queries, const Block& block, const Work& work) {
  const int width = args.q.width;
  const int64_t padded = AttentionWidth(args);
  std::fill_n(work.sums, queries.count() * padded, 0.0f);
  const RowGroups groups(queries.count(), kWeighQueries);
  const auto weigh_piece = [&]<class As>(As, const ValueRun& piece, int begin) {
    const auto weigh = [&](int first, int count, int from, int to) {
      if (from >= to) return;
      ValueRun run = piece;
      run.values += (from - begin) * piece.stride;
      run.count = to - from;
      run.weights = work.scores + static_cast<int64_t>(first) * kAttentionBlock + (from - block.first);
      WeighGroup<As>(count, run, width, work.sums + first * padded, padded);
    };
    const int stop = begin + piece.count;
    for (int g = 0; g < groups.count; ++g) {
      const int first = groups.First(g), size = groups.Size(g);
      const int common = std::clamp(block.EndFor(queries, first), begin, stop);
      weigh(first, size, begin, common);
      for (int query = first; query < first + size; ++query) weigh(query, 1, common, std::min(block.EndFor(queries, query), stop));
    }
  };
  // Many groups share one conversion; that of halves is too cheap for it.
  const bool convert = groups.count > 2 && std::is_same_v<State, StateQ8>;
  const int most = convert ? kSharedPositions : kExtentRows;
  for (int begin = block.from; begin < block.end;) {
    const int stop = std::min(block.end, (begin / most + 1) * most);
    const ValueRun run{block.RowAt(queries, args.v, begin), static_cast<int64_t>(args.v.bytes), block.place.scales, stop - begin, nullptr};
    if (convert) {
      weigh_piece(StatePanels(), Panels(run, width, work.keys), begin);
    } else {
      weigh_piece(State(), run, begin);
    }
    begin = stop;
  }
}

// The partials of all queries for the block that starts at `block_first`, into work.most, total and sums. `then`: keys that will be wanted
// after the block, or null.
template <class State>
void BlockPartials(const AttentionArgs& args, const Queries& queries, int kv_head, int block_first, const std::byte* then,
                   const Work& work) {
  Block block{HeadPlace(args, kv_head), block_first, std::max(block_first, args.first_position), 0, then};
  block.end = block.EndFor(queries, queries.count() - 1);
  ScoreBlock<State>(args, queries, block, work);
  WeightsOfScores(queries, block, work);
  WeighBlock<State>(args, queries, block, work);
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
