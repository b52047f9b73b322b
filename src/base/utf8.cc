#include "base/utf8.h"

#include <cstring>

namespace reprise {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

void Put(Utf8Output& out, std::string_view text) {
  std::memcpy(out.bytes + out.size, text.data(), text.size());
  out.size = static_cast<uint8_t>(out.size + text.size());
}

// Bytes of the character that `lead` begins, 0 when it begins none.
int Length(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // a continuation, or an overlong form of ASCII
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;  // nothing lies above U+10FFFF
}

// The second byte's range is what excludes overlong forms, surrogates and what lies above U+10FFFF.
bool Continues(uint8_t lead, int index, uint8_t byte) {
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (index == 1) {
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  }
  return byte >= low && byte <= high;
}

}  // namespace

bool PartialCharacter::IsBeginning() const {
  if (count > 3) return false;
  for (int i = count; i < 3; ++i) {
    if (bytes[i] != 0) return false;
  }
  if (count == 0) return true;
  if (Length(bytes[0]) <= count) return false;
  for (int i = 1; i < count; ++i) {
    if (!Continues(bytes[0], i, bytes[i])) return false;
  }
  return true;
}

Utf8Output Utf8Push(PartialCharacter& partial, uint8_t byte) {
  Utf8Output out;
  if (!partial.IsBeginning()) partial = {};
  if (partial.count > 0) {
    if (Continues(partial.bytes[0], partial.count, byte)) {
      if (partial.count + 1 < Length(partial.bytes[0])) {
        partial.bytes[partial.count++] = byte;
        return out;
      }
      for (int i = 0; i < partial.count; ++i) out.bytes[out.size++] = static_cast<char>(partial.bytes[i]);
      out.bytes[out.size++] = static_cast<char>(byte);
      partial = {};
      return out;
    }
    partial = {};
    Put(out, kReplacement);
  }
  switch (Length(byte)) {
    case 0: Put(out, kReplacement); break;
    case 1: out.bytes[out.size++] = static_cast<char>(byte); break;
    default: partial.bytes[partial.count++] = byte;
  }
  return out;
}

Utf8Output Utf8Finish(PartialCharacter& partial) {
  Utf8Output out;
  if (partial.count > 0 && partial.IsBeginning()) Put(out, kReplacement);
  partial = {};
  return out;
}

void Utf8Append(PartialCharacter& partial, std::string_view bytes, std::string& text) {
  for (const char byte : bytes) text += Utf8Push(partial, static_cast<uint8_t>(byte)).view();
}

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const auto length = static_cast<size_t>(Length(lead));
    if (length == 0 || length > text.size() - i) return false;
    for (size_t k = 1; k < length; ++k) {
      if (!Continues(lead, static_cast<int>(k), static_cast<uint8_t>(text[i + k]))) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace reprise
