#include "text/chat_rendering.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "formats/printable.h"
#include "text/chat_answers.h"
#include "text/chat_forms.h"
#include "text/unicode.h"

namespace reprise {
namespace {

// The system's turn in Harmony is fixed; what a chat's own system message says comes after it, as the developer's. The template also tells the
// date, which would make every prompt another from one day to the next, and which the models were trained to do without as well.
constexpr std::string_view kHarmonySystem =
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.";
constexpr std::string_view kHarmonySystemOfTools = "\nCalls to these tools must go to the commentary channel: 'functions'.";

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

bool Strips(ChatStyle style) {
  return style == ChatStyle::kQwen35 || style == ChatStyle::kLlama3 || style == ChatStyle::kNemotron || IsGemmas(style);
}

// What Jamba's template says before a question that is to be thought about.
constexpr std::string_view kJambaThink =
    "Begin by thinking about the reasoning process in the mind within <think> </think> tags and then proceed to give your response.\n";

// Messages of Nemotron's without what they say of thoughts, as its template takes it out, wherever it stands.
std::vector<ChatMessage> WithoutSwitches(const ChatFormat& format, std::span<const ChatMessage> messages) {
  if (format.style != ChatStyle::kNemotron) return {};
  std::vector<ChatMessage> without(messages.begin(), messages.end());
  for (ChatMessage& message : without) {
    for (const std::string_view word : {kThinkSwitch, kNoThinkSwitch}) {
      if (message.role != "user" && message.role != "system") continue;
      std::string kept;
      size_t from = 0;
      for (size_t at; (at = message.content.find(word, from)) != std::string::npos; from = at + word.size()) {
        kept.append(message.content, from, at - from);
      }
      message.content = kept.append(message.content, from);
    }
  }
  return without;
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
                           format.style == ChatStyle::kPhi4Mini || (format.style == ChatStyle::kMistral && !format.mistral.as_text);
    return InvalidArgument(std::string("this chat format") +
                           (has_words ? "'s words for tools are not known here" : " has no words for tools") +
                           "; --chat-template chooses another");
  }
  if (messages.size() > 1 && messages[0].role == "system" && !HasSystemTurn(format) &&
      SystemsQuestion(format, messages) >= messages.size()) {
    return InvalidArgument("the system message stands within a question in this model's format, and there is none");
  }
  bool called = !options.called.empty();
  for (size_t i = 0; i < messages.size(); i++) {
    const std::string& role = messages[i].role;
    called = called || (role == "assistant" && !messages[i].tool_calls.empty());
    if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
      return InvalidArgument("message " + std::to_string(i) + " has the role '" + Printable(role, 32) +
                             "'; known are system, user, assistant and tool");
    }
    const bool by_name = HasChannels(format) || format.style == ChatStyle::kGemma4;
    if (role == "tool" && by_name && messages[i].tool.empty() && !called) {
      return InvalidArgument("message " + std::to_string(i) + " is the result of a tool, and nothing before it says of which");
    }
    if (role == "tool" && HasCallIds(format.tools) && messages[i].call.empty()) {
      return InvalidArgument("message " + std::to_string(i) + " is the result of a tool, and does not say of which call");
    }
    const bool in_turn = i == 0 ? options.continues : messages[i - 1].role == "tool" || !messages[i - 1].tool_calls.empty();
    if (role == "tool" && format.style == ChatStyle::kGemma4 && !in_turn) {
      return InvalidArgument("message " + std::to_string(i) + " is the result of a tool, and the one before it calls none");
    }
    const bool first_only = format.style == ChatStyle::kQwen35 || format.style == ChatStyle::kNemotron;
    if (role == "system" && i != 0 && (first_only || !HasSystemTurn(format) || HasChannels(format))) {
      return InvalidArgument("message " + std::to_string(i) + " is a system message, which in this model's format only the first may be");
    }
  }
  return Ok();
}

