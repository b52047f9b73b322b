#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <gtest/gtest.h>
#include <pcre2.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "text/unicode.h"

namespace reprise {
namespace {

// The specification: the published expressions, run by PCRE2. \s is spelled out because PCRE2's also takes U+180E, and the long s because
// its caseless matching is kept to what the expressions of the reference match.
#define SPACE "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S "[" SPACE "]"
constexpr char kGpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|" S "+(?![^" SPACE "])|" S "+";
#define CONTRACTIONS "(?:'[sS\\x{17f}]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define SPACES S "*[\\r\\n]+|" S "+(?![^" SPACE "])|" S "+"
#define LLAMA(NUMBERS) CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" NUMBERS "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
constexpr char kLlama[] = LLAMA("\\p{N}{1,3}");
constexpr char kQwen2[] = LLAMA("\\p{N}");
constexpr char kQwen35[] = CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACE "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES;

#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define CASED(AFTER, NUMBERS)                                                                                                              \
  "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" AFTER "|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER "]*" AFTER "|" NUMBERS "| ?[^" SPACE \
  "\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
constexpr char kGpt4o[] = CASED(CONTRACTIONS "?", "\\p{N}{1,3}");
constexpr char kTekken[] = CASED("", "\\p{N}");

class Regex {
 public:
  explicit Regex(const char* pattern) {
    int error;
    size_t where;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &where, nullptr);
    EXPECT_NE(code_, nullptr) << "at " << where << " of " << pattern;
    match_ = pcre2_match_data_create_from_pattern(code_, nullptr);
  }
  ~Regex() {
    pcre2_match_data_free(match_);
    pcre2_code_free(code_);
  }

  // The end of the match at `at`; 0 when there is none there.
  size_t MatchEnd(std::string_view text, size_t at) const {
    const int found = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_ANCHORED, match_, nullptr);
    return found > 0 ? pcre2_get_ovector_pointer(match_)[1] : 0;
  }

  std::vector<std::string> Split(std::string_view text) const {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t end = MatchEnd(text, at);
      if (end <= at) {
        ADD_FAILURE() << "no match at " << at;
        break;
      }
      pieces.emplace_back(text.substr(at, end - at));
      at = end;
    }
    return pieces;
  }

 private:
  pcre2_code* code_ = nullptr;
  pcre2_match_data* match_ = nullptr;
};

std::vector<std::string> Expected(PreTokenizer pre, const std::string& text) {
  static const Regex gpt2(kGpt2), llama(kLlama), qwen2(kQwen2), qwen35(kQwen35), gpt4o(kGpt4o), tekken(kTekken), lines("[^\\n]+|\\n+"),
      number("\\p{N}");
  switch (pre) {
    case PreTokenizer::kGpt2: return gpt2.Split(text);
    case PreTokenizer::kLlamaBpe:
    case PreTokenizer::kDbrx: return llama.Split(text);
    case PreTokenizer::kQwen2: return qwen2.Split(text);
    case PreTokenizer::kQwen35: return qwen35.Split(text);
    case PreTokenizer::kGpt4o: return gpt4o.Split(text);
    case PreTokenizer::kTekken: return tekken.Split(text);
    case PreTokenizer::kLines: return lines.Split(text);
    case PreTokenizer::kSmolLm: break;
  }
  std::vector<std::string> pieces;
  std::string between;
  const auto flush = [&] {
    for (std::string& piece : gpt2.Split(between)) pieces.push_back(std::move(piece));
    between.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const size_t length = DecodeUtf8(std::string_view(text).substr(at)).length;
    if (number.MatchEnd(text, at) > at) {
      flush();
      pieces.push_back(text.substr(at, length));
    } else {
      between += text.substr(at, length);
    }
    at += length;
  }
  flush();
  return pieces;
}

std::vector<std::string> Pieces(PreTokenizer pre, std::string_view text) {
  std::vector<std::string> pieces;
  PieceScanner scanner(pre, text);
  for (std::string_view piece = scanner.Next(); !piece.empty(); piece = scanner.Next()) pieces.emplace_back(piece);
  EXPECT_EQ(scanner.Next(), "");
  return pieces;
}

constexpr PreTokenizer kAll[] = {PreTokenizer::kGpt2,   PreTokenizer::kLlamaBpe, PreTokenizer::kDbrx,
                                 PreTokenizer::kSmolLm, PreTokenizer::kQwen2,    PreTokenizer::kQwen35,
                                 PreTokenizer::kGpt4o,  PreTokenizer::kTekken,   PreTokenizer::kLines};

