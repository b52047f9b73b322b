// The C interface (reprise/reprise.h): handles around the C++ one, arguments checked, and nothing thrown across.
#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/model.h"
#include "reprise/reprise.h"
#include "reprise/session.h"

struct reprise_model {
  reprise::Model model;
};
struct reprise_session {
  reprise::Session session;
};
struct reprise_capsule {
  reprise::Capsule capsule;
};

namespace {

using reprise::InvalidArgument;
using reprise::Ok;
using reprise::Result;
using reprise::Status;
using reprise::StatusCode;

static_assert(REPRISE_OK == static_cast<int>(StatusCode::kOk) &&
              REPRISE_INVALID_ARGUMENT == static_cast<int>(StatusCode::kInvalidArgument) &&
              REPRISE_NOT_FOUND == static_cast<int>(StatusCode::kNotFound) && REPRISE_CORRUPT == static_cast<int>(StatusCode::kCorrupt) &&
              REPRISE_MISMATCH == static_cast<int>(StatusCode::kMismatch) &&
              REPRISE_EXHAUSTED == static_cast<int>(StatusCode::kExhausted) &&
              REPRISE_UNSUPPORTED == static_cast<int>(StatusCode::kUnsupported) && REPRISE_IO == static_cast<int>(StatusCode::kIo) &&
              REPRISE_CANCELLED == static_cast<int>(StatusCode::kCancelled) && REPRISE_INTERNAL == static_cast<int>(StatusCode::kInternal));
static_assert(REPRISE_FINISH_NONE == static_cast<int>(reprise::Finish::kNone) &&
              REPRISE_FINISH_END_OF_TEXT == static_cast<int>(reprise::Finish::kEndOfText) &&
              REPRISE_FINISH_STOP_STRING == static_cast<int>(reprise::Finish::kStopString) &&
              REPRISE_FINISH_LENGTH == static_cast<int>(reprise::Finish::kLength) &&
              REPRISE_FINISH_CANCELLED == static_cast<int>(reprise::Finish::kCancelled));

constexpr size_t kMostLanes = 256;  // that Load allows

// Fixed, so that an error can be told when memory has run out.
thread_local char last_error[1024] = "";

void Remember(std::string_view message) noexcept {
  const size_t size = std::min(message.size(), sizeof(last_error) - 1);
  std::memcpy(last_error, message.data(), size);
  last_error[size] = '\0';
}

// Every fallible call goes through here: nothing that is thrown below gets past it.
template <class F>
reprise_status Guarded(F body) noexcept {
  try {
    const Status status = body();
    if (!status.ok()) Remember(status.message());
    return static_cast<reprise_status>(status.code());
  } catch (const std::bad_alloc&) {
    Remember("memory has run out");
    return REPRISE_EXHAUSTED;
  } catch (const std::exception& error) {
    Remember(error.what());
    return REPRISE_INTERNAL;
  } catch (...) {
    Remember("an unknown exception was thrown");
    return REPRISE_INTERNAL;
  }
}

Status Missing(std::string_view what) { return InvalidArgument(std::string(what) + " must not be NULL"); }

#define REPRISE_NEED(argument) \
  if ((argument) == nullptr) return Missing(#argument)

template <class T>
Result<std::span<const T>> Array(const T* data, size_t count, std::string_view what) {
  if (data == nullptr && count > 0) return Missing(what);
  if (count > INT_MAX) return InvalidArgument(std::string(what) + " cannot have " + std::to_string(count) + " elements");
  return std::span<const T>(data, count);
}

// Versioned structs. `Known` is the library's own; what the caller's lacks keeps its default, and what it has beyond must be zero.
template <class Known>
Result<Known> ReadStruct(const Known* given, Known defaults, std::string_view what) {
  size_t size = 0;
  std::memcpy(&size, given, sizeof(size));
  if (size < sizeof(Known)) {
    return InvalidArgument(std::string(what) + ": size is " + std::to_string(size) + ", less than the " + std::to_string(sizeof(Known)) +
                           " bytes of the first version; fill the struct with its _init function");
  }
  constexpr size_t kMostBytes = 4096;  // a size beyond is no struct's
  if (size > kMostBytes)
    return InvalidArgument(std::string(what) + ": size is " + std::to_string(size) + ", which is no size of this struct");
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (std::any_of(bytes + sizeof(Known), bytes + size, [](unsigned char byte) { return byte != 0; })) {
    return reprise::Unsupported(std::string(what) + " asks for something that this version of the library does not know");
  }
  std::memcpy(&defaults, given, sizeof(Known));
  return defaults;
}

template <class Known>
Status InitStruct(Known* out, size_t size, Known defaults, std::string_view what) {
  if (out == nullptr) return Missing(what);
  constexpr size_t kMostBytes = 4096;
  if (size < sizeof(Known) || size > kMostBytes) {
    return InvalidArgument(std::string(what) + ": " + std::to_string(size) + " is no size of this struct; pass its sizeof");
  }
  defaults.size = size;
  std::memset(static_cast<void*>(out), 0, size);
  std::memcpy(static_cast<void*>(out), &defaults, sizeof(Known));
  return Ok();
}

// `items` into the caller's buffer, as the comment on reprise_tokenize promises.
template <class T>
Status CopyOut(std::span<const T> items, T* buffer, size_t capacity, size_t* count) {
  *count = items.size();
  if (items.size() > capacity) {
    return reprise::Exhausted("the buffer has room for " + std::to_string(capacity) + " elements, and " + std::to_string(items.size()) +
                              " are needed");
  }
  if (!items.empty() && buffer != nullptr) std::memcpy(buffer, items.data(), items.size_bytes());
  return Ok();
}

reprise_model_options DefaultModelOptions() {
  const reprise::ModelOptions defaults;
  reprise_model_options options;
  std::memset(&options, 0, sizeof(options));  // padding too
  options.size = sizeof(options);
  options.threads = defaults.threads;
  options.context = defaults.context;
  options.lanes = defaults.lanes;
  options.capsules = defaults.capsules;
  options.chunk = defaults.chunk;
  options.state_budget = defaults.state_budget;
  return options;
}

Result<reprise::ModelOptions> FromC(const reprise_model_options& from) {
  reprise::ModelOptions options;
  switch (from.kv) {
    case REPRISE_KV_AUTO: options.kv = reprise::KeyValueType::kAuto; break;
    case REPRISE_KV_F16: options.kv = reprise::KeyValueType::kF16; break;
    case REPRISE_KV_F32: options.kv = reprise::KeyValueType::kF32; break;
    default: return InvalidArgument("options: kv is " + std::to_string(from.kv) + ", which is no reprise_kv");
  }
  options.threads = from.threads;
  options.context = from.context;
  options.lanes = from.lanes;
  options.capsules = from.capsules;
  options.chunk = from.chunk;
  options.pin_threads = from.pin_threads != 0;
  options.state_budget = static_cast<size_t>(from.state_budget);
  if (from.instruction_set != nullptr) options.instruction_set = from.instruction_set;
  if (from.progress != nullptr) {
    options.progress = [progress = from.progress, user = from.user](double fraction) { progress(fraction, user); };
  }
  return options;
}

reprise_sampling DefaultSampling() {
  const reprise::SamplingOptions defaults;
  reprise_sampling sampling;
  std::memset(&sampling, 0, sizeof(sampling));
  sampling.size = sizeof(sampling);
  sampling.temperature = defaults.temperature;
  sampling.top_k = defaults.top_k;
  sampling.top_p = defaults.top_p;
  sampling.min_p = defaults.min_p;
  sampling.repetition_penalty = defaults.repetition_penalty;
  sampling.presence_penalty = defaults.presence_penalty;
  sampling.frequency_penalty = defaults.frequency_penalty;
  sampling.penalty_window = defaults.penalty_window;
  sampling.seed = defaults.seed;
  return sampling;
}

Result<reprise::SamplingOptions> FromC(const reprise_sampling& from) {
  reprise::SamplingOptions options;
  options.temperature = from.temperature;
  options.top_k = from.top_k;
  options.top_p = from.top_p;
  options.min_p = from.min_p;
  options.repetition_penalty = from.repetition_penalty;
  options.presence_penalty = from.presence_penalty;
  options.frequency_penalty = from.frequency_penalty;
  options.penalty_window = from.penalty_window;
  options.seed = from.seed;
  if (from.stop_count > reprise::SamplingOptions::kMaxStops) {
    return InvalidArgument("at most " + std::to_string(reprise::SamplingOptions::kMaxStops) + " stop strings, not " +
                           std::to_string(from.stop_count));
  }
  if (from.stop == nullptr && from.stop_count > 0) return Missing("stop");
  for (size_t i = 0; i < from.stop_count; ++i) {
    if (from.stop[i] == nullptr) return InvalidArgument("stop string " + std::to_string(i) + " is NULL");
    options.stop.emplace_back(from.stop[i]);
  }
  return options;
}

reprise_token ToC(const reprise::Token& token) {
  return {token.id, static_cast<int32_t>(token.finish), token.text.data() != nullptr ? token.text.data() : "", token.text.size()};
}

void Report(const reprise::PrefillReport& from, reprise_prefill_report* to) {
  if (to != nullptr) *to = {from.reused, from.computed, from.seconds};
}

}  // namespace

extern "C" {

const char* reprise_status_name(reprise_status status) {
  if (status < REPRISE_OK || status > REPRISE_INTERNAL) return "unknown";
  return reprise::StatusCodeName(static_cast<StatusCode>(status)).data();  // a literal
}

const char* reprise_last_error(void) { return last_error; }
const char* reprise_version(void) { return "0.1.0"; }

reprise_status reprise_model_options_init(reprise_model_options* options, size_t size) {
  return Guarded([&] { return InitStruct(options, size, DefaultModelOptions(), "options"); });
}

reprise_status reprise_model_load(const char* path, const reprise_model_options* options, reprise_model** model) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(path);
    REPRISE_NEED(model);
    reprise_model_options given = DefaultModelOptions();
    if (options != nullptr) {
      REPRISE_ASSIGN_OR_RETURN(given, ReadStruct(options, given, "options"));
    }
    REPRISE_ASSIGN_OR_RETURN(const reprise::ModelOptions load, FromC(given));
    REPRISE_ASSIGN_OR_RETURN(reprise::Model loaded, reprise::Model::Load(path, load));
    *model = new reprise_model{std::move(loaded)};
    return Ok();
  });
}

