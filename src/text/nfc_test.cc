#include "text/nfc.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace reprise {
namespace {

// Expected as Python's unicodedata has it.
TEST(Nfc, ComposesLettersAndMarks) {
  const std::pair<std::string, std::string> cases[] = {
      {"", ""},
      {"plain", "plain"},
      {"cafe\u0301", "caf\u00e9"},
      {"caf\u00e9", "caf\u00e9"},
      {"\u00e9\u0323", "\u1eb9\u0301"},                   // by the order of marks, not of the text
      {"q\u0307\u0323", "q\u0323\u0307"},                 // which counts where nothing is composed too
      {"A\u030a \u212b \u2126", "\u00c5 \u00c5 \u03a9"},  // signs that stand for a letter
      {"\u1112\u1161\u11ab", "\ud55c"},                   // Hangul, of letters
      {"\u304b\u3099", "\u304c"},
      {"\u0958", "\u0915\u093c"},          // kept apart, as the standard has it for these
      {"\ufb01 \u00bd", "\ufb01 \u00bd"},  // compatible is not canonical
      {"\u0301a", "\u0301a"},
      {">\u0338", "\u226f"},
      {"a\u0300\u0301\u0302\u0327b", "\u00e0\u0327\u0301\u0302b"},
      {"\u4e2d\u6587e\u0301\u4e2d", "\u4e2d\u6587\u00e9\u4e2d"},
      {std::string("e\0\u0301", 4), std::string("e\0\u0301", 4)},
  };
  for (const auto& [text, composed] : cases) {
    EXPECT_EQ(ToNfc(text), composed) << text;
    EXPECT_EQ(ToNfc(composed), composed) << text;
    EXPECT_TRUE(text == composed || !IsPlainlyNfc(text)) << text;
  }
  EXPECT_TRUE(IsPlainlyNfc("caf\u00e9 \u02ff"));
  EXPECT_FALSE(IsPlainlyNfc("\u0300"));
}

TEST(Nfc, LeavesBytesThatAreNoUtf8) {
  EXPECT_EQ(ToNfc("e\xff\u0301"), "e\xff\u0301");
  EXPECT_EQ(ToNfc("e\xcc\u0301"), "e\xcc\u0301");
  EXPECT_EQ(ToNfc("\xa9\u0301"), "\xa9\u0301") << "the end of a character that does not begin";
  EXPECT_EQ(ToNfc("e\u0301\xed\xa0\x80o\u0301"), "\u00e9\xed\xa0\x80\u00f3");
  EXPECT_EQ(ToNfc("e\u0301\xcc"), "\u00e9\xcc");
}

// Sorting marks one by one past all others would take hours.
TEST(Nfc, TakesAnyNumberOfMarks) {
  constexpr int kMarks = 200'000;
  std::string above, below, both;
  for (int i = 0; i < kMarks; ++i) {
    above += "\u0315";
    below += "\u0323";
    both += "\u0315\u0323";
  }
  EXPECT_EQ(ToNfc("q" + above + below), "q" + below + above);
  EXPECT_EQ(ToNfc("q" + both), "q" + below + above);
  EXPECT_EQ(ToNfc("e\u0301" + below), "\u1eb9" + below.substr(2) + "\u0301");
}

}  // namespace
}  // namespace reprise
