#include "text/unicode.h"

#include <gtest/gtest.h>

#include <string>

#include "text/byte_level.h"

namespace reprise {
namespace {

TEST(Unicode, EveryScalarValueIsWrittenAndReadBack) {
  for (char32_t code = 0; code <= 0x10ffff; code++) {
    if (code >= 0xd800 && code <= 0xdfff) continue;
    std::string text;
    AppendUtf8(code, text);
    const DecodedChar c = DecodeUtf8(text + "x");
    ASSERT_TRUE(c.valid) << std::hex << static_cast<uint32_t>(code);
    ASSERT_EQ(c.code, code);
    ASSERT_EQ(c.length, text.size());
    if (text.size() > 1) {
      ASSERT_FALSE(DecodeUtf8(text.substr(0, text.size() - 1)).valid);
    }
  }
}

TEST(Unicode, IllFormedBytesAreTakenOneByOne) {
  for (const char* text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xe4\xbd",
        "\xe4\xbdz", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xfe"}) {
    const DecodedChar c = DecodeUtf8(text);
    EXPECT_FALSE(c.valid);
    EXPECT_EQ(c.length, 1u);
  }
}

TEST(Unicode, ClassesOfUnicode16) {
  size_t counts[6] = {};
  for (char32_t code = 0; code <= 0x10ffff; code++) counts[static_cast<int>(ClassOf(code))]++;
  // Counted with the regular expressions \p{L}, \p{M}, \p{N} and \s of Hugging Face tokenizers 0.23.
  EXPECT_EQ(counts[static_cast<int>(CharClass::kLetter)], 141028u);
  EXPECT_EQ(counts[static_cast<int>(CharClass::kMark)], 2501u);
  EXPECT_EQ(counts[static_cast<int>(CharClass::kNumber)], 1911u);
  EXPECT_EQ(counts[static_cast<int>(CharClass::kSpace)] + counts[static_cast<int>(CharClass::kNewline)], 25u);
}

TEST(Unicode, CasesOfUnicode16) {
  size_t counts[3] = {};
  for (char32_t code = 0; code <= 0x10ffff; code++) counts[static_cast<int>(CaseOf(code))]++;
  // Counted with the regular expressions [\p{Lu}\p{Lt}] and \p{Ll} of Hugging Face tokenizers 0.23.
  EXPECT_EQ(counts[static_cast<int>(LetterCase::kUpper)], 1889u);
  EXPECT_EQ(counts[static_cast<int>(LetterCase::kLower)], 2258u);
  for (const char32_t code : {U'\u02b0', U'\u4e2d', U'\u0301', U'1', U' '}) EXPECT_EQ(CaseOf(code), LetterCase::kNone);
  EXPECT_EQ(CaseOf(U'\u01c5'), LetterCase::kUpper) << "a titlecase letter";
}

TEST(Unicode, StripsWhatPythonStrips) {
  EXPECT_EQ(StripSpace(""), "");
  EXPECT_EQ(StripSpace(" \t\r\n\x1c\x1f"), "");
  EXPECT_EQ(StripSpace("\xe3\x80\x80 a b\xc2\xa0\xe2\x80\xa8"), "a b");
  EXPECT_EQ(StripSpace("\xe2\x80\x8bx\x80"), "\xe2\x80\x8bx\x80");
  EXPECT_EQ(StripSpace("\x80\x80\x80\x80"), "\x80\x80\x80\x80");
}

TEST(ByteLevel, EveryByteIsSpelledAndReadBack) {
  std::string bytes, spelling, back;
  for (int b = 0; b < 256; b++) bytes += static_cast<char>(b);
  AppendSpellingOfBytes(bytes, spelling);
  EXPECT_TRUE(AppendBytesOfSpelling(spelling, back));
  EXPECT_EQ(back, bytes);
  EXPECT_EQ(spelling.substr(0, 2), "\xc4\x80");
}

TEST(ByteLevel, WhatSpellsNoByteIsRefusedWhole) {
  std::string bytes = "kept";
  for (const char* text : {"a b", "a\n", "a\xc2\xad", "a\xc5\x84", "\xe4\xbd\xa0", "a\xff", "a\xc4"}) {
    EXPECT_FALSE(AppendBytesOfSpelling(text, bytes)) << text;
    EXPECT_EQ(bytes, "kept");
  }
}

}  // namespace
}  // namespace reprise
