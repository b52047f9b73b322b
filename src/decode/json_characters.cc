#include "decode/json_characters.h"

#include <algorithm>
#include <string_view>

namespace reprise {
namespace {

constexpr char32_t kLastShort = 0x7f;  // of the characters of one byte
constexpr char kHexadecimal[] = "0123456789abcdef";

// Escapes of one letter: the letter, and what it stands for.
constexpr std::string_view kLetters = "\"\\bfnrt", kLettered = "\"\\\b\f\n\r\t";

bool IsPlain(char32_t character) { return character > kLastShort || IsPlainText(static_cast<uint8_t>(character)); }

// As a choice between bytes a set is one thread of a grammar; as ranges it is shorter where it is large.
constexpr size_t kMostListed = 32;

}  // namespace

const CodePoints& JsonCharacters::Plain() {
  static const CodePoints kPlain = [] {
    CodePoints plain{{kLastShort + 1, CodePoints::kLast}};
    for (char32_t character = 0; character <= kLastShort; ++character) {
      if (IsPlain(character)) plain.Add(character, character);
    }
    return plain;
  }();
  return kPlain;
}

std::string JsonCharacters::Form(char32_t character) {
  const auto byte = [](char32_t value) { return static_cast<char>(value); };
  if (character <= kLastShort) {
    if (IsPlain(character)) return {byte(character)};
    if (const size_t letter = kLettered.find(byte(character)); letter != std::string_view::npos) return {'\\', kLetters[letter]};
    return {'\\', 'u', '0', '0', kHexadecimal[character / 16], kHexadecimal[character % 16]};
  }
  const auto tail = [&](int digit) { return byte(0x80 | (character >> 6 * digit & 0x3f)); };
  if (character < 0x800) return {byte(0xc0 | character >> 6), tail(0)};
  if (character < 0x10000) return {byte(0xe0 | character >> 12), tail(1), tail(0)};
  return {byte(0xf0 | character >> 18), tail(2), tail(1), tail(0)};
}

void JsonCharacters::Write(const CodePoints& set) {
  if (set.is_one()) {
    builder_.Literal(Form(set.ranges()[0].first));
  } else if (set.ranges().size() == 1 && set.ranges()[0].last <= kLastShort && Plain().Contains(set)) {
    builder_.Range(static_cast<uint8_t>(set.ranges()[0].first), static_cast<uint8_t>(set.ranges()[0].last));
  } else {
    const auto [at, is_new] = rules_.try_emplace(set, -1);
    if (is_new) at->second = builder_.Rule([this, set] { WriteAll(set); });
    builder_.Call(at->second);
  }
}

void JsonCharacters::WriteRun(const CodePoints& set) {
  const GrammarBuilder::Label more = builder_.NewLabel(), end = builder_.NewLabel();
  builder_.Place(more);
  CodePoints others = set;
  if (set.Contains(Plain())) {
    builder_.Text();
    others = set.Without(Plain());
  }
  if (!others.empty()) {
    builder_.Split(end);
    Write(others);
    builder_.Jump(more);
  }
  builder_.Place(end);
}

void JsonCharacters::WriteAll(const CodePoints& set) {
  const CodePoints escaped = set.Without(Plain());
  const CodePoints plain = set.Within(0, kLastShort).Without(escaped);
  const CodePoints longer = set.Within(kLastShort + 1, CodePoints::kLast);
  const size_t plains = plain.size() > kMostListed ? plain.ranges().size() : plain.empty() ? 0 : 1;
  const size_t escapes = escaped.empty() ? 0 : 1;
  builder_.OneOf(plains + escapes + (longer.empty() ? 0 : 1), [&](size_t i) {
    if (i >= plains) {
      if (i - plains < escapes) return WriteEscapes(escaped);
      // Many sets have the same longer characters: most have all.
      return longer == set ? WriteLonger(longer) : Write(longer);
    }
    if (plains > 1 || plain.ranges().size() == 1) {
      builder_.Range(static_cast<uint8_t>(plain.ranges()[i].first), static_cast<uint8_t>(plain.ranges()[i].last));
      return;
    }
    std::string bytes;
    for (const auto& range : plain.ranges()) {
      for (char32_t character = range.first; character <= range.last; ++character) bytes += static_cast<char>(character);
    }
    builder_.Set(bytes);
  });
}

void JsonCharacters::WriteEscapes(const CodePoints& set) {
  std::string letters;
  std::string codes[8];  // by the first digit, the second ones
  for (const auto& range : set.ranges()) {
    for (char32_t character = range.first; character <= range.last; ++character) {
      const std::string form = Form(character);
      if (form.size() == 2) {
        letters += form[1];
      } else {
        codes[character / 16] += form.back();
      }
    }
  }
  const auto coded = static_cast<size_t>(std::count_if(std::begin(codes), std::end(codes), [](const auto& code) { return !code.empty(); }));
  builder_.Literal("\\").OneOf((letters.empty() ? 0 : 1) + (coded == 0 ? 0 : 1), [&](size_t i) {
    if (i == 0 && !letters.empty()) {
      builder_.Set(letters);
      return;
    }
    builder_.Literal("u00");
    size_t first = 0;
    builder_.OneOf(coded, [&](size_t) {
      while (codes[first].empty()) ++first;
      builder_.Literal({&kHexadecimal[first], 1}).Set(codes[first]);
      ++first;
    });
  });
}

// In UTF-8, by how many bytes they take.
void JsonCharacters::WriteLonger(const CodePoints& set) {
  struct Form {
    char32_t first, last;
    int others;  // after the first byte
    uint8_t byte;
  };
  static constexpr Form kForms[] = {
      {.first = 0x80, .last = 0x7ff, .others = 1, .byte = 0xc0},
      {.first = 0x800, .last = 0xffff, .others = 2, .byte = 0xe0},
      {.first = 0x10000, .last = CodePoints::kLast, .others = 3, .byte = 0xf0},
  };
  std::vector<const Form*> forms;
  for (const Form& form : kForms) {
    if (!set.Within(form.first, form.last).empty()) forms.push_back(&form);
  }
  builder_.OneOf(forms.size(),
                 [&](size_t i) { WriteDigits(set.Within(forms[i]->first, forms[i]->last).ranges(), forms[i]->others, forms[i]->byte); });
}

// Of numbers in these ranges the digits to base 64: the first added to `first`, and `others` after it. First digits after which the same may follow
// are written as one range.
void JsonCharacters::WriteDigits(const std::vector<CodePoints::Range>& numbers, int others, uint8_t first) {
  struct Group {
    char32_t digit, last;
    std::vector<CodePoints::Range> rest;
  };
  const int shift = 6 * others;
  std::vector<Group> groups;
  for (char32_t digit = numbers.front().first >> shift; digit <= numbers.back().last >> shift; ++digit) {
    const char32_t base = digit << shift, last = base + (char32_t{1} << shift) - 1;
    std::vector<CodePoints::Range> rest;
    for (const auto& range : numbers) {
      if (range.first <= last && range.last >= base)
        rest.push_back({std::max(range.first, base) - base, std::min(range.last, last) - base});
    }
    if (rest.empty()) continue;
    if (!groups.empty() && groups.back().last + 1 == digit && groups.back().rest == rest) {
      groups.back().last = digit;
    } else {
      groups.push_back({digit, digit, std::move(rest)});
    }
  }
  builder_.OneOf(groups.size(), [&](size_t i) {
    builder_.Range(static_cast<uint8_t>(first + groups[i].digit), static_cast<uint8_t>(first + groups[i].last));
    if (others > 0) WriteDigits(groups[i].rest, others - 1, 0x80);
  });
}

}  // namespace reprise
