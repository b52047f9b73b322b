#include "serve/answer_parser.h"

#include <gtest/gtest.h>

#include <random>

namespace reprise::serve {
namespace {

Tools Declared() {
  Tools tools;
  const char* kSchema =
      R"({"type": "object", "properties": {"path": {"type": "string"}, "lines": {"type": "integer"}, "deep": {"type": "object"}}})";
  for (const char* name : {"read", "write"}) tools.list.push_back({name, Json::object(), Json::parse(kSchema), false});
  return tools;
}

// One line a piece, neighbours of a kind as one.
std::string Shown(const std::vector<AnswerPiece>& pieces) {
  std::string shown;
  const AnswerPiece* before = nullptr;
  for (const AnswerPiece& piece : pieces) {
    const bool goes_on = before != nullptr && before->kind == piece.kind && piece.kind != AnswerPiece::Kind::kCall;
    if (!goes_on)
      shown += piece.kind == AnswerPiece::Kind::kText ? "|text:" : piece.kind == AnswerPiece::Kind::kThoughts ? "|thoughts:" : "|call:";
    const std::string id = piece.call.id.empty() ? "" : "#" + piece.call.id;
    shown += piece.kind == AnswerPiece::Kind::kCall ? piece.call.name + SpacedJson(piece.call.arguments) + id : piece.text;
    before = &piece;
  }
  return shown;
}

std::string Parsed(const AnswerForm& form, std::string_view text, size_t step) {
  AnswerParser parser(form);
  std::vector<AnswerPiece> pieces;
  for (size_t at = 0; at < text.size(); at += step) parser.Feed(text.substr(at, step), pieces);
  parser.Finish(pieces);
  return Shown(pieces);
}

void Expect(const AnswerForm& form, std::string_view text, std::string_view expected) {
  for (const size_t step : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, text.size() + 1}) {
    EXPECT_EQ(Parsed(form, text, step), expected) << "cut every " << step << ": " << text;
  }
  for (size_t at = 1; at < text.size(); ++at) {
    AnswerParser parser(form);
    std::vector<AnswerPiece> pieces;
    parser.Feed(text.substr(0, at), pieces);
    parser.Feed(text.substr(at), pieces);
    parser.Finish(pieces);
    EXPECT_EQ(Shown(pieces), expected) << "cut at " << at << ": " << text;
  }
}

TEST(AnswerParser, CallsAsJson) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kJson, .declared = &tools};
  Expect(form, "Hello, world.\n", "|text:Hello, world.\n");
  Expect(form, "<tool_call>\n{\"name\": \"read\", \"arguments\": {\"path\": \"a\"}}\n</tool_call>", "|call:read{\"path\": \"a\"}");
  Expect(form, "Let me see.\n\n<tool_call>{\"arguments\":{},\"name\":\"read\"}</tool_call>\n", "|text:Let me see.|call:read{}");
  Expect(form,
         "<tool_call>\n{\"name\": \"read\", \"arguments\": {\"path\": \"a\"}}\n</tool_call>\n"
         "<tool_call>\n{\"name\": \"write\", \"arguments\": {\"deep\": {\"x\": [1, {}]}}}\n</tool_call>",
         "|call:read{\"path\": \"a\"}|call:write{\"deep\": {\"x\": [1, {}]}}");
  // Brackets, quotes and even the closing tag within a string are the string's.
  Expect(form, R"(<tool_call>{"name":"read","arguments":{"path":"}}\"{</tool_call>\\"}}</tool_call>)",
         R"(|call:read{"path": "}}\"{</tool_call>\\"})");
  Expect(form, R"(<tool_call>{"name":"read","arguments":"{\"path\": 1}"}</tool_call>)", R"(|call:read{"path": 1})");
  Expect(form, R"(<tool_call>{"name":"read","arguments":{}})", "|call:read{}");  // what closes it may be missing
  Expect(form, "a <tool_cal b < c", "|text:a <tool_cal b < c");
}

