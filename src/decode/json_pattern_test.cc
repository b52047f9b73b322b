// Patterns of schemas: which strings they allow.
#include "decode/json_pattern.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>

#include "decode/json_rules_test.h"

namespace reprise {
namespace {

using Json = nlohmann::json;

Rules OfPattern(const std::string& pattern) { return Of(Json{{"type", "string"}, {"pattern", pattern}}.dump()); }

// As JSON, each character in the form that grammars write.
std::string Written(std::u32string_view text) {
  std::string written = "\"";
  for (const char32_t character : text) written += JsonCharacters::Form(character);
  return written + "\"";
}

struct Case {
  const char* pattern;
  std::vector<std::u32string> in, out;
};

TEST(JsonPattern, WhatSchemasAskFor) {
  const Case kCases[] = {
      {R"(^\d{4}-\d{2}-\d{2}$)", {U"2024-02-29"}, {U"2024-2-29", U"x2024-02-29", U"2024-02-290", U""}},
      {R"(^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$)",
       {U"123e4567-e89b-12d3-a456-426614174000"},
       {U"123e4567-e89b-12d3-a456-42661417400", U"123e4567-e89b-12d3-a456x426614174000", U"g23e4567-e89b-12d3-a456-426614174000"}},
      {R"(^[\w.+-]+@[\w-]+\.[\w.-]+$)", {U"jane.b+x@longbourn.co.uk"}, {U"jane@", U"@b.c", U"jane@longbourn", U"j ane@b.c"}},
      {R"(^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$)",
       {U"0.10.255.249"},
       {U"256.1.1.1", U"1.1.1", U"01.1.1.1"}},
      {R"(^(red|green|blue)$)", {U"red", U"blue"}, {U"gree", U"redgreen", U""}},
      {"b+", {U"b", U"abba", U"\U0001f600b\n"}, {U"", U"a", U"\u00e9"}},
      {"^b|d$", {U"b", U"bad", U"d", U"ad"}, {U"ab", U"da"}},
      {"(^b|d$)", {U"bx", U"xd"}, {U"xb"}},
      {"^$", {U""}, {U"a"}},
      {"", {U"", U"any\"\\\n\u007f\u2028"}, {}},
      {"^.$",
       {U"a", U"\"", U"\\", U"\t", U"\u00e9", U"\U0001f600", U"\u007f", U"\u0001"},
       {U"\n", U"\r", U"\u2028", U"\u2029", U"", U"ab"}},
      {R"(^[^"]*$)", {U"", U"a\\b", U"\u2028\u0000x"}, {U"\"", U"a\"b"}},
      {R"(^\s\S$)", {U" a", U"\u00a0\u00e9", U"\ufeff\u4e00", U"\v\U0001f600"}, {U"  ", U"aa", U" \u3000"}},
      {R"(^[\u00e0-\u00ff\u{1f600}-\u{1f64f}]{2}$)",
       {U"\u00e9\U0001f601", U"\u00ff\u00e0"},
       {U"\u00df\u00e9", U"\u00e9", U"\U0001f650\u00e9"}},
      {R"(^\ud83d\ude00+$)", {U"\U0001f600", U"\U0001f600\U0001f600"}, {U"\U0001f601"}},
      {"^[\u00e9\u4e00]$", {U"\u00e9", U"\u4e00"}, {U"\u00e8", U"\u4e01"}},
      {R"(^\x41\0\/\-[\b\]\-x]\u0042$)", {std::u32string(U"A\0/-\bB", 6), std::u32string(U"A\0/-]B", 6)}, {U"A0/-xB"}},
      {R"(^(?<year>\d+?)(a*)*(b|)(){2}((c?)(d?)){0,2}$)", {U"1", U"12aab", U"1dc", U"1cd", U"1ccd", U"1cdcd"}, {U"", U"1ba", U"1dcdc"}},
      {R"(^a{2,}b{0}c{1}d{,2}$)", {U"aacd{,2}", U"aaaacd{,2}"}, {U"acd{,2}", U"aabcd{,2}"}},
      {R"(^[\w-.]]{$)", {U"-]{", U".]{"}, {U",]{", U"a"}},
  };
  for (const Case& one : kCases) {
    const Rules rules = OfPattern(one.pattern);
    for (const auto& text : one.in) EXPECT_TRUE(rules.Accepts(Written(text))) << one.pattern << " " << Written(text);
    for (const auto& text : one.out) EXPECT_FALSE(rules.Accepts(Written(text))) << one.pattern << " " << Written(text);
    EXPECT_FALSE(rules.Accepts("1"));
  }
}

// Characters stand as they are or as the escape that there is for them, and as nothing else.
TEST(JsonPattern, OneFormForEachCharacter) {
  const Rules rules = OfPattern(R"(^[\s\S]$)");
  for (const char* form : {R"("\"")", R"("\\")", R"("\n")", R"("\u0001")", R"("\u001f")", R"("\u007f")", R"("/")", "\"\xc3\xa9\""})
    EXPECT_TRUE(rules.Accepts(form)) << form;
  for (const char* form : {R"("\/")", R"("\u000a")", R"("\u0041")", R"("\u00e9")", R"("\ud800")", "\"\n\"", "\"\x7f\"", R"(""")"})
    EXPECT_FALSE(rules.Accepts(form)) << form;
}

