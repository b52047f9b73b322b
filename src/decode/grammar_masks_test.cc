#include "decode/grammar_masks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "decode/grammar_builder.h"

namespace reprise {
namespace {

// Bytes, and words of what JSON is written with.
std::vector<std::string> Words(int count) {
  std::vector<std::string> words;
  for (int byte = 0; byte < 256; ++byte) words.emplace_back(1, static_cast<char>(byte));
  const char* kParts[] = {"\"", "}", ", ", "n", "ab", "\\", "12", "{\"name", "\": ", "\n", "\xc3\xa9", "[", "]", "true"};
  std::mt19937 random(3);
  while (static_cast<int>(words.size()) < count) {
    std::string word;
    for (unsigned n = 1 + random() % 5; n > 0; --n) word += kParts[random() % std::size(kParts)];
    words.push_back(word);
  }
  return words;
}

class GrammarMasksTest : public testing::Test {
 protected:
  GrammarMasksTest() : words_(Words(2000)) {
    words_.emplace_back(TokenTrie::kMostBytes, 'x');
    words_.emplace_back();  // a control token, which is not to be chosen
    words_.emplace_back();  // the end
    end_ = static_cast<int32_t>(words_.size()) - 1;
    const std::vector<std::string_view> views(words_.begin(), words_.end());
    trie_.emplace(views, std::vector<int32_t>{end_});
  }

  // The mask against each token on its own.
  void Check(GrammarMasks& masks, const GrammarMachine& machine, const GrammarThreads& threads, const std::string& after) {
    const auto mask = masks.Allowed(threads);
    for (size_t token = 0; token < words_.size(); ++token) {
      GrammarThreads copy = threads;
      const bool expected =
          static_cast<int32_t>(token) == end_ ? machine.MayEnd(threads) : !words_[token].empty() && machine.Advance(words_[token], copy);
      ASSERT_EQ((mask[token / 64] >> token % 64 & 1) != 0, expected) << "after " << after << ": " << words_[token];
    }
  }

  std::vector<std::string> words_;
  int32_t end_ = 0;
  std::optional<TokenTrie> trie_;
};

TEST_F(GrammarMasksTest, AllowWhatCanFollow) {
  const GrammarProgram program = GrammarProgram::Of(*Grammar::JsonSchema(
      R"({"properties":{"name":{"type":"string"},"n":{"type":"integer","minimum":5,"maximum":130},"l":{"type":"string","maxLength":5}}})"));
  const GrammarMachine machine(program);
  GrammarMasks masks(*trie_, program);
  EXPECT_TRUE(masks.IsOf(program));
  EXPECT_FALSE(masks.IsOf(GrammarProgram()));
  const std::string text = R"({"name": "Jane \"J\"", "n": 12, "l": "ab"})";
  for (int twice = 0; twice < 2; ++twice) {
    for (size_t i = 0; i <= text.size(); ++i) {
      GrammarThreads threads;
      machine.Begin(threads);
      ASSERT_TRUE(machine.Advance(text.substr(0, i), threads));
      Check(masks, machine, threads, text.substr(0, i));
    }
  }
}

// More places than are remembered: all is forgotten on the way, again and again, and nothing of it shows.
TEST_F(GrammarMasksTest, ForgettingNeverShows) {
  GrammarBuilder b;
  const GrammarProgram program =
      GrammarProgram::Of(*b.Repeat(0, 60000, [&] { b.OneOf(2, [&](size_t i) { b.Literal(i == 0 ? "n" : "ab"); }); }).Accept().Finish());
  const GrammarMachine machine(program);
  GrammarMasks masks(*trie_, program);
  GrammarThreads threads;
  machine.Begin(threads);
  Check(masks, machine, threads, "nothing");
  // So far from its end the grammar allows the same after each turn.
  const auto first = masks.Allowed(threads);
  const std::vector<uint64_t> same(first.begin(), first.end());
  std::mt19937 random(9);
  for (int i = 0; i < 9000; ++i) {
    const auto mask = masks.Allowed(threads);
    ASSERT_TRUE(std::equal(mask.begin(), mask.end(), same.begin(), same.end())) << i;
    ASSERT_TRUE(machine.Advance(random() % 2 == 0 ? "n" : "ab", threads));
  }
}

}  // namespace
}  // namespace reprise