TEST(AnswerParser, WhatIsNoCallIsText) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kJson, .declared = &tools};
  for (const std::string text : {
           R"(<tool_call>{"name":"remove","arguments":{}}</tool_call>)",        // not declared
           R"(<tool_call>{"name":"read","arguments":[1]}</tool_call>)",         // no object
           R"(<tool_call>{"name":"read" "arguments":{}}</tool_call>)",          // malformed
           R"(<tool_call>{"name":"read","arguments":{"path":"a)",               // unclosed
           R"(before <tool_call> and after)",                                   //
           R"(<tool_call>)",                                                    //
           R"(<tool_call></tool_call>)",                                        //
           R"(<tool_call>{<tool_call>{<tool_call>{)",                           //
           R"(<tool_call><function=read><parameter=path>unclosed</function>)",  //
           R"(<tool_call><function=read</tool_call>)",                          //
       }) {
    Expect(form, text, "|text:" + text);
  }
  const std::string deep = "<tool_call>{\"name\":\"read\",\"arguments\":" + std::string(100, '[') + std::string(100, ']') + "}</tool_call>";
  Expect(form, deep, "|text:" + deep);
  const std::string huge = "<tool_call>{\"name\":\"" + std::string(AnswerParser::kMostCallBytes + 9, 'x') + "\"}</tool_call>";
  EXPECT_EQ(Parsed(form, huge, 4096), "|text:" + huge);
  // A good one after a bad one is found.
  Expect(form, R"(<tool_call>{]<tool_call>{"name":"read","arguments":{}}</tool_call>)", "|text:<tool_call>{]|call:read{}");
  // And where no tools are, nothing is one.
  const std::string call = R"(<tool_call>{"name":"read","arguments":{}}</tool_call>)";
  Expect({}, call, "|text:" + call);
}

TEST(AnswerParser, CallsAsParameters) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kXml, .declared = &tools};
  Expect(form,
         "I look.\n\n<tool_call>\n<function=read>\n<parameter=path>\n/etc/<hosts>\n</parameter>\n<parameter=lines>\n20\n</parameter>\n"
         "</function>\n</tool_call>",
         "|text:I look.|call:read{\"path\": \"/etc/<hosts>\", \"lines\": 20}");
  Expect(form,
         "<tool_call>\n<function=write>\n<parameter=path>\n12\n\n</parameter>\n<parameter=deep>\n{\"a\": "
         "[1]}\n</parameter>\n</function>\n</tool_call>",
         "|call:write{\"path\": \"12\\n\", \"deep\": {\"a\": [1]}}");
  Expect(form, "<tool_call><function=write><parameter=lines>many</parameter></function></tool_call>", "|call:write{\"lines\": \"many\"}");
  Expect(form, "<tool_call>\n<function=read>\n</function>\n</tool_call>\n<tool_call>\n<function=write>\n</function>\n</tool_call>",
         "|call:read{}|call:write{}");
}

TEST(AnswerParser, CallsAsWholeAnswers) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kLlama, .declared = &tools};
  Expect(form, R"({"name": "read", "parameters": {"path": "a"}})", R"(|call:read{"path": "a"})");
  Expect(form, R"({"name": "read", "parameters": {}}; {"name": "write", "parameters": {}})", "|call:read{}|call:write{}");
  Expect(form, R"(As JSON: {"name": "read", "parameters": {}})", R"(|text:As JSON: {"name": "read", "parameters": {}})");
  Expect(form, R"({"city": "Bath"} is JSON)", R"(|text:{"city": "Bath"} is JSON)");
}

