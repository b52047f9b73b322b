// What a model says, which may be anything: cut in whatever pieces, it is the same thoughts, text and calls, and every call is one of a declared tool.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "serve/answer_parser.h"

namespace {

using namespace reprise;
using namespace reprise::serve;

// What bytes past ASCII stand for, so that mutations are made of what the parser looks for.
constexpr std::array<std::string_view, 40> kWords = {"<tool_call>",
                                                     "</tool_call>",
                                                     "<function=read>",
                                                     "</function>",
                                                     "<parameter=path>",
                                                     "</parameter>",
                                                     "<think>",
                                                     "</think>",
                                                     R"({"name": "read", "arguments": {)",
                                                     R"({"name": "write", "parameters": {)",
                                                     R"("path": ")",
                                                     "}}",
                                                     "[TOOL_CALLS]",
                                                     "read[ARGS]{",
                                                     "[THINK]",
                                                     "[/THINK]",
                                                     "<|channel|>",
                                                     "<|message|>",
                                                     "<|start|>assistant",
                                                     "<|end|>",
                                                     "<|call|>",
                                                     " to=functions.read",
                                                     "commentary",
                                                     "analysis",
                                                     "final",
                                                     " <|constrain|>json",
                                                     "<|channel>thought\n",
                                                     "<channel|>",
                                                     "<|tool_call>",
                                                     "<tool_call|>",
                                                     "call:read{",
                                                     "<|\"|>",
                                                     "path:",
                                                     "[{",
                                                     "[CALL_ID]",
                                                     R"([{"name": "read", "id": "a", "arguments": {)",
                                                     "<|tool_call_start|>[",
                                                     "<|tool_call_end|>",
                                                     "read(path=",
                                                     "\"\"\""};

std::string Worded(const uint8_t* data, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    if (data[i] < 0x80) {
      text += static_cast<char>(data[i]);
    } else {
      text += kWords[(data[i] - 0x80u) % kWords.size()];
    }
  }
  return text;
}

std::vector<AnswerForm> Forms(const Tools& tools) {
  std::vector<AnswerForm> forms = {{}, {.may_think = true}, {.opens_thoughts = true}, {.begins_with_space = true}, {.channels = true}};
  forms.push_back({.channels = true, .opens_final = true});
  forms.push_back({.may_think = true, .thoughts = ThoughtMarkersOf({.style = ChatStyle::kGemma4})});
  forms.push_back({.may_think = true, .thoughts = ThoughtMarkersOf({.style = ChatStyle::kMistral})});
  for (const ToolForm form : {ToolForm::kJson, ToolForm::kXml, ToolForm::kLlama, ToolForm::kMistral, ToolForm::kMistralIds,
                              ToolForm::kMistralList, ToolForm::kNemotron, ToolForm::kPython, ToolForm::kGemma}) {
    forms.push_back({.tools = form, .declared = &tools, .may_think = true});
    forms.push_back({.tools = form, .declared = &tools, .one_call = true});
  }
  forms.push_back({.tools = ToolForm::kHarmony, .declared = &tools, .channels = true});
  return forms;
}

// Neighbours of a kind as one; calls as what they say.
struct Answer {
  std::vector<AnswerPiece> pieces;
  bool cut = false;
};

Answer Parsed(const AnswerForm& form, std::string_view text, size_t step) {
  AnswerParser parser(form);
  std::vector<AnswerPiece> given;
  for (size_t at = 0; at < text.size(); at += step) parser.Feed(text.substr(at, step), given);
  parser.Finish(given);
  Answer answer;
  answer.cut = parser.cut();
  for (AnswerPiece& piece : given) {
    const bool goes_on = piece.kind != AnswerPiece::Kind::kCall && !answer.pieces.empty() && answer.pieces.back().kind == piece.kind;
    if (goes_on) {
      answer.pieces.back().text += piece.text;
    } else {
      answer.pieces.push_back(std::move(piece));
    }
  }
  return answer;
}

void Require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 4096) return 0;
  Tools tools;
  for (const char* name : {"read", "write"}) tools.list.push_back({name, Json::object(), Json::object(), false});
  const std::string text = Worded(data, size);
  for (const AnswerForm& form : Forms(tools)) {
    const Answer whole = Parsed(form, text, text.size());
    for (const AnswerPiece& piece : whole.pieces) {
      if (piece.kind != AnswerPiece::Kind::kCall) continue;
      Require(form.tools != ToolForm::kNone && tools.Find(piece.call.name) != nullptr && piece.call.arguments.is_object());
    }
    for (const size_t step : {size_t{1}, size_t{2} + data[0] % 13}) {
      const Answer pieces = Parsed(form, text, step);
      Require(pieces.cut == whole.cut && pieces.pieces.size() == whole.pieces.size());
      for (size_t i = 0; i < whole.pieces.size(); ++i) {
        const AnswerPiece &a = whole.pieces[i], &b = pieces.pieces[i];
        Require(a.kind == b.kind && a.text == b.text && a.call.name == b.call.name && a.call.id == b.call.id &&
                a.call.arguments == b.call.arguments);
      }
    }
  }
  return 0;
}
