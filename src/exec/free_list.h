// FreeList: a lock-free stack of the indices [0, count) of a pool. Any thread may push and pop; nothing allocates after construction.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace reprise {

class FreeList {
 public:
  explicit FreeList(int32_t count) : next_(std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(count))), free_(count) {
    for (int32_t i = 0; i < count; ++i) next_[static_cast<size_t>(i)].store(i + 1 < count ? i + 1 : -1, std::memory_order_relaxed);
    head_.store(Pack(count > 0 ? 0 : -1, 0), std::memory_order_release);
  }

  // An index that is now the caller's, or -1. The index freed last comes back first: its memory is the likeliest to be in a cache.
  int32_t Pop() {
    uint64_t head = head_.load(std::memory_order_acquire);
    while (Index(head) >= 0) {
      // `next` may be stale if another thread took this index meanwhile; the tag then makes the exchange fail.
      const int32_t next = next_[static_cast<size_t>(Index(head))].load(std::memory_order_relaxed);
      if (head_.compare_exchange_weak(head, Pack(next, Tag(head) + 1), std::memory_order_acquire, std::memory_order_acquire)) {
        free_.fetch_sub(1, std::memory_order_relaxed);
        return Index(head);
      }
    }
    return -1;
  }

  void Push(int32_t index) {
    uint64_t head = head_.load(std::memory_order_relaxed);
    do {
      next_[static_cast<size_t>(index)].store(Index(head), std::memory_order_relaxed);
    } while (!head_.compare_exchange_weak(head, Pack(index, Tag(head) + 1), std::memory_order_release, std::memory_order_relaxed));
    free_.fetch_add(1, std::memory_order_relaxed);
  }

  int32_t free() const { return free_.load(std::memory_order_relaxed); }  // exact when no thread is within Pop or Push

 private:
  static uint64_t Pack(int32_t index, uint32_t tag) { return uint64_t{tag} << 32 | static_cast<uint32_t>(index); }
  static int32_t Index(uint64_t head) { return static_cast<int32_t>(static_cast<uint32_t>(head)); }
  static uint32_t Tag(uint64_t head) { return static_cast<uint32_t>(head >> 32); }

  std::unique_ptr<std::atomic<int32_t>[]> next_;
  std::atomic<uint64_t> head_{0};  // index of the top, and a tag that changes with every exchange (the ABA problem)
  std::atomic<int32_t> free_;
};

}  // namespace reprise
