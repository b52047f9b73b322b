#include "decode/grammar_builder.h"

#include <algorithm>

namespace reprise {

GrammarBuilder::Label GrammarBuilder::NewLabel() {
  places_.push_back(-1);
  return static_cast<Label>(places_.size()) - 1;
}

GrammarBuilder& GrammarBuilder::Place(Label label) {
  places_[static_cast<size_t>(label)] = static_cast<int>(code_.size());
  return *this;
}

GrammarBuilder& GrammarBuilder::Op(GrammarOp op) {
  code_ += static_cast<char>(op);
  return *this;
}

GrammarBuilder& GrammarBuilder::Counted(GrammarOp op, std::string_view bytes) {
  Op(op);
  code_ += static_cast<char>(bytes.size());
  code_ += bytes;
  return *this;
}

void GrammarBuilder::Word(int value) {
  code_ += static_cast<char>(value & 0xff);
  code_ += static_cast<char>(value >> 8 & 0xff);
}

GrammarBuilder& GrammarBuilder::To(Label label) {
  addresses_.emplace_back(code_.size(), label);
  Word(0);
  return *this;
}

GrammarBuilder& GrammarBuilder::Literal(std::string_view bytes) {
  for (const char byte : bytes) {
    const auto value = static_cast<uint8_t>(byte);
    if (value < 0x20 || value >= 0x7f) Op(GrammarOp::kByte);
    code_ += byte;
  }
  return *this;
}

GrammarBuilder& GrammarBuilder::Range(uint8_t low, uint8_t high) {
  if (low == high) return Literal(std::string(1, static_cast<char>(low)));
  Op(GrammarOp::kRange);
  code_ += static_cast<char>(low);
  code_ += static_cast<char>(high);
  return *this;
}

GrammarBuilder& GrammarBuilder::Set(std::string_view bytes) { return Counted(GrammarOp::kSet, bytes); }
GrammarBuilder& GrammarBuilder::Until(std::string_view bytes) { return Op(GrammarOp::kCount).Counted(GrammarOp::kUntil, bytes); }
GrammarBuilder& GrammarBuilder::Text() { return Op(GrammarOp::kText); }
GrammarBuilder& GrammarBuilder::Return() { return Op(GrammarOp::kReturn); }
GrammarBuilder& GrammarBuilder::Accept() { return Op(GrammarOp::kAccept); }
GrammarBuilder& GrammarBuilder::Split(Label other) { return Op(GrammarOp::kSplit).To(other); }
GrammarBuilder& GrammarBuilder::Jump(Label to) { return Op(GrammarOp::kJump).To(to); }
GrammarBuilder& GrammarBuilder::Call(Label to) { return Op(GrammarOp::kCall).To(to); }

void GrammarBuilder::BeginRepeat(Label head, Label exit, int least, int most) {
  Op(GrammarOp::kCount).Place(head).Op(GrammarOp::kLoop);
  Word(least);
  Word(most < 0 ? kMostTimes : most);
  To(exit);
}

// Without an end there is nothing to count past the least: equal futures have equal states.
GrammarBuilder& GrammarBuilder::EndRepeat(Label head, Label exit, int least, int most) {
  Op(GrammarOp::kNext).To(head);
  Word(most < 0 ? least : most);
  return Place(exit);
}

GrammarBuilder::Label GrammarBuilder::Rule(std::function<void()> write) {
  const Label at = NewLabel();
  unwritten_.push_back([this, at, write = std::move(write)] {
    Place(at);
    write();
    Return();
  });
  return at;
}

void GrammarBuilder::WriteRules() {
  while (!unwritten_.empty() && !full()) {
    const std::function<void()> write = std::move(unwritten_.front());
    unwritten_.pop_front();
    write();
  }
}

GrammarBuilder& GrammarBuilder::OneOfTexts(std::vector<std::string> texts) {
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  Texts(texts, 0, texts.size(), 0);
  return *this;
}

// What follows the first `depth` bytes, which sorted[first, end) have in common.
void GrammarBuilder::Texts(const std::vector<std::string>& sorted, size_t first, size_t end, size_t depth) {
  if (full()) return;  // nor goes any deeper
  const std::string_view front = sorted[first], back = sorted[end - 1];
  const auto differ = std::mismatch(front.begin(), front.end(), back.begin(), back.end());
  const auto shared = static_cast<size_t>(differ.first - front.begin());
  Literal(front.substr(depth, shared - depth));
  if (first + 1 == end) return;
  std::vector<std::pair<size_t, size_t>> groups;  // by the next byte; a text that ends here is one of its own
  for (size_t i = first; i < end;) {
    size_t last = i + 1;
    const auto next = [&](size_t at) { return sorted[at].size() > shared ? static_cast<uint8_t>(sorted[at][shared]) : -1; };
    while (last < end && next(last) == next(i)) ++last;
    groups.emplace_back(i, last);
    i = last;
  }
  OneOf(groups.size(), [&](size_t i) {
    const auto [begin, last] = groups[i];
    if (sorted[begin].size() > shared) Texts(sorted, begin, last, shared);
  });
}

GrammarBuilder& GrammarBuilder::Integer(int64_t least, int64_t most) {
  // As unsigned numbers every magnitude fits.
  const auto magnitude = [](int64_t value) {
    return value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  };
  const bool negative = least < 0, positive = most >= 0;
  return OneOf((negative ? 1 : 0) + (positive ? 1 : 0), [&](size_t i) {
    if (negative && i == 0) {
      Literal("-");
      Magnitude(most < 0 ? magnitude(most) : 1, magnitude(least));
    } else {
      Magnitude(least < 0 ? 0 : magnitude(least), magnitude(most));
    }
  });
}

void GrammarBuilder::Magnitude(uint64_t least, uint64_t most) {
  const std::string low = std::to_string(least), high = std::to_string(most);
  OneOf(high.size() - low.size() + 1, [&](size_t i) {
    const size_t digits = low.size() + i;
    Digits(i == 0 ? low : "1" + std::string(digits - 1, '0'), digits == high.size() ? high : std::string(digits, '9'));
  });
}

// Numbers of as many digits as both have.
void GrammarBuilder::Digits(std::string_view least, std::string_view most) {
  if (least.empty()) return;
  const std::string_view low = least.substr(1), high = most.substr(1);
  const std::string nines(low.size(), '9'), zeros(low.size(), '0');
  const auto from = static_cast<uint8_t>(least[0]), to = static_cast<uint8_t>(most[0]);
  if (from == to) {
    Range(from, to);
    return Digits(low, high);
  }
  const auto any = [&](int first, int last) {
    Range(static_cast<uint8_t>(first), static_cast<uint8_t>(last));
    if (!low.empty()) Repeat(static_cast<int>(low.size()), static_cast<int>(low.size()), [&] { Range('0', '9'); });
  };
  const bool whole_low = low == zeros, whole_high = high == nines;
  const int first = whole_low ? from : from + 1, last = whole_high ? to : to - 1;
  const bool middle = first <= last;
  OneOf((whole_low ? 0 : 1) + (middle ? 1 : 0) + (whole_high ? 0 : 1), [&](size_t i) {
    if (!whole_low && i == 0) {
      Range(from, from);
      Digits(low, nines);
    } else if (middle && i == (whole_low ? 0u : 1u)) {
      any(first, last);
    } else {
      Range(to, to);
      Digits(zeros, high);
    }
  });
}

Result<Grammar> GrammarBuilder::Finish() {
  if (full()) return InvalidArgument("the grammar takes more than the " + std::to_string(Grammar::kMostBytes) + " bytes that it may");
  for (const auto& [at, label] : addresses_) {
    const int place = places_[static_cast<size_t>(label)];
    code_[at] = static_cast<char>(place & 0xff);
    code_[at + 1] = static_cast<char>(place >> 8 & 0xff);
  }
  auto grammar = Grammar::FromCode(std::move(code_));
  if (!grammar.ok()) return grammar;
  const GrammarProgram program = GrammarProgram::Of(*grammar);
  GrammarThreads threads;
  GrammarMachine(program).Begin(threads);
  if (threads.empty()) return InvalidArgument("the grammar has no text at all: what it consists of consists of itself");
  return grammar;
}

}  // namespace reprise
