// How many times this program has done what the hot path must not do (promise 5), by all its threads since it started: asked for memory and taken
// locks, where the program counts them (base/count_hot_calls.h), and read and written files, by the kernel's own count.
#pragma once

#include <cstdint>
#include <optional>

namespace reprise {

bool CountsAllocations();  // whether this program counts
int64_t AllocationCount();

// Of mutexes and of locks for readers and writers, also those that are free. A wait for an atomic is no lock.
bool CountsLocks();
int64_t LockCount();

// Reads and writes of files, pipes and sockets, less those of this call; nothing where the kernel does not tell (/proc/self/io). For one thread at a
// time.
std::optional<int64_t> FileCallCount();

// While one lives, its thread is in a device's driver: what that allocates and locks is the driver's decision, and counted apart.
class InDriver {
 public:
  InDriver();
  ~InDriver();
  InDriver(const InDriver&) = delete;
  InDriver& operator=(const InDriver&) = delete;
};
int64_t DriverAllocationCount();

// For the functions that count alone. Safe from any thread, also before main.
void CountOneAllocation();
void CountOneLock();
void SetCountsAllocations();
void SetCountsLocks();

}  // namespace reprise