class ChatRendering {
 public:
  ChatRendering(const ChatFormat& format, std::span<const ChatMessage> messages, const ChatOptions& options)
      : format_(format),
        without_switches_(WithoutSwitches(format, messages)),
        messages_(without_switches_.empty() ? messages : std::span<const ChatMessage>(without_switches_)),
        options_(options),
        out_(format),
        own_system_(messages[0].role == "system"),
        tools_(!options.tools.empty() && !options.continues),
        one_turn_(format.style == ChatStyle::kGemma4),
        last_question_(LastQuestion(format, messages)),
        called_(options.called) {
    options_.after_result = messages.back().role == "tool";
    options_.thinking = ThinkingFor(format, messages, options.thinking);
    in_turn_ = one_turn_ && messages[0].role == "tool";
    // Harmony's thoughts stay after the last answer that said something.
    const auto says = [](const ChatMessage& message) { return message.role == "assistant" && message.tool_calls.empty(); };
    last_said_ = static_cast<size_t>(messages.rend() - std::find_if(messages.rbegin(), messages.rend(), says));
    if (own_system_ && !HasSystemTurn(format)) {
      before_question_ = messages[0].content + "\n\n";
      systems_question_ = SystemsQuestion(format, messages);
    }
  }

  Renderer::Rendered Take() {
    HasChannels(format_) ? RenderHarmonySystem() : RenderSystem();
    for (size_t i = own_system_ ? 1 : 0; i < messages_.size(); i++) {
      if (messages_[i].role == "tool") {
        RenderResult(i);
      } else if (messages_[i].role == "assistant") {
        RenderAnswerTurn(i);
      } else {
        RenderQuestion(i);
      }
    }
    if (options_.add_generation_prompt) {
      const bool unanswered = one_turn_ && !messages_.back().tool_calls.empty();
      if (!unanswered && !(one_turn_ && options_.after_result)) out_.Open("assistant");
      out_.Cut();
      if (!unanswered) RenderOpening(format_, options_, out_);
    }
    return out_.Take(system_turns_);
  }

 private:
  std::string_view RoleOf(size_t i) const { return i < messages_.size() ? std::string_view(messages_[i].role) : std::string_view(); }
  std::string_view ContentOf(size_t i) const {
    if (format_.style == ChatStyle::kNemotron && messages_[i].role == "tool") return messages_[i].content;
    const std::string_view content = messages_[i].content, stripped = StripSpace(content);
    if (format_.style == ChatStyle::kPhi3)
      return content.substr(stripped.empty() ? content.size() : static_cast<size_t>(stripped.data() - content.data()));
    return Strips(format_.style) ? stripped : content;
  }
  std::string_view SystemsContent() const { return own_system_ ? ContentOf(0) : std::string_view(format_.default_system); }

  void SayAs(std::string_view role, std::string_view said) {
    out_.Open(role);
    out_.Text(said);
    out_.Close();
    system_turns_++;
  }

  void RenderHarmonySystem() {
    if (!options_.continues) SayAs("system", std::string(kHarmonySystem).append(tools_ ? kHarmonySystemOfTools : ""));
    std::string said;
    if (own_system_ && !SystemsContent().empty()) said.append(kDeveloperBefore).append(SystemsContent()).append(kDeveloperAfter);
    if (tools_) said = SystemWithTools(format_.style, format_.tools, said, options_.tools);
    if (!said.empty()) SayAs(kDeveloper, said);
  }

