// Causal attention over extents.
//
// For each (row, head) and each absolute block of kAttentionBlock positions there is one partial: the greatest score m, the sum l of
// exp(score - m), and the values weighted by exp(score - m). Partials are combined in the order of the blocks. With many rows a unit goes
// through all blocks of its rows and combines as it goes; with few, units are single blocks, partials go to memory, and a second launch
// combines them. Both ways run the same two functions, so the bits are the same.
//
// A unit has one key-value head, and the rows x query heads that read it ("queries", at most kMostQueries): keys are transposed to
// [width][16 positions] once for all of them, so that a score, too, is a sum over inputs in ascending order in a lane of its own.
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention.cc"
#include "hwy/foreach_target.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/attention.h"
#include "backend/cpu/dispatch.h"
#include "backend/cpu/dot-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

struct LoadPlain {
  using Element = float;
  static HWY_INLINE Floats At(const float* p) { return Load(p); }
};

// Element types of keys and values: four at a time for the transposition, up to 16 for the values.
struct StateF32 {
  using Element = float;
  static constexpr hn::CappedTag<float, 4> kTag4{};
  static HWY_INLINE hn::Vec<hn::CappedTag<float, 4>> Four(const float* p) { return hn::LoadU(kTag4, p); }
  static HWY_INLINE float One(float x) { return x; }
  static HWY_INLINE Floats First(const float* p, int count) { return LoadFirst(p, count); }
  static HWY_INLINE Floats All(const float* p) { return Load(p); }
};
struct StateF16 {
  using Element = uint16_t;
  static constexpr hn::CappedTag<float, 4> kTag4{};
  static HWY_INLINE hn::Vec<hn::CappedTag<float, 4>> Four(const uint16_t* p) {
#if HWY_TARGET == HWY_SSE4
    HWY_ALIGN const float wide[4] = {HalfToFloat(p[0]), HalfToFloat(p[1]), HalfToFloat(p[2]), HalfToFloat(p[3])};
    return hn::Load(kTag4, wide);
#else
    const hn::Rebind<hwy::float16_t, hn::CappedTag<float, 4>> d16;
    return hn::PromoteTo(kTag4, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
#endif
  }
  static HWY_INLINE float One(uint16_t x) { return HalfToFloat(x); }
  static HWY_INLINE Floats First(const uint16_t* p, int count) { return LoadHalfFirst(p, count); }
  static HWY_INLINE Floats All(const uint16_t* p) { return LoadHalf(p); }
};

// to[i][16] = element i of 16 consecutive key rows, which lie `stride` elements apart.
template <class State>
void TransposeKeys(const typename State::Element* keys, int64_t stride, int width, float* to) {
  const int whole = width & ~3;
  const auto d4 = State::kTag4;
  const hn::Repartition<uint64_t, hn::CappedTag<float, 4>> d64;
  for (int p = 0; p < 16; p += 4) {
    const auto* row = keys + p * stride;
    for (int i = 0; i < whole; i += 4) {
      const auto a = State::Four(row + i), b = State::Four(row + stride + i);
      const auto c = State::Four(row + 2 * stride + i), d = State::Four(row + 3 * stride + i);
      const auto ab0 = hn::BitCast(d64, hn::InterleaveLower(d4, a, b)), ab1 = hn::BitCast(d64, hn::InterleaveUpper(d4, a, b));
      const auto cd0 = hn::BitCast(d64, hn::InterleaveLower(d4, c, d)), cd1 = hn::BitCast(d64, hn::InterleaveUpper(d4, c, d));
      hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d64, ab0, cd0)), d4, to + i * 16 + p);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d64, ab0, cd0)), d4, to + (i + 1) * 16 + p);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d64, ab1, cd1)), d4, to + (i + 2) * 16 + p);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d64, ab1, cd1)), d4, to + (i + 3) * 16 + p);
    }
    for (int i = whole; i < width; ++i) {
      for (int j = 0; j < 4; ++j) to[i * 16 + p + j] = State::One(row[j * stride + i]);
    }
  }
}

// Queries of a unit, in the order row by row, head by head.
struct Queries {
  int first_row;        // of the step
  int rows;
  int heads;            // query heads that share the key-value head
  int first_head;
  int first_position;   // position of the first row
  int count() const { return rows * heads; }
  int Position(int query) const { return first_position + query / heads; }
};

// A thread's scratch, cut up.
struct Work {
  float* q;        // [group][width][R], scaled
  float* keys;     // [width][16]
  float* scores;   // [query][kAttentionBlock]
  float* sums;     // [query][width]: the partial's weighted values
  float* most;     // [query]
  float* total;    // [query]
  Work(const AttentionArgs& args, int thread) {
    const int64_t width = AttentionWidth(args);
    q = args.scratch + thread * args.scratch_floats;
    keys = q + kMostQueries * width;
    scores = keys + 16 * width;
    sums = scores + kMostQueries * kAttentionBlock;
    most = sums + kMostQueries * width;
    total = most + kMostQueries;
  }
};