TEST(AnswerParser, CallsOfMistral) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kMistral, .declared = &tools};
  Expect(form, R"([TOOL_CALLS]read[ARGS]{"path": "[ARGS]}"})", R"(|call:read{"path": "[ARGS]}"})");
  Expect(form, "Let me see.\n[TOOL_CALLS]read[ARGS] {}[TOOL_CALLS]write[ARGS]{\"lines\": 2}",
         "|text:Let me see.|call:read{}|call:write{\"lines\": 2}");
  Expect(form, "[TOOL_CALLS]no[TOOL_CALLS]read[ARGS]{}", "|text:[TOOL_CALLS]no|call:read{}");
  Expect(form, "[TOOL_CALLS]read[ARGS]{]{}", "|text:[TOOL_CALLS]read[ARGS]{]{}");
  const std::string name(400, 'x');
  for (const std::string text : {"[TOOL_CALLS]burn[ARGS]{}", "[TOOL_CALLS]read[ARGS][1]", "[TOOL_CALLS]read{}",
                                 "[TOOL_CALLS]read[ARGS]{\"path\"", "[TOOL_CA", "<tool_call>{\"name\":\"read\"}</tool_call>"}) {
    Expect(form, text, "|text:" + text);
  }
  Expect(form, "[TOOL_CALLS]" + name + "[ARGS]{}", "|text:[TOOL_CALLS]" + name + "[ARGS]{}");
}

// One list between markers.
TEST(AnswerParser, CallsOfNemotron) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kNemotron, .declared = &tools, .may_think = true, .opens_thoughts = true};
  Expect(form, "Hm.\n</think>\n\n<TOOLCALL>[{\"name\": \"read\", \"arguments\": {\"path\": \"a]\"}}, {\"name\": \"write\"}]</TOOLCALL>\n",
         R"(|thoughts:Hm.|call:read{"path": "a]"}|call:write{})");
  const AnswerForm calm{.tools = ToolForm::kNemotron, .declared = &tools};
  Expect(calm, R"(So.<TOOLCALL>[{"name": "read", "id": "1"}]</TOOLCALL> And.)", "|text:So.|call:read{}|text:And.");
  Expect(calm, R"(<TOOLCALL>{"name": "read"}</TOOLCALL>)", "|call:read{}");
  Expect(calm, R"(<TOOLCALL>[{"name": "read"}]</TOOL)", "|call:read{}|text:</TOOL");
  for (const std::string text : {R"(<TOOLCALL>[{"name": "burn"}]</TOOLCALL>)", "<TOOLCALL>[]</TOOLCALL>", R"(<TOOLCALL>[{"name": "re)"}) {
    Expect(calm, text, "|text:" + text);
  }
}

