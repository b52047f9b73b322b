// Which of the known formats a model's chats have: by its template, which is looked at and never run, or by name.
#include "text/chat_forms.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "formats/printable.h"
#include "text/unicode.h"

namespace reprise {
namespace {

constexpr std::string_view kKnownFormats =
    "known are ChatML as written by SmolLM2, LFM2, Qwen2, Qwen2.5, Qwen3, Qwen3.5 and Jamba Reasoning, Llama 3's, Granite 4's, Gemma 3's "
    "and 4's, Phi 3's and 4's, Nemotron Nano 2's, Harmony, and Mistral's";

constexpr std::pair<std::string_view, ChatStyle> kStyles[] = {
    {"chatml", ChatStyle::kChatMl},   {"qwen3", ChatStyle::kQwen3},        {"qwen3.5", ChatStyle::kQwen35},
    {"llama3", ChatStyle::kLlama3},   {"granite", ChatStyle::kGranite},    {"nemotron-nano", ChatStyle::kNemotron},
    {"gemma", ChatStyle::kGemma},     {"gemma4", ChatStyle::kGemma4},      {"jamba-reasoning", ChatStyle::kJamba},
    {"phi3", ChatStyle::kPhi3},       {"phi4-mini", ChatStyle::kPhi4Mini}, {"phi4", ChatStyle::kPhi4},
    {"harmony", ChatStyle::kHarmony}, {"plain", ChatStyle::kPlain}};

constexpr std::string_view kLfm2s[] = {"lfm2", "lfm2.5"};

// By the names that llama.cpp gave them, the last by Mistral's own numbers.
struct NamedMistral {
  std::string_view name;
  MistralForm form;
  ToolForm tools;
};
constexpr NamedMistral kMistrals[] = {{"mistral-v1", {.spaces = true, .as_text = true}, ToolForm::kNone},
                                      {"mistral-v3", {.spaces = true, .in_last = true, .strips = true}, ToolForm::kMistralList},
                                      {"mistral-v3-tekken", {.in_last = true}, ToolForm::kMistralList},
                                      {"mistral-v7", {.spaces = true, .own_system = true}, ToolForm::kMistralList},
                                      {"mistral-v7-tekken", {.own_system = true}, ToolForm::kMistralList},
                                      {"mistral-v11", {.own_system = true}, ToolForm::kMistralIds},
                                      {"mistral-v13", {.own_system = true, .thoughts = true}, ToolForm::kMistral},
                                      {"mistral-v15", {.own_system = true, .thoughts = true, .settings = true}, ToolForm::kMistral}};

// What these models' own templates say when a chat starts without a system message. The longest that occurs in a template is its default.
constexpr std::string_view kDefaultSystems[] = {
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant",
};

constexpr std::string_view kGraniteSystem = "You are a helpful assistant. Please ensure responses are professional, accurate, and safe.";

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

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
  if (style == ChatStyle::kNemotron && !tokenizer.Find(kNemotronSystem)) return false;
  if (RoleIsPhis(style) && !(tokenizer.Find(kPhiSystem) && tokenizer.Find(kPhiUser))) return false;
  if (style == ChatStyle::kPhi3 && !tokenizer.adds_space()) return false;
  return tokenizer.Find(form.start).has_value() && tokenizer.Find(form.end).has_value();
}

bool HasMarkers(const Tokenizer& tokenizer, const MistralForm& form) {
  const auto has = [&](std::string_view one, std::string_view other) {
    return IsControlToken(tokenizer, one) && IsControlToken(tokenizer, other);
  };
  return IsControlToken(tokenizer, kEndOfSequence) && (form.as_text || has(kInst, kInstEnd)) &&
         (!form.own_system || has(kSystemPrompt, kSystemPromptEnd)) && (!form.thoughts || has(kMistralThinkStart, kMistralThinkEnd)) &&
         (!form.settings || has(kModelSettings, kModelSettingsEnd));
}

// The form if the vocabulary has its markers.
ToolForm MistralTools(const Tokenizer& tokenizer, ToolForm form, bool own_system) {
  std::vector<std::string_view> markers = {kAvailableTools, kAvailableToolsEnd, kMistralCall, kToolResults, kToolResultsEnd};
  if (form != ToolForm::kMistralList) markers.push_back(kMistralArguments);
  if (form == ToolForm::kMistralIds) markers.push_back(kMistralCallId);
  if (HasCallIds(form) && own_system) markers.push_back(kToolContent);
  const bool all = std::all_of(markers.begin(), markers.end(), [&](std::string_view name) { return IsControlToken(tokenizer, name); });
  return all ? form : ToolForm::kNone;
}

// The form that a template writes. The second version's calls have no ids.
ToolForm MistralFormOf(std::string_view chat_template) {
  if (Contains(chat_template, kMistralArguments))
    return Contains(chat_template, kMistralCallId) ? ToolForm::kMistralIds : ToolForm::kMistral;
  return Contains(chat_template, kMistralCall) && Contains(chat_template, "call_id") ? ToolForm::kMistralList : ToolForm::kNone;
}

// A call ends its answer by a marker of its own.
ToolForm HarmonyTools(const Tokenizer& tokenizer, bool written) {
  return written && IsControlToken(tokenizer, kCallEnd) ? ToolForm::kHarmony : ToolForm::kNone;
}

// Calls and results are markers' alone, and so is every text in them.
ToolForm GemmaTools(const Tokenizer& tokenizer, bool written) {
  for (const std::string_view name :
       {kGemmaToolStart, kGemmaToolEnd, kGemmaCallStart, kGemmaCallEnd, kGemmaResultStart, kGemmaResultEnd, kGemmaQuote}) {
    written = written && IsControlToken(tokenizer, name);
  }
  return written ? ToolForm::kGemma : ToolForm::kNone;
}

// The form of LFM2's templates, and whether it has markers for tools and results as well.
bool TakesPythonTools(const Tokenizer& tokenizer, std::string_view chat_template, ChatFormat& format) {
  if (!Contains(chat_template, kPythonTools) || !IsControlToken(tokenizer, kPythonCallStart) || !IsControlToken(tokenizer, kPythonCallEnd))
    return false;
  format.style = ChatStyle::kLfm2;
  format.tools = ToolForm::kPython;
  format.marks_tools = Contains(chat_template, kPythonToolsStart);
  for (const std::string_view marker : {kPythonToolsStart, kPythonToolsEnd, kPythonResultStart, kPythonResultEnd}) {
    format.marks_tools = format.marks_tools && IsControlToken(tokenizer, marker);
  }
  return true;
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
  form.settings = Contains(chat_template, kModelSettings);
  if (!HasMarkers(tokenizer, form)) {
    return Corrupt("the model's chat template writes " + std::string(kInst) + " and other markers that are not tokens of its vocabulary");
  }
  format.tools = MistralTools(tokenizer, MistralFormOf(chat_template), form.own_system);
  if (form.own_system) format.default_system = DefaultSystemOf(chat_template);
  return format;
}

}  // namespace

