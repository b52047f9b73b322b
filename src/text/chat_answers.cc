#include "text/chat_answers.h"

#include <algorithm>
#include <string>

#include "text/chat_forms.h"
#include "text/unicode.h"

namespace reprise {
namespace {

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

// The last message of an answer of Harmony's is what was said, or a call. Before a call stands what was thought, which the template takes from the
// content where there is nothing else; where there is, the content was said on the way.
void RenderHarmonyAnswer(const ChatMessage& message, std::string_view content, bool thoughts_shown, Renderer& out) {
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

}  // namespace

ToolWriter WriterTo(Renderer& out) {
  return {[&out](std::string_view name) { out.Marker(name); }, [&out](std::string_view text) { out.Text(text); }};
}

void RenderOpening(const ChatFormat& format, const ChatOptions& options, Renderer& out) {
  const bool thinks = Thinks(format, options.thinking);
  if (HasChannels(format)) {
    if (OpensFinal(format, options)) out.OpenChannel(kFinalChannel);
  } else if (format.style == ChatStyle::kGemma4 && options.after_result) {
    if (OpensThoughts(format, options)) out.OpenThoughts();
  } else if (OpensWithThoughts(format.style) && thinks) {
    out.Marker(kThinkStart);
    out.Text("\n");
  } else if (format.style == ChatStyle::kNemotron) {
    out.Marker(kThinkStart);
    out.Marker(kThinkEnd);
  } else if (!thinks && (format.style == ChatStyle::kQwen35 || format.style == ChatStyle::kQwen3 || format.empty_thoughts)) {
    out.Thoughts("");
  }
}

void RenderAnswer(const ChatFormat& format, const ChatMessage& message, std::string_view content, bool after_question, bool thoughts_shown,
                  bool last, Renderer& out) {
  if (HasChannels(format)) {
    RenderHarmonyAnswer(message, content, thoughts_shown, out);
  } else if (format.style == ChatStyle::kGemma4) {
    if (after_question && !message.reasoning.empty()) out.Thoughts(message.reasoning);
    out.Text(StripSpace(WithoutChannels(content)));
  } else if (format.style == ChatStyle::kMistral) {
    Answer answer = {message.reasoning, content};
    if (MayThink(format) && message.reasoning.empty()) answer = SplitMistralThoughts(content);
    if (MayThink(format) && !answer.thoughts.empty()) out.Thoughts(answer.thoughts);
    content = format.mistral.strips ? StripSpace(answer.content) : answer.content;
    if (format.mistral.spaces && (!content.empty() || message.tool_calls.empty())) {
      // An answer is generated with the space that it begins with here; where it still has it there are not to be two.
      if (content.starts_with(' ')) content.remove_prefix(1);
      out.Text(" ");
    }
    out.Text(content);
  } else if (format.style == ChatStyle::kLfm2 && MayThink(format)) {
    if (after_question && !message.reasoning.empty()) out.Thoughts(message.reasoning);
    if (const size_t end = content.rfind(kThinkEnd); !after_question && end != std::string_view::npos) {
      content = StripSpace(content.substr(end + kThinkEnd.size()));
    }
    out.Text(content);
  } else if (format.style == ChatStyle::kNemotron) {
    // What its template takes for the answer is what stands behind the thoughts, up to a second end of some.
    if (const size_t end = content.find(kThinkEnd); end != std::string_view::npos) {
      content.remove_prefix(end + kThinkEnd.size());
      content = StripSpace(content.substr(0, content.find(kThinkEnd)));
    }
    out.Text(content);
  } else if (format.marks_tools) {
    // LFM2 calls before it speaks.
    WriteToolCalls(format.tools, false, message.tool_calls, WriterTo(out));
    return out.Text(content);
  } else if (!MayThink(format)) {
    out.Text(content);
  } else {
    Answer answer = message.reasoning.empty() ? SplitThoughts(content) : Answer{StripNewlines(message.reasoning, true, true), content};
    if (format.style == ChatStyle::kQwen35) answer.thoughts = StripSpace(answer.thoughts);
    // Qwen3 writes empty thoughts into the last message only, Qwen3.5 into every answer to the last question, Jamba nowhere.
    const bool empty = format.style == ChatStyle::kQwen35 || (format.style == ChatStyle::kQwen3 && last);
    if (after_question && (empty || !answer.thoughts.empty())) {
      if (format.style != ChatStyle::kQwen35) answer.content = StripNewlines(answer.content, true, false);
      out.Thoughts(answer.thoughts);
      if (answer.thoughts.empty()) out.Cut();
    }
    content = answer.content;
    out.Text(content);
  }
  const ToolWriter writer = WriterTo(out);
  if (!format.mistral.spaces) return WriteToolCalls(format.tools, !StripSpace(content).empty(), message.tool_calls, writer);
  const auto marker_and_space = [&](std::string_view name) {
    out.Marker(name);
    out.Text(" ");
  };
  WriteToolCalls(format.tools, !StripSpace(content).empty(), message.tool_calls, {marker_and_space, writer.text});
}

void RenderGemmaResult(std::string_view tool, std::string_view content, bool opened, Renderer& out) {
  if (!opened) out.Marker(kGemmaResultStart);
  out.Text(std::string("response:").append(tool).append("{value:"));
  out.Marker(kGemmaQuote);
  out.Text(content);
  out.Marker(kGemmaQuote);
  out.Text("}");
  out.Marker(kGemmaResultEnd);
}

// Before the seventh version a result is JSON, then it comes after the id of its call, and from the thirteenth on alone.
void RenderMistralResult(const ChatFormat& format, const ChatMessage& message, Renderer& out) {
  out.Open("tool");
  const std::string id = MistralCallId(message.call);
  if (!HasCallIds(format.tools)) {
    out.Text(message.content);
  } else if (format.mistral.own_system) {
    out.Text(id);
    out.Marker(kToolContent);
    out.Text(format.mistral.spaces ? " " : "");
    out.Text(message.content);
  } else {
    out.Text("{\"content\": " + (message.json.empty() ? JsonQuoted(message.content) : message.json) + ", \"call_id\": \"" + id + "\"}");
  }
  out.Close();
}

void RenderToolResult(const ChatFormat& format, const ChatMessage& message, std::string_view tool, std::string_view content, bool first,
                      bool last, Renderer& out) {
  if (HasChannels(format)) {
    out.Marker(kMessageStart);
    out.Text(std::string(kFunctions).append(tool).append(" to=assistant"));
    out.OpenChannel(kCommentaryChannel);
    out.Text(JsonQuoted(content));
    return out.Close();
  }
  if (format.style == ChatStyle::kMistral) return RenderMistralResult(format, message, out);
  if (format.style == ChatStyle::kLlama3) {
    out.Open("ipython");
    out.Text(JsonQuoted(content));
    return out.Close();
  }
  if (format.tools == ToolForm::kPython) {
    out.Open("tool");
    if (format.marks_tools) out.Marker(kPythonResultStart);
    out.Text(content);
    if (format.marks_tools) out.Marker(kPythonResultEnd);
    return out.Close();
  }
  if (format.tools == ToolForm::kNemotron) {
    if (first) {
      out.Open("user");
      out.Marker(kNemotronResultStart);
    }
    out.Text(first ? "[" : ", ");
    out.Text(content);
    if (!last) return;
    out.Text("]");
    out.Marker(kNemotronResultEnd);
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

}  // namespace reprise