  void RenderSystem() {
    const bool in_question = own_system_ && !HasSystemTurn(format_);
    const bool asks_for_thoughts = format_.style == ChatStyle::kGemma4 && Thinks(format_, options_.thinking) && !options_.continues;
    const bool says = own_system_ || (tools_ && format_.style != ChatStyle::kMistral) || asks_for_thoughts ||
                      ((!SystemsContent().empty() || format_.style == ChatStyle::kNemotron) && !options_.continues);
    if (says && !in_question) {
      out_.Open("system");
      if (asks_for_thoughts) {
        out_.Marker(kGemma4Think);
        out_.Text("\n");
      }
      // Granite's default gives way to what is said of tools.
      const bool alone = tools_ && !own_system_ && format_.style == ChatStyle::kGranite;
      const std::string_view content = alone ? std::string_view() : SystemsContent();
      const std::string said = tools_ ? SystemWithTools(format_.style, format_.tools, content, options_.tools) : std::string(content);
      // A default of Mistral's says where thoughts go.
      const bool markers = !own_system_ && format_.mistral.thoughts;
      markers ? out_.TextWithMarkers(said, {kMistralThinkStart, kMistralThinkEnd}) : out_.Text(said);
      if (tools_ && format_.tools == ToolForm::kGemma) RenderDeclarations();
      if (tools_ && format_.tools == ToolForm::kPython) RenderPythonTools(!said.empty());
      if (tools_ && format_.tools == ToolForm::kNemotron) RenderNemotronTools(!said.empty());
      out_.Close();
      system_turns_++;
    }
    if (in_question && messages_.size() == 1) {
      out_.Open("user");
      out_.Text(before_question_);
    }
  }

  // Mistral's versions before the thirteenth tell of tools before the last question, and what is told there is told again where a chat goes on; the
  // others do so before the first.
  void RenderMistralTools(size_t i) {
    const bool in_last = HasCallIds(format_.tools);
    const auto asks = [](const ChatMessage& message) { return message.role == "user"; };
    const auto first = messages_.begin(), last = messages_.end();
    const bool is_here = in_last ? std::none_of(first + static_cast<ptrdiff_t>(i) + 1, last, asks)
                                 : !options_.continues && std::none_of(first, first + static_cast<ptrdiff_t>(i), asks);
    if (!is_here) return;
    if (!options_.tools.empty()) {
      out_.Tools(options_.tools);
      if (!in_last && i == (own_system_ ? 1 : 0)) system_turns_++;
    }
    if (!format_.mistral.settings) return;
    out_.Marker(kModelSettings);
    out_.Text(Thinks(format_, options_.thinking) ? "{\"reasoning_effort\": \"high\"}" : "{\"reasoning_effort\": \"none\"}");
    out_.Marker(kModelSettingsEnd);
  }

  void RenderPythonTools(bool after_content) {
    if (after_content) out_.Text("\n");
    out_.Text(kPythonTools);
    if (format_.marks_tools) out_.Marker(kPythonToolsStart);
    for (size_t i = 0; i < options_.tools.size(); i++) out_.Text((i == 0 ? "[" : ", ") + options_.tools[i]);
    out_.Text("]");
    if (format_.marks_tools) out_.Marker(kPythonToolsEnd);
  }

  void RenderNemotronTools(bool after_content) {
    if (after_content) out_.Text("\n\n");
    out_.Text(kNemotronBefore);
    out_.Marker(kNemotronToolsStart);
    for (size_t i = 0; i < options_.tools.size(); i++) out_.Text((i == 0 ? "[" : ", ") + options_.tools[i]);
    out_.Text("]");
    out_.Marker(kNemotronToolsEnd);
    out_.TextWithMarkers(kNemotronAfter, {kNemotronCallStart, kNemotronCallEnd, kNemotronResultStart, kNemotronResultEnd});
  }

  void RenderDeclarations() {
    for (const std::string& tool : options_.tools) {
      out_.Marker(kGemmaToolStart);
      WriterTo(out_).Quoted(tool);
      out_.Marker(kGemmaToolEnd);
    }
  }

