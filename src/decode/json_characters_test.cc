#include "decode/json_characters.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace reprise {
namespace {

// Whether a grammar of one character of `set` has the character's form.
class OneOfSet {
 public:
  explicit OneOfSet(const CodePoints& set) {
    GrammarBuilder builder;
    JsonCharacters characters(builder);
    characters.Write(set);
    builder.Accept().WriteRules();
    program_ = GrammarProgram::Of(*builder.Finish());
    machine_.Begin(begin_);
  }
  bool Accepts(std::string_view form) const {
    GrammarThreads threads = begin_;
    return machine_.Advance(form, threads) && machine_.MayEnd(threads);
  }

 private:
  GrammarProgram program_;
  GrammarMachine machine_{program_};
  GrammarThreads begin_;
};

bool IsSurrogate(char32_t character) { return character >= 0xd800 && character <= 0xdfff; }

TEST(CodePoints, AreSets) {
  CodePoints set{{'b', 'c'}, {'e', 'e'}};
  EXPECT_EQ(set.Add('d', 'd').ranges().size(), 1u);
  EXPECT_EQ(set.size(), 4u);
  EXPECT_EQ(set.Others().Others(), set);
  EXPECT_TRUE(set.Others().Add(set).Contains(CodePoints::All()));
  EXPECT_TRUE(CodePoints::All().Others().empty());
  EXPECT_EQ(CodePoints::All().size(), 0x110000u - 0x800u);
  EXPECT_EQ((CodePoints{{0xd7ff, 0xe000}}).ranges().size(), 2u);
  EXPECT_EQ(set.Without({{'c', 'd'}}), (CodePoints{{'b', 'b'}, {'e', 'e'}}));
  EXPECT_EQ(set.Within('d', 'z'), (CodePoints{{'d', 'e'}}));
}

// Of each character the form parses as it.
TEST(JsonCharacters, FormsParse) {
  for (char32_t character = 0; character <= CodePoints::kLast; character += character < 0x3000 ? 1 : 37) {
    if (IsSurrogate(character)) continue;
    const auto parsed = nlohmann::json::parse("\"" + JsonCharacters::Form(character) + "\"", nullptr, false);
    ASSERT_TRUE(parsed.is_string()) << static_cast<uint32_t>(character);
    ASSERT_EQ(nlohmann::json::parse(parsed.dump(-1, ' ', true)), parsed);
    const auto back = parsed.get<std::string>();
    ASSERT_EQ(back, character <= 0x7f ? std::string(1, static_cast<char>(character)) : JsonCharacters::Form(character));
  }
}

// Whatever the set: its characters and no others, ends of ranges and of what a byte more is needed for included.
TEST(JsonCharacters, AcceptTheSetAndNothingElse) {
  std::mt19937 random(11);
  const char32_t kEdges[] = {0,     0x1f,   0x20,   0x22,   0x5c,   0x7e,    0x7f,    0x80,    0x7ff,   0x800,
                             0xfff, 0x1000, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x3ffff, 0x40000, 0x10ffff};
  for (int round = 0; round < 300; ++round) {
    CodePoints set;
    for (unsigned n = 1 + random() % 4; n > 0; --n) {
      const auto some = [&] {
        return random() % 2 == 0 ? kEdges[random() % std::size(kEdges)] : char32_t(random() % (random() % 2 == 0 ? 0x80 : 0x110000));
      };
      const char32_t one = some(), other = random() % 3 == 0 ? one : some();
      set.Add(std::min(one, other), std::max(one, other));
    }
    if (round % 3 == 0) set = set.Others();
    if (set.empty()) continue;
    const OneOfSet grammar(set);
    std::vector<char32_t> probes(std::begin(kEdges), std::end(kEdges));
    for (const auto& range : set.ranges()) {
      probes.insert(probes.end(), {range.first - 1u, range.first + 0u, (range.first + range.last) / 2, range.last + 0u, range.last + 1u});
    }
    for (char32_t probe = 0; probe < 0x100; ++probe) probes.push_back(probe);
    for (int i = 0; i < 50; ++i) probes.push_back(random() % 0x110000);
    for (const char32_t probe : probes) {
      if (probe > CodePoints::kLast || IsSurrogate(probe)) continue;
      ASSERT_EQ(grammar.Accepts(JsonCharacters::Form(probe)), set.Contains({{probe, probe}})) << static_cast<uint32_t>(probe);
    }
    for (const char* none : {"", "\"", "\\", "\n", "\x80", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\\ud800", "ab"}) {
      ASSERT_FALSE(grammar.Accepts(none)) << none;
    }
  }
}

}  // namespace
}  // namespace reprise
