// MemoryTier: what the store's capsules keep of the pools, in bytes, each block and extent counted once however many capsules share it.
//
// An extent holds the one before it for life, so a chain is counted from its tip down to the first extent that is counted already: adding or
// dropping a capsule costs its own extents, not its history. Used under the store's lock.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "exec/state_space.h"
#include "reprise/capsule.h"

namespace reprise {

class MemoryTier {
 public:
  MemoryTier(const StateSpace& space, uint64_t budget);

  uint64_t bytes() const { return bytes_; }
  uint64_t budget() const { return budget_; }

  // What adding `capsule` would add.
  uint64_t Cost(const Capsule& capsule) const;
  bool HasRoomFor(const Capsule& capsule) const { return bytes_ + Cost(capsule) <= budget_; }
  // What removing it would free.
  uint64_t Freed(const Capsule& capsule) const;

  void Add(const Capsule& capsule);
  void Remove(const Capsule& capsule);  // while the capsule still holds what it held when it was added

 private:
  uint64_t block_bytes_[kSpaces];
  uint64_t extent_bytes_;
  uint64_t budget_;
  uint64_t bytes_ = 0;
  std::unordered_map<const void*, int32_t>
      holds_;  // of blocks: capsules; of extents: capsules whose tip it is, and counted extents after it
};

}  // namespace reprise
