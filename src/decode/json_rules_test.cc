#include "decode/json_rules.h"

#include "decode/json_rules_test.h"
#include "decode/python_values.h"
#include "decode/quoted_values.h"

namespace reprise {
namespace {

using Json = JsonRules::Json;

TEST(JsonRules, AnyObject) {
  const Rules object(Grammar::JsonObject());
  for (const char* text :
       {"{}", "{ }", R"({"a": 1})", R"({"a":[1,2.5e-3,{"b":null}],"c":"\u00e9\n","d":true})", "{\n  \"a\": [\n    1,\n    2\n  ]\n}"}) {
    EXPECT_TRUE(object.Accepts(text)) << text;
  }
  for (const char* text :
       {"", "[]", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{\"a\":01}", "{\"a\":\"\\ud800\"}", "{\"a\":1}}", "{\"a\":tru}"}) {
    EXPECT_FALSE(object.Accepts(text)) << text;
  }
  std::string deep = "1";
  for (int i = 0; i < 12; ++i) deep = "{\"a\":[" + deep + "]}";
  EXPECT_TRUE(object.Accepts(deep));
}

TEST(JsonRules, PropertiesInOrder) {
  const Rules rules =
      Of(R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"c":{"type":"null"}},"required":["b"]})");
  for (const char* text : {R"({"b":""})", R"({"a":1,"b":"x"})", R"({"b":"x","c":null})", R"({ "a": -12, "b": "x", "c": null })"}) {
    EXPECT_TRUE(rules.Accepts(text)) << text;
  }
  for (const char* text :
       {"{}", R"({"a":1})", R"({"b":"x","a":1})", R"({"b":"x","d":1})", R"({"a":1.5,"b":""})", R"({,"b":""})", R"({"a":1"b":""})"}) {
    EXPECT_FALSE(rules.Accepts(text)) << text;
  }
  const Rules optional = Of(R"({"properties":{"a":{"type":"boolean"},"b":{"type":"boolean"}}})");
  for (const char* text : {"{}", R"({"a":true})", R"({"b":false})", R"({"a":true,"b":true})"}) EXPECT_TRUE(optional.Accepts(text)) << text;
  EXPECT_FALSE(optional.Accepts(R"({"a":true,})"));
}

TEST(JsonRules, ListsAndLengths) {
  const Rules list = Of(R"({"type":"array","items":{"type":"integer","minimum":0,"exclusiveMaximum":10},"minItems":1,"maxItems":3})");
  for (const char* text : {"[0]", "[1, 2]", "[9,9,9]"}) EXPECT_TRUE(list.Accepts(text)) << text;
  for (const char* text : {"[]", "[10]", "[-1]", "[1,2,3,4]"}) EXPECT_FALSE(list.Accepts(text)) << text;
  const Rules tuple = Of(R"({"type":"array","prefixItems":[{"type":"string"},{"type":"number"}],"items":false})");
  EXPECT_TRUE(tuple.Accepts(R"(["a", 1.5])"));
  EXPECT_FALSE(tuple.Accepts(R"(["a", 1.5, 2])"));
  const Rules text = Of(R"({"type":"string","minLength":2,"maxLength":3})");
  for (const char* one : {R"("ab")", "\"\xc3\xa9\xf0\x9f\x98\x80\"", R"("\n\u00e9a")"}) EXPECT_TRUE(text.Accepts(one)) << one;
  for (const char* one : {R"("a")", R"("abcd")", "\"\xc3\x22", "\"a\xff\""}) EXPECT_FALSE(text.Accepts(one)) << one;
}

TEST(JsonRules, ChoicesConstantsAndReferences) {
  const Rules rules = Of(
      R"({"$defs":{"node":{"type":"object","properties":{"v":{"enum":["x","xy",3,null]},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},
      "required":["v","next"],"additionalProperties":false}},"$ref":"#/$defs/node"})");
  EXPECT_TRUE(rules.Accepts(R"({"v":"xy","next":{"v":3,"next":null}})"));
  EXPECT_FALSE(rules.Accepts(R"({"v":"y","next":null})"));
  EXPECT_FALSE(rules.Accepts(R"({"v":"x"})"));
  EXPECT_TRUE(Of(R"({"const":{"a":[1,2]}})").Accepts(R"({"a":[1,2]})"));
  EXPECT_TRUE(Of(R"({"type":["string","null"]})").Accepts("null"));
  EXPECT_FALSE(Of(R"({"type":"string","enum":["a",1]})").Accepts("1"));
  EXPECT_TRUE(Of(R"({"type":"object","additionalProperties":{"type":"integer"}})").Accepts(R"({"a":1,"b":2})"));
  EXPECT_FALSE(Of(R"({"type":"object","additionalProperties":{"type":"integer"}})").Accepts(R"({"a":"1"})"));
  EXPECT_TRUE(Of("true").Accepts("[1]"));
  EXPECT_TRUE(Of(R"({"properties":{"a/b~c":{"type":"null"},"d":{"$ref":"#/properties/a~1b~0c"}}})").Accepts(R"({"d":null})"));
}

// What is refused, with the place where it stands.
TEST(JsonRules, SaysWhatItCannotEnforce) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"x({"properties":{"a":{"type":"string","pattern":"(?=x)"}}})x",
       "the schema's 'pattern' at #/properties/a cannot be enforced: '(?=', which looks around, at byte 0"},
      {R"x({"pattern":"a)"})x", "the schema's 'pattern' at # is malformed: ')' closes nothing at byte 1"},
      {R"({"pattern":3})", "the schema's 'pattern' at # must be a string"},
      {R"({"pattern":"x","maxLength":3})", "the schema's 'maxLength' beside 'pattern' at # cannot be enforced"},
      {R"({"enum":["a"],"pattern":"a"})", "the schema's 'pattern' beside 'enum' at # cannot be enforced"},
      {R"({"$ref":"#/$defs/a","multipleOf":3,"$defs":{"a":{"type":"integer"}}})",
       "the schema's 'multipleOf' beside '$ref' at # cannot be enforced"},
      {R"({"anyOf":[{}],"properties":{}})", "the schema's 'properties' beside 'anyOf' at # cannot be enforced"},
      {R"({"$ref":"#/$defs/a","maxLength":3,"$defs":{"a":{"type":"string"}}})",
       "the schema's 'maxLength' beside '$ref' at # cannot be enforced"},
      {R"({"enum":["a"],"minLength":2})", "the schema's 'minLength' beside 'enum' at # cannot be enforced"},
      {R"({"$ref":"#"})", "the grammar has no text at all: what it consists of consists of itself"},
      {R"({"allOf":[{},{}]})", "the schema's 'allOf' of several at # cannot be enforced"},
      {R"({"type":"strin"})", "the schema's 'type' at # must be object, array, string, number, integer, boolean or null"},
      {R"({"$ref":"#/none"})", "the schema's '$ref' at # names nothing within the schema: '#/none'"},
      {R"({"properties":{"a":3}})", "the schema at #/properties/a is no object that describes anything"},
      {R"({"type":"array","minItems":3,"maxItems":2})", "the schema at # wants more items than it allows"},
      {R"({"type":"integer","minimum":3,"maximum":2})", "the schema at # allows no integer that can be written"},
      {R"({"required":["a"],"additionalProperties":false})", "the schema at # requires 'a' and does not allow it"},
      {R"({"enum":[]})", "the schema at # names no value that it allows"},
      {"{", "the schema is no JSON"},
  };
  for (const auto& [schema, message] : kCases) {
    const auto grammar = Grammar::JsonSchema(schema);
    ASSERT_FALSE(grammar.ok()) << schema;
    EXPECT_EQ(grammar.status().message(), message) << schema;
  }
  EXPECT_EQ(Grammar::JsonSchema(std::string(300, '[') + std::string(300, ']')).status().message(), "the schema is deeper than 200 levels");
}

