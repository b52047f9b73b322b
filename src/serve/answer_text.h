// Looking through text that is still coming, for those that take answers apart.
#pragma once

#include <algorithm>
#include <string_view>

namespace reprise::serve {

inline bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

inline size_t SkipSpace(std::string_view text, size_t at) {
  while (at < text.size() && IsSpace(text[at])) ++at;
  return at;
}

// How much of the end of `text` may be the beginning of `tag`.
inline size_t BeginsAtEnd(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (text.ends_with(tag.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace reprise::serve
