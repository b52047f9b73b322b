#include "serve/tool_declarations.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "decode/quoted_values.h"
#include "text/chat_tools.h"

namespace reprise::serve {
namespace {

constexpr int kMostDepth = 64;
// Of a schema for an object that lists no fields, the names that are not taken for such.
constexpr std::array<std::string_view, 5> kKeywords = {"description", "type", "properties", "required", "nullable"};

bool Says(const Json& value) {
  return (value.is_string() && !value.get_ref<const std::string&>().empty()) || (!value.is_string() && !value.empty());
}

std::string Quoted(std::string_view text) { return std::string(kGemmaQuote).append(WithoutMarks(text, kGemmaQuote)).append(kGemmaQuote); }

std::string InNotation(const Json& value) {
  std::string text;
  WriteQuoted(value, kGemmaQuote, /*names_too=*/true, text);
  return text;
}

std::string Upper(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

// A type, or several.
std::string TypeOf(const Json& type) {
  if (!type.is_array()) return Quoted(type.is_string() ? Upper(type.get<std::string>()) : "");
  std::string text = "[";
  for (size_t i = 0; i < type.size(); ++i) {
    if (i > 0) text += ",";
    text += Quoted(type[i].is_string() ? Upper(type[i].get<std::string>()) : "");
  }
  return text + "]";
}

bool IsOf(const Json& type, std::string_view kind) {
  if (type.is_string()) return Upper(type.get<std::string>()) == kind;
  for (size_t i = 0; type.is_array() && i < type.size(); ++i) {
    if (IsOf(type[i], kind)) return true;
  }
  return false;
}

std::string Names(const Json& list) {
  std::string text = "[", separator;
  for (const Json& name : list) {
    if (!name.is_string()) continue;
    text += separator + Quoted(name.get_ref<const std::string&>());
    separator = ",";
  }
  return text + "]";
}

// Parts with commas between.
class Parts {
 public:
  void Add(const std::string& part) {
    if (!text_.empty()) text_ += ',';
    text_ += part;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string FieldList(const Json& properties, bool leave_keywords_out, int depth);

std::string ItemsOf(const Json& items, int depth) {
  Parts parts;
  for (const auto& [name, value] : FieldsByName(items)) {
    const std::string key(name);
    if (value->is_null()) continue;
    if (key == "properties") {
      parts.Add("properties:{" + (value->is_object() ? FieldList(*value, false, depth + 1) : "") + "}");
    } else if (key == "required") {
      parts.Add("required:" + Names(*value));
    } else {
      parts.Add(WithoutMarks(key, kGemmaQuote) + ":" + (key == "type" ? TypeOf(*value) : InNotation(*value)));
    }
  }
  return parts.text();
}

std::string FieldOf(const Json& schema, int depth) {
  Parts parts;
  const Json& type = In(schema, "type");
  const Json& description = In(schema, "description");
  if (description.is_string() && Says(description)) parts.Add("description:" + Quoted(description.get_ref<const std::string&>()));
  if (IsOf(type, "STRING")) {
    if (const Json& choices = In(schema, "enum"); choices.is_array() && Says(choices)) parts.Add("enum:" + InNotation(choices));
  } else if (IsOf(type, "ARRAY")) {
    if (const Json& items = In(schema, "items"); items.is_object() && Says(items)) parts.Add("items:{" + ItemsOf(items, depth) + "}");
  }
  if (In(schema, "nullable") == true) parts.Add("nullable:true");
  if (IsOf(type, "OBJECT")) {
    const Json& properties = In(schema, "properties");
    parts.Add("properties:{" + (properties.is_object() ? FieldList(properties, false, depth + 1) : FieldList(schema, true, depth + 1)) +
              "}");
    if (const Json& required = In(schema, "required"); required.is_array() && Says(required)) parts.Add("required:" + Names(required));
  }
  parts.Add("type:" + TypeOf(type));
  return parts.text();
}

std::string FieldList(const Json& properties, bool leave_keywords_out, int depth) {
  Parts parts;
  if (depth > kMostDepth) return "";
  for (const auto& [name, schema] : FieldsByName(properties)) {
    if (leave_keywords_out && std::find(kKeywords.begin(), kKeywords.end(), name) != kKeywords.end()) continue;
    parts.Add(WithoutMarks(name, kGemmaQuote) + ":{" + FieldOf(*schema, depth) + "}");
  }
  return parts.text();
}

}  // namespace

std::string DeclarationOfTool(const Json& function) {
  const Json& name = In(function, "name");
  const Json& description = In(function, "description");
  const Json& parameters = In(function, "parameters");
  std::string text = "declaration:" + (name.is_string() ? WithoutMarks(name.get_ref<const std::string&>(), kGemmaQuote) : "");
  text += "{description:" + Quoted(description.is_string() ? description.get_ref<const std::string&>() : "");
  if (parameters.is_object() && Says(parameters)) {
    Parts parts;
    if (const Json& properties = In(parameters, "properties"); properties.is_object() && Says(properties)) {
      parts.Add("properties:{" + FieldList(properties, false, 0) + "}");
    }
    if (const Json& required = In(parameters, "required"); required.is_array() && Says(required)) parts.Add("required:" + Names(required));
    if (const Json& type = In(parameters, "type"); Says(type)) parts.Add("type:" + TypeOf(type));
    text += ",parameters:{" + parts.text() + "}";
  }
  return text + "}";
}

}  // namespace reprise::serve
