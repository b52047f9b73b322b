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
#include "backend/cpu/attention_floats-inl.h"
#include "backend/cpu/attention_q8-inl.h"
#include "backend/cpu/attention_shorts-inl.h"
#include "backend/cpu/attention_work-inl.h"
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

// Scores of all queries for positions [from, end) of the block, into work.scores; -infinity where a query must not look.
template <class State>
void ScoreBlock(const AttentionArgs& args, const Queries& queries, const Block& block, const Work& work) {
  const float nothing = -std::numeric_limits<float>::infinity();
  const auto keep = [&](const Floats* scores, int tile, int first, int size) {
    for (int r = 0; r < size; ++r) {
      float* to = work.scores + static_cast<int64_t>(first + r) * kAttentionBlock + (tile - block.first);
      Store(scores[r], to);
      for (int p = tile; p < std::min(tile + 16, block.BeginFor(args, queries, first + r)); ++p) to[p - tile] = nothing;
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
    }
    if (block.then && tile + 16 * tiles >= block.end) fetch.Add(block.then);
    fetch.Spread(scorer.fetches(tiles));
    for (int t = 0; t < tiles; ++t) scorer.TakeKeys(t, block.RowAt(queries, args.k, tile + t * 16), fetch);
    Floats scores[2 * kRowGroup];
    if (tiles == 2) {
      scorer.template Score<2, kFew>(0, queries.count(), scores, fetch);
      keep(scores, tile, 0, queries.count());
      keep(scores + queries.count(), tile + 16, 0, queries.count());
    } else {
      bool fetched = false;
      for (int g = 0; g < groups.count; ++g) {
        const int first = groups.First(g), size = groups.Size(g);
        if (block.EndFor(queries, first + size - 1) <= tile || block.BeginFor(args, queries, first, size) >= tile + 16) continue;
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
inline void WeightsOfScores(const AttentionArgs& args, const Queries& queries, const Block& block, const Work& work) {
  const float nothing = -std::numeric_limits<float>::infinity();
  for (int query = 0; query < queries.count(); ++query) {
    float* scores = work.scores + static_cast<int64_t>(query) * kAttentionBlock;
    const int from = block.BeginFor(args, queries, query) - block.first, stop = block.EndFor(queries, query) - block.first;
    const int begin = from & ~15;
    if (stop <= from) {
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

// The partials of all queries for the block that starts at `block_first`, into work.most, total and sums. `then`: keys that will be wanted
// after the block, or null.
template <class State>
void BlockPartials(const AttentionArgs& args, const Queries& queries, int kv_head, int block_first, const std::byte* then,
                   const Work& work) {
  Block block{HeadPlace(args, kv_head), block_first, queries.FirstSeen(args, block_first), 0, then};
  block.end = block.EndFor(queries, queries.count() - 1);
  ScoreBlock<State>(args, queries, block, work);
  WeightsOfScores(args, queries, block, work);
  if constexpr (std::is_same_v<State, StateF32>) {
    WeighFloats(args, queries, block, work);
  } else {
    WeighShorts<State>(args, queries, block, work);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
