#include "text/pretokenizer.h"

#include <algorithm>
#include <array>
#include <string>

#include "formats/printable.h"
#include "text/unicode.h"

// The expressions, tried from left to right at each position (L = \p{L}, M = \p{M}, N = \p{N}, U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}],
// D = [\p{Ll}\p{Lm}\p{Lo}\p{M}], so that letters without a case and marks are in both):
//
//   gpt-2      's|'t|'re|'ve|'m|'ll|'d| ?L+| ?N+| ?[^\s L N]+|\s+(?!\S)|\s+
//   smollm     every N is a piece; the stretches between them are cut like gpt-2, each as a text of its own
//   llama-bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n L N]?L+|N{1,3}| ?[^\s L N]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//   dbrx       as llama-bpe (Granite 4's; its merges alone decide what a piece becomes)
//   qwen2      as llama-bpe with N in place of N{1,3}
//   qwen35     as qwen2 with [L M] in place of L, except in the optional first character: [^\r\n L N]?[L M]+ and [^\s L M N]
//   gpt-4o     [^\r\n L N]?U*D+C?|[^\r\n L N]?U+D*C?|N{1,3}| ?[^\s L N]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ with C = (?i:'s|'t|'re|'ve|'m|'ll|'d)
//   tekken     as gpt-4o without C, and with N in place of N{1,3}
//   lines      [^\n]+|\n+ (Gemma 4's)
//
// Why a scan suffices: alternatives differ in the class of their first one or two characters, and every repetition runs over one class, so
// the longest run is the match. The two that backtrack are runs of white space: \s*[\r\n]+ ends after the last line break of the run, and
// \s+(?!\S) leaves the last character of a run that something follows. In gpt-4o U*D+ does as well: WordEnd says how.
namespace reprise {
namespace {

struct Named {
  std::string_view name;
  PreTokenizer pre;
};

// llama4's expression is gpt-4o's. llama3 and llama-v3 are older spellings of llama-bpe in files that are still around; LFM2's vocabulary is cut in the same way, and so is that of
// Nemotron, whose files name the first model of its expression: pixtral. Falcon-H1's text is cut as llama.cpp
// cuts it.
constexpr Named kNames[] = {
    {"gpt-2", PreTokenizer::kGpt2},       {"llama-bpe", PreTokenizer::kLlamaBpe}, {"dbrx", PreTokenizer::kDbrx},
    {"smollm", PreTokenizer::kSmolLm},    {"qwen2", PreTokenizer::kQwen2},        {"qwen35", PreTokenizer::kQwen35},
    {"llama3", PreTokenizer::kLlamaBpe},  {"llama-v3", PreTokenizer::kLlamaBpe},  {"lfm2", PreTokenizer::kLlamaBpe},
    {"pixtral", PreTokenizer::kLlamaBpe}, {"falcon-h1", PreTokenizer::kLlamaBpe}, {"gpt-4o", PreTokenizer::kGpt4o},
    {"llama4", PreTokenizer::kGpt4o},     {"tekken", PreTokenizer::kTekken},
};

constexpr std::array<CharClass, 128> MakeAsciiClasses() {
  std::array<CharClass, 128> classes{};
  for (int c = 0; c < 128; c++) {
    if (c == '\r' || c == '\n') {
      classes[c] = CharClass::kNewline;
    } else if (c == ' ' || (c >= 0x09 && c <= 0x0c)) {
      classes[c] = CharClass::kSpace;
    } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      classes[c] = CharClass::kLetter;
    } else if (c >= '0' && c <= '9') {
      classes[c] = CharClass::kNumber;
    }
  }
  return classes;
}

constexpr std::array<CharClass, 128> kAsciiClasses = MakeAsciiClasses();

struct Char {
  CharClass cls;
  uint32_t length;
};

// A view of the text up to a limit, with marks counted as letters, as other characters or as themselves, whichever the rule says.
class Characters {
 public:
  Characters(std::string_view text, CharClass marks) : text_(text), marks_(marks) {}

  size_t size() const { return text_.size(); }
  char Byte(size_t at) const { return text_[at]; }

  // `at` must be inside.
  Char At(size_t at) const {
    const auto byte = static_cast<uint8_t>(text_[at]);
    if (byte < 0x80) return {kAsciiClasses[byte], 1};
    const DecodedChar c = DecodeUtf8(text_.substr(at));
    if (!c.valid) return {CharClass::kOther, 1};
    const CharClass cls = ClassOf(c.code);
    return {cls == CharClass::kMark ? marks_ : cls, c.length};
  }

  // Of the letter that is at `at`.
  LetterCase CaseAt(size_t at) const {
    const auto byte = static_cast<uint8_t>(text_[at]);
    if (byte < 0x80) return byte >= 'a' ? LetterCase::kLower : LetterCase::kUpper;
    return CaseOf(DecodeUtf8(text_.substr(at)).code);
  }

