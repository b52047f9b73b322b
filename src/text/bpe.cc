#include "text/bpe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>

namespace reprise {
namespace {

// Up to here a scan over all pairs beats a heap: the arrays fit a few cache lines, and words are short.
constexpr size_t kShortPiece = 48;

constexpr uint32_t kNone = 0xffffffff;

void MergeShort(const Merges& merges, std::span<const int32_t> symbols, std::vector<int32_t>& out) {
  std::array<int32_t, kShortPiece> token;
  std::array<Merges::Merge, kShortPiece> merge;  // of each symbol with the next one
  size_t n = symbols.size();
  std::copy(symbols.begin(), symbols.end(), token.begin());
  for (size_t i = 0; i + 1 < n; i++) merge[i] = merges.Find(token[i], token[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; i++) {
      if (merge[i].rank < merge[best].rank) best = i;
    }
    if (merge[best].rank == Merges::kNoRank) break;
    token[best] = merge[best].token;
    std::copy(token.begin() + best + 2, token.begin() + n, token.begin() + best + 1);
    std::copy(merge.begin() + best + 2, merge.begin() + n, merge.begin() + best + 1);
    n--;
    if (best + 1 < n) merge[best] = merges.Find(token[best], token[best + 1]);
    if (best > 0) merge[best - 1] = merges.Find(token[best - 1], token[best]);
  }
  out.insert(out.end(), token.begin(), token.begin() + n);
}

// A heap of (rank, position) over a linked list. Entries are never removed when a neighbour changes; one is stale when the pair at its
// position no longer has its rank, which decides because a rank belongs to one pair only.
void MergeLong(const Merges& merges, std::span<const int32_t> tokens, BpeScratch& scratch, std::vector<int32_t>& out) {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto n = static_cast<uint32_t>(tokens.size());
  symbols.resize(n);
  heap.clear();
  for (uint32_t i = 0; i < n; i++) symbols[i] = {tokens[i], i == 0 ? kNone : i - 1, i + 1 == n ? kNone : i + 1};
  const auto merge_at = [&](uint32_t i) -> Merges::Merge {
    if (symbols[i].next == kNone) return {Merges::kNoRank, -1};
    return merges.Find(symbols[i].token, symbols[symbols[i].next].token);
  };
  const auto entry = [](uint32_t rank, uint32_t position) { return uint64_t{rank} << 32 | position; };
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t rank = merge_at(i).rank;
    if (rank != Merges::kNoRank) heap.push_back(entry(rank, i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto push = [&](uint32_t i) {
    const uint32_t rank = merge_at(i).rank;
    if (rank == Merges::kNoRank) return;
    heap.push_back(entry(rank, i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    const uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto i = static_cast<uint32_t>(top);
    if (symbols[i].token < 0) continue;
    const Merges::Merge merge = merge_at(i);
    if (merge.rank != top >> 32) continue;
    const uint32_t gone = symbols[i].next;
    symbols[i].token = merge.token;
    symbols[i].next = symbols[gone].next;
    symbols[gone].token = -1;
    if (symbols[i].next != kNone) symbols[symbols[i].next].previous = i;
    push(i);
    if (symbols[i].previous != kNone) push(symbols[i].previous);
  }
  for (uint32_t i = 0; i != kNone; i = symbols[i].next) out.push_back(symbols[i].token);
}

}  // namespace

// At most half full, so that a miss (most look-ups are) ends after a slot or two.
Merges::Merges(size_t count) : slots_(std::bit_ceil(count * 2 + 1)) {}

size_t Merges::SlotOf(uint64_t pair) const {
  uint64_t hash = pair * 0x9e3779b97f4a7c15;
  hash ^= hash >> 32;
  const size_t mask = slots_.size() - 1;
  size_t slot = hash & mask;
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmpty) slot = (slot + 1) & mask;
  return slot;
}

bool Merges::Add(int32_t left, int32_t right, uint32_t rank, int32_t token) {
  const uint64_t pair = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  Slot& slot = slots_[SlotOf(pair)];
  if (slot.pair == pair) return false;
  slot = {pair, {rank, token}};
  return true;
}

Merges::Merge Merges::Find(int32_t left, int32_t right) const {
  const uint64_t pair = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  return slots_[SlotOf(pair)].merge;
}

void MergePiece(const Merges& merges, std::span<const int32_t> symbols, BpeScratch& scratch, std::vector<int32_t>& out) {
  if (symbols.empty()) return;
  if (symbols.size() <= kShortPiece) {
    MergeShort(merges, symbols, out);
  } else {
    MergeLong(merges, symbols, scratch, out);
  }
}

}  // namespace reprise
