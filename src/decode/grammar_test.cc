#include "decode/grammar.h"

#include <gtest/gtest.h>

#include <random>

#include "decode/grammar_builder.h"

namespace reprise {
namespace {

// {"name": STRING, "n": 1 to 3 digits}, after anything up to "go:".
Grammar Letter() {
  GrammarBuilder b;
  const auto string = b.NewLabel(), escape = b.NewLabel(), text = b.NewLabel(), begin = b.NewLabel();
  b.Jump(begin);
  b.Place(string).Literal("\"").Place(text).Text().Split(escape).Literal("\"").Return();
  b.Place(escape).Literal("\\").Set("\"n").Jump(text);
  b.Place(begin).Until("go:").Literal("{\"name\": ").Call(string).Literal(", \"n\": ").Repeat(1, 3, [&] { b.Range('0', '9'); });
  b.Literal("}").Accept();
  return *b.Finish();
}

bool Accepts(const Grammar& grammar, std::string_view text) {
  const GrammarProgram program = GrammarProgram::Of(grammar);
  const GrammarMachine machine(program);
  GrammarThreads threads;
  machine.Begin(threads);
  return machine.Advance(text, threads) && machine.MayEnd(threads);
}

TEST(Grammar, AcceptsWhatItSays) {
  const Grammar letter = Letter();
  EXPECT_EQ(GrammarProgram::Of(letter).Fault(), nullptr);
  EXPECT_TRUE(Accepts(letter, R"(go:{"name": "Jane \"J\" Bennet", "n": 12})"));
  EXPECT_TRUE(Accepts(letter, R"(now then, ggo:{"name": "", "n": 1})"));
  EXPECT_FALSE(Accepts(letter, R"(go:{"name": "", "n": })"));
  EXPECT_FALSE(Accepts(letter, R"(go:{"name": "", "n": 1234})"));
  EXPECT_FALSE(Accepts(letter, R"(go:{"name": "\x", "n": 1})"));
  EXPECT_FALSE(Accepts(letter, R"(go:{"name": "", "n": 1)"));
  EXPECT_FALSE(Accepts(letter, "go:{\"name\": \"a\nb\", \"n\": 1}"));
  EXPECT_FALSE(Accepts(letter, R"(go: {"name": "", "n": 1})"));  // the first "go:" counts
}

// "Until" finds what was waited for wherever a search of the text finds it.
TEST(Grammar, UntilEndsAtTheFirstTime) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string wanted, text;
    for (unsigned n = 1 + random() % 5; n > 0; --n) wanted += static_cast<char>('a' + random() % 2);
    for (unsigned n = random() % 20; n > 0; --n) text += static_cast<char>('a' + random() % 2);
    GrammarBuilder b;
    const Grammar grammar = *b.Until(wanted).Accept().Finish();
    const size_t found = text.find(wanted);
    EXPECT_EQ(Accepts(grammar, text), found != std::string::npos && found + wanted.size() == text.size()) << wanted << " in " << text;
  }
}

TEST(Grammar, BracketsNestUntilThereIsNoRoom) {
  GrammarBuilder b;
  const auto list = b.NewLabel(), begin = b.NewLabel();
  b.Jump(begin);
  b.Place(list).Literal("[").Optional([&] { b.Call(list); }).Literal("]").Return();
  b.Place(begin).Call(list).Accept();
  const Grammar grammar = *b.Finish();
  EXPECT_TRUE(Accepts(grammar, "[[[]]]"));
  EXPECT_FALSE(Accepts(grammar, "[[[]]"));
  const size_t most = GrammarThreads::kMaxDepth;
  EXPECT_TRUE(Accepts(grammar, std::string(most, '[') + std::string(most, ']')));
  EXPECT_FALSE(Accepts(grammar, std::string(most + 1, '[') + std::string(most + 1, ']')));
}

