#include "text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "text/unicode.h"

namespace reprise {
namespace {

constexpr char32_t kFirstHigh = 0x300;
constexpr unsigned char kFirstHighByte = 0xcc;  // which everything from there on begins with, or a greater one

bool IsHigh(char c) { return static_cast<unsigned char>(c) >= kFirstHighByte; }

// Of a code point that stands for itself; marks have others.
utf8proc_propval_t MarkClass(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

void AppendDecomposed(char32_t code, std::vector<utf8proc_int32_t>& out) {
  utf8proc_int32_t parts[8];  // no canonical decomposition has more than four
  int last_class = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts, std::size(parts),
                                                         static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &last_class);
  if (count < 1 || count > static_cast<utf8proc_ssize_t>(std::size(parts))) {
    out.push_back(static_cast<utf8proc_int32_t>(code));
  } else {
    out.insert(out.end(), parts, parts + count);
  }
}

// Marks that follow one another in the order of their classes. utf8proc would take time quadratic in their number.
void OrderMarks(std::vector<utf8proc_int32_t>& codes) {
  const auto stands = [](utf8proc_int32_t code) { return MarkClass(code) == 0; };
  for (auto begin = codes.begin(); begin != codes.end();) {
    begin = std::find_if_not(begin, codes.end(), stands);
    const auto end = std::find_if(begin, codes.end(), stands);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) { return MarkClass(a) < MarkClass(b); });
    begin = end;
  }
}

void AppendComposed(std::vector<utf8proc_int32_t>& codes, std::string& out) {
  OrderMarks(codes);
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                                                          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  for (utf8proc_ssize_t i = 0; i < count; ++i) AppendUtf8(static_cast<char32_t>(codes[static_cast<size_t>(i)]), out);
}

// Where the character begins that ends before `high`, the first high byte; `high` itself where none does.
size_t BaseBefore(std::string_view text, size_t high) {
  for (const size_t length : {1, 2}) {
    if (length > high) break;
    const DecodedChar base = DecodeUtf8(text.substr(high - length));
    if (base.valid && base.length == length) return high - length;
  }
  return high;
}

}  // namespace

bool IsPlainlyNfc(std::string_view text) { return std::none_of(text.begin(), text.end(), IsHigh); }

std::string ToNfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> codes;
  while (!text.empty()) {
    const auto high = static_cast<size_t>(std::find_if(text.begin(), text.end(), IsHigh) - text.begin());
    const size_t base = high == text.size() ? high : BaseBefore(text, high);
    out += text.substr(0, base);
    text.remove_prefix(base);
    // A stretch up to the next character below U+0300: these neither change by themselves nor join what stands before them.
    codes.clear();
    DecodedChar next{};
    for (bool first = true; !text.empty(); first = false, text.remove_prefix(next.length)) {
      next = DecodeUtf8(text);
      if (!next.valid || (!first && next.code < kFirstHigh)) break;
      AppendDecomposed(next.code, codes);
    }
    AppendComposed(codes, out);
    if (!text.empty() && !next.valid) {
      out += text[0];
      text.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace reprise
