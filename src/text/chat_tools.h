// Tools in a chat, in the words that models were trained with: what the system says of them, how a call is written, how its result comes back.
// The wording is the models' own, letter for letter, since any other is one that the model has not seen.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "text/chat.h"

namespace reprise {

inline constexpr std::string_view kToolCallStart = "<tool_call>";
inline constexpr std::string_view kToolCallEnd = "</tool_call>";
// Mistral's: before the name of a call and before its arguments, which nothing closes.
inline constexpr std::string_view kMistralCall = "[TOOL_CALLS]";
inline constexpr std::string_view kMistralArguments = "[ARGS]";
inline constexpr std::string_view kMistralCallId = "[CALL_ID]";
// Around what a model thinks before it speaks.
inline constexpr std::string_view kThinkStart = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";
// The same in Gemma 4's answers; the first names what is on the channel.
inline constexpr std::string_view kChannelStart = "<|channel>";
inline constexpr std::string_view kChannelEnd = "<channel|>";
inline constexpr std::string_view kThoughtStart = "<|channel>thought";
// And in Mistral's.
inline constexpr std::string_view kMistralThinkStart = "[THINK]";
inline constexpr std::string_view kMistralThinkEnd = "[/THINK]";
// Of Harmony's messages: what stands between a message's role and its channel, after these, and after what was said.
inline constexpr std::string_view kMessageStart = "<|start|>";
inline constexpr std::string_view kChannel = "<|channel|>";
inline constexpr std::string_view kMessage = "<|message|>";
inline constexpr std::string_view kMessageEnd = "<|end|>";
inline constexpr std::string_view kThoughtsChannel = "analysis";
inline constexpr std::string_view kCommentaryChannel = "commentary";  // what is said before a call, calls, and their results
inline constexpr std::string_view kFinalChannel = "final";
// A call is a message to one of these functions, and is followed by its result.
inline constexpr std::string_view kFunctions = "functions.";
inline constexpr std::string_view kConstrain =
    "<|constrain|>";  // before the type of its text, which models write and the template does not
inline constexpr std::string_view kCallEnd = "<|call|>";
inline constexpr std::string_view kToolResponseStart = "<tool_response>";
inline constexpr std::string_view kToolResponseEnd = "</tool_response>";
// LFM2's: around the list of tools, calls, and a result; of LFM2.5 calls alone.
inline constexpr std::string_view kPythonToolsStart = "<|tool_list_start|>";
inline constexpr std::string_view kPythonToolsEnd = "<|tool_list_end|>";
inline constexpr std::string_view kPythonCallStart = "<|tool_call_start|>";
inline constexpr std::string_view kPythonCallEnd = "<|tool_call_end|>";
inline constexpr std::string_view kPythonResultStart = "<|tool_response_start|>";
inline constexpr std::string_view kPythonResultEnd = "<|tool_response_end|>";
inline constexpr std::string_view kPythonTools = "List of tools: ";
// Nemotron Nano 2's: around the list of tools, calls, and results.
inline constexpr std::string_view kNemotronToolsStart = "<AVAILABLE_TOOLS>";
inline constexpr std::string_view kNemotronToolsEnd = "</AVAILABLE_TOOLS>";
inline constexpr std::string_view kNemotronCallStart = "<TOOLCALL>";
inline constexpr std::string_view kNemotronCallEnd = "</TOOLCALL>";
inline constexpr std::string_view kNemotronResultStart = "<TOOL_RESPONSE>";
inline constexpr std::string_view kNemotronResultEnd = "</TOOL_RESPONSE>";
inline constexpr std::string_view kNemotronBefore = "You can use the following tools to assist the user if required:\n";
inline constexpr std::string_view kNemotronAfter =
    "\n\nIf you decide to call any tool(s), use the following format:\n"
    "<TOOLCALL>[{{\"name\": \"tool_name1\", \"arguments\": \"tool_args1\"}}, {{\"name\": \"tool_name2\", \"arguments\": "
    "\"tool_args2\"}}]</TOOLCALL>\n\n"
    "The user will execute tool-calls and return responses from tool(s) in this format:\n"
    "<TOOL_RESPONSE>[{{\"tool_response1\"}}, {{\"tool_response2\"}}]</TOOL_RESPONSE>\n\n"
    "Based on the tool responses, you can call additional tools if needed, correct tool calls if any errors are found, or just respond to "
    "the user.";
// Gemma 4's: around what it is told of a tool, a call, and a result; and around every text in them.
inline constexpr std::string_view kGemmaToolStart = "<|tool>";
inline constexpr std::string_view kGemmaToolEnd = "<tool|>";
inline constexpr std::string_view kGemmaCallStart = "<|tool_call>";
inline constexpr std::string_view kGemmaCallEnd = "<tool_call|>";
inline constexpr std::string_view kGemmaCall = "call:";  // before the name, which the arguments follow
inline constexpr std::string_view kGemmaResultStart = "<|tool_response>";
inline constexpr std::string_view kGemmaResultEnd = "<tool_response|>";
inline constexpr std::string_view kGemmaQuote = "<|\"|>";

// The form that a template writes calls in, by what only that form needs.
ToolForm RecogniseToolForm(ChatStyle style, std::string_view chat_template);

// Between <|start|> and <|message|>: role, what it is to, and after <|channel|> the channel. Models write the second after the channel too. Each may
// be empty.
struct MessageHeader {
  std::string_view role, recipient, channel;
};
MessageHeader ReadMessageHeader(std::string_view header);
// The function that a message calls; empty for any other.
std::string_view CalledBy(const MessageHeader& header);

// What the system's turn says (in Harmony the developer's): its own content with the tools before or after it, as the form has it.
std::string SystemWithTools(ChatStyle style, ToolForm form, std::string_view content, std::span<const std::string> tools);

// Pieces of an answer, in order: `marker` for names that may be tokens, `text` for the rest.
struct ToolWriter {
  std::function<void(std::string_view)> marker, text;
  void Quoted(std::string_view said) const;  // text in which Gemma's quotation marks are markers
};
void WriteToolCalls(ToolForm form, bool after_content, std::span<const ChatToolCall> calls, const ToolWriter& out);

// Whether calls and results go by ids that the model sees, of nine letters and digits; and such an id: the client's, or what is made of it.
bool HasCallIds(ToolForm form);
std::string MistralCallId(std::string_view id);
// Whether an answer's calls are one list of JSON objects.
bool IsJsonList(ToolForm form);

// What stands before a call's name, and after its arguments where something does.
std::string_view CallStart(ToolForm form);
std::string_view CallEnd(ToolForm form);

// "text" as a JSON string, as Llama's template and Harmony's write results.
std::string JsonQuoted(std::string_view text);

}  // namespace reprise
