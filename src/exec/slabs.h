// StateBlock and Extent: the two kinds of memory that state lives in, and the references that keep them.
//
// Both come from pools of fixed size and carry a count of their holders. A holder is a lane, a capsule or (for an extent) the extent that
// follows it. Counting is atomic, so that capsules may be copied and dropped on any thread; what a lane writes is its own business and
// happens on the lane's thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "exec/free_list.h"
#include "exec/places.h"
#include "reprise/layout.h"

namespace reprise {

class BlockPool;
class ExtentPool;

// All recurrent state of one space of one execution.
struct StateBlock {
  std::atomic<int32_t> holders{0};
  int32_t slot = 0;
  int32_t place = 0;  // where `data` lies; while a lane uses the slab, on the device
  uint64_t used = 0;  // when a lane last used it, by the pool's clock, as far as anybody looked
  std::byte* data = nullptr;
  BlockPool* pool = nullptr;
};

// Append-only rows of kExtentRows consecutive positions. The extent before it is fixed for life, so extents form a tree, and whoever holds an
// extent holds its whole history: a snapshot at any length takes one reference.
struct Extent {
  std::atomic<int32_t> holders{0};
  // Rows below it have been given to some lane to write. A lane at row r may go on in place if it moves the frontier from r; see Lane.
  std::atomic<int32_t> frontier{0};
  int32_t slot = 0;
  int32_t index = 0;  // holds positions [index * kExtentRows, (index + 1) * kExtentRows)
  int32_t place = 0;  // of the device part, as a block's
  uint64_t used = 0;
  Extent* previous = nullptr;
  std::byte* data[kSpaces] = {nullptr, nullptr};
  ExtentPool* pool = nullptr;
};

// What a pool's place stands for: a block as a whole, the device part of an extent.
inline std::byte*& PlacedData(StateBlock& block) { return block.data; }
inline std::byte*& PlacedData(Extent& extent) { return extent.data[static_cast<int>(Space::kDevice)]; }

// Slabs, and the places for them. There are as many slabs as places, on the device and on the host together; a slab that is acquired lies on
// the device, so none can be had when all those places are taken.
template <class T>
class SlabPool {
 public:
  using Slab = T;

  explicit SlabPool(const PoolMemory& memory)
      : places_(memory), free_(places_.count()), slabs_(std::make_unique<Slab[]>(static_cast<size_t>(places_.count()))) {
    for (int32_t i = 0; i < places_.count(); ++i) slabs_[static_cast<size_t>(i)].slot = i;
  }
  void Recycle(Slab* slab) {
    places_.Give(slab->place);
    free_.Push(slab->slot);
  }
  int32_t used() const { return count() - free_.free(); }
  int32_t count() const { return places_.count(); }
  Places& places() { return places_; }
  const Places& places() const { return places_; }
  std::span<Slab> slabs() { return {slabs_.get(), static_cast<size_t>(count())}; }
  // The clock of Slab::used. Moved on by the thread of the steps.
  uint64_t now() const { return now_; }
  uint64_t Tick() { return ++now_; }

 protected:
  // With one holder, the caller; null when the pool is empty.
  Slab* Take() {
    const int32_t slot = free_.Pop();
    if (slot < 0) return nullptr;
    const int32_t place = places_.TakeOnDevice();
    if (place < 0) {
      free_.Push(slot);
      return nullptr;
    }
    Slab* slab = &slabs_[static_cast<size_t>(slot)];
    slab->place = place;
    PlacedData(*slab) = places_.at(place);
    slab->used = now_;
    slab->holders.store(1, std::memory_order_relaxed);
    return slab;
  }

 private:
  Places places_;
  FreeList free_;
  uint64_t now_ = 0;

 protected:
  std::unique_ptr<Slab[]> slabs_;
};

class BlockPool : public SlabPool<StateBlock> {
 public:
  explicit BlockPool(const PoolMemory& memory) : SlabPool(memory) {
    for (StateBlock& block : slabs()) block.pool = this;
  }
  StateBlock* Acquire() { return Take(); }
};

class ExtentPool : public SlabPool<Extent> {
 public:
  // `host_part` has room for the host part of every extent, `host_stride` bytes each, which stays where it is.
  ExtentPool(const PoolMemory& device_part, std::byte* host_part, size_t host_stride) : SlabPool(device_part) {
    for (Extent& extent : slabs()) {
      extent.data[static_cast<int>(Space::kHost)] = host_part + static_cast<size_t>(extent.slot) * host_stride;
      extent.pool = this;
    }
  }
  // Takes over the caller's hold on `previous` (which may be null) only on success; null when the pool is empty.
  Extent* Acquire(Extent* previous, int32_t index, int32_t frontier) {
    Extent* extent = Take();
    if (extent == nullptr) return nullptr;
    extent->previous = previous;
    extent->index = index;
    extent->frontier.store(frontier, std::memory_order_relaxed);
    return extent;
  }
};

inline void Hold(StateBlock* block) { block->holders.fetch_add(1, std::memory_order_relaxed); }
inline void Hold(Extent* extent) { extent->holders.fetch_add(1, std::memory_order_relaxed); }

inline void Release(StateBlock* block) {
  if (block->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) block->pool->Recycle(block);
}

// Letting go of the last hold on an extent lets go of the one before it, and so on down: a loop, since histories are long.
inline void Release(Extent* extent) {
  while (extent != nullptr && extent->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    Extent* previous = std::exchange(extent->previous, nullptr);
    extent->pool->Recycle(extent);
    extent = previous;
  }
}

// Adds a hold, unless the slab has just been let go of by its last holder, on whatever thread.
template <class Slab>
bool HoldIfHeld(Slab& slab) {
  int32_t holders = slab.holders.load(std::memory_order_relaxed);
  while (holders > 0 && !slab.holders.compare_exchange_weak(holders, holders + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
  }
  return holders > 0;
}

// A hold on a StateBlock or an Extent, or on nothing.
template <class T>
class Ref {
 public:
  Ref() = default;
  Ref(const Ref& other) : slab_(other.slab_) {
    if (slab_ != nullptr) Hold(slab_);
  }
  Ref(Ref&& other) noexcept : slab_(std::exchange(other.slab_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(slab_, other.slab_);
    return *this;
  }
  ~Ref() {
    if (slab_ != nullptr) Release(slab_);
  }
  static Ref Adopt(T* slab) {  // takes over a hold that the caller has
    Ref ref;
    ref.slab_ = slab;
    return ref;
  }
  static Ref To(T* slab) {  // adds a hold
    if (slab != nullptr) Hold(slab);
    return Adopt(slab);
  }
  T* get() const { return slab_; }
  T* operator->() const { return slab_; }
  explicit operator bool() const { return slab_ != nullptr; }
  T* Detach() { return std::exchange(slab_, nullptr); }

 private:
  T* slab_ = nullptr;
};

}  // namespace reprise