// Of the third and seventh versions, in one list; and of the eleventh, with an id before the arguments.
TEST(AnswerParser, CallsOfMistralWithIds) {
  const Tools tools = Declared();
  const AnswerForm list{.tools = ToolForm::kMistralList, .declared = &tools}, ids{.tools = ToolForm::kMistralIds, .declared = &tools};
  Expect(list, R"([TOOL_CALLS] [{"name": "read", "arguments": {"path": "a]"}, "id": "abcDEF123"}])",
         R"(|call:read{"path": "a]"}#abcDEF123)");
  Expect(list, R"(So.[TOOL_CALLS][{"name": "read", "arguments": {}, "id": "1"}, {"name": "write", "arguments": {"lines": 2}}] )",
         R"(|text:So.|call:read{}#1|call:write{"lines": 2})");
  Expect(list, R"([TOOL_CALLS]{"name": "read", "arguments": {}})", "|call:read{}");
  Expect(list, R"([TOOL_CALLS][{"name": "read", "id": "abcDEF123"}])", "|call:read{}#abcDEF123");
  Expect({.tools = ToolForm::kJson, .declared = &tools}, R"(<tool_call>{"name": "read", "id": "abcDEF123"}</tool_call>)", "|call:read{}");
  for (const std::string text : {R"([TOOL_CALLS][{"name": "burn", "arguments": {}}])", "[TOOL_CALLS][]", "[TOOL_CALLS][1]",
                                 R"([TOOL_CALLS][{"name": "read", "argum)", "[TOOL_CALLS]read[ARGS]{}"}) {
    Expect(list, text, "|text:" + text);
  }
  // Each is given when it is complete.
  Expect(list, R"([TOOL_CALLS][{"name": "read", "arguments": {}})", "|call:read{}");
  Expect(list, R"([TOOL_CALLS][{"name": "read", "arguments": {}}, {"name": "wri)", R"(|call:read{}|text: {"name": "wri)");
  Expect(list, R"([TOOL_CALLS][{"name": "read"}, {"name": "burn"}, {"name": "write"}])",
         R"(|call:read{}|text: {"name": "burn"}, {"name": "write"}])");
  Expect(list, R"([TOOL_CALLS][{"name": "read"} {"name": "write"}])", R"(|call:read{}|text:{"name": "write"}])");
  Expect(list, R"([TOOL_CALLS][{"name": "read"}][TOOL_CALLS][{"name": "write"}])", "|call:read{}|call:write{}");
  Expect(ids, R"(So.[TOOL_CALLS]read[CALL_ID]abcDEF123[ARGS]{"path": "[CALL_ID]"}[TOOL_CALLS]write[ARGS]{})",
         R"(|text:So.|call:read{"path": "[CALL_ID]"}#abcDEF123|call:write{})");
  Expect(ids, "[TOOL_CALLS]burn[CALL_ID]abcDEF123[ARGS]{}", "|text:[TOOL_CALLS]burn[CALL_ID]abcDEF123[ARGS]{}");
  // A header is as long as it may be, however it is cut.
  const std::string longest = "[TOOL_CALLS]read[CALL_ID]" + std::string(512 - 13, 'x');
  Expect(ids, longest + "[ARGS]{}", "|call:read{}#" + std::string(512 - 13, 'x'));
  Expect(ids, longest + "x[ARGS]{}", "|text:" + longest + "x[ARGS]{}");
  AnswerForm one = list;
  one.one_call = true;
  AnswerParser parser(one);
  std::vector<AnswerPiece> pieces;
  parser.Feed(R"([TOOL_CALLS][{"name": "read", "arguments": {}}, {"name": "write", "arguments": {}}])", pieces);
  parser.Finish(pieces);
  EXPECT_EQ(Shown(pieces), "|call:read{}");
  EXPECT_TRUE(parser.cut());
}

TEST(AnswerParser, CallsOfPython) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kPython, .declared = &tools};
  const std::string start = "<|tool_call_start|>", end = "<|tool_call_end|>";
  Expect(form, start + R"([read(path="a)]", lines=2)])" + end, R"(|call:read{"path": "a)]", "lines": 2})");
  Expect(form, "I look.\n" + start + "[read(), write(path='it\\'s \"', deep={'x': [True, None]})]" + end + "\nSo.",
         R"(|text:I look.|call:read{}|call:write{"path": "it's \"", "deep": {"x": [true, null]}}|text:So.)");
  Expect(form, start + "[read(\"a\", 3)]" + end, R"(|call:read{"path": "a", "lines": 3})");  // by place
  Expect(form, start + "[read(path=\"\"\"a \"b\"\n\"\"\", lines = 1)]" + end, R"(|call:read{"path": "a \"b\"\n", "lines": 1})");
  Expect(form, start + R"([{"name": "read", "arguments": {"path": "a"}}, {"name": "write"}])" + end,
         R"(|call:read{"path": "a"}|call:write{})");
  Expect(form, start + "[read(path=\"\"\"a \")\" b\"\"\"), write(path='\\')', lines=1)]" + end,
         R"x(|call:read{"path": "a \")\" b"}|call:write{"path": "')", "lines": 1})x");
  Expect(form, start + "[read()" + end + "So.", "|call:read{}|text:So.");
  Expect(form, start + "[read(]" + end, "|text:" + start + "[read(]" + end);
  Expect(form, start + "read(path='')" + end, R"(|call:read{"path": ""})");
  Expect(form, start + "[read(lines=1)", R"(|call:read{"lines": 1})");
  Expect(form, start + "[read(lines=1), burn()]" + end, R"(|call:read{"lines": 1}|text: burn()])" + end);
  for (const std::string& text : {start, start + "[", start + "[]" + end, start + "[burn()]" + end, start + "[read(lines=one)]" + end,
                                  start + "[read(path='a)]" + end, start + "[read(path=\"a\" \"b\")]" + end,
                                  start + "[read(1, 2, 3, 4)]" + end, std::string("<|tool_call_sta"), std::string("[read()]")}) {
    Expect(form, text, "|text:" + text);
  }
  Expect({.tools = ToolForm::kPython, .declared = &tools, .one_call = true}, start + "[read(), write()]" + end, "|call:read{}");
}

