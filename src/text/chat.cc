#include "text/chat.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "formats/printable.h"
#include "text/chat_tools.h"
#include "text/unicode.h"

namespace reprise {
namespace {

constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";
constexpr std::string_view kLlamaStart = "<|start_header_id|>";
constexpr std::string_view kLlamaHeaderEnd = "<|end_header_id|>";
constexpr std::string_view kLlamaEnd = "<|eot_id|>";
constexpr std::string_view kGraniteStart = "<|start_of_role|>";
constexpr std::string_view kGraniteHeaderEnd = "<|end_of_role|>";
constexpr std::string_view kGraniteEnd = "<|end_of_text|>";

constexpr std::string_view kGemmaStart = "<start_of_turn>";
constexpr std::string_view kGemmaEnd = "<end_of_turn>";
constexpr std::string_view kGemmaAssistant = "model";
constexpr std::string_view kGemma4Start = "<|turn>";
constexpr std::string_view kGemma4End = "<turn|>";
constexpr std::string_view kGemma4Think = "<|think|>";  // what the system's turn begins with where answers are to think

constexpr std::string_view kInst = "[INST]";
constexpr std::string_view kInstEnd = "[/INST]";
constexpr std::string_view kSystemPrompt = "[SYSTEM_PROMPT]";
constexpr std::string_view kSystemPromptEnd = "[/SYSTEM_PROMPT]";
constexpr std::string_view kAvailableTools = "[AVAILABLE_TOOLS]";
constexpr std::string_view kAvailableToolsEnd = "[/AVAILABLE_TOOLS]";
constexpr std::string_view kToolResults = "[TOOL_RESULTS]";
constexpr std::string_view kToolResultsEnd = "[/TOOL_RESULTS]";
constexpr std::string_view kEndOfSequence = "</s>";

// The system's turn in Harmony is fixed; what a chat's own system message says comes after it, as the developer's. The template also tells the
// date, which would make every prompt another from one day to the next, and which the models were trained to do without as well.
constexpr std::string_view kHarmonySystem =
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.";
constexpr std::string_view kDeveloper = "developer";
constexpr std::string_view kDeveloperBefore = "# Instructions\n\n";
constexpr std::string_view kDeveloperAfter = "\n\n";

constexpr std::string_view kKnownFormats =
    "known are ChatML as written by SmolLM2, LFM2, Qwen2, Qwen2.5, Qwen3 and Qwen3.5, Llama 3's, Granite 4's, Gemma 3's and 4's, "
    "Harmony, and Mistral's";

constexpr std::pair<std::string_view, ChatStyle> kStyles[] = {
    {"chatml", ChatStyle::kChatMl}, {"qwen3", ChatStyle::kQwen3},     {"qwen3.5", ChatStyle::kQwen35},
    {"llama3", ChatStyle::kLlama3}, {"granite", ChatStyle::kGranite}, {"gemma", ChatStyle::kGemma},
    {"gemma4", ChatStyle::kGemma4}, {"harmony", ChatStyle::kHarmony}, {"plain", ChatStyle::kPlain}};

// By the names that llama.cpp gave them, the last by Mistral's own number.
constexpr std::pair<std::string_view, MistralForm> kMistrals[] = {
    {"mistral-v1", {.spaces = true, .as_text = true}}, {"mistral-v3", {.spaces = true, .in_last = true, .strips = true}},
    {"mistral-v3-tekken", {.in_last = true}},          {"mistral-v7", {.spaces = true, .own_system = true}},
    {"mistral-v7-tekken", {.own_system = true}},       {"mistral-v13", {.own_system = true, .thoughts = true}}};

// What is said around a turn: start, role, what ends the header, content, end and what follows it. Of a style that has markers.
struct TurnForm {
  std::string_view start;
  std::string_view header_end;    // a marker; empty: there is none
  std::string_view after_header;  // text
  std::string_view end;
  std::string_view after_end;  // text
};
// In Mistral's the role tells what a turn stands between, and nothing opens an answer.
constexpr TurnForm FormOf(ChatStyle style, std::string_view role = "assistant") {
  if (style == ChatStyle::kMistral) {
    if (role == "system") return {kSystemPrompt, "", "", kSystemPromptEnd, ""};
    if (role == "user") return {kInst, "", "", kInstEnd, ""};
    if (role == "tool") return {kToolResults, "", "", kToolResultsEnd, ""};
    return {"", "", "", kEndOfSequence, ""};
  }
  if (style == ChatStyle::kLlama3) return {kLlamaStart, kLlamaHeaderEnd, "\n\n", kLlamaEnd, ""};
  if (style == ChatStyle::kGemma) return {kGemmaStart, "", "\n", kGemmaEnd, "\n"};
  if (style == ChatStyle::kGemma4) return {kGemma4Start, "", "\n", kGemma4End, "\n"};
  if (style == ChatStyle::kHarmony) return {kMessageStart, kMessage, "", kMessageEnd, ""};
  if (style == ChatStyle::kGranite) return {kGraniteStart, kGraniteHeaderEnd, "", kGraniteEnd, "\n"};
  return {kTurnStart, "", "\n", kTurnEnd, "\n"};
}

// What these models' own templates say when a chat starts without a system message. The longest that occurs in a template is its default.
constexpr std::string_view kDefaultSystems[] = {
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant",
};

constexpr std::string_view kGraniteSystem = "You are a helpful assistant. Please ensure responses are professional, accurate, and safe.";

bool IsGemmas(ChatStyle style) { return style == ChatStyle::kGemma || style == ChatStyle::kGemma4; }

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

class Renderer {
 public:
  explicit Renderer(const ChatFormat& format) : style_(format.style), mistral_(format.mistral) {}
  void Marker(std::string_view name) { segments_.push_back({std::string(name), true}); }
  void Text(std::string_view text) {
    if (text.empty()) return;
    if (segments_.empty() || segments_.back().marker || cut_ == segments_.size()) segments_.push_back({});
    segments_.back().text += text;
  }
  // What follows is encoded on its own: a prompt ended here.
  void Cut() {
    cut_ = segments_.size();
    cuts_.push_back(cut_);
  }
  void Open(std::string_view role) {
    if (style_ == ChatStyle::kPlain) return;
    role_ = role;
    const TurnForm form = FormOf(style_, role);
    if (style_ == ChatStyle::kMistral) {
      if (form.start.empty()) return;
      if (mistral_.as_text) Text(" ");
      Marker(form.start);
      return Text(mistral_.spaces ? " " : "");
    }
    Marker(form.start);
    Text(IsGemmas(style_) && role == "assistant" ? kGemmaAssistant : role);
    if (style_ == ChatStyle::kHarmony && role == "assistant") return;  // the answer says on which channel it goes on
    if (!form.header_end.empty()) Marker(form.header_end);
    Text(form.after_header);
  }
  void OpenChannel(std::string_view channel) {
    Marker(kChannel);
    Text(channel);
    Marker(kMessage);
  }
  void Close() {
    if (style_ == ChatStyle::kPlain) return Text("\n\n");
    const TurnForm form = FormOf(style_, role_);
    if (mistral_.as_text && role_ == "user") Text(" ");
    Marker(form.end);
    Text(form.after_end);
  }
  // Mistral's, each as JSON.
  void Tools(std::span<const std::string> tools) {
    Marker(kAvailableTools);
    for (size_t i = 0; i < tools.size(); i++) Text((i == 0 ? "[" : ", ") + tools[i]);
    Text("]");
    Marker(kAvailableToolsEnd);
  }
  // Text of a template's, in which the markers of Mistral's thoughts are what they are.
  void TextWithThoughts(std::string_view text) {
    for (const std::string_view marker : {kMistralThinkStart, kMistralThinkEnd}) {
      const size_t at = mistral_.thoughts ? text.find(marker) : std::string_view::npos;
      if (at == std::string_view::npos) continue;
      Text(text.substr(0, at));
      Marker(marker);
      text.remove_prefix(at + marker.size());
    }
    Text(text);
  }
  void Thoughts(std::string_view thoughts) {
    if (style_ == ChatStyle::kMistral) {
      Marker(kMistralThinkStart);
      Text(thoughts);
      return Marker(kMistralThinkEnd);
    }
    if (style_ == ChatStyle::kGemma4) {
      Marker(kChannelStart);
      Text(kThoughtStart.substr(kChannelStart.size()));
      Text("\n");
      Text(thoughts);
      if (!thoughts.empty()) Text("\n");
      return Marker(kChannelEnd);
    }
    Marker(kThinkStart);
    Text("\n");
    Text(thoughts);
    Text("\n");
    Marker(kThinkEnd);
    Text("\n\n");
  }
  void BeginAnswer(size_t message, bool thoughts_shown, bool as_generated) {
    Cut();
    if (as_generated) answers_.push_back({segments_.size(), message, thoughts_shown});
  }

