#include "serve/service.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>

#include "serve/json_fields.h"

namespace reprise::serve {
namespace {

// How long a client that went away may go unnoticed.
constexpr std::chrono::milliseconds kLook{20};

}  // namespace

std::string NewId(std::string_view prefix) {
  unsigned char bytes[12];
  randombytes_buf(bytes, sizeof(bytes));
  std::string id(prefix);
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

void RespondError(Exchange& exchange, const ApiError& error) {
  const auto& segments = exchange.request().segments;
  const bool anthropic = segments.size() >= 2 && segments[0] == "v1" && segments[1] == "messages";
  if (error.status == 429 || error.status == 503) exchange.AddHeader("Retry-After", "1");
  exchange.Respond(error.status, kJsonType, anthropic ? AnthropicErrorBody(error) : OpenAiErrorBody(error));
}

bool SubmitAll(Service& service, std::span<const std::shared_ptr<Job>> jobs, ApiError& error) {
  Engines& engines = *service.engines.load();
  for (const auto& job : jobs) {
    if (const Status status = engines.scheduler.Submit(job); !status.ok()) {
      for (const auto& other : jobs) other->cancelled = true;
      error.Set(status);
      return false;
    }
  }
  return true;
}

bool FollowAll(const Follow& follow, ApiError& error) {
  const auto stop = [&] {
    for (const auto& job : follow.jobs) job->cancelled = true;
    return false;
  };
  Clock::time_point looked = Clock::now();
  Clock::time_point heard = looked;
  for (size_t index = 0; index < follow.jobs.size(); ++index) {
    Job& job = *follow.jobs[index];
    while (true) {
      const auto event = job.events.Pop(Clock::now() + kLook);
      const Clock::time_point now = Clock::now();
      if (now - looked >= kLook) {
        looked = now;
        if (follow.exchange.ClientGone()) return stop();
      }
      if (!event) {
        if (now - heard < follow.service.ping) continue;
        heard = now;
        if (follow.quiet && !follow.quiet()) return stop();
        continue;
      }
      if (event->kind == Event::Kind::kError) {
        error.Set(event->status);
        return stop();
      }
      if (event->kind == Event::Kind::kEnd) break;
      heard = now;
      if (!follow.each(index, *event)) return stop();
    }
    if (job.cancelled) {
      error.Set(503, "the client did not read what it asked for in time", "", "slow_reader");
      return stop();
    }
  }
  return true;
}

bool CheckPrompt(const Engines& engines, const Job& job, ApiError& error) {
  const ModelInfo& info = engines.model.info();
  if (job.resume) return true;
  if (job.prompt.empty()) {
    error.Set(400, "the prompt is empty, and leaves nothing to continue", "prompt", "invalid_value");
    return false;
  }
  for (const int32_t token : job.prompt) {
    if (token >= 0 && token < info.vocabulary) continue;
    error.Set(400, fmt::format("token {} is outside the vocabulary of {}", token, info.vocabulary), "prompt", "invalid_value");
    return false;
  }
  if (job.prompt.size() > static_cast<size_t>(info.context)) {
    error.Set(400, fmt::format("the prompt is {} tokens long, and the context of this server is {}", job.prompt.size(), info.context),
              "prompt", "context_length_exceeded");
    return false;
  }
  return true;
}

bool IsGoodName(std::string_view name) {
  if (name.empty() || name.size() > 128 || name.front() == '.') return false;
  const bool digits = std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
  // A name of digits alone would be an id.
  return !digits && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-' || c == ':';
  });
}

std::optional<StoreEntry> FindCapsule(const Engines& engines, const Caller& caller, const std::string& given, ApiError& error) {
  CapsuleStore* store = engines.model.store();
  if (store == nullptr) {
    error.Set(400, "this server keeps no capsules", "capsule", "no_store");
    return std::nullopt;
  }
  const bool digits = !given.empty() && given.size() < 20 && given.find_first_not_of("0123456789") == std::string::npos;
  if (!digits && !IsGoodName(given)) {
    error.Set(404, "there is no such capsule", "capsule", "not_found");
    return std::nullopt;
  }
  auto entry = digits ? store->Show(caller.name_space, std::stoull(given)) : store->Find(caller.name_space, given);
  if (!entry.ok()) {
    error.Set(404, "there is no capsule '" + given + "'", "capsule", "not_found");
    return std::nullopt;
  }
  return *std::move(entry);
}

std::optional<std::vector<int32_t>> TokensAt(const Engines& engines, const Caller& caller, const StoreEntry& entry, ApiError& error) {
  auto tokens = engines.model.store()->Tokens(caller.name_space, entry.id);
  if (!tokens.ok()) {
    error.Set(tokens.status());
    return std::nullopt;
  }
  const Json metadata = Json::parse(entry.metadata, nullptr, false);
  if (metadata.is_object() && metadata.contains("pending") && metadata["pending"].is_number_integer()) {
    const auto pending = metadata["pending"].get<int64_t>();
    if (pending >= 0 && pending < engines.model.info().vocabulary) tokens->push_back(static_cast<int32_t>(pending));
  }
  return *std::move(tokens);
}

}  // namespace reprise::serve
