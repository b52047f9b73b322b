// Causal attention over keys and values of halves, or of bytes under scales, on the tensor cores. Cut into units and joined as attention_kernels.h says.
//
// A byte times its scale becomes the nearest half on its way from memory, which costs an eighth at most of what rounding to bytes did (and what is
// past the greatest half is infinite, as it is among halves); from there on it is one.
//
// A query and a weight are two halves each, the nearest one and what is left of it, and both are multiplied: 22 bits, so that the halves of the
// state are the only rounding that shows. Decoding waits for memory and prefilling for the cache, so the second product costs little.
//
// Promise 3: a unit has up to kTiles x 16 places for queries; which a query takes, and what stands in the others, depends on how work was cut. So
// this is asked of the tensor cores: an element of their product depends on its row, its column and its accumulator alone, and in the same way
// wherever in the tile it stands. How they round within one product is their own affair (it differs between generations of them, and so does the
// backend's numerics). The rest is fixed here: a score adds up 32 inputs at a time in ascending order, the nearest halves before what is left;
// weights are summed by a warp in one order; a value's sum goes over the block in slices of a size that the head's width decides, 16 absolute
// positions at a time, and slices are added in order.
//
// Where a row sees only a part of 16 positions, values that it does not see are zero for it; they are multiplied once for each row then. Positions of which
// it sees none are not multiplied for it at all. So a NaN there cannot reach it.
#pragma once

#include "backend/cuda/attention_kernels.h"

namespace reprise::cuda {

// 2 kWords halves of a head, of which the lower half of a word comes first.
template <int kWords>
struct Halves {
  uint32_t w[kWords];
};

// As many numbers as they come from memory: halves, or bytes and the scale of their block.
template <bool kBytes, int kWords>
struct RawNumbers {
  Halves<kWords> halves;
};
template <int kWords>
struct RawNumbers<true, kWords> {
  uint32_t w[kWords / 2];
  uint16_t scale;
};
template <int kWords>
REPRISE_DEVICE Halves<kWords> Widened(const RawNumbers<false, kWords>& raw) {
  return raw.halves;
}
template <int kWords>
REPRISE_DEVICE Halves<kWords> Widened(const RawNumbers<true, kWords>& raw) {
  const float scale = HalfBitsToFloat(raw.scale);
  const auto half = [&](int i) {
    return static_cast<uint32_t>(FloatToHalfBits(static_cast<float>(static_cast<int8_t>(raw.w[i / 4] >> (8 * (i % 4)))) * scale));
  };
  Halves<kWords> halves;
  REPRISE_UNROLLED for (int i = 0; i < kWords; ++i) halves.w[i] = half(2 * i) | half(2 * i + 1) << 16;
  return halves;
}

template <int kTiles, KeyForm kForm>
struct HalfAttentionWork : AttentionQueries {
  static constexpr bool kBytes = kForm == KeyForm::kBytes || kForm == KeyForm::kLooseBytes;
  static constexpr bool kAligned = kForm == KeyForm::kHalves || kForm == KeyForm::kBytes;
  using Number = std::conditional_t<kBytes, int8_t, uint16_t>;  // as it lies in memory
  template <int kWords>
  using Raw = RawNumbers<kBytes, kWords>;
  using Shared = HalfAttentionShared;
  static constexpr int kQueries = kTiles * Shared::kTileQueries;
  static constexpr float kRaised =
      32768.0f;                    // weights, of at most 1, are multiplied in halves as so much, lest small ones lose their last bits
  static constexpr int kRuns = 4;  // of 64 positions, of which a warp has 8
  uint16_t* parts[2];              // [kQueries][QueryPitch]: the nearest halves of the queries, and what is left
  float* scores;                   // [kQueries][kScorePitch]; then the weights' nearest halves and what is left, in the same rows
  float* summed;                   // sums of values, [slices][kQueries][SumPitch]: in place of the weights where they are not wanted again
  AttentionStats stats;
  int padded, lane, warp;