  struct Answered {
    size_t segment, message;  // the first segment that is the answer's own
    bool thoughts_shown;
  };
  struct Rendered {
    std::vector<ChatSegment> segments;
    std::vector<size_t> cuts;  // segments before which encoding starts anew, ascending
    std::vector<Answered> answers;
    size_t system_turns = 0;
  };
  Rendered Take(size_t system_turns) { return {std::move(segments_), std::move(cuts_), std::move(answers_), system_turns}; }

 private:
  ChatStyle style_;
  MistralForm mistral_;
  std::string role_;  // of the turn that is open
  std::vector<ChatSegment> segments_;
  std::vector<size_t> cuts_;
  std::vector<Answered> answers_;
  size_t cut_ = static_cast<size_t>(-1);
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

// An answer of Gemma 4's without its channels.
std::string WithoutChannels(std::string_view content) {
  std::string kept;
  for (size_t end; !content.empty(); content.remove_prefix(std::min(content.size(), end + kChannelEnd.size()))) {
    end = std::min(content.find(kChannelEnd), content.size());
    kept += content.substr(0, std::min(content.find(kChannelStart), end));
  }
  return kept;
}

// What an answer of Harmony's said in the end, where its other messages came along.
std::string_view FinalMessage(std::string_view content) {
  const std::string header = std::string(kChannel).append(kFinalChannel).append(kMessage);
  const size_t last = content.rfind(header);
  if (last == std::string_view::npos) return content;
  content.remove_prefix(last + header.size());
  return content.substr(0, content.find(kMessageEnd));
}

// An answer of Mistral's, taken apart at its markers.
Answer SplitMistralThoughts(std::string_view content) {
  const size_t end = content.find(kMistralThinkEnd);
  if (!content.starts_with(kMistralThinkStart) || end == std::string_view::npos) return {{}, content};
  return {content.substr(0, end).substr(kMistralThinkStart.size()), content.substr(end + kMistralThinkEnd.size())};
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

// How an answer begins that is yet to come.
void RenderOpening(const ChatFormat& format, bool thinks, Renderer& out) {
  if (HasChannels(format)) {
    if (!thinks) out.OpenChannel(kFinalChannel);
  } else if (format.style == ChatStyle::kQwen35 && thinks) {
    out.Marker(kThinkStart);
    out.Text("\n");
  } else if (format.style == ChatStyle::kQwen35 || (format.style == ChatStyle::kQwen3 && !thinks)) {
    out.Thoughts("");
  } else if (format.empty_thoughts && !thinks) {
    out.Thoughts("");
  }
}

bool Thinks(const ChatFormat& format, Thinking thinking) {
  return MayThink(format) && (thinking == Thinking::kByFormat ? format.thinks : thinking == Thinking::kOn);
}

void RenderAnswer(const ChatFormat& format, const ChatMessage& message, std::string_view content, bool after_question, bool last,
                  Renderer& out) {
  if (HasChannels(format)) {
    out.OpenChannel(kFinalChannel);
    out.Text(FinalMessage(content));
  } else if (format.style == ChatStyle::kGemma4) {
    if (after_question && !message.reasoning.empty()) out.Thoughts(message.reasoning);
    out.Text(StripSpace(WithoutChannels(content)));
  } else if (format.style == ChatStyle::kMistral) {
    Answer answer = {message.reasoning, content};
    if (MayThink(format) && message.reasoning.empty()) answer = SplitMistralThoughts(content);
    if (MayThink(format) && !answer.thoughts.empty()) out.Thoughts(answer.thoughts);
    content = format.mistral.strips ? StripSpace(answer.content) : answer.content;
    if (format.mistral.spaces) {
      // An answer is generated with the space that it begins with here; where it still has it there are not to be two.
      if (content.starts_with(' ')) content.remove_prefix(1);
      out.Text(" ");
    }
    out.Text(content);
  } else if (!MayThink(format)) {
    out.Text(content);
  } else {
    Answer answer = message.reasoning.empty() ? SplitThoughts(content) : Answer{message.reasoning, content};
    if (format.style == ChatStyle::kQwen35) answer.thoughts = StripSpace(answer.thoughts);
    // Qwen3 writes empty thoughts into the last message only, Qwen3.5 into every answer to the last question.
    if (after_question && (format.style == ChatStyle::kQwen35 || last || !answer.thoughts.empty())) {
      if (format.style == ChatStyle::kQwen3) answer.content = StripNewlines(answer.content, true, false);
      out.Thoughts(answer.thoughts);
      if (answer.thoughts.empty()) out.Cut();
    }
    content = answer.content;
    out.Text(content);
  }
  const ToolWriter writer{[&](std::string_view name) { out.Marker(name); }, [&](std::string_view text) { out.Text(text); }};
  WriteToolCalls(format.tools, !StripSpace(content).empty(), message.tool_calls, writer);
}

// Results of tools. Neighbours are one turn, which is the user's in ChatML.
void RenderToolResult(const ChatFormat& format, std::string_view content, bool first, bool last, Renderer& out) {
  if (format.style == ChatStyle::kMistral) {
    out.Open("tool");
    out.Text(content);
    return out.Close();
  }
  if (format.style == ChatStyle::kLlama3) {
    out.Open("ipython");
    out.Text(JsonQuoted(content));
    return out.Close();
  }
  if (first) out.Open("user");
  if (!first || format.style == ChatStyle::kGranite) out.Text("\n");
  out.Marker(kToolResponseStart);
  out.Text("\n");
  out.Text(content);
  out.Text("\n");
  out.Marker(kToolResponseEnd);
  if (last) out.Close();
}

bool Strips(ChatStyle style) { return style == ChatStyle::kQwen35 || style == ChatStyle::kLlama3 || IsGemmas(style); }

// Whether what the system says is a turn of its own; else it stands within a question.
bool HasSystemTurn(const ChatFormat& format) {
  return format.style != ChatStyle::kGemma && (format.style != ChatStyle::kMistral || format.mistral.own_system);
}

// The question in which a system without a turn speaks.
size_t SystemsQuestion(const ChatFormat& format, std::span<const ChatMessage> messages) {
  if (format.style == ChatStyle::kGemma) return 1;
  const auto asks = [](const ChatMessage& message) { return message.role == "user"; };
  if (!format.mistral.in_last) return static_cast<size_t>(std::find_if(messages.begin(), messages.end(), asks) - messages.begin());
  return static_cast<size_t>(std::find_if(messages.rbegin(), messages.rend(), asks).base() - messages.begin()) - 1;
}

Status CheckMessages(const ChatFormat& format, std::span<const ChatMessage> messages, const ChatOptions& options) {
  if (messages.empty()) return InvalidArgument("a chat needs at least one message");
  const auto of_tools = [](const ChatMessage& message) { return message.role == "tool" || !message.tool_calls.empty(); };
  if (format.tools == ToolForm::kNone && (!options.tools.empty() || std::any_of(messages.begin(), messages.end(), of_tools))) {
    const bool has_words = format.style == ChatStyle::kGemma4 || format.style == ChatStyle::kHarmony ||
                           (format.style == ChatStyle::kMistral && !format.mistral.as_text);
    return InvalidArgument(std::string("this chat format") +
                           (has_words ? "'s words for tools are not known here" : " has no words for tools") +
                           "; --chat-template chooses another");
  }
  if (messages.size() > 1 && messages[0].role == "system" && !HasSystemTurn(format) &&
      SystemsQuestion(format, messages) >= messages.size()) {
    return InvalidArgument("the system message stands within a question in this model's format, and there is none");
  }
  for (size_t i = 0; i < messages.size(); i++) {
    const std::string& role = messages[i].role;
    if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
      return InvalidArgument("message " + std::to_string(i) + " has the role '" + Printable(role, 32) +
                             "'; known are system, user, assistant and tool");
    }
    if (role == "system" && i != 0 && (format.style == ChatStyle::kQwen35 || !HasSystemTurn(format) || HasChannels(format))) {
      return InvalidArgument("message " + std::to_string(i) + " is a system message, which in this model's format only the first may be");
    }
  }
  return Ok();
}

bool IsControlToken(const Tokenizer& tokenizer, std::string_view name) {
  const std::optional<int32_t> token = tokenizer.Find(name);
  return token && tokenizer.IsControl(*token);
}

bool HasMarkers(const Tokenizer& tokenizer, ChatStyle style) {
  if (style == ChatStyle::kPlain) return true;
  const TurnForm form = FormOf(style);
  if (!form.header_end.empty() && !tokenizer.Find(form.header_end)) return false;
  if (style == ChatStyle::kHarmony) {
    const std::optional<int32_t> channel = tokenizer.Find(kChannel);
    if (!channel || tokenizer.IsHidden(*channel)) return false;
  }
  if (style == ChatStyle::kGemma4) {
    for (const std::string_view marker : {kGemma4Think, kChannelStart, kChannelEnd}) {
      if (!tokenizer.Find(marker)) return false;
    }
  }
  return tokenizer.Find(form.start).has_value() && tokenizer.Find(form.end).has_value();
}

bool HasMarkers(const Tokenizer& tokenizer, const MistralForm& form) {
  const auto has = [&](std::string_view one, std::string_view other) {
    return IsControlToken(tokenizer, one) && IsControlToken(tokenizer, other);
  };
  return IsControlToken(tokenizer, kEndOfSequence) && (form.as_text || has(kInst, kInstEnd)) &&
         (!form.own_system || has(kSystemPrompt, kSystemPromptEnd)) && (!form.thoughts || has(kMistralThinkStart, kMistralThinkEnd));
}

// Tools of the thirteenth version; in the others that have them calls and results go by names of nine letters and digits.
ToolForm MistralTools(const Tokenizer& tokenizer, bool written) {
  for (const std::string_view name :
       {kAvailableTools, kAvailableToolsEnd, kMistralCall, kMistralArguments, kToolResults, kToolResultsEnd}) {
    written = written && IsControlToken(tokenizer, name);
  }
  return written ? ToolForm::kMistral : ToolForm::kNone;
}

// What a template sets as its default system message, if that is one string; those that tell the date are not, and would make every prompt another
// from one day to the next.
std::string DefaultSystemOf(std::string_view chat_template) {
  constexpr std::string_view kSet = "set default_system_message = ";
  const size_t at = chat_template.find(kSet);
  if (at == std::string_view::npos) return "";
  std::string_view rest = chat_template.substr(at + kSet.size());
  const char quote = rest.empty() ? ' ' : rest[0];
  if (quote != '\'' && quote != '"') return "";
  std::string text;
  for (size_t i = 1; i < rest.size(); i++) {
    if (rest[i] == quote) return StripSpace(rest.substr(i + 1)).starts_with("%}") ? text : "";
    if (rest[i] != '\\' || i + 1 == rest.size()) {
      text += rest[i];
    } else if (const char escaped = rest[++i]; escaped == 'n') {
      text += '\n';
    } else if (escaped == '\'' || escaped == '"' || escaped == '\\') {
      text += escaped;
    } else {
      return "";
    }
  }
  return "";
}

// Which version a template writes.
Result<ChatFormat> RecogniseMistral(const Tokenizer& tokenizer, std::string_view chat_template) {
  const bool tokens = IsControlToken(tokenizer, kInst);
  const bool as_text = !tokens && Contains(chat_template, std::string(" ").append(kInstEnd));
  ChatFormat format{.style = ChatStyle::kMistral, .tools = ToolForm::kNone};
  MistralForm& form = format.mistral;
  form.as_text = as_text;
  // The first of these templates left out some of the spaces that the models were trained with, which the later ones write.
  form.spaces = as_text || Contains(chat_template, std::string(kInst).append(" "));
  form.own_system = Contains(chat_template, kSystemPrompt);
  form.in_last = !as_text && !form.own_system && !Contains(chat_template, "loop.first and system_message");
  form.strips = Contains(chat_template, "|trim");
  form.thoughts = Contains(chat_template, kMistralThinkStart) && IsControlToken(tokenizer, kMistralThinkStart);
  if (!HasMarkers(tokenizer, form)) {
    return Corrupt("the model's chat template writes " + std::string(kInst) + " and other markers that are not tokens of its vocabulary");
  }
  format.tools = MistralTools(tokenizer, Contains(chat_template, kMistralArguments) && !Contains(chat_template, "[CALL_ID]"));
  if (form.own_system) format.default_system = DefaultSystemOf(chat_template);
  return format;
}

}  // namespace

std::string_view ChatStyleName(ChatStyle style) {
  for (const auto& [name, known] : kStyles) {
    if (known == style) return name;
  }
  return style == ChatStyle::kMistral ? "mistral" : "unknown";
}

Result<ChatFormat> NamedChatFormat(const Tokenizer& tokenizer, std::string_view name) {
  std::string names;
  const auto known_as = [&](std::string_view known) {
    names += (names.empty() ? "" : ", ") + std::string(known);
    return known == name;
  };
  const auto lacking = [&] {
    return Unsupported("the model's vocabulary lacks the markers of the chat format '" + std::string(name) + "'");
  };
  for (const auto& [known, style] : kStyles) {
    if (!known_as(known)) continue;
    if (!HasMarkers(tokenizer, style)) return lacking();
    return ChatFormat{.style = style, .tools = RecogniseToolForm(style, ""), .thinks = style == ChatStyle::kHarmony};
  }
  for (const auto& [known, form] : kMistrals) {
    if (!known_as(known)) continue;
    if (!HasMarkers(tokenizer, form)) return lacking();
    return ChatFormat{.style = ChatStyle::kMistral, .tools = MistralTools(tokenizer, form.thoughts), .mistral = form};
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
    return ChatFormat{.style = ChatStyle::kLlama3, .tools = ToolForm::kLlama};
  }
  // Granite 3's markers are the same, its tools are not.
  if (Contains(chat_template, kGraniteStart) && Contains(chat_template, kToolCallStart) && HasMarkers(tokenizer, ChatStyle::kGranite)) {
    // Some versions of the template only define their default.
    const bool says = Contains(chat_template, kGraniteSystem) && Contains(chat_template, "+ ns.default_system_message");
    return ChatFormat{.style = ChatStyle::kGranite, .default_system = std::string(says ? kGraniteSystem : "")};
  }
  if (Contains(chat_template, kMessageStart) && Contains(chat_template, kChannel) && HasMarkers(tokenizer, ChatStyle::kHarmony)) {
    return ChatFormat{.style = ChatStyle::kHarmony, .tools = ToolForm::kNone, .thinks = true};
  }
  if (Contains(chat_template, kGemmaStart) && Contains(chat_template, kGemmaEnd) && HasMarkers(tokenizer, ChatStyle::kGemma)) {
    return ChatFormat{.style = ChatStyle::kGemma, .tools = ToolForm::kNone};
  }
  if (Contains(chat_template, kGemma4Start) && Contains(chat_template, kGemma4End) && HasMarkers(tokenizer, ChatStyle::kGemma4)) {
    // As the template spells it, escape and all.
    const bool empty_thoughts = Contains(chat_template, "<|channel>thought\\n<channel|>");
    return ChatFormat{.style = ChatStyle::kGemma4, .tools = ToolForm::kNone, .empty_thoughts = empty_thoughts};
  }
  // Llama 2's has its system message between markers of another kind; what Mistral's newest say of settings is not known.
  if (Contains(chat_template, kInst) && Contains(chat_template, kInstEnd) && !Contains(chat_template, "<<SYS>>") &&
      !Contains(chat_template, "[MODEL_SETTINGS]")) {
    return RecogniseMistral(tokenizer, chat_template);
  }
  if (!Contains(chat_template, kTurnStart) || !Contains(chat_template, kTurnEnd)) {
    return Unsupported("the model's chat template is of an unknown format; " + std::string(kKnownFormats));
  }
  if (!has_markers) return Corrupt("the model's chat template writes <|im_start|> and <|im_end|>, which are not tokens of its vocabulary");
  ChatFormat format;
  format.tools = RecogniseToolForm(format.style, chat_template);
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

bool HasChannels(const ChatFormat& format) { return format.style == ChatStyle::kHarmony; }

bool MayThink(const ChatFormat& format) {
  return format.style == ChatStyle::kQwen3 || format.style == ChatStyle::kQwen35 || format.style == ChatStyle::kGemma4 ||
         HasChannels(format) || format.mistral.thoughts;
}

ThoughtMarkers ThoughtMarkersOf(const ChatFormat& format) {
  if (format.style == ChatStyle::kGemma4) return {kThoughtStart, kChannelEnd};
  if (format.style == ChatStyle::kMistral) return {kMistralThinkStart, kMistralThinkEnd};
  return {kThinkStart, kThinkEnd};
}

bool OpensFinal(const ChatFormat& format, const ChatOptions& options) { return HasChannels(format) && !Thinks(format, options.thinking); }

bool OpensThoughts(const ChatFormat& format, const ChatOptions& options) {
  return format.style == ChatStyle::kQwen35 && Thinks(format, options.thinking);
}

namespace {

Result<Renderer::Rendered> Render(const ChatFormat& format, std::span<const ChatMessage> messages, const ChatOptions& options) {
  REPRISE_RETURN_IF_ERROR(CheckMessages(format, messages, options));
  Renderer out(format);
  const bool tools = !options.tools.empty() && !options.continues;
  const bool own_system = messages[0].role == "system";
  const auto stripped = [&](const std::string& text) { return Strips(format.style) ? StripSpace(text) : std::string_view(text); };
  const std::string_view system = own_system ? stripped(messages[0].content) : std::string_view(format.default_system);
  const bool in_question = own_system && !HasSystemTurn(format);
  const std::string before_question = in_question ? messages[0].content + "\n\n" : "";
  const size_t systems_question = in_question ? SystemsQuestion(format, messages) : 0;
  const bool asks_for_thoughts = format.style == ChatStyle::kGemma4 && Thinks(format, options.thinking) && !options.continues;
  const bool tools_apart = tools && format.tools == ToolForm::kMistral;
  const bool tools_in_system = tools && !tools_apart;
  const bool opens_with_system =
      !in_question && (own_system || tools_in_system || asks_for_thoughts || (!system.empty() && !options.continues));
  size_t system_turns = opens_with_system ? 1 : 0;
  if (HasChannels(format)) {
    if (!options.continues) {
      out.Open("system");
      out.Text(kHarmonySystem);
      out.Close();
      system_turns++;
    }
    if (own_system && !system.empty()) {
      out.Open(kDeveloper);
      out.Text(kDeveloperBefore);
      out.Text(system);
      out.Text(kDeveloperAfter);
      out.Close();
    } else if (own_system) {
      system_turns--;
    }
  } else if (opens_with_system) {
    out.Open("system");
    if (asks_for_thoughts) {
      out.Marker(kGemma4Think);
      out.Text("\n");
    }
    // Granite's default gives way to what is said of tools.
    const bool alone = tools_in_system && !own_system && format.style == ChatStyle::kGranite;
    const std::string said =
        tools_in_system ? SystemWithTools(format.style, format.tools, alone ? "" : system, options.tools) : std::string(system);
    // A default says where thoughts go.
    own_system ? out.Text(said) : out.TextWithThoughts(said);
    out.Close();
  }
  if (in_question && messages.size() == 1) {
    out.Open("user");
    out.Text(before_question);
  }
  if (tools_apart) {
    out.Tools(options.tools);
    system_turns++;
  }
  const size_t last_question = LastQuestion(format, messages);
  for (size_t i = own_system ? 1 : 0; i < messages.size(); i++) {
    const ChatMessage& message = messages[i];
    const std::string_view content = stripped(message.content);
    if (message.role == "tool") {
      RenderToolResult(format, content, i == 0 || messages[i - 1].role != "tool",
                       i + 1 == messages.size() || messages[i + 1].role != "tool", out);
      continue;
    }
    out.Open(message.role);
    if (in_question && i == systems_question) out.Text(before_question);
    if (message.role == "assistant") {
      const bool after_question = i > last_question;
      // A template that drops thoughts, or writes empty ones, writes another thing than what was generated.
      const bool thoughts_shown = (after_question && !HasChannels(format)) || !MayThink(format) || format.style == ChatStyle::kMistral;
      out.BeginAnswer(i, thoughts_shown, after_question || format.style != ChatStyle::kQwen35);
      RenderAnswer(format, message, content, after_question, i + 1 == messages.size(), out);
    } else {
      out.Text(content);
    }
    out.Close();
  }
  if (options.add_generation_prompt) {
    out.Open("assistant");
    out.Cut();
    RenderOpening(format, Thinks(format, options.thinking), out);
  }
  return out.Take(system_turns);
}

// In Mistral's formats the end of a question opens its answer, and so does that of what a tool gave back.
bool OpensTurn(const ChatFormat& format, std::string_view marker) {
  if (format.style != ChatStyle::kMistral) return marker == FormOf(format.style).start;
  for (const std::string_view opener : {kSystemPrompt, kAvailableTools, kInst, kInstEnd, kToolResults, kToolResultsEnd}) {
    if (marker == opener) return true;
  }
  return false;
}

// Segments to tokens, one by one. `continues`: they go on from plain text.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const ChatFormat& format, bool continues)
      : tokenizer_(tokenizer), format_(format), continues_(continues) {}

  void Flush() {
    if (text_.empty()) return;
    // Mistral's spaces are those that its vocabularies add by themselves.
    const bool has_space = !continues_ && format_.mistral.spaces && tokenizer_.adds_space() && text_[0] == ' ';
    Append(tokenizer_.Encode(std::string_view(text_).substr(has_space ? 1 : 0), {.continues = continues_}));
    text_.clear();
  }
  void Add(const ChatSegment& segment) {
    const std::optional<int32_t> token = segment.marker ? tokenizer_.Find(segment.text) : std::nullopt;
    if (!token) {
      text_ += segment.text;
      return;
    }
    Flush();
    if (OpensTurn(format_, segment.text)) chat_.turns.push_back(static_cast<int>(chat_.tokens.size()));
    chat_.tokens.push_back(*token);
    continues_ = false;
  }
  void Append(std::span<const int32_t> tokens) {
    chat_.tokens.insert(chat_.tokens.end(), tokens.begin(), tokens.end());
    continues_ = true;
  }
  EncodedChat& chat() { return chat_; }

 private:
  const Tokenizer& tokenizer_;
  const ChatFormat& format_;
  bool continues_;
  std::string text_;
  EncodedChat chat_;
};

// The openings that a rendered answer may have been generated after.
std::vector<std::vector<int32_t>> OpeningsOf(const Tokenizer& tokenizer, const ChatFormat& format) {
  if (format.style != ChatStyle::kQwen35 && !HasChannels(format)) return {{}};
  std::vector<std::vector<int32_t>> openings;
  for (const bool thinks : {true, false}) {
    Renderer out(format);
    RenderOpening(format, thinks, out);
    Encoder encoder(tokenizer, format, /*continues=*/true);
    for (const ChatSegment& segment : out.Take(0).segments) encoder.Add(segment);
    encoder.Flush();
    openings.push_back(std::move(encoder.chat().tokens));
  }
  return openings;
}

}  // namespace

Result<std::vector<ChatSegment>> RenderChat(const ChatFormat& format, std::span<const ChatMessage> messages, const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(Renderer::Rendered rendered, Render(format, messages, options));
  std::vector<ChatSegment> joined;
  for (ChatSegment& segment : rendered.segments) {
    if (!joined.empty() && !joined.back().marker && !segment.marker) {
      joined.back().text += segment.text;
    } else {
      joined.push_back(std::move(segment));
    }
  }
  return joined;
}

Result<EncodedChat> EncodeChatTurns(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                    const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const Renderer::Rendered rendered, Render(format, messages, options));
  const bool recalls = options.recall && format.style != ChatStyle::kPlain;
  const auto openings = recalls ? OpeningsOf(tokenizer, format) : std::vector<std::vector<int32_t>>();
  Encoder encoder(tokenizer, format, options.continues);
  auto cut = rendered.cuts.begin();
  auto answer = rendered.answers.begin();
  const std::vector<ChatSegment>& segments = rendered.segments;
  for (size_t i = 0; i < segments.size(); ++i) {
    for (; cut != rendered.cuts.end() && *cut <= i; ++cut) {
      if (*cut == i) encoder.Flush();
    }
    if (answer != rendered.answers.end() && answer->segment == i) {
      const Renderer::Answered at = *answer++;
      std::optional<std::vector<int32_t>> known;
      for (size_t o = 0; o < openings.size() && !known; ++o) {
        known = options.recall(encoder.chat().tokens, openings[o], messages[at.message], at.thoughts_shown);
        if (known) encoder.Append(openings[o]);
      }
      if (known) {
        encoder.Append(*known);
        while (i < segments.size() && !(segments[i].marker && segments[i].text == FormOf(format.style).end)) ++i;
      }
    }
    if (i < segments.size()) encoder.Add(segments[i]);
  }
  encoder.Flush();
  EncodedChat chat = std::move(encoder.chat());
  if (rendered.system_turns > 0 && chat.turns.size() > rendered.system_turns) chat.system_end = chat.turns[rendered.system_turns];
  return chat;
}

Result<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                        const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(EncodedChat chat, EncodeChatTurns(tokenizer, format, messages, options));
  return std::move(chat.tokens);
}

