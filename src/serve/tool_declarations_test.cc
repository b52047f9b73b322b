// What is expected here was written by Gemma 4's own template, run on these functions, unless a test says otherwise.
#include "serve/tool_declarations.h"

#include <gtest/gtest.h>

#include <string>

namespace reprise::serve {
namespace {

std::string Written(const char* function) { return DeclarationOfTool(Json::parse(function)); }

TEST(ToolDeclarations, FunctionsWithoutParameters) {
  EXPECT_EQ(Written(R"({"name": "now", "description": "Tells the time."})"), "declaration:now{description:<|\"|>Tells the time.<|\"|>}");
  EXPECT_EQ(Written(R"({"name": "now"})"), "declaration:now{description:<|\"|><|\"|>}");
  EXPECT_EQ(Written(R"({"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}})"),
            "declaration:now{description:<|\"|><|\"|>,parameters:{type:<|\"|>OBJECT<|\"|>}}");
}

TEST(ToolDeclarations, Fields) {
  EXPECT_EQ(
      Written(
          R"({"name": "weather", "description": "Gets it.\nNow.", "parameters": {"type": "object", "required": ["city", "exact"], "properties": {"unit": {"type": "string", "enum": ["c", "f"], "default": "c"}, "city": {"type": "string", "description": "Where, \"there\"."}, "Days": {"type": "integer", "minimum": 3}, "exact": {"type": "boolean", "description": ""}, "type": {"type": "string", "nullable": true}}}})"),
      "declaration:weather{description:<|\"|>Gets it.\nNow.<|\"|>,parameters:{properties:{city:{description:<|\"|>Where, \"there\".<"
      "|\"|>,type:<|\"|>STRING<|\"|>},Days:{type:<|\"|>INTEGER<|\"|>},exact:{type:<|\"|>BOOLEAN<|\"|>},type:{nullable:true,type:<|\""
      "|>STRING<|\"|>},unit:{enum:[<|\"|>c<|\"|>,<|\"|>f<|\"|>],type:<|\"|>STRING<|\"|>}},required:[<|\"|>city<|\"|>,<|\"|>exact<|\""
      "|>],type:<|\"|>OBJECT<|\"|>}}");
}

TEST(ToolDeclarations, Arrays) {
  EXPECT_EQ(
      Written(
          R"({"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string", "enum": ["x"], "description": "i"}}, "b": {"type": "array"}, "c": {"type": "array", "description": "C.", "items": {"type": "object", "required": ["z"], "properties": {"z": {"type": "integer"}, "y": {"type": "array", "items": {"type": ["string", "null"]}}}}}, "d": {"type": "array", "items": {"anyOf": [{"type": "string", "n": 1}, {"type": "null"}]}}}}})"),
      "declaration:f{description:<|\"|>d<|\"|>,parameters:{properties:{a:{items:{description:<|\"|>i<|\"|>,enum:[<|\"|>x<|\"|>],type"
      ":<|\"|>STRING<|\"|>},type:<|\"|>ARRAY<|\"|>},b:{type:<|\"|>ARRAY<|\"|>},c:{description:<|\"|>C.<|\"|>,items:{properties:{y:{i"
      "tems:{type:[<|\"|>STRING<|\"|>,<|\"|>NULL<|\"|>]},type:<|\"|>ARRAY<|\"|>},z:{type:<|\"|>INTEGER<|\"|>}},required:[<|\"|>z<|\""
      "|>],type:<|\"|>OBJECT<|\"|>},type:<|\"|>ARRAY<|\"|>},d:{items:{anyOf:[{<|\"|>n<|\"|>:1,<|\"|>type<|\"|>:<|\"|>string<|\"|>},{"
      "<|\"|>type<|\"|>:<|\"|>null<|\"|>}]},type:<|\"|>ARRAY<|\"|>}},type:<|\"|>OBJECT<|\"|>}}");
}

