// GrammarBuilder: writes the programs of grammars (decode/grammar.h).
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "decode/grammar.h"

namespace reprise {

// Labels may be used before they are placed. Each call appends, and returns the builder.
class GrammarBuilder {
 public:
  using Label = int;
  Label NewLabel();
  GrammarBuilder& Place(Label label);  // here

  GrammarBuilder& Literal(std::string_view bytes);
  GrammarBuilder& Range(uint8_t low, uint8_t high);
  GrammarBuilder& Set(std::string_view bytes);    // 1 to 255
  GrammarBuilder& Until(std::string_view bytes);  // 1 to 255
  GrammarBuilder& Text();
  GrammarBuilder& Split(Label other);
  GrammarBuilder& Jump(Label to);
  GrammarBuilder& Call(Label to);
  GrammarBuilder& Return();
  GrammarBuilder& Accept();

  // One of `count` things: choice(i) writes the i-th. None at all when there is none: no text follows.
  template <class Choice>
  GrammarBuilder& OneOf(size_t count, const Choice& choice) {
    const Label end = NewLabel();
    for (size_t i = 0; i < count; ++i) {
      const Label other = NewLabel();
      if (i + 1 < count) Split(other);
      choice(i);
      if (i + 1 < count) Jump(end).Place(other);
    }
    return Place(end);
  }
  // What `body` writes, or nothing.
  template <class Body>
  GrammarBuilder& Optional(const Body& body) {
    const Label end = NewLabel();
    Split(end);
    body();
    return Place(end);
  }
  // `least` to `most` times what `body` writes; most < 0: no end. Both below kMostTimes.
  template <class Body>
  GrammarBuilder& Repeat(int least, int most, const Body& body) {
    const Label head = NewLabel(), exit = NewLabel();
    BeginRepeat(head, exit, least, most);
    body();
    return EndRepeat(head, exit, least, most);
  }
  static constexpr int kMostTimes = 0xffff;

  // One of these texts, none of which is empty. What several begin with is written once, so that few alternatives are open at a time.
  GrammarBuilder& OneOfTexts(std::vector<std::string> texts);
  // A whole number of these, in decimal, without leading zeros.
  GrammarBuilder& Integer(int64_t least, int64_t most);

  // A rule, to Call: what `write` writes, and a return. It is written by WriteRules, so that rules may call one another.
  Label Rule(std::function<void()> write);
  // After everything else: what rules there are, and those that they ask for.
  void WriteRules();

  // Whether it is too long already, so that nothing more need be written.
  bool full() const { return code_.size() > Grammar::kMostBytes; }
  // kInvalidArgument when it is, or when there is no text that it describes.
  Result<Grammar> Finish();

 private:
  void BeginRepeat(Label head, Label exit, int least, int most);
  GrammarBuilder& EndRepeat(Label head, Label exit, int least, int most);
  void Texts(const std::vector<std::string>& sorted, size_t first, size_t end, size_t depth);
  void Digits(std::string_view least, std::string_view most);
  void Magnitude(uint64_t least, uint64_t most);
  GrammarBuilder& Op(GrammarOp op);
  GrammarBuilder& Counted(GrammarOp op, std::string_view bytes);
  void Word(int value);
  GrammarBuilder& To(Label label);

  std::string code_;
  std::deque<std::function<void()>> unwritten_;
  std::vector<int> places_;                          // of labels; -1: not yet
  std::vector<std::pair<size_t, Label>> addresses_;  // to be filled in
};

}  // namespace reprise
