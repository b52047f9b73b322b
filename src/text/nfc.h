// Normalization Form C (Unicode Standard Annex 15): letters and the marks on them as the one character that stands for both, where there is one.
// Qwen's tokenizers encode text in this form alone.
#pragma once

#include <string>
#include <string_view>

namespace reprise {

// Whether `text` surely is in that form already: it has no character past U+02FF. Fast.
bool IsPlainlyNfc(std::string_view text);

// Bytes that are not UTF-8 stay as they are, and nothing is joined across them. Time is near-linear in the text for any text, however many marks
// stand on one letter. Pure and thread-safe. Follows utf8proc's version of Unicode: what is newer stays as it is.
std::string ToNfc(std::string_view text);

}  // namespace reprise
