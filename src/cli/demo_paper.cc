#include "cli/demo_paper.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cli/terminal.h"

namespace reprise {
namespace {

constexpr int kTextIndent = 4;

int TerminalWidth() {
  winsize size{};
  if (!StdoutIsTerminal() || ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return std::clamp<int>(size.ws_col, 40, 100);
}

// Columns, taking every character for one: good enough for European text, and a wrong guess costs a ragged line.
int Columns(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

const char* Code(Paper::Ink ink) {
  switch (ink) {
    case Paper::Ink::kPlain: return "";
    case Paper::Ink::kBold: return "\033[1m";
    case Paper::Ink::kDim: return "\033[2m";
    case Paper::Ink::kGood: return "\033[32m";
    case Paper::Ink::kBad: return "\033[31m";
    case Paper::Ink::kFirst: return "\033[36m";
    case Paper::Ink::kSecond: return "\033[33m";
  }
  return "";
}

}  // namespace

Paper::Paper() : width_(TerminalWidth()), colour_(StdoutIsTerminal()) {}

void Paper::Put(std::string_view text, Ink ink) {
  const bool painted = colour_ && ink != Ink::kPlain && !text.empty();
  if (painted) std::fputs(Code(ink), stdout);
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (painted) std::fputs("\033[0m", stdout);
}

void Paper::Line(std::string_view text, Ink ink, int indent) {
  std::string line(static_cast<size_t>(indent), ' ');
  int column = indent;
  const auto flush = [&] {
    Put(line, ink);
    std::fputc('\n', stdout);
    line.assign(static_cast<size_t>(indent), ' ');
    column = indent;
  };
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string_view word = text.substr(at, end - at);
    if (column > indent && column + 1 + Columns(word) > width_) flush();
    if (column > indent) {
      line += ' ';
      ++column;
    }
    line += word;
    column += Columns(word);
    at = end + 1;
  }
  flush();
  std::fflush(stdout);
}

void Paper::Row(std::string_view text, Ink ink) {
  Put(text, ink);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

void Paper::Step(int number, std::string_view title) {
  Gap();
  Line(fmt::format("{}. {}", number, title), Ink::kBold);
}

void Paper::Check(bool good, std::string_view text) {
  all_good_ = all_good_ && good;
  Line(fmt::format("{} {}", good ? "✓" : "✗", text), good ? Ink::kGood : Ink::kBad, 2);
}

void Paper::PutWord() {
  if (word_.empty()) return;
  if (column_ > kTextIndent && column_ + (space_ ? 1 : 0) + Columns(word_) > width_) {
    std::fputc('\n', stdout);
    column_ = 0;
  }
  if (column_ > kTextIndent && space_) {
    std::fputc(' ', stdout);
    ++column_;
  }
  space_ = false;
  if (column_ == 0) {
    std::fprintf(stdout, "%*s", kTextIndent, "");
    column_ = kTextIndent;
  }
  Put(word_, word_ink_);
  column_ += Columns(word_);
  word_.clear();
}

void Paper::Text(std::string_view piece, Ink ink) {
  for (char c : SafeForTerminal(piece)) {
    if (c == '\n' || c == '\t') c = ' ';
    if (c == ' ') {
      PutWord();
      space_ = true;
      continue;
    }
    if (ink != word_ink_) PutWord();
    word_ink_ = ink;
    word_ += c;
  }
  std::fflush(stdout);
}

void Paper::EndText() {
  PutWord();
  std::fputc('\n', stdout);
  column_ = 0;
  space_ = false;
  std::fflush(stdout);
}

}  // namespace reprise
