// Stream and Event: order between replays and copies; the only concurrency mechanism that crosses the backend boundary.
//
// Work given to one stream happens in the order it was given. A backend may run it before the call returns (the CPU backend does) or
// later (CUDA). A stream is used by one thread at a time; an Event may be waited for from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "exec/plan.h"
#include "reprise/status.h"

namespace reprise {

// A point in a stream's work. A value; copying it copies the reference to the point.
struct Event {
  const void* stream = nullptr;
  uint64_t sequence = 0;  // every piece of work of `stream` numbered up to this is included
};

class Stream {
 public:
  virtual ~Stream() = default;
  // Runs every launch of `plan` in order, against the StepTable it was captured with.
  virtual Status Replay(const Plan& plan) = 0;
  // Copies between memory of either space; the ranges must not overlap, and must stay valid and unchanged until an Event past the copy.
  virtual Status Copy(std::byte* to, const std::byte* from, size_t bytes) = 0;
  virtual Event Record() = 0;
  virtual Status Wait(const Event& event) = 0;  // later work of this stream starts after `event`
  virtual Status Synchronize() = 0;             // returns once everything given so far is done
};

}  // namespace reprise
