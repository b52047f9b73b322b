#include "exec/lane.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>
#include <utility>

#include "base/checked.h"

namespace reprise {

Lane::Lane(StateSpace& space) : space_(space), held_(space.Origin()) {
  const size_t entries = space.has_extents() ? CeilDiv(static_cast<uint64_t>(space.max_position()), kExtentRows) : 0;
  chain_.resize(entries);
  for (auto& table : table_) table.resize(entries);
}

Lane::~Lane() {
  // Let go before the count says that the lane is free, so that whoever takes its place finds the blocks it may count on.
  if (in_step()) Abort();
  held_ = HeldState();
  space_.Leave(*this);
}

void Lane::Enter(Extent* extent) {
  const auto index = static_cast<size_t>(extent->index);
  chain_[index] = extent;
  for (int s = 0; s < kSpaces; ++s) table_[s][index] = extent->data[s];
}

Status Lane::Begin(int rows) {
  assert(step_ == StepKind::kNone);
  if (rows < 1) return InvalidArgument("a step needs at least one row, not " + std::to_string(rows));
  if (rows > space_.max_position() - held_.position) {
    return Exhausted("the context of " + std::to_string(space_.max_position()) + " positions is full: " + std::to_string(rows) +
                     " more do not fit after " + std::to_string(held_.position));
  }
  Ref<StateBlock> blocks[kSpaces];
  for (int s = 0; s < kSpaces; ++s) {
    REPRISE_ASSIGN_OR_RETURN(blocks[s], space_.AcquireBlock(static_cast<Space>(s)));
  }
  if (space_.has_extents()) {
    if (Status status = ReserveRows(rows); !status.ok()) {
      GiveRowsBack();
      return status;
    }
  }
  for (int s = 0; s < kSpaces; ++s) write_[s] = std::move(blocks[s]);
  std::memcpy(write(Space::kHost), read(Space::kHost), space_.layout().block_bytes(Space::kHost));
  rows_ = rows;
  step_ = StepKind::kFull;
  return Ok();
}

Status Lane::BeginHost() {
  assert(step_ == StepKind::kNone);
  constexpr int kHost = static_cast<int>(Space::kHost);
  REPRISE_ASSIGN_OR_RETURN(write_[kHost], space_.AcquireBlock(Space::kHost));
  std::memcpy(write(Space::kHost), read(Space::kHost), space_.layout().block_bytes(Space::kHost));
  rows_ = 0;
  step_ = StepKind::kHost;
  return Ok();
}

void Lane::Commit(int rows) {
  assert(step_ != StepKind::kNone && rows <= rows_ && (rows > 0 || rows_ == 0));
  for (int s = 0; s < kSpaces; ++s) {
    if (write_[s]) held_.block[s] = std::exchange(write_[s], Ref<StateBlock>());
  }
  if (step_ == StepKind::kFull) held_.tip = std::exchange(write_tip_, Ref<Extent>());
  claimed_ = 0;
  const int32_t begun = held_.position + rows_;
  held_.position += rows;
  step_ = StepKind::kNone;
  if (held_.position < begun) TrimTip(begun);
}

// Gives back the rows from the position up to `begun`, which this lane's step had made its own and which nobody else has seen.
void Lane::TrimTip(int32_t begun) {
  while (held_.tip && held_.tip->index * kExtentRows >= held_.position) held_.tip = Ref<Extent>::To(held_.tip->previous);
  if (!held_.tip) return;
  const int32_t first = held_.tip->index * kExtentRows;
  int32_t expected = std::min<int32_t>(kExtentRows, begun - first);
  held_.tip->frontier.compare_exchange_strong(expected, held_.position - first, std::memory_order_acq_rel);
}

void Lane::Abort() {
  assert(step_ != StepKind::kNone);
  for (auto& block : write_) block = Ref<StateBlock>();
  if (step_ == StepKind::kFull) GiveRowsBack();
  step_ = StepKind::kNone;
}

// Makes rows [position, position + rows) this lane's to write, through write_tip_. On an error the caller gives back what was reserved.
Status Lane::ReserveRows(int rows) {
  const int32_t begin = held_.position;
  const int32_t end = begin + rows;
  if (const int32_t used = begin % kExtentRows; used != 0) {
    REPRISE_RETURN_IF_ERROR(OwnTipFrom(used, std::min<int32_t>(kExtentRows, used + rows)));
  } else {
    write_tip_ = held_.tip;
  }
  for (auto index = static_cast<int32_t>(CeilDiv(static_cast<uint64_t>(begin), kExtentRows));
       index < CeilDiv(static_cast<uint64_t>(end), kExtentRows); ++index) {
    const int32_t frontier = std::min<int32_t>(kExtentRows, end - index * kExtentRows);
    REPRISE_ASSIGN_OR_RETURN(write_tip_, space_.AcquireExtent(write_tip_, index, frontier));
    Enter(write_tip_.get());
  }
  return Ok();
}

// Moves the frontier of the committed tip from `used` to `wanted`: if it stands at `used`, or if nobody else holds the extent.
bool Lane::ClaimRows(int32_t used, int32_t wanted) {
  Extent* tip = held_.tip.get();
  int32_t expected = used;
  if (!tip->frontier.compare_exchange_strong(expected, wanted, std::memory_order_acq_rel)) {
    if (tip->holders.load(std::memory_order_acquire) != 1) return false;
    tip->frontier.store(wanted, std::memory_order_release);
  }
  claimed_ = wanted;
  write_tip_ = held_.tip;
  return true;
}

// Makes rows [used, wanted) of the tip this lane's to write: in place where they can be claimed, and in a copy of the rows below otherwise.
Status Lane::OwnTipFrom(int32_t used, int32_t wanted) {
  if (ClaimRows(used, wanted)) return Ok();
  const Extent* tip = held_.tip.get();
  auto previous = Ref<Extent>::To(tip->previous);
  auto own = space_.AcquireExtent(previous, tip->index, wanted);
  if (!own.ok()) {
    // The evictor may have dropped the capsules that shared the tip; then there is no need for a copy.
    return ClaimRows(used, wanted) ? Ok() : own.status();
  }
  write_tip_ = *std::move(own);
  for (const StateDecl& state : space_.layout().states()) {
    if (state.growth != Growth::kAppend) continue;
    const int s = static_cast<int>(state.space);
    space_.Copy(state.space, write_tip_->data[s] + state.offset, tip->data[s] + state.offset, static_cast<size_t>(used) * state.bytes);
  }
  copied_rows_ += static_cast<uint64_t>(used);
  Enter(write_tip_.get());
  return Ok();
}

// The opposite of ReserveRows, whole or half done: extents, frontier and tables are again those of the committed state. Without the frontier
// going back, a step that failed would cost the next one a copy, and perhaps an extent that the pool no longer has.
void Lane::GiveRowsBack() {
  if (claimed_ != 0) {
    int32_t expected = claimed_;  // still there: only a lane that stands on the claimed rows could have moved it, and none can
    held_.tip->frontier.compare_exchange_strong(expected, held_.position % kExtentRows, std::memory_order_acq_rel);
    claimed_ = 0;
  }
  write_tip_ = Ref<Extent>();
  if (held_.tip) Enter(held_.tip.get());
}

Status Lane::Adopt(HeldState held) {
  assert(step_ == StepKind::kNone);
  // Walk down from the new tip until the histories meet: restoring a recent capsule of the same line visits almost nothing. The old chain is
  // still held here, so an equal pointer is the same extent with the same past.
  const int32_t old_last = held_.tip ? held_.tip->index : -1;
  const Extent* meet = held.tip.get();
  while (meet != nullptr && (meet->index > old_last || chain_[static_cast<size_t>(meet->index)] != meet)) meet = meet->previous;
  if (Status status = space_.BringBack(held, meet, *this); !status.ok()) {
    for (Extent* extent = held_.tip.get(); extent != nullptr; extent = extent->previous) Enter(extent);
    return status;
  }
  for (Extent* extent = held.tip.get(); extent != meet; extent = extent->previous) Enter(extent);
  held_ = std::move(held);
  log_.Clear();
  return Ok();
}

}  // namespace reprise
