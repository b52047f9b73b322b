#include "base/utf8.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace reprise {
namespace {

std::string Decode(std::string_view bytes) {
  PartialCharacter partial;
  std::string text;
  Utf8Append(partial, bytes, text);
  text += Utf8Finish(partial).view();
  EXPECT_EQ(partial, PartialCharacter());
  return text;
}

TEST(Utf8, PassesWellFormedTextThrough) {
  const std::string text = "plain, \xC3\xA9, \xE2\x82\xAC, \xF0\x9F\x98\x80, \xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF";
  EXPECT_EQ(Decode(text), text);
  EXPECT_TRUE(IsUtf8(text));
  EXPECT_TRUE(IsUtf8(""));
}

// Expected values: Python's bytes.decode("utf-8", errors="replace").
TEST(Utf8, ReplacesEachMaximalIllFormedRunOnce) {
  const struct {
    std::string_view bytes;
    std::string_view text;
  } cases[] = {
      {"\x80", "\uFFFD"},
      {"\xC0\xAF", "\uFFFD\uFFFD"},                      // overlong
      {"\xE0\x80\xAF", "\uFFFD\uFFFD\uFFFD"},            // overlong
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},            // a surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // above U+10FFFF
      {"\xF5\x80", "\uFFFD\uFFFD"},
      {"\xE2\x82"
       "A",
       "\uFFFD"
       "A"},  // cut short: one run
      {"\xF0\x9F\x98", "\uFFFD"},
      {"\xF0\x9F\x98\xE2\x82\xAC", "\uFFFD\u20AC"},
      {"a\xF1\x80\x80\xE1\x80\xC2"
       "b\x80"
       "c\x80\xBF"
       "d",
       "a\uFFFD\uFFFD\uFFFD"
       "b\uFFFD"
       "c\uFFFD\uFFFD"
       "d"},  // the Standard's table 3-8
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Decode(c.bytes), c.text);
    EXPECT_FALSE(IsUtf8(c.bytes));
  }
}

TEST(Utf8, HostilePartialCountsAsNothing) {
  for (const PartialCharacter hostile :
       {PartialCharacter{200, {0xE2, 0x82, 0}}, PartialCharacter{4, {0xF0, 0x9F, 0x98}}, PartialCharacter{1, {'a', 0, 0}},
        PartialCharacter{2, {0xE0, 0x80, 0}}, PartialCharacter{3, {0xE2, 0x82, 0xAC}}, PartialCharacter{1, {0xE2, 0x82, 0}},
        PartialCharacter{0, {1, 0, 0}}}) {
    EXPECT_FALSE(hostile.IsBeginning());
    PartialCharacter partial = hostile;
    EXPECT_EQ(Utf8Push(partial, 'x').view(), "x");
    partial = hostile;
    EXPECT_EQ(Utf8Finish(partial).view(), "");
    EXPECT_EQ(partial, PartialCharacter());
  }
}

RC_GTEST_PROP(Utf8, AnyBytesGiveWellFormedTextHoweverTheyAreCut, (const std::string& bytes)) {
  const std::string whole = Decode(bytes);
  RC_ASSERT(IsUtf8(whole));
  RC_ASSERT(IsUtf8(bytes) == (whole == bytes));
  PartialCharacter partial;
  std::string pieces;
  for (const char byte : bytes) {
    const std::string out(Utf8Push(partial, static_cast<uint8_t>(byte)).view());
    RC_ASSERT(IsUtf8(out));
    RC_ASSERT(partial.IsBeginning());
    pieces += out;
  }
  pieces += Utf8Finish(partial).view();
  RC_ASSERT(pieces == whole);
}

}  // namespace
}  // namespace reprise
