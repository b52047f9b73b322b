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
  held_ = HeldState();
  for (auto& block : write_) block = Ref<StateBlock>();
  space_.live_lanes_.fetch_sub(1);
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
      TrimTo(held_.position);
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

void Lane::Commit() {
  assert(step_ != StepKind::kNone);
  for (int s = 0; s < kSpaces; ++s) {
    if (write_[s]) held_.block[s] = std::exchange(write_[s], Ref<StateBlock>());
  }
  held_.position += rows_;
  step_ = StepKind::kNone;
}

void Lane::Abort() {
  assert(step_ != StepKind::kNone);
  for (auto& block : write_) block = Ref<StateBlock>();
  if (step_ == StepKind::kFull) TrimTo(held_.position);
  step_ = StepKind::kNone;
}

// Makes rows [position, position + rows) this lane's to write. On an error the tip may reach too far; the caller trims.
Status Lane::ReserveRows(int rows) {
  const int32_t begin = held_.position;
  const int32_t end = begin + rows;
  if (const int32_t used = begin % kExtentRows; used != 0) {
    REPRISE_RETURN_IF_ERROR(OwnTipFrom(used, std::min<int32_t>(kExtentRows, used + rows)));
  }
  for (auto index = static_cast<int32_t>(CeilDiv(static_cast<uint64_t>(begin), kExtentRows)); index * kExtentRows < end; ++index) {
    const int32_t frontier = std::min<int32_t>(kExtentRows, end - index * kExtentRows);
    REPRISE_ASSIGN_OR_RETURN(held_.tip, space_.AcquireExtent(held_.tip, index, frontier));
    Enter(held_.tip.get());
  }
  return Ok();
}

// Makes rows [used, wanted) of the tip this lane's to write: in place if the frontier is at `used` or nobody else holds the extent, and in a
// copy of the rows below otherwise.
Status Lane::OwnTipFrom(int32_t used, int32_t wanted) {
  Extent* tip = held_.tip.get();
  int32_t expected = used;
  if (tip->frontier.compare_exchange_strong(expected, wanted, std::memory_order_acq_rel)) return Ok();
  if (tip->holders.load(std::memory_order_acquire) == 1) {
    tip->frontier.store(wanted, std::memory_order_release);
    return Ok();
  }
  auto previous = Ref<Extent>::To(tip->previous);
  REPRISE_ASSIGN_OR_RETURN(Ref<Extent> own, space_.AcquireExtent(previous, tip->index, wanted));
  for (const StateDecl& state : space_.layout().states()) {
    if (state.growth != Growth::kAppend) continue;
    const int s = static_cast<int>(state.space);
    std::byte* to = own->data[s] + state.offset;
    const std::byte* from = tip->data[s] + state.offset;
    const size_t bytes = static_cast<size_t>(used) * state.bytes;
    if (state.space == Space::kDevice) {
      space_.memory().Copy(to, from, bytes);
    } else {
      std::memcpy(to, from, bytes);
    }
  }
  copied_rows_ += static_cast<uint64_t>(used);
  held_.tip = std::move(own);
  Enter(held_.tip.get());
  return Ok();
}

void Lane::TrimTo(int32_t position) {
  while (held_.tip && held_.tip->index * kExtentRows >= position) held_.tip = Ref<Extent>::To(held_.tip->previous);
}

void Lane::Adopt(HeldState held) {
  assert(step_ == StepKind::kNone);
  // Walk down from the new tip until the histories meet: restoring a recent capsule of the same line visits almost nothing. The old chain is
  // still held here, so an equal pointer is the same extent with the same past.
  const int32_t old_last = held_.tip ? held_.tip->index : -1;
  for (Extent* extent = held.tip.get(); extent != nullptr; extent = extent->previous) {
    if (extent->index <= old_last && chain_[static_cast<size_t>(extent->index)] == extent) break;
    Enter(extent);
  }
  held_ = std::move(held);
}

}  // namespace reprise
