// AnswerParser: generated text, as it comes, into thoughts, text and calls of tools.
//
// What it gives does not depend on how the text was cut. A call is given when it is complete and good: one object, or one list of parameters,
// that names a declared tool. Anything else that looks like a call (malformed, unclosed, of an unknown function, huge) is text, every byte of
// it. Work is linear in the text, and what is held is bounded by the size of a call.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "serve/call_reader.h"

namespace reprise::serve {

struct AnswerPiece {
  enum class Kind { kThoughts, kText, kCall };
  Kind kind = Kind::kText;
  std::string text;  // of thoughts and text
  ToolUse call;      // of a call
};

struct AnswerForm {
  ToolForm tools = ToolForm::kNone;                // kNone: calls are not looked for
  const Tools* declared = nullptr;                 // with `tools`; outlives the parser
  bool one_call = false;                           // what follows a call is not given
  bool may_think = false;                          // an answer may begin with thoughts
  bool opens_thoughts = false;                     // the prompt ended with it
  ThoughtMarkers thoughts = ThoughtMarkersOf({});  // around them
  bool begins_with_space = false;                  // and it is layout
  bool channels = false;                           // instead of both: an answer is Harmony's messages (HasChannels)
  bool opens_final = false;                        // the prompt ended with the header of the final one
};

class AnswerParser {
 public:
  explicit AnswerParser(const AnswerForm& form);
  void Feed(std::string_view text, std::vector<AnswerPiece>& out);
  // Nothing more comes.
  void Finish(std::vector<AnswerPiece>& out);
  // Whether anything was not given, by `one_call`.
  bool cut() const { return cut_; }

  static constexpr size_t kMostCallBytes = size_t{1} << 20;

 private:
  enum class State { kOpening, kHeader, kThoughts, kText, kCall };

  bool Step(bool last, std::vector<AnswerPiece>& out);
  bool StepOpening(bool last);
  bool StepHeader(bool last);
  bool StepThoughts(bool last, std::vector<AnswerPiece>& out);
  bool StepText(bool last, std::vector<AnswerPiece>& out);
  bool StepCall(bool last, std::vector<AnswerPiece>& out);
  bool BeginCall(size_t body, std::string_view name = {});
  bool TakeCall(std::vector<AnswerPiece>& out);
  void NotACall(std::vector<AnswerPiece>& out);
  void Emit(AnswerPiece::Kind kind, size_t bytes, std::vector<AnswerPiece>& out);

  AnswerForm form_;
  CallReader call_;
  State state_;
  std::string buffer_;   // what is not given yet
  bool skip_space_;      // white space that comes first is layout: after thoughts, between calls
  bool may_begin_call_;  // Llama's: only where nothing was said before
  bool called_ = false, cut_ = false;
};

}  // namespace reprise::serve