TEST(AnswerParser, CallsOfGemma) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kGemma, .declared = &tools};
  Expect(form, "<|tool_call>call:read{path:<|\"|>a}, \"<tool_call|>\"{<|\"|>,lines:2}<tool_call|>",
         R"(|call:read{"path": "a}, \"<tool_call|>\"{", "lines": 2})");
  Expect(form, "I look.\n<|tool_call>call:read{}<tool_call|><|tool_call>call:write{deep:{x:[true,null,<|\"|><|\"|>]}}<tool_call|>",
         R"(|text:I look.|call:read{}|call:write{"deep": {"x": [true, null, ""]}})");
  Expect(form, "<|tool_call>call:read{path:<|\"|>a<|\"|>} \n<tool_call|>\nSo.", R"(|call:read{"path": "a"}|text:So.)");
  Expect(form, "<|tool_call>call:read{}", "|call:read{}");  // cut short, or ended otherwise
  Expect(form, "<|tool_call>call:read{lines: 2, path: a b}<tool_call|>", R"(|call:read{"lines": 2, "path": "a b"})");
  Expect(form, "<|tool_call>call:burn{}<tool_call|>a<|tool_call>call:read{}<tool_call|>",
         "|text:<|tool_call>call:burn{}<tool_call|>a|call:read{}");
  Expect(form, "<|tool_call>call:read{]<|tool_call>call:read{}<tool_call|>", "|text:<|tool_call>call:read{]|call:read{}");
  const std::string name(600, 'x'), deep(65, '[');
  for (const std::string text : {"<|tool_call>", "<|tool_call>read{}<tool_call|>", "<|tool_call>call:read{path:<|\"|>a}<tool_call|>",
                                 "<|tool_call>call:read{a}<tool_call|>", "<|tool_ca", "<|tool_call>call:re",
                                 "<|tool_call>call:read[]<tool_call|>", "<tool_call>{\"name\":\"read\"}</tool_call>"}) {
    Expect(form, text, "|text:" + text);
  }
  Expect(form, "<|tool_call>call:" + name + "{}", "|text:<|tool_call>call:" + name + "{}");
  Expect(form, "<|tool_call>call:read{a:" + deep + "}", "|text:<|tool_call>call:read{a:" + deep + "}");
  Expect({.tools = ToolForm::kGemma, .declared = &tools, .one_call = true},
         "<|tool_call>call:read{}<tool_call|><|tool_call>call:write{}<tool_call|>", "|call:read{}");
  // After thoughts, which the prompt may have opened behind a result.
  const ThoughtMarkers thoughts = ThoughtMarkersOf({.style = ChatStyle::kGemma4});
  Expect({.tools = ToolForm::kGemma, .declared = &tools, .may_think = true, .opens_thoughts = true, .thoughts = thoughts},
         "Hm.\n<channel|><|tool_call>call:read{}<tool_call|>", "|thoughts:Hm.|call:read{}");
}