template <int R = 1>
HWY_INLINE void ScoreTile(int rows, const float* keys, const float* q, int64_t width, Floats* out) {
  if constexpr (R < kRowGroup) {
    if (rows != R) return ScoreTile<R + 1>(rows, keys, q, width, out);
  }
  DotTile<R, LoadPlain>(keys, q, width, out);
}

void LoadQueries(const AttentionArgs& args, const Queries& queries, const Work& work) {
  const RowGroups groups(queries.count(), kRowGroup);
  const int width = args.q.width;
  for (int g = 0; g < groups.count; ++g) {
    const int first = groups.First(g), size = groups.Size(g);
    float* to = work.q + static_cast<int64_t>(first) * width;
    for (int r = 0; r < size; ++r) {
      const int query = first + r;
      const float* from = RowAt(args.q.rows, queries.first_row + query / queries.heads) +
                          static_cast<int64_t>(queries.first_head + query % queries.heads) * args.q.stride;
      for (int i = 0; i < width; ++i) to[static_cast<int64_t>(i) * size + r] = from[i] * args.scale;
    }
  }
}

// Weighted values of R queries over positions [from, to) of the block, added to what `sums` holds, for C vectors of columns.
template <class State, int R, int C>
HWY_INLINE void WeighValues(const AttentionArgs& args, const LaneBinding& lane, int64_t column, int block_first, int from, int to,
                            const float* scores, float* sums, int64_t width) {
  Floats acc[R][C];
  _Pragma("GCC unroll 8") for (int r = 0; r < R; ++r) {
    _Pragma("GCC unroll 4") for (int c = 0; c < C; ++c) acc[r][c] = Load(sums + r * width + c * 16);
  }
  const int64_t stride = static_cast<int64_t>(args.v.bytes / sizeof(typename State::Element));
  while (from < to) {
    const int run = std::min(to, (from / kExtentRows + 1) * kExtentRows);   // to the end of the extent
    const auto* v = reinterpret_cast<const typename State::Element*>(StateRow(lane, args.v, from)) + column;
    for (; from < run; ++from, v += stride) {
      Floats value[C];
      _Pragma("GCC unroll 4") for (int c = 0; c < C; ++c) value[c] = State::All(v + c * 16);
      _Pragma("GCC unroll 8") for (int r = 0; r < R; ++r) {
        const Floats weight = Set(scores[r * kAttentionBlock + from - block_first]);
        _Pragma("GCC unroll 4") for (int c = 0; c < C; ++c) acc[r][c] = MulAdd(weight, value[c], acc[r][c]);
      }
    }
  }
  _Pragma("GCC unroll 8") for (int r = 0; r < R; ++r) {
    _Pragma("GCC unroll 4") for (int c = 0; c < C; ++c) Store(acc[r][c], sums + r * width + c * 16);
  }
}

// The last columns of a head whose width is no multiple of 16.
template <class State>
void WeighTail(const AttentionArgs& args, const LaneBinding& lane, int64_t column, int count, int block_first, int from, int to,
               const float* scores, float* sums) {
  Floats acc = Load(sums);
  for (; from < to; ++from) {
    const auto* v = reinterpret_cast<const typename State::Element*>(StateRow(lane, args.v, from)) + column;
    acc = MulAdd(Set(scores[from - block_first]), State::First(v, count), acc);
  }
  Store(acc, sums);
}

// Queries and columns whose sums stay in registers: 4 x 4 vectors of 16 of AVX-512's 32 registers, with the values beside them.
constexpr int kWeighQueries = kParts == 1 ? 4 : 2;
constexpr int kWeighVectors = kParts == 1 ? 4 : (kParts == 2 ? 2 : 1);

template <class State, int R>
void WeighQueries(const AttentionArgs& args, const LaneBinding& lane, int64_t column, int block_first, int from, int to, const float* scores,
                  float* sums, int64_t padded) {
  const int width = args.q.width;
  int i = 0;
  for (; i + 16 * kWeighVectors <= width; i += 16 * kWeighVectors) {
    WeighValues<State, R, kWeighVectors>(args, lane, column + i, block_first, from, to, scores, sums + i, padded);
  }
  for (; i + 16 <= width; i += 16) WeighValues<State, R, 1>(args, lane, column + i, block_first, from, to, scores, sums + i, padded);
  if (i < width) {
    for (int r = 0; r < R; ++r) {
      WeighTail<State>(args, lane, column + i, width - i, block_first, from, to, scores + r * kAttentionBlock, sums + r * padded + i);
    }
  }
}

