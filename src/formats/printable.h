// Printable: bytes from a file as text that is safe in a message or a terminal.
#pragma once

#include <string>
#include <string_view>

namespace reprise {

// At most about `max_chars` characters: printable ASCII as it is, everything else as \xNN, what is left over as "...".
inline std::string Printable(std::string_view bytes, size_t max_chars = 80) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    if (text.size() >= max_chars) return text + "...";
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte <= 0x7e) {
      text += c;
    } else {
      text += "\\x";
      text += kDigits[byte >> 4];
      text += kDigits[byte & 15];
    }
  }
  return text;
}

inline bool IsPrintableAscii(std::string_view bytes) {
  for (const char c : bytes) {
    if (c < 0x20 || c > 0x7e) return false;
  }
  return true;
}

}  // namespace reprise
