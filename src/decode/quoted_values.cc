#include "decode/quoted_values.h"

#include <algorithm>
#include <utility>

namespace reprise {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostDepth = 64;
constexpr size_t kMostFields = 512;

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

class Reader {
 public:
  Reader(std::string_view text, std::string_view mark) : rest_(text), mark_(mark) {}

  std::optional<Json> Read() {
    SkipSpace();
    std::optional<Json> value = Next() == '{' ? ReadObject(1) : std::nullopt;
    SkipSpace();
    return rest_.empty() ? value : std::nullopt;
  }

 private:
  void SkipSpace() {
    while (!rest_.empty() && IsSpace(rest_[0])) rest_.remove_prefix(1);
  }
  char Next() const { return rest_.empty() ? '\0' : rest_[0]; }
  bool Take(char c) {
    SkipSpace();
    if (Next() != c || rest_.empty()) return false;
    rest_.remove_prefix(1);
    return true;
  }

  std::optional<std::string_view> ReadMarked() {
    if (!rest_.starts_with(mark_)) return std::nullopt;
    const size_t end = rest_.find(mark_, mark_.size());
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view text = rest_.substr(mark_.size(), end - mark_.size());
    rest_.remove_prefix(end + mark_.size());
    return text;
  }

  // Up to one of `ends`, without the white space around it.
  std::string_view ReadBare(std::string_view ends) {
    std::string_view text = rest_.substr(0, rest_.find_first_of(ends));
    rest_.remove_prefix(text.size());
    while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
    return text;
  }

  std::optional<Json> ReadValue(int depth) {
    SkipSpace();
    if (rest_.starts_with(mark_)) {
      const auto text = ReadMarked();
      return text ? std::optional(Json(std::string(*text))) : std::nullopt;
    }
    if (Next() == '{') return depth < kMostDepth ? ReadObject(depth + 1) : std::nullopt;
    if (Next() == '[') return depth < kMostDepth ? ReadArray(depth + 1) : std::nullopt;
    const std::string_view text = ReadBare(",{}[]");
    if (text.empty()) return std::nullopt;
    Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    return value.is_discarded() ? Json(std::string(text)) : value;
  }

  std::optional<Json> ReadObject(int depth) {
    Json object = Json::object();
    if (!Take('{')) return std::nullopt;
    if (Take('}')) return object;
    do {
      SkipSpace();
      const bool marked = rest_.starts_with(mark_);
      const auto name = marked ? ReadMarked() : std::optional(ReadBare(":,{}[]"));
      if (!name || (!marked && name->empty()) || !Take(':') || object.size() >= kMostFields) return std::nullopt;
      std::optional<Json> value = ReadValue(depth);
      if (!value) return std::nullopt;
      object[std::string(*name)] = *std::move(value);
    } while (Take(','));
    return Take('}') ? std::optional(std::move(object)) : std::nullopt;
  }

  std::optional<Json> ReadArray(int depth) {
    Json array = Json::array();
    if (!Take('[')) return std::nullopt;
    if (Take(']')) return array;
    do {
      std::optional<Json> value = ReadValue(depth);
      if (!value) return std::nullopt;
      array.push_back(*std::move(value));
    } while (Take(','));
    return Take(']') ? std::optional(std::move(array)) : std::nullopt;
  }

  std::string_view rest_, mark_;
};

}  // namespace

SortedFields FieldsByName(const Json& object) {
  SortedFields fields;
  for (auto field = object.begin(); field != object.end(); ++field) fields.emplace_back(field.key(), &field.value());
  std::stable_sort(fields.begin(), fields.end(), [](const auto& a, const auto& b) {
    return std::lexicographical_compare(a.first.begin(), a.first.end(), b.first.begin(), b.first.end(), [](char x, char y) {
      return static_cast<unsigned char>(Lower(x)) < static_cast<unsigned char>(Lower(y));
    });
  });
  return fields;
}

bool IsBareName(std::string_view name) {
  return !name.empty() && !IsSpace(name.front()) && !IsSpace(name.back()) && name.find_first_of(":,{}[]<") == std::string_view::npos;
}

std::string WithoutMarks(std::string_view text, std::string_view mark) {
  std::string without;
  for (size_t at; (at = text.find(mark)) != std::string_view::npos; text.remove_prefix(at + mark.size())) {
    without.append(text.substr(0, at)).append("\"");
  }
  return without.append(text);
}

void WriteQuoted(const Json& value, std::string_view mark, bool names_too, std::string& out) {
  const char* separator = "";
  if (value.is_string()) {
    out.append(mark).append(WithoutMarks(value.get_ref<const std::string&>(), mark)).append(mark);
  } else if (value.is_object()) {
    out += '{';
    for (const auto& [name, field] : FieldsByName(value)) {
      out += separator;
      if (names_too) out += mark;
      out += WithoutMarks(name, mark);
      if (names_too) out += mark;
      out += ':';
      WriteQuoted(*field, mark, names_too, out);
      separator = ",";
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (const Json& item : value) {
      out += separator;
      WriteQuoted(item, mark, names_too, out);
      separator = ",";
    }
    out += ']';
  } else {
    out += value.dump();
  }
}

std::optional<Json> ReadQuoted(std::string_view text, std::string_view mark) { return Reader(text, mark).Read(); }

}  // namespace reprise
