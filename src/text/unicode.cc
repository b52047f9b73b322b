#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

namespace reprise {
namespace {

struct ClassRange {
  char32_t first, last;
  CharClass cls;
};

constexpr CharClass kL = CharClass::kLetter, kM = CharClass::kMark, kN = CharClass::kNumber;

// Assigned in Unicode 15.1 and 16.0, after the tables of utf8proc 2.8 (15.0). A newer utf8proc knows them; the table is then idle.
constexpr ClassRange kNewerRanges[] = {
    {0x897, 0x897, kM},     {0x1c89, 0x1c8a, kL},   {0xa7cb, 0xa7cd, kL},   {0xa7da, 0xa7dc, kL},   {0x105c0, 0x105f3, kL},
    {0x10d40, 0x10d49, kN}, {0x10d4a, 0x10d65, kL}, {0x10d69, 0x10d6d, kM}, {0x10d6f, 0x10d85, kL}, {0x10ec2, 0x10ec4, kL},
    {0x10efc, 0x10efc, kM}, {0x11380, 0x11389, kL}, {0x1138b, 0x1138b, kL}, {0x1138e, 0x1138e, kL}, {0x11390, 0x113b5, kL},
    {0x113b7, 0x113b7, kL}, {0x113b8, 0x113c0, kM}, {0x113c2, 0x113c2, kM}, {0x113c5, 0x113c5, kM}, {0x113c7, 0x113ca, kM},
    {0x113cc, 0x113d0, kM}, {0x113d1, 0x113d1, kL}, {0x113d2, 0x113d2, kM}, {0x113d3, 0x113d3, kL}, {0x113e1, 0x113e2, kM},
    {0x116d0, 0x116e3, kN}, {0x11bc0, 0x11be0, kL}, {0x11bf0, 0x11bf9, kN}, {0x11f5a, 0x11f5a, kM}, {0x13460, 0x143fa, kL},
    {0x16100, 0x1611d, kL}, {0x1611e, 0x1612f, kM}, {0x16130, 0x16139, kN}, {0x16d40, 0x16d6c, kL}, {0x16d70, 0x16d79, kN},
    {0x18cff, 0x18cff, kL}, {0x1ccf0, 0x1ccf9, kN}, {0x1e5d0, 0x1e5ed, kL}, {0x1e5ee, 0x1e5ef, kM}, {0x1e5f0, 0x1e5f0, kL},
    {0x1e5f1, 0x1e5fa, kN}, {0x2ebf0, 0x2ee5d, kL},
};

// Of the letters among them, those that have a case.
struct CaseRange {
  char32_t first, last;
  LetterCase letter_case;
};
constexpr LetterCase kUpper = LetterCase::kUpper, kLower = LetterCase::kLower;
constexpr CaseRange kNewerCases[] = {
    {0x1c89, 0x1c89, kUpper}, {0x1c8a, 0x1c8a, kLower}, {0xa7cb, 0xa7cc, kUpper},   {0xa7cd, 0xa7cd, kLower},   {0xa7da, 0xa7da, kUpper},
    {0xa7db, 0xa7db, kLower}, {0xa7dc, 0xa7dc, kUpper}, {0x10d50, 0x10d65, kUpper}, {0x10d70, 0x10d85, kLower},
};

// White_Space is a closed list; Unicode promises nothing, but it has last changed in 2013.
bool IsWideSpace(char32_t c) {
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

template <class Range, size_t kSize>
const Range* RangeOf(const Range (&ranges)[kSize], char32_t code) {
  const auto* range = std::lower_bound(std::begin(ranges), std::end(ranges), code, [](const Range& r, char32_t c) { return r.last < c; });
  return range != std::end(ranges) && code >= range->first ? range : nullptr;
}

CharClass NewerClass(char32_t code) {
  const ClassRange* range = RangeOf(kNewerRanges, code);
  return range != nullptr ? range->cls : CharClass::kOther;
}

bool IsStripped(char32_t c) {
  const CharClass cls = ClassOf(c);
  return cls == CharClass::kSpace || cls == CharClass::kNewline || (c >= 0x1c && c <= 0x1f);
}

}  // namespace

DecodedChar DecodeUtf8(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {lead, 1, true};
  constexpr DecodedChar kInvalid = {0xfffd, 1, false};
  // The second byte's range is what rules out overlong forms, surrogates and code points past U+10FFFF.
  uint32_t length;
  uint8_t low = 0x80, high = 0xbf;
  char32_t code;
  if (lead < 0xc2 || lead >= 0xf5) return kInvalid;
  if (lead < 0xe0) {
    length = 2;
    code = lead & 0x1f;
  } else if (lead < 0xf0) {
    length = 3;
    code = lead & 0x0f;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else {
    length = 4;
    code = lead & 0x07;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  }
  if (bytes.size() < length || at(1) < low || at(1) > high) return kInvalid;
  for (uint32_t i = 1; i < length; i++) {
    if ((at(i) & 0xc0) != 0x80) return kInvalid;
    code = code << 6 | (at(i) & 0x3f);
  }
  return {code, length, true};
}

void AppendUtf8(char32_t code, std::string& out) {
  if (code < 0x80) {
    out += static_cast<char>(code);
    return;
  }
  if (code < 0x800) {
    out += static_cast<char>(0xc0 | code >> 6);
  } else {
    if (code < 0x10000) {
      out += static_cast<char>(0xe0 | code >> 12);
    } else {
      out += static_cast<char>(0xf0 | code >> 18);
      out += static_cast<char>(0x80 | (code >> 12 & 0x3f));
    }
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
  }
  out += static_cast<char>(0x80 | (code & 0x3f));
}

CharClass ClassOf(char32_t code) {
  if (code == '\r' || code == '\n') return CharClass::kNewline;
  if (code == ' ' || (code >= 0x09 && code <= 0x0c) || IsWideSpace(code)) return CharClass::kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return CharClass::kLetter;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return CharClass::kMark;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return CharClass::kNumber;
    case UTF8PROC_CATEGORY_CN: return NewerClass(code);
    default: return CharClass::kOther;
  }
}

LetterCase CaseOf(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return LetterCase::kUpper;
    case UTF8PROC_CATEGORY_LL: return LetterCase::kLower;
    case UTF8PROC_CATEGORY_CN: {
      const CaseRange* range = RangeOf(kNewerCases, code);
      return range != nullptr ? range->letter_case : LetterCase::kNone;
    }
    default: return LetterCase::kNone;
  }
}

std::string_view StripSpace(std::string_view text) {
  while (!text.empty()) {
    const DecodedChar c = DecodeUtf8(text);
    if (!c.valid || !IsStripped(c.code)) break;
    text.remove_prefix(c.length);
  }
  while (!text.empty()) {
    // White space is one to three bytes long: step back over continuation bytes to the character's start.
    size_t start = text.size() - 1;
    while (start > 0 && text.size() - start < 3 && (static_cast<uint8_t>(text[start]) & 0xc0) == 0x80) start--;
    const DecodedChar c = DecodeUtf8(text.substr(start));
    if (!c.valid || start + c.length != text.size() || !IsStripped(c.code)) break;
    text.remove_suffix(c.length);
  }
  return text;
}

}  // namespace reprise
