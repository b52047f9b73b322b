#include <algorithm>
#include <bit>

#include "backend/cpu/attention.h"

namespace reprise {
namespace {

constexpr int kBlockExtents = kAttentionBlock / kExtentRows;

// Blocks that every row of the member sees to their end.
int FullBlocks(const AttentionMember& member) { return member.position / kAttentionBlock; }
int Blocks(const AttentionMember& member) { return (member.position + member.rows - 1) / kAttentionBlock + 1; }

bool SameExtents(const LaneBinding& a, const LaneBinding& b, int block) {
  return std::equal(a.extents + block * kBlockExtents, a.extents + (block + 1) * kBlockExtents, b.extents + block * kBlockExtents);
}

// Cuts the full blocks of the members in `all` into spans. Histories form a tree: members part ways and never meet again. Who sees nothing yet of the
// block that others begin with joins them for it if the next one is seen, and otherwise goes alone: nothing of a block costs less than to go alone.
void AddSharedSpans(AttentionCut& cut, const StepTable& table, int first_member, uint64_t all, const AttentionSpec& spec) {
  struct Branch {
    uint64_t members;
    int block;
  };
  Branch later[64];
  int branches = 0;
  const auto member = [&](int bit) -> const AttentionMember& { return cut.member[first_member + bit]; };
  while (all != 0) {
    const auto first_block = [&](int bit) { return FirstBlock(spec, member(bit).position); };
    int from = INT32_MAX;
    for (uint64_t left = all; left != 0; left &= left - 1) from = std::min(from, first_block(std::countr_zero(left)));
    uint64_t near = 0;
    for (uint64_t left = all; left != 0; left &= left - 1) {
      if (first_block(std::countr_zero(left)) <= from + 1) near |= left & -left;
    }
    later[branches++] = {near, from};
    all &= ~near;
  }
  while (branches > 0) {
    auto [members, from] = later[--branches];
    for (int block = from; members != 0; ++block) {
      uint64_t same = 0, others = 0;
      const LaneBinding* first = nullptr;
      for (uint64_t left = members; left != 0; left &= left - 1) {
        const int bit = std::countr_zero(left);
        if (FullBlocks(member(bit)) <= block) continue;
        const LaneBinding& lane = table.lane[static_cast<size_t>(member(bit).lane)];
        if (!first) first = &lane;
        (SameExtents(*first, lane, block) ? same : others) |= uint64_t{1} << bit;
      }
      if (same == members) continue;
      if (block > from) cut.span[cut.spans++] = {members, first_member, from, block - from};
      if (others) later[branches++] = {others, block};
      members = same;
      from = block;
    }
  }
}

}  // namespace

void AttentionCut::Make(const AttentionCutArgs& args) {
  const StepTable& table = *args.table;
  const int group = args.heads / args.spec.kv_heads, run = std::max(1, kMostQueries / group);
  members = spans = 0;
  items = blocks = 0;
  split = false;
  for (int i = 0; i < table.lanes; ++i) {
    const LaneBinding& lane = table.lane[static_cast<size_t>(i)];
    for (int row = 0; row < lane.rows; row += run) {
      member[members] = {i, lane.first_row + row, std::min(run, lane.rows - row), lane.position + row};
      blocks = std::max<int64_t>(blocks, Blocks(member[members++]) - FirstBlock(args.spec, lane.position));
    }
  }
  items = int64_t{members} * args.spec.kv_heads;
  if (blocks <= 1 || int64_t{table.rows} * args.heads * blocks > args.partial_slots) return;

  // Members whose queries fit one item try to share.
  bool shared = false;
  for (int first = 0; first < members;) {
    int count = 0, queries = 0;
    while (first + count < members && queries + member[first + count].rows * group <= kMostQueries && count < 64) {
      queries += member[first + count++].rows * group;
    }
    count = std::max(count, 1);
    const uint64_t all = count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    AddSharedSpans(*this, table, first, all, args.spec);
    first += count;
  }
  for (int i = 0; i < spans; ++i) shared |= std::popcount(span[i].members) > 1;
  // Whole items, unless they would leave threads idle for longer than partial results cost, which is a fifth.
  const int64_t rounds = (items + args.threads - 1) / args.threads;
  if (!shared && items * 5 >= rounds * args.threads * 4) return;

  // What is left of each member: blocks that some of its rows do not see to their end.
  for (int i = 0; i < members; ++i) {
    const int from = std::max(FirstBlock(args.spec, member[i].position), FullBlocks(member[i])), to = Blocks(member[i]);
    if (from < to) span[spans++] = {1, i, from, to - from};
  }
  int64_t count = 0;
  for (int i = 0; i < spans; ++i) count += int64_t{span[i].blocks} * args.spec.kv_heads;
  if (count == 0) return;
  split = true;
  items = count;
}

namespace {
Split SplitCut(const AttentionCutArgs&) { return {1, 1}; }
void MakeCut(const AttentionCutArgs& args, int64_t, int64_t, int) { args.cut->Make(args); }
}  // namespace

Kernel AttentionCutKernel() { return {RunUntyped<AttentionCutArgs, MakeCut>, SplitUntyped<AttentionCutArgs, SplitCut>}; }

}  // namespace reprise