  REPRISE_DEVICE HalfAttentionWork(const AttentionArgs& args_in, const AttentionUnit& unit_in, int heads_in)
      : AttentionQueries(args_in, unit_in, heads_in) {
    padded = Shared::Padded(width);
    lane = ThreadId() % 32;
    warp = ThreadId() / 32;
    std::byte* shared = SharedMemory();
    parts[0] = reinterpret_cast<uint16_t*>(shared);
    parts[1] = parts[0] + kQueries * Shared::QueryPitch(width);
    scores = reinterpret_cast<float*>(shared + Shared::Scores(kQueries, width));
    summed = reinterpret_cast<float*>(shared + Shared::Summed(kQueries, width));
    stats = AttentionStats(reinterpret_cast<float*>(shared + Shared::Stats(kQueries, width)), kQueries);
  }

  // The numbers of the unit's head in a row.
  REPRISE_DEVICE const Number* Elements(const StateRef& state, int position) const {
    return reinterpret_cast<const Number*>(StateRow(args.step, unit.lane, state, position)) + unit.kv_head * width;
  }
  // Of those from `column` on, zero past the width. `column` is a multiple of how many they are, so that bytes are of one block.
  template <int kWords>
  REPRISE_DEVICE Raw<kWords> Load(const Number* elements, int column) const {
    Raw<kWords> raw{};
    if constexpr (kBytes) {
      if (column >= width) return raw;
      const int scales =
          (args.spec.kv_heads - unit.kv_head) * width + unit.kv_head * (width / kQ8Values) * 2;  // from the head's first byte
      raw.scale = reinterpret_cast<const uint16_t*>(elements + scales)[column / kQ8Values];
      if constexpr (!kAligned) {
        REPRISE_UNROLLED for (int i = 0; i < 2 * kWords; ++i) {
          raw.w[i / 4] |= static_cast<uint32_t>(static_cast<uint8_t>(elements[column + i])) << (8 * (i % 4));
        }
      } else if constexpr (kWords == 2) {
        raw.w[0] = *reinterpret_cast<const uint32_t*>(elements + column);
      } else {
        const auto words = LoadWords<Halves<kWords / 2>>(elements + column);
        REPRISE_UNROLLED for (int i = 0; i < kWords / 2; ++i) raw.w[i] = words.w[i];
      }
    } else {
      if constexpr (kAligned) {
        if (column < width) raw.halves = LoadWords<Halves<kWords>>(elements + column);
      } else {
        REPRISE_UNROLLED for (int i = 0; i < 2 * kWords; ++i) {
          if (column + i < width) raw.halves.w[i / 2] |= static_cast<uint32_t>(elements[column + i]) << (16 * (i % 2));
        }
      }
    }
    return raw;
  }

  REPRISE_DEVICE void LoadQueries() {
    EachElement(kQueries, padded, [&](int query, int column, float x) {
      const uint16_t nearest = FloatToHalfBits(x);
      const int at = query * Shared::QueryPitch(width) + column;
      parts[0][at] = nearest;
      parts[1][at] = FloatToHalfBits(x - HalfBitsToFloat(nearest));
    });
    stats.Clear(kQueries);
  }

