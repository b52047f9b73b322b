// What the known chat formats are made of: their markers, what stands around a turn, and how they differ. For those that write chats, read them back
// and recognise them; nobody else needs it.
#pragma once

#include <string_view>

#include "text/chat.h"
#include "text/chat_tools.h"

namespace reprise {

inline constexpr std::string_view kTurnStart = "<|im_start|>";
inline constexpr std::string_view kTurnEnd = "<|im_end|>";
inline constexpr std::string_view kLlamaStart = "<|start_header_id|>";
inline constexpr std::string_view kLlamaHeaderEnd = "<|end_header_id|>";
inline constexpr std::string_view kLlamaEnd = "<|eot_id|>";
inline constexpr std::string_view kGraniteStart = "<|start_of_role|>";
inline constexpr std::string_view kGraniteHeaderEnd = "<|end_of_role|>";
inline constexpr std::string_view kGraniteEnd = "<|end_of_text|>";

inline constexpr std::string_view kGemmaStart = "<start_of_turn>";
inline constexpr std::string_view kGemmaEnd = "<end_of_turn>";
inline constexpr std::string_view kGemmaAssistant = "model";
inline constexpr std::string_view kGemma4Start = "<|turn>";
inline constexpr std::string_view kGemma4End = "<turn|>";
inline constexpr std::string_view kGemma4Think = "<|think|>";  // what the system's turn begins with where answers are to think

inline constexpr std::string_view kPhiHeaderEnd = "<|im_sep|>";
inline constexpr std::string_view kPhiSystem = "<|system|>";
inline constexpr std::string_view kPhiUser = "<|user|>";
inline constexpr std::string_view kPhiAssistant = "<|assistant|>";

inline constexpr std::string_view kNemotronSystem = "<SPECIAL_10>";
inline constexpr std::string_view kNemotronStart = "<SPECIAL_11>";
inline constexpr std::string_view kNemotronEnd = "<SPECIAL_12>";

inline constexpr std::string_view kInst = "[INST]";
inline constexpr std::string_view kInstEnd = "[/INST]";
inline constexpr std::string_view kSystemPrompt = "[SYSTEM_PROMPT]";
inline constexpr std::string_view kSystemPromptEnd = "[/SYSTEM_PROMPT]";
inline constexpr std::string_view kAvailableTools = "[AVAILABLE_TOOLS]";
inline constexpr std::string_view kAvailableToolsEnd = "[/AVAILABLE_TOOLS]";
inline constexpr std::string_view kToolResults = "[TOOL_RESULTS]";
inline constexpr std::string_view kToolResultsEnd = "[/TOOL_RESULTS]";
inline constexpr std::string_view kToolContent = "[TOOL_CONTENT]";  // between the id of a call and its result
inline constexpr std::string_view kModelSettings = "[MODEL_SETTINGS]";
inline constexpr std::string_view kModelSettingsEnd = "[/MODEL_SETTINGS]";
inline constexpr std::string_view kEndOfSequence = "</s>";

// What a message of Nemotron's may say of thoughts, and which is not said.
inline constexpr std::string_view kThinkSwitch = "/think";
inline constexpr std::string_view kNoThinkSwitch = "/no_think";

// The developer's message in Harmony, which is where a chat's own system message goes.
inline constexpr std::string_view kDeveloper = "developer";
inline constexpr std::string_view kDeveloperBefore = "# Instructions\n\n";
inline constexpr std::string_view kDeveloperAfter = "\n\n";

// What is said around a turn: start, role, what ends the header, content, end and what follows it. Of a style that has markers.
struct TurnForm {
  std::string_view start;
  std::string_view header_end;    // a marker; empty: there is none
  std::string_view after_header;  // text
  std::string_view end;           // a marker; empty: there is none
  std::string_view after_end;     // text
};
// In Mistral's, Phi 3's and Phi-4-mini's the role tells what a turn stands between; in the former nothing opens an answer.
constexpr bool RoleIsPhis(ChatStyle style) { return style == ChatStyle::kPhi3 || style == ChatStyle::kPhi4Mini; }
constexpr bool RoleIsMarker(ChatStyle style) { return style == ChatStyle::kMistral || RoleIsPhis(style); }
constexpr TurnForm FormOf(ChatStyle style, std::string_view role = "assistant") {
  if (style == ChatStyle::kMistral) {
    if (role == "system") return {kSystemPrompt, "", "", kSystemPromptEnd, ""};
    if (role == "user") return {kInst, "", "", kInstEnd, ""};
    if (role == "tool") return {kToolResults, "", "", kToolResultsEnd, ""};
    return {"", "", "", kEndOfSequence, ""};
  }
  if (RoleIsPhis(style)) {
    const std::string_view start = role == "system" ? kPhiSystem : role == "user" ? kPhiUser : role == "assistant" ? kPhiAssistant : "";
    return {start, "", "", kMessageEnd, ""};
  }
  if (style == ChatStyle::kNemotron) {
    return {role == "system" ? kNemotronSystem : kNemotronStart, "", "\n", role == "assistant" ? kNemotronEnd : "", "\n"};
  }
  if (style == ChatStyle::kPhi4) return {kTurnStart, kPhiHeaderEnd, "", kTurnEnd, ""};
  if (style == ChatStyle::kLlama3) return {kLlamaStart, kLlamaHeaderEnd, "\n\n", kLlamaEnd, ""};
  if (style == ChatStyle::kGemma) return {kGemmaStart, "", "\n", kGemmaEnd, "\n"};
  if (style == ChatStyle::kGemma4) return {kGemma4Start, "", "\n", kGemma4End, "\n"};
  if (style == ChatStyle::kHarmony) return {kMessageStart, kMessage, "", kMessageEnd, ""};
  if (style == ChatStyle::kGranite) return {kGraniteStart, kGraniteHeaderEnd, "", kGraniteEnd, "\n"};
  return {kTurnStart, "", "\n", kTurnEnd, "\n"};
}

constexpr bool IsGemmas(ChatStyle style) { return style == ChatStyle::kGemma || style == ChatStyle::kGemma4; }

// How a role is called in a format, and which one is called so.
constexpr std::string_view NameOfRole(ChatStyle style, std::string_view role) {
  if (IsGemmas(style) && role == "assistant") return kGemmaAssistant;
  if (style != ChatStyle::kNemotron) return role;
  return role == "system" ? "System" : role == "user" ? "User" : "Assistant";
}
constexpr std::string_view RoleNamed(ChatStyle style, std::string_view name) {
  for (const std::string_view role : {"system", "user", "assistant"}) {
    if (NameOfRole(style, role) == name) return role;
  }
  return name;
}

// Whether answers that think open with what begins their thoughts.
constexpr bool OpensWithThoughts(ChatStyle style) {
  return style == ChatStyle::kQwen35 || style == ChatStyle::kJamba || style == ChatStyle::kNemotron;
}

// Whether an answer is to think, where its format knows thoughts.
bool Thinks(const ChatFormat& format, Thinking thinking);
// Whether what the system says is a turn of its own; else it stands within a question.
bool HasSystemTurn(const ChatFormat& format);
// Whether a marker begins a turn. In Mistral's formats the end of a question opens its answer, and so does that of what a tool gave back; in Gemma 4's
// what a tool gave back counts as one, though it stands in the model's.
bool OpensTurn(const ChatFormat& format, std::string_view marker);

}  // namespace reprise
