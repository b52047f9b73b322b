#include "text/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace reprise {
namespace {

constexpr uint32_t kShiftedBase = 0x100;
constexpr uint32_t kShiftedCount = 68;

constexpr bool StandsForItself(uint32_t byte) { return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae; }

struct Tables {
  std::array<uint16_t, 256> code{};              // of each byte
  std::array<uint8_t, kShiftedCount> shifted{};  // the byte that U+0100 + i stands for
};

constexpr Tables MakeTables() {
  Tables t;
  uint32_t next = 0;
  for (uint32_t byte = 0; byte < 256; byte++) {
    if (StandsForItself(byte)) {
      t.code[byte] = static_cast<uint16_t>(byte);
    } else {
      t.code[byte] = static_cast<uint16_t>(kShiftedBase + next);
      t.shifted[next++] = static_cast<uint8_t>(byte);
    }
  }
  return t;
}

constexpr Tables kTables = MakeTables();
static_assert(kTables.code[' '] == 0x120 && kTables.code['\n'] == 0x10a && kTables.code[0xad] == 0x143);

}  // namespace

bool AppendBytesOfSpelling(std::string_view spelling, std::string& bytes) {
  // Every character of the alphabet lies below U+0800, so it is one byte or two; a general decoder would cost half of loading a vocabulary.
  const size_t before = bytes.size();
  for (size_t i = 0; i < spelling.size(); i++) {
    uint32_t code = static_cast<uint8_t>(spelling[i]);
    if (code >= 0x80) {
      const uint32_t next = i + 1 < spelling.size() ? static_cast<uint8_t>(spelling[++i]) : 0;
      const bool two_bytes = code >= 0xc2 && code < 0xe0 && (next & 0xc0) == 0x80;
      code = two_bytes ? (code & 0x1f) << 6 | (next & 0x3f) : 0xffff;
    }
    if (code < 0x100 && StandsForItself(code)) {
      bytes += static_cast<char>(code);
    } else if (code >= kShiftedBase && code < kShiftedBase + kShiftedCount) {
      bytes += static_cast<char>(kTables.shifted[code - kShiftedBase]);
    } else {
      bytes.resize(before);
      return false;
    }
  }
  return true;
}

void AppendSpellingOfBytes(std::string_view bytes, std::string& spelling) {
  for (char byte : bytes) AppendUtf8(kTables.code[static_cast<uint8_t>(byte)], spelling);
}

}  // namespace reprise