std::string_view ChatStyleName(ChatStyle style) {
  for (const auto& [name, known] : kStyles) {
    if (known == style) return name;
  }
  return style == ChatStyle::kMistral ? "mistral" : style == ChatStyle::kLfm2 ? "lfm2" : "unknown";
}

std::vector<std::string> ChatFormatNames() {
  std::vector<std::string> names;
  for (const auto& [name, style] : kStyles) names.emplace_back(name);
  names.insert(names.end(), std::begin(kLfm2s), std::end(kLfm2s));
  for (const NamedMistral& mistral : kMistrals) names.emplace_back(mistral.name);
  return names;
}

Result<ChatFormat> NamedChatFormat(const Tokenizer& tokenizer, std::string_view name) {
  const auto lacking = [&] {
    return Unsupported("the model's vocabulary lacks the markers of the chat format '" + std::string(name) + "'");
  };
  for (const auto& [known, style] : kStyles) {
    if (known != name) continue;
    if (!HasMarkers(tokenizer, style)) return lacking();
    const bool harmony = style == ChatStyle::kHarmony, gemma4 = style == ChatStyle::kGemma4;
    const ToolForm tools = harmony ? HarmonyTools(tokenizer, true) : gemma4 ? GemmaTools(tokenizer, true) : RecogniseToolForm(style, "");
    const bool thinks = harmony || style == ChatStyle::kJamba || style == ChatStyle::kNemotron;
    return ChatFormat{.style = style, .tools = tools, .thinks = thinks, .results_open_thoughts = gemma4};
  }
  for (const std::string_view known : kLfm2s) {
    if (known != name) continue;
    ChatFormat format;
    // Both are ChatML; what parts them is said by a template.
    const std::string says = std::string(kPythonTools).append(known == "lfm2" ? kPythonToolsStart : "");
    const bool has =
        HasMarkers(tokenizer, format.style) && TakesPythonTools(tokenizer, says, format) && format.marks_tools == (known == "lfm2");
    return has ? Result<ChatFormat>(std::move(format)) : lacking();
  }
  for (const auto& [known, form, tools] : kMistrals) {
    if (known != name) continue;
    if (!HasMarkers(tokenizer, form)) return lacking();
    return ChatFormat{.style = ChatStyle::kMistral, .tools = MistralTools(tokenizer, tools, form.own_system), .mistral = form};
  }
  std::string names;
  for (const std::string& known : ChatFormatNames()) names += (names.empty() ? "" : ", ") + known;
  return InvalidArgument("no chat format is called '" + Printable(name, 32) + "'; known are " + names);
}