void reprise_model_free(reprise_model* model) { delete model; }

reprise_status reprise_model_info_get(const reprise_model* model, reprise_model_info* info) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(info);
    if (info->size < sizeof(reprise_model_info)) {
      return InvalidArgument("info: size is " + std::to_string(info->size) + "; set it to sizeof(reprise_model_info)");
    }
    const reprise::ModelInfo& from = model->model.info();
    info->vocabulary = from.vocabulary;
    info->context = from.context;
    info->lanes = from.lanes;
    info->layers = from.layers;
    info->parameters = from.parameters;
    std::memcpy(info->fingerprint, from.fingerprint.bytes.data(), sizeof(info->fingerprint));
    info->name = from.name.c_str();
    info->architecture = from.architecture.c_str();
    info->backend = from.backend.c_str();
    return Ok();
  });
}

reprise_status reprise_tokenize(const reprise_model* model, const char* text, size_t text_bytes, int parse_special, int32_t* tokens,
                                size_t capacity, size_t* count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(count);
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, Array(text, text_bytes, "text"));
    if (tokens == nullptr && capacity > 0) return Missing("tokens");
    REPRISE_ASSIGN_OR_RETURN(const auto ids, model->model.Tokenize(std::string_view(bytes.data(), bytes.size()), parse_special != 0));
    return CopyOut<int32_t>(ids, tokens, capacity, count);
  });
}

