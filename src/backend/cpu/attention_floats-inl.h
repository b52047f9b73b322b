// Attention over floats.
#if defined(REPRISE_BACKEND_CPU_ATTENTION_FLOATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_ATTENTION_FLOATS_INL_H_
#undef REPRISE_BACKEND_CPU_ATTENTION_FLOATS_INL_H_
#else
#define REPRISE_BACKEND_CPU_ATTENTION_FLOATS_INL_H_
#endif

#include <algorithm>

#include "backend/cpu/attention_work-inl.h"
#include "backend/cpu/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

class FloatScorer;

struct StateF32 {
  using Scorer = FloatScorer;
};
struct LoadKeys {
  using Element = float;
  static HWY_INLINE Floats At(const float* p) { return Load(p); }
};

// Scores as sums over the width in ascending order, in floats.
//
//   q     [group of rows][width][R], scaled
//   keys  [2 tiles][width][16]
class FloatScorer {
 public:
  FloatScorer(const AttentionArgs& args, const HeadPlace&, const Work& work)
      : width_(args.q.width), stride_(static_cast<int64_t>(args.k.bytes / sizeof(float))), q_(work.q), keys_(work.tiles) {}

  static void LoadQueries(const AttentionArgs& args, const Queries& queries, const Work& work) {
    const RowGroups groups(queries.count(), kRowGroup);
    const int width = args.q.width;
    for (int g = 0; g < groups.count; ++g) {
      const int first = groups.First(g), size = groups.Size(g);
      float* const to = work.q + static_cast<int64_t>(first) * width;
      for (int r = 0; r < size; ++r) {
        const float* const from = QueryAt(args, queries, first + r);
        for (int i = 0; i < width; ++i) to[static_cast<int64_t>(i) * size + r] = from[i] * args.spec.scale;
      }
    }
  }

  // How often TakeKeys of so many tiles and one Score call their `fetch`.
  int fetches(int) const { return width_; }

  // Tile `t` (0 or 1): the head's keys of 16 rows.
  template <class Fetch>
  void TakeKeys(int t, const std::byte* keys, const Fetch&) {
    TransposeKeys(reinterpret_cast<const float*>(keys), stride_, width_, keys_ + t * 16 * width_);
  }

  // Scores of the group of `size` queries that begins with `first` against the first C tiles. scores: [C][size].
  template <int C, int kMost, class Fetch>
  HWY_INLINE void Score(int first, int size, Floats* scores, const Fetch& fetch) const {
    const float* const q = q_ + static_cast<int64_t>(first) * width_;
    WithRows<kMost>(size, [&](auto rows) HWY_ATTR { DotTiles<rows, C, LoadKeys>(keys_, 16 * width_, q, width_, scores, fetch); });
  }

 private:
  int width_;
  int64_t stride_;  // elements from one row to the next
  const float* q_;
  float* keys_;
};

// Some positions of one extent: rows of a head's values `stride` floats apart, and the weights of each query, kAttentionBlock apart.
struct ValueRun {
  const float* values;
  int64_t stride;
  int count;
  const float* weights;
};

// Adds the weighted values of a run to the sums of R queries, for C vectors of columns.
template <int R, int C>
HWY_INLINE void WeighColumns(const ValueRun& run, int column, float* sums, int64_t padded) {
  Floats acc[R][C];
  REPRISE_UNROLL for (int r = 0; r < R; ++r) {
    REPRISE_UNROLL for (int c = 0; c < C; ++c) acc[r][c] = Load(sums + r * padded + column + c * 16);
  }
  const float* v = run.values + column;
  for (int i = 0; i < run.count; ++i, v += run.stride) {
    Floats value[C];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) value[c] = Load(v + c * 16);
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
inline void WeighTail(const ValueRun& run, int column, int count, const float* weights, float* sums) {
  Floats acc = Load(sums + column);
  for (int i = 0; i < run.count; ++i) acc = MulAdd(Set(weights[i]), LoadFirst(run.values + i * run.stride + column, count), acc);
  Store(acc, sums + column);
}

// The values of the block weighted for each query, into work.sums. Extent by extent. Positions that all queries of a group see are weighed
// together, the few more of some of its rows one query at a time: a position that a row must not see is not even multiplied by zero, so that a
// NaN there cannot reach it.
inline void WeighFloats(const AttentionArgs& args, const Queries& queries, const Block& block, const Work& work) {
  const int width = args.q.width;
  const int64_t padded = AttentionWidth(args), stride = static_cast<int64_t>(args.v.bytes / sizeof(float));
  std::fill_n(work.sums, queries.count() * padded, 0.0f);
  const RowGroups groups(queries.count(), kWeighQueries);
  for (int begin = block.from; begin < block.end;) {
    const int stop = std::min(block.end, (begin / kExtentRows + 1) * kExtentRows);
    const auto* const values = reinterpret_cast<const float*>(block.RowAt(queries, args.v, begin));
    const auto weigh = [&](int first, int count, int from, int to) {
      if (from >= to) return;
      const float* const weights = work.scores + static_cast<int64_t>(first) * kAttentionBlock + (from - block.first);
      const ValueRun run{values + (from - begin) * stride, stride, to - from, weights};
      float* const sums = work.sums + first * padded;
      int i = 0;
      WithRows<kWeighQueries>(count, [&](auto rows) HWY_ATTR {
        for (; i + 16 * kWeighVectors <= width; i += 16 * kWeighVectors) WeighColumns<rows, kWeighVectors>(run, i, sums, padded);
        for (; i + 16 <= width; i += 16) WeighColumns<rows, 1>(run, i, sums, padded);
      });
      for (int r = 0; i < width && r < count; ++r) WeighTail(run, i, width - i, run.weights + r * kAttentionBlock, sums + r * padded);
    };
    for (int g = 0; g < groups.count; ++g) {
      const int first = groups.First(g), size = groups.Size(g);
      int all_from = begin;
      for (int i = 0; i < size; ++i) all_from = std::max(all_from, block.BeginFor(args, queries, first + i));
      all_from = std::min(all_from, stop);
      const int all_to = std::clamp(block.EndFor(queries, first), all_from, stop);
      for (int query = first; all_from > begin && query < first + size; ++query) {
        weigh(query, 1, std::max(begin, block.BeginFor(args, queries, query)), std::min(all_from, block.EndFor(queries, query)));
      }
      weigh(first, size, all_from, all_to);
      for (int query = first; query < first + size; ++query) {
        weigh(query, 1, std::max(all_to, block.BeginFor(args, queries, query)), std::min(block.EndFor(queries, query), stop));
      }
    }
    begin = stop;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
