#include "base/allocations.h"

#include <atomic>

namespace reprise {
namespace {

// Constant-initialised: the first allocations come before any constructor has run.
constinit std::atomic<int64_t> count{0};
constinit std::atomic<bool> counts{false};

}  // namespace

bool CountsAllocations() { return counts.load(std::memory_order_relaxed); }
int64_t AllocationCount() { return count.load(std::memory_order_relaxed); }
void CountOneAllocation() { count.fetch_add(1, std::memory_order_relaxed); }
void SetCountsAllocations() { counts.store(true, std::memory_order_relaxed); }

}  // namespace reprise