  // A warp scores 8 positions of each run against all queries. Lane 4g + t brings 8 inputs of 32, from 8t on, of key g and of queries g and g + 8; a
  // product takes 4 of them, so two products take the 32; the next 32 are on their way meanwhile. Minus infinity where a query must not look: positions
  // past the last have that one's keys until then.
  REPRISE_DEVICE void ScoreBlock(int block_first, int end) {
    const int g = lane / 4, t = lane % 4, pitch = Shared::QueryPitch(width);
    const auto tile_of = [&](int run) { return run * 64 + warp * 8; };  // its first position within the block
    float sums[kTiles][kRuns][4] = {};
    const Number* keys[kRuns];
    REPRISE_UNROLLED for (int run = 0; run < kRuns; ++run) {
      const int position = block_first + tile_of(run) + g;
      keys[run] = Elements(args.k, position < end ? position : end - 1);
    }
    Raw<4> next[kRuns] = {};
    const auto load = [&](int first) {
      REPRISE_UNROLLED for (int run = 0; run < kRuns; ++run) {
        if (block_first + tile_of(run) < end) next[run] = Load<4>(keys[run], first + 8 * t);
      }
    };
    load(0);
    for (int first = 0; first < padded; first += 32) {
      Halves<4> key[kRuns];
      REPRISE_UNROLLED for (int run = 0; run < kRuns; ++run) key[run] = Widened(next[run]);
      if (first + 32 < padded) load(first + 32);
      REPRISE_UNROLLED for (int tile = 0; tile < kTiles; ++tile) {
        REPRISE_UNROLLED for (int part = 0; part < 2; ++part) {
          const uint16_t* query = parts[part] + (tile * 16 + g) * pitch + first + 8 * t;
          const Words4 upper = Load16(query), lower = Load16(query + 8 * pitch);
          REPRISE_UNROLLED for (int run = 0; run < kRuns; ++run) {
            if (block_first + tile_of(run) >= end) continue;
            REPRISE_UNROLLED for (int step = 0; step < 4; step += 2) {
              const uint32_t a[4] = {upper.w[step], lower.w[step], upper.w[step + 1], lower.w[step + 1]};
              MultiplyHalves(sums[tile][run], a, key[run].w + step);
            }
          }
        }
      }
    }
    REPRISE_UNROLLED for (int tile = 0; tile < kTiles; ++tile) {
      REPRISE_UNROLLED for (int lower = 0; lower < 2; ++lower) {
        const int query = tile * 16 + lower * 8 + g, query_begin = query < queries ? Begin(query) : end;
        const int query_end = query < queries ? End(query) : end;
        REPRISE_UNROLLED for (int run = 0; run < kRuns; ++run) {
          REPRISE_UNROLLED for (int i = 0; i < 2; ++i) {
            const int at = tile_of(run) + 2 * t + i, position = block_first + at;
            scores[query * Shared::kScorePitch + at] =
                position >= query_begin && position < query_end ? sums[tile][run][2 * lower + i] : -FloatOf(0x7f800000u);
          }
        }
      }
    }
    SyncBlock();
  }

  // A warp takes a query at a time, and a lane two neighbours of each run.
  REPRISE_DEVICE void WeighBlock() {
    const float nothing = -FloatOf(0x7f800000u);
    for (int query = warp; query < queries; query += kAttentionThreads / 32) {
      float* row = scores + query * Shared::kScorePitch;
      float weights[2 * kRuns], top = nothing, sum = 0.0f;
      REPRISE_UNROLLED for (int i = 0; i < 2 * kRuns; ++i) {
        weights[i] = row[i / 2 * 64 + 2 * lane + i % 2];
        top = fmaxf(top, weights[i]);
      }
      top = WarpMax(top);
      SyncWarp();  // every score of the row is in registers
      auto* words = reinterpret_cast<uint32_t*>(row);
      REPRISE_UNROLLED for (int run = 0; run < kRuns; ++run) {
        uint32_t nearest = 0, left = 0;
        REPRISE_UNROLLED for (int i = 0; i < 2; ++i) {
          const float score = weights[2 * run + i];
          const float weight = score == nothing ? 0.0f : Exp(score - top);
          const float raised = weight * kRaised;
          const uint16_t half = FloatToHalfBits(raised);
          nearest |= static_cast<uint32_t>(half) << (16 * i);
          left |= static_cast<uint32_t>(FloatToHalfBits(raised - HalfBitsToFloat(half))) << (16 * i);
          sum = sum + weight;
        }
        words[run * 32 + lane] = nearest;
        words[kAttentionBlock / 2 + run * 32 + lane] = left;
      }
      sum = WarpSum(sum);
      if (lane == 0) stats.TakeIn(query, top, sum);
    }
    SyncBlock();
  }

