// How the work of attention is cut into units: plain arithmetic, the same for every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/kernels.h"

namespace reprise {

// Queries (rows x heads of one key-value head) of a unit: enough that transposing the keys costs little beside scoring them, few enough
// that their scores and sums stay in a 1 MB L2 cache (64 x (256 scores + 3 x 256 wide) floats are 256 KB).
inline constexpr int kMostQueries = 64;

inline int64_t AttentionWidth(const AttentionArgs& args) { return (args.q.width + 15) / 16 * 16; }

struct AttentionUnit {
  int lane = 0;
  int row = 0;  // of the lane
  int rows = 0;
  int kv_head = 0;
  int block = 0;  // of the split form
};

// Whole form: an item is (lane, run of rows, key-value head). Split form: (lane, run of rows, key-value head, block), chosen when whole
// items are too few to keep the threads busy and the partials fit their memory.
struct AttentionCut {
  bool split = false;
  int run = 1;  // rows of an item
  int64_t items = 0;
  int64_t blocks = 0;  // of the longest lane, counted from position 0

  AttentionCut(const AttentionArgs& args, int threads) {
    const StepTable& table = *args.table;
    run = std::max(1, kMostQueries / (args.q.count / args.kv_heads));
    int64_t runs = 0, split_items = 0;
    for (int i = 0; i < table.lanes; ++i) {
      const LaneBinding& lane = table.lane[static_cast<size_t>(i)];
      if (lane.rows == 0) continue;
      const int64_t lane_blocks = (lane.position + lane.rows - 1) / kAttentionBlock + 1;
      const int64_t lane_runs = Runs(lane);
      blocks = std::max(blocks, lane_blocks);
      runs += lane_runs;
      split_items += lane_runs * std::max<int64_t>(0, lane_blocks - args.first_position / kAttentionBlock);
    }
    items = runs * args.kv_heads;
    split =
        blocks > 1 && items < int64_t{4} * threads && int64_t{table.rows} * args.q.count * blocks <= args.partial_slots && split_items > 0;
    if (split) items = split_items * args.kv_heads;
  }

  int64_t Runs(const LaneBinding& lane) const { return (lane.rows + run - 1) / run; }

  // Items are numbered so that the costliest, the last rows of a lane, come first.
  AttentionUnit Unit(const AttentionArgs& args, int64_t item) const {
    AttentionUnit unit;
    unit.kv_head = static_cast<int>(item % args.kv_heads);
    int64_t at = item / args.kv_heads;
    for (int i = 0; i < args.table->lanes; ++i) {
      const LaneBinding& lane = args.table->lane[static_cast<size_t>(i)];
      if (lane.rows == 0) continue;
      const int first_block = args.first_position / kAttentionBlock;
      const int64_t lane_blocks = split ? std::max<int64_t>(0, (lane.position + lane.rows - 1) / kAttentionBlock + 1 - first_block) : 1;
      const int64_t lane_items = Runs(lane) * lane_blocks;
      if (at >= lane_items) {
        at -= lane_items;
        continue;
      }
      unit.lane = i;
      unit.block = first_block + static_cast<int>(at % lane_blocks);
      unit.row = static_cast<int>(Runs(lane) - 1 - at / lane_blocks) * run;
      unit.rows = std::min(run, lane.rows - unit.row);
      return unit;
    }
    return unit;
  }
};

}  // namespace reprise
