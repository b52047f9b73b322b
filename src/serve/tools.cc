#include "serve/tools.h"

#include <fmt/format.h>

#include <algorithm>

#include "decode/python_values.h"
#include "decode/quoted_values.h"
#include "serve/tool_declarations.h"
#include "serve/tool_types.h"
#include "text/chat_tools.h"

namespace reprise::serve {
namespace {

constexpr size_t kMostTools = 512;

// Names that can be written within any form of call and read back.
bool IsToolName(std::string_view name) {
  return !name.empty() && name.size() <= 256 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == ':' ||
           c == '/';
  });
}

// One declared function; `where` names it in errors.
void AddTool(Tools& tools, Json declared, const Json* name, const Json* schema, bool strict, const std::string& where, ApiError& error) {
  if (name == nullptr || !name->is_string() || !IsToolName(name->get_ref<const std::string&>())) {
    return error.Set(400, fmt::format("'{}name' must be a name of letters, digits and _ - . : /", where), where + "name", "invalid_value");
  }
  if (tools.Find(name->get_ref<const std::string&>()) != nullptr) {
    return error.Set(400, fmt::format("'{}name' is the name of an earlier tool too", where), where + "name", "invalid_value");
  }
  if (schema != nullptr && !schema->is_object()) {
    return error.Set(400, fmt::format("the parameters of '{}' must be a JSON schema, an object", name->get<std::string>()), where,
                     "invalid_value");
  }
  tools.list.push_back({name->get<std::string>(), std::move(declared), schema == nullptr ? Json::object() : *schema, strict});
}

void CheckChoice(Tools& tools, Fields& fields) {
  if (tools.choice == Tools::Choice::kRequired && tools.list.empty())
    return fields.Fail("tool_choice", "asks for a call, and there are no tools");
  if (!tools.only.empty() && tools.Find(tools.only) == nullptr) {
    fields.Fail("tool_choice", fmt::format("names '{}', which is not among the tools", tools.only));
  }
}

void AppendSpaced(const Json& json, std::string& out) {
  const char* separator = "";
  if (json.is_object()) {
    out += '{';
    for (const auto& [key, value] : json.items()) {
      out += separator + Dump(Json(key)) + ": ";
      AppendSpaced(value, out);
      separator = ", ";
    }
    out += '}';
  } else if (json.is_array()) {
    out += '[';
    for (const Json& value : json) {
      out += separator;
      AppendSpaced(value, out);
      separator = ", ";
    }
    out += ']';
  } else {
    out += Dump(json);
  }
}

// read(the tool as declared, its fields, where it stands) for each of 'tools', until something is wrong.
template <class Read>
void ForEachTool(Fields& fields, const Read& read) {
  const Json* const list = fields.Array("tools");
  if (list == nullptr) return;
  ApiError& error = fields.error();
  if (list->size() > kMostTools) fields.Fail("tools", fmt::format("may be at most {}", kMostTools));
  for (size_t i = 0; i < list->size() && error.ok(); ++i) {
    const Json& declared = (*list)[i];
    const std::string where = fmt::format("tools[{}].", i);
    if (!declared.is_object()) return error.Set(400, fmt::format("'tools[{}]' must be an object", i), where, "invalid_value");
    Fields tool(declared, error, where);
    read(declared, tool, where);
  }
}

}  // namespace

const Tool* Tools::Find(std::string_view name) const {
  const auto found = std::find_if(list.begin(), list.end(), [&](const Tool& tool) { return tool.name == name; });
  return found == list.end() ? nullptr : &*found;
}

void Tools::Tell(const ChatFormat& format, ChatOptions& options) const {
  const auto declaration = [&](const Tool& tool) {
    if (format.tools == ToolForm::kHarmony) return TypeOfTool(tool.declared["function"]);
    if (format.tools == ToolForm::kGemma) return DeclarationOfTool(tool.declared["function"]);
    if (format.tools == ToolForm::kPython || format.tools == ToolForm::kNemotron) return SpacedJson(tool.declared["function"]);
    // Llama's template indents them by four.
    if (format.tools == ToolForm::kLlama) return tool.declared.dump(4, ' ', false, Json::error_handler_t::replace);
    return SpacedJson(tool.declared);
  };
  for (const Tool& tool : list) options.tools.push_back(declaration(tool));
  options.must_answer = !callable();
}

