#include "session/chat_format.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "session/engine.h"

namespace reprise {

Result<ChatFormat> ChatFormatOf(const Model& model) {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
  return ChatFormatOf(model.engine().file(), *tokenizer);
}

Result<ChatFormat> ChatFormatOf(const GgufFile& file, const Tokenizer& tokenizer) {
  REPRISE_ASSIGN_OR_RETURN(const std::string_view text, file.GetStringOr("tokenizer.chat_template", ""));
  auto format = RecogniseChatFormat(tokenizer, text);
  if (!format.ok()) {
    return Unsupported("this model cannot chat here: " + format.status().message() + "; plain text it continues as any model does");
  }
  return format;
}

Result<std::vector<int32_t>> EncodeChatFor(const Model& model, const ChatFormat& format, std::span<const ChatMessage> messages,
                                           const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
  REPRISE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, EncodeChat(*tokenizer, format, messages, options));
  if (const std::optional<int32_t> first = FirstTokenOf(*tokenizer, format)) tokens.insert(tokens.begin(), *first);
  return tokens;
}

std::vector<Boundary> BoundariesOf(const Model& model, const ChatFormat& format, std::span<const ChatMessage> messages,
                                   const ChatOptions& options, std::span<const int32_t> prompt) {
  ChatOptions without_opening = options;
  without_opening.add_generation_prompt = false;
  std::vector<Boundary> boundaries;
  const auto add = [&](size_t count, Keep keep) {
    const auto part = EncodeChatFor(model, format, messages.first(count), without_opening);
    if (!part.ok() || part->size() > prompt.size() || !std::equal(part->begin(), part->end(), prompt.begin())) return;
    boundaries.push_back({static_cast<int>(part->size()), keep});
  };
  if (!messages.empty() && messages[0].role == "system" && messages.size() > 1) add(1, Keep::kSystem);
  if (!messages.empty() && messages.back().role == "user") add(messages.size(), Keep::kTurn);
  return boundaries;
}

Result<std::vector<ChatMessage>> MessagesOf(const Model& model, const ChatFormat& format, std::span<const int32_t> tokens) {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
  if (format.style == ChatStyle::kPlain || format.mistral.as_text)
    return Unsupported("this model's chats have no markers by which their messages could be told apart");
  std::vector<ChatMessage> messages;
  for (ChatTurn& turn : TurnsOf(*tokenizer, format, tokens)) {
    if (turn.role != "system" && turn.role != "user" && turn.role != "assistant") return InvalidArgument("it does not hold a chat");
    messages.push_back({std::move(turn.role), std::move(turn.content)});
  }
  if (!messages.empty() && messages.back().role == "assistant" && messages.back().content.empty()) messages.pop_back();
  if (messages.empty()) return InvalidArgument("it does not hold a chat");
  return messages;
}

Result<ChatPrompt> ChatPrompt::Of(const Model& model, std::span<const Message> messages, const Options& options) {
  REPRISE_ASSIGN_OR_RETURN(const ChatFormat format, ChatFormatOf(model));
  std::vector<ChatMessage> chat;
  chat.reserve(messages.size());
  for (const Message& message : messages) chat.push_back({message.role, message.content});
  ChatOptions with;
  if (options.think) with.thinking = *options.think ? Thinking::kOn : Thinking::kOff;
  ChatPrompt prompt;
  REPRISE_ASSIGN_OR_RETURN(prompt.tokens, EncodeChatFor(model, format, chat, with));
  prompt.boundaries = BoundariesOf(model, format, chat, with, prompt.tokens);
  return prompt;
}

}  // namespace reprise
