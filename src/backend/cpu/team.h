// Team: a persistent group of threads that runs an array of launches, each after the one before it.
//
// The calling thread is thread 0 and works too. Every launch deals its items to the threads (Split); a thread claims its own share unit by unit
// and then, one after another, what is left of the others'. There is no barrier: a launch is over when all its items are done, and whoever
// finishes the last one opens the next launch, or runs it at once if it is one unit. A thread that the system has put aside holds up the others
// only if it holds a unit. Waiting threads spin for some tens of microseconds, then sleep.
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

  // The open launch and its deal. There are two, by the parity of the launch's number: who comes late and reads one while it changes finds that
  // `state_` has changed before.
  struct Table {
    std::atomic<const Launch*> launch{nullptr};
    std::atomic<int64_t> items{0}, block{1}, unit{1};
  };
  // What is claimed of a thread's share: number of the launch (40 bits) | its units claimed so far (24). A number of an earlier launch says that
  // nothing is. A claim is a compare-and-swap of the whole word, so a thread that slept through a launch can claim nothing of it.
  struct alignas(64) Share {
    std::atomic<uint64_t> claimed{0};
  };

  void TakePart(uint64_t state, int thread);
  void OpenNext(uint64_t number, int thread);
  void Publish(uint64_t state);
  void AwaitChange(uint64_t seen, Bed& bed);
  void Work(int thread, int processor);

  const int threads_;
  // Number of the latest launch (63 bits) | whether it is open (1).
  alignas(64) std::atomic<uint64_t> state_{0};
  Table tables_[2];
  const Launch* end_ = nullptr;               // of the array; read and written by whoever opens a launch
  alignas(64) std::atomic<int64_t> done_{0};  // items of the open launch
  std::vector<Share> shares_;
  Bed workers_bed_;
  Bed caller_bed_;
  alignas(64) std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

// Processors that this process may use: its affinity, and the quota of its control group.
int AvailableProcessors();

}  // namespace reprise
