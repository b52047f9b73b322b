#include "decode/regex.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>

#include "base/utf8.h"
#include "decode/grammar_builder.h"

namespace reprise {
namespace {

constexpr int kMostGroups = 64;   // one within another
constexpr int kMostCounters = 8;  // each takes of the depth that a grammar's threads may have

const CodePoints& Digits() {
  static const CodePoints kDigits{{'0', '9'}};
  return kDigits;
}
const CodePoints& WordCharacters() {
  static const CodePoints kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  return kWord;
}
const CodePoints& LineEnds() {
  static const CodePoints kEnds{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
  return kEnds;
}
const CodePoints& Spaces() {
  static const CodePoints kSpaces{{'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
                                  {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
  return kSpaces;
}

bool IsDigit(char32_t c) { return c >= '0' && c <= '9'; }
bool IsLetter(char32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }
int HexadecimalDigit(char32_t c) {
  return IsDigit(c) ? static_cast<int>(c - '0') : IsLetter(c) && (c | 0x20) <= 'f' ? static_cast<int>((c | 0x20) - 'a') + 10 : -1;
}

// One way through the whole, and whether it must stand at the beginning and the end of the text.
struct Alternative {
  Regex regex;
  bool begins = false, ends = false;
  bool anchored() const { return begins || ends; }
};
using Alternatives = std::vector<Alternative>;

class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) {}

  Result<Alternatives> Parse() {
    Alternatives alternatives = ParseChoice();
    if (status_.ok() && !done()) Malformed(at_, "')' closes nothing");
    if (!status_.ok()) return status_;
    return alternatives;
  }

 private:
  static constexpr char32_t kEnd = 0xffffffff;

  bool done() const { return at_ >= pattern_.size() || !status_.ok(); }
  bool Sees(std::string_view text) const { return status_.ok() && pattern_.substr(at_).starts_with(text); }
  bool Take(std::string_view text) {
    const bool sees = Sees(text);
    if (sees) at_ += text.size();
    return sees;
  }
  // The next character; kEnd where there is none. The pattern is UTF-8.
  char32_t Next() {
    if (done()) return kEnd;
    const auto first = static_cast<uint8_t>(pattern_[at_++]);
    if (first < 0x80) return first;
    const int others = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    char32_t character = first & (0x3f >> others);
    for (int i = 0; i < others; ++i) character = character << 6 | (static_cast<uint8_t>(pattern_[at_++]) & 0x3f);
    return character;
  }

  void Fail(StatusCode code, size_t at, const std::string& what) {
    if (status_.ok()) status_ = Status(code, what + " at byte " + std::to_string(at));
  }
  void Malformed(size_t at, const std::string& what) { Fail(StatusCode::kInvalidArgument, at, what); }
  void Refuse(size_t at, const std::string& what) { Fail(StatusCode::kUnsupported, at, what); }

  Alternatives ParseChoice() {
    Alternatives alternatives;
    do {
      Alternatives more = ParseSequence();
      std::move(more.begin(), more.end(), std::back_inserter(alternatives));
    } while (Take("|"));
    return alternatives;
  }

  // One alternative; or those of a group, where it is all that there is.
  Alternatives ParseSequence() {
    std::vector<Regex> parts;
    bool begins = false, ends = false;
    while (!done() && !Sees("|") && !Sees(")")) {
      const size_t begin = at_;
      if (Take("^")) {
        if (!parts.empty() || ends) Refuse(begin, "'^' after what must come before the beginning");
        begins = true;
        continue;
      }
      if (Take("$")) {
        ends = true;
        continue;
      }
      if (ends) Refuse(begin, "more after '$'");
      if (!Sees("(")) {
        parts.push_back(ParseRepeats(ParseAtom()));
        continue;
      }
      Alternatives group = ParseGroup();
      if (std::any_of(group.begin(), group.end(), [](const Alternative& one) { return one.anchored(); })) {
        if (parts.empty() && !begins && (done() || Sees("|") || Sees(")"))) return group;
        Refuse(begin, "'^' or '$' in a group that is not all of an alternative");
      }
      parts.push_back(ParseRepeats(AnyOf(std::move(group))));
    }
    Alternatives one(1);
    one[0] = {Regex::Sequence(std::move(parts)), begins, ends};
    return one;
  }

  static Regex AnyOf(Alternatives alternatives) {
    std::vector<Regex> parts;
    for (Alternative& one : alternatives) parts.push_back(std::move(one.regex));
    return Regex::Choice(std::move(parts));
  }

  Alternatives ParseGroup() {
    const size_t begin = at_;
    Take("(");
    if (++groups_ > kMostGroups) Refuse(begin, "more than " + std::to_string(kMostGroups) + " groups one within another");
    if (Take("?")) {
      if (Sees("=") || Sees("!") || Sees("<=") || Sees("<!")) {
        Refuse(begin, "'(" + std::string(pattern_.substr(begin + 1, Sees("<") ? 3 : 2)) + "', which looks around,");
      } else if (Take("<")) {
        ParseName();
      } else if (!Take(":")) {
        Refuse(begin, "a group of an unknown kind");
      }
    }
    Alternatives alternatives = ParseChoice();
    if (!Take(")")) Malformed(begin, "'(' that is not closed");
    --groups_;
    return alternatives;
  }

  void ParseName() {
    const size_t begin = at_;
    bool sound = !Sees(">");
    while (!done() && !Sees(">")) {
      const bool is_first = at_ == begin;
      const char32_t c = Next();
      sound = sound && (IsLetter(c) || c == '_' || c == '$' || c >= 0x80 || (IsDigit(c) && !is_first));
    }
    if (!Take(">") || !sound) Malformed(begin, "what is no name of a group");
  }

  Regex ParseAtom() {
    const size_t begin = at_;
    if (Take(".")) return Regex::Character(LineEnds().Others());
    if (Take("[")) return ParseClass(begin);
    if (Sees("*") || Sees("+") || Sees("?") || TakeBraces()) Malformed(begin, "a repeat of nothing");
    return Regex::Character(ParseCharacter(false).first);
  }

  // What may follow once, or often.
  Regex ParseRepeats(Regex part) {
    const size_t begin = at_;
    Times times;
    if (Take("*")) {
      times = {0, -1};
    } else if (Take("+")) {
      times = {1, -1};
    } else if (Take("?")) {
      times = {0, 1};
    } else if (const auto braces = TakeBraces()) {
      times = *braces;
    } else {
      return part;
    }
    Take("?");  // lazy ones find the same texts
    Regex repeat = Regex::Repeat(std::move(part), times.least, times.most);
    if (repeat.counters > kMostCounters)
      Refuse(begin, "more than " + std::to_string(kMostCounters) + " counted repeats one within another");
    return repeat;
  }

  struct Times {
    int least = 1, most = 1;
  };
  // {n}, {n,} or {n,m}; what is none of these is no repeat, and '{' stands for itself.
  std::optional<Times> TakeBraces() {
    const size_t begin = at_;
    const auto number = [this] {
      int value = -1;
      while (!done() && IsDigit(static_cast<uint8_t>(pattern_[at_]))) {
        value = std::min(std::max(value, 0) * 10 + (pattern_[at_++] - '0'), GrammarBuilder::kMostTimes);
      }
      return value;
    };
    if (Take("{")) {
      Times times;
      times.least = number();
      times.most = Take(",") ? number() : times.least;
      if (times.least >= 0 && Take("}")) {
        if (std::max(times.least, times.most) >= GrammarBuilder::kMostTimes)
          Refuse(begin, "more than " + std::to_string(GrammarBuilder::kMostTimes - 1) + " times");
        if (times.most >= 0 && times.least > times.most) Malformed(begin, "a repeat of at least more times than at most");
        return times;
      }
    }
    at_ = begin;
    return std::nullopt;
  }

  Regex ParseClass(size_t begin) {
    const bool negated = Take("^");
    CodePoints set;
    while (!done() && !Sees("]")) {
      const size_t first_at = at_;
      const auto [first, first_is_one] = ParseCharacter(true);
      set.Add(first);
      if (!Sees("-") || Sees("-]") || !status_.ok()) continue;
      Take("-");
      const auto [last, last_is_one] = ParseCharacter(true);
      if (!status_.ok()) break;
      set.Add(last);
      if (!first_is_one || !last_is_one) {  // as browsers have it: the hyphen stands for itself
        set.Add('-', '-');
      } else if (first.ranges()[0].first > last.ranges()[0].first) {
        Malformed(first_at, "a range whose end comes before its beginning");
      } else {
        set.Add(first.ranges()[0].first, last.ranges()[0].first);
      }
    }
    if (!Take("]")) Malformed(begin, "'[' that is not closed");
    if (negated) set = set.Others();
    if (set.empty()) Malformed(begin, "a class of no character");
    return Regex::Character(std::move(set));
  }

  // A character or an escape, and whether it is one character.
  std::pair<CodePoints, bool> ParseCharacter(bool in_class) {
    const size_t begin = at_;
    const auto one = [](char32_t character) { return std::pair(CodePoints{{character, character}}, true); };
    const char32_t character = Next();
    if (character == kEnd) return one(0);
    if (character != '\\') return one(character);
    const char32_t escape = Next();
    const auto name = [&] { return "'" + std::string(pattern_.substr(begin, at_ - begin)) + "'"; };
    switch (escape) {
      case kEnd: Malformed(begin, "'\\' of nothing"); return one(0);
      case 'd': return {Digits(), false};
      case 'D': return {Digits().Others(), false};
      case 'w': return {WordCharacters(), false};
      case 'W': return {WordCharacters().Others(), false};
      case 's': return {Spaces(), false};
      case 'S': return {Spaces().Others(), false};
      case 't': return one('\t');
      case 'n': return one('\n');
      case 'r': return one('\r');
      case 'f': return one('\f');
      case 'v': return one('\v');
      case 'x': return one(ParseHexadecimal(begin, 2));
      case 'u': return one(ParseCodePoint(begin));
      case 'p':
      case 'P': Refuse(begin, name() + ", a property of Unicode,"); return one(0);
      case 'k': Refuse(begin, name() + ", which refers back,"); return one(0);
      case 'b':
        if (in_class) return one('\b');
        [[fallthrough]];
      case 'B':
        if (!in_class) Refuse(begin, name() + ", which looks around,");
        break;
      case '0':
        if (done() || !IsDigit(static_cast<uint8_t>(pattern_[at_]))) return one(0);
        break;
      default:
        if (IsDigit(escape) && !in_class) Refuse(begin, name() + ", which refers back,");
    }
    if (IsLetter(escape) || IsDigit(escape)) Malformed(begin, name() + ", which means nothing,");
    return one(escape);
  }

  char32_t ParseHexadecimal(size_t begin, int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const int digit = HexadecimalDigit(Next());
      if (digit < 0) Malformed(begin, "an escape of too few digits");
      value = value << 4 | static_cast<char32_t>(digit & 0xf);
    }
    return value;
  }

  // After \u: of four digits, where two halves make one character, or in braces.
  char32_t ParseCodePoint(size_t begin) {
    char32_t value = 0;
    if (Take("{")) {
      bool any = false;
      while (!done() && !Sees("}")) {
        value = std::min(value << 4 | ParseHexadecimal(begin, 1), CodePoints::kLast + 1);
        any = true;
      }
      if (!any || !Take("}") || value > CodePoints::kLast) Malformed(begin, "an escape of no character");
    } else {
      value = ParseHexadecimal(begin, 4);
      if (value >> 10 == 0x36 && Take("\\u")) {
        const char32_t second = ParseHexadecimal(begin, 4);
        if (second >> 10 == 0x37) value = 0x10000 + ((value & 0x3ff) << 10 | (second & 0x3ff));
      }
    }
    if (value >> 11 == 0x1b) Refuse(begin, "half of a surrogate pair");
    return value;
  }

  std::string_view pattern_;
  size_t at_ = 0;
  int groups_ = 0;
  Status status_;
};

}  // namespace

Regex Regex::Character(CodePoints set) {
  Regex regex;
  regex.kind = Kind::kCharacter;
  regex.set = std::move(set);
  regex.may_be_empty = false;
  return regex;
}

Regex Regex::Sequence(std::vector<Regex> parts) {
  std::erase_if(parts, [](const Regex& part) { return part.kind == Kind::kEmpty; });
  if (parts.empty()) return {};
  if (parts.size() == 1) return std::move(parts[0]);
  Regex regex;
  regex.kind = Kind::kSequence;
  for (const Regex& part : parts) {
    regex.may_be_empty = regex.may_be_empty && part.may_be_empty;
    regex.counters = std::max(regex.counters, part.counters);
  }
  regex.parts = std::move(parts);
  return regex;
}

Regex Regex::Choice(std::vector<Regex> parts) {
  if (std::all_of(parts.begin(), parts.end(), [](const Regex& part) { return part.kind == Kind::kEmpty; })) return {};
  if (parts.size() == 1) return std::move(parts[0]);
  Regex regex;
  regex.kind = Kind::kChoice;
  regex.may_be_empty = false;
  for (const Regex& part : parts) {
    regex.may_be_empty = regex.may_be_empty || part.may_be_empty;
    regex.counters = std::max(regex.counters, part.counters);
  }
  regex.parts = std::move(parts);
  return regex;
}

Regex Regex::Repeat(Regex part, int least, int most) {
  if (part.kind == Kind::kEmpty || most == 0) return {};
  if (part.may_be_empty) least = 0;  // the rest may be empty
  if (least == 1 && most == 1) return part;
  Regex regex;
  regex.kind = Kind::kRepeat;
  regex.least = least;
  regex.most = most;
  regex.may_be_empty = least == 0;
  regex.counters = part.counters + (most > 1 || least > 1 ? 1 : 0);
  regex.parts.push_back(std::move(part));
  return regex;
}

Result<Regex> ParsePattern(std::string_view pattern) {
  if (pattern.size() > Grammar::kMostBytes) return Unsupported("more than " + std::to_string(Grammar::kMostBytes) + " bytes");
  if (!IsUtf8(pattern)) return InvalidArgument("bytes that are no UTF-8");
  REPRISE_ASSIGN_OR_RETURN(Alternatives alternatives, Parser(pattern).Parse());
  const Regex anything = Regex::Repeat(Regex::Character(CodePoints::All()), 0, -1);
  std::vector<Regex> ways;
  for (const auto& [begins, ends] : {std::pair(true, true), {true, false}, {false, true}, {false, false}}) {
    std::vector<Regex> found;
    for (Alternative& one : alternatives) {
      if (one.begins == begins && one.ends == ends) found.push_back(std::move(one.regex));
    }
    if (found.empty()) continue;
    Regex any_of = Regex::Choice(std::move(found));
    if (any_of.may_be_empty && !(begins && ends)) return anything;  // the empty text is found in every text
    std::vector<Regex> parts;
    if (!begins) parts.push_back(anything);
    parts.push_back(std::move(any_of));
    if (!ends) parts.push_back(anything);
    ways.push_back(Regex::Sequence(std::move(parts)));
  }
  return Regex::Choice(std::move(ways));
}

}  // namespace reprise
