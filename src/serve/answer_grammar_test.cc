#include "serve/answer_grammar.h"

#include <gtest/gtest.h>

#include "decode/grammar.h"
#include "serve/answer_parser.h"
#include "text/chat_tools.h"

namespace reprise::serve {
namespace {

bool Accepts(const Grammar& grammar, std::string_view text) {
  const GrammarProgram program = GrammarProgram::Of(grammar);
  const GrammarMachine machine(program);
  GrammarThreads threads;
  machine.Begin(threads);
  return machine.Advance(text, threads) && machine.MayEnd(threads);
}

Tools TwoTools(bool parallel) {
  ApiError error;
  const Json body = Json::parse(R"({"tool_choice":"required","tools":[
      {"type":"function","function":{"name":"write","parameters":{"type":"object","properties":{"to":{"type":"string"},"how":{"enum":["ink","lead"],"type":"string"},
          "pages":{"type":"integer"},"dates":{"type":"array","items":{"type":"string"}}},"required":["to","pages"]}}},
      {"type":"function","function":{"name":"write_all"}}]})");
  Fields fields(body, error);
  Tools tools = ReadTools(fields);
  EXPECT_TRUE(error.ok());
  tools.parallel = parallel;
  return tools;
}

std::string Written(ToolForm form, std::span<const ChatToolCall> calls) {
  std::string text;
  const auto add = [&](std::string_view piece) { text += piece; };
  WriteToolCalls(form, /*after_content=*/false, calls, {add, add});
  return text;
}

class ForcedCalls : public testing::TestWithParam<ToolForm> {
 protected:
  static Grammar Forced(const Tools& tools, const ChatOptions& options = {.thinking = Thinking::kOff}) {
    ApiError error;
    const Grammar grammar = GrammarOf({}, tools, {.style = ChatStyle::kQwen35, .tools = GetParam()}, options, error);
    EXPECT_TRUE(error.ok());
    return grammar;
  }
};

// Calls as the model's own template writes them are of the grammar, and the parser finds in them what was written.
TEST_P(ForcedCalls, AreWrittenAsTheTemplateDoes) {
  const Tools tools = TwoTools(/*parallel=*/true);
  const Grammar grammar = Forced(tools);
  const Json arguments[] = {Json::parse(R"({"to":"Jane \"J\" Bennet <b>\nat home","pages":-3})"),
                            Json::parse(R"({"to":"","how":"lead","pages":12,"dates":["May 1","é"]})")};
  for (const Json& one : arguments) {
    const ChatToolCall call = MakeCall("1", "write", one);
    const std::string text = Written(GetParam(), std::span(&call, 1));
    EXPECT_TRUE(Accepts(grammar, text)) << text;
    AnswerParser parser({.tools = GetParam(), .declared = &tools});
    std::vector<AnswerPiece> pieces;
    parser.Feed(text, pieces);
    parser.Finish(pieces);
    ASSERT_EQ(pieces.size(), 1u) << text;
    EXPECT_EQ(pieces[0].kind, AnswerPiece::Kind::kCall) << text;
    EXPECT_EQ(nlohmann::json(pieces[0].call.arguments), nlohmann::json(one)) << text;  // Gemma's come in another order
  }
  const ChatToolCall bare = MakeCall("2", "write_all", Json::object());
  EXPECT_TRUE(Accepts(grammar, Written(GetParam(), std::span(&bare, 1))));
}

