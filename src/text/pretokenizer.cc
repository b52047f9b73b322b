#include "text/pretokenizer.h"

#include <algorithm>
#include <array>
#include <string>

#include "formats/printable.h"
#include "text/unicode.h"

// The expressions, tried from left to right at each position (L = \p{L}, M = \p{M}, N = \p{N}):
//
//   gpt-2      's|'t|'re|'ve|'m|'ll|'d| ?L+| ?N+| ?[^\s L N]+|\s+(?!\S)|\s+
//   smollm     every N is a piece; the stretches between them are cut like gpt-2, each as a text of its own
//   llama-bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n L N]?L+|N{1,3}| ?[^\s L N]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//   dbrx       as llama-bpe (Granite 4's; its merges alone decide what a piece becomes)
//   qwen2      as llama-bpe with N in place of N{1,3}
//   qwen35     as qwen2 with [L M] in place of L, except in the optional first character: [^\r\n L N]?[L M]+ and [^\s L M N]
//
// Why a scan suffices: alternatives differ in the class of their first one or two characters, and every repetition runs over one class, so
// the longest run is the match. The two that backtrack are runs of white space: \s*[\r\n]+ ends after the last line break of the run, and
// \s+(?!\S) leaves the last character of a run that something follows.
namespace reprise {
namespace {

struct Named {
  std::string_view name;
  PreTokenizer pre;
};

// llama3 and llama-v3 are older spellings of llama-bpe in files that are still around; LFM2's vocabulary is cut in the same way, and so is that of
// Nemotron, whose files name the first model of its expression: pixtral. Falcon-H1's text is cut as llama.cpp
// cuts it.
constexpr Named kNames[] = {
    {"gpt-2", PreTokenizer::kGpt2},       {"llama-bpe", PreTokenizer::kLlamaBpe}, {"dbrx", PreTokenizer::kDbrx},
    {"smollm", PreTokenizer::kSmolLm},    {"qwen2", PreTokenizer::kQwen2},        {"qwen35", PreTokenizer::kQwen35},
    {"llama3", PreTokenizer::kLlamaBpe},  {"llama-v3", PreTokenizer::kLlamaBpe},  {"lfm2", PreTokenizer::kLlamaBpe},
    {"pixtral", PreTokenizer::kLlamaBpe}, {"falcon-h1", PreTokenizer::kLlamaBpe},
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

// A view of the text up to a limit, with marks counted as letters or as other characters, whichever the rule says.
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
  if (first.cls == CharClass::kNumber) {
    for (int i = 1; i < max_numbers && next < text.size(); i++) {
      const Char c = text.At(next);
      if (c.cls != CharClass::kNumber) break;
      next += c.length;
    }
    return next;
  }
  if (first.cls != CharClass::kNewline && next < text.size() && text.At(next).cls == CharClass::kLetter) {
    return text.RunEnd(next, CharClass::kLetter);
  }
  if (first.cls == CharClass::kOther || (byte == ' ' && next < text.size() && text.At(next).cls == CharClass::kOther)) {
    return text.RunEnd(text.RunEnd(next, CharClass::kOther), CharClass::kNewline);
  }
  size_t after_newline = 0;
  for (size_t at = begin; at < text.size();) {
    const Char c = text.At(at);
    if (!IsSpace(c.cls)) break;
    at += c.length;
    if (c.cls == CharClass::kNewline) after_newline = at;
  }
  return after_newline != 0 ? after_newline : SpaceEnd(text, begin);
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

bool TakesWholeTokens(PreTokenizer pre) { return pre == PreTokenizer::kLlamaBpe; }

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
    case PreTokenizer::kQwen35: position_ = LlamaPieceEnd(Characters(text_, CharClass::kLetter), begin, 1); break;
  }
  return text_.substr(begin, position_ - begin);
}

}  // namespace reprise
