// How the work of attention is cut: plain arithmetic, the same for every instruction set.
//
// A *member* is a lane's run of rows. In the whole form an item is a member and a key-value head: it goes through all blocks of positions. In
// the split form an item is a *span*'s block and a key-value head: a span is a run of blocks that some members, of whatever lanes, see in the
// same extents, so that the keys and values of a shared history are read once for all of them. The split form is chosen when members share, or
// are too few to keep the threads busy.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/kernels.h"

namespace reprise {

// Queries (rows x heads of one key-value head) of an item: enough that what a key and a value cost once, conversion and transposition, is
// little beside the products, few enough that scores and sums stay in a 1 MB L2 cache (128 x (256 scores + 3 x 256 wide) floats are 512 KB).
inline constexpr int kMostQueries = 128;

inline int64_t AttentionWidth(const AttentionArgs& args) { return (args.q.width + 15) / 16 * 16; }

// Where a key-value head lies in a row of keys or values, in bytes.
struct HeadPlace {
  int64_t first;   // its numbers; of kQ8_0 its int8
  int64_t bytes;   // of them
  int64_t scales;  // of kQ8_0: from `first` to its scales; otherwise 0

  HeadPlace(const AttentionArgs& args, int kv_head) {
    const bool q8 = args.k.type == ElementType::kQ8_0;
    bytes = int64_t{args.q.width} * static_cast<int64_t>(q8 ? 1 : ElementSize(args.k.type));
    first = kv_head * bytes;
    scales = q8 ? (args.spec.kv_heads - kv_head) * bytes + kv_head * (bytes / kQ8Values) * 2 : 0;
  }
};

// Floats that hold 2 tiles of 16 keys with what belongs to them, or a block of values as pairs of 16-bit integers, in panels of at most 64 columns.
inline int64_t AttentionTileFloats(const AttentionArgs& args) { return kAttentionBlock / 2 * ((args.q.width + 63) / 64 * 64); }

struct AttentionMember {
  int32_t lane = 0;
  int32_t row = 0;  // of the step
  int32_t rows = 0;
  int32_t position = 0;  // of its first row
};

struct AttentionSpan {
  uint64_t members = 0;  // bit i: member first_member + i
  int32_t first_member = 0;
  int32_t first_block = 0;
  int32_t blocks = 0;
};

// The first block that any row from `position` on sees.
inline int FirstBlock(const AttentionSpec& spec, int position) { return spec.First(position) / kAttentionBlock; }

struct AttentionCut;
struct AttentionCutArgs {
  const StepTable* table;
  AttentionCut* cut;
  int heads;  // of the query
  AttentionSpec spec;
  int threads;
  int64_t partial_slots;
};

// Made once a step for all attention of one shape, by the launch of AttentionCutKernel.
struct AttentionCut {
  bool split;
  int32_t members, spans;
  int64_t items;
  int64_t blocks;  // that a lane's rows see between them, of the lane that sees most; partials are kept from its FirstBlock on
  AttentionMember* member;
  AttentionSpan* span;

  // A step of `rows` rows has at most so many of each.
  static int64_t MostMembers(int64_t rows) { return rows; }
  static int64_t MostSpans(int64_t rows) { return 3 * rows; }

  void Make(const AttentionCutArgs& args);
};

}  // namespace reprise
