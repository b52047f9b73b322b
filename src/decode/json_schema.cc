// The rules of schemas, part by part.
#include <algorithm>
#include <cmath>

#include "decode/json_pattern.h"
#include "decode/json_rules.h"
#include "decode/python_values.h"
#include "decode/quoted_values.h"

namespace reprise {
namespace {

using Json = JsonRules::Json;

// Keywords that say how long, how many, how much or which.
constexpr std::initializer_list<const char*> kBounds = {"minItems", "maxItems", "minLength",        "maxLength",        "pattern",
                                                        "minimum",  "maximum",  "exclusiveMinimum", "exclusiveMaximum", "multipleOf"};

bool IsOfType(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer") return value.is_number_integer();
  return type == "number" && value.is_number();
}

// The types that the schema names, or that its other keywords speak of; none: any.
std::vector<std::string> TypesOf(const Json& schema) {
  std::vector<std::string> types;
  if (const auto type = schema.find("type"); type != schema.end()) {
    for (const Json& one : type->is_array() ? *type : Json::array({*type})) types.push_back(one.is_string() ? one.get<std::string>() : "");
    return types;
  }
  const auto any_of = [&](std::initializer_list<const char*> keywords) {
    return std::any_of(keywords.begin(), keywords.end(), [&](const char* keyword) { return schema.contains(keyword); });
  };
  if (any_of({"properties", "required", "additionalProperties"})) return {"object"};
  if (any_of({"items", "prefixItems", "minItems", "maxItems"})) return {"array"};
  if (any_of({"minLength", "maxLength", "pattern"})) return {"string"};
  if (any_of({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})) return {"number"};
  return {};
}

}  // namespace

bool DescribesString(const Json& schema, std::vector<std::string>& texts) {
  const auto type = schema.is_object() ? schema.find("type") : schema.end();
  if (!schema.is_object() || type == schema.end() || *type != "string") return false;
  const auto take = [&](const Json& one) {
    if (one.is_string()) texts.push_back(one.get<std::string>());
  };
  if (const auto choices = schema.find("enum"); choices != schema.end() && choices->is_array())
    std::for_each(choices->begin(), choices->end(), take);
  if (const auto constant = schema.find("const"); constant != schema.end()) take(*constant);
  return true;
}

GrammarBuilder::Label JsonRules::Schema(const Json& schema, const Json& root, const std::string& name, Rigour rigour) {
  return RuleOf({&schema, &root, name, rigour});
}

GrammarBuilder::Label JsonRules::Arguments(const Json& schema, const Json& root, const std::string& name, Rigour rigour) {
  Part part{&schema, &root, name, rigour};
  if (const auto reference = schema.find("$ref"); reference != schema.end() && reference->is_string()) {
    if (const Json* to = Resolve(part, reference->get<std::string>()); to != nullptr && to->is_object()) part.schema = to;
  }
  for (const char* keyword : {"$ref", "anyOf", "oneOf", "allOf"}) {
    if (part.schema->contains(keyword)) Fail(Unsupported("'" + std::string(keyword) + "' at " + name + " cannot be written as arguments"));
  }
  return builder_.Rule([this, part] { WriteFields(part, {'(', ')', "=", true}); });
}

GrammarBuilder::Label JsonRules::RuleOf(const Part& part) {
  const auto [at, is_new] = parts_.try_emplace(part.schema, -1);
  return is_new ? Shared(at->second, [this, part] { WriteSchema(part); }) : at->second;
}

bool JsonRules::Refuses(const Part& part, std::initializer_list<const char*> keywords, const std::string& beside) {
  if (part.rigour == Rigour::kLenient) return false;
  for (const char* keyword : keywords) {
    const auto found = part.schema->find(keyword);
    if (found == part.schema->end() || (found->is_boolean() && !found->get<bool>())) continue;
    Fail(Unsupported("the schema's '" + std::string(keyword) + "'" + (beside.empty() ? "" : " beside '" + beside + "'") + " at " +
                     part.where + " cannot be enforced"));
    return true;
  }
  return false;
}

void JsonRules::WriteSchema(const Part& part) {
  const Json& schema = *part.schema;
  if (schema.is_boolean() && schema.get<bool>()) {
    builder_.Call(Value());
    return;
  }
  if (!schema.is_object()) return Fail(InvalidArgument("the schema at " + part.where + " is no object that describes anything"));
  if (Refuses(part,
              {"not", "if", "dependentRequired", "dependentSchemas", "dependencies", "patternProperties", "propertyNames", "minProperties",
               "maxProperties", "contains", "uniqueItems", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef"})) {
    return;
  }
  for (const char* keyword : {"$ref", "anyOf", "oneOf", "allOf"}) {
    if (!schema.contains(keyword)) continue;
    for (const char* other : {"$ref", "anyOf", "oneOf", "allOf", "type", "enum", "const", "properties", "required", "additionalProperties",
                              "items", "prefixItems"}) {
      if (std::string_view(other) != keyword && Refuses(part, {other}, keyword)) return;
    }
    if (Refuses(part, kBounds, keyword)) return;
    return std::string_view(keyword) == "$ref" ? WriteReference(part) : WriteChoices(part, keyword);
  }
  if (schema.contains("enum") || schema.contains("const")) return WriteConstants(part);
  const std::vector<std::string> types = TypesOf(schema);
  if (types.empty()) {
    builder_.Call(Value());
    return;
  }
  builder_.OneOf(types.size(), [&](size_t i) { WriteType(part, types[i]); });
}

const Json* JsonRules::Resolve(const Part& part, const std::string& reference) {
  const Json* at = part.root;
  if (reference.empty() || reference[0] != '#') return nullptr;
  for (size_t begin = 1; begin < reference.size();) {
    if (reference[begin] != '/') return nullptr;
    const size_t end = std::min(reference.find('/', begin + 1), reference.size());
    std::string key;
    for (size_t i = begin + 1; i < end; ++i) {
      const bool escaped = reference[i] == '~' && i + 1 < end;
      key += !escaped ? reference[i] : reference[++i] == '1' ? '/' : '~';
    }
    if (at->is_array()) {
      const bool number = !key.empty() && key.size() < 6 && key.find_first_not_of("0123456789") == std::string::npos;
      const size_t index = number ? static_cast<size_t>(std::stoi(key)) : at->size();
      if (index >= at->size()) return nullptr;
      at = &(*at)[index];
    } else {
      const auto found = at->is_object() ? at->find(key) : at->end();
      if (!at->is_object() || found == at->end()) return nullptr;
      at = &*found;
    }
    begin = end;
  }
  return at;
}

void JsonRules::WriteReference(const Part& part) {
  const Json& reference = (*part.schema)["$ref"];
  const std::string text = reference.is_string() ? reference.get<std::string>() : "";
  const Json* to = Resolve(part, text);
  if (to == nullptr)
    return Fail(InvalidArgument("the schema's '$ref' at " + part.where + " names nothing within the schema: '" + text + "'"));
  builder_.Call(RuleOf({to, part.root, text, part.rigour}));
}

void JsonRules::WriteChoices(const Part& part, const std::string& keyword) {
  const Json& choices = (*part.schema)[keyword];
  if (!choices.is_array() || choices.empty()) {
    return Fail(InvalidArgument("the schema's '" + keyword + "' at " + part.where + " must be a list of schemas"));
  }
  if (keyword == "allOf" && choices.size() > 1) {
    if (part.rigour == Rigour::kStrict)
      return Fail(Unsupported("the schema's 'allOf' of several at " + part.where + " cannot be enforced"));
    builder_.Call(Value());
    return;
  }
  builder_.OneOf(choices.size(), [&](size_t i) { builder_.Call(RuleOf(part.Under(choices[i], keyword + "/" + std::to_string(i)))); });
}

void JsonRules::WriteConstants(const Part& part) {
  const Json& schema = *part.schema;
  const bool is_list = schema.contains("enum");
  if (is_list && Refuses(part, {"const"}, "enum")) return;
  if (Refuses(part, kBounds, is_list ? "enum" : "const")) return;
  const Json values = is_list ? schema["enum"] : Json::array({schema["const"]});
  const std::vector<std::string> types = schema.contains("type") ? TypesOf(schema) : std::vector<std::string>();
  std::vector<std::string> texts;
  for (size_t i = 0; values.is_array() && i < values.size(); ++i) {
    const bool fits =
        types.empty() || std::any_of(types.begin(), types.end(), [&](const std::string& type) { return IsOfType(values[i], type); });
    if (!fits) continue;
    for (std::string& text : Texts(values[i])) texts.push_back(std::move(text));
  }
  if (texts.empty()) return Fail(InvalidArgument("the schema at " + part.where + " names no value that it allows"));
  builder_.OneOfTexts(std::move(texts));
}

void JsonRules::WriteType(const Part& part, const std::string& type) {
  if (type == "object") return WriteFields(part, ObjectFields());
  if (type == "array") return WriteArray(part);
  if (type == "string") return WriteString(part);
  if (type == "integer") return WriteInteger(part);
  if (type == "number") return WriteNumber(part);
  if (type == "boolean") {
    std::vector<std::string> either = Texts(true), no = Texts(false);
    either.insert(either.end(), no.begin(), no.end());
    builder_.OneOfTexts(std::move(either));
  } else if (type == "null") {
    builder_.OneOfTexts(Texts(nullptr));
  } else {
    Fail(InvalidArgument("the schema's 'type' at " + part.where + " must be object, array, string, number, integer, boolean or null"));
  }
}

// Properties in order, each either there or left out where it may be. What has been written decides about the comma, so there are two ways through:
// one before anything was written, one after.
void JsonRules::WriteFields(const Part& part, const Fields& form) {
  const Json& schema = *part.schema;
  static const Json kAnything = true;
  struct Property {
    std::string name;
    bool required;
    Part part;
  };
  std::vector<Property> properties;
  const auto named = [&](const std::string& name) {
    return std::find_if(properties.begin(), properties.end(), [&](const Property& property) { return property.name == name; });
  };
  if (const auto declared = schema.find("properties"); declared != schema.end()) {
    if (!declared->is_object()) return Fail(InvalidArgument("the schema's 'properties' at " + part.where + " must be an object"));
    const auto add = [&](std::string_view name, const Json& value) {
      properties.push_back({std::string(name), false, part.Under(value, "properties/" + std::string(name))});
    };
    if (quoted()) {
      for (const auto& [name, value] : FieldsByName(*declared)) add(name, *value);
    } else {
      for (const auto& [name, value] : declared->items()) add(name, value);
    }
  }
  const auto others = schema.find("additionalProperties");
  if (const auto required = schema.find("required"); required != schema.end()) {
    if (!required->is_array()) return Fail(InvalidArgument("the schema's 'required' at " + part.where + " must be a list of names"));
    for (const Json& one : *required) {
      if (!one.is_string()) return Fail(InvalidArgument("the schema's 'required' at " + part.where + " must be a list of names"));
      const auto name = one.get<std::string>();
      if (const auto found = named(name); found != properties.end()) {
        found->required = true;
      } else if (others != schema.end() && others->is_boolean() && !others->get<bool>()) {
        return Fail(InvalidArgument("the schema at " + part.where + " requires '" + name + "' and does not allow it"));
      } else {
        const bool typed = others != schema.end() && others->is_object();
        properties.push_back({name, true, typed ? part.Under(*others, "additionalProperties") : part.Under(kAnything, "required")});
      }
    }
  }
  if (properties.empty()) {
    if (others == schema.end() || (others->is_boolean() && others->get<bool>())) {
      WriteMap(form, [this] { builder_.Call(Value()); });
    } else if (others->is_boolean()) {
      builder_.Literal({&form.open, 1}).Call(Space()).Literal({&form.close, 1});
    } else {
      const Label value = RuleOf(part.Under(*others, "additionalProperties"));
      WriteMap(form, [&] { builder_.Call(value); });
    }
    return;
  }
  const auto unwritable = [&](const Property& property) {
    return form.bare_names && (form.open == '(' ? !IsPythonName(property.name) : !IsBareName(property.name));
  };
  if (const auto found = std::find_if(properties.begin(), properties.end(), unwritable); found != properties.end()) {
    return Fail(Unsupported("the name '" + found->name + "' at " + part.where + " cannot be written without quotation marks"));
  }
  builder_.Literal({&form.open, 1});
  std::vector<Label> after;
  for (size_t i = 0; i <= properties.size(); ++i) after.push_back(builder_.NewLabel());
  const auto write = [&](size_t i) {
    const std::string name = form.bare_names ? properties[i].name : Written(properties[i].name);
    builder_.Call(Space()).Literal(name).Literal(form.after_name).Call(Space()).Call(RuleOf(properties[i].part));
  };
  // Before anything was written: up to the first that must be.
  for (size_t i = 0; i < properties.size(); ++i) {
    const Label skip = builder_.NewLabel();
    if (!properties[i].required) builder_.Split(skip);
    write(i);
    builder_.Jump(after[i + 1]).Place(skip);
    if (properties[i].required) break;
    if (i + 1 == properties.size()) builder_.Jump(after[properties.size()]);
  }
  for (size_t i = 1; i < properties.size(); ++i) {
    builder_.Place(after[i]);
    if (!properties[i].required) builder_.Split(after[i + 1]);
    builder_.Literal(",");
    write(i);
  }
  builder_.Place(after[properties.size()]).Call(Space()).Literal({&form.close, 1});
}

int JsonRules::Count(const Part& part, const char* keyword, int otherwise) {
  const auto found = part.schema->find(keyword);
  if (found == part.schema->end()) return otherwise;
  const double value = found->is_number() ? found->get<double>() : -1;
  if (value < 0 || value >= GrammarBuilder::kMostTimes || value != std::floor(value)) {
    Fail(InvalidArgument("the schema's '" + std::string(keyword) + "' at " + part.where + " must be a whole number from 0 to " +
                         std::to_string(GrammarBuilder::kMostTimes - 1)));
    return otherwise;
  }
  return static_cast<int>(value);
}

void JsonRules::WriteArray(const Part& part) {
  const Json& schema = *part.schema;
  const int least = Count(part, "minItems", 0), most = Count(part, "maxItems", -1);
  const auto before = schema.find("prefixItems"), items = schema.find("items");
  if (most >= 0 && least > most) return Fail(InvalidArgument("the schema at " + part.where + " wants more items than it allows"));
  if (before != schema.end() && !before->is_array())
    return Fail(InvalidArgument("the schema's 'prefixItems' at " + part.where + " must be a list"));
  const size_t first = before == schema.end() ? 0 : std::min(before->size(), most < 0 ? before->size() : static_cast<size_t>(most));
  const bool none = items != schema.end() && items->is_boolean() && !items->get<bool>();
  // After items that are listed one by one no others are written, unless they must be.
  const int others_least = std::max(0, least - static_cast<int>(first));
  const int others_most = none || (first > 0 && items == schema.end()) ? others_least : most < 0 ? -1 : most - static_cast<int>(first);
  if (none && others_least > 0) return Fail(InvalidArgument("the schema at " + part.where + " wants more items than it allows"));
  const Label item = items == schema.end() || none ? Value() : RuleOf(part.Under(*items, "items"));
  WriteList(
      '[', ']', others_least, others_most, [&] { builder_.Call(item); }, first,
      [&](size_t i) { builder_.Call(RuleOf(part.Under((*before)[i], "prefixItems/" + std::to_string(i)))); });
}

void JsonRules::WriteString(const Part& part) {
  if (quoted()) {
    if (!Refuses(part, {"pattern", "minLength", "maxLength"})) builder_.Call(String());
    return;
  }
  if (part.schema->contains("pattern") && WritePattern(part)) return;
  const int least = Count(part, "minLength", 0), most = Count(part, "maxLength", -1);
  if (most >= 0 && least > most) return Fail(InvalidArgument("the schema at " + part.where + " wants a longer string than it allows"));
  if (least == 0 && most < 0) {
    builder_.Call(String());
  } else {
    builder_.Literal("\"").Repeat(least, most, [this] { builder_.Call(Character()); }).Literal("\"");
  }
}

// False where what cannot be held is passed over, and this cannot.
bool JsonRules::WritePattern(const Part& part) {
  const Json& pattern = (*part.schema)["pattern"];
  if (!pattern.is_string()) {
    Fail(InvalidArgument("the schema's 'pattern' at " + part.where + " must be a string"));
    return true;
  }
  if (Refuses(part, {"minLength", "maxLength"}, "pattern")) return true;
  const auto text = pattern.get<std::string>();
  auto regex = ParsePattern(text);
  if (regex.ok()) {
    const auto write = [this, regex = *std::move(regex)] {
      builder_.Literal("\"");
      WriteRegex(regex, builder_, characters_);
      builder_.Literal("\"");
    };
    builder_.Call(Shared(patterns_.try_emplace(text, -1).first->second, write));
    return true;
  }
  if (part.rigour == Rigour::kLenient) return false;
  const bool unsupported = regex.status().code() == StatusCode::kUnsupported;
  Fail(regex.status().Within("the schema's 'pattern' at " + part.where + (unsupported ? " cannot be enforced" : " is malformed")));
  return true;
}

}  // namespace reprise
