// Phi's chats, where a marker is the role or follows it.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "text/chat_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

const std::string kPhi3 = "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{{ '<|assistant|>\n' }}";

// As the templates of Phi-4 and Phi-4-mini write them; no content ends its turn, and turns are read back.
TEST(Phi, TurnsOfTheFourth) {
  const Tokenizer t = Make(kEveryMarker);
  const auto large = RecogniseChatFormat(t, "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}");
  const auto mini = RecogniseChatFormat(t, "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}");
  ASSERT_TRUE(large.ok() && mini.ok());
  EXPECT_EQ(large->style, ChatStyle::kPhi4);
  EXPECT_EQ(mini->style, ChatStyle::kPhi4Mini);
  // Phi 3's in a vocabulary that takes no line breaks back.
  EXPECT_EQ(RecogniseChatFormat(t, kPhi3).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(NamedChatFormat(t, "phi3").status().code(), StatusCode::kUnsupported);
  const std::vector<ChatMessage> chat = {{"system", "s"}, {"user", "a <|end|> b<|im_end|>"}, {"assistant", "c"}, {"user", "d"}};
  EXPECT_EQ(Joined(*RenderChat(*large, chat)),
            "<|im_start|>system<|im_sep|>s<|im_end|><|im_start|>user<|im_sep|>a <|end|> b<|im_end|><|im_end|>"
            "<|im_start|>assistant<|im_sep|>c<|im_end|><|im_start|>user<|im_sep|>d<|im_end|><|im_start|>assistant<|im_sep|>");
  EXPECT_EQ(Joined(*RenderChat(*mini, chat)),
            "<|system|>s<|end|><|user|>a <|end|> b<|im_end|><|end|><|assistant|>c<|end|><|user|>d<|end|><|assistant|>");
  for (const ChatFormat& format : {*large, *mini}) {
    const auto encoded = EncodeChatTurns(t, format, chat);
    ASSERT_TRUE(encoded.ok());
    EXPECT_EQ(encoded->turns.size(), 5U);
    EXPECT_EQ(encoded->system_end, encoded->turns[1]);
    const std::vector<ChatTurn> turns = TurnsOf(t, format, encoded->tokens);
    ASSERT_EQ(turns.size(), 5U);
    for (size_t i = 0; i < chat.size(); ++i) {
      EXPECT_EQ(turns[i].role, chat[i].role);
      EXPECT_EQ(turns[i].content, chat[i].content);
    }
    EXPECT_EQ(turns.back().role, "assistant");
    EXPECT_EQ(EndOfTurn(t, format, encoded->tokens).size(), 1U);
  }
  EXPECT_FALSE(RenderChat(*mini, chat, {.tools = {"{}"}}).ok());
}

// Its markers take the white space after them back, and text begins with a space, an answer too.
TEST(Phi, TurnsOfTheThird) {
  const Tokenizer t = MakePieces({"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"});
  ASSERT_TRUE(t.adds_space());
  const ChatFormat format = *NamedChatFormat(t, "phi3");
  for (const std::string& known : {kPhi3, std::string("{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}")}) {
    const auto recognised = RecogniseChatFormat(t, known);
    ASSERT_TRUE(recognised.ok()) << recognised.status().message();
    EXPECT_EQ(ChatStyleName(recognised->style), "phi3");
  }
  const std::vector<ChatMessage> chat = {{"system", "\n s"}, {"user", " a <|end|> \n"}, {"assistant", " c"}, {"user", "d"}};
  EXPECT_EQ(Joined(*RenderChat(format, chat)),
            "<|system|>s<|end|><|user|>a <|end|> \n<|end|><|assistant|>c<|end|><|user|>d<|end|><|assistant|>");
  const std::vector<int32_t> tokens = *EncodeChat(t, format, chat);
  std::vector<std::string> names;
  for (const int32_t token : tokens) names.emplace_back(t.TokenBytes(token));
  const std::vector<std::string> begin = {"<|system|>", " ", "s", "<|end|>", "<|user|>", " ", "a", " ", "<", "|"};
  ASSERT_GT(names.size(), begin.size());
  EXPECT_TRUE(std::equal(begin.begin(), begin.end(), names.begin())) << Joined(*RenderChat(format, chat));
  const std::vector<ChatTurn> turns = TurnsOf(t, format, tokens);
  ASSERT_EQ(turns.size(), 5U);
  EXPECT_EQ(turns[1].content, "a <|end|> \n");
  EXPECT_EQ(turns[2].content, "c");
  // What was generated is what the next prompt says of it.
  const std::vector<ChatMessage> told = {{"user", "a"}, {"assistant", "c"}};
  std::vector<int32_t> expected = *EncodeChat(t, format, std::span(told).first(1));
  for (const char* piece : {"\u2581", "c", "<|end|>"}) expected.push_back(*t.Find(piece));
  EXPECT_EQ(*EncodeChat(t, format, told, {.add_generation_prompt = false}), expected);
  EXPECT_TRUE(AnswersBeginWithSpace(format));
  EXPECT_TRUE(t.IsEndOfGeneration(expected.back()));
}

}  // namespace
}  // namespace reprise