namespace {

Result<ChatFormat> RecogniseTurns(const Tokenizer& tokenizer, std::string_view chat_template) {
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
    const bool calls = Contains(chat_template, kFunctions) && Contains(chat_template, kCallEnd);
    return ChatFormat{.style = ChatStyle::kHarmony, .tools = HarmonyTools(tokenizer, calls), .thinks = true};
  }
  if (Contains(chat_template, kGemmaStart) && Contains(chat_template, kGemmaEnd) && HasMarkers(tokenizer, ChatStyle::kGemma)) {
    return ChatFormat{.style = ChatStyle::kGemma, .tools = ToolForm::kNone};
  }
  if (Contains(chat_template, kGemma4Start) && Contains(chat_template, kGemma4End) && HasMarkers(tokenizer, ChatStyle::kGemma4)) {
    // As the template spells it, escape and all.
    const bool empty_thoughts = Contains(chat_template, "<|channel>thought\\n<channel|>");
    const bool tools = Contains(chat_template, "<|tool_call>call:") && Contains(chat_template, "declaration:");
    return ChatFormat{.style = ChatStyle::kGemma4,
                      .tools = GemmaTools(tokenizer, tools),
                      .empty_thoughts = empty_thoughts,
                      .results_open_thoughts = Contains(chat_template, "== 'tool_response' and enable_thinking")};
  }
  if (Contains(chat_template, kNemotronStart) && Contains(chat_template, kNemotronEnd) && HasMarkers(tokenizer, ChatStyle::kNemotron)) {
    return ChatFormat{.style = ChatStyle::kNemotron, .tools = RecogniseToolForm(ChatStyle::kNemotron, chat_template), .thinks = true};
  }
  if (Contains(chat_template, kPhiHeaderEnd) && HasMarkers(tokenizer, ChatStyle::kPhi4)) {
    return ChatFormat{.style = ChatStyle::kPhi4, .tools = ToolForm::kNone};
  }
  // Templates of Phi 3's write line breaks as well, which its vocabulary takes back.
  const bool names_role = Contains(chat_template, "'<|' + message['role'] + '|>'");
  if ((names_role || Contains(chat_template, kPhiUser)) && Contains(chat_template, kMessageEnd) &&
      HasMarkers(tokenizer, ChatStyle::kPhi3)) {
    return ChatFormat{.style = ChatStyle::kPhi3, .tools = ToolForm::kNone};
  }
  if (names_role && Contains(chat_template, kMessageEnd) && HasMarkers(tokenizer, ChatStyle::kPhi4Mini)) {
    return ChatFormat{.style = ChatStyle::kPhi4Mini, .tools = ToolForm::kNone};
  }
  // Llama 2's has its system message between markers of another kind.
  if (Contains(chat_template, kInst) && Contains(chat_template, kInstEnd) && !Contains(chat_template, "<<SYS>>")) {
    return RecogniseMistral(tokenizer, chat_template);
  }
  if (!Contains(chat_template, kTurnStart) || !Contains(chat_template, kTurnEnd)) {
    return Unsupported("the model's chat template is of an unknown format; " + std::string(kKnownFormats));
  }
  if (!has_markers) return Corrupt("the model's chat template writes <|im_start|> and <|im_end|>, which are not tokens of its vocabulary");
  ChatFormat format;
  if (TakesPythonTools(tokenizer, chat_template, format)) return format;
  format.tools = RecogniseToolForm(format.style, chat_template);
  if (Contains(chat_template, "thinking_prefix")) {
    format.style = ChatStyle::kJamba;
    format.thinks = true;
    return format;
  }
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

}  // namespace

