#include "cli/chat_template.h"

#include <algorithm>

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
    return Unsupported("this model cannot chat here: " + format.status().message() + "; 'reprise run' continues plain text with any model");
  }
  return format;
}

Result<std::vector<int32_t>> EncodeChatFor(const Model& model, const ChatFormat& format, std::span<const ChatMessage> messages,
                                           const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
  REPRISE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, EncodeChat(*tokenizer, format, messages, options));
  if (tokenizer->add_bos() && tokenizer->bos() >= 0) tokens.insert(tokens.begin(), tokenizer->bos());
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

Result<std::vector<ChatMessage>> MessagesOf(const Model& model, std::span<const int32_t> tokens) {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
  // Every format that is recognised opens and closes turns with these two, and content never becomes either.
  const auto start = tokenizer->Find("<|im_start|>");
  const auto end = tokenizer->Find("<|im_end|>");
  if (!start || !end) return Unsupported("this model has no chat markers");
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] != *start) continue;
    const size_t first = i + 1;
    while (i + 1 < tokens.size() && tokens[i + 1] != *end && tokens[i + 1] != *start) ++i;
    const std::string text = tokenizer->Decode(tokens.subspan(first, i + 1 - first));
    const size_t newline = text.find('\n');
    const std::string role = text.substr(0, newline);
    if (newline == std::string::npos || (role != "system" && role != "user" && role != "assistant")) {
      return InvalidArgument("it does not hold a chat");
    }
    messages.push_back({role, text.substr(newline + 1)});
  }
  if (!messages.empty() && messages.back().role == "assistant" && messages.back().content.empty()) messages.pop_back();
  if (messages.empty()) return InvalidArgument("it does not hold a chat");
  return messages;
}

}  // namespace reprise
