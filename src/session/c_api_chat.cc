// Chats for C: messages as prompts.
#include <string>
#include <vector>

#include "reprise/chat.h"
#include "session/c_api.h"

namespace reprise::c_api {
namespace {

Result<ChatPrompt> PromptOf(const Model& model, const reprise_message* messages, size_t count, int32_t think) {
  REPRISE_ASSIGN_OR_RETURN(const auto given, Array(messages, count, "messages"));
  if (think != REPRISE_THINK_AUTO && think != REPRISE_THINK_OFF && think != REPRISE_THINK_ON) {
    return InvalidArgument("think is " + std::to_string(think) + ", which is no reprise_think");
  }
  std::vector<Message> chat;
  chat.reserve(given.size());
  for (const reprise_message& message : given) {
    if (message.role == nullptr || message.content == nullptr) {
      return InvalidArgument("message " + std::to_string(chat.size()) + " has no role or no content");
    }
    chat.push_back({message.role, message.content});
  }
  ChatPrompt::Options options;
  if (think != REPRISE_THINK_AUTO) options.think = think == REPRISE_THINK_ON;
  return ChatPrompt::Of(model, chat, options);
}

}  // namespace
}  // namespace reprise::c_api

using namespace reprise::c_api;
using reprise::Ok;
using reprise::Status;

extern "C" {

reprise_status reprise_chat_tokens(const reprise_model* model, const reprise_message* messages, size_t message_count, int32_t think,
                                   int32_t* tokens, size_t capacity, size_t* count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(count);
    if (tokens == nullptr && capacity > 0) return Missing("tokens");
    REPRISE_ASSIGN_OR_RETURN(const auto prompt, PromptOf(model->model, messages, message_count, think));
    return CopyOut<int32_t>(prompt.tokens, tokens, capacity, count);
  });
}

reprise_status reprise_prefill_chat(reprise_session* session, const reprise_message* messages, size_t message_count, int32_t think,
                                    reprise_prefill_report* report) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_ASSIGN_OR_RETURN(const auto prompt, PromptOf(session->session.model(), messages, message_count, think));
    REPRISE_ASSIGN_OR_RETURN(const auto done, session->session.Prefill(prompt.tokens, {.boundaries = prompt.boundaries}));
    Report(done, report);
    return Ok();
  });
}

}  // extern "C"