namespace {

// A turn of Harmony's as what was said to it or by it; false for what neither is: the fixed system's, and an answer's messages before the last.
bool ReadHarmonyTurn(std::string& role, std::string& content) {
  if (role == "system") return false;
  if (role == kDeveloper) {
    role = "system";
    std::string_view said = content;
    if (said.starts_with(kDeveloperBefore)) said.remove_prefix(kDeveloperBefore.size());
    if (said.ends_with(kDeveloperAfter)) said.remove_suffix(kDeveloperAfter.size());
    content = std::string(said);
  }
  const size_t channel = role.find(kChannel);
  if (channel == std::string::npos) return true;
  const bool final_one = std::string_view(role).substr(channel + kChannel.size()).starts_with(kFinalChannel);
  role.resize(channel);
  return final_one;
}

// A turn goes from what opens it to what opens the next one, or to the end of what was said.
std::vector<ChatTurn> MistralTurnsOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens) {
  std::vector<ChatTurn> turns;
  const auto name = [&](size_t i) { return tokenizer.IsControl(tokens[i]) ? tokenizer.TokenBytes(tokens[i]) : std::string_view(); };
  const auto ends = [&](size_t i) { return OpensTurn(format, name(i)) || name(i) == kSystemPromptEnd || name(i) == kEndOfSequence; };
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!OpensTurn(format, name(i))) continue;
    std::string_view role = "assistant";
    for (const std::string_view known : {"system", "user", "tool"}) {
      if (FormOf(format.style, known).start == name(i)) role = known;
    }
    size_t until = i + 1;
    while (until < tokens.size() && !ends(until)) ++until;
    // Tools are no turn, and between one result and the next there is no answer.
    const bool empty = until == i + 1 && until < tokens.size() && OpensTurn(format, name(until));
    if (name(i) == kAvailableTools || (role == "assistant" && empty)) continue;
    std::string content = tokenizer.Decode(tokens.subspan(i + 1, until - i - 1));
    if (format.mistral.spaces && !tokenizer.adds_space() && content.starts_with(' ')) content.erase(0, 1);
    turns.push_back({static_cast<int>(i), std::string(role), std::move(content)});
    i = until - 1;
  }
  return turns;
}

}  // namespace

