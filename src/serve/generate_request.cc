#include "serve/generate_request.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <map>

#include "text/chat_tools.h"

namespace reprise::serve {
namespace {

constexpr double kLargest = 1e6;

uint64_t RandomSeed() {
  uint64_t seed = 0;
  randombytes_buf(&seed, sizeof(seed));
  return seed >> 1;
}

void ReadBias(Fields& fields, SamplingOptions& sampling) {
  const Json* biases = fields.Object("logit_bias");
  if (biases == nullptr) return;
  std::map<int32_t, float> sorted;
  for (const auto& [key, value] : biases->items()) {
    const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    const double bias = value.is_number() ? value.get<double>() : 1e9;
    if (!digits || bias < -100 || bias > 100) return fields.Fail("logit_bias", "must map token ids to numbers from -100 to 100");
    sorted[std::stoi(key)] = static_cast<float>(bias);
  }
  if (sorted.size() > SamplingOptions::kMaxBiases) {
    return fields.Fail("logit_bias", fmt::format("may name at most {} tokens", SamplingOptions::kMaxBiases));
  }
  sampling.bias.assign(sorted.begin(), sorted.end());
}

}  // namespace

void ReadStops(Fields& fields, const char* name, SamplingOptions& sampling) {
  const Json* stop = fields.Find(name);
  if (stop == nullptr) return;
  if (stop->is_string()) {
    if (!stop->get_ref<const std::string&>().empty()) sampling.stop.push_back(stop->get<std::string>());
    return;
  }
  if (!stop->is_array() || !std::all_of(stop->begin(), stop->end(), [](const Json& one) { return one.is_string(); })) {
    return fields.Fail(name, "must be a string or a list of strings");
  }
  for (const Json& one : *stop) sampling.stop.push_back(one.get<std::string>());
}

SamplingOptions ReadSampling(Fields& fields, bool& any) {
  SamplingOptions sampling;
  any = false;
  const auto number = [&](const char* name, float& value, double least, double most) {
    if (const auto given = fields.Number(name, least, most)) {
      value = static_cast<float>(*given);
      any = true;
    }
  };
  const auto integer = [&](const char* name, int& value, int64_t least, int64_t most) {
    if (const auto given = fields.Integer(name, least, most)) {
      value = static_cast<int>(*given);
      any = true;
    }
  };
  sampling.temperature = 1;
  number("temperature", sampling.temperature, 0, 100);
  number("top_p", sampling.top_p, 0, 1);
  number("min_p", sampling.min_p, 0, 1);
  integer("top_k", sampling.top_k, -1, INT32_MAX);
  sampling.top_k = std::max(0, sampling.top_k);
  number("presence_penalty", sampling.presence_penalty, -kLargest, kLargest);
  number("frequency_penalty", sampling.frequency_penalty, -kLargest, kLargest);
  number("repetition_penalty", sampling.repetition_penalty, 1e-6, kLargest);
  number("repeat_penalty", sampling.repetition_penalty, 1e-6, kLargest);
  integer("repeat_last_n", sampling.penalty_window, -1, INT32_MAX);
  if (const auto seed = fields.Integer("seed", INT64_MIN, INT64_MAX); seed && *seed != -1) {
    sampling.seed = static_cast<uint64_t>(*seed);
    any = true;
  } else {
    sampling.seed = RandomSeed();
  }
  ReadBias(fields, sampling);
  ReadStops(fields, "stop", sampling);
  any = any || !sampling.bias.empty() || !sampling.stop.empty();
  if (const Status status = sampling.Check(); !status.ok()) fields.error().Set(400, status.message(), "stop", "invalid_value");
  return sampling;
}

Continued ReadContinued(const Engines& engines, const Caller& caller, Fields& fields) {
  Continued continued;
  ApiError& error = fields.error();
  std::string from;
  if (const Json* capsule = fields.Find("capsule")) {
    if (capsule->is_number_unsigned()) {
      from = std::to_string(capsule->get<uint64_t>());
    } else {
      from = fields.String("capsule", 128).value_or("");
    }
    if (from.empty()) fields.Fail("capsule", "must be the id or the name of a capsule");
  }
  if (const auto session = fields.String("session", 128)) {
    if (!IsGoodName(*session)) {
      fields.Fail("session", "must be a name of letters, digits, '.', '_', '-' and ':', not of digits alone");
    } else if (engines.model.store() == nullptr) {
      error.Set(400, "this server keeps no capsules, and so no sessions", "session", "no_store");
    } else {
      continued.session = *session;
      // A session that is not there yet begins here.
      if (from.empty() && engines.model.store()->Find(caller.name_space, *session).ok()) from = *session;
    }
  }
  if (from.empty() || !error.ok()) return continued;
  continued.entry = FindCapsule(engines, caller, from, error);
  if (!continued.entry) return continued;
  if (auto tokens = TokensAt(engines, caller, *continued.entry, error)) continued.tokens = *std::move(tokens);
  return continued;
}

ChatOptions ReadChatOptions(Fields& fields) {
  ChatOptions options;
  if (const Json* given = fields.Object("chat_template_kwargs")) {
    Fields kwargs(*given, fields.error(), "chat_template_kwargs.");
    if (const auto thinking = kwargs.Bool("enable_thinking")) options.thinking = *thinking ? Thinking::kOn : Thinking::kOff;
  }
  if (const auto effort = fields.String("reasoning_effort", 32)) {
    options.thinking = *effort == "none" || *effort == "minimal" ? Thinking::kOff : Thinking::kOn;
  }
  return options;
}

void FillChatPrompt(Engines& engines, const std::vector<ChatMessage>& messages, const Continued& continued, const ChatOptions& options,
                    Job& job, ApiError& error) {
  if (!error.ok()) return;
  if (!engines.chat) {
    error.Set(400, engines.no_chat.message(), "messages", "no_chat_template");
    return;
  }
  const Tokenizer& tokenizer = engines.tokenizer();
  job.prompt = continued.tokens;
  if (continued.any()) {
    const auto end = EndOfTurn(tokenizer, *engines.chat, job.prompt, messages.empty() ? "" : messages[0].role);
    job.prompt.insert(job.prompt.end(), end.begin(), end.end());
  } else if (const std::optional<int32_t> first = FirstTokenOf(tokenizer, *engines.chat)) {
    job.prompt.push_back(*first);
  }
  ChatOptions with = options;
  with.continues = continued.any();
  if (continued.any()) {
    with.called = LastCallOf(tokenizer, *engines.chat, continued.tokens);
    with.in_result = !continued.tokens.empty() && tokenizer.Find(kGemmaResultStart) == continued.tokens.back();
  }
  with.recall = engines.answers.Recall(job.name_space, job.prompt);
  auto chat = EncodeChatTurns(tokenizer, *engines.chat, messages, with);
  if (!chat.ok()) {
    error.Set(400, chat.status().message(), "messages", "invalid_value");
    return;
  }
  const int before = static_cast<int>(job.prompt.size());
  job.prompt.insert(job.prompt.end(), chat->tokens.begin(), chat->tokens.end());
  job.session = continued.session;
  // Where later prompts part from this one: after the system message with its tools, and before the answer.
  if (chat->system_end > 0) job.boundaries.push_back({before + chat->system_end, Keep::kSystem});
  if (chat->turns.size() >= 2) job.boundaries.push_back({before + chat->turns.back(), Keep::kTurn});
}

}  // namespace reprise::serve
