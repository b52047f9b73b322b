// How the work of attention is cut, and how a block of threads lays out its shared memory: plain arithmetic, tested on the host.
#pragma once

#include "backend/cuda/kernels.h"

namespace reprise::cuda {

inline constexpr int kAttentionThreads = 256;
inline constexpr int kJoinThreads = 256;
inline constexpr int kFewQueries = 4;  // where a decode step has few: a unit then wastes no work on places that are empty
inline constexpr int kMostQueries = 16;
inline constexpr int kMostHeadWidth = 512;
inline constexpr int kHeadColumns = 256;  // of a head at a time: wider ones are staged, summed and joined in turns

struct AttentionUnit {
  int lane, row, rows;  // row: of the lane
  int kv_head, block;   // block: of a unit of one block
};

// How the work is cut: the same arithmetic on device and host (packed_weight_test.cc).
struct AttentionCut {
  int heads, run;  // query heads of a key-value head; rows of a unit
  bool by_block;

  REPRISE_HD AttentionCut(const AttentionArgs& args, int queries) {
    heads = args.q.count / args.spec.kv_heads;
    run = queries / heads;
    const int64_t blocks = args.step.header->blocks;
    by_block = blocks > 1 && args.step.header->rows * args.q.count * blocks <= args.partial_slots;
  }
  REPRISE_HD bool Unit(const AttentionArgs& args, int64_t item, AttentionUnit* unit) const {
    unit->kv_head = static_cast<int>(item % args.spec.kv_heads);
    int64_t at = item / args.spec.kv_heads;
    for (int i = 0; i < args.step.header->lanes; ++i) {
      const LaneEntry& lane = args.step.lane[i];
      if (lane.rows == 0) continue;
      const int runs = (lane.rows + run - 1) / run;
      const int first_block = args.spec.First(lane.position) / kAttentionBlock;
      const int last_block = (lane.position + lane.rows - 1) / kAttentionBlock;
      const int blocks = !by_block ? 1 : last_block < first_block ? 0 : last_block - first_block + 1;
      if (blocks == 0 || at >= static_cast<int64_t>(runs) * blocks) {
        at -= static_cast<int64_t>(runs) * blocks;
        continue;
      }
      unit->lane = i;
      unit->block = first_block + static_cast<int>(at % blocks);
      unit->row = (runs - 1 - static_cast<int>(at / blocks)) * run;  // the costliest, the last rows of a lane, come first
      unit->rows = run < lane.rows - unit->row ? run : lane.rows - unit->row;
      return true;
    }
    return false;
  }
  REPRISE_HD int64_t PartialAt(const AttentionArgs& args, int row, int head, int block) const {
    return ((static_cast<int64_t>(row) * args.q.count + head) * args.step.header->blocks + block) * (args.q.width + 2);
  }
};

inline constexpr int kLeastShared = 99 << 10;  // bytes that every device from sm_80 on gives a block: sm_120, the others more

// Of states of floats. Keys are staged in shared memory, 32 positions of up to 256 columns at a time: 16 queries of heads of 512 take 85 KiB then, and
// with all columns of the keys 117. Rows are 16 bytes further apart than they are long, so that threads that read the same column of different rows meet
// in no bank.
struct AttentionShared {
  static constexpr int kPositions = 32;  // of a tile of keys
  REPRISE_HD static constexpr int Padded(int width) { return (width + 7) / 8 * 8; }
  REPRISE_HD static constexpr int KeyColumns(int width) { return width < kHeadColumns ? Padded(width) : kHeadColumns; }
  REPRISE_HD static constexpr int KeyPitch(int width) { return KeyColumns(width) * 4 + 16; }  // bytes
  REPRISE_HD static constexpr int Keys(int queries, int width) { return queries * Padded(width) * 4; }
  REPRISE_HD static constexpr int Scores(int queries, int width) { return Keys(queries, width) + kPositions * KeyPitch(width); }
  REPRISE_HD static constexpr int ScorePitch(int queries) { return queries + 4; }  // floats from one position to the next
  REPRISE_HD static constexpr int Stats(int queries, int width) {
    return Scores(queries, width) + kAttentionBlock * ScorePitch(queries) * 4;
  }
  // most and total of the block; the running ones; kept and joined.
  REPRISE_HD static constexpr int Bytes(int queries, int width) { return Stats(queries, width) + 6 * queries * 4; }
};
static_assert(AttentionShared::Bytes(kMostQueries, kMostHeadWidth) <= kLeastShared);

// Of states of halves: queries twice, scores, statistics. Each of 8 warps sums the values of 32 columns over a slice of the block's positions: the
// whole block where a head is wider than 128. Sums take the place of the weights, but where a head is wider than 256: its other columns want the weights
// again. A unit of such heads has 16 queries: they take 65 KiB of heads of 512, so that two blocks share a multiprocessor of sm_80 or sm_90, and 32
// would take 131.
struct HalfAttentionShared {
  static constexpr int kTileQueries = 16;
  static constexpr int kScorePitch = kAttentionBlock + 4;  // floats from one query to the next
  REPRISE_HD static constexpr int Padded(int width) { return (width + 31) / 32 * 32; }
  REPRISE_HD static constexpr int QueryPitch(int width) { return Padded(width) + 8; }  // halves
  // Summed at a time.
  REPRISE_HD static constexpr int Columns(int width) { return width > 128 ? kHeadColumns : width > 64 ? 128 : width > 32 ? 64 : 32; }
  REPRISE_HD static constexpr int Slices(int width) { return kHeadColumns / Columns(width); }
  REPRISE_HD static constexpr int SumPitch(int width) { return Columns(width) + 4; }  // floats
  REPRISE_HD static constexpr int Scores(int queries, int width) { return 2 * queries * QueryPitch(width) * 2; }
  REPRISE_HD static constexpr int Summed(int queries, int width) {
    return Scores(queries, width) + (width > kHeadColumns ? queries * kScorePitch * 4 : 0);
  }
  REPRISE_HD static constexpr int Stats(int queries, int width) {
    return Summed(queries, width) + queries * Slices(width) * SumPitch(width) * 4;
  }
  REPRISE_HD static constexpr int Bytes(int queries, int width) { return Stats(queries, width) + 6 * queries * 4; }
  REPRISE_HD static constexpr int MostTiles(int width) { return width > kHeadColumns ? 1 : 2; }                    // of queries
  REPRISE_HD static constexpr int MostTurns(int tiles) { return tiles == 1 ? kMostHeadWidth / kHeadColumns : 1; }  // of columns
};
static_assert(HalfAttentionShared::Bytes(HalfAttentionShared::kTileQueries, kMostHeadWidth) <= kLeastShared);
static_assert(HalfAttentionShared::Bytes(2 * HalfAttentionShared::kTileQueries, kHeadColumns) <= kLeastShared);

// Into how many the threads are split for the values: 256 / groups columns are enough for the head, or for as much of it as is summed at a time.
inline int AttentionGroups(int width, int queries) { return queries == kFewQueries ? 1 : width > 128 ? 1 : width > 64 ? 2 : 4; }

}  // namespace reprise::cuda
