#include "store/memory_tier.h"

namespace reprise {

MemoryTier::MemoryTier(const StateSpace& space, uint64_t budget) : extent_bytes_(0), budget_(budget) {
  for (int s = 0; s < kSpaces; ++s) {
    block_bytes_[s] = space.layout().block_bytes(static_cast<Space>(s));
    extent_bytes_ += space.layout().extent_bytes(static_cast<Space>(s));
  }
}

uint64_t MemoryTier::Cost(const Capsule& capsule) const {
  const HeldState held = capsule.Hold();
  uint64_t bytes = 0;
  for (int s = 0; s < kSpaces; ++s) {
    if (!holds_.contains(held.block[s].get())) bytes += block_bytes_[s];
  }
  for (const Extent* extent = held.tip.get(); extent != nullptr && !holds_.contains(extent); extent = extent->previous)
    bytes += extent_bytes_;
  return bytes;
}

uint64_t MemoryTier::Freed(const Capsule& capsule) const {
  const HeldState held = capsule.Hold();
  uint64_t bytes = 0;
  for (int s = 0; s < kSpaces; ++s) {
    if (holds_.at(held.block[s].get()) == 1) bytes += block_bytes_[s];
  }
  for (const Extent* extent = held.tip.get(); extent != nullptr && holds_.at(extent) == 1; extent = extent->previous)
    bytes += extent_bytes_;
  return bytes;
}

void MemoryTier::Add(const Capsule& capsule) {
  const HeldState held = capsule.Hold();
  for (int s = 0; s < kSpaces; ++s) {
    if (holds_[held.block[s].get()]++ == 0) bytes_ += block_bytes_[s];
  }
  for (const Extent* extent = held.tip.get(); extent != nullptr && holds_[extent]++ == 0; extent = extent->previous)
    bytes_ += extent_bytes_;
}

void MemoryTier::Remove(const Capsule& capsule) {
  const HeldState held = capsule.Hold();
  const auto let_go = [&](const void* slab, uint64_t bytes) {
    const auto at = holds_.find(slab);
    if (--at->second > 0) return false;
    holds_.erase(at);
    bytes_ -= bytes;
    return true;
  };
  for (int s = 0; s < kSpaces; ++s) let_go(held.block[s].get(), block_bytes_[s]);
  for (const Extent* extent = held.tip.get(); extent != nullptr && let_go(extent, extent_bytes_);) extent = extent->previous;
}

}  // namespace reprise
