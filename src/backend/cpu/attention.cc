// Causal attention over extents.
//
// For each (row, head) and each absolute block of kAttentionBlock positions there is one partial: the greatest score m, the sum l of
// exp(score - m), and the values weighted by exp(score - m). Partials are combined in the order of the blocks. In the whole form an item goes
// through all blocks of its rows and combines as it goes; in the split form items are single blocks, partials go to memory, and a second
// launch combines them (attention.h says which form when). Both run the same two functions, so the bits are the same.
//
// An item has one key-value head, and the rows x query heads that read it ("queries", at most kMostQueries): keys are transposed once for all
// of them, so that a score is a lane of its own. The element type of the state says what is multiplied: floats (attention_floats-inl.h),
// halves and values of bytes as 16-bit integers (attention_shorts-inl.h), keys of bytes as bytes (attention_q8-inl.h).

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include "backend/cpu/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "backend/cpu/attention_block-inl.h"
#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// (most, total, sums) joined with the next block's partial.
void Combine(float* most, float* total, float* sums, float next_most, float next_total, const float* next_sums, int width) {
  if (next_total == 0.0f && next_most == -std::numeric_limits<float>::infinity()) return;  // saw nothing of the block
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

// The last word on an output head: divided by the total, in which the head's sink has a share, times the gate.
void Finish(const AttentionArgs& args, int row, int head, float most, float total, float* out) {
  const int width = args.q.width;
  float inverse = total > 0.0f || total != total ? 1.0f / total : 0.0f;
  if (args.spec.sinks.data && inverse != 0.0f) {
    const float sink = args.spec.sinks.data[head], both = most > sink ? most : sink;
    HWY_ALIGN float factors[16] = {most - both, sink - both};
    Store(Exp(Load(factors)), factors);
    inverse = factors[0] / MulAdd(total, factors[0], factors[1]);
  }
  const Floats factor = Set(inverse);
  const float* gate = args.gate.count ? RowAt(args.gate.rows, row) + static_cast<int64_t>(head) * args.gate.stride : nullptr;
  for (int i = 0; i < width; i += 16) {
    const int count = width - i;
    Floats y = Mul(LoadFirst(out + i, count), factor);
    if (gate) y = Mul(y, Sigmoid(LoadFirst(gate + i, count)));
    StoreFirst(y, out + i, count);
  }
}

// What an item of a launch is.
struct Item {
  Queries queries;
  int kv_head;
  int first_block, end_block;  // of the split form: one block

  Item(const AttentionArgs& args, int64_t index) {
    const AttentionCut& cut = *args.cut;
    queries.heads = args.q.count / args.spec.kv_heads;
    queries.rows = 0;
    uint64_t members = 1;
    int first_member;
    if (cut.split) {
      const AttentionSpan* span = cut.span;
      while (index >= int64_t{span->blocks} * args.spec.kv_heads) index -= int64_t{span++->blocks} * args.spec.kv_heads;
      // Items that follow one another go through the blocks of one head.
      kv_head = static_cast<int>(index / span->blocks);
      first_block = span->first_block + static_cast<int>(index % span->blocks);
      end_block = first_block + 1;
      first_member = span->first_member;
      members = span->members;
    } else {
      // The costliest, the last rows of a lane, come first.
      kv_head = static_cast<int>(index % args.spec.kv_heads);
      first_member = cut.members - 1 - static_cast<int>(index / args.spec.kv_heads);
      const AttentionMember& member = cut.member[first_member];
      first_block = FirstBlock(args.spec, member.position);
      end_block = (member.position + member.rows - 1) / kAttentionBlock + 1;
    }
    queries.first_head = kv_head * queries.heads;
    queries.lane = &args.table->lane[static_cast<size_t>(cut.member[first_member + std::countr_zero(members)].lane)];
    for (; members != 0; members &= members - 1) {
      const AttentionMember& member = cut.member[first_member + std::countr_zero(members)];
      for (int i = 0; i < member.rows; ++i) {
        queries.row[queries.rows] = member.row + i;
        queries.position[queries.rows++] = member.position + i;
      }
    }
  }

  // The first keys of a block that are seen.
  const std::byte* Keys(const AttentionArgs& args, int block) const {
    const int position = queries.FirstSeen(args, block * kAttentionBlock) & ~15;
    return StateRow(*queries.lane, args.k, position) + HeadPlace(args, kv_head).first;
  }
};

template <class State>
void WholeItem(const AttentionArgs& args, const Item& item, const Work& work) {
  const Queries& queries = item.queries;
  float most[kMostQueries], total[kMostQueries];
  const auto out_of = [&](int query) {
    return RowAt(args.out, queries.Row(query)) + static_cast<int64_t>(queries.Head(query)) * args.q.width;
  };
  for (int query = 0; query < queries.count(); ++query) {
    most[query] = -std::numeric_limits<float>::infinity();
    total[query] = 0.0f;
    std::fill_n(out_of(query), args.q.width, 0.0f);
  }
  for (int block = item.first_block; block < item.end_block; ++block) {
    const std::byte* const then = block + 1 < item.end_block ? item.Keys(args, block + 1) : nullptr;
    BlockPartials<State>(args, queries, item.kv_head, block * kAttentionBlock, then, work);
    for (int query = 0; query < queries.count(); ++query) {
      Combine(&most[query], &total[query], out_of(query), work.most[query], work.total[query], work.sums + query * AttentionWidth(args),
              args.q.width);
    }
  }
  for (int query = 0; query < queries.count(); ++query) {
    Finish(args, queries.Row(query), queries.Head(query), most[query], total[query], out_of(query));
  }
}

// The block from which on partials of the row's lane are kept.
int PartialsFrom(const AttentionArgs& args, int row) {
  return FirstBlock(args.spec, args.table->lane[static_cast<size_t>(args.table->row_lane[static_cast<size_t>(row)])].position);
}

template <class State>
void BlockItem(const AttentionArgs& args, const Item& item, const std::byte* then, const Work& work) {
  const Queries& queries = item.queries;
  BlockPartials<State>(args, queries, item.kv_head, item.first_block * kAttentionBlock, then, work);
  for (int query = 0; query < queries.count(); ++query) {
    const int64_t place = static_cast<int64_t>(queries.Row(query)) * args.q.count + queries.Head(query);
    const int64_t block = item.first_block - PartialsFrom(args, queries.Row(query));
    if (block < 0) continue;  // nothing of the block is seen by the row's lane
    float* to = args.partials + (place * args.cut->blocks + block) * (args.q.width + 2);
    to[0] = work.most[query];
    to[1] = work.total[query];
    std::memcpy(to + 2, work.sums + query * AttentionWidth(args), sizeof(float) * static_cast<size_t>(args.q.width));
  }
}

// Items are few and unequal, so each is a unit. Whole ones are dealt in turn, blocks in runs that follow one another.
Split SplitAttention(const AttentionArgs& args) { return {args.cut->items, 1, args.cut->split ? 0 : 1}; }

template <class State>
void AttentionItems(const AttentionArgs& args, int64_t first, int64_t last, int thread) {
  const Work work(args, thread);
  for (int64_t index = first; index < last; ++index) {
    const Item item(args, index);
    State::Scorer::LoadQueries(args, item.queries, work);
    if (!args.cut->split) {
      WholeItem<State>(args, item, work);
    } else {
      const std::byte* then = nullptr;
      if (index + 1 < args.cut->items) {  // which mostly is this thread's too
        const Item next(args, index + 1);
        then = next.Keys(args, next.first_block);
      }
      BlockItem<State>(args, item, then, work);
    }
  }
}

void Attention(const AttentionArgs& args, int64_t first, int64_t last, int thread) {
  switch (args.k.type) {
    case ElementType::kF16: return AttentionItems<StateF16>(args, first, last, thread);
    case ElementType::kQ8_0: return AttentionItems<StateQ8>(args, first, last, thread);
    default: return AttentionItems<StateF32>(args, first, last, thread);
  }
}

Split SplitCombine(const AttentionArgs& args) {
  if (!args.cut->split) return {};
  const double cost = static_cast<double>(args.cut->blocks) * args.q.width * 0.1;
  return EvenSplit(static_cast<int64_t>(args.table->rows) * args.q.count, cost);
}

void CombineBlocks(const AttentionArgs& args, int64_t first, int64_t last, int) {
  const int width = args.q.width;
  for (int64_t item = first; item < last; ++item) {
    const int row = static_cast<int>(item / args.q.count), head = static_cast<int>(item % args.q.count);
    float* out = RowAt(args.out, row) + static_cast<int64_t>(head) * width;
    std::fill_n(out, width, 0.0f);
    float most = -std::numeric_limits<float>::infinity(), total = 0.0f;
    const int position = args.table->row_position[static_cast<size_t>(row)];
    const int from = PartialsFrom(args, row);
    for (int block = FirstBlock(args.spec, position); block <= position / kAttentionBlock; ++block) {
      const float* partial = args.partials + (item * args.cut->blocks + block - from) * (width + 2);
      Combine(&most, &total, out, partial[0], partial[1], partial + 2, width);
    }
    Finish(args, row, head, most, total, out);
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
  return kMostQueries * (2 * width + kAttentionBlock + 3) + AttentionTileFloats(args);
}
void AddAttention(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddAttention(table)) }
}  // namespace reprise
#endif
