// Service: what every route works with. One for the life of the server; safe from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serve/answer_memory.h"
#include "serve/api_error.h"
#include "serve/http_server.h"
#include "serve/job.h"
#include "serve/log.h"
#include "serve/metrics.h"
#include "serve/scheduler.h"
#include "session/engine.h"
#include "text/chat.h"

namespace reprise::serve {

// Who asks: what a key, or the lack of keys, says.
struct Caller {
  std::string name_space;
};

// The model and what serves it; there once it has loaded.
struct Engines {
  Engines(Model loaded, std::string name, const SchedulerOptions& options, Metrics& metrics)
      : model(std::move(loaded)), model_id(std::move(name)), scheduler(model, options, metrics) {}
  Model model;
  std::string model_id;
  std::optional<ChatFormat> chat;  // or why there is none
  Status no_chat;
  AnswerMemory answers;
  Scheduler scheduler;
  const Tokenizer& tokenizer() const { return **model.engine().tokenizer(); }
};

struct Service {
  explicit Service(Log& to) : log(to) {}
  Log& log;
  Metrics metrics;
  std::atomic<Engines*> engines{nullptr};  // null while loading
  std::atomic<bool> stopping{false};
  int64_t started = 0;                   // seconds since the epoch
  std::chrono::milliseconds ping{2000};  // between comments in a stream that has nothing to say
  int most_choices = 64;
  size_t capsule_bytes = size_t{4} << 30;  // of one that is imported
};

// "chatcmpl-" and the like, and 24 digits that nobody guesses.
std::string NewId(std::string_view prefix);

// A token, chosen or ended, of job `index`. False stops the job.
using EachEvent = std::function<bool(size_t index, const Event& event)>;

// Submits the jobs and reads their events to the last, one job after the other. A client that goes away stops them all. `quiet` is called when
// nothing has come for Service::ping; it returns false when the client is gone. The error is the first job's that failed.
struct Follow {
  Service& service;
  Exchange& exchange;
  std::vector<std::shared_ptr<Job>>& jobs;
  EachEvent each;
  std::function<bool()> quiet;
};
// Submitted all, or none and the error is set.
bool SubmitAll(Service& service, std::span<const std::shared_ptr<Job>> jobs, ApiError& error);
// False when it ended otherwise than by every job's kEnd: with the error set, or, for a client that is gone, without.
bool FollowAll(const Follow& follow, ApiError& error);

// Whether `tokens` and what is to follow fit; sets the error if not.
bool CheckPrompt(const Engines& engines, const Job& job, ApiError& error);

// What a name or an id of a client stands for: an entry of the caller's namespace.
std::optional<StoreEntry> FindCapsule(const Engines& engines, const Caller& caller, const std::string& given, ApiError& error);
// The tokens that whoever goes on from an entry goes on from, one chosen and not yet fed included.
std::optional<std::vector<int32_t>> TokensAt(const Engines& engines, const Caller& caller, const StoreEntry& entry, ApiError& error);
// Names of capsules and sessions: up to 128 letters, digits and . _ - :, no dot first, and not digits alone, which would be an id.
bool IsGoodName(std::string_view name);

// Routes. Each answers through the exchange.
using Route = void (*)(Service&, Engines&, Exchange&, const Caller&);
void ServeModels(Service&, Engines&, Exchange&, const Caller&);
void ServeChat(Service&, Engines&, Exchange&, const Caller&);
void ServeCompletions(Service&, Engines&, Exchange&, const Caller&);
void ServeMessages(Service&, Engines&, Exchange&, const Caller&);
void ServeCountTokens(Service&, Engines&, Exchange&, const Caller&);
void ServeProps(Service&, Engines&, Exchange&, const Caller&);
void ServeTokenize(Service&, Engines&, Exchange&, const Caller&);
void ServeDetokenize(Service&, Engines&, Exchange&, const Caller&);
void ServeSlots(Service&, Engines&, Exchange&, const Caller&);
void ServeCapsules(Service&, Engines&, Exchange&, const Caller&);  // everything below /v1/capsules and /v1/sessions

inline constexpr std::string_view kJsonType = "application/json";
inline constexpr std::string_view kEventStream = "text/event-stream";
void RespondError(Exchange& exchange, const ApiError& error);  // in the form of the route's clients

}  // namespace reprise::serve
