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
#include <utility>

#include "exec/free_list.h"
#include "reprise/layout.h"

namespace reprise {

class BlockPool;
class ExtentPool;

// All recurrent state of one space of one execution.
struct StateBlock {
  std::atomic<int32_t> holders{0};
  int32_t slot = 0;
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
  Extent* previous = nullptr;
  std::byte* data[kSpaces] = {nullptr, nullptr};
  ExtentPool* pool = nullptr;
};

class BlockPool {
 public:
  // `memory` holds `count` slabs of `stride` bytes.
  BlockPool(std::byte* memory, size_t stride, int32_t count)
      : free_(count), count_(count), slabs_(std::make_unique<StateBlock[]>(static_cast<size_t>(count))) {
    for (int32_t i = 0; i < count; ++i) {
      StateBlock& slab = slabs_[static_cast<size_t>(i)];
      slab.slot = i;
      slab.data = memory + static_cast<size_t>(i) * stride;
      slab.pool = this;
    }
  }
  // With one holder, the caller; null when the pool is empty.
  StateBlock* Acquire() {
    const int32_t slot = free_.Pop();
    if (slot < 0) return nullptr;
    StateBlock* block = &slabs_[static_cast<size_t>(slot)];
    block->holders.store(1, std::memory_order_relaxed);
    return block;
  }
  void Recycle(StateBlock* block) { free_.Push(block->slot); }
  int32_t used() const { return count_ - free_.free(); }
  int32_t count() const { return count_; }

 private:
  FreeList free_;
  int32_t count_;
  std::unique_ptr<StateBlock[]> slabs_;
};

class ExtentPool {
 public:
  ExtentPool(std::byte* const memory[kSpaces], const size_t stride[kSpaces], int32_t count)
      : free_(count), count_(count), slabs_(std::make_unique<Extent[]>(static_cast<size_t>(count))) {
    for (int32_t i = 0; i < count; ++i) {
      Extent& slab = slabs_[static_cast<size_t>(i)];
      slab.slot = i;
      for (int s = 0; s < kSpaces; ++s) slab.data[s] = memory[s] + static_cast<size_t>(i) * stride[s];
      slab.pool = this;
    }
  }
  // With one holder, the caller. Takes over the caller's hold on `previous` (which may be null) only on success; null when the pool is empty.
  Extent* Acquire(Extent* previous, int32_t index, int32_t frontier) {
    const int32_t slot = free_.Pop();
    if (slot < 0) return nullptr;
    Extent* extent = &slabs_[static_cast<size_t>(slot)];
    extent->previous = previous;
    extent->index = index;
    extent->frontier.store(frontier, std::memory_order_relaxed);
    extent->holders.store(1, std::memory_order_relaxed);
    return extent;
  }
  void Recycle(Extent* extent) { free_.Push(extent->slot); }
  int32_t used() const { return count_ - free_.free(); }
  int32_t count() const { return count_; }

 private:
  FreeList free_;
  int32_t count_;
  std::unique_ptr<Extent[]> slabs_;
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
