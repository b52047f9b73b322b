#include "decode/python_values.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "decode/json_characters.h"

namespace reprise {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostDepth = 64;
constexpr size_t kMostFields = 512;

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool IsNameCharacter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'; }

std::string JsonText(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

// With the white space that JSON has in Python, and Python's words or JSON's.
std::string Written(const Json& value, bool python) {
  if (python && value.is_null()) return "None";
  if (python && value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (!value.is_structured()) return JsonText(value);
  std::string out = value.is_object() ? "{" : "[";
  const char* separator = "";
  for (auto item = value.begin(); item != value.end(); ++item) {
    out += separator;
    if (value.is_object()) out += JsonText(Json(item.key())) + ": ";
    out += Written(*item, python);
    separator = ", ";
  }
  return out += value.is_object() ? "}" : "]";
}

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  std::optional<Json> ReadArguments(std::span<const std::string> names) {
    Json arguments = Json::object();
    SkipSpace();
    for (size_t place = 0; !rest_.empty(); ++place) {
      if (arguments.size() >= kMostFields) return std::nullopt;
      std::string name = ReadName();
      if (name.empty()) {
        if (place >= names.size()) return std::nullopt;
        name = names[place];
      }
      std::optional<Json> value = ReadValue(1);
      if (!value) return std::nullopt;
      arguments[name] = *std::move(value);
      SkipSpace();
      if (!rest_.empty() && !Take(',')) return std::nullopt;
      SkipSpace();
    }
    return arguments;
  }

 private:
  void SkipSpace() {
    while (!rest_.empty() && IsSpace(rest_[0])) rest_.remove_prefix(1);
  }
  bool Take(char c) {
    SkipSpace();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool TakeWord(std::string_view word) {
    if (!rest_.starts_with(word) || (rest_.size() > word.size() && IsNameCharacter(rest_[word.size()]))) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  // Before an equals sign; empty where there is none.
  std::string ReadName() {
    size_t end = 0;
    while (end < rest_.size() && IsNameCharacter(rest_[end])) ++end;
    size_t equals = end;
    while (equals < rest_.size() && IsSpace(rest_[equals])) ++equals;
    if (end == 0 || equals >= rest_.size() || rest_[equals] != '=') return "";
    std::string name(rest_.substr(0, end));
    rest_.remove_prefix(equals + 1);
    return name;
  }

  std::optional<Json> ReadValue(int depth) {
    SkipSpace();
    if (rest_.empty() || depth > kMostDepth) return std::nullopt;
    const char c = rest_[0];
    if (c == '"' || c == '\'') return ReadText();
    if (c == '[') return ReadList('[', ']', depth);
    if (c == '(') return ReadList('(', ')', depth);
    if (c == '{') return ReadDictionary(depth);
    if (TakeWord("True") || TakeWord("true")) return Json(true);
    if (TakeWord("False") || TakeWord("false")) return Json(false);
    if (TakeWord("None") || TakeWord("null")) return Json(nullptr);
    const size_t end = std::min(rest_.find_first_not_of("+-.0123456789eE"), rest_.size());
    Json number = Json::parse(rest_.substr(0, end), nullptr, /*allow_exceptions=*/false);
    if (!number.is_number()) return std::nullopt;
    rest_.remove_prefix(end);
    return number;
  }

  std::optional<Json> ReadText() {
    const std::string quotes(rest_.starts_with("\"\"\"") || rest_.starts_with("'''") ? 3 : 1, rest_[0]);
    rest_.remove_prefix(quotes.size());
    std::string text;
    while (!rest_.starts_with(quotes)) {
      if (rest_.empty()) return std::nullopt;
      if (rest_[0] != '\\') {
        text += rest_[0];
        rest_.remove_prefix(1);
      } else if (!ReadEscape(text)) {
        return std::nullopt;
      }
    }
    rest_.remove_prefix(quotes.size());
    return Json(std::move(text));
  }

  bool ReadEscape(std::string& text) {
    constexpr std::string_view kNames = "nrtbfav\\'\"/", kMeanings = "\n\r\t\b\f\a\v\\'\"/";
    if (rest_.size() < 2) return false;
    const char c = rest_[1];
    rest_.remove_prefix(2);
    if (c == 'x' || c == 'u' || c == 'U') return ReadCodePoint(c == 'x' ? 2 : c == 'u' ? 4 : 8, text);
    if (c == '\n') return true;
    if (const size_t named = kNames.find(c); named != std::string_view::npos) {
      text += kMeanings[named];
    } else {
      text.append({'\\', c});  // as Python leaves it
    }
    return true;
  }

  std::optional<uint32_t> ReadHex(size_t digits) {
    if (rest_.size() < digits) return std::nullopt;
    uint32_t value = 0;
    for (const char c : rest_.substr(0, digits)) {
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) return std::nullopt;
      value = value << 4 | static_cast<uint32_t>(digit);
    }
    rest_.remove_prefix(digits);
    return value;
  }

  // Halves of pairs, as JSON writes them, are one.
  bool ReadCodePoint(size_t digits, std::string& text) {
    std::optional<uint32_t> value = ReadHex(digits);
    if (value && *value >= 0xd800 && *value < 0xdc00 && rest_.starts_with("\\u")) {
      rest_.remove_prefix(2);
      const std::optional<uint32_t> low = ReadHex(4);
      if (!low || *low < 0xdc00 || *low > 0xdfff) return false;
      value = 0x10000 + ((*value - 0xd800) << 10) + (*low - 0xdc00);
    }
    if (!value || *value > 0x10ffff || (*value >= 0xd800 && *value <= 0xdfff)) return false;
    // Past ASCII that is the character itself.
    text += *value < 0x80 ? std::string(1, static_cast<char>(*value)) : JsonCharacters::Form(static_cast<char32_t>(*value));
    return true;
  }

  std::optional<Json> ReadList(char open, char close, int depth) {
    Json list = Json::array();
    Take(open);
    while (!Take(close)) {
      std::optional<Json> value = ReadValue(depth + 1);
      if (!value) return std::nullopt;
      list.push_back(*std::move(value));
      if (!Take(',')) return Take(close) ? std::optional(std::move(list)) : std::nullopt;
    }
    return list;
  }

  std::optional<Json> ReadDictionary(int depth) {
    Json object = Json::object();
    Take('{');
    while (!Take('}')) {
      const std::optional<Json> name = ReadValue(depth + 1);
      if (!name || !name->is_string() || !Take(':') || object.size() >= kMostFields) return std::nullopt;
      std::optional<Json> value = ReadValue(depth + 1);
      if (!value) return std::nullopt;
      object[name->get<std::string>()] = *std::move(value);
      if (!Take(',')) return Take('}') ? std::optional(std::move(object)) : std::nullopt;
    }
    return object;
  }

  std::string_view rest_;
};

}  // namespace

bool IsPythonName(std::string_view name) { return !name.empty() && std::all_of(name.begin(), name.end(), IsNameCharacter); }

std::string PythonLiteral(const Json& value) { return Written(value, /*python=*/true); }

std::string PythonArguments(const Json& arguments) {
  std::string out;
  for (auto argument = arguments.begin(); argument != arguments.end(); ++argument) {
    if (!out.empty()) out += ", ";
    out += argument.key() + "=";
    out += Written(*argument, /*python=*/!argument->is_object());
  }
  return out;
}

std::optional<Json> ReadPythonArguments(std::string_view text, std::span<const std::string> names) {
  return Reader(text).ReadArguments(names);
}

}  // namespace reprise