// Random patterns find in random texts what the standard library finds, and what their grammars write.
class Patterns {
 public:
  explicit Patterns(uint32_t seed) : random_(seed) {}
  std::string Draw() {
    std::string pattern;
    for (unsigned n = 1 + random_() % 2; n > 0; --n) {
      if (!pattern.empty()) pattern += '|';
      if (Chance(2)) pattern += '^';
      pattern += Sequence(2);
      if (Chance(2)) pattern += '$';
    }
    return pattern;
  }
  std::string Text() {
    std::string text;
    for (unsigned n = random_() % 8; n > 0; --n) text += "aaabbbc0-\"\\\n\r\t "[random_() % 15];
    return text;
  }
  std::mt19937& random() { return random_; }

 private:
  bool Chance(unsigned of) { return random_() % of == 0; }
  std::string Sequence(int depth) {
    std::string sequence;
    for (unsigned n = random_() % 4; n > 0; --n) sequence += Repeated(depth);
    return sequence;
  }
  std::string Repeated(int depth) {
    static constexpr const char* kRepeats[] = {"*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?", "+?", "{0}"};
    return Atom(depth) + (Chance(3) ? kRepeats[random_() % std::size(kRepeats)] : "");
  }
  std::string Atom(int depth) {
    static constexpr const char* kAtoms[] = {"a",         "b",   "c",   "a",   "b",   ".",   "[ab]", "[^a]", "[a-c0]",
                                             "[^\"\\\\]", "\\d", "\\w", "\\s", "\\S", "\\W", "\"",   "\\\\", "ab"};
    if (depth == 0 || Chance(2)) return kAtoms[random_() % std::size(kAtoms)];
    std::string group = Chance(2) ? "(" : "(?:";
    for (unsigned n = 1 + random_() % 2; n > 0; --n) group += Sequence(depth - 1) + (n > 1 ? "|" : "");
    return group + ")";
  }

  std::mt19937 random_;
};

TEST(JsonPattern, FindsWhatTheStandardLibraryFinds) {
  Patterns patterns(23);
  int found = 0, all = 0, drawn = 0;
  for (int round = 0; round < 1000; ++round) {
    const std::string pattern = patterns.Draw();
    const std::regex expected(pattern, std::regex::ECMAScript | std::regex_constants::__polynomial);  // otherwise some take for ever
    const Rules rules = OfPattern(pattern);
    for (int i = 0; i < 20; ++i) {
      const std::string text = patterns.Text();
      const bool finds = std::regex_search(text, expected);
      const std::string written = Written(std::u32string(text.begin(), text.end()));
      if (finds && rules.IsCrowdedBy(written)) continue;
      ASSERT_EQ(rules.Accepts(written), finds) << pattern << " in " << text;
      found += finds ? 1 : 0;
      ++all;
    }
    const Json drawn_text = Json::parse(rules.Draw(patterns.random(), 14), nullptr, false);
    if (!drawn_text.is_string()) continue;
    const auto text = drawn_text.get<std::string>();
    if (std::any_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) >= 0x80; })) continue;  // not its characters
    ASSERT_TRUE(std::regex_search(text, expected)) << pattern << " wrote " << drawn_text;
    ++drawn;
  }
  EXPECT_GT(found, all / 5);
  EXPECT_LT(found, all * 4 / 5);
  EXPECT_GT(drawn, 100);
}

// What would take other machines long, or more room than there is, ends at once.
TEST(JsonPattern, HostilePatterns) {
  const auto repeated = [](const std::string& text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
  };
  EXPECT_TRUE(OfPattern("^((a*)*)*$").Accepts(R"("aaaa")"));
  EXPECT_TRUE(OfPattern("^" + repeated("(a?|b?)", 40) + "$").Accepts(R"("abab")"));
  EXPECT_TRUE(OfPattern("^(((|)(|))*)*" + repeated("(|)", 1000) + "x$").Accepts(R"("x")"));
  EXPECT_TRUE(OfPattern("^(a+)+$").Accepts("\"" + std::string(200, 'a') + "\""));
  EXPECT_FALSE(OfPattern("^(a+)+$").Accepts("\"" + std::string(200, 'a') + "b\""));
  EXPECT_TRUE(OfPattern("^((a{0,60000}){0,60000}){0,60000}$").Accepts(R"("aaaa")"));
  EXPECT_TRUE(OfPattern(repeated("(", 64) + "a" + repeated(")", 64)).Accepts(R"("ba")"));
  EXPECT_TRUE(OfPattern("^" + repeated("(", 8) + "a" + repeated("b?){3}", 8) + "$").Accepts("\"" + std::string(6561, 'a') + "\""));
  const std::pair<std::string, const char*> kRefused[] = {
      {repeated("(", 65), "more than 64 groups one within another at byte 64"},
      {repeated("(", 9) + "a" + repeated("){2}", 9), "more than 8 counted repeats one within another at byte 43"},
      {std::string(8189, 'a'), "more than 8188 bytes"},
  };
  for (const auto& [pattern, says] : kRefused) {
    const auto refused = ParsePattern(pattern);
    ASSERT_FALSE(refused.ok()) << pattern;
    EXPECT_EQ(refused.status().code(), StatusCode::kUnsupported);
    EXPECT_EQ(refused.status().message(), says);
  }
  EXPECT_EQ(Grammar::JsonSchema(Json{{"pattern", repeated("ab?", 2700)}}.dump()).status().message(),
            "the grammar takes more than the 8188 bytes that it may");
}

}  // namespace
}  // namespace reprise