  // sums += weights times values of 16 positions, of which lane 4g + t has its four (2t, 2t + 1, 2t + 8, 2t + 9), in four columns. `word`: where its
  // first two weights are. Column 4g + j of the warp's 32 is column g of product j.
  REPRISE_DEVICE void MultiplyValues(float sums[4][4], int tile, int word, const Halves<2> values[4]) const {
    const auto* upper = reinterpret_cast<const uint32_t*>(scores + (tile * 16 + lane / 4) * Shared::kScorePitch) + word;
    const auto* lower = upper + 8 * Shared::kScorePitch;
    REPRISE_UNROLLED for (int part = 0; part < kAttentionBlock; part += kAttentionBlock / 2) {
      const uint32_t a[4] = {upper[part], lower[part], upper[part + 4], lower[part + 4]};
      REPRISE_UNROLLED for (int j = 0; j < 4; ++j) {
        const auto pair = [&](int n) {
          const uint32_t first = values[n].w[j / 2], second = values[n + 1].w[j / 2];
          return j % 2 == 0 ? (first & 0xffffu) | second << 16 : first >> 16 | (second & 0xffff0000u);
        };
        const uint32_t b[2] = {pair(0), pair(2)};
        MultiplyHalves(sums[j], a, b);
      }
    }
  }

  // The weighted values of the block, of the columns from `columns_first` on, by slice, query and column.
  REPRISE_DEVICE void SumValues(int columns_first, int block_first, int from, int end) {
    const int columns = Shared::Columns(width), groups = columns / 32, slices = Shared::Slices(width);
    const int group = warp % groups, slice = warp / groups, slice_first = block_first + slice * (kAttentionBlock / slices);
    const int slice_end = slice_first + kAttentionBlock / slices;
    const int g = lane / 4, t = lane % 4;
    const int begin = slice_first > from ? slice_first : from / 16 * 16, stop = slice_end < end ? slice_end : end;
    const int all_from = Begin(queries - 1);  // from here on every query sees every position, until the first one's end
    const int64_t stride = static_cast<int64_t>(args.v.bytes / sizeof(Number));
    const auto place = [&](int n) { return 2 * t + n % 2 + n / 2 * 8; };
    float sums[kTiles][4][4] = {};
    Raw<2> next[4];
    const auto load = [&](int first) {
      const Number* rows = Elements(args.v, first);  // 16 positions lie in one extent
      REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
        const int position = first + place(n);
        next[n] = Raw<2>{};
        if (position >= from && position < end) next[n] = Load<2>(rows + place(n) * stride, columns_first + group * 32 + 4 * g);
      }
    };
    if (begin < stop) load(begin);
    for (int first = begin; first < stop; first += 16) {
      const int word = (first - block_first) / 2 + t;
      Halves<2> values[4];
      REPRISE_UNROLLED for (int n = 0; n < 4; ++n) values[n] = Widened(next[n]);
      if (first + 16 < stop) load(first + 16);
      if (first >= all_from && first + 16 <= End(0)) {
        REPRISE_UNROLLED for (int tile = 0; tile < kTiles; ++tile) MultiplyValues(sums[tile], tile, word, values);
        continue;
      }
      for (int row = 0; row < unit.rows; ++row) {
        const int row_begin = Begin(row * heads), row_end = End(row * heads);
        if (first >= row_end || first + 16 <= row_begin) continue;
        Halves<2> seen[4];
        REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
          const int position = first + place(n);
          seen[n] = position >= row_begin && position < row_end ? values[n] : Halves<2>{};
        }
        REPRISE_UNROLLED for (int tile = 0; tile < kTiles; ++tile) {
          float next[4][4];
          REPRISE_UNROLLED for (int j = 0; j < 4; ++j) { REPRISE_UNROLLED for (int i = 0; i < 4; ++i) next[j][i] = sums[tile][j][i]; }
          MultiplyValues(next, tile, word, seen);
          REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
            const bool of_row = (tile * 16 + g + i / 2 * 8) / heads == row;
            REPRISE_UNROLLED for (int j = 0; j < 4; ++j) sums[tile][j][i] = of_row ? next[j][i] : sums[tile][j][i];
          }
        }
      }
    }
    SyncBlock();  // nobody needs the weights any more, or the sums of the columns before
    REPRISE_UNROLLED for (int tile = 0; tile < kTiles; ++tile) {
      REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
        const int query = tile * 16 + g + i / 2 * 8, column = group * 32 + 4 * (2 * t + i % 2);
        float* to = summed + (slice * kQueries + query) * Shared::SumPitch(width) + column;
        REPRISE_UNROLLED for (int j = 0; j < 4; ++j) to[j] = sums[tile][j][i];
      }
    }
    SyncBlock();
  }
  // `column`: of those that SumValues summed last.
  REPRISE_DEVICE float SumOfSlices(int query, int column) const {
    const float* at = summed + query * Shared::SumPitch(width) + column;
    float sum = at[0];
    for (int slice = 1; slice < Shared::Slices(width); ++slice) sum = sum + at[slice * kQueries * Shared::SumPitch(width)];
    return sum * (1.0f / kRaised);
  }
};

