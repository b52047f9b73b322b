#include "serve/generate_request.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <map>

namespace reprise::serve {
namespace {

constexpr double kLargest = 1e6;
constexpr size_t kMostMessages = 10'000;

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

// A content: a string, or a list of parts of text.
std::string ContentText(const Json* content, const std::string& where, ApiError& error) {
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    error.Set(400, fmt::format("'{}' must be a string or a list of parts", where), where, "invalid_value");
    return "";
  }
  std::string text;
  for (const Json& part : *content) {
    if (part.is_string()) {
      text += part.get<std::string>();
      continue;
    }
    if (!part.is_object()) {
      error.Set(400, fmt::format("'{}' holds a part that is not an object", where), where, "invalid_value");
      return "";
    }
    Fields fields(part, error, where + ".");
    const std::string type = fields.String("type").value_or("text");
    if (type != "text" && type != "input_text" && type != "output_text" && type != "thinking") {
      error.Set(400, fmt::format("'{}' holds a part of type '{}'; this model reads text alone", where, type), where, "unsupported_value");
      return "";
    }
    if (type != "thinking") text += fields.String("text").value_or("");
  }
  return text;
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

std::vector<ChatMessage> ReadMessages(Fields& fields) {
  std::vector<ChatMessage> messages;
  const Json* list = fields.Array("messages");
  if (list == nullptr || list->empty() || list->size() > kMostMessages) {
    fields.Fail("messages", "must be a list of at least one message");
    return messages;
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string where = fmt::format("messages[{}]", i);
    const Json& one = (*list)[i];
    if (!one.is_object()) {
      fields.error().Set(400, fmt::format("'{}' must be an object", where), where, "invalid_value");
      return messages;
    }
    Fields message(one, fields.error(), where + ".");
    const auto role = message.String("role", 64);
    if (!role) message.Fail("role", "is missing");
    std::string name = role.value_or("");
    if (name == "developer") name = "system";
    if (name != "system" && name != "user" && name != "assistant" && name != "tool") {
      message.Fail("role", "must be system, developer, user, assistant or tool");
    }
    std::string content = ContentText(message.Find("content"), where + ".content", fields.error());
    if (name == "tool") {
      name = "user";
      content.insert(0, "<tool_response>\n").append("\n</tool_response>");
    }
    if (!fields.error().ok()) return messages;
    messages.push_back({std::move(name), std::move(content)});
  }
  return messages;
}

std::vector<ChatMessage> ReadAnthropicMessages(Fields& fields) {
  std::vector<ChatMessage> messages;
  if (const Json* system = fields.Find("system")) {
    messages.push_back({"system", ContentText(system, "system", fields.error())});
  }
  const Json* list = fields.Array("messages");
  if (list == nullptr || list->empty() || list->size() > kMostMessages) {
    fields.Fail("messages", "must be a list of at least one message");
    return messages;
  }
  for (size_t i = 0; i < list->size() && fields.error().ok(); ++i) {
    const std::string where = fmt::format("messages[{}]", i);
    const Json& one = (*list)[i];
    if (!one.is_object()) {
      fields.error().Set(400, fmt::format("'{}' must be an object", where), where, "invalid_value");
      break;
    }
    Fields message(one, fields.error(), where + ".");
    const std::string role = message.String("role", 64).value_or("");
    if (role != "user" && role != "assistant" && role != "system") message.Fail("role", "must be user or assistant");
    std::string content = ContentText(message.Find("content"), where + ".content", fields.error());
    // Neighbours of one role are one turn.
    if (!messages.empty() && messages.back().role == role) {
      messages.back().content += "\n" + content;
    } else {
      messages.push_back({role, std::move(content)});
    }
  }
  return messages;
}

ChatOptions ReadChatOptions(Fields& fields) {
  ChatOptions options;
  if (const Json* given = fields.Object("chat_template_kwargs")) {
    Fields kwargs(*given, fields.error(), "chat_template_kwargs.");
    if (const auto thinking = kwargs.Bool("enable_thinking")) options.thinking = *thinking ? Thinking::kOn : Thinking::kOff;
  }
  if (const auto effort = fields.String("reasoning_effort", 32)) {
    if (*effort == "none" || *effort == "minimal") options.thinking = Thinking::kOff;
  }
  return options;
}

void FillChatPrompt(const Engines& engines, const std::vector<ChatMessage>& messages, const Continued& continued,
                    const ChatOptions& options, Job& job, ApiError& error) {
  if (!error.ok()) return;
  if (!engines.chat) {
    error.Set(400, engines.no_chat.message(), "messages", "no_chat_template");
    return;
  }
  const Tokenizer& tokenizer = engines.tokenizer();
  ChatOptions with = options;
  with.continues = continued.any();
  auto chat = EncodeChatTurns(tokenizer, *engines.chat, messages, with);
  if (!chat.ok()) {
    error.Set(400, chat.status().message(), "messages", "invalid_value");
    return;
  }
  job.prompt = continued.tokens;
  if (continued.any()) {
    const auto end = EndOfTurn(tokenizer, *engines.chat, job.prompt);
    job.prompt.insert(job.prompt.end(), end.begin(), end.end());
  } else if (tokenizer.add_bos() && tokenizer.bos() >= 0) {
    job.prompt.push_back(tokenizer.bos());
  }
  const int before = static_cast<int>(job.prompt.size());
  job.prompt.insert(job.prompt.end(), chat->tokens.begin(), chat->tokens.end());
  job.session = continued.session;
  // Where later prompts part from this one: after the system message, and before the answer.
  if (chat->turns.size() >= 2 && messages[0].role == "system") job.boundaries.push_back({before + chat->turns[1], Keep::kSystem});
  if (chat->turns.size() >= 2) job.boundaries.push_back({before + chat->turns.back(), Keep::kTurn});
}

}  // namespace reprise::serve
