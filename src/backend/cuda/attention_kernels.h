// Causal attention over extents: how its work is cut and joined, and the kernel for states of floats. half_attention_kernels.h has the one for
// halves.
//
// For each (row, head) and each absolute block of kAttentionBlock positions there is one partial: the greatest score, the sum of
// exp(score - greatest), and the values weighted by those. Partials are joined in the order of the blocks (arithmetic.h, Join).
//
// A unit has one key-value head and up to kQueries queries: rows x the query heads that read it. With few rows, or where the partials fit their
// memory, a unit is one block: partials go to memory and a second kernel joins them. Otherwise a unit goes through all blocks of its rows.
//
// Promise 3: a score is one sum over the head's width in ascending order, by one thread; weights are summed by a warp in one order; a value's
// weighted sum goes over the positions in ascending order, by one thread. None of it knows which queries share the unit. A position that a
// query must not see is not even multiplied by zero, so that a NaN there cannot reach it.
#pragma once

#include "backend/cuda/row_kernels.h"

namespace reprise::cuda {

// Of each query of a unit: the greatest score and the sum of weights, of the block and of all blocks so far, and the factors that join them.
struct AttentionStats {
  float *most, *total, *run_most, *run_total, *kept, *joined;

  AttentionStats() = default;
  REPRISE_DEVICE AttentionStats(float* at, int queries)
      : most(at),
        total(most + queries),
        run_most(total + queries),
        run_total(run_most + queries),
        kept(run_total + queries),
        joined(kept + queries) {}
  REPRISE_DEVICE void Clear(int queries) {
    for (int i = ThreadId(); i < queries; i += kAttentionThreads) {
      run_most[i] = -FloatOf(0x7f800000u);
      run_total[i] = 0.0f;
    }
  }
  REPRISE_DEVICE void TakeIn(int query, float top, float sum) {
    const JoinFactors factors = Join(run_most[query], top, sum);
    most[query] = top;
    total[query] = sum;
    run_total[query] = Joined(run_total[query], sum, factors);
    run_most[query] = factors.most;
    kept[query] = factors.kept;
    joined[query] = factors.joined;
  }
  REPRISE_DEVICE JoinFactors Factors(int query) const { return {0.0f, kept[query], joined[query]}; }
};

// The last word on a value: divided by the total, in which the head's sink has a share, times the gate.
REPRISE_DEVICE float Attended(const AttentionArgs& args, int row, int head, int column, float sum, float most, float total) {
  float inverse = total > 0.0f || total != total ? 1.0f / total : 0.0f;
  if (args.spec.sinks.data && inverse != 0.0f) {
    const JoinFactors factors = Join(most, args.spec.sinks.data[head], 1.0f);
    inverse = factors.kept / fmaf(total, factors.kept, factors.joined);
  }
  float y = sum * inverse;
  if (args.gate.count) y = y * Sigmoid(RowAt(args.gate.rows, row)[static_cast<int64_t>(head) * args.gate.stride + column]);
  return y;
}

// The queries of a unit: the query heads of each of its rows in turn.
struct AttentionQueries {
  const AttentionArgs& args;
  const AttentionUnit& unit;
  int heads, queries, first_row, first_position, width;

