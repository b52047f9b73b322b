// What is expected here was written by gpt-oss's own template, run on these functions, unless a test says otherwise.
#include "serve/tool_types.h"

#include <gtest/gtest.h>

#include <string>

#include "serve/tools.h"

namespace reprise::serve {
namespace {

// Of a function with these properties, what stands between its name and its end.
std::string Fields(const char* properties) {
  const Json function = {{"name", "f"}, {"parameters", {{"type", "object"}, {"properties", Json::parse(properties)}}}};
  const std::string text = TypeOfTool(function), before = "type f = (_: {\n", after = "}) => any;\n\n";
  EXPECT_TRUE(text.starts_with(before) && text.ends_with(after)) << text;
  return text.substr(before.size(), text.size() - before.size() - after.size());
}

std::string Written(const char* function) { return TypeOfTool(Json::parse(function)); }

TEST(ToolTypes, FunctionsAreTypes) {
  EXPECT_EQ(Written(R"({"name":"now","description":"Tells the time."})"), "// Tells the time.\ntype now = () => any;\n\n");
  EXPECT_EQ(Written(R"({"name":"now","description":"","parameters":{"type":"object","properties":{}}})"), "// \ntype now = () => any;\n\n");
  EXPECT_EQ(
      Written(R"({"name":"weather","description":"Gets it.\nNow.","parameters":{"type":"object","required":["city","exact"],"properties":{
                "city":{"type":"string","description":"Where."},"unit":{"type":"string","enum":["c","f"],"default":"c"},
                "days":{"type":"integer","default":3},"near":{"type":"number","description":""},"exact":{"type":"boolean","default":false}}}})"),
      "// Gets it.\nNow.\ntype weather = (_: {\n// Where.\ncity: string,\nunit?: \"c\" | \"f\", // default: c,\n"
      "days?: number, // default: 3,\nnear?: number,\nexact: boolean, // default: false,\n}) => any;\n\n");
}

TEST(ToolTypes, Arrays) {
  EXPECT_EQ(
      Fields(
          R"({"a":{"type":"array","items":{"type":"string","enum":["x"]}},"b":{"type":"array","items":{"type":"integer"},"nullable":true},
                "c":{"type":"array"},"d":{"type":"array","items":{"type":"boolean"}},"e":{"type":"array","items":{"type":"array","items":{"type":"number"}}},
                "f":{"type":"array","items":{"type":"object","properties":{"x":{"type":"string"}}}},"g":{"type":"array","items":{"type":["object","object"]}}})"),
      "a?: string[],\nb?: number[] | null,\nc?: any[],\nd?: boolean[],\ne?: number[][],\nf?: {\nx?: \n                string}[],\n"
      "g?: any[],\n");
  // What takes more than fifty characters to say is not said. Characters, not bytes.
  const std::string before = R"({"a":{"type":"array","items":{"type":"object","properties":{")", after = R"(":{"type":"string"}}}}})";
  std::string name;
  for (int i = 0; i < 21; ++i) name += "ä";
  EXPECT_EQ(Fields((before + name + after).c_str()), "a?: {\n" + name + "?: \n                string}[],\n");
  EXPECT_EQ(Fields((before + name + "ä" + after).c_str()), "a?: any[],\n");
}

TEST(ToolTypes, Objects) {
  EXPECT_EQ(Fields(R"({"o":{"type":"object","description":"An object.","required":["x"],"properties":{
                "x":{"type":"integer"},"y":{"type":"object","properties":{"z":{"type":"string"}},"required":["z"]}}},"e":{"type":"object"}})"),
            "// An object.\no?: {\nx: \n                number, y?: \n                {\nz: \n                string}},\ne?: object,\n");
}