// Long before memory or the stack would end.
TEST(JsonRules, HugeSchemasAreRefused) {
  std::string longer, texts, properties;
  for (int i = 0; i < 3000; ++i) {
    longer += 'a';
    texts += (i == 0 ? "\"" : ",\"") + longer + "\"";
    properties += (i == 0 ? "\"p" : ",\"p") + std::to_string(i) + "\":{\"type\":\"integer\",\"minimum\":3}";
  }
  for (const std::string& schema : {R"({"enum":[)" + texts + "]}", R"({"properties":{)" + properties + "}}"}) {
    const auto grammar = Grammar::JsonSchema(schema);
    ASSERT_FALSE(grammar.ok());
    EXPECT_EQ(grammar.status().message(), "the grammar takes more than the 8188 bytes that it may");
  }
}

TEST(JsonRules, LenientPassesOverWhatItCannotEnforce) {
  const Json schema = Json::parse(R"({"type":"object","properties":{"a":{"type":"string","pattern":"\\bx","maxLength":2},
      "b":{"type":"number","minimum":1e40},"c":{"type":"number","multipleOf":3},"d":{"type":"string","uniqueItems":true,"pattern":"^x"}}})");
  GrammarBuilder builder;
  JsonRules rules(builder);
  builder.Call(rules.Schema(schema, schema, "#", JsonRules::Rigour::kLenient)).Accept();
  ASSERT_TRUE(rules.WriteRules().ok());
  const Rules lenient(*builder.Finish());
  EXPECT_TRUE(lenient.Accepts(R"({"a":"y","b":1,"c":2,"d":"x"})"));
  EXPECT_FALSE(lenient.Accepts(R"({"a":"xyz"})"));
  EXPECT_FALSE(lenient.Accepts(R"({"d":"y"})"));
}