// Where nothing ends an answer after its first call, what follows is not given.
TEST(AnswerParser, OneCallAndNoMore) {
  const Tools tools = Declared();
  Expect({.tools = ToolForm::kMistral, .declared = &tools, .one_call = true}, "a[TOOL_CALLS]read[ARGS]{}[TOOL_CALLS]write[ARGS]{}b",
         "|text:a|call:read{}");
  Expect({.tools = ToolForm::kLlama, .declared = &tools, .one_call = true}, R"({"name": "read"}; {"name": "write"})", "|call:read{}");
  for (const char* text : {"[TOOL_CALLS]read[ARGS]{}\n", "[TOOL_CALLS]read[ARGS]{}b"}) {
    AnswerParser parser({.tools = ToolForm::kMistral, .declared = &tools, .one_call = true});
    std::vector<AnswerPiece> pieces;
    parser.Feed(text, pieces);
    parser.Finish(pieces);
    EXPECT_EQ(parser.cut(), std::string_view(text).ends_with('b'));
  }
}

TEST(AnswerParser, Thoughts) {
  const Tools tools = Declared();
  const AnswerForm may{.tools = ToolForm::kJson, .declared = &tools, .may_think = true};
  const AnswerForm open{.tools = ToolForm::kXml, .declared = &tools, .may_think = true, .opens_thoughts = true};
  Expect(may, "<think>\nHm. <tool_call>\n</think>\n\nYes.", "|thoughts:Hm. <tool_call>|text:Yes.");
  Expect(may, "Not <think>at all", "|text:Not <think>at all");
  Expect(may, "<think>\n\n</think>\n\n<tool_call>{\"name\":\"read\"}</tool_call>", "|call:read{}");
  Expect(may, "<think>Never ends </thin", "|thoughts:Never ends </thin");
  Expect(open, "Hm.\n\n</think>\n\nYes.", "|thoughts:Hm.|text:Yes.");
  Expect(open, "\n</think>\n\nYes </think> no", "|text:Yes </think> no");
}

TEST(AnswerParser, ThoughtsOfGemma4) {
  const AnswerForm form{.may_think = true, .thoughts = ThoughtMarkersOf({.style = ChatStyle::kGemma4})};
  Expect(form, "<|channel>thought\nHm.\n<channel|>Yes.", "|thoughts:Hm.|text:Yes.");
  Expect(form, "<|channel>thought\n<channel|>Yes.", "|text:Yes.");
  Expect(form, "Not <|channel>thought at all", "|text:Not <|channel>thought at all");
  Expect(form, "<|channel>thought\nNever ends <chan", "|thoughts:Never ends <chan");
  Expect(form, "<think>is text</think>", "|text:<think>is text</think>");
}

TEST(AnswerParser, ThoughtsOfMistral) {
  const ThoughtMarkers thoughts = ThoughtMarkersOf({.style = ChatStyle::kMistral});
  Expect({.may_think = true, .thoughts = thoughts}, "[THINK]Hm [1].\n[/THINK]Yes [THINK].", "|thoughts:Hm [1].|text:Yes [THINK].");
  Expect({.may_think = true, .thoughts = thoughts}, "[THINK]Never ends [/TH", "|thoughts:Never ends [/TH");
  Expect({.begins_with_space = true}, " Yes [THINK] no", "|text:Yes [THINK] no");
}

TEST(AnswerParser, MessagesOnChannels) {
  const AnswerForm form{.channels = true};
  const std::string thoughts = "<|channel|>analysis<|message|>Hm, 2 < 3.<|end|>";
  Expect(form, thoughts + "<|start|>assistant<|channel|>final<|message|>Yes.\n", "|thoughts:Hm, 2 < 3.|text:Yes.\n");
  Expect(form, "<|channel|>final<|message|> <|channel|> opens one.", "|text: <|channel|> opens one.");
  Expect(form, "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant" + thoughts, "|text:I look.|thoughts:Hm, 2 < 3.");
  Expect(form, "<|channel|>unheard-of<|message|>{}<|end|>" + thoughts, "|thoughts:{}Hm, 2 < 3.");
  Expect(form, thoughts + "<|start|>assistant<|channel|>final<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
         "|thoughts:Hm, 2 < 3.|text:ab");
  // Cut short: within thoughts, between messages, within a header.
  Expect(form, "<|channel|>analysis<|message|>Hm <|en", "|thoughts:Hm <|en");
  Expect(form, thoughts + "<|start|>assist", "|thoughts:Hm, 2 < 3.");
  Expect(form, "<|channel|>fin", "");
  // No messages at all.
  Expect(form, "Hello", "|text:Hello");
  Expect(form, "<|chan ", "|text:<|chan ");
  Expect(form, "<|channel|>" + std::string(600, 'x'), "|text:<|channel|>" + std::string(600, 'x'));
  // A header is as long as it may be, whatever comes after it and however that is cut.
  const std::string longest = "<|channel|>final" + std::string(512 - 16, 'x'), text = "<|message|>a";
  Expect(form, longest + text, "|thoughts:a");
  Expect(form, longest + "x" + text, "|text:" + longest + "x" + text);
  Expect({.channels = true, .opens_final = true}, "<|channel|> is a marker.", "|text:<|channel|> is a marker.");
}

