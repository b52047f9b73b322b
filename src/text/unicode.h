// Unicode as a tokenizer needs it: decoding one code point from untrusted bytes, and the classes that pre-tokenisers distinguish.
//
// Classes follow Unicode 16 (what Hugging Face tokenizers 0.2x matches): utf8proc's tables, with what newer versions of Unicode
// assigned added in unicode.cc. All functions are pure and thread-safe; none can fail: bytes that are not UTF-8 decode as invalid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace reprise {

// One code point at the front of some bytes. An ill-formed byte gives {U+FFFD, 1, false}: exactly one byte is consumed.
struct DecodedChar {
  char32_t code;
  uint32_t length;
  bool valid;
};

// Strict UTF-8 (no overlong forms, no surrogates, nothing past U+10FFFF). `bytes` must not be empty.
DecodedChar DecodeUtf8(std::string_view bytes);

// Appends `code` as UTF-8. `code` must be a Unicode scalar value.
void AppendUtf8(char32_t code, std::string& out);

enum class CharClass : uint8_t {
  kOther,    // punctuation, symbols, controls, unassigned
  kLetter,   // \p{L}
  kMark,     // \p{M}
  kNumber,   // \p{N}
  kSpace,    // White_Space other than \r and \n
  kNewline,  // \r and \n
};

CharClass ClassOf(char32_t code);

enum class LetterCase : uint8_t {
  kNone,   // \p{Lm}, \p{Lo}, and what is no letter
  kUpper,  // \p{Lu}, \p{Lt}
  kLower,  // \p{Ll}
};

LetterCase CaseOf(char32_t code);

// `text` without the white space at its ends, as Python's str.strip() sees it: White_Space and the separators U+001C to U+001F.
std::string_view StripSpace(std::string_view text);

}  // namespace reprise
