#include "text/chat.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "formats/printable.h"
#include "text/chat_forms.h"
#include "text/chat_renderer.h"
#include "text/chat_tools.h"
#include "text/unicode.h"

namespace reprise {
namespace {

// The system's turn in Harmony is fixed; what a chat's own system message says comes after it, as the developer's. The template also tells the
// date, which would make every prompt another from one day to the next, and which the models were trained to do without as well.
constexpr std::string_view kHarmonySystem =
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.";
constexpr std::string_view kHarmonySystemOfTools = "\nCalls to these tools must go to the commentary channel: 'functions'.";

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
void RenderOpening(const ChatFormat& format, const ChatOptions& options, Renderer& out) {
  const bool thinks = Thinks(format, options.thinking);
  if (HasChannels(format)) {
    if (OpensFinal(format, options)) out.OpenChannel(kFinalChannel);
  } else if (format.style == ChatStyle::kQwen35 && thinks) {
    out.Marker(kThinkStart);
    out.Text("\n");
  } else if (!thinks && (format.style == ChatStyle::kQwen35 || format.style == ChatStyle::kQwen3 || format.empty_thoughts)) {
    out.Thoughts("");
  }
}

// The last message of an answer of Harmony's is what was said, or a call. Before a call stands what was thought, which the template takes from the
// content where there is nothing else; where there is, the content was said on the way.
void RenderMessages(const ChatMessage& message, std::string_view content, bool thoughts_shown, Renderer& out) {
  if (message.tool_calls.empty()) {
    out.OpenChannel(kFinalChannel);
    return out.Text(FinalMessage(content));
  }
  const auto before_call = [&](std::string_view channel, std::string_view text) {
    if (text.empty() || !thoughts_shown) return;
    out.OpenChannel(channel);
    out.Text(text);
    out.NextMessage();
  };
  before_call(kThoughtsChannel, message.reasoning);
  before_call(message.reasoning.empty() ? kThoughtsChannel : kCommentaryChannel, content);
}

void RenderAnswer(const ChatFormat& format, const ChatMessage& message, std::string_view content, bool after_question, bool thoughts_shown,
                  bool last, Renderer& out) {
  if (HasChannels(format)) {
    RenderMessages(message, content, thoughts_shown, out);
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

// Results of tools. Neighbours are one turn, which is the user's in ChatML. `tool` gave this one.
void RenderToolResult(const ChatFormat& format, std::string_view tool, std::string_view content, bool first, bool last, Renderer& out) {
  if (HasChannels(format)) {
    out.Marker(kMessageStart);
    out.Text(std::string(kFunctions).append(tool).append(" to=assistant"));
    out.OpenChannel(kCommentaryChannel);
    out.Text(JsonQuoted(content));
    return out.Close();
  }
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
    if (role == "tool" && HasChannels(format) && messages[i].tool.empty() && !called) {
      return InvalidArgument("message " + std::to_string(i) + " is the result of a tool, and nothing before it says of which");
    }
    if (role == "system" && i != 0 && (format.style == ChatStyle::kQwen35 || !HasSystemTurn(format) || HasChannels(format))) {
      return InvalidArgument("message " + std::to_string(i) + " is a system message, which in this model's format only the first may be");
    }
  }
  return Ok();
}

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
  size_t system_turns = 0;
  if (HasChannels(format)) {
    if (!options.continues) {
      out.Open("system");
      out.Text(kHarmonySystem);
      if (tools) out.Text(kHarmonySystemOfTools);
      out.Close();
      system_turns++;
    }
    std::string said;
    if (own_system && !system.empty()) said.append(kDeveloperBefore).append(system).append(kDeveloperAfter);
    if (tools) said = SystemWithTools(format.style, format.tools, said, options.tools);
    if (!said.empty()) {
      out.Open(kDeveloper);
      out.Text(said);
      out.Close();
      system_turns++;
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
    system_turns++;
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
  // Harmony's thoughts stay after the last answer that said something.
  const auto says = [](const ChatMessage& message) { return message.role == "assistant" && message.tool_calls.empty(); };
  const size_t last_said = static_cast<size_t>(messages.rend() - std::find_if(messages.rbegin(), messages.rend(), says));
  std::string_view called = options.called;
  for (size_t i = own_system ? 1 : 0; i < messages.size(); i++) {
    const ChatMessage& message = messages[i];
    const std::string_view content = stripped(message.content);
    if (message.role == "tool") {
      RenderToolResult(format, message.tool.empty() ? called : message.tool, content, i == 0 || messages[i - 1].role != "tool",
                       i + 1 == messages.size() || messages[i + 1].role != "tool", out);
      continue;
    }
    out.Open(message.role);
    if (in_question && i == systems_question) out.Text(before_question);
    if (message.role == "assistant") {
      const bool after_question = i > last_question;
      // A template that drops thoughts, or writes empty ones, writes another thing than what was generated.
      const bool thoughts_shown = HasChannels(format) ? !message.tool_calls.empty() && i >= last_said
                                                      : after_question || !MayThink(format) || format.style == ChatStyle::kMistral;
      out.BeginAnswer(i, thoughts_shown, after_question || format.style != ChatStyle::kQwen35);
      RenderAnswer(format, message, content, after_question, thoughts_shown, i + 1 == messages.size(), out);
      if (!message.tool_calls.empty()) called = message.tool_calls.back().name;
      out.Close(format.tools == ToolForm::kHarmony && !message.tool_calls.empty() ? kCallEnd : "");
      continue;
    }
    out.Text(content);
    out.Close();
  }
  if (options.add_generation_prompt) {
    out.Open("assistant");
    out.Cut();
    RenderOpening(format, options, out);
  }
  return out.Take(system_turns);
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
  for (const Thinking thinking : {Thinking::kOn, Thinking::kOff}) {
    Renderer out(format);
    RenderOpening(format, {.thinking = thinking}, out);
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
        i = at.end;
      }
    }
    encoder.Add(segments[i]);
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

}  // namespace reprise
