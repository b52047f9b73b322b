#include "text/chat.h"

#include <optional>

#include "formats/printable.h"
#include "text/unicode.h"

namespace reprise {
namespace {

constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";
constexpr std::string_view kThinkStart = "<think>";
constexpr std::string_view kThinkEnd = "</think>";

constexpr std::string_view kKnownFormats = "known are ChatML as written by SmolLM2, Qwen2, Qwen2.5, Qwen3 and Qwen3.5";

// What these models' own templates say when a chat starts without a system message. The longest that occurs in a template is its default.
constexpr std::string_view kDefaultSystems[] = {
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant",
};

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

class Renderer {
 public:
  void Marker(std::string_view name) { segments_.push_back({std::string(name), true}); }
  void Text(std::string_view text) {
    if (text.empty()) return;
    if (segments_.empty() || segments_.back().marker) segments_.push_back({});
    segments_.back().text += text;
  }
  void Open(std::string_view role) {
    Marker(kTurnStart);
    Text(role);
    Text("\n");
  }
  void Close() {
    Marker(kTurnEnd);
    Text("\n");
  }
  void Thoughts(std::string_view thoughts) {
    Marker(kThinkStart);
    Text("\n");
    Text(thoughts);
    Text("\n");
    Marker(kThinkEnd);
    Text("\n\n");
  }
  std::vector<ChatSegment> Take() { return std::move(segments_); }