TEST(Grammar, IntegersBetweenBounds) {
  std::mt19937_64 random(7);
  const int64_t kBounds[][2] = {{0, 0},     {0, 9},     {1, 10}, {-1, 1}, {-120, -7}, {5, 1234}, {99, 100}, {-999'999, 1'000'001},
                                {250, 260}, {-10, 4000}};
  for (const auto& [least, most] : kBounds) {
    GrammarBuilder b;
    const Grammar grammar = *b.Integer(least, most).Accept().Finish();
    const auto check = [&](int64_t value) {
      EXPECT_EQ(Accepts(grammar, std::to_string(value)), least <= value && value <= most) << value << " in " << least << " to " << most;
    };
    for (int64_t value = -1300; value <= 4100; ++value) check(value);
    for (const int64_t bound : {least, most}) {
      for (int64_t by = -2; by <= 2; ++by) check(bound + by);
    }
    for (int i = 0; i < 200; ++i) check(static_cast<int64_t>(random() % 4'000'000) - 2'000'000);
    for (const char* bad : {"", "-", "00", "01", "-0", "+1", "1 "}) EXPECT_FALSE(Accepts(grammar, bad)) << bad;
  }
}

TEST(Grammar, OneOfManyTexts) {
  std::vector<std::string> texts = {"a", "ab", "abc", "b", "bcd", "bce", "\xc3\xa9t\xc3\xa9"};
  GrammarBuilder b;
  const Grammar grammar = *b.OneOfTexts(texts).Accept().Finish();
  for (const std::string& text : texts) EXPECT_TRUE(Accepts(grammar, text)) << text;
  for (const char* text : {"", "abcd", "bc", "c", "\xc3\xa9"}) EXPECT_FALSE(Accepts(grammar, text)) << text;
}

TEST(Grammar, GoesOnFromACopyIdentically) {
  const GrammarProgram program = GrammarProgram::Of(Letter());
  const GrammarMachine machine(program);
  const std::string_view text = R"(ggo:{"name": "Jane \"J\"", "n": 12})";
  GrammarThreads threads;
  machine.Begin(threads);
  for (size_t i = 0; i < text.size(); ++i) {
    GrammarThreads copy = threads;
    ASSERT_EQ(copy.Fault(program), nullptr);
    ASSERT_TRUE(machine.Advance(text.substr(i), copy)) << i;
    ASSERT_TRUE(machine.MustEnd(copy));
    ASSERT_FALSE(machine.MayEnd(threads));
    ASSERT_TRUE(machine.Advance(text.substr(i, 1), threads));
  }
}

TEST(Grammar, CodeComesBackOrIsRefused) {
  const Grammar letter = Letter();
  EXPECT_EQ(*Grammar::FromCode(letter.code()), letter);
  EXPECT_FALSE(Grammar::FromCode("\x81").ok());
  EXPECT_FALSE(Grammar::FromCode(std::string(Grammar::kMostBytes + 1, 'a')).ok());
  GrammarBuilder b;
  const auto result = b.Literal(std::string(Grammar::kMostBytes, 'a')).Accept().Finish();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().message(), "the grammar takes more than the 8188 bytes that it may");
}

// Whatever the bytes are, every call ends and stays within bounds.
TEST(Grammar, AnyBytes) {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    GrammarProgram program;
    program.size = random() % 4 == 0 ? static_cast<uint32_t>(random()) : static_cast<uint32_t>(random() % 64);
    for (size_t i = 0; i < 64; ++i) program.code[i] = static_cast<uint8_t>(random() % 3 == 0 ? random() : 0x80 + random() % 13);
    (void)program.Fault();
    const GrammarMachine machine(program);
    GrammarThreads threads;
    if (random() % 2 == 0) {
      machine.Begin(threads);
    } else {
      threads.count = static_cast<uint16_t>(random());
      threads.used = static_cast<uint16_t>(random());
      for (uint16_t& word : threads.words) word = static_cast<uint16_t>(random() % 64);
    }
    (void)threads.Fault(program);
    for (int i = 0; i < 8; ++i) (void)machine.Advance(std::string(1, static_cast<char>(random())), threads);
    (void)machine.MayEnd(threads);
    (void)machine.MustEnd(threads);
  }
}

}  // namespace
}  // namespace reprise