  // Where the run of `cls` that starts at `at` ends.
  size_t RunEnd(size_t at, CharClass cls) const {
    while (at < size()) {
      const Char c = At(at);
      if (c.cls != cls) break;
      at += c.length;
    }
    return at;
  }

 private:
  std::string_view text_;
  CharClass marks_;
};

bool IsSpace(CharClass cls) { return cls == CharClass::kSpace || cls == CharClass::kNewline; }

// The end of a contraction ('s 't 're 've 'm 'll 'd) whose apostrophe is at `at`; `at` itself when there is none.
size_t ContractionEnd(const Characters& text, size_t at, bool any_case) {
  const auto letter = [&](size_t i) -> char {
    if (i >= text.size()) return 0;
    const char c = text.Byte(i);
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  };
  const char first = letter(at + 1), second = first == 0 ? 0 : letter(at + 2);
  switch (first) {
    case 's':
    case 't':
    case 'm':
    case 'd': return at + 2;
    case 'r':
    case 'v': return second == 'e' ? at + 3 : at;
    case 'l': return second == 'l' ? at + 3 : at;
    // (?i:'s) also matches U+017F, the long s, which folds to s.
    case '\xc5': return any_case && second == '\xbf' ? at + 3 : at;
    default: return at;
  }
}

// \s+(?!\S)|\s+ at the start of a run of white space.
size_t SpaceEnd(const Characters& text, size_t begin) {
  size_t last = begin, end = begin;
  while (end < text.size()) {
    const Char c = text.At(end);
    if (!IsSpace(c.cls)) break;
    last = end;
    end += c.length;
  }
  return end == text.size() || last == begin ? end : last;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ there.
size_t LinesEnd(const Characters& text, size_t begin) {
  size_t after_newline = 0;
  for (size_t at = begin; at < text.size();) {
    const Char c = text.At(at);
    if (!IsSpace(c.cls)) break;
    at += c.length;
    if (c.cls == CharClass::kNewline) after_newline = at;
  }
  return after_newline != 0 ? after_newline : SpaceEnd(text, begin);
}

// N{1,most} at a number.
size_t NumbersEnd(const Characters& text, size_t begin, int most) {
  size_t end = begin;
  for (int i = 0; i < most && end < text.size(); i++) {
    const Char c = text.At(end);
    if (c.cls != CharClass::kNumber) break;
    end += c.length;
  }
  return end;
}

size_t Gpt2PieceEnd(const Characters& text, size_t begin) {
  const char byte = text.Byte(begin);
  if (byte == '\'') {
    const size_t end = ContractionEnd(text, begin, false);
    if (end != begin) return end;
  }
  const size_t start = byte == ' ' && begin + 1 < text.size() ? begin + 1 : begin;
  const Char c = text.At(start);
  if (!IsSpace(c.cls)) return text.RunEnd(start + c.length, c.cls);
  return SpaceEnd(text, begin);
}

size_t LlamaPieceEnd(const Characters& text, size_t begin, int max_numbers) {
  const char byte = text.Byte(begin);
  if (byte == '\'') {
    const size_t end = ContractionEnd(text, begin, true);
    if (end != begin) return end;
  }
  const Char first = text.At(begin);
  size_t next = begin + first.length;
  if (first.cls == CharClass::kLetter) return text.RunEnd(next, CharClass::kLetter);
  if (first.cls == CharClass::kNumber) return NumbersEnd(text, begin, max_numbers);
  if (first.cls != CharClass::kNewline && next < text.size() && text.At(next).cls == CharClass::kLetter) {
    return text.RunEnd(next, CharClass::kLetter);
  }
  if (first.cls == CharClass::kOther || (byte == ' ' && next < text.size() && text.At(next).cls == CharClass::kOther)) {
    return text.RunEnd(text.RunEnd(next, CharClass::kOther), CharClass::kNewline);
  }
  return LinesEnd(text, begin);
}

// U*D+, or else U+D*, at `begin`; `begin` itself where neither matches. U* first takes all it can. If a lower-case letter follows, D+ goes on from
// there. If not, U* gives back one character after another until D+ can begin with it, which is the last one of the run that is in both; what
// stood behind it is upper case, and left. Where none is in both, the run is upper case throughout: U+. `first_way`: no U+.
size_t WordEnd(const Characters& text, size_t begin, bool first_way) {
  size_t end = begin, after_both = begin;
  while (end < text.size()) {
    const Char c = text.At(end);
    if (c.cls != CharClass::kLetter && c.cls != CharClass::kMark) break;
    const LetterCase letter_case = c.cls == CharClass::kMark ? LetterCase::kNone : text.CaseAt(end);
    if (letter_case == LetterCase::kLower) {
      for (; end < text.size(); end += text.At(end).length) {
        const CharClass cls = text.At(end).cls;
        if (cls != CharClass::kMark && (cls != CharClass::kLetter || text.CaseAt(end) == LetterCase::kUpper)) break;
      }
      return end;
    }
    end += c.length;
    if (letter_case == LetterCase::kNone) after_both = end;
  }
  return after_both != begin || first_way ? after_both : end;
}

size_t Gpt4oPieceEnd(const Characters& text, size_t begin, int max_numbers, bool contractions) {
  const Char first = text.At(begin);
  const size_t next = begin + first.length;
  if (first.cls == CharClass::kNumber) return NumbersEnd(text, begin, max_numbers);
  size_t word = begin, end = begin;
  if (first.cls == CharClass::kLetter) {
    end = WordEnd(text, begin, false);
  } else if (first.cls != CharClass::kNewline) {
    // A mark before a word is what may stand in front of one; without it, it is a word of its own, which comes before U+.
    end = WordEnd(text, word = next, first.cls == CharClass::kMark);
    if (end == word && first.cls == CharClass::kMark) end = WordEnd(text, word = begin, false);
  }
  if (end != word) return contractions && end < text.size() && text.Byte(end) == '\'' ? ContractionEnd(text, end, true) : end;
  // Here a mark is a character like others.
  const auto run_end = [&](size_t at, auto&& within) {
    while (at < text.size()) {
      const Char c = text.At(at);
      if (!within(c.cls, text.Byte(at))) break;
      at += c.length;
    }
    return at;
  };
  const auto other = [](CharClass cls, char) { return cls == CharClass::kOther || cls == CharClass::kMark; };
  const auto line_end = [](CharClass cls, char byte) { return cls == CharClass::kNewline || byte == '/'; };
  const size_t others = text.Byte(begin) == ' ' ? next : begin;
  if (const size_t after = run_end(others, other); after != others) return run_end(after, line_end);
  return LinesEnd(text, begin);
}

}  // namespace

Result<PreTokenizer> PreTokenizerByName(std::string_view name) {
  std::string known;
  for (const Named& n : kNames) {
    if (n.name == name) return n.pre;
    known += (known.empty() ? "" : ", ") + std::string(n.name);
  }
  return Unsupported("pre-tokenizer '" + Printable(name, 64) + "' is not known; known are " + known);
}

bool TakesWholeTokens(PreTokenizer pre) { return pre == PreTokenizer::kLlamaBpe || pre == PreTokenizer::kTekken; }

bool Composes(PreTokenizer pre) { return pre == PreTokenizer::kQwen2 || pre == PreTokenizer::kQwen35; }

std::string_view PieceScanner::Next() {
  if (position_ >= text_.size()) return {};
  const size_t begin = position_;
  switch (pre_) {
    case PreTokenizer::kGpt2: position_ = Gpt2PieceEnd(Characters(text_, CharClass::kOther), begin); break;
    case PreTokenizer::kSmolLm: {
      const Characters all(text_, CharClass::kOther);
      if (begin >= run_end_) {
        const Char first = all.At(begin);
        size_t end = begin + first.length;
        if (first.cls == CharClass::kNumber) {
          position_ = end;
          break;
        }
        while (end < text_.size()) {
          const Char c = all.At(end);
          if (c.cls == CharClass::kNumber) break;
          end += c.length;
        }
        run_end_ = end;
      }
      position_ = Gpt2PieceEnd(Characters(text_.substr(0, run_end_), CharClass::kOther), begin);
      break;
    }
    case PreTokenizer::kLlamaBpe:
    case PreTokenizer::kDbrx: position_ = LlamaPieceEnd(Characters(text_, CharClass::kOther), begin, 3); break;
    case PreTokenizer::kQwen2: position_ = LlamaPieceEnd(Characters(text_, CharClass::kOther), begin, 1); break;
    case PreTokenizer::kGpt4o: position_ = Gpt4oPieceEnd(Characters(text_, CharClass::kMark), begin, 3, true); break;
    case PreTokenizer::kTekken: position_ = Gpt4oPieceEnd(Characters(text_, CharClass::kMark), begin, 1, false); break;
    case PreTokenizer::kQwen35: position_ = LlamaPieceEnd(Characters(text_, CharClass::kLetter), begin, 1); break;
    case PreTokenizer::kLines:
      position_ = std::min(text_.size(), text_[begin] == '\n' ? text_.find_first_not_of('\n', begin) : text_.find('\n', begin));
      break;
  }
  return text_.substr(begin, position_ - begin);
}

}  // namespace reprise