TEST_P(ForcedCalls, AreNothingElse) {
  const Tools tools = TwoTools(/*parallel=*/false);
  const Grammar grammar = Forced(tools);
  const ChatToolCall two[] = {MakeCall("1", "write_all", Json::object()), MakeCall("2", "write_all", Json::object())};
  EXPECT_FALSE(Accepts(grammar, ""));
  EXPECT_FALSE(Accepts(grammar, "I had rather not."));
  EXPECT_FALSE(Accepts(grammar, "Well: " + Written(GetParam(), std::span(two, 1))));
  EXPECT_FALSE(Accepts(grammar, Written(GetParam(), std::span(two, 1)) + " so"));
  EXPECT_FALSE(Accepts(grammar, Written(GetParam(), two))) << "one at a time was asked for";
  EXPECT_EQ(Accepts(Forced(TwoTools(/*parallel=*/true)), Written(GetParam(), two)), GetParam() != ToolForm::kLlama);
  for (const char* lie :
       {R"({"pages":1})", R"({"to":"Jane"})", R"({"to":"Jane","pages":1.5})", R"({"to":"Jane","how":"blood","pages":1})"}) {
    const ChatToolCall call = MakeCall("1", "write", Json::parse(lie));
    EXPECT_FALSE(Accepts(grammar, Written(GetParam(), std::span(&call, 1)))) << lie;
  }
  const ChatToolCall unknown = MakeCall("1", "burn", Json::object());
  EXPECT_FALSE(Accepts(grammar, Written(GetParam(), std::span(&unknown, 1))));
  Tools named = tools;
  named.only = "write";
  EXPECT_FALSE(Accepts(Forced(named), Written(GetParam(), std::span(two, 1))));
}

TEST_P(ForcedCalls, ComeAfterThoughts) {
  const Tools tools = TwoTools(/*parallel=*/false);
  const ChatToolCall call = MakeCall("1", "write_all", Json::object());
  const std::string text = Written(GetParam(), std::span(&call, 1));
  const Grammar thinking = Forced(tools, {.thinking = Thinking::kOn});  // the prompt ends with <think>
  EXPECT_TRUE(Accepts(thinking, "Whom to write to? {Jane}\n</think>\n\n" + text));
  EXPECT_FALSE(Accepts(thinking, text));
}

