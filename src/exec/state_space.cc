#include "exec/state_space.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/checked.h"
#include "exec/lane.h"

namespace reprise {
namespace {

std::string Where(const Places& places) {
  if (places.host_count() == 0) return {};
  return " (" + std::to_string(places.device_count()) + " on the device, " + std::to_string(places.host_count()) + " moved to the host)";
}

}  // namespace

Ref<Extent> HeldState::TipAt(int32_t earlier) const {
  Extent* extent = earlier > 0 ? tip.get() : nullptr;
  while (extent != nullptr && extent->index * kExtentRows >= earlier) extent = extent->previous;
  return Ref<Extent>::To(extent);
}

StateSpace::StateSpace(StateLayout layout, const StateSpaceOptions& options, const Fingerprint& fingerprint,
                       std::shared_ptr<DeviceMemory> memory)
    : layout_(std::move(layout)), options_(options), fingerprint_(fingerprint), memory_(std::move(memory)) {}

Result<std::shared_ptr<StateSpace>> StateSpace::Create(StateLayout layout, const StateSpaceOptions& options, const Fingerprint& fingerprint,
                                                       std::shared_ptr<DeviceMemory> memory) {
  REPRISE_RETURN_IF_ERROR(layout.Check());
  if (options.lanes < 1 || options.capsules < 0 || options.host_blocks < 0 || options.rows < 0 || options.max_position < 1 ||
      options.spilled_capsules < 0 || options.spilled_rows < 0 || options.log_rows < 0) {
    return InvalidArgument("a state space needs at least one lane and one position, and no negative sizes");
  }
  if (memory == nullptr) return InvalidArgument("a state space needs the memory of its device");
  std::shared_ptr<StateSpace> space(new StateSpace(std::move(layout), options, fingerprint, std::move(memory)));
  REPRISE_RETURN_IF_ERROR(space->AllocatePools());
  return space;
}

Status StateSpace::AllocatePools() {
  // A lane needs a block to read and one to write; one more is the origin that all lanes start from.
  const int64_t shared_count = int64_t{options_.lanes} * 2 + options_.capsules + 1;
  // Lanes do not share the extent that their last rows are in, so room for every lane is rounded up lane by lane.
  const int64_t extents = options_.rows > 0
                              ? static_cast<int64_t>(CeilDiv(static_cast<uint64_t>(options_.rows), kExtentRows))
                              : options_.lanes * static_cast<int64_t>(CeilDiv(static_cast<uint64_t>(options_.max_position), kExtentRows));
  const int64_t extent_count = has_extents() ? extents : 0;
  // There are further places on the host only for a device that can move slabs there.
  const bool spills = memory_->copies() != nullptr;
  const int64_t spilled_blocks = spills ? options_.spilled_capsules : 0;
  const auto spilled_extents =
      spills && has_extents() ? static_cast<int64_t>(CeilDiv(static_cast<uint64_t>(options_.spilled_rows), kExtentRows)) : 0;
  if (shared_count + spilled_blocks + options_.host_blocks > INT32_MAX || extent_count + spilled_extents > INT32_MAX) {
    return InvalidArgument("a pool of more than 2^31 slabs was asked for");
  }
  const auto allocate = [](size_t stride, int64_t count, std::string_view what, auto&& from) -> Result<std::byte*> {
    const auto bytes = CheckedMul(stride, static_cast<uint64_t>(count));
    if (!bytes) return InvalidArgument("the pools asked for do not fit any memory");
    return from(*bytes, what);
  };
  const auto on_device = [&](size_t bytes, std::string_view what) { return memory_->Allocate(bytes, what); };
  const auto on_host = [&](size_t bytes, std::string_view what) { return host_memory_.Allocate(bytes, what); };
  const auto beside_device = [&](size_t bytes, std::string_view what) -> Result<std::byte*> {
    return bytes > 0 ? memory_->AllocateForHost(bytes, what) : nullptr;
  };
  const auto device_pool = [&](size_t stride, int64_t count, int64_t spilled, const std::string& what) -> Result<PoolMemory> {
    PoolMemory pool{.device_count = static_cast<int32_t>(count), .host_count = static_cast<int32_t>(spilled), .stride = stride};
    REPRISE_ASSIGN_OR_RETURN(pool.device, allocate(stride, count, what, on_device));
    REPRISE_ASSIGN_OR_RETURN(pool.host, allocate(stride, spilled, what + " moved out of the device's memory", beside_device));
    return pool;
  };
  constexpr int kDevice = static_cast<int>(Space::kDevice), kHost = static_cast<int>(Space::kHost);

  REPRISE_ASSIGN_OR_RETURN(const PoolMemory blocks,
                           device_pool(layout_.block_bytes(Space::kDevice), shared_count, spilled_blocks, "state blocks"));
  blocks_[kDevice].emplace(blocks);
  // Every capsule has a host block, wherever its device block lies.
  const int64_t host_count = shared_count + spilled_blocks + options_.host_blocks;
  const size_t host_stride = layout_.block_bytes(Space::kHost);
  REPRISE_ASSIGN_OR_RETURN(std::byte * host_blocks, allocate(host_stride, host_count, "state blocks", on_host));
  blocks_[kHost].emplace(PoolMemory{.device = host_blocks, .device_count = static_cast<int32_t>(host_count), .stride = host_stride});

  REPRISE_ASSIGN_OR_RETURN(const PoolMemory extents_on_device,
                           device_pool(layout_.extent_bytes(Space::kDevice), extent_count, spilled_extents, "extents"));
  const size_t host_part = layout_.extent_bytes(Space::kHost);
  REPRISE_ASSIGN_OR_RETURN(std::byte * host_extents, allocate(host_part, extent_count + spilled_extents, "extents", on_host));
  extents_.emplace(extents_on_device, host_extents, host_part);

  const auto log_bytes = CheckedMul(options_.log_row_bytes, static_cast<uint64_t>(options_.log_rows));
  if (!log_bytes) return InvalidArgument("the replay logs asked for do not fit any memory");
  if (*log_bytes > 0) {
    REPRISE_ASSIGN_OR_RETURN(std::byte * logs, allocate(*log_bytes, options_.lanes, "replay logs", on_device));
    for (int lane = options_.lanes; lane-- > 0;) free_logs_.push_back(logs + static_cast<size_t>(lane) * *log_bytes);
  }

  if (spilled_blocks > 0) {
    spill_blocks_.emplace(*blocks_[kDevice], *memory_->steps(), *memory_->copies(), [this](uint64_t now) { MarkBlocks(now); });
  }
  if (spilled_extents > 0) {
    spill_extents_.emplace(*extents_, *memory_->steps(), *memory_->copies(), [this](uint64_t now) { MarkExtents(now); });
  }
  for (int s = 0; s < kSpaces; ++s) {
    REPRISE_ASSIGN_OR_RETURN(origin_.block[s], AcquireBlock(static_cast<Space>(s)));
  }
  return Ok();
}

std::span<std::byte> StateSpace::origin(int state) {
  const StateDecl& decl = layout_[state];
  if (decl.growth == Growth::kAppend) return {};
  return {origin_.block[static_cast<int>(decl.space)]->data + decl.offset, decl.bytes};
}

Result<std::unique_ptr<Lane>> StateSpace::NewLane() {
  const std::lock_guard lock(lanes_mutex_);
  if (lanes_.size() >= static_cast<size_t>(options_.lanes)) {
    return Exhausted("all " + std::to_string(options_.lanes) + " lanes are in use; drop one, or ask for more when loading");
  }
  std::unique_ptr<Lane> lane(new Lane(*this));
  lanes_.push_back(lane.get());
  if (!free_logs_.empty()) {
    lane->log_ = {.rows = free_logs_.back(), .capacity = options_.log_rows, .row_bytes = options_.log_row_bytes};
    free_logs_.pop_back();
  }
  return lane;
}

void StateSpace::Leave(Lane& lane) {
  const std::lock_guard lock(lanes_mutex_);
  std::erase(lanes_, &lane);
  if (lane.log_.rows != nullptr) free_logs_.push_back(lane.log_.rows);  // within the capacity that it came from
}

void StateSpace::MarkBlocks(uint64_t now) {
  const auto mark = [now](const Ref<StateBlock>& block) {
    if (block) block->used = now;
  };
  constexpr int kDevice = static_cast<int>(Space::kDevice);
  mark(origin_.block[kDevice]);
  if (coming_ != nullptr) mark(coming_->block[kDevice]);
  const std::lock_guard lock(lanes_mutex_);
  for (const Lane* lane : lanes_) {
    if (lane == leaving_) continue;
    mark(lane->held_.block[kDevice]);
    mark(lane->write_[kDevice]);
  }
}

void StateSpace::MarkExtents(uint64_t now) {
  const auto mark = [now](const Ref<Extent>& tip) {  // lanes that share a history have it stamped once
    for (Extent* extent = tip.get(); extent != nullptr && extent->used != now; extent = extent->previous) extent->used = now;
  };
  if (coming_ != nullptr) mark(coming_->tip);
  const std::lock_guard lock(lanes_mutex_);
  for (const Lane* lane : lanes_) {
    if (lane == leaving_) continue;  // what it shares with what is coming is marked with that
    mark(lane->held_.tip);
    mark(lane->write_tip_);
  }
}

template <class Pool>
Result<bool> StateSpace::MakeRoom(Pool& pool, std::optional<Spill<Pool>>& spill, bool place_alone) {
  // Moving does not help where the host is full too: then there are as many slabs held as there are places.
  if (spill && (place_alone || pool.used() < pool.count())) {
    REPRISE_ASSIGN_OR_RETURN(const bool made, spill->FreePlace());
    if (made) return true;
  }
  return evictor_ && evictor_();
}

Result<Ref<StateBlock>> StateSpace::AcquireBlock(Space space) {
  BlockPool& pool = *blocks_[static_cast<int>(space)];
  std::optional<Spill<BlockPool>> none;
  auto& spill = space == Space::kDevice ? spill_blocks_ : none;
  if (spill) REPRISE_RETURN_IF_ERROR(spill->KeepRoom());
  for (bool again = true; again;) {
    if (StateBlock* block = pool.Acquire()) return Ref<StateBlock>::Adopt(block);
    REPRISE_ASSIGN_OR_RETURN(again, MakeRoom(pool, spill, /*place_alone=*/false));
  }
  return Exhausted("all " + std::to_string(pool.count()) + " state blocks are held" + Where(pool.places()) +
                   "; drop a capsule, or ask for more capsules when loading");
}

Result<Ref<Extent>> StateSpace::AcquireExtent(Ref<Extent>& previous, int32_t index, int32_t frontier) {
  if (spill_extents_) REPRISE_RETURN_IF_ERROR(spill_extents_->KeepRoom());
  for (bool again = true; again;) {
    if (Extent* extent = extents_->Acquire(previous.get(), index, frontier)) {
      previous.Detach();  // the new extent holds it now
      return Ref<Extent>::Adopt(extent);
    }
    REPRISE_ASSIGN_OR_RETURN(again, MakeRoom(*extents_, spill_extents_, /*place_alone=*/false));
  }
  return Exhausted("all " + std::to_string(extents_->count()) + " extents of " + std::to_string(kExtentRows) + " rows are held" +
                   Where(extents_->places()) + "; drop a capsule, or ask for more rows when loading");
}

template <class Pool>
Status StateSpace::BringBack(typename Pool::Slab& slab, Pool& pool, std::optional<Spill<Pool>>& spill) {
  if (!spill || !spill->Away(slab)) return Ok();
  for (bool again = true; again;) {
    if (const int32_t place = pool.places().TakeOnDevice(); place >= 0) return spill->Return(slab, place);
    REPRISE_ASSIGN_OR_RETURN(again, MakeRoom(pool, spill, /*place_alone=*/true));
  }
  return Exhausted("the state to restore lies in the host's memory, and lanes use all " + std::to_string(pool.places().device_count()) +
                   " places on the device; drop a lane, or ask for more rows and capsules when loading");
}

Status StateSpace::BringBack(const HeldState& held, const Extent* known, const Lane& lane) {
  if (!spill_blocks_ && !spill_extents_) return Ok();
  leaving_ = &lane;
  Status status = BringBack(held, known);
  leaving_ = nullptr;
  if (!status.ok()) REPRISE_RETURN_IF_ERROR(BringBack(lane.held_, nullptr));  // there is room, since it was there
  return status;
}

Status StateSpace::BringBack(const HeldState& held, const Extent* known) {
  coming_ = &held;
  Status status = BringBack(*held.block[static_cast<int>(Space::kDevice)].get(), *blocks_[0], spill_blocks_);
  for (Extent* extent = held.tip.get(); extent != known && status.ok(); extent = extent->previous) {
    status = BringBack(*extent, *extents_, spill_extents_);
  }
  coming_ = nullptr;
  return status;
}

Result<HeldState> StateSpace::AcquireState(int32_t position) {
  HeldState held;
  held.position = position;
  const int32_t extents = has_extents() ? static_cast<int32_t>(CeilDiv(static_cast<uint64_t>(position), kExtentRows)) : 0;
  // Without this the evictor would be asked for everything there is before the answer is no.
  if (extents > extents_->count()) {
    return Exhausted(std::to_string(position) + " rows take " + std::to_string(extents) + " extents; there are " +
                     std::to_string(extents_->count()) + " in all, so ask for more rows when loading");
  }
  for (int s = 0; s < kSpaces; ++s) {
    REPRISE_ASSIGN_OR_RETURN(held.block[s], AcquireBlock(static_cast<Space>(s)));
  }
  for (int32_t index = 0; index < extents; ++index) {
    REPRISE_ASSIGN_OR_RETURN(held.tip, AcquireExtent(held.tip, index, std::min<int32_t>(kExtentRows, position - index * kExtentRows)));
  }
  return held;
}

void StateSpace::Copy(Space space, std::byte* to, const std::byte* from, size_t bytes) {
  if (space == Space::kDevice) {
    // An error of the stream is found by whoever synchronises it.
    if (spill_blocks_ && (spill_blocks_->Holds(to) || spill_blocks_->Holds(from))) (void)spill_blocks_->Settle();
    if (spill_extents_ && (spill_extents_->Holds(to) || spill_extents_->Holds(from))) (void)spill_extents_->Settle();
    memory_->Copy(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

StateSpace::Usage StateSpace::usage() const {
  Usage usage{};
  for (int s = 0; s < kSpaces; ++s) {
    usage.blocks[s] = blocks_[s]->used();
    usage.bytes += static_cast<size_t>(usage.blocks[s]) * layout_.block_bytes(static_cast<Space>(s));
    usage.bytes += static_cast<size_t>(extents_->used()) * layout_.extent_bytes(static_cast<Space>(s));
  }
  usage.block_limit = blocks_[0]->count();
  usage.extents = extents_->used();
  usage.extent_limit = extents_->count();
  usage.spilled_block_limit = blocks_[0]->places().host_count();
  usage.spilled_extent_limit = extents_->places().host_count();
  if (spill_blocks_) usage.spilled += spill_blocks_->moved(), usage.returned += spill_blocks_->returned();
  if (spill_extents_) usage.spilled += spill_extents_->moved(), usage.returned += spill_extents_->returned();
  return usage;
}

}  // namespace reprise