  REPRISE_DEVICE AttentionQueries(const AttentionArgs& args_in, const AttentionUnit& unit_in, int heads_in)
      : args(args_in), unit(unit_in), heads(heads_in) {
    queries = unit.rows * heads;
    first_row = args.step.lane[unit.lane].first_row + unit.row;
    first_position = args.step.lane[unit.lane].position + unit.row;
    width = args.q.width;
  }
  REPRISE_DEVICE int Row(int query) const { return first_row + query / heads; }
  REPRISE_DEVICE int Head(int query) const { return unit.kv_head * heads + query % heads; }
  REPRISE_DEVICE int Begin(int query) const { return args.spec.First(first_position + query / heads); }  // the first position it sees
  REPRISE_DEVICE int End(int query) const { return first_position + query / heads + 1; }                 // the first after those
  REPRISE_DEVICE const float* Query(int query) const {
    return RowAt(args.q.rows, Row(query)) + static_cast<int64_t>(Head(query)) * args.q.stride;
  }
  // store(query, column, x): each of `most` queries times the scale, zero past the width up to `padded` and past the last query. A warp takes a query
  // at a time, so that places are divided into queries once.
  template <class Store>
  REPRISE_DEVICE void EachElement(int most, int padded, const Store& store) const {
    for (int query = ThreadId() / 32; query < most; query += kAttentionThreads / 32) {
      const float* from = query < queries ? Query(query) : nullptr;
      for (int column = ThreadId() % 32; column < padded; column += 32) {
        store(query, column, from && column < width ? from[column] * args.spec.scale : 0.0f);
      }
    }
  }
  REPRISE_DEVICE void KeepPartial(const AttentionCut& cut, const AttentionStats& stats, int query, int block, int column, float sum) const {
    float* partial = args.partials + cut.PartialAt(args, Row(query), Head(query), block);
    partial[2 + column] = sum;
    if (column == 0) {
      partial[0] = stats.most[query];
      partial[1] = stats.total[query];
    }
  }
  REPRISE_DEVICE float* Out(int query, int column) const {
    return RowAt(args.out, Row(query)) + static_cast<int64_t>(Head(query)) * width + column;
  }
  // What a block adds to an element: a partial, or to what runs in the row of the output, where registers would be short. An element is one thread's.
  REPRISE_DEVICE void TakeIn(const AttentionCut& cut, const AttentionStats& stats, int query, int block, int column, float sum) const {
    if (cut.by_block) {
      KeepPartial(cut, stats, query, block, column, sum);
    } else {
      float* running = Out(query, column);
      *running = Joined(*running, sum, stats.Factors(query));
    }
  }
  REPRISE_DEVICE void Put(int query, int column, const AttentionStats& stats) const {
    float* running = Out(query, column);
    *running = Attended(args, Row(query), Head(query), column, *running, stats.run_most[query], stats.run_total[query]);
  }
};

// The blocks that a unit goes through, and the positions of each that any of its queries sees.
struct AttentionBlocks {
  int first, last, begin, past;  // begin, past: the first position that is seen, the last and one

  REPRISE_DEVICE AttentionBlocks(const AttentionCut& cut, const AttentionQueries& work) {
    begin = work.Begin(0);
    past = work.End(work.queries - 1);
    first = cut.by_block ? work.unit.block : begin / kAttentionBlock;
    last = cut.by_block ? work.unit.block : (past - 1) / kAttentionBlock;
  }
  // Beyond the end where nothing of the block is seen.
  REPRISE_DEVICE int From(int block) const { return block * kAttentionBlock > begin ? block * kAttentionBlock : begin; }
  REPRISE_DEVICE int End(int block) const { return (block + 1) * kAttentionBlock < past ? (block + 1) * kAttentionBlock : past; }
};

template <int kQueries>
struct AttentionBlockWork : AttentionQueries {
  using Shared = AttentionShared;
  int padded;
  float* q;
  std::byte* keys;
  float* scores;
  AttentionStats stats;

  REPRISE_DEVICE AttentionBlockWork(const AttentionArgs& args_in, const AttentionUnit& unit_in, int heads_in)
      : AttentionQueries(args_in, unit_in, heads_in) {
    padded = Shared::Padded(width);
    std::byte* shared = SharedMemory();
    q = reinterpret_cast<float*>(shared);
    keys = shared + Shared::Keys(kQueries, width);
    scores = reinterpret_cast<float*>(shared + Shared::Scores(kQueries, width));
    stats = AttentionStats(reinterpret_cast<float*>(shared + Shared::Stats(kQueries, width)), kQueries);
  }

  // q times the scale, zero past the width and past the last query.
  REPRISE_DEVICE void LoadQueries() {
    EachElement(kQueries, padded, [&](int query, int column, float x) { q[query * padded + column] = x; });
    stats.Clear(kQueries);
  }

  REPRISE_DEVICE const float* StateElements(const StateRef& state, int position) const {
    return reinterpret_cast<const float*>(StateRow(args.step, unit.lane, state, position)) + unit.kv_head * width;
  }