TEST(AnswerParser, CallsAsMessages) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kHarmony, .declared = &tools, .channels = true};
  const std::string thoughts = "<|channel|>analysis<|message|>Hm, {}.<|end|><|start|>assistant";
  // To whom it is comes before the channel, as the template has it, or after it; its type may have a marker, or be left out.
  const std::string before = " to=functions.read<|channel|>commentary json<|message|>";
  const std::string after = "<|channel|>commentary to=functions.read <|constrain|>json<|message|>";
  for (const std::string& header : {before, after, std::string("<|channel|>commentary to=functions.read<|message|>"),
                                    std::string("<|channel|>analysis to=functions.read code<|message|>")}) {
    Expect(form, header + "{\"path\": \"a\"}", "|call:read{\"path\": \"a\"}");
    Expect(form, thoughts + header + "\n{\"path\": \"}\\\"{<|end|>\"}\n", "|thoughts:Hm, {}.|call:read{\"path\": \"}\\\"{<|end|>\"}");
    Expect(form, thoughts + "<|channel|>commentary<|message|>I look. <|end|><|start|>assistant" + header + "{}",
           "|thoughts:Hm, {}.|text:I look. |call:read{}");
  }
  // Models end an answer with its call. One that goes on is read all the same.
  Expect(form, before + "{}<|end|><|start|>assistant to=functions.write<|channel|>commentary json<|message|>{\"lines\": 2}",
         "|call:read{}|call:write{\"lines\": 2}");
  Expect(form, before + "{} <|end|><|start|>assistant<|channel|>final<|message|> So.", "|call:read{}|text: So.");
  Expect(form, before + "{} and more", "|call:read{}|text:and more");
  Expect({.tools = ToolForm::kHarmony, .declared = &tools, .one_call = true, .channels = true},
         before + "{}<|end|><|start|>assistant" + after + "{}", "|call:read{}");
  // As long a name as there may be.
  Tools named = Declared();
  named.list[0].name = std::string(256, 'n');
  Expect({.tools = ToolForm::kHarmony, .declared = &named, .channels = true},
         "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions." + named.list[0].name +
             " <|constrain|>json<|message|>{}",
         "|thoughts:a|call:" + named.list[0].name + "{}");
}

TEST(AnswerParser, MessagesThatAreNoCallAreText) {
  const Tools tools = Declared();
  const AnswerForm form{.tools = ToolForm::kHarmony, .declared = &tools, .channels = true};
  for (const std::string text : {
           " to=functions.burn<|channel|>commentary json<|message|>{}",              // not declared
           "<|channel|>commentary to=functions.burn <|constrain|>json<|message|>a",  //
           " to=functions.read<|message|>",                                          // nothing
           " to=functions.read<|channel|>commentary json<|message|>[1]",             // no object
           " to=functions.read<|channel|>commentary json<|message|>{\"path\" 1}",    // malformed
           "<|channel|>commentary to=functions.read<|message|>{\"path\": \"a",       // unclosed
           "<|channel|>commentary to=functions.read<|message|>look",                 //
           "<|channel|>commentary to=browser.search<|message|>{}",                   // somebody else's
           " to=browser.search<|message|>{}",
       }) {
    Expect(form, text, "|text:" + text);
  }
  Expect(form, " to=functions.read<|message|>{]<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
         "|text: to=functions.read<|message|>{]Yes.");
  Expect(form, "<|channel|>analysis to=python code<|message|>1 + 1", "|thoughts:1 + 1");
  Expect(form, " to=me, said he", "|text: to=me, said he");
  Expect(form, " to=functions.re", "");  // cut short before anything was said
  // And where none may be called, nothing is one.
  const std::string call = "<|channel|>commentary to=functions.read<|message|>{}";
  Expect({.channels = true}, call, "|text:" + call);
}