TEST(ToolTypes, WhatMayBeOneOfSeveral) {
  EXPECT_EQ(
      Fields(
          R"({"u":{"oneOf":[{"type":"string","description":"By name.","default":"a"},{"type":"integer"},{"type":"object"}],"default":"a"},
                "l":{"type":["string","null"]},"n":{"type":"string","nullable":true,"default":null},"m":{"type":"string","enum":["a",null,true,2]},
                "w":{"anyOf":[{"type":"string"}]},"r":{"$ref":"#/x"},"d":{"default":{"k":["ü",1.5]}}})"),
      "u?: string// By name.                    // default: \"a\" | \nnumber | \nobject// default: a,\nl?: string | null,\n"
      "n?: string | null, // default: null,\nm?: \"a\" | \"None\" | \"True\" | \"2\",\nw?: any,\nr?: any,\n"
      "d?: any, // default: {\"k\": [\"ü\", 1.5]},\n");
}

// The template cannot write these at all.
TEST(ToolTypes, WhatIsNoSchemaSaysNothing) {
  EXPECT_EQ(Written(R"({"name":"f"})"), "type f = () => any;\n\n");
  EXPECT_EQ(Written(R"({"name":"f","description":5,"parameters":[1]})"), "type f = () => any;\n\n");
  EXPECT_EQ(Written(R"({"name":"f","parameters":{"properties":[1]}})"), "type f = () => any;\n\n");
  EXPECT_EQ(Written(R"({"name":"f","parameters":{"properties":{"a":{"type":"string"}},"required":"a"}})"),
            "type f = (_: {\na?: string,\n}) => any;\n\n");
  EXPECT_EQ(Fields(R"({"a":true,"b":7,"c":null,"d":[{"type":"string"}],"e":"string"})"),
            "a?: any,\nb?: any,\nc?: any,\nd?: any,\ne?: any,\n");
  EXPECT_EQ(Fields(R"({"a":{"type":7},"b":{"type":{}},"c":{"type":[]},"d":{"type":"array","items":[1]},"e":{"type":"array","items":7}})"),
            "a?: any,\nb?: any,\nc?: any,\nd?: any[],\ne?: any[],\n");
  EXPECT_EQ(
      Fields(R"({"a":{"type":"string","enum":{"x":1}},"b":{"oneOf":{"x":1}},"c":{"type":"string","description":["x"],"nullable":"yes"},
                "d":{"type":"object","properties":[1],"required":7}})"),
      "a?: string,\nb?: any,\nc?: string,\nd?: object,\n");
  EXPECT_EQ(Fields(R"({"a":{"type":"integer","enum":[1,2],"default":1},"b":{"oneOf":[{"type":"integer"}],"default":2}})"),
            "a?: number, // default: 1,\nb?: number// default: 2,\n");
}

TEST(ToolTypes, WhatLiesTooDeepIsAny) {
  for (const char* kind : {"object", "oneOf"}) {
    Json schema = {{"type", "string"}};
    for (int i = 0; i < 5000; ++i) {
      Json outer = {{"type", "object"}, {"properties", {{"x", nullptr}}}};
      if (kind == std::string("oneOf")) outer = {{"oneOf", {nullptr}}};
      (kind == std::string("oneOf") ? outer["oneOf"][0] : outer["properties"]["x"]) = std::move(schema);
      schema = std::move(outer);
    }
    const Json function = {{"name", "f"}, {"parameters", {{"properties", {{"a", std::move(schema)}}}}}};
    const std::string text = TypeOfTool(function);
    EXPECT_LT(text.size(), 5000u);
    EXPECT_NE(text.find("any" + std::string(kind == std::string("object") ? "}" : ",")), std::string::npos) << text;
    EXPECT_EQ(text.find("string"), std::string::npos);
  }
}

// As many names as there may be, and a list of those that must be there that is longer by far: no name is looked for in it one by one.
TEST(ToolTypes, LongListsAreReadOnce) {
  Json parameters = {{"properties", Json::object()}, {"required", Json::array()}};
  for (size_t i = 0; i < kMostFields; ++i) parameters["properties"]["p" + std::to_string(i)] = {{"type", "string"}};
  for (int i = 0; i < 200'000; ++i) parameters["required"].push_back("q" + std::to_string(i));
  parameters["required"].push_back("p7");
  const std::string text = TypeOfTool({{"name", "f"}, {"parameters", std::move(parameters)}});
  EXPECT_NE(text.find("\np7: string,\np8?: string,\n"), std::string::npos);
}

}  // namespace
}  // namespace reprise::serve
