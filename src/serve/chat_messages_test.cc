#include "serve/chat_messages.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace reprise::serve {
namespace {

std::vector<ChatMessage> Read(std::string_view body, bool anthropic = false) {
  ApiError error;
  const Json json = Json::parse(body);
  Fields fields(json, error);
  std::vector<ChatMessage> messages = anthropic ? ReadAnthropicMessages(fields) : ReadMessages(fields);
  EXPECT_TRUE(error.ok()) << error.message;
  return messages;
}

// The names of the results, in order.
std::string Results(const std::vector<ChatMessage>& messages) {
  std::string names;
  for (const ChatMessage& message : messages) {
    if (message.role == "tool") names += message.tool + ";";
  }
  return names;
}

TEST(ChatMessages, ResultsAreNamedByTheirCalls) {
  EXPECT_EQ(Results(Read(R"({"messages":[
      {"role":"user","content":"a"},
      {"role":"assistant","tool_calls":[{"id":"1","function":{"name":"read","arguments":"{}"}},{"id":"2","function":{"name":"list"}}]},
      {"role":"tool","tool_call_id":"2","content":"x","name":"no matter"},{"role":"tool","tool_call_id":"1","content":"y"},
      {"role":"assistant","tool_calls":[{"id":"2","function":{"name":"write"}}]},{"role":"tool","tool_call_id":"2","content":"z"}]})")),
            "list;read;write;")
      << "of calls with one id the later one";
  const std::vector<ChatMessage> theirs = Read(R"({"messages":[
      {"role":"user","content":"a"},
      {"role":"assistant","content":[{"type":"text","text":"I look."},{"type":"tool_use","id":"1","name":"read","input":{}},
                                     {"type":"tool_use","id":"2","name":"list","input":{}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"2","content":"x"},{"type":"tool_result","tool_use_id":"1","content":"y"},
                                {"type":"text","text":"Well?"}]}]})",
                                               /*anthropic=*/true);
  EXPECT_EQ(Results(theirs), "list;read;");
  ASSERT_EQ(theirs.size(), 5u);
  EXPECT_EQ(theirs[4].content, "Well?");
}

// Of those that go by ids, and of those that are JSON where they are.
TEST(ChatMessages, ResultsHaveTheIdsOfTheirCallsAndAreJsonIfTheyAre) {
  const std::vector<ChatMessage> messages = Read(R"({"messages":[{"role":"tool","tool_call_id":"1","content":"{\"a\": [1,null]}"},
      {"role":"tool","tool_call_id":"2","content":"plain"},{"role":"tool","content":"12"}]})");
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].call + messages[1].call + messages[2].call, "12");
  EXPECT_EQ(messages[0].json, R"({"a": [1, null]})");
  EXPECT_EQ(messages[1].json, "");
  EXPECT_EQ(messages[2].json, "12");
  const std::vector<ChatMessage> theirs =
      Read(R"({"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"x"}]}]})", /*anthropic=*/true);
  EXPECT_EQ(theirs[0].call, "1");
}

// What the format makes of one without a name is its own to say (Harmony's: chat_harmony_test.cc).
TEST(ChatMessages, AResultOfNoCallHasTheNameThatTheClientSays) {
  EXPECT_EQ(Results(Read(R"({"messages":[{"role":"tool","tool_call_id":"1","content":"x","name":"read"},{"role":"tool","content":"x"},
      {"role":"tool","tool_call_id":"1","content":"x"}]})")),
            "read;;;");
  EXPECT_EQ(Results(Read(R"({"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"x"}]}]})",
                         /*anthropic=*/true)),
            ";");
}

}  // namespace
}  // namespace reprise::serve