// The same values between marks: names bare and in alphabetical order, no white space, no escapes.
TEST(JsonRules, BetweenMarks) {
  const Json schema =
      Json::parse(R"({"type":"object","properties":{"to":{"type":"string"},"how":{"enum":["ink","lead",null]},"Pages":{"type":"integer"},
      "more":{"type":"array","items":{"type":"object","additionalProperties":{"type":"boolean"}},"maxItems":2},"any":true},"required":["to"]})");
  const std::string_view mark = "<|\"|>";
  GrammarBuilder builder;
  JsonRules rules(builder, JsonRules::Notation::kQuoted, mark);
  builder.Call(rules.Schema(schema, schema, "#", JsonRules::Rigour::kStrict)).Accept();
  ASSERT_TRUE(rules.WriteRules().ok());
  const Rules quoted(*builder.Finish());
  for (const char* text :
       {"{to:<|\"|><|\"|>}", "{how:<|\"|>ink<|\"|>,Pages:-3,to:<|\"|>a \"b\"}\n<|<|\"|>}",
        "{more:[{},{x_1:true,y:false}],to:<|\"|>a<|\"|>}", "{any:{a:[<|\"|>x<|\"|>,1.5,null]},how:null,to:<|\"|>a<|\"|>}"}) {
    EXPECT_TRUE(quoted.Accepts(text)) << text;
    EXPECT_TRUE(ReadQuoted(text, mark)) << text;
  }
  for (const char* text :
       {"{}", "{to:a}", "{to:\"a\"}", "{\"to\":<|\"|>a<|\"|>}", "{ to:<|\"|>a<|\"|>}", "{to:<|\"|>a<|\"|>,how:<|\"|>ink<|\"|>}",
        "{how:ink,to:<|\"|>a<|\"|>}", "{more:[{x y:true}],to:<|\"|>a<|\"|>}", "{to:<|\"|>a<|\"|>b<|\"|>}"}) {
    EXPECT_FALSE(quoted.Accepts(text)) << text;
  }
  std::mt19937 random(5);
  const Json drawable =
      Json::parse(R"({"type":"object","properties":{"b":{"enum":["x","y z",2]},"a":{"type":"array","items":{"type":"integer"}},
      "c":{"type":"object","properties":{"e":{"type":"boolean"},"d":{"type":"number"}},"required":["d"]}},"required":["b"]})");
  GrammarBuilder other;
  JsonRules of_other(other, JsonRules::Notation::kQuoted, mark);
  other.Call(of_other.Schema(drawable, drawable, "#", JsonRules::Rigour::kStrict)).Accept();
  ASSERT_TRUE(of_other.WriteRules().ok());
  const Rules drawn_from(*other.Finish());
  int drawn = 0;
  for (int i = 0; i < 300; ++i) {
    const std::string text = drawn_from.Draw(random);
    if (text.empty()) continue;
    ++drawn;
    const auto json = ReadQuoted(text, mark);
    ASSERT_TRUE(json) << text;
    ASSERT_TRUE((*json)["b"] == "x" || (*json)["b"] == "y z" || (*json)["b"] == 2) << text;
    ASSERT_TRUE(!json->contains("c") || (*json)["c"]["d"].is_number()) << text;
    std::string again;
    WriteQuoted(*json, mark, /*names_too=*/false, again);
    ASSERT_EQ(ReadQuoted(again, mark), json);
  }
  EXPECT_GT(drawn, 200);
}