reprise_status reprise_detokenize(const reprise_model* model, const int32_t* tokens, size_t token_count, char* text, size_t capacity,
                                  size_t* count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(count);
    REPRISE_ASSIGN_OR_RETURN(const auto ids, Array(tokens, token_count, "tokens"));
    if (text == nullptr && capacity > 0) return Missing("text");
    REPRISE_ASSIGN_OR_RETURN(const std::string bytes, model->model.Detokenize(ids));
    return CopyOut<char>(bytes, text, capacity, count);
  });
}

int reprise_is_end_of_generation(const reprise_model* model, int32_t token) {
  return model != nullptr && model->model.IsEndOfGeneration(token) ? 1 : 0;
}

reprise_status reprise_session_new(const reprise_model* model, reprise_session** session) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(session);
    REPRISE_ASSIGN_OR_RETURN(reprise::Session made, model->model.NewSession());
    *session = new reprise_session{std::move(made)};
    return Ok();
  });
}

void reprise_session_free(reprise_session* session) { delete session; }

int32_t reprise_position(const reprise_session* session) { return session != nullptr ? session->session.position() : -1; }
int32_t reprise_pending_token(const reprise_session* session) { return session != nullptr ? session->session.pending_token() : -1; }

reprise_status reprise_context(const reprise_session* session, int32_t* tokens, size_t capacity, size_t* count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(count);
    if (tokens == nullptr && capacity > 0) return Missing("tokens");
    return CopyOut<int32_t>(session->session.tokens(), tokens, capacity, count);
  });
}

