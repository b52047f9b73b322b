// Team: a persistent group of threads that runs an array of launches, each after the one before it.
//
// The calling thread is thread 0 and works too. There is no barrier: a launch is over when all its units are done, and whoever finishes the
// last one opens the next launch. A thread that the system has put aside holds up the others only if it holds a unit, and a launch of one
// unit runs on without any other thread taking part. Waiting threads spin for some tens of microseconds, then sleep.
//
// Run may be called from one thread at a time. It allocates nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "backend/cpu/launch.h"

namespace reprise {

class Team {
 public:
  // `pin` ties thread i > 0 to the i-th processor that this process may use; the caller's own thread is left as it is.
  Team(int threads, bool pin);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int threads() const { return threads_; }
  void Run(std::span<const Launch> launches);

 private:
  // A place to sleep until `state_` changes. Whoever changes it looks at `asleep` afterwards; whoever goes to sleep counts itself first.
  struct Bed {
    alignas(64) std::atomic<uint32_t> call{0};
    std::atomic<int> asleep{0};
    void Wake();
  };

  bool RunUnit(int thread);
  void OpenNext(uint64_t sequence);
  void Publish(uint64_t state, bool wake_workers, bool wake_caller);
  void AwaitChange(uint64_t seen, Bed& bed);
  void Work(int thread, int processor);

  const int threads_;
  // sequence of the launch (40 bits) | its units (12) | the next unit to hand out (12). A claim is a compare-and-swap of the whole word, so
  // a thread that slept through a launch, or through the end of its plan, can claim nothing of it and reads nothing of it.
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  // Written by whoever opens a launch, read by whoever holds one of its units.
  const Launch* launch_ = nullptr;
  const Launch* end_ = nullptr;
  int64_t items_ = 0;
  Bed workers_bed_;
  Bed caller_bed_;
  alignas(64) std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

// Processors that this process may use: its affinity, and the quota of its control group.
int AvailableProcessors();

}  // namespace reprise
