// Lane: one live execution. It reads one state block, writes another, appends to its extents, and moves on only when a step is committed.
//
// A step is a transaction: Begin makes room (or fails and changes nothing), the caller computes into the write blocks and the new rows, and
// Commit makes them the state. Abort, or a Begin that fails, leaves the lane as it was. So the state that Hold() takes is always that of a
// committed boundary, and what it holds is never written again:
//   - a step writes a fresh block, so a block that a capsule holds stays as it is;
//   - a row below an extent's frontier is written by nobody but a sole holder, so rows that a capsule sees stay as they are. A lane whose row
//     is not the frontier of a shared extent copies the rows below into an extent of its own: at most kExtentRows - 1 rows, never a history.
//
// A lane is used by one thread at a time. It must not outlive its StateSpace. Nothing here allocates after construction.
#pragma once

#include <cassert>
#include <cstdint>
#include <vector>

#include "exec/replay_log.h"
#include "exec/slabs.h"
#include "exec/state_space.h"
#include "reprise/status.h"

namespace reprise {

class Lane {
 public:
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  int32_t position() const { return held_.position; }
  StateSpace& space() const { return space_; }

  // Opens a step of `rows` >= 1 new positions. The device part of the write block is uninitialised: the step must write every device state in
  // full. The host part starts as a copy of the read block's. Fails with kExhausted when the context or a pool is full.
  Status Begin(int rows);
  // Opens a step that changes host state alone: the device state stays shared and the position stands.
  Status BeginHost();
  void Commit() { Commit(rows_); }
  // Commits the first `rows` >= 1 of the rows begun; the step's write blocks must be as after those rows alone. The others are given back.
  void Commit(int rows);
  void Abort();
  bool in_step() const { return step_ != StepKind::kNone; }

  const std::byte* read(Space space) const { return held_.block[static_cast<int>(space)]->data; }
  std::byte* write(Space space) const { return write_[static_cast<int>(space)]->data; }  // valid in a step
  // Entry e is the extent that holds positions from e * kExtentRows, for every committed or begun position. The address stays the same.
  std::byte* const* extents(Space space) const { return table_[static_cast<int>(space)].data(); }
  std::byte* row(const StateDecl& state, int32_t position) const {
    return table_[static_cast<int>(state.space)][position / kExtentRows] + state.offset +
           static_cast<size_t>(position % kExtentRows) * state.bytes;
  }

  // The state as of the last commit, also within a step, by reference. No byte is copied.
  HeldState Hold() const { return held_; }
  // Makes `held`, of the same space, the state of this lane. No byte is copied, but for what had to leave the device's memory and now comes
  // back: kExhausted, and nothing changed, when there is no room for it. Not within a step. The log is empty then.
  Status Adopt(HeldState held);
  // Back to the state at position 0.
  void Reset() {
    [[maybe_unused]] const Status status = Adopt(space_.Origin());  // it never leaves the device
    assert(status.ok());
    parent_capsule = 0;
  }

  // Kept by whoever computes the steps.
  ReplayLog& log() { return log_; }
  const ReplayLog& log() const { return log_; }

  // Copies made on write since construction: what sharing cost.
  uint64_t copied_rows() const { return copied_rows_; }
  // Which capsule this lane last took or restored; 0 for none.
  uint64_t parent_capsule = 0;

 private:
  friend class StateSpace;
  enum class StepKind { kNone, kFull, kHost };
  explicit Lane(StateSpace& space);

  Status ReserveRows(int rows);
  bool ClaimRows(int32_t used, int32_t wanted);
  Status OwnTipFrom(int32_t used, int32_t wanted);
  void GiveRowsBack();
  void TrimTip(int32_t begun);
  void Enter(Extent* extent);

  StateSpace& space_;
  HeldState held_;                  // as of the last commit; a step in progress never touches it
  Ref<StateBlock> write_[kSpaces];  // what held_.block becomes at commit; a part that is absent stays
  Ref<Extent> write_tip_;           // what held_.tip becomes at commit
  int32_t claimed_ = 0;             // where the open step moved the frontier of held_.tip; 0 if it did not
  StepKind step_ = StepKind::kNone;
  int32_t rows_ = 0;                        // of the open step
  std::vector<const Extent*> chain_;        // [e]: the extent at index e of this lane's history
  std::vector<std::byte*> table_[kSpaces];  // [space][e]: its data, as kernels want it
  ReplayLog log_;
  uint64_t copied_rows_ = 0;
};

}  // namespace reprise
