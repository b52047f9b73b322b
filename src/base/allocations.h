// How many times this program has asked for memory, where the program counts it (base/count_allocations.h).
#pragma once

#include <cstdint>

namespace reprise {

bool CountsAllocations();   // whether this program counts
int64_t AllocationCount();  // by all threads since the program started

// For the counting allocator alone. Safe from any thread, also before main.
void CountOneAllocation();
void SetCountsAllocations();

}  // namespace reprise
