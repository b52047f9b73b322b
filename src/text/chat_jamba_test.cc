// Jamba Reasoning's chats, which are ChatML. What is expected was written by its template, run on these messages.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "text/chat_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

const std::string kThink =
    "Begin by thinking about the reasoning process in the mind within <think> </think> tags and then proceed to give your response.\n";

TEST(Jamba, IsRecognisedByWhatItSaysOfThoughts) {
  const Tokenizer t = Make();
  const auto format = RecogniseChatFormat(t, "{%- set thinking_prefix = 0 %} {{- bos_token -}} <|im_start|> <|im_end|> reasoning_content");
  ASSERT_TRUE(format.ok()) << format.status().message();
  EXPECT_EQ(ChatStyleName(format->style), "jamba-reasoning");
  EXPECT_EQ(format->tools, ToolForm::kJson);
  EXPECT_TRUE(format->thinks);
  EXPECT_TRUE(format->writes_bos);
  EXPECT_TRUE(NamedChatFormat(t, "jamba-reasoning")->thinks);
}

TEST(Jamba, AsksForThoughtsWithTheQuestion) {
  const Tokenizer t = Make();
  const ChatFormat format = *NamedChatFormat(t, "jamba-reasoning");
  const auto rendered = [&](const std::vector<ChatMessage>& chat, Thinking thinking = Thinking::kByFormat) {
    return Joined(*RenderChat(format, chat, {.thinking = thinking}));
  };
  const std::string system = "<|im_start|>system\ns<|im_end|>\n", question = "<|im_start|>user\n", opening = "<|im_start|>assistant\n";
  const std::string end = "<|im_end|>\n";
  EXPECT_EQ(rendered({{"system", "s"}, {"user", "a"}}), system + question + kThink + "a" + end + opening + "<think>\n");
  EXPECT_EQ(rendered({{"user", "a"}}, Thinking::kOff), question + "a" + end + opening);
  EXPECT_EQ(rendered({{"user", "a <think>"}}), question + "a <think>" + end + opening + "<think>\n");
  // Of old only those whose answers thought, of which the thoughts are gone.
  const std::string last = question + kThink + "c" + end + opening + "<think>\n";
  EXPECT_EQ(rendered({{"user", "a"}, {"assistant", "b"}, {"user", "c"}}), question + "a" + end + opening + "b" + end + last);
  EXPECT_EQ(rendered({{"user", "a"}, {"assistant", "b", "Hm"}, {"user", "c"}}), question + kThink + "a" + end + opening + "b" + end + last);
  EXPECT_EQ(rendered({{"user", "a"}, {"assistant", "<think>\nHm\n</think>\n\nb"}, {"user", "c"}}),
            question + kThink + "a" + end + opening + "b" + end + last);
  EXPECT_EQ(rendered({{"user", "a"}, {"assistant", "Hm\n</think>\n\nb"}, {"user", "c"}}),
            question + kThink + "a" + end + opening + "b" + end + last)
      << "as an answer is generated whose opening was the prompt's";
  // Until the next question they stay.
  const ChatToolCall call{"1", "read", "{}"};
  EXPECT_EQ(rendered({{"user", "a"}, {"assistant", "", "\nHm\n", {call}}, {"tool", "x"}}),
            question + kThink + "a" + end + opening +
                "<think>\nHm\n</think>\n\n<tool_call>\n{\"name\": \"read\", \"arguments\": {}}\n</tool_call>" + end + question +
                "<tool_response>\nx\n</tool_response>" + end + opening + "<think>\n");
  EXPECT_EQ(rendered({{"user", "a"}, {"assistant", "", "", {call}}, {"tool", "x"}}),
            question + "a" + end + opening + "<tool_call>\n{\"name\": \"read\", \"arguments\": {}}\n</tool_call>" + end + question +
                "<tool_response>\nx\n</tool_response>" + end + opening + "<think>\n")
      << "no empty ones";
}

}  // namespace
}  // namespace reprise
