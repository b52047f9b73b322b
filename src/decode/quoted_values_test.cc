#include "decode/quoted_values.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "decode/values_test.h"

namespace reprise {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kMark = "<|\"|>";

std::string Written(const char* json, bool names_too = false) {
  std::string text;
  WriteQuoted(Json::parse(json), kMark, names_too, text);
  return text;
}

// As Gemma 4's templates write the arguments of calls, and what schemas hold.
TEST(QuotedValues, AreWrittenAsTheTemplateDoes) {
  EXPECT_EQ(Written("{}"), "{}");
  EXPECT_EQ(Written(R"({"to":"Jane \"J\"\n","b":[1,-2.5,true,null,"x",[]],"Pages":{"z":1,"a":{}}})"),
            "{b:[1,-2.5,true,null,<|\"|>x<|\"|>,[]],Pages:{a:{},z:1},to:<|\"|>Jane \"J\"\n<|\"|>}");
  EXPECT_EQ(Written(R"({"b":{"c":"x"},"a":1})", /*names_too=*/true), "{<|\"|>a<|\"|>:1,<|\"|>b<|\"|>:{<|\"|>c<|\"|>:<|\"|>x<|\"|>}}");
  EXPECT_EQ(Written(R"({"a":"x<|\"|>y","<|\"|>":1})"), "{\":1,a:<|\"|>x\"y<|\"|>}") << "what would end a text is no text";
  EXPECT_EQ(Written(R"({"b":1,"B":2,"a":3})"), "{a:3,b:1,B:2}");
}

TEST(QuotedValues, AreRead) {
  const auto read = [](std::string_view text) {
    const auto value = ReadQuoted(text, kMark);
    return value ? value->dump() : "none";
  };
  EXPECT_EQ(read("{}"), "{}");
  EXPECT_EQ(read(" { } \n"), "{}");
  EXPECT_EQ(read("{to:<|\"|>Ja{n}e, \"J\"\n<|\"|>,pages:2,x:[true,null,-1.5e3,{y:<|\"|><|\"|>}]}"),
            R"({"to":"Ja{n}e, \"J\"\n","pages":2,"x":[true,null,-1500.0,{"y":""}]})");
  EXPECT_EQ(read("{ <|\"|>a b<|\"|> : 1 , c d: Jane Bennet , e:\"f\" }"), R"({"a b":1,"c d":"Jane Bennet","e":"f"})")
      << "as models write it at times";
  for (const char* text : {"", "1", "[]", "{", "{a}", "{a:}", "{a:1,}", "{:1}", "{a:1}}", "{a:1} b", "{a:<|\"|>x}", "{a:[1,]}", "{a:[1}",
                           "{a:1 {}}", "{<|\"|>a:1}", "{a:<|\"|>x<|\"|>y}"}) {
    EXPECT_EQ(read(text), "none") << text;
  }
  const auto nested = [](int depth) {
    std::string text = "1";
    for (int i = 0; i < depth; ++i) text = i % 2 == 0 ? "{a:" + text + "}" : "[" + text + "]";
    return "{b:" + text + "}";
  };
  EXPECT_NE(read(nested(63)), "none");
  EXPECT_EQ(read(nested(64)), "none");
  EXPECT_EQ(read(nested(100000)), "none");
  std::string wide = "{";
  for (int i = 0; i < 512; ++i) wide += std::to_string(i) + ":1,";
  EXPECT_EQ(read(wide + "x:1}"), "none");
  wide.back() = '}';
  EXPECT_NE(read(wide), "none");
}

// What is written is read again.
TEST(QuotedValues, ComeBack) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    const Json value = {{"a", AnyValue(random, false)}, {"b", AnyValue(random, false)}};
    for (const bool names_too : {false, true}) {
      std::string text;
      WriteQuoted(value, kMark, names_too, text);
      const auto read = ReadQuoted(text, kMark);
      ASSERT_TRUE(read) << text;
      // Their order is another.
      ASSERT_EQ(nlohmann::json(*read), nlohmann::json(value)) << text;
    }
  }
}

}  // namespace
}  // namespace reprise