// Arguments by name, with Python's words.
TEST(JsonRules, AsArguments) {
  const Json schema = Json::parse(
      R"({"type":"object","properties":{"to":{"type":"string","maxLength":4},"how":{"enum":["ink",null,true]},"pages":{"type":"array",
      "items":{"type":"boolean"}},"more":{"type":"object","properties":{"x":{"type":"null"}},"required":["x"]},"any":true},"required":["to"]})");
  GrammarBuilder builder;
  JsonRules rules(builder, JsonRules::Notation::kPython);
  builder.Call(rules.Arguments(schema, schema, "#", JsonRules::Rigour::kStrict)).Accept();
  ASSERT_TRUE(rules.WriteRules().ok());
  const Rules arguments(*builder.Finish());
  for (const char* text : {"(to=\"\")", "(to=\"a\", how=null, pages=[true, False])", "(to=\"a\\\"b\", how=\"ink\")",
                           "(to=\"a\", how=None, pages=[True, False])", "(to=\"a\",more={\"x\": None},any=[1, True])"}) {
    EXPECT_TRUE(arguments.Accepts(text)) << text;
    EXPECT_TRUE(ReadPythonArguments(std::string_view(text).substr(1, std::string_view(text).size() - 2), {})) << text;
  }
  for (const char* text :
       {"()", "(\"a\")", "(to='a')", "(to=\"abcde\")", "{to=\"a\"}", "(to=\"a\", how=nil)", "(how=None, to=\"a\")", "(to: \"a\")"}) {
    EXPECT_FALSE(arguments.Accepts(text)) << text;
  }
  const auto of = [](const char* text) {
    const Json other = Json::parse(text);
    GrammarBuilder other_builder;
    JsonRules other_rules(other_builder, JsonRules::Notation::kPython);
    other_builder.Call(other_rules.Arguments(other, other, "tools 'f'", JsonRules::Rigour::kLenient)).Accept();
    const Status status = other_rules.WriteRules();
    return status.ok() ? std::string() : std::string(status.message());
  };
  EXPECT_EQ(of(R"({"$ref":"#/$defs/a","$defs":{"a":{"type":"object","properties":{"x":{}}}}})"), "");
  EXPECT_EQ(of(R"({"anyOf":[{"type":"object"}]})"), "'anyOf' at tools 'f' cannot be written as arguments");
  EXPECT_EQ(of(R"({"properties":{"a b":{}}})"), "the name 'a b' at tools 'f' cannot be written without quotation marks");
  EXPECT_EQ(of(R"({"type":"object"})"), "");
}

// Whatever a grammar writes parses, and is of the types that its schema wants.
TEST(JsonRules, WhatIsDrawnParses) {
  std::mt19937 random(17);
  const Rules rules =
      Of(R"({"type":"object","properties":{"name":{"type":"string","maxLength":8},"age":{"type":"integer","minimum":0,"maximum":150},
      "tags":{"type":"array","items":{"enum":["a","b","ab"]},"maxItems":4},"size":{"type":"number"},"flag":{"type":"boolean"},
      "more":{"anyOf":[{"type":"null"},{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"]}]}},"required":["name","age","more"]})");
  int drawn = 0;
  for (int i = 0; i < 300; ++i) {
    const std::string text = rules.Draw(random);
    if (text.empty()) continue;
    ++drawn;
    const Json json = Json::parse(text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << text;
    ASSERT_TRUE(json["name"].is_string() && json["age"].is_number_integer() && json.contains("more")) << text;
    ASSERT_GE(json["age"].get<int64_t>(), 0) << text;
    ASSERT_LE(json["age"].get<int64_t>(), 150) << text;
    ASSERT_TRUE(json["more"].is_null() || json["more"]["x"].is_number_integer()) << text;
    ASSERT_TRUE(!json.contains("tags") || json["tags"].size() <= 4) << text;
  }
  EXPECT_GT(drawn, 200);
}

}  // namespace
}  // namespace reprise