  void RenderQuestion(size_t i) {
    if (in_turn_) out_.Close();
    in_turn_ = false;
    if (format_.style == ChatStyle::kMistral && messages_[i].role == "user") RenderMistralTools(i);
    out_.Open(messages_[i].role);
    if (i == systems_question_) out_.Text(before_question_);
    if (IsToBeThoughtAbout(i)) out_.Text(kJambaThink);
    out_.Text(ContentOf(i));
    out_.Close();
  }

  // A question of Jamba's: the last one where thoughts are wanted, others where the answer has some.
  bool IsToBeThoughtAbout(size_t i) const {
    const std::string& content = messages_[i].content;
    if (format_.style != ChatStyle::kJamba || messages_[i].role != "user" || content.find(kThinkStart) != std::string::npos) return false;
    if (i + 1 == messages_.size()) return Thinks(format_, options_.thinking);
    const ChatMessage& next = messages_[i + 1];
    if (next.role != "assistant") return false;
    return !next.reasoning.empty() || next.content.starts_with(kThinkStart) || next.content.find(kThinkEnd) != std::string::npos;
  }

  void RenderResult(size_t i) {
    const std::string_view tool = messages_[i].tool.empty() ? called_ : std::string_view(messages_[i].tool);
    if (one_turn_) return RenderGemmaResult(tool, messages_[i].content, i == 0 && options_.in_result, out_);
    RenderToolResult(format_, messages_[i], tool, ContentOf(i), i == 0 || messages_[i - 1].role != "tool", RoleOf(i + 1) != "tool", out_);
  }

  void RenderAnswerTurn(size_t i) {
    const ChatMessage& message = messages_[i];
    const bool after_question = i > last_question_, calls = !message.tool_calls.empty();
    // A template that drops thoughts, or writes empty ones, writes another thing than what was generated.
    const bool thoughts_shown =
        HasChannels(format_) ? calls && i >= last_said_ : after_question || !MayThink(format_) || format_.style == ChatStyle::kMistral;
    if (!in_turn_) out_.Open("assistant");
    // What an answer opened with is not written before the last question, and in Nemotron's nowhere.
    const bool as_generated = format_.style != ChatStyle::kNemotron && (after_question || !OpensWithThoughts(format_.style));
    out_.BeginAnswer(i, thoughts_shown, as_generated);
    RenderAnswer(format_, message, ContentOf(i), after_question, thoughts_shown, i + 1 == messages_.size(), out_);
    if (calls) called_ = message.tool_calls.back().name;
    in_turn_ = one_turn_ && (RoleOf(i + 1) == "assistant" || RoleOf(i + 1) == "tool");
    if (!one_turn_ || !(calls || in_turn_)) return out_.Close(format_.tools == ToolForm::kHarmony && calls ? kCallEnd : "");
    out_.EndAnswer();
    // A call without a result is followed by what would begin it, and by nothing that ends the turn.
    if (calls && RoleOf(i + 1) != "tool") out_.Marker(kGemmaResultStart);
  }

  const ChatFormat& format_;
  const std::vector<ChatMessage> without_switches_;  // empty where messages have none
  const std::span<const ChatMessage> messages_;
  ChatOptions options_;
  Renderer out_;
  const bool own_system_;
  const bool tools_;  // the model is told of them here
  // Gemma 4's calls, their results and what is said to these are one turn of the model's, and so are its answers that follow one another.
  const bool one_turn_;
  bool in_turn_ = false;  // which is open
  const size_t last_question_;
  size_t last_said_ = 0;
  // Where the system speaks within a question: what it says there, and which it is.
  std::string before_question_;
  size_t systems_question_ = static_cast<size_t>(-1);
  std::string_view called_;  // the function that was called last
  size_t system_turns_ = 0;
};

}  // namespace

Result<Renderer::Rendered> RenderMessages(const ChatFormat& format, std::span<const ChatMessage> messages, const ChatOptions& options) {
  REPRISE_RETURN_IF_ERROR(CheckMessages(format, messages, options));
  return ChatRendering(format, messages, options).Take();
}

}  // namespace reprise
