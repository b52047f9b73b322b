#include "text/chat_tools.h"

#include <xxhash.h>

namespace reprise {
namespace {

constexpr std::string_view kJsonBefore =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
constexpr std::string_view kJsonAfter =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    "<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

// Granite's models are told of the same form in other words.
constexpr std::string_view kGraniteBefore =
    "You are a helpful assistant with access to the following tools. You may call one or more tools to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
constexpr std::string_view kGraniteAfter =
    "\n</tools>\n\nFor each tool call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    "<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>. If a tool does not exist in the provided "
    "list of "
    "tools, notify the user that you do not have the ability to fulfill the request.";

constexpr std::string_view kXmlBefore = "# Tools\n\nYou have access to the following functions:\n\n<tools>";
constexpr std::string_view kXmlAfter =
    "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n</parameter>\n"
    "</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within "
    "<tool_call></tool_call> XML tags\n"
    "- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after\n"
    "- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about "
    "function calls\n</IMPORTANT>";

// Llama's template puts tools into the first question unless told to put them here, where all conversations with the same tools share them.
constexpr std::string_view kLlamaBefore =
    "Environment: ipython\n\nYou have access to the following functions. To call a function, please respond with JSON for a function call."
    "Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name and its value}.Do not use variables.\n\n";

// Harmony's, where tools are functions of one namespace.
constexpr std::string_view kHarmonyBefore = "# Tools\n\n## functions\n\nnamespace functions {\n\n";
constexpr std::string_view kHarmonyAfter = "} // namespace functions";

}  // namespace

std::string_view ToolFormName(ToolForm form) {
  switch (form) {
    case ToolForm::kJson: return "json";
    case ToolForm::kXml: return "xml";
    case ToolForm::kLlama: return "llama";
    case ToolForm::kMistral: return "mistral";
    case ToolForm::kMistralIds: return "mistral-ids";
    case ToolForm::kMistralList: return "mistral-list";
    case ToolForm::kNemotron: return "nemotron";
    case ToolForm::kHarmony: return "harmony";
    case ToolForm::kPython: return "python";
    case ToolForm::kGemma: return "gemma";
    case ToolForm::kNone: return "none";
  }
  return "none";
}

bool HasCallIds(ToolForm form) { return form == ToolForm::kMistralIds || form == ToolForm::kMistralList; }

bool IsJsonList(ToolForm form) { return form == ToolForm::kMistralList || form == ToolForm::kNemotron; }

std::string MistralCallId(std::string_view id) {
  constexpr std::string_view kCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  constexpr size_t kLength = 9;
  if (id.size() == kLength && id.find_first_not_of(kCharacters) == std::string_view::npos) return std::string(id);
  uint64_t hash = XXH3_64bits(id.data(), id.size());
  std::string made;
  for (size_t i = 0; i < kLength; i++, hash /= kCharacters.size()) made += kCharacters[hash % kCharacters.size()];
  return made;
}

std::string_view CallStart(ToolForm form) {
  if (form == ToolForm::kMistral || HasCallIds(form)) return kMistralCall;
  if (form == ToolForm::kPython) return kPythonCallStart;
  if (form == ToolForm::kNemotron) return kNemotronCallStart;
  return form == ToolForm::kGemma ? kGemmaCallStart : kToolCallStart;
}

std::string_view CallEnd(ToolForm form) {
  if (form == ToolForm::kGemma) return kGemmaCallEnd;
  if (form == ToolForm::kPython) return kPythonCallEnd;
  if (form == ToolForm::kNemotron) return kNemotronCallEnd;
  return form == ToolForm::kJson || form == ToolForm::kXml ? kToolCallEnd : std::string_view();
}

ToolForm RecogniseToolForm(ChatStyle style, std::string_view chat_template) {
  for (const ChatStyle without : {ChatStyle::kHarmony, ChatStyle::kPlain, ChatStyle::kGemma, ChatStyle::kGemma4, ChatStyle::kPhi3,
                                  ChatStyle::kPhi4, ChatStyle::kPhi4Mini}) {
    if (style == without) return ToolForm::kNone;
  }
  if (style == ChatStyle::kLlama3) return ToolForm::kLlama;
  if (style == ChatStyle::kNemotron) {
    const bool written = chat_template.empty() || chat_template.find(kNemotronCallStart) != std::string_view::npos;
    return written ? ToolForm::kNemotron : ToolForm::kNone;
  }
  const bool xml =
      chat_template.find("<function=") != std::string_view::npos && chat_template.find("<parameter=") != std::string_view::npos;
  return xml || (chat_template.empty() && style == ChatStyle::kQwen35) ? ToolForm::kXml : ToolForm::kJson;
}

MessageHeader ReadMessageHeader(std::string_view header) {
  const auto word = [](std::string_view text) { return text.substr(0, text.find_first_of(" <")); };
  constexpr std::string_view kTo = " to=";
  MessageHeader read;
  const size_t channel = header.find(kChannel), to = header.find(kTo);
  read.role = word(header);
  if (channel != std::string_view::npos) read.channel = word(header.substr(channel + kChannel.size()));
  if (to != std::string_view::npos) read.recipient = word(header.substr(to + kTo.size()));
  return read;
}

std::string_view CalledBy(const MessageHeader& header) {
  return header.recipient.starts_with(kFunctions) ? header.recipient.substr(kFunctions.size()) : std::string_view();
}

std::string SystemWithTools(ChatStyle style, ToolForm form, std::string_view content, std::span<const std::string> tools) {
  const bool granite = style == ChatStyle::kGranite;
  std::string text;
  switch (form) {
    case ToolForm::kJson:
      if (!content.empty()) text.append(content).append("\n\n");
      text += granite ? kGraniteBefore : kJsonBefore;
      for (const std::string& tool : tools) text.append("\n").append(tool);
      text += granite ? kGraniteAfter : kJsonAfter;
      break;
    case ToolForm::kXml:
      text += kXmlBefore;
      for (const std::string& tool : tools) text.append("\n").append(tool);
      text += kXmlAfter;
      if (!content.empty()) text.append("\n\n").append(content);
      break;
    case ToolForm::kLlama:
      text += kLlamaBefore;
      for (const std::string& tool : tools) text.append(tool).append("\n\n");
      text += content;
      break;
    case ToolForm::kHarmony:
      text.append(content).append(kHarmonyBefore);
      for (const std::string& tool : tools) text += tool;
      text += kHarmonyAfter;
      break;
    case ToolForm::kMistral:  // these say it in markers, or in words around them
    case ToolForm::kMistralIds:
    case ToolForm::kMistralList:
    case ToolForm::kNemotron:
    case ToolForm::kPython:
    case ToolForm::kGemma:
    case ToolForm::kNone: text = content; break;
  }
  return text;
}

void ToolWriter::Quoted(std::string_view said) const {
  for (size_t quote; (quote = said.find(kGemmaQuote)) != std::string_view::npos; said.remove_prefix(quote + kGemmaQuote.size())) {
    text(said.substr(0, quote));
    marker(kGemmaQuote);
  }
  text(said);
}

void WriteToolCalls(ToolForm form, bool after_content, std::span<const ChatToolCall> calls, const ToolWriter& out) {
  bool first = true;
  for (const ChatToolCall& call : calls) {
    switch (form) {
      case ToolForm::kJson:
        if (!first || after_content) out.text("\n");
        out.marker(kToolCallStart);
        out.text("\n{\"name\": \"" + call.name + "\", \"arguments\": " + call.arguments + "}\n");
        out.marker(kToolCallEnd);
        break;
      case ToolForm::kXml:
        if (!first || after_content) out.text(first ? "\n\n" : "\n");
        out.marker(kToolCallStart);
        out.text("\n<function=" + call.name + ">\n");
        for (const auto& [name, value] : call.parameters) {
          out.text("<parameter=");
          out.text(name);
          out.text(">\n");
          out.text(value);
          out.text("\n</parameter>\n");
        }
        out.text("</function>\n");
        out.marker(kToolCallEnd);
        break;
      case ToolForm::kLlama:
        if (!first || after_content) out.text(first ? "\n" : "; ");
        out.text("{\"name\": \"" + call.name + "\", \"parameters\": " + call.arguments + "}");
        break;
      case ToolForm::kMistralList:
        if (first) out.marker(kMistralCall);
        out.text(std::string(first ? "[" : ", ") + "{\"name\": " + JsonQuoted(call.name) + ", \"arguments\": " + call.arguments +
                 ", \"id\": \"" + MistralCallId(call.id) + "\"}");
        if (&call == &calls.back()) out.text("]");
        break;
      case ToolForm::kNemotron:
        if (first) {
          out.text(after_content ? "\n\n" : "");
          out.marker(kNemotronCallStart);
        }
        out.text(std::string(first ? "[" : ", ") + "{\"name\": \"" + call.name + "\", \"arguments\": " + call.arguments + "}");
        if (&call != &calls.back()) break;
        out.text("]");
        out.marker(kNemotronCallEnd);
        break;
      case ToolForm::kMistral:
      case ToolForm::kMistralIds:
        out.marker(kMistralCall);
        out.text(call.name);
        if (form == ToolForm::kMistralIds) {
          out.marker(kMistralCallId);
          out.text(MistralCallId(call.id));
        }
        out.marker(kMistralArguments);
        out.text(call.arguments);
        break;
      case ToolForm::kHarmony:
        // Each a message of its own, whose end is the answer's after the last.
        if (!first) {
          out.marker(kCallEnd);
          out.marker(kMessageStart);
          out.text("assistant");
        }
        out.text(std::string(" to=").append(kFunctions).append(call.name));
        out.marker(kChannel);
        out.text(std::string(kCommentaryChannel).append(" json"));
        out.marker(kMessage);
        out.text(call.arguments);
        break;
      case ToolForm::kPython:
        if (first) out.marker(kPythonCallStart);
        out.text(std::string(first ? "[" : ", ").append(call.name).append("(").append(call.python).append(")"));
        if (&call != &calls.back()) break;
        out.text("]");
        out.marker(kPythonCallEnd);
        break;
      case ToolForm::kGemma:
        out.marker(kGemmaCallStart);
        out.text(std::string(kGemmaCall).append(call.name));
        out.Quoted(call.quoted);
        out.marker(kGemmaCallEnd);
        break;
      case ToolForm::kNone: break;
    }
    first = false;
  }
}

std::string JsonQuoted(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out.append("\\u00").append({kHex[static_cast<unsigned char>(c) >> 4], kHex[c & 15]});
        } else {
          out += c;
        }
    }
  }
  return out += '"';
}

}  // namespace reprise