// The partials of all queries for the block that starts at `block_first`, into work.most, total and sums. A query that sees no position of
// the block gets most = -infinity and total = 0.
template <class State>
void BlockPartials(const AttentionArgs& args, const LaneBinding& lane, const Queries& queries, int kv_head, int block_first,
                   const Work& work) {
  using Element = typename State::Element;
  const int width = args.q.width;
  const int64_t padded = AttentionWidth(args);
  const float nothing = -std::numeric_limits<float>::infinity();
  const int64_t column = static_cast<int64_t>(kv_head) * width;
  const int from = std::max(block_first, args.first_position);
  const int block_end = block_first + kAttentionBlock;
  const auto end_of = [&](int query) { return std::min(queries.Position(query) + 1, block_end); };
  const int end = end_of(queries.count() - 1);

  const RowGroups groups(queries.count(), kRowGroup);
  const int64_t k_stride = static_cast<int64_t>(args.k.bytes / sizeof(Element));
  for (int tile = from & ~15; tile < end; tile += 16) {
    TransposeKeys<State>(reinterpret_cast<const Element*>(StateRow(lane, args.k, tile)) + column, k_stride, width, work.keys);
    for (int g = 0; g < groups.count; ++g) {
      const int first = groups.First(g), size = groups.Size(g);
      if (end_of(first + size - 1) <= tile) continue;
      Floats scores[kRowGroup];
      ScoreTile(size, work.keys, work.q + static_cast<int64_t>(first) * width, width, scores);
      for (int r = 0; r < size; ++r) {
        float* to = work.scores + static_cast<int64_t>(first + r) * kAttentionBlock + (tile - block_first);
        Store(scores[r], to);
        for (int p = tile; p < from; ++p) to[p - tile] = nothing;
        for (int p = std::max(tile, end_of(first + r)); p < tile + 16; ++p) to[p - tile] = nothing;
      }
    }
  }

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

  // Positions that all queries of a group see are weighed together, the few more of its later rows one query at a time: a position that a row
  // must not see is not even multiplied by zero, so that a NaN there cannot reach it.
  for (int query = 0; query < queries.count(); query += kWeighQueries) {
    const int size = std::min(kWeighQueries, queries.count() - query);
    int common = from;
    if (size == kWeighQueries) {
      common = std::max(from, end_of(query));
      if (common > from) {
        WeighQueries<State, kWeighQueries>(args, lane, column, block_first, from, common,
                                           work.scores + static_cast<int64_t>(query) * kAttentionBlock, work.sums + query * padded, padded);
      }
    }
    for (int r = query; r < query + size; ++r) {
      if (end_of(r) > common) {
        WeighQueries<State, 1>(args, lane, column, block_first, common, end_of(r), work.scores + static_cast<int64_t>(r) * kAttentionBlock,
                               work.sums + r * padded, padded);
      }
    }
  }
}

// (most, total, sums) joined with the next block's partial.
void Combine(float* most, float* total, float* sums, float next_most, float next_total, const float* next_sums, int width) {
  if (next_total == 0.0f && next_most == -std::numeric_limits<float>::infinity()) return;   // saw nothing of the block
  const float both = *most > next_most ? *most : next_most;
  HWY_ALIGN float factors[16] = {*most - both, next_most - both};
  Store(Exp(Load(factors)), factors);
  *total = MulAdd(next_total, factors[1], *total * factors[0]);
  *most = both;
  const Floats old_factor = Set(factors[0]), new_factor = Set(factors[1]);
  for (int i = 0; i < width; i += 16) {
    const int count = width - i;
    StoreFirst(MulAdd(LoadFirst(next_sums + i, count), new_factor, Mul(LoadFirst(sums + i, count), old_factor)), sums + i, count);
  }
}

void Finish(const AttentionArgs& args, int row, int head, float total, float* out) {
  const int width = args.q.width;
  const Floats factor = Set(total > 0.0f || total != total ? 1.0f / total : 0.0f);
  const float* gate = args.gate.count ? RowAt(args.gate.rows, row) + static_cast<int64_t>(head) * args.gate.stride : nullptr;
  for (int i = 0; i < width; i += 16) {
    const int count = width - i;
    Floats y = Mul(LoadFirst(out + i, count), factor);
    if (gate) y = Mul(y, Sigmoid(LoadFirst(gate + i, count)));
    StoreFirst(y, out + i, count);
  }
}