Result<ChatFormat> RecogniseChatFormat(const Tokenizer& tokenizer, std::string_view chat_template) {
  REPRISE_ASSIGN_OR_RETURN(ChatFormat format, RecogniseTurns(tokenizer, chat_template));
  format.writes_bos = Contains(chat_template, "bos_token");
  return format;
}

std::optional<int32_t> FirstTokenOf(const Tokenizer& tokenizer, const ChatFormat& format) {
  const bool wanted = tokenizer.add_bos() || format.writes_bos;
  return wanted && tokenizer.bos() >= 0 ? std::optional<int32_t>(tokenizer.bos()) : std::nullopt;
}

bool HasChannels(const ChatFormat& format) { return format.style == ChatStyle::kHarmony; }

bool MayThink(const ChatFormat& format) {
  return format.style == ChatStyle::kQwen3 || OpensWithThoughts(format.style) || format.style == ChatStyle::kGemma4 ||
         HasChannels(format) || format.mistral.thoughts || (format.style == ChatStyle::kLfm2 && !format.marks_tools);
}

ThoughtMarkers ThoughtMarkersOf(const ChatFormat& format) {
  if (format.style == ChatStyle::kGemma4) return {kThoughtStart, kChannelEnd};
  if (format.style == ChatStyle::kMistral) return {kMistralThinkStart, kMistralThinkEnd};
  return {kThinkStart, kThinkEnd};
}

bool OpensFinal(const ChatFormat& format, const ChatOptions& options) {
  return HasChannels(format) && !Thinks(format, options.thinking) && (options.tools.empty() || options.must_answer);
}

bool OpensThoughts(const ChatFormat& format, const ChatOptions& options) {
  const bool opens = OpensWithThoughts(format.style) || (format.results_open_thoughts && options.after_result);
  return opens && Thinks(format, options.thinking);
}

bool Thinks(const ChatFormat& format, Thinking thinking) {
  return MayThink(format) && (thinking == Thinking::kByFormat ? format.thinks : thinking == Thinking::kOn);
}

Thinking ThinkingFor(const ChatFormat& format, std::span<const ChatMessage> messages, Thinking thinking) {
  if (format.style != ChatStyle::kNemotron || thinking != Thinking::kByFormat) return thinking;
  for (const ChatMessage& message : messages) {
    if (message.role != "user" && message.role != "system") continue;
    if (Contains(message.content, kThinkSwitch)) {
      thinking = Thinking::kOn;
    } else if (Contains(message.content, kNoThinkSwitch)) {
      thinking = Thinking::kOff;
    }
  }
  return thinking;
}

bool AnswersBeginWithSpace(const ChatFormat& format) { return format.mistral.spaces || format.style == ChatStyle::kPhi3; }

bool HasSystemTurn(const ChatFormat& format) {
  return format.style != ChatStyle::kGemma && (format.style != ChatStyle::kMistral || format.mistral.own_system);
}

bool OpensTurn(const ChatFormat& format, std::string_view marker) {
  if (RoleIsPhis(format.style)) return marker == kPhiSystem || marker == kPhiUser || marker == kPhiAssistant;
  if (format.style == ChatStyle::kGemma4 && marker == kGemmaResultStart) return true;
  if (format.style == ChatStyle::kNemotron && marker == kNemotronSystem) return true;
  if (format.style != ChatStyle::kMistral) return marker == FormOf(format.style).start;
  for (const std::string_view opener : {kSystemPrompt, kAvailableTools, kInst, kInstEnd, kToolResults, kToolResultsEnd}) {
    if (marker == opener) return true;
  }
  return false;
}

}  // namespace reprise
