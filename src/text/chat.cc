#include "text/chat.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "formats/printable.h"
#include "text/unicode.h"

namespace reprise {
namespace {

constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";
constexpr std::string_view kLlamaStart = "<|start_header_id|>";
constexpr std::string_view kLlamaHeaderEnd = "<|end_header_id|>";
constexpr std::string_view kLlamaEnd = "<|eot_id|>";
constexpr std::string_view kThinkStart = "<think>";
constexpr std::string_view kThinkEnd = "</think>";

constexpr std::string_view kKnownFormats = "known are ChatML as written by SmolLM2, Qwen2, Qwen2.5, Qwen3 and Qwen3.5, and Llama 3's";

constexpr std::pair<std::string_view, ChatStyle> kStyles[] = {{"chatml", ChatStyle::kChatMl},
                                                              {"qwen3", ChatStyle::kQwen3},
                                                              {"qwen3.5", ChatStyle::kQwen35},
                                                              {"llama3", ChatStyle::kLlama3},
                                                              {"plain", ChatStyle::kPlain}};

std::string_view TurnStart(ChatStyle style) { return style == ChatStyle::kLlama3 ? kLlamaStart : kTurnStart; }
std::string_view TurnEnd(ChatStyle style) { return style == ChatStyle::kLlama3 ? kLlamaEnd : kTurnEnd; }

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
  explicit Renderer(ChatStyle style) : style_(style) {}
  void Marker(std::string_view name) { segments_.push_back({std::string(name), true}); }
  void Text(std::string_view text) {
    if (text.empty()) return;
    if (segments_.empty() || segments_.back().marker) segments_.push_back({});
    segments_.back().text += text;
  }
  void Open(std::string_view role) {
    if (style_ == ChatStyle::kPlain) return;
    Marker(TurnStart(style_));
    Text(role);
    if (style_ == ChatStyle::kLlama3) {
      Marker(kLlamaHeaderEnd);
      Text("\n\n");
    } else {
      Text("\n");
    }
  }
  void Close() {
    if (style_ == ChatStyle::kPlain) return Text("\n\n");
    Marker(TurnEnd(style_));
    if (style_ != ChatStyle::kLlama3) Text("\n");
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
  ChatStyle style_;
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
  if (format.style != ChatStyle::kQwen3 && format.style != ChatStyle::kQwen35) {
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

bool Strips(ChatStyle style) { return style == ChatStyle::kQwen35 || style == ChatStyle::kLlama3; }

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

bool HasMarkers(const Tokenizer& tokenizer, ChatStyle style) {
  if (style == ChatStyle::kPlain) return true;
  if (style == ChatStyle::kLlama3 && !tokenizer.Find(kLlamaHeaderEnd)) return false;
  return tokenizer.Find(TurnStart(style)).has_value() && tokenizer.Find(TurnEnd(style)).has_value();
}

}  // namespace

std::string_view ChatStyleName(ChatStyle style) {
  for (const auto& [name, known] : kStyles) {
    if (known == style) return name;
  }
  return "unknown";
}

Result<ChatFormat> NamedChatFormat(const Tokenizer& tokenizer, std::string_view name) {
  std::string names;
  for (const auto& [known, style] : kStyles) {
    names += (names.empty() ? "" : ", ") + std::string(known);
    if (known != name) continue;
    if (!HasMarkers(tokenizer, style)) {
      return Unsupported("the model's vocabulary lacks the markers of the chat format '" + std::string(known) + "'");
    }
    return ChatFormat{.style = style};
  }
  return InvalidArgument("no chat format is called '" + Printable(name, 32) + "'; known are " + names);
}

Result<ChatFormat> RecogniseChatFormat(const Tokenizer& tokenizer, std::string_view chat_template) {
  const bool has_markers = HasMarkers(tokenizer, ChatStyle::kChatMl);
  if (chat_template.empty()) {
    if (!has_markers) {
      return Unsupported("the model has no chat template and no <|im_start|> and <|im_end|> tokens; " + std::string(kKnownFormats));
    }
    return ChatFormat{};
  }
  if (Contains(chat_template, kLlamaStart) && Contains(chat_template, kLlamaEnd) && HasMarkers(tokenizer, ChatStyle::kLlama3)) {
    return ChatFormat{.style = ChatStyle::kLlama3};
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
  Renderer out(format.style);
  if (messages[0].role != "system" && !format.default_system.empty() && !options.continues) {
    out.Open("system");
    out.Text(format.default_system);
    out.Close();
  }
  const size_t last_question = LastQuestion(format, messages);
  for (size_t i = 0; i < messages.size(); i++) {
    const ChatMessage& message = messages[i];
    const std::string_view content = Strips(format.style) ? StripSpace(message.content) : std::string_view(message.content);
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
    } else if (format.style == ChatStyle::kQwen3 && !thinks) {
      out.Thoughts("");
    } else if (format.style == ChatStyle::kQwen35) {
      out.Thoughts("");
    }
  }
  return out.Take();
}

Result<EncodedChat> EncodeChatTurns(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                    ChatOptions options) {
  REPRISE_ASSIGN_OR_RETURN(const std::vector<ChatSegment> segments, RenderChat(format, messages, options));
  EncodedChat chat;
  std::string text;
  const auto flush = [&] {
    const std::vector<int32_t> more = tokenizer.Encode(text);
    chat.tokens.insert(chat.tokens.end(), more.begin(), more.end());
    text.clear();
  };
  for (const ChatSegment& segment : segments) {
    const std::optional<int32_t> token = segment.marker ? tokenizer.Find(segment.text) : std::nullopt;
    if (!token) {
      text += segment.text;
      continue;
    }
    flush();
    if (segment.text == TurnStart(format.style)) chat.turns.push_back(static_cast<int>(chat.tokens.size()));
    chat.tokens.push_back(*token);
  }
  flush();
  return chat;
}

Result<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                        ChatOptions options) {
  REPRISE_ASSIGN_OR_RETURN(EncodedChat chat, EncodeChatTurns(tokenizer, format, messages, options));
  return std::move(chat.tokens);
}

std::vector<ChatTurn> TurnsOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens) {
  std::vector<ChatTurn> turns;
  const std::optional<int32_t> start = tokenizer.Find(TurnStart(format.style));
  const std::optional<int32_t> end = tokenizer.Find(TurnEnd(format.style));
  if (format.style == ChatStyle::kPlain || !start || !end) return turns;
  const std::string_view header = format.style == ChatStyle::kLlama3 ? "<|end_header_id|>\n\n" : "\n";
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] != *start) continue;
    size_t until = i + 1;
    while (until < tokens.size() && tokens[until] != *end && tokens[until] != *start) ++until;
    const std::string text = tokenizer.Decode(tokens.subspan(i + 1, until - i - 1));
    const size_t split = text.find(header);
    const std::string content = split == std::string::npos ? "" : text.substr(split + header.size());
    turns.push_back({static_cast<int>(i), text.substr(0, split), content});
    i = until - 1;
  }
  return turns;
}

std::vector<int32_t> EndOfTurn(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens) {
  std::vector<int32_t> end;
  if (format.style == ChatStyle::kPlain) return tokens.empty() ? end : tokenizer.Encode("\n\n");
  const std::optional<int32_t> marker = tokenizer.Find(TurnEnd(format.style));
  if (tokens.empty() || !marker) return end;
  const std::vector<int32_t> after = format.style == ChatStyle::kLlama3 ? std::vector<int32_t>() : tokenizer.Encode("\n");
  const bool ended = tokens.size() > after.size() && tokens[tokens.size() - after.size() - 1] == *marker &&
                     std::equal(after.begin(), after.end(), tokens.end() - static_cast<ptrdiff_t>(after.size()));
  if (ended) return end;
  if (tokens.back() != *marker) end.push_back(*marker);
  end.insert(end.end(), after.begin(), after.end());
  return end;
}

}  // namespace reprise