template <class State>
void WholeUnit(const AttentionArgs& args, const AttentionUnit& unit, int thread) {
  const Work work(args, thread);
  const LaneBinding& lane = args.table->lane[static_cast<size_t>(unit.lane)];
  const int heads = args.q.count / args.kv_heads;
  const Queries queries{lane.first_row + unit.row, unit.rows, heads, unit.kv_head * heads, lane.position + unit.row};
  LoadQueries(args, queries, work);
  float most[kMostQueries], total[kMostQueries];
  const auto out_of = [&](int query) {
    return RowAt(args.out, queries.first_row + query / heads) + static_cast<int64_t>(queries.first_head + query % heads) * args.q.width;
  };
  for (int query = 0; query < queries.count(); ++query) {
    most[query] = -std::numeric_limits<float>::infinity();
    total[query] = 0.0f;
    std::fill_n(out_of(query), args.q.width, 0.0f);
  }
  const int last = queries.Position(queries.count() - 1);
  for (int block = args.first_position / kAttentionBlock; block <= last / kAttentionBlock; ++block) {
    BlockPartials<State>(args, lane, queries, unit.kv_head, block * kAttentionBlock, work);
    for (int query = 0; query < queries.count(); ++query) {
      Combine(&most[query], &total[query], out_of(query), work.most[query], work.total[query],
              work.sums + query * AttentionWidth(args), args.q.width);
    }
  }
  for (int query = 0; query < queries.count(); ++query) {
    Finish(args, queries.first_row + query / heads, queries.first_head + query % heads, total[query], out_of(query));
  }
}

template <class State>
void BlockUnit(const AttentionArgs& args, const AttentionUnit& unit, int64_t blocks, int thread) {
  const Work work(args, thread);
  const LaneBinding& lane = args.table->lane[static_cast<size_t>(unit.lane)];
  const int heads = args.q.count / args.kv_heads;
  const Queries queries{lane.first_row + unit.row, unit.rows, heads, unit.kv_head * heads, lane.position + unit.row};
  LoadQueries(args, queries, work);
  BlockPartials<State>(args, lane, queries, unit.kv_head, unit.block * kAttentionBlock, work);
  for (int query = 0; query < queries.count(); ++query) {
    const int64_t row = queries.first_row + query / heads, head = queries.first_head + query % heads;
    float* to = args.partials + ((row * args.q.count + head) * blocks + unit.block) * (args.q.width + 2);
    to[0] = work.most[query];
    to[1] = work.total[query];
    std::memcpy(to + 2, work.sums + query * AttentionWidth(args), sizeof(float) * static_cast<size_t>(args.q.width));
  }
}

Split SplitAttention(const AttentionArgs& args, int threads) {
  const AttentionCut cut(args, threads);
  // Units are few and unequal, so each item is one.
  return {cut.items, std::max<int64_t>(cut.items, 1)};
}

void Attention(const AttentionArgs& args, int64_t first, int64_t last, int thread) {
  const AttentionCut cut(args, args.threads);
  for (int64_t item = first; item < last; ++item) {
    const AttentionUnit unit = cut.Unit(args, item);
    if (cut.split) {
      args.k.type == ElementType::kF16 ? BlockUnit<StateF16>(args, unit, cut.blocks, thread)
                                       : BlockUnit<StateF32>(args, unit, cut.blocks, thread);
    } else {
      args.k.type == ElementType::kF16 ? WholeUnit<StateF16>(args, unit, thread) : WholeUnit<StateF32>(args, unit, thread);
    }
  }
}

Split SplitCombine(const AttentionArgs& args, int threads) {
  const AttentionCut cut(args, threads);
  if (!cut.split) return {};
  return EvenSplit(static_cast<int64_t>(args.table->rows) * args.q.count, static_cast<double>(cut.blocks) * args.q.width * 0.1, threads);
}

void CombineBlocks(const AttentionArgs& args, int64_t first, int64_t last, int) {
  const AttentionCut cut(args, args.threads);
  const int width = args.q.width;
  for (int64_t item = first; item < last; ++item) {
    const int row = static_cast<int>(item / args.q.count), head = static_cast<int>(item % args.q.count);
    float* out = RowAt(args.out, row) + static_cast<int64_t>(head) * width;
    std::fill_n(out, width, 0.0f);
    float most = -std::numeric_limits<float>::infinity(), total = 0.0f;
    const int position = args.table->row_position[static_cast<size_t>(row)];
    for (int block = args.first_position / kAttentionBlock; block <= position / kAttentionBlock; ++block) {
      const float* partial = args.partials + (item * cut.blocks + block) * (width + 2);
      Combine(&most, &total, out, partial[0], partial[1], partial + 2, width);
    }
    Finish(args, row, head, total, out);
  }
}

void AddAttention(KernelTable& table) {
  table.attention = {RunUntyped<AttentionArgs, Attention>, SplitUntyped<AttentionArgs, SplitAttention>};
  table.combine_attention = {RunUntyped<AttentionArgs, CombineBlocks>, SplitUntyped<AttentionArgs, SplitCombine>};
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
int64_t AttentionScratchFloats(const AttentionArgs& args) {
  const int64_t width = AttentionWidth(args);
  return kMostQueries * (2 * width + kAttentionBlock + 2) + 16 * width;
}
void AddAttention(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddAttention(table)) }
}  // namespace reprise
#endif