 private:
  std::vector<ChatSegment> segments_;
};

std::string_view StripNewlines(std::string_view text, bool front, bool back) {
  while (front && text.starts_with('\n')) text.remove_prefix(1);
  while (back && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

struct Answer {
  std::string_view thoughts, content;
};

// An assistant's message of old, taken apart at its </think>, as Qwen's templates do.
Answer SplitThoughts(std::string_view content) {
  const size_t first = content.find(kThinkEnd);
  if (first == std::string_view::npos) return {{}, content};
  std::string_view thoughts = StripNewlines(content.substr(0, first), false, true);
  if (const size_t start = thoughts.rfind(kThinkStart); start != std::string_view::npos) {
    thoughts.remove_prefix(start + kThinkStart.size());
  }
  return {StripNewlines(thoughts, true, false), StripNewlines(content.substr(content.rfind(kThinkEnd) + kThinkEnd.size()), true, false)};
}

// Where the last question stands; a result that a tool gave back does not count as one.
size_t LastQuestion(const ChatFormat& format, std::span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role != "user") continue;
    const std::string_view content =
        format.style == ChatStyle::kQwen35 ? StripSpace(messages[i].content) : std::string_view(messages[i].content);
    if (!content.starts_with("<tool_response>") || !content.ends_with("</tool_response>")) return i;
  }
  return messages.size() - 1;
}

void RenderAnswer(const ChatFormat& format, std::string_view content, bool after_question, bool last, Renderer& out) {
  if (format.style == ChatStyle::kChatMl) {
    out.Text(content);
    return;
  }
  Answer answer = SplitThoughts(content);
  if (format.style == ChatStyle::kQwen35) answer.thoughts = StripSpace(answer.thoughts);
  // Qwen3 writes empty thoughts into the last message only, Qwen3.5 into every answer to the last question.
  if (after_question && (format.style == ChatStyle::kQwen35 || last || !answer.thoughts.empty())) {
    if (format.style == ChatStyle::kQwen3) answer.content = StripNewlines(answer.content, true, false);
    out.Thoughts(answer.thoughts);
  }
  out.Text(answer.content);
}

Status CheckMessages(const ChatFormat& format, std::span<const ChatMessage> messages) {
  if (messages.empty()) return InvalidArgument("a chat needs at least one message");
  for (size_t i = 0; i < messages.size(); i++) {
    const std::string& role = messages[i].role;
    if (role != "system" && role != "user" && role != "assistant") {
      return InvalidArgument("message " + std::to_string(i) + " has the role '" + Printable(role, 32) +
                             "'; known are system, user and assistant");
    }
    if (role == "system" && i != 0 && format.style == ChatStyle::kQwen35) {
      return InvalidArgument("message " + std::to_string(i) + " is a system message, which in this model's format only the first may be");
    }
  }
  return Ok();
}

}  // namespace

Result<ChatFormat> RecogniseChatFormat(const Tokenizer& tokenizer, std::string_view chat_template) {
  const bool has_markers = tokenizer.Find(kTurnStart).has_value() && tokenizer.Find(kTurnEnd).has_value();
  if (chat_template.empty()) {
    if (!has_markers) {
      return Unsupported("the model has no chat template and no <|im_start|> and <|im_end|> tokens; " + std::string(kKnownFormats));
    }
    return ChatFormat{};
  }
  if (!Contains(chat_template, kTurnStart) || !Contains(chat_template, kTurnEnd)) {
    return Unsupported("the model's chat template is of an unknown format; " + std::string(kKnownFormats));
  }
  if (!has_markers) return Corrupt("the model's chat template writes <|im_start|> and <|im_end|>, which are not tokens of its vocabulary");
  ChatFormat format;
  if (Contains(chat_template, "reasoning_content")) {
    // Qwen3.5's template strips contents through a macro that Qwen3's does not have.
    format.style = Contains(chat_template, "render_content") ? ChatStyle::kQwen35 : ChatStyle::kQwen3;
    // Some sizes think unless told not to, the others only when told to; the template's own test says which.
    format.thinks = !Contains(chat_template, "enable_thinking is true");
    return format;
  }
  for (std::string_view system : kDefaultSystems) {
    if (Contains(chat_template, system)) {
      format.default_system = system;
      break;
    }
  }
  return format;
}

Result<std::vector<ChatSegment>> RenderChat(const ChatFormat& format, std::span<const ChatMessage> messages, ChatOptions options) {
  REPRISE_RETURN_IF_ERROR(CheckMessages(format, messages));
  Renderer out;
  if (messages[0].role != "system" && !format.default_system.empty()) {
    out.Open("system");
    out.Text(format.default_system);
    out.Close();
  }
  const size_t last_question = LastQuestion(format, messages);
  for (size_t i = 0; i < messages.size(); i++) {
    const ChatMessage& message = messages[i];
    const std::string_view content = format.style == ChatStyle::kQwen35 ? StripSpace(message.content) : std::string_view(message.content);
    out.Open(message.role);
    if (message.role == "assistant") {
      RenderAnswer(format, content, i > last_question, i + 1 == messages.size(), out);
    } else {
      out.Text(content);
    }
    out.Close();
  }
  if (options.add_generation_prompt) {
    out.Open("assistant");
    const bool thinks = options.thinking == Thinking::kByFormat ? format.thinks : options.thinking == Thinking::kOn;
    if (format.style == ChatStyle::kQwen35 && thinks) {
      out.Marker(kThinkStart);
      out.Text("\n");
    } else if (format.style != ChatStyle::kChatMl && !thinks) {
      out.Thoughts("");
    }
  }
  return out.Take();
}

Result<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                        ChatOptions options) {
  REPRISE_ASSIGN_OR_RETURN(const std::vector<ChatSegment> segments, RenderChat(format, messages, options));
  std::vector<int32_t> ids;
  std::string text;
  const auto flush = [&] {
    const std::vector<int32_t> more = tokenizer.Encode(text);
    ids.insert(ids.end(), more.begin(), more.end());
    text.clear();
  };
  for (const ChatSegment& segment : segments) {
    const std::optional<int32_t> token = segment.marker ? tokenizer.Find(segment.text) : std::nullopt;
    if (!token) {
      text += segment.text;
      continue;
    }
    flush();
    ids.push_back(*token);
  }
  flush();
  return ids;
}

}  // namespace reprise