  // `columns` columns from `first` on, zero past the width, of the keys of positions [tile, end) as rows of shared memory.
  REPRISE_DEVICE void LoadKeys(int tile, int end, int first, int columns) {
    const int pitch = Shared::KeyPitch(width), there = width - first < columns ? width - first : columns;
    if (width % 4 == 0 && args.k.bytes % 16 == 0) {  // rows start on 16 bytes, like every state
      const int pieces = there / 4;
      for (int i = ThreadId(); i < (end - tile) * pieces; i += kAttentionThreads) {
        const int row = i / pieces, piece = i % pieces;
        CopyAsync16(keys + row * pitch + piece * 16,
                    reinterpret_cast<const std::byte*>(StateElements(args.k, tile + row) + first + piece * 4));
      }
      CommitCopies();
      WaitCopies<0>();
      const int rest = columns - there;  // zero, where a width of whole 16 bytes is not yet whole eights of elements
      for (int i = ThreadId(); i < (end - tile) * rest; i += kAttentionThreads) {
        reinterpret_cast<float*>(keys + i / rest * pitch)[there + i % rest] = 0.0f;
      }
      return;
    }
    for (int i = ThreadId(); i < (end - tile) * columns; i += kAttentionThreads) {
      const int row = i / columns, column = i % columns;
      reinterpret_cast<float*>(keys + row * pitch)[column] = column < there ? StateElements(args.k, tile + row)[first + column] : 0.0f;
    }
  }

  // scores[position - block_first][query], minus infinity where a query must not look. Ends with everybody's work done.
  REPRISE_DEVICE void ScoreBlock(int block_first, int from, int end) {
    constexpr int kPositions = Shared::kPositions, kParts = kAttentionThreads / kPositions;
    constexpr int kOwn = kQueries / kParts > 0 ? kQueries / kParts : 1;  // queries of a thread
    const int pitch = Shared::ScorePitch(kQueries);
    const float nothing = -FloatOf(0x7f800000u);
    for (int i = ThreadId(); i < kAttentionBlock * pitch; i += kAttentionThreads) scores[i] = nothing;
    const int thread_position = ThreadId() % kPositions, first = ThreadId() / kPositions * kOwn;
    for (int tile = from; tile < end; tile += kPositions) {
      const int tile_end = tile + kPositions < end ? tile + kPositions : end;
      const int position = tile + thread_position;
      const bool scores_some = position < tile_end && first < queries && first < kQueries;
      const auto* key = reinterpret_cast<const float*>(keys + thread_position * Shared::KeyPitch(width));
      float sums[kOwn] = {};
      for (int columns_first = 0; columns_first < padded; columns_first += kHeadColumns) {
        const int columns = padded - columns_first < kHeadColumns ? padded - columns_first : kHeadColumns;
        SyncBlock();  // the keys before are done with, and so is the clearing of scores
        LoadKeys(tile, tile_end, columns_first, columns);
        SyncBlock();
        if (!scores_some) continue;
        for (int i = 0; i < columns; i += 8) {
          float k[8];
          REPRISE_UNROLLED for (int half = 0; half < 2; ++half) {
            const Words4 w = Load16(key + i + 4 * half);
            REPRISE_UNROLLED for (int j = 0; j < 4; ++j) k[4 * half + j] = FloatOf(w.w[j]);
          }
          REPRISE_UNROLLED for (int own = 0; own < kOwn; ++own) {
            REPRISE_UNROLLED for (int half = 0; half < 2; ++half) {
              const Words4 w = Load16(q + (first + own) * padded + columns_first + i + 4 * half);
              REPRISE_UNROLLED for (int j = 0; j < 4; ++j) sums[own] = fmaf(FloatOf(w.w[j]), k[4 * half + j], sums[own]);
            }
          }
        }
      }
      if (!scores_some) continue;
      REPRISE_UNROLLED for (int own = 0; own < kOwn; ++own) {
        const int query = first + own;
        if (query < queries && position >= Begin(query) && position < End(query))
          scores[(position - block_first) * pitch + query] = sums[own];
      }
    }
    SyncBlock();
  }

