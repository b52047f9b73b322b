#include "exec/state_space.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/checked.h"
#include "exec/lane.h"

namespace reprise {

StateSpace::StateSpace(StateLayout layout, const StateSpaceOptions& options, const Fingerprint& fingerprint,
                       std::shared_ptr<DeviceMemory> memory)
    : layout_(std::move(layout)), options_(options), fingerprint_(fingerprint), memory_(std::move(memory)) {}

Result<std::shared_ptr<StateSpace>> StateSpace::Create(StateLayout layout, const StateSpaceOptions& options, const Fingerprint& fingerprint,
                                                       std::shared_ptr<DeviceMemory> memory) {
  REPRISE_RETURN_IF_ERROR(layout.Check());
  if (options.lanes < 1 || options.capsules < 0 || options.host_blocks < 0 || options.rows < 0 || options.max_position < 1) {
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
  const int64_t block_counts[kSpaces] = {shared_count, shared_count + options_.host_blocks};
  // Lanes do not share the extent that their last rows are in, so room for every lane is rounded up lane by lane.
  const int64_t extents = options_.rows > 0
                              ? static_cast<int64_t>(CeilDiv(static_cast<uint64_t>(options_.rows), kExtentRows))
                              : options_.lanes * static_cast<int64_t>(CeilDiv(static_cast<uint64_t>(options_.max_position), kExtentRows));
  const int64_t extent_count = has_extents() ? extents : 0;
  if (block_counts[1] > INT32_MAX || extent_count > INT32_MAX) return InvalidArgument("a pool of more than 2^31 slabs was asked for");

  std::byte* extent_memory[kSpaces];
  size_t extent_stride[kSpaces];
  for (int s = 0; s < kSpaces; ++s) {
    const auto space = static_cast<Space>(s);
    DeviceMemory& memory = space == Space::kDevice ? *memory_ : host_memory_;
    const size_t block_stride = layout_.block_bytes(space);
    extent_stride[s] = layout_.extent_bytes(space);
    const auto block_total = CheckedMul(block_stride, static_cast<uint64_t>(block_counts[s]));
    const auto extent_total = CheckedMul(extent_stride[s], static_cast<uint64_t>(extent_count));
    if (!block_total || !extent_total) return InvalidArgument("the pools asked for do not fit any memory");
    REPRISE_ASSIGN_OR_RETURN(std::byte * block_memory, memory.Allocate(*block_total, "state blocks"));
    blocks_[s].emplace(block_memory, block_stride, static_cast<int32_t>(block_counts[s]));
    REPRISE_ASSIGN_OR_RETURN(extent_memory[s], memory.Allocate(*extent_total, "extents"));
  }
  extents_.emplace(extent_memory, extent_stride, static_cast<int32_t>(extent_count));
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
  if (live_lanes_.fetch_add(1) >= options_.lanes) {
    live_lanes_.fetch_sub(1);
    return Exhausted("all " + std::to_string(options_.lanes) + " lanes are in use; drop one, or ask for more when loading");
  }
  return std::unique_ptr<Lane>(new Lane(*this));
}

Result<Ref<StateBlock>> StateSpace::AcquireBlock(Space space) {
  BlockPool& pool = *blocks_[static_cast<int>(space)];
  do {
    if (StateBlock* block = pool.Acquire()) return Ref<StateBlock>::Adopt(block);
  } while (evictor_ && evictor_());
  return Exhausted("all " + std::to_string(pool.count()) + " state blocks are held; drop a capsule, or ask for more capsules when loading");
}

Result<Ref<Extent>> StateSpace::AcquireExtent(Ref<Extent>& previous, int32_t index, int32_t frontier) {
  do {
    if (Extent* extent = extents_->Acquire(previous.get(), index, frontier)) {
      previous.Detach();  // the new extent holds it now
      return Ref<Extent>::Adopt(extent);
    }
  } while (evictor_ && evictor_());
  return Exhausted("all " + std::to_string(extents_->count()) + " extents of " + std::to_string(kExtentRows) +
                   " rows are held; drop a capsule, or ask for more rows when loading");
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
  return usage;
}

}  // namespace reprise
