// Job: one request for tokens, between the connection that asked and the engine thread that computes.
//
// The connection fills in what is wanted, submits, and reads events until the last. The engine thread never waits for it: events go into a
// bounded queue, and a reader so slow that the queue fills loses its request.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "reprise/sampling.h"
#include "reprise/session.h"
#include "reprise/status.h"
#include "reprise/store.h"

namespace reprise::serve {

using Clock = std::chrono::steady_clock;

struct Logprobs {
  float chosen = 0;
  std::vector<std::pair<int32_t, float>> top;  // most likely first
};

enum class FinishReason { kNone, kStop, kLength };

struct Event {
  enum class Kind {
    kProgress,  // done and total of the prompt
    kStarted,   // the prompt is read; `prefill` says how
    kToken,     // of `choice`; the last one of a choice has a finish, and perhaps no id
    kEnd,       // the last event: every choice has ended
    kError,     // the last event: `status` says why
  };
  Kind kind = Kind::kToken;
  int choice = 0;
  int32_t token = -1;
  std::string text;
  std::optional<Logprobs> logprobs;
  FinishReason finish = FinishReason::kNone;
  std::string stop;  // the stop string, where one ended the choice
  int done = 0, total = 0;
  PrefillReport prefill;
  Status status;

  static Event Of(Kind kind, int choice = 0) {
    Event event;
    event.kind = kind;
    event.choice = choice;
    return event;
  }
  static Event Error(Status why) {
    Event event = Of(Kind::kError);
    event.status = std::move(why);
    return event;
  }
};

// Filled by one thread, emptied by another.
class EventQueue {
 public:
  static constexpr size_t kMost = 8192;

  // False when it is full; then the event is not in it. Ends are always taken.
  bool Push(Event event);
  // The next event, or nullopt if there is none by `deadline`.
  std::optional<Event> Pop(Clock::time_point deadline);

 private:
  std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<Event> events_;
};

struct Timings {  // in milliseconds; written before kEnd, read after it
  double queued = 0, first_token = 0, prompt = 0, predicted = 0;
};

struct Job {
  // What is wanted. Not changed once submitted.
  std::string id;
  std::string name_space;
  std::vector<int32_t> prompt;              // the whole context, what a capsule holds included
  std::vector<Boundary> boundaries;         // in it, that are worth a capsule
  std::optional<uint64_t> resume;           // instead of a prompt: goes on from this capsule exactly, with the sampler it holds
  std::optional<SamplingOptions> sampling;  // none: what the capsule holds
  int choices = 1;
  int max_tokens = -1;    // of each choice; -1 for as many as the context takes, 0 to read the prompt and no more
  int top_logprobs = -1;  // -1: none are wanted
  bool progress = false;
  std::string session;  // a name that moves to the end of the first choice
  bool keep = false;    // the ends are kept as if asked for; else where the store thinks it worth while

  // From the one who asked.
  std::atomic<bool> cancelled{false};

  // From the engine.
  EventQueue events;
  Timings timings;
  PrefillReport prefill;
  int predicted = 0;               // tokens, of all choices
  std::vector<uint64_t> capsules;  // exactly where each choice ended, where that was to be kept; else 0

  // The engine's own.
  int open_choices = 0;
  bool disk_is_busy = false;  // it goes on from a capsule on disk, and waits for its turn to have it read

  Clock::time_point submitted;
  Clock::time_point admitted;  // when it left the queue
};

}  // namespace reprise::serve