  // Scores become weights; most and total of the block, and the factors with which it joins the running ones. A warp takes a query at a time.
  REPRISE_DEVICE void WeighBlock() {
    const int lane = ThreadId() % 32, pitch = Shared::ScorePitch(kQueries);
    const float nothing = -FloatOf(0x7f800000u);
    for (int query = ThreadId() / 32; query < queries; query += kAttentionThreads / 32) {
      float top = nothing;
      for (int i = lane; i < kAttentionBlock; i += 32) top = fmaxf(top, scores[i * pitch + query]);
      top = WarpMax(top);
      float sum = 0.0f;
      for (int i = lane; i < kAttentionBlock; i += 32) {
        const float score = scores[i * pitch + query];
        const float weight = score == nothing ? 0.0f : Exp(score - top);
        scores[i * pitch + query] = weight;
        sum = sum + weight;
      }
      sum = WarpSum(sum);
      if (lane == 0) stats.TakeIn(query, top, sum);
    }
    SyncBlock();
  }

  // sums[j] = the weighted values of the block, of query first + j, for this thread's column.
  template <int kOwn>
  REPRISE_DEVICE void SumValues(int block_first, int from, int end, int column, int first, float* sums) {
    REPRISE_UNROLLED for (int j = 0; j < kOwn; ++j) sums[j] = 0.0f;
    const int pitch = Shared::ScorePitch(kQueries);
    // Between these every query of the thread sees every position.
    const int all_from = Begin(first + kOwn < queries ? first + kOwn - 1 : queries - 1), all_to = End(first < queries ? first : 0);
    const int64_t stride = static_cast<int64_t>(args.v.bytes / sizeof(float));
    for (int begin = from; begin < end;) {
      const int extent_end = (begin / kExtentRows + 1) * kExtentRows;
      const int stop = extent_end < end ? extent_end : end;
      const float* value = StateElements(args.v, begin) + column;
      const float* weights = scores + (begin - block_first) * pitch + first;
      int position = begin;
      const auto weigh_some = [&](int to) {
        for (; position < to; ++position, value += stride, weights += pitch) {
          const float v = *value;
          REPRISE_UNROLLED for (int j = 0; j < kOwn; ++j) {
            if (position >= Begin(first + j) && position < End(first + j)) sums[j] = fmaf(weights[j], v, sums[j]);
          }
        }
      };
      weigh_some(all_from < stop ? all_from : stop);
      const int common = all_to < stop ? all_to : stop;
#if defined(__CUDACC__)
#pragma unroll 8
#endif
      for (; position < common; ++position, value += stride, weights += pitch) {
        const float v = *value;
        REPRISE_UNROLLED for (int j = 0; j < kOwn; j += 4) {
          const Words4 w = Load16(weights + j);
          REPRISE_UNROLLED for (int n = 0; n < 4; ++n) sums[j + n] = fmaf(FloatOf(w.w[n]), v, sums[j + n]);
        }
      }
      weigh_some(stop);
      begin = stop;
    }
  }
};

// kGroups: into how many the threads are split for the values, each with its own queries; a thread has every 256 / kGroups-th column.
template <int kQueries, int kGroups>
REPRISE_KERNEL_OF(kAttentionThreads, 2, AttentionKernel, AttentionArgs) {
  BeginKernel();
  constexpr int kColumns = kAttentionThreads / kGroups, kOwn = kQueries / kGroups;
  static_assert(kOwn % 4 == 0);
  const AttentionCut cut(args, kQueries);
  AttentionUnit unit;
  for (int64_t item = BlockX(); cut.Unit(args, item, &unit); item += GridX()) {
    AttentionBlockWork<kQueries> work(args, unit, cut.heads);
    SyncBlock();  // the unit before is done with shared memory
    work.LoadQueries();
    SyncBlock();
    const int own_column = ThreadId() % kColumns, first = ThreadId() / kColumns * kOwn;
    const int width = first < work.queries ? work.width : 0;  // a thread that has no query has no column
    const AttentionBlocks blocks(cut, work);
    const auto each_query = [&](const auto& of) {
      REPRISE_UNROLLED for (int j = 0; j < kOwn; ++j) {
        if (first + j < work.queries) of(j);
      }
    };
    for (int column = own_column; column < width && !cut.by_block; column += kColumns) {
      each_query([&](int j) { *work.Out(first + j, column) = 0.0f; });
    }
    for (int block = blocks.first; block <= blocks.last; ++block) {
      const int block_first = block * kAttentionBlock, from = blocks.From(block), end = blocks.End(block);
      work.ScoreBlock(block_first, from, end);
      work.WeighBlock();
      for (int column = own_column; column < width; column += kColumns) {
        float sums[kOwn];
        work.template SumValues<kOwn>(block_first, from, end, column, first, sums);
        each_query([&](int j) { work.TakeIn(cut, work.stats, first + j, block, column, sums[j]); });
      }
      SyncBlock();  // weights and factors are done with
    }
    for (int column = own_column; column < width && !cut.by_block; column += kColumns) {
      each_query([&](int j) { work.Put(first + j, column, work.stats); });
    }
  }
}

// Joins the partials of 256 columns of a (row, head), where there are any: factors first, a thread a block, then each thread its column. And quantises
// what came of it, joined here or whole already, for the product that follows.
REPRISE_KERNEL_OF(kJoinThreads, 4, JoinKernel, AttentionArgs) {
  BeginKernel();
  const int head = BlockX(), row = BlockY(), column = BlockZ() * kJoinThreads + ThreadId(), width = args.q.width;
  if (row >= args.step.header->rows) return;
  const AttentionCut cut(args, kMostQueries);
  float* out = RowAt(args.out, row) + static_cast<int64_t>(head) * width;
  if (!cut.by_block) {
    if (args.quant.quants && column < width) QuantiseBlock(args.quant, row, (head * width + column) / kBlock, out[column]);
    return;
  }
  float* most = reinterpret_cast<float*>(SharedMemory());
  float* total = most + kJoinThreads;
  float* kept = total + kJoinThreads;
  float* joined = kept + kJoinThreads;
  float* carried = joined + kJoinThreads;  // the running most and total between rounds
  const int last_block = args.step.row[row].position / kAttentionBlock;
  float sum = 0.0f;
  if (ThreadId() == 0) {
    carried[0] = -FloatOf(0x7f800000u);
    carried[1] = 0.0f;
  }
  SyncBlock();
  for (int base = args.spec.First(args.step.row[row].position) / kAttentionBlock; base <= last_block; base += kJoinThreads) {
    const int count = last_block - base + 1 < kJoinThreads ? last_block - base + 1 : kJoinThreads;
    if (ThreadId() < count) {
      const float* partial = args.partials + cut.PartialAt(args, row, head, base + ThreadId());
      most[ThreadId()] = partial[0];
      total[ThreadId()] = partial[1];
    }
    SyncBlock();
    JoinFactors factors{0.0f, 1.0f, -1.0f};
    if (ThreadId() < count) {
      // The running maximum before this block, as joining one by one would have it: a block in which nothing was seen does not move it, and
      // its own is minus infinity.
      float before = carried[0];
      for (int i = 0; i < ThreadId(); ++i) before = before > most[i] ? before : most[i];
      factors = Join(before, most[ThreadId()], total[ThreadId()]);
      kept[ThreadId()] = factors.kept;
      joined[ThreadId()] = factors.joined;
    }
    SyncBlock();
    if (ThreadId() == count - 1) {
      float run = carried[1];
      for (int i = 0; i < count; ++i) run = Joined(run, total[i], {0.0f, kept[i], joined[i]});
      carried[0] = factors.most;
      carried[1] = run;
    }
    if (column < width) {
      // One after another they are joined, but they come from memory together.
      constexpr int kAtOnce = 16;
      const float* partial = args.partials + cut.PartialAt(args, row, head, base) + 2 + column;
      for (int first = 0; first < count; first += kAtOnce, partial += kAtOnce * (width + 2)) {
        float next[kAtOnce];
        REPRISE_UNROLLED for (int n = 0; n < kAtOnce; ++n) next[n] = first + n < count ? partial[n * (width + 2)] : 0.0f;
        REPRISE_UNROLLED for (int n = 0; n < kAtOnce; ++n) {
          if (first + n < count) sum = Joined(sum, next[n], {0.0f, kept[first + n], joined[first + n]});
        }
      }
    }
    SyncBlock();
  }
  if (column >= width) return;
  const float y = Attended(args, row, head, column, sum, carried[0], carried[1]);
  out[column] = y;
  if (args.quant.quants) QuantiseBlock(args.quant, row, (head * width + column) / kBlock, y);
}

}  // namespace reprise::cuda
