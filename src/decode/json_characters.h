// JsonCharacters: characters of JSON strings as rules of a grammar, each in one written form: as itself in UTF-8, or as an escape where JSON wants
// one (of a control character the short escape, where there is one).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "decode/code_points.h"
#include "decode/grammar_builder.h"

namespace reprise {

class JsonCharacters {
 public:
  explicit JsonCharacters(GrammarBuilder& builder) : builder_(builder) {}
  JsonCharacters(const JsonCharacters&) = delete;

  // One of the set, which is not empty.
  void Write(const CodePoints& set);
  // Any number of the set, none included. Where the set has all plain text (decode/grammar.h), masks of it are cheap.
  void WriteRun(const CodePoints& set);
  // Those that are written as they are.
  static const CodePoints& Plain();
  static std::string Form(char32_t character);

 private:
  void WriteAll(const CodePoints& set);
  void WriteEscapes(const CodePoints& set);
  void WriteLonger(const CodePoints& set);
  void WriteDigits(const std::vector<CodePoints::Range>& numbers, int others, uint8_t first);

  GrammarBuilder& builder_;
  std::map<CodePoints, GrammarBuilder::Label> rules_;  // of sets that take more than an instruction
};

}  // namespace reprise