reprise_status reprise_prefill(reprise_session* session, const int32_t* tokens, size_t count, reprise_prefill_report* report) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_ASSIGN_OR_RETURN(const auto prompt, Array(tokens, count, "tokens"));
    REPRISE_ASSIGN_OR_RETURN(const auto done, session->session.Prefill(prompt));
    Report(done, report);
    return Ok();
  });
}

reprise_status reprise_prefill_text(reprise_session* session, const char* text, size_t text_bytes, reprise_prefill_report* report) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, Array(text, text_bytes, "text"));
    REPRISE_ASSIGN_OR_RETURN(const auto done, session->session.Prefill(std::string_view(bytes.data(), bytes.size())));
    Report(done, report);
    return Ok();
  });
}

reprise_status reprise_append(reprise_session* session, const int32_t* tokens, size_t count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_ASSIGN_OR_RETURN(const auto more, Array(tokens, count, "tokens"));
    return session->session.Append(more);
  });
}

reprise_status reprise_sampling_init(reprise_sampling* sampling, size_t size) {
  return Guarded([&] { return InitStruct(sampling, size, DefaultSampling(), "sampling"); });
}

reprise_status reprise_set_sampling(reprise_session* session, const reprise_sampling* sampling) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(sampling);
    REPRISE_ASSIGN_OR_RETURN(const reprise_sampling given, ReadStruct(sampling, DefaultSampling(), "sampling"));
    REPRISE_ASSIGN_OR_RETURN(const reprise::SamplingOptions options, FromC(given));
    return session->session.SetSampling(options);
  });
}

reprise_status reprise_next(reprise_session* session, reprise_token* token) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(token);
    REPRISE_ASSIGN_OR_RETURN(const reprise::Token next, session->session.Next());
    *token = ToC(next);
    return Ok();
  });
}

reprise_status reprise_next_batch(reprise_session* const* sessions, size_t count, reprise_token* tokens) {
  return Guarded([&]() -> Status {
    if (count == 0) return Ok();
    REPRISE_NEED(sessions);
    REPRISE_NEED(tokens);
    if (count > kMostLanes)
      return InvalidArgument("a batch of " + std::to_string(count) + " sessions is too large; at most " + std::to_string(kMostLanes));
    reprise::Session* batch[kMostLanes];
    reprise::Token chosen[kMostLanes];
    for (size_t i = 0; i < count; ++i) {
      if (sessions[i] == nullptr) return InvalidArgument("session " + std::to_string(i) + " of the batch is NULL");
      for (size_t other = 0; other < i; ++other) {
        if (sessions[other] == sessions[i]) return InvalidArgument("a session was given twice to one batch");
      }
      batch[i] = &sessions[i]->session;
    }
    REPRISE_RETURN_IF_ERROR(reprise::Session::NextBatch(std::span(batch, count), std::span(chosen, count)));
    for (size_t i = 0; i < count; ++i) tokens[i] = ToC(chosen[i]);
    return Ok();
  });
}