Tools ReadTools(Fields& fields) {
  Tools tools;
  ApiError& error = fields.error();
  ForEachTool(fields, [&](const Json& declared, Fields& tool, const std::string& where) {
    if (const std::string type = tool.String("type").value_or("function"); type != "function") {
      tool.Fail("type", fmt::format("is '{}'; this server knows tools of type 'function'", type));
    }
    const Json* function = tool.Object("function");
    if (function == nullptr) {
      tool.Fail("function", "is missing");
      return;
    }
    Fields inner(*function, error, where + "function.");
    AddTool(tools, declared, inner.Find("name"), inner.Find("parameters"), inner.Bool("strict").value_or(false), where + "function.",
            error);
  });
  tools.parallel = fields.Bool("parallel_tool_calls").value_or(true);
  if (const Json* choice = fields.Find("tool_choice")) {
    const std::string word = choice->is_string() ? choice->get<std::string>() : "";
    if (choice->is_object()) {
      Fields named(*choice, error, "tool_choice.");
      const Json* function = named.Object("function");
      const std::string name = function == nullptr ? "" : Fields(*function, error, "tool_choice.function.").String("name").value_or("");
      if (name.empty()) named.Fail("function", "must name a function");
      tools.choice = Tools::Choice::kRequired;
      tools.only = name;
    } else if (word == "none") {
      tools.choice = Tools::Choice::kNone;
    } else if (word == "required") {
      tools.choice = Tools::Choice::kRequired;
    } else if (word != "auto") {
      fields.Fail("tool_choice", "must be 'auto', 'none', 'required', or a function by name");
    }
  }
  CheckChoice(tools, fields);
  return tools;
}

Tools ReadAnthropicTools(Fields& fields) {
  Tools tools;
  ApiError& error = fields.error();
  ForEachTool(fields, [&](const Json&, Fields& tool, const std::string& where) {
    if (const std::string type = tool.String("type").value_or("custom"); type != "custom") {
      tool.Fail("type", fmt::format("is '{}', a tool that Anthropic runs itself; this server knows those that the client runs", type));
    }
    const Json* name = tool.Find("name");
    const Json* schema = tool.Find("input_schema");
    Json function = Json::object();
    if (name != nullptr) function["name"] = *name;
    if (const Json* description = tool.Find("description")) function["description"] = *description;
    function["parameters"] = schema == nullptr ? Json::object() : *schema;
    AddTool(tools, Json{{"type", "function"}, {"function", std::move(function)}}, name, schema, tool.Bool("strict").value_or(false), where,
            error);
  });
  if (const Json* given = fields.Object("tool_choice")) {
    Fields choice(*given, error, "tool_choice.");
    const std::string type = choice.String("type").value_or("");
    tools.parallel = !choice.Bool("disable_parallel_tool_use").value_or(false);
    if (type == "any" || type == "tool") {
      tools.choice = Tools::Choice::kRequired;
      if (type == "tool") tools.only = choice.String("name").value_or("");
      if (type == "tool" && tools.only.empty()) choice.Fail("name", "is missing");
    } else if (type == "none") {
      tools.choice = Tools::Choice::kNone;
    } else if (type != "auto") {
      choice.Fail("type", "must be auto, any, tool or none");
    }
  }
  CheckChoice(tools, fields);
  return tools;
}

ChatToolCall MakeCall(std::string id, std::string name, const Json& arguments) {
  ChatToolCall call{std::move(id), std::move(name), SpacedJson(arguments)};
  for (const auto& [key, value] : arguments.items()) {
    call.parameters.emplace_back(key, value.is_string() ? value.get<std::string>() : SpacedJson(value));
  }
  call.python = PythonArguments(arguments);
  WriteQuoted(arguments, kGemmaQuote, /*names_too=*/false, call.quoted);
  return call;
}

std::string SpacedJson(const Json& json) {
  std::string out;
  AppendSpaced(json, out);
  return out;
}

}  // namespace reprise::serve