// Keys and values of a unit's block set out for the second cache, which the kernel before need not have ended for: a row that it is still to write comes
// to no harm there. A thread has a position.
template <bool kBytes>
REPRISE_DEVICE void PrefetchUnit(const AttentionArgs& args, const AttentionUnit& unit) {
  const int position = unit.block * kAttentionBlock + ThreadId(), bytes = args.q.width * (kBytes ? 1 : 2);
  const LaneEntry lane = args.step.lane[unit.lane];
  if (position < args.spec.First(lane.position + unit.row) || position >= lane.position + unit.row + unit.rows) return;
  for (const StateRef* state : {&args.k, &args.v}) {
    const std::byte* row = StateRow(args.step, unit.lane, *state, position);
    for (int at = 0; at < bytes; at += 128) PrefetchToL2(row + unit.kv_head * bytes + at);
    if constexpr (kBytes) PrefetchToL2(row + args.spec.kv_heads * bytes + unit.kv_head * (bytes / kQ8Values) * 2);
  }
}

template <int kTiles, KeyForm kForm>
REPRISE_KERNEL_OF(kAttentionThreads, 2, HalfAttentionKernel, AttentionArgs) {
  static_assert(kAttentionThreads == kAttentionBlock);
  using Work = HalfAttentionWork<kTiles, kForm>;
  const AttentionCut cut(args, Work::kQueries);
  AttentionUnit unit;
  if (cut.by_block && cut.Unit(args, BlockX(), &unit)) PrefetchUnit<Work::kBytes>(args, unit);
  BeginKernel();
  for (int64_t item = BlockX(); cut.Unit(args, item, &unit); item += GridX()) {
    Work work(args, unit, cut.heads);
    SyncBlock();  // the unit before is done with shared memory
    work.LoadQueries();
    SyncBlock();
    constexpr int kTurns = HalfAttentionShared::MostTurns(kTiles);
    const int columns = HalfAttentionShared::Columns(work.width), slices = HalfAttentionShared::Slices(work.width);
    const AttentionBlocks blocks(cut, work);
    const auto each = [&](int turn, const auto& element) {  // of this thread, in the columns of that turn
      const int column = turn * columns + ThreadId() % columns;
      if (column >= work.width) return;
      for (int query = ThreadId() / columns; query < work.queries; query += slices) element(query, column);
    };
    for (int turn = 0; turn < kTurns && !cut.by_block; ++turn) {
      each(turn, [&](int query, int column) { *work.Out(query, column) = 0.0f; });
    }
    for (int block = blocks.first; block <= blocks.last; ++block) {
      const int block_first = block * kAttentionBlock, from = blocks.From(block), end = blocks.End(block);
      work.ScoreBlock(block_first, end);
      work.WeighBlock();
      for (int turn = 0; turn < kTurns && turn * columns < work.width; ++turn) {
        work.SumValues(turn * columns, block_first, from, end);
        each(turn, [&](int query, int column) {
          work.TakeIn(cut, work.stats, query, block, column, work.SumOfSlices(query, column - turn * columns));
        });
      }
      SyncBlock();  // sums and factors are done with
    }
    for (int turn = 0; turn < kTurns && !cut.by_block; ++turn) {
      each(turn, [&](int query, int column) { work.Put(query, column, work.stats); });
    }
  }
}

}  // namespace reprise::cuda
