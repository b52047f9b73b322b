#include "serve/tool_types.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "serve/tools.h"

namespace reprise::serve {
namespace {

constexpr int kMostDepth = 64;
constexpr size_t kLongestItem = 50;  // characters; arrays of what takes more to say are of any
// The template's own indentation, where it does not take it back.
constexpr std::string_view kBeforeProperty = "                ";
constexpr std::string_view kBeforeDefault = "                    ";

bool Lists(const Json& value) { return value.is_array() && !value.empty(); }
bool Names(const Json& value) { return value.is_object() && !value.empty(); }

// As the template's language writes a value into text.
std::string Text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  return SpacedJson(value);
}

std::string Joined(const Json& list, std::string_view separator) {
  std::string text;
  for (size_t i = 0; i < list.size(); ++i) text.append(i == 0 ? "" : separator).append(Text(list[i]));
  return text;
}

size_t Characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string Described(const Json& schema) {
  const Json& description = In(schema, "description");
  return description.is_string() && !description.get_ref<const std::string&>().empty() ? "// " + description.get<std::string>() : "";
}

// The names of an object's properties, those that may be left out with a question mark.
class FieldNames {
 public:
  explicit FieldNames(const Json& object) {
    if (!In(object, "required").is_array()) return;
    for (const Json& name : In(object, "required")) {
      if (name.is_string()) required_.insert(name.get_ref<const std::string&>());
    }
  }
  std::string Of(const std::string& name) const { return name + (required_.contains(name) ? ": " : "?: "); }

 private:
  std::set<std::string_view> required_;
};

std::string TypeOf(const Json& schema, int depth);

std::string ArrayType(const Json& items, int depth) {
  const Json& type = In(items, "type");
  if (type == "string" || type == "boolean") return type.get<std::string>() + "[]";
  if (type == "number" || type == "integer") return "number[]";
  const std::string item = TypeOf(items, depth + 1);
  return item == "object | object" || Characters(item) > kLongestItem ? "any[]" : item + "[]";
}

std::string UnionType(const Json& variants, int depth) {
  std::string text;
  for (size_t i = 0; i < variants.size(); ++i) {
    if (i > 0) text += " | \n";
    text += TypeOf(variants[i], depth + 1) + Described(variants[i]);
    if (variants[i].is_object() && variants[i].contains("default")) {
      text.append(kBeforeDefault).append("// default: ").append(SpacedJson(variants[i]["default"]));
    }
  }
  return text;
}

std::string ObjectType(const Json& schema, int depth) {
  const Json& properties = In(schema, "properties");
  if (!Names(properties)) return "object";
  std::string text = "{\n";
  const FieldNames names(schema);
  const char* separator = "";
  for (const auto& [name, property] : properties.items()) {
    text.append(separator).append(names.Of(name)).append("\n").append(kBeforeProperty).append(TypeOf(property, depth + 1));
    separator = ", ";
  }
  return text + "}";
}

std::string TypeOf(const Json& schema, int depth) {
  if (depth > kMostDepth) return "any";
  const Json& type = In(schema, "type");
  const Json& choices = In(schema, "enum");
  const std::string or_null = In(schema, "nullable") == true ? " | null" : "";
  if (type == "array") return ArrayType(In(schema, "items"), depth) + or_null;
  if (Lists(type)) return Joined(type, " | ");
  if (Lists(In(schema, "oneOf"))) return UnionType(In(schema, "oneOf"), depth);
  if (type == "string") return Lists(choices) ? "\"" + Joined(choices, "\" | \"") + "\"" : "string" + or_null;
  if (type == "number" || type == "integer") return "number";
  if (type == "boolean") return "boolean";
  return type == "object" ? ObjectType(schema, depth) : "any";
}

std::string DefaultOf(const Json& schema) {
  if (!schema.is_object() || !schema.contains("default")) return "";
  const Json& value = schema["default"];
  const bool choices = Lists(In(schema, "enum")), variants = Lists(In(schema, "oneOf"));
  const bool bare = (choices || variants) && value.is_string();
  return std::string(variants && !choices ? "" : ", ") + "// default: " + (bare ? value.get<std::string>() : SpacedJson(value));
}

}  // namespace

std::string TypeOfTool(const Json& function) {
  const Json& name = In(function, "name");
  const Json& description = In(function, "description");
  const Json& parameters = In(function, "parameters");
  std::string text = description.is_string() ? "// " + description.get<std::string>() + "\n" : "";
  text += "type " + (name.is_string() ? name.get<std::string>() : "") + " = ";
  const Json& properties = In(parameters, "properties");
  if (!Names(properties)) return text + "() => any;\n\n";
  text += "(_: {\n";
  const FieldNames names(parameters);
  for (const auto& [key, property] : properties.items()) {
    const std::string described = Described(property);
    if (!described.empty()) text += described + "\n";
    text += names.Of(key) + TypeOf(property, 0) + DefaultOf(property) + ",\n";
  }
  return text + "}) => any;\n\n";
}

}  // namespace reprise::serve