INSTANTIATE_TEST_SUITE_P(Forms, ForcedCalls,
                         testing::Values(ToolForm::kJson, ToolForm::kXml, ToolForm::kLlama, ToolForm::kMistral, ToolForm::kMistralIds,
                                         ToolForm::kMistralList, ToolForm::kNemotron, ToolForm::kPython, ToolForm::kGemma),
                         [](const auto& form) {
                           std::string name(ToolFormName(form.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Harmony's answers say on which channel they are, thoughts first or not at all; where the prompt has opened the final message they are JSON alone.
TEST(AnswerGrammar, IsOfTheFinalMessage) {
  AnswerShape shape;
  shape.kind = AnswerShape::Kind::kJson;
  const auto of = [&](Thinking thinking) {
    ApiError error;
    return GrammarOf(shape, Tools(), {.style = ChatStyle::kHarmony, .tools = ToolForm::kNone, .thinks = true}, {.thinking = thinking},
                     error);
  };
  const std::string thoughts = "<|channel|>analysis<|message|>{Hm}<|end|><|start|>assistant", header = "<|channel|>final<|message|>";
  for (const Thinking thinking : {Thinking::kByFormat, Thinking::kOn}) {
    const Grammar grammar = of(thinking);
    EXPECT_TRUE(Accepts(grammar, thoughts + header + "{}"));
    EXPECT_TRUE(Accepts(grammar, header + "{}"));
    EXPECT_FALSE(Accepts(grammar, thoughts + "{}"));
    EXPECT_FALSE(Accepts(grammar, thoughts + header + "Hm"));
    EXPECT_FALSE(Accepts(grammar, "{}"));
  }
  EXPECT_TRUE(Accepts(of(Thinking::kOff), "{}"));
  EXPECT_FALSE(Accepts(of(Thinking::kOff), header + "{}"));
}

// Harmony's forced calls: thoughts first or not at all, then one call of the schema, written as its template or as its models write it.
TEST(AnswerGrammar, HarmonysCallsAreMessages) {
  const ChatFormat format{.style = ChatStyle::kHarmony, .tools = ToolForm::kHarmony, .thinks = true};
  const auto of = [&](const Tools& tools, Thinking thinking, const AnswerShape& shape = {}) {
    ApiError error;
    ChatOptions options{.thinking = thinking};
    tools.Tell(format, options);
    const Grammar grammar = GrammarOf(shape, tools, format, options, error);
    EXPECT_TRUE(error.ok()) << error.message;
    return grammar;
  };
  const Tools tools = TwoTools(/*parallel=*/true);
  const std::string thoughts = "<|channel|>analysis<|message|>{Hm}<|end|><|start|>assistant";
  const auto before = [](const std::string& name) { return " to=functions." + name + "<|channel|>commentary json<|message|>"; };
  const auto after = [](const std::string& name) { return "<|channel|>commentary to=functions." + name + " <|constrain|>json<|message|>"; };
  const std::string good = R"({"to": "Jane \"J\" é", "how": "lead", "pages": -3})";
  const Grammar grammar = of(tools, Thinking::kByFormat), silent = of(tools, Thinking::kOff);
  for (const std::string& header : {before("write"), after("write")}) {
    EXPECT_TRUE(Accepts(grammar, header + good));
    EXPECT_TRUE(Accepts(grammar, thoughts + header + good));
    EXPECT_TRUE(Accepts(silent, header + good));
    EXPECT_FALSE(Accepts(silent, thoughts + header + good)) << "thoughts that nobody wanted";
    EXPECT_FALSE(Accepts(grammar, header + R"({"pages": 1})"));
    EXPECT_FALSE(Accepts(grammar, header + R"({"to": "Jane", "pages": 1.5})"));
    EXPECT_FALSE(Accepts(grammar, header + R"({"to": "Jane", "how": "blood", "pages": 1})"));
    EXPECT_FALSE(Accepts(grammar, header));
    EXPECT_FALSE(Accepts(grammar, header + good + "<|end|><|start|>assistant" + header + good)) << "a call ends its answer";
    // The parser finds in it what was written.
    AnswerParser parser({.tools = ToolForm::kHarmony, .declared = &tools, .channels = true});
    std::vector<AnswerPiece> pieces;
    parser.Feed(header + good, pieces);
    ASSERT_EQ(pieces.size(), 1u);
    EXPECT_EQ(pieces[0].kind, AnswerPiece::Kind::kCall);
    EXPECT_EQ(pieces[0].call.arguments, Json::parse(good));
  }
  const ChatToolCall written = MakeCall("1", "write_all", Json::object());
  EXPECT_EQ(Written(ToolForm::kHarmony, std::span(&written, 1)), before("write_all") + "{}") << "as the template does";
  EXPECT_TRUE(Accepts(grammar, before("write_all") + "{}"));
  EXPECT_FALSE(Accepts(grammar, before("burn") + "{}"));
  EXPECT_FALSE(Accepts(grammar, "<|channel|>final<|message|>I had rather not."));
  EXPECT_FALSE(Accepts(grammar, "<|channel|>commentary<|message|>I had rather not."));
  EXPECT_FALSE(Accepts(grammar, thoughts));
  Tools named = tools;
  named.only = "write";
  EXPECT_FALSE(Accepts(of(named, Thinking::kOn), after("write_all") + "{}"));
  EXPECT_TRUE(Accepts(of(named, Thinking::kOn), after("write") + good));

  // JSON or a call: the former is on the final channel, whose header is the answer's own to write.
  AnswerShape shape;
  shape.kind = AnswerShape::Kind::kJson;
  Tools free = tools;
  free.choice = Tools::Choice::kAuto;
  for (const Thinking thinking : {Thinking::kByFormat, Thinking::kOff}) {
    const Grammar either = of(free, thinking, shape);
    EXPECT_TRUE(Accepts(either, "<|channel|>final<|message|>{}"));
    EXPECT_TRUE(Accepts(either, after("write_all") + "{}"));
    EXPECT_FALSE(Accepts(either, "{}"));
  }
  free.choice = Tools::Choice::kNone;
  EXPECT_TRUE(Accepts(of(free, Thinking::kOff, shape), "{}"));
}

// Where a tool's result opens thoughts, calls come after them.
TEST(AnswerGrammar, GemmasCallsComeAfterThoughts) {
  const Tools tools = TwoTools(/*parallel=*/true);
  const ChatFormat format{.style = ChatStyle::kGemma4, .tools = ToolForm::kGemma, .results_open_thoughts = true};
  const std::string call = "<|tool_call>call:write_all{}<tool_call|>";
  for (const bool after_result : {false, true}) {
    ApiError error;
    const Grammar grammar = GrammarOf({}, tools, format, {.thinking = Thinking::kOn, .after_result = after_result}, error);
    EXPECT_EQ(Accepts(grammar, "Hm.\n<channel|>" + call + call), after_result);
    EXPECT_EQ(Accepts(grammar, "<|channel>thought\nHm.\n<channel|>" + call), true) << "or a thought that begins with a word of them";
    EXPECT_EQ(Accepts(grammar, call), !after_result);
    EXPECT_FALSE(Accepts(grammar, call + "\n" + call));
  }
}

// What a schema says of a text's length is passed over, unless the tool is to be strict; names must be such as can stand bare.
TEST(AnswerGrammar, GemmasCallsHoldWhatTheyCan) {
  const ChatFormat format{.style = ChatStyle::kGemma4, .tools = ToolForm::kGemma};
  const auto of = [&](const char* parameters, bool strict) {
    ApiError error;
    Tools tools;
    tools.choice = Tools::Choice::kRequired;
    tools.list.push_back({"f", Json::object(), Json::parse(parameters), strict});
    (void)GrammarOf({}, tools, format, {}, error);
    return error.message;
  };
  const char* bounded =
      R"({"type":"object","properties":{"a":{"type":"string","maxLength":3}},"required":["a"],"additionalProperties":false})";
  EXPECT_EQ(of(bounded, false), "");
  EXPECT_NE(of(bounded, true).find("'maxLength' at tools 'f'/properties/a cannot be enforced"), std::string::npos) << of(bounded, true);
  EXPECT_NE(of(R"({"type":"object","properties":{"a:b":{"type":"string"}}})", false).find("the name 'a:b' at tools 'f' cannot be written"),
            std::string::npos);
}

TEST(AnswerGrammar, ComesAfterThoughtsOfGemma4) {
  AnswerShape shape;
  shape.kind = AnswerShape::Kind::kJson;
  for (const bool thinks : {false, true}) {
    ApiError error;
    const Grammar grammar = GrammarOf(shape, Tools(), {.style = ChatStyle::kGemma4, .tools = ToolForm::kNone},
                                      {.thinking = thinks ? Thinking::kOn : Thinking::kOff}, error);
    EXPECT_EQ(Accepts(grammar, "<|channel>thought\n{Hm}\n<channel|>{}"), thinks);
    EXPECT_TRUE(Accepts(grammar, "{}"));
    EXPECT_FALSE(Accepts(grammar, "<think>\n</think>{}"));
  }
}

TEST(AnswerGrammar, IsWhatTheFormatAsksFor) {
  const auto of = [](const char* format, ApiError& error) {
    const Json body = Json::parse(std::string(R"({"response_format":)") + format + "}");
    Fields fields(body, error);
    const AnswerShape shape = ReadResponseFormat(fields);
    return GrammarOf(shape, error);
  };
  ApiError error;
  EXPECT_FALSE(of("null", error).present());
  EXPECT_FALSE(of(R"({"type":"text"})", error).present());
  EXPECT_TRUE(Accepts(of(R"({"type":"json_object"})", error), R"({"a": [1]})"));
  const Grammar schema =
      of(R"({"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]}}})", error);
  EXPECT_TRUE(Accepts(schema, R"({"a":null})"));
  EXPECT_FALSE(Accepts(schema, R"({"a":1})"));
  EXPECT_TRUE(error.ok());
}

}  // namespace
}  // namespace reprise::serve