reprise_status reprise_flush(reprise_session* session, const char** text, size_t* text_bytes) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(text);
    REPRISE_NEED(text_bytes);
    REPRISE_ASSIGN_OR_RETURN(const std::string_view rest, session->session.FlushText());
    *text = rest.data() != nullptr ? rest.data() : "";
    *text_bytes = rest.size();
    return Ok();
  });
}

reprise_status reprise_logits(reprise_session* session, const float** logits, size_t* count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(logits);
    REPRISE_NEED(count);
    REPRISE_ASSIGN_OR_RETURN(const auto values, session->session.Logits());
    *logits = values.data();
    *count = values.size();
    return Ok();
  });
}

reprise_status reprise_capsule_new(reprise_capsule** capsule) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(capsule);
    *capsule = new reprise_capsule{};
    return Ok();
  });
}

void reprise_capsule_free(reprise_capsule* capsule) { delete capsule; }

int64_t reprise_capsule_position(const reprise_capsule* capsule) {
  return capsule != nullptr && capsule->capsule.valid() ? capsule->capsule.position() : -1;
}

reprise_status reprise_snapshot(reprise_session* session, reprise_capsule* capsule) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(capsule);
    capsule->capsule = session->session.Snapshot();
    return Ok();
  });
}

reprise_status reprise_restore(reprise_session* session, const reprise_capsule* capsule) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(capsule);
    if (!capsule->capsule.valid()) return InvalidArgument("the capsule is empty: nothing was ever put into it");
    return session->session.Restore(capsule->capsule);
  });
}

reprise_status reprise_fork(const reprise_session* session, const reprise_capsule* capsule, size_t count, reprise_session** sessions) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(capsule);
    REPRISE_NEED(sessions);
    if (!capsule->capsule.valid()) return InvalidArgument("the capsule is empty: nothing was ever put into it");
    if (count < 1 || count > kMostLanes)
      return InvalidArgument("cannot fork " + std::to_string(count) + " ways; 1 to " + std::to_string(kMostLanes));
    REPRISE_ASSIGN_OR_RETURN(auto forks, session->session.Fork(capsule->capsule, static_cast<int>(count)));
    std::vector<std::unique_ptr<reprise_session>> handles;
    handles.reserve(count);
    for (reprise::Session& fork : forks) handles.emplace_back(new reprise_session{std::move(fork)});
    for (size_t i = 0; i < count; ++i) sessions[i] = handles[i].release();
    return Ok();
  });
}

reprise_status reprise_rollback(reprise_session* session, int32_t count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    return session->session.Rollback(count);
  });
}

reprise_status reprise_capsule_serialize(const reprise_session* session, const reprise_capsule* capsule, uint8_t** bytes, size_t* size) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(capsule);
    REPRISE_NEED(bytes);
    REPRISE_NEED(size);
    if (!capsule->capsule.valid()) return InvalidArgument("the capsule is empty: nothing was ever put into it");
    REPRISE_ASSIGN_OR_RETURN(const auto serialized, session->session.Export(capsule->capsule));
    auto* copy = static_cast<uint8_t*>(std::malloc(serialized.size()));
    if (copy == nullptr) return reprise::Exhausted("there is no memory for the capsule's " + std::to_string(serialized.size()) + " bytes");
    std::memcpy(copy, serialized.data(), serialized.size());
    *bytes = copy;
    *size = serialized.size();
    return Ok();
  });
}

void reprise_bytes_free(uint8_t* bytes) { std::free(bytes); }

reprise_status reprise_capsule_import(const reprise_model* model, const uint8_t* bytes, size_t size, reprise_capsule* capsule) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(capsule);
    if (bytes == nullptr && size > 0) return Missing("bytes");
    REPRISE_ASSIGN_OR_RETURN(reprise::Capsule imported, model->model.ImportCapsule(std::as_bytes(std::span(bytes, size))));
    capsule->capsule = std::move(imported);
    return Ok();
  });
}

}  // extern "C"