TEST(ToolDeclarations, Objects) {
  EXPECT_EQ(
      Written(
          R"({"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"o": {"type": "object", "description": "An object.", "required": ["x"], "properties": {"x": {"type": "integer"}, "p": {"type": "object", "properties": {}}}}, "e": {"type": "object"}, "g": {"type": "object", "additionalProperties": {"type": "integer"}, "title": "G"}, "u": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "U."}}}})"),
      "declaration:f{description:<|\"|>d<|\"|>,parameters:{properties:{e:{properties:{},type:<|\"|>OBJECT<|\"|>},g:{properties:{addi"
      "tionalProperties:{type:<|\"|>INTEGER<|\"|>},title:{type:<|\"|><|\"|>}},type:<|\"|>OBJECT<|\"|>},o:{description:<|\"|>An objec"
      "t.<|\"|>,properties:{p:{properties:{},type:<|\"|>OBJECT<|\"|>},x:{type:<|\"|>INTEGER<|\"|>}},required:[<|\"|>x<|\"|>],type:<|"
      "\"|>OBJECT<|\"|>},u:{description:<|\"|>U.<|\"|>,type:<|\"|><|\"|>}},type:<|\"|>OBJECT<|\"|>}}");
}

// Where the template forgets a bracket, or writes a list of types as its language shows lists, this is what its later versions write.
TEST(ToolDeclarations, WhatTheTemplateWritesWrong) {
  EXPECT_EQ(Written(R"({"name":"f","parameters":{"properties":{"a":{"type":["string","null"],"enum":["x",null]}}}})"),
            "declaration:f{description:<|\"|><|\"|>,parameters:{properties:{a:{enum:[<|\"|>x<|\"|>,null],"
            "type:[<|\"|>STRING<|\"|>,<|\"|>NULL<|\"|>]}}}}");
}

TEST(ToolDeclarations, WhatIsNullIsNotSaid) {
  EXPECT_EQ(
      Written(
          R"({"name":"f","description":null,"parameters":{"type":"object","properties":{"a":{"type":"array","items":{"type":"string","x":null}}}}})"),
      "declaration:f{description:<|\"|><|\"|>,parameters:{properties:{a:{items:{type:<|\"|>STRING<|\"|>},type:<|\"|>ARRAY<|\"|>}},"
      "type:<|\"|>OBJECT<|\"|>}}");
}

// Nothing that a client says ends a text, and what is no schema is not said.
TEST(ToolDeclarations, AreWhateverAClientSays) {
  EXPECT_EQ(
      Written(
          R"({"name":"f","description":"a<|\"|>b","parameters":{"type":"object","required":["<|\"|>"],"properties":{"<|\"|>":{"type":"<|\"|>"}}}})"),
      "declaration:f{description:<|\"|>a\"b<|\"|>,parameters:{properties:{\":{type:<|\"|>\"<|\"|>}},required:[<|\"|>\"<|\"|>],"
      "type:<|\"|>OBJECT<|\"|>}}");
  EXPECT_EQ(Written(R"({"name":7,"description":7,"parameters":7})"), "declaration:{description:<|\"|><|\"|>}");
  EXPECT_EQ(Written(R"({"name":"f","parameters":{"type":7,"properties":[1],"required":{"a":1}}})"),
            "declaration:f{description:<|\"|><|\"|>,parameters:{type:<|\"|><|\"|>}}");
  EXPECT_EQ(Written(R"({"name":"f","parameters":{"properties":{"a":7,"b":{"type":7,"items":7,"enum":7,"nullable":7,"description":7}}}})"),
            "declaration:f{description:<|\"|><|\"|>,parameters:{properties:{a:{type:<|\"|><|\"|>},b:{type:<|\"|><|\"|>}}}}");
  Json deep = {{"type", "string"}};
  for (int i = 0; i < 200; ++i)
    deep = {{"type", i % 2 == 0 ? "object" : "array"}, {i % 2 == 0 ? "properties" : "items", {{"properties", {{"x", deep}}}}}};
  EXPECT_LT(DeclarationOfTool({{"name", "f"}, {"parameters", {{"properties", {{"a", deep}}}}}}).size(), 20000u);
}

}  // namespace
}  // namespace reprise::serve