// One of each kind of character that an expression tells apart, twice where case or position matters.
const char* const kAlphabet[] = {"/",
                                 "\xc7\x85",
                                 "\xca\xb0",
                                 "\xce\x94",
                                 " ",
                                 " ",
                                 "\t",
                                 "\n",
                                 "\r",
                                 "\xc2\xa0",
                                 "\xe3\x80\x80",
                                 "'",
                                 "'",
                                 "s",
                                 "S",
                                 "t",
                                 "r",
                                 "e",
                                 "v",
                                 "m",
                                 "l",
                                 "L",
                                 "d",
                                 "x",
                                 "\xc5\xbf",
                                 "\xc3\xa9",
                                 "\xe4\xbd\xa0",
                                 "1",
                                 "2",
                                 "\xd9\xa3",
                                 "\xc2\xbd",
                                 "!",
                                 ".",
                                 "\xe2\x80\x94",
                                 "\xf0\x9f\x98\x80",
                                 "\xcc\x81",
                                 "\xe0\xa4\xbe",
                                 "\xe2\x83\x9d",
                                 "\x01",
                                 "\xe1\xa0\x8e"};

// Every text of up to three of these characters, for every expression: all the ways in which two pieces can meet.
TEST(PreTokenizer, EqualsTheExpressionsOnAllShortTexts) {
  std::vector<std::string> texts = {""};
  for (const char* a : kAlphabet) {
    texts.emplace_back(a);
    for (const char* b : kAlphabet) {
      texts.push_back(std::string(a) + b);
      for (const char* c : kAlphabet) texts.push_back(std::string(a) + b + c);
    }
  }
  for (PreTokenizer pre : kAll) {
    for (const std::string& text : texts) {
      ASSERT_EQ(Pieces(pre, text), Expected(pre, text))
          << "pre-tokenizer " << static_cast<int>(pre) << " text " << testing::PrintToString(text);
    }
  }
}

TEST(PreTokenizer, EqualsTheExpressionsOnRandomTexts) {
  std::mt19937_64 rng(7);
  for (int round = 0; round < 20000; round++) {
    std::string text;
    // Half the texts use a few kinds of characters only, so that runs and repeated boundaries occur.
    const size_t kinds = round % 2 == 0 ? std::size(kAlphabet) : 2 + rng() % 4;
    const size_t first = rng() % std::size(kAlphabet);
    for (size_t n = rng() % 24; n > 0; n--) text += kAlphabet[(first + rng() % kinds * 7) % std::size(kAlphabet)];
    const PreTokenizer pre = kAll[round % std::size(kAll)];
    ASSERT_EQ(Pieces(pre, text), Expected(pre, text))
        << "pre-tokenizer " << static_cast<int>(pre) << " text " << testing::PrintToString(text);
  }
}

TEST(PreTokenizer, PiecesOfArbitraryBytesAddUp) {
  std::mt19937_64 rng(8);
  for (int round = 0; round < 5000; round++) {
    std::string text(rng() % 100, '\0');
    for (char& c : text) c = static_cast<char>(rng());
    for (PreTokenizer pre : kAll) {
      std::string joined;
      for (const std::string& piece : Pieces(pre, text)) joined += piece;
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(PreTokenizer, BytesOutsideUtf8CountAsOtherCharacters) {
  EXPECT_EQ(Pieces(PreTokenizer::kQwen2, "a\xff\xfe\nb"), (std::vector<std::string>{"a", "\xff\xfe\n", "b"}));
  EXPECT_EQ(Pieces(PreTokenizer::kGpt2, "a \xe4\xbd"), (std::vector<std::string>{"a", " \xe4\xbd"}));
}

TEST(PreTokenizer, AnUnknownNameIsRefusedWithTheKnownOnes) {
  for (const char* name : {"gpt-2", "llama-bpe", "dbrx", "smollm", "qwen2", "qwen35", "gpt-4o", "tekken"})
    EXPECT_TRUE(PreTokenizerByName(name).ok()) << name;
  for (const char* name : {"llama3", "llama-v3", "lfm2", "pixtral", "falcon-h1"})
    EXPECT_EQ(*PreTokenizerByName(name), PreTokenizer::kLlamaBpe) << name;
  EXPECT_EQ(*PreTokenizerByName("llama4"), PreTokenizer::kGpt4o);
  for (const char* name : {"", "default", "gpt2", "qwen35 ", "tekken7"}) {
    const auto pre = PreTokenizerByName(name);
    ASSERT_FALSE(pre.ok());
    EXPECT_EQ(pre.status().code(), StatusCode::kUnsupported);
    EXPECT_NE(pre.status().message().find(std::string("'").append(name).append("'")), std::string::npos);
    EXPECT_NE(pre.status().message().find("gpt-2, llama-bpe, dbrx, smollm, qwen2, qwen35"), std::string::npos);
  }
}

}  // namespace
}  // namespace reprise
