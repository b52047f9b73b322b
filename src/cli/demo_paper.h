// Paper for a demonstration: text that wraps at the width of the terminal as it comes in, and colours where there is a terminal.
#pragma once

#include <string>
#include <string_view>

namespace reprise {

class Paper {
 public:
  enum class Ink { kPlain, kBold, kDim, kGood, kBad, kFirst, kSecond };

  Paper();  // stdout; 40 to 100 columns wide, 80 where it is no terminal

  int width() const { return width_; }
  // One line, wrapped between words, each piece after `indent` spaces.
  void Line(std::string_view text, Ink ink = Ink::kPlain, int indent = 0);
  void Row(std::string_view text, Ink ink = Ink::kPlain);  // one line as it is
  void Gap() { Row(""); }
  // A heading with a number.
  void Step(int number, std::string_view title);
  // "✓ text" or "✗ text"; remembers a failure.
  void Check(bool good, std::string_view text);
  bool all_good() const { return all_good_; }

  // A running text: any pieces, with newlines shown as spaces, wrapped at words. Ended by EndText().
  void Text(std::string_view piece, Ink ink = Ink::kPlain);
  void EndText();

 private:
  void Put(std::string_view text, Ink ink);
  void PutWord();

  int width_;
  bool colour_;
  bool all_good_ = true;
  int column_ = 0;
  bool space_ = false;  // between the last word and the next, if both are on one line
  std::string word_;    // not yet shown: it may have to go to the next line
  Ink word_ink_ = Ink::kPlain;
};

}  // namespace reprise
