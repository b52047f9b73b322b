// Byte-pair merging inside one piece: of all neighbouring pairs that have a merge, the one of lowest rank (leftmost among equals) becomes
// one token, again and again until none has.
//
// Merges is immutable once built and thread-safe; BpeScratch belongs to one call. Nothing here fails: what a merge may name is checked by
// whoever adds it (tokenizer.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace reprise {

// Which token two neighbours become, and how early: an open-addressed table, because encoding is nothing but look-ups here.
class Merges {
 public:
  static constexpr uint32_t kNoRank = 0xffffffff;
  struct Merge {
    uint32_t rank;
    int32_t token;
  };

  // Room for `count` merges; fewer than 2^31.
  explicit Merges(size_t count = 0);

  // False when the pair is there already. Ids are not negative.
  bool Add(int32_t left, int32_t right, uint32_t rank, int32_t token);

  // {kNoRank, -1} when the pair has no merge.
  Merge Find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t pair = kEmpty;
    Merge merge{kNoRank, -1};
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  size_t SlotOf(uint64_t pair) const;

  std::vector<Slot> slots_;
};

// Working memory that pieces of one text share, so that only the longest one allocates.
struct BpeScratch {
  struct Symbol {
    int32_t token;  // -1 once merged away
    uint32_t previous, next;
  };
  std::vector<Symbol> symbols;
  std::vector<uint64_t> heap;
};

// Merges `symbols` (the tokens of a piece's bytes) and appends the result to `out`. n log n in the number of symbols, fewer than 2^32.
void MergePiece(const Merges& merges, std::span<const int32_t> symbols, BpeScratch& scratch, std::vector<int32_t>& out);

}  // namespace reprise
