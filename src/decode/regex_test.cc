#include "decode/regex.h"

#include <gtest/gtest.h>

namespace reprise {
namespace {

TEST(Regex, SaysWhatIsMalformed) {
  const std::pair<const char*, const char*> kCases[] = {
      {"(a", "'(' that is not closed at byte 0"},
      {"a)", "')' closes nothing at byte 1"},
      {"x[a", "'[' that is not closed at byte 1"},
      {"[b-a]", "a range whose end comes before its beginning at byte 1"},
      {"[]", "a class of no character at byte 0"},
      {"[^\\s\\S]", "a class of no character at byte 0"},
      {"*a", "a repeat of nothing at byte 0"},
      {"a**", "a repeat of nothing at byte 2"},
      {"a++", "a repeat of nothing at byte 2"},
      {"(a|?)", "a repeat of nothing at byte 3"},
      {"^*", "a repeat of nothing at byte 1"},
      {"a{2}{3}", "a repeat of nothing at byte 4"},
      {"a{3,2}", "a repeat of at least more times than at most at byte 1"},
      {"a\\", "'\\' of nothing at byte 1"},
      {"\\Z", "'\\Z', which means nothing, at byte 0"},
      {"[\\B]", "'\\B', which means nothing, at byte 1"},
      {"\\01", "'\\0', which means nothing, at byte 0"},
      {"\\x4", "an escape of too few digits at byte 0"},
      {"\\u12g4", "an escape of too few digits at byte 0"},
      {"\\u{}", "an escape of no character at byte 0"},
      {"\\u{110000}", "an escape of no character at byte 0"},
      {"\\u{1", "an escape of no character at byte 0"},
      {"(?<1>a)", "what is no name of a group at byte 3"},
      {"(?<a", "what is no name of a group at byte 3"},
      {"\xff", "bytes that are no UTF-8"},
  };
  for (const auto& [pattern, says] : kCases) {
    const auto regex = ParsePattern(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_EQ(regex.status().code(), StatusCode::kInvalidArgument) << pattern;
    EXPECT_EQ(regex.status().message(), says) << pattern;
  }
}

TEST(Regex, SaysWhatIsNotUnderstood) {
  const std::pair<const char*, const char*> kCases[] = {
      {"a(?=b)", "'(?=', which looks around, at byte 1"},
      {"(?!b)", "'(?!', which looks around, at byte 0"},
      {"(?<=b)", "'(?<=', which looks around, at byte 0"},
      {"(?<!b)", "'(?<!', which looks around, at byte 0"},
      {"(?i:b)", "a group of an unknown kind at byte 0"},
      {"\\bword", "'\\b', which looks around, at byte 0"},
      {"\\B", "'\\B', which looks around, at byte 0"},
      {"(a)\\1", "'\\1', which refers back, at byte 3"},
      {"(?<n>a)\\k<n>", "'\\k', which refers back, at byte 7"},
      {"\\p{L}", "'\\p', a property of Unicode, at byte 0"},
      {"a^b", "'^' after what must come before the beginning at byte 1"},
      {"a$b", "more after '$' at byte 2"},
      {"(^a)b", "'^' or '$' in a group that is not all of an alternative at byte 0"},
      {"a(b|c$)", "'^' or '$' in a group that is not all of an alternative at byte 1"},
      {"(a$)*", "'^' or '$' in a group that is not all of an alternative at byte 0"},
      {"a{65535}", "more than 65534 times at byte 1"},
      {"a{0,99999999999999999999}", "more than 65534 times at byte 1"},
      {"[\\ud800-\\udfff]", "half of a surrogate pair at byte 1"},
  };
  for (const auto& [pattern, says] : kCases) {
    const auto regex = ParsePattern(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_EQ(regex.status().code(), StatusCode::kUnsupported) << pattern;
    EXPECT_EQ(regex.status().message(), says) << pattern;
  }
}

// Trees say of themselves what the writing of grammars relies on.
TEST(Regex, TreesAreSimple) {
  const auto of = [](const char* pattern) { return *ParsePattern(pattern); };
  EXPECT_EQ(of("^$").kind, Regex::Kind::kEmpty);
  EXPECT_EQ(of("^(){3}(|)(a{0})*$").kind, Regex::Kind::kEmpty);
  EXPECT_EQ(of("^a$").kind, Regex::Kind::kCharacter);
  EXPECT_EQ(of("^(a?){2,5}$").least, 0);
  EXPECT_EQ(of("^(a{1,2}){1}$").counters, 1);
  EXPECT_EQ(of("^(a+b*)?$").counters, 0);
  EXPECT_EQ(of("a*").kind, Regex::Kind::kRepeat) << "found in every text";
  EXPECT_EQ(of("^a|b").kind, Regex::Kind::kChoice);
}

}  // namespace
}  // namespace reprise
