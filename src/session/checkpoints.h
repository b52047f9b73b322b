// Checkpoints: the boundaries that one session keeps of its own accord, so that it can go back.
//
// Two kinds. A *capsule* holds everything at one position: going back to it is a restore. A *mark* holds the host state (sampler, stop
// matcher) of one position or of a run of positions that share it: together with a capsule below, whose device state is replayed forward
// over the known tokens, it gives back any recent boundary exactly. A capsule pins a recurrent block, so few are kept; a mark pins a few
// kilobytes.
//
// Policy, with its reasons:
//  - at most kCapsules capsules. When there are more, the one whose loss costs the least replay goes: the one with the smallest gap between
//  its
//    neighbours, relative to how far behind the tip it lies. So they stay dense near the tip and thin out behind.
//  - kMarks marks in a ring: rolling back to a boundary older than that needs a capsule at exactly that position.
// When a pool is empty the engine drops checkpoints, oldest first, before it fails.
#pragma once

#include <cstdint>
#include <vector>

#include "exec/state_space.h"
#include "reprise/capsule.h"

namespace reprise {

class Checkpoints {
 public:
  static constexpr int kCapsules = 12;
  static constexpr int kStride = 32;  // tokens from one to the next while they are generated
  static constexpr int kMarks = 256;

  Checkpoints();

  struct Kept {
    HeldState held;
    uint32_t line = 0;  // the line it was kept on; 0 once that line has been left below it
  };

  // `held` is at a boundary of the present line. Nothing allocates.
  void Keep(const HeldState& held);
  // A boundary's host state was changed in place (new sampling options): what is kept of it on this line follows.
  void Refresh(const HeldState& held);
  // The host state of positions [first, last].
  void Mark(int32_t first, int32_t last, const Ref<StateBlock>& host);

  // By ascending position. They may be of earlier lines: their device state and rows serve wherever the tokens are the same, which the
  // caller compares. Their host state does not follow from the tokens, so it serves on the line it was kept on alone.
  std::span<const Kept> kept() const { return kept_; }
  bool OnThisLine(const Kept& kept) const { return kept.line == line_; }
  // The host state of `position` in the present line, or an empty reference.
  Ref<StateBlock> HostAt(int32_t position) const;

  // Calls `visit` with the host block of every mark: what this session holds beside its lane and what it kept.
  template <class F>
  void ForEachMark(F visit) const {
    for (const MarkEntry& mark : marks_) {
      if (mark.host) visit(mark.host.get());
    }
  }

  // The session went elsewhere (a restore, another prompt): what was marked no longer tells of its line.
  void NewLine() { ++line_; }
  // The session went back to `position` on its own line: what this line held above is void.
  void Truncate(int32_t position);

  bool DropOldest();  // false when nothing is kept
  void Clear();

 private:
  struct MarkEntry {
    int32_t first = 0;
    int32_t last = -1;
    uint32_t line = 0;
    Ref<StateBlock> host;
  };

  std::vector<Kept> kept_;        // capacity fixed at construction
  std::vector<MarkEntry> marks_;  // a ring
  size_t next_mark_ = 0;
  uint32_t line_ = 1;
};

}  // namespace reprise