std::vector<ChatTurn> TurnsOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens) {
  std::vector<ChatTurn> turns;
  if (format.style == ChatStyle::kMistral) return MistralTurnsOf(tokenizer, format, tokens);
  const TurnForm form = FormOf(format.style);
  const std::optional<int32_t> start = tokenizer.Find(form.start);
  const std::optional<int32_t> end = tokenizer.Find(form.end);
  if (format.style == ChatStyle::kPlain || !start || !end) return turns;
  const std::string header = std::string(form.header_end) + std::string(form.after_header);
  int answer = -1;  // where an answer of several messages began
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] != *start) continue;
    size_t until = i + 1;
    while (until < tokens.size() && tokens[until] != *end && tokens[until] != *start) ++until;
    const std::string text = tokenizer.Decode(tokens.subspan(i + 1, until - i - 1));
    const size_t split = text.find(header);
    std::string role = text.substr(0, split);
    if (IsGemmas(format.style) && role == kGemmaAssistant) role = "assistant";
    std::string content = split == std::string::npos ? "" : text.substr(split + header.size());
    const std::string asked = std::string(kGemma4Think) + "\n";
    if (format.style == ChatStyle::kGemma4 && role == "system" && content.starts_with(asked)) content.erase(0, asked.size());
    const auto position = static_cast<int>(i);
    i = until - 1;
    if (HasChannels(format) && !ReadHarmonyTurn(role, content)) {
      if (role == "assistant" && answer < 0) answer = position;
      continue;
    }
    turns.push_back({role == "assistant" && answer >= 0 ? answer : position, std::move(role), std::move(content)});
    answer = -1;
  }
  return turns;
}

std::vector<int32_t> EndOfTurn(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens) {
  std::vector<int32_t> end;
  if (format.style == ChatStyle::kPlain) return tokens.empty() ? end : tokenizer.Encode("\n\n", {.continues = true});
  const TurnForm form = FormOf(format.style);
  const std::optional<int32_t> marker = tokenizer.Find(form.end);
  if (tokens.empty() || !marker) return end;
  const std::vector<int32_t> after = tokenizer.Encode(form.after_end);
  const bool ended = tokens.size() > after.size() && tokens[tokens.size() - after.size() - 1] == *marker &&
                     std::equal(after.begin(), after.end(), tokens.end() - static_cast<ptrdiff_t>(after.size()));
  const bool system_ended = format.style == ChatStyle::kMistral && tokenizer.Find(kSystemPromptEnd) == tokens.back();
  if (ended || system_ended || (HasChannels(format) && tokenizer.IsEndOfGeneration(tokens.back()))) return end;
  if (tokens.back() != *marker) end.push_back(*marker);
  end.insert(end.end(), after.begin(), after.end());
  return end;
}

}  // namespace reprise
