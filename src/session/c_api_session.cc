// Sessions for C: prompts in, tokens out.
#include <string>

#include "session/c_api.h"

namespace reprise::c_api {
namespace {

static_assert(REPRISE_FINISH_NONE == static_cast<int>(reprise::Finish::kNone) &&
              REPRISE_FINISH_END_OF_TEXT == static_cast<int>(reprise::Finish::kEndOfText) &&
              REPRISE_FINISH_STOP_STRING == static_cast<int>(reprise::Finish::kStopString) &&
              REPRISE_FINISH_LENGTH == static_cast<int>(reprise::Finish::kLength) &&
              REPRISE_FINISH_CANCELLED == static_cast<int>(reprise::Finish::kCancelled) &&
              REPRISE_FINISH_COMPLETE == static_cast<int>(reprise::Finish::kComplete));

reprise_sampling DefaultSampling() {
  const SamplingOptions defaults;
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

Result<SamplingOptions> FromC(const reprise_sampling& from) {
  SamplingOptions options;
  options.temperature = from.temperature;
  options.top_k = from.top_k;
  options.top_p = from.top_p;
  options.min_p = from.min_p;
  options.repetition_penalty = from.repetition_penalty;
  options.presence_penalty = from.presence_penalty;
  options.frequency_penalty = from.frequency_penalty;
  options.penalty_window = from.penalty_window;
  options.seed = from.seed;
  if (from.stop_count > SamplingOptions::kMaxStops) {
    return InvalidArgument("at most " + std::to_string(SamplingOptions::kMaxStops) + " stop strings, not " +
                           std::to_string(from.stop_count));
  }
  if (from.stop == nullptr && from.stop_count > 0) return Missing("stop");
  for (size_t i = 0; i < from.stop_count; ++i) {
    if (from.stop[i] == nullptr) return InvalidArgument("stop string " + std::to_string(i) + " is NULL");
    options.stop.emplace_back(from.stop[i]);
  }
  if (from.json_schema != nullptr) {
    REPRISE_ASSIGN_OR_RETURN(options.grammar, Grammar::JsonSchema(from.json_schema));
  }
  return options;
}

reprise_token ToC(const Token& token) {
  return {token.id, static_cast<int32_t>(token.finish), token.text.data() != nullptr ? token.text.data() : "", token.text.size()};
}

}  // namespace
}  // namespace reprise::c_api

using namespace reprise::c_api;
using reprise::InvalidArgument;
using reprise::Ok;
using reprise::Status;

extern "C" {

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

reprise_status reprise_end_reply(reprise_session* session) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    return session->session.EndReply();
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

reprise_status reprise_generate(reprise_session* session, int32_t max_tokens, int (*emit)(const reprise_token* token, void* user),
                                void* user, reprise_finish* finish) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(emit);
    const auto hand_over = [&](const reprise::Token& token) {
      const reprise_token given = ToC(token);
      return emit(&given, user) != 0;
    };
    REPRISE_ASSIGN_OR_RETURN(const reprise::Finish why, session->session.Generate(max_tokens, hand_over));
    if (finish != nullptr) *finish = static_cast<reprise_finish>(why);
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

}  // extern "C"