// Whatever comes: no crash, the same pieces however it was cut, and no byte but white space lost unless into a call.
TEST(AnswerParser, AnythingInAnyPieces) {
  const Tools tools = Declared();
  const char* kParts[] = {"<tool_call>",
                          "</tool_call>",
                          "{\"name\": \"read\", \"arguments\": ",
                          "{}",
                          "}",
                          "{",
                          "\"",
                          "\\",
                          "[",
                          "<think>",
                          "</think>",
                          "<function=read>",
                          "<parameter=path>",
                          "</parameter>",
                          "</function>",
                          "\n",
                          " ",
                          "text",
                          "</",
                          "<tool",
                          "<|channel>thought",
                          "<channel|>",
                          "[THINK]",
                          "[/THINK]",
                          "<|tool_call>",
                          "<|tool_call>call:read{",
                          "<|tool_call_start|>[",
                          "<|tool_call_end|>",
                          "read(path=",
                          "'",
                          ")",
                          ", ",
                          "<tool_call|>",
                          "<|\"|>",
                          "path:",
                          "[TOOL_CALLS]",
                          "[TOOL_CALLS]read[ARGS]",
                          "[TOOL_CALLS][{\"name\": \"read\"",
                          "[CALL_ID]",
                          "[ARGS]",
                          "<|channel|>",
                          "<|channel|>final<|message|>",
                          "<|message|>",
                          "<|end|>",
                          "<|start|>assistant",
                          " to=functions.read",
                          "<|channel|>commentary to=functions.write <|constrain|>json<|message|>",
                          "<|",
                          ";",
                          "\xc3"};
  std::mt19937 random(7);
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (unsigned n = random() % 14; n > 0; --n) text += kParts[random() % std::size(kParts)];
    const ToolForm kForms[] = {ToolForm::kJson,        ToolForm::kXml,      ToolForm::kLlama,  ToolForm::kMistral, ToolForm::kMistralIds,
                               ToolForm::kMistralList, ToolForm::kNemotron, ToolForm::kPython, ToolForm::kGemma,   ToolForm::kNone};
    AnswerForm form{.tools = kForms[random() % std::size(kForms)],
                    .declared = &tools,
                    .one_call = random() % 4 == 0,
                    .may_think = random() % 2 == 0,
                    .opens_thoughts = random() % 4 == 0};
    if (random() % 4 == 0) form.thoughts = ThoughtMarkersOf({.style = ChatStyle::kGemma4});
    if (random() % 4 == 0) form.thoughts = ThoughtMarkersOf({.style = ChatStyle::kMistral});
    if (random() % 3 == 0) {
      form.tools = random() % 2 == 0 ? ToolForm::kHarmony : ToolForm::kNone;
      form.may_think = form.opens_thoughts = false;
      form.channels = true;
      form.opens_final = random() % 4 == 0;
    }
    const std::string whole = Parsed(form, text, text.size() + 1);
    ASSERT_EQ(Parsed(form, text, 1), whole) << text;
    ASSERT_EQ(Parsed(form, text, 1 + random() % 9), whole) << text;
    const bool plain = form.tools == ToolForm::kNone && !form.may_think && !form.opens_thoughts && !form.channels;
    if (plain && !text.empty()) {
      ASSERT_EQ(whole, "|text:" + text);
    }
  }
}

}  // namespace
}  // namespace reprise::serve
