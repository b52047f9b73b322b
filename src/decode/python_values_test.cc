#include "decode/python_values.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "decode/values_test.h"

namespace reprise {
namespace {

using Json = nlohmann::ordered_json;

std::string Read(std::string_view text, const std::vector<std::string>& names = {}) {
  const auto arguments = ReadPythonArguments(text, names);
  return arguments ? arguments->dump() : "none";
}

TEST(PythonValues, AreArguments) {
  EXPECT_EQ(PythonArguments(Json::object()), "");
  EXPECT_EQ(PythonArguments(Json::parse(R"({"to":"Jane \"J\"\n","pages":[1,-2.5,true,null,"x"],"more":{"a":[true],"b":{}},"sure":false})")),
            R"(to="Jane \"J\"\n", pages=[1, -2.5, True, None, "x"], more={"a": [true], "b": {}}, sure=False)");
}

TEST(PythonValues, AreRead) {
  EXPECT_EQ(Read(""), "{}");
  EXPECT_EQ(Read(R"( a = 'x' , b="y), z=1" ,)"), R"({"a":"x","b":"y), z=1"})");
  EXPECT_EQ(Read(R"(a=[1, (2, -3.5e1), ()], b={'x': True, "y": None, }, c=false)"),
            R"({"a":[1,[2,-35.0],[]],"b":{"x":true,"y":null},"c":false})");
  EXPECT_EQ(Read(R"(a='it\'s "\x41\u00e9\ud83d\ude00\U0001F600\q\/', b="""x "y"
""")"),
            R"({"a":"it's \"Aé😀😀\\q/","b":"x \"y\"\n"})");
  EXPECT_EQ(Read("'x', 2, c=3", {"a", "b"}), R"({"a":"x","b":2,"c":3})") << "by place";
  for (const char* text : {"1", "a", "a=", "a=b", "a==1", "=1", "a=1 b=2", "a='x", "a='x' 'y'", "a=[1", "a={1: 2}", "a={'x'}", "a='\\xg0'",
                           "a='\\ud800'", "a=1,,b=2", "a=Truest", "a=01", "a=(1", "a=[1)"}) {
    EXPECT_EQ(Read(text), "none") << text;
  }
  EXPECT_NE(Read("a=" + std::string(64, '[') + std::string(64, ']')), "none");
  EXPECT_EQ(Read("a=" + std::string(65, '[') + std::string(65, ']')), "none");
  EXPECT_EQ(Read("a=" + std::string(100000, '[')), "none");
}

TEST(PythonValues, ComeBack) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    const Json value = {{"a", AnyValue(random, true)}, {"b", AnyValue(random, true)}};
    ASSERT_EQ(ReadPythonArguments(PythonArguments(value), {}), value) << PythonArguments(value);
  }
}

}  // namespace
}  // namespace reprise
