// Nemotron Nano 2's chats. What is expected was written by the template on the model's card, run on these messages.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "text/chat_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

const std::string kTemplate = "<SPECIAL_10>System <SPECIAL_11>User <SPECIAL_12>";
const ChatToolCall kRead{"1", "read", R"({"path": "a"})"}, kList{"2", "list", "{}"};

TEST(Nemotron, IsRecognisedByItsMarkers) {
  const Tokenizer t = Make(kEveryMarker);
  const auto plain = RecogniseChatFormat(t, kTemplate), tools = RecogniseChatFormat(t, kTemplate + "<TOOLCALL>");
  ASSERT_TRUE(plain.ok() && tools.ok());
  EXPECT_EQ(ChatStyleName(plain->style), "nemotron-nano");
  EXPECT_EQ(plain->tools, ToolForm::kNone);
  EXPECT_EQ(tools->tools, ToolForm::kNemotron);
  EXPECT_TRUE(plain->thinks);
  EXPECT_EQ(NamedChatFormat(t, "nemotron-nano")->tools, ToolForm::kNemotron);
  std::vector<std::string> fewer = kEveryMarker;
  std::erase(fewer, "<SPECIAL_10>");
  EXPECT_EQ(RecogniseChatFormat(Make(fewer), kTemplate).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(NamedChatFormat(Make(fewer), "nemotron-nano").status().code(), StatusCode::kUnsupported);
  // Its predecessors end no answer by a marker.
  EXPECT_EQ(RecogniseChatFormat(t, "<SPECIAL_10>System <SPECIAL_11>User").status().code(), StatusCode::kUnsupported);
}

TEST(Nemotron, IsWrittenAsTheModelKnowsIt) {
  const Tokenizer t = Make(kEveryMarker);
  const ChatFormat format = *NamedChatFormat(t, "nemotron-nano");
  EXPECT_EQ(Joined(*RenderChat(format, std::vector<ChatMessage>{{"user", " a\n"}})),
            "<SPECIAL_10>System\n\n<SPECIAL_11>User\na\n<SPECIAL_11>Assistant\n<think>\n");
  const std::vector<ChatMessage> chat = {{"system", "Be brief. /no_think"},
                                         {"user", "a"},
                                         {"assistant", "hm</think> I look.", "", {kRead, kList}},
                                         {"tool", " x"},
                                         {"tool", "y\n"},
                                         {"assistant", "b\n", "But"}};
  ChatOptions options;
  options.tools = {R"({"name": "read"})", R"({"name": "list"})"};
  EXPECT_EQ(Joined(*RenderChat(format, chat, options)),
            "<SPECIAL_10>System\nBe brief.\n\nYou can use the following tools to assist the user if required:\n"
            "<AVAILABLE_TOOLS>[{\"name\": \"read\"}, {\"name\": \"list\"}]</AVAILABLE_TOOLS>\n\n"
            "If you decide to call any tool(s), use the following format:\n"
            "<TOOLCALL>[{{\"name\": \"tool_name1\", \"arguments\": \"tool_args1\"}}, {{\"name\": \"tool_name2\", \"arguments\": "
            "\"tool_args2\"}}]</TOOLCALL>\n\n"
            "The user will execute tool-calls and return responses from tool(s) in this format:\n"
            "<TOOL_RESPONSE>[{{\"tool_response1\"}}, {{\"tool_response2\"}}]</TOOL_RESPONSE>\n\n"
            "Based on the tool responses, you can call additional tools if needed, correct tool calls if any errors are found, or just "
            "respond to the user.\n"
            "<SPECIAL_11>User\na\n"
            "<SPECIAL_11>Assistant\nI look.\n\n<TOOLCALL>[{\"name\": \"read\", \"arguments\": {\"path\": \"a\"}}, {\"name\": \"list\", "
            "\"arguments\": {}}]</TOOLCALL>\n<SPECIAL_12>\n"
            "<SPECIAL_11>User\n<TOOL_RESPONSE>[ x, y\n]</TOOL_RESPONSE>\n"
            "<SPECIAL_11>Assistant\nb\n<SPECIAL_12>\n<SPECIAL_11>Assistant\n<think></think>");
  // A chat that goes on says nothing more of the system.
  EXPECT_EQ(Joined(*RenderChat(format, std::vector<ChatMessage>{{"user", "a"}}, {.add_generation_prompt = false, .continues = true})),
            "<SPECIAL_11>User\na\n");
  EXPECT_FALSE(RenderChat(format, std::vector<ChatMessage>{{"user", "a"}, {"system", "b"}}).ok());
}

// The last word counts, of the system's or a question's; it is said to nobody. Who asks by other means is heard first.
TEST(Nemotron, MessagesSayWhetherToThink) {
  const Tokenizer t = Make(kEveryMarker);
  const ChatFormat format = *NamedChatFormat(t, "nemotron-nano");
  const auto thinks = [&](const std::vector<ChatMessage>& chat, Thinking thinking = Thinking::kByFormat) {
    const std::string text = Joined(*RenderChat(format, chat, {.thinking = thinking}));
    EXPECT_EQ(text.find("/no_think"), std::string::npos) << text;
    const bool opens = text.ends_with("<think>\n");
    EXPECT_EQ(OpensThoughts(format, {.thinking = ThinkingFor(format, chat, thinking)}), opens);
    EXPECT_TRUE(opens || text.ends_with("<think></think>")) << text;
    return opens;
  };
  EXPECT_TRUE(thinks({{"user", "a"}}));
  EXPECT_FALSE(thinks({{"system", "/no_think"}, {"user", "a"}}));
  EXPECT_TRUE(thinks({{"system", "/no_think"}, {"user", "a /think"}}));
  EXPECT_FALSE(thinks({{"user", "a /think"}, {"assistant", "/think"}, {"user", "b/no_think"}}));
  EXPECT_TRUE(thinks({{"system", "/no_think"}, {"user", "a"}}, Thinking::kOn));
  EXPECT_FALSE(thinks({{"user", "a /think"}}, Thinking::kOff));
  EXPECT_EQ(ThinkingFor({}, std::vector<ChatMessage>{{"user", "/no_think"}}, Thinking::kByFormat), Thinking::kByFormat);
}

TEST(Nemotron, IsReadBackAndGoneOnWith) {
  const Tokenizer t = Make(kEveryMarker);
  const ChatFormat format = *NamedChatFormat(t, "nemotron-nano");
  const std::vector<ChatMessage> chat = {{"system", "s"}, {"user", "a\n\nb"}, {"assistant", "c"}, {"tool", "d"}};
  const std::vector<int32_t> tokens = *EncodeChat(t, format, chat, {.add_generation_prompt = false});
  const auto turns = TurnsOf(t, format, tokens);
  ASSERT_EQ(turns.size(), 4U);
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"system", "s"}, {"user", "a\n\nb"}, {"assistant", "c"}, {"user", "<TOOL_RESPONSE>[d]</TOOL_RESPONSE>"}};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(std::pair(turns[i].role, turns[i].content), expected[i]);
  EXPECT_EQ(turns[1].position, EncodeChatTurns(t, format, chat)->turns[1]);

  const auto end_of = [&](const std::string& text) {
    std::string end;
    for (const int32_t token : EndOfTurn(t, format, t.Encode(text, {.parse_special = true}))) end += t.TokenBytes(token);
    return end;
  };
  EXPECT_EQ(end_of("<SPECIAL_10>System\ns\n<SPECIAL_11>User\na\n"), "") << "a question that is complete";
  EXPECT_EQ(end_of("<SPECIAL_10>System\ns"), "\n");
  EXPECT_EQ(end_of("<SPECIAL_11>User\na\n<SPECIAL_11>Assistant\n<think></think>b"), "\n<SPECIAL_12>\n");
  EXPECT_EQ(end_of("<SPECIAL_11>Assistant\nb\n"), "<SPECIAL_12>\n");
  EXPECT_EQ(end_of("<SPECIAL_11>Assistant\nb\n<SPECIAL_12>"), "\n");
  EXPECT_EQ(end_of("<SPECIAL_11>Assistant\nb\n<SPECIAL_12>\n"), "");
}

}  // namespace
}  // namespace reprise
