// UTF-8 a byte at a time, for text whose pieces end anywhere. Bytes that cannot be part of a character become U+FFFD, one for each maximal
// ill-formed run (Unicode 15, section 3.9, "U+FFFD Substitution of Maximal Subparts"; what Python and Rust do).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace reprise {

// The first bytes of a character whose last ones are still to come. A POD, so that it can be a state; any bytes are safe to decode with:
// what is not the beginning of a character counts as nothing.
struct PartialCharacter {
  uint8_t count = 0;
  uint8_t bytes[3] = {0, 0, 0};

  bool IsBeginning() const;  // whether it is empty or begins a character; then bytes past `count` are zero
  bool operator==(const PartialCharacter&) const = default;
};

// What one byte completed: nothing, a character, U+FFFD, or U+FFFD and then one of these.
struct Utf8Output {
  uint8_t size = 0;
  char bytes[6];

  std::string_view view() const { return {bytes, size}; }
};

Utf8Output Utf8Push(PartialCharacter& partial, uint8_t byte);
Utf8Output Utf8Finish(PartialCharacter& partial);  // the end of the text: U+FFFD when a character is incomplete

// Appends the characters that `bytes` completes.
void Utf8Append(PartialCharacter& partial, std::string_view bytes, std::string& text);

bool IsUtf8(std::string_view text);

}  // namespace reprise
