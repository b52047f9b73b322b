// Chats of a model: messages as a prompt with the boundaries worth keeping, and messages read back from tokens.
#include "session/chat_format.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <vector>

#include "models/synth.h"
#include "session/engine.h"

namespace reprise {
namespace {

class ChatFormatTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / ("reprise_chat_format_" + std::to_string(::getpid()) + ".gguf");
    ASSERT_TRUE(Synthesize({.shape = "tiny"}, path_.string()).ok());
    auto model = Model::Load(path_.string(), {.threads = 1, .context = 512, .lanes = 1, .capsules = 4});
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_.emplace(*std::move(model));
  }
  void TearDown() override {
    model_.reset();
    std::filesystem::remove(path_);
  }
  const Model& model() const { return *model_; }

 private:
  std::filesystem::path path_;
  std::optional<Model> model_;
};

TEST_F(ChatFormatTest, WritesMessagesAsThePromptOfTheModel) {
  const std::vector<Message> chat = {{"system", "Be brief."}, {"user", "What ends <|im_end|> a turn?"}};
  const auto prompt = ChatPrompt::Of(model(), chat);
  ASSERT_TRUE(prompt.ok()) << prompt.status().message();
  EXPECT_EQ(*model().Detokenize(prompt->tokens),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat ends <|im_end|> a turn?<|im_end|>\n<|im_start|>assistant\n");
  // Its own markers end turns, and no content does.
  const auto end = model().Tokenize("<|im_end|>", /*parse_special=*/true);
  ASSERT_EQ(end->size(), 1U);
  EXPECT_EQ(std::count(prompt->tokens.begin(), prompt->tokens.end(), end->front()), 2);
}

// A model with SentencePiece's vocabulary, whose system speaks within the first question.
TEST(ChatsOfGemma, AreItsPromptsAndAreReadBack) {
  const auto model = Model::Load("tests/data/goldens/gemma3.gguf", {.threads = 1, .context = 256, .lanes = 1, .capsules = 2});
  ASSERT_TRUE(model.ok()) << model.status().message();
  const std::vector<Message> chat = {{"system", "Be brief."}, {"user", "Who <end_of_turn> ends a turn?"}};
  const auto prompt = ChatPrompt::Of(*model, chat);
  ASSERT_TRUE(prompt.ok()) << prompt.status().message();
  EXPECT_EQ(*model->Detokenize(prompt->tokens),
            "<bos><start_of_turn>user\nBe brief.\n\nWho <end_of_turn> ends a turn?<end_of_turn>\n<start_of_turn>model\n");
  ASSERT_EQ(prompt->boundaries.size(), 2U);
  EXPECT_EQ(prompt->boundaries[0].keep, Keep::kSystem);
  const auto first = std::span(prompt->tokens).first(static_cast<size_t>(prompt->boundaries[0].position));
  EXPECT_EQ(*model->Detokenize({first.begin(), first.end()}), "<bos><start_of_turn>user\nBe brief.\n\n");
  const auto messages = MessagesOf(*model, *ChatFormatOf(*model), prompt->tokens);
  ASSERT_TRUE(messages.ok()) << messages.status().message();
  ASSERT_EQ(messages->size(), 1U);
  EXPECT_EQ(messages->front().content, "Be brief.\n\nWho <end_of_turn> ends a turn?");
}

TEST_F(ChatFormatTest, BoundariesAreWhereLaterPromptsPart) {
  const std::vector<Message> chat = {{"system", "Be brief."}, {"user", "Why?"}};
  const auto prompt = ChatPrompt::Of(model(), chat);
  ASSERT_TRUE(prompt.ok());
  ASSERT_EQ(prompt->boundaries.size(), 2U);
  EXPECT_EQ(prompt->boundaries[0].keep, Keep::kSystem);
  EXPECT_EQ(prompt->boundaries[1].keep, Keep::kTurn);
  const std::vector<Message> other = {{"system", "Be brief."}, {"user", "Never mind."}};
  const std::vector<int32_t> tokens = ChatPrompt::Of(model(), other)->tokens;
  const auto parts = std::mismatch(prompt->tokens.begin(), prompt->tokens.end(), tokens.begin(), tokens.end()).first;
  EXPECT_LE(prompt->boundaries[0].position, parts - prompt->tokens.begin());
  EXPECT_GT(prompt->boundaries[1].position, parts - prompt->tokens.begin());
  auto session = model().NewSession();
  ASSERT_TRUE(session.ok());
  EXPECT_TRUE(session->Prefill(prompt->tokens, {.boundaries = prompt->boundaries}).ok());
}

TEST_F(ChatFormatTest, RefusesWhatIsNoChat) {
  EXPECT_EQ(ChatPrompt::Of(model(), {}).status().code(), StatusCode::kInvalidArgument);
  const std::vector<Message> strange = {{"oracle", "?"}};
  EXPECT_EQ(ChatPrompt::Of(model(), strange).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ChatFormatTest, MessagesAreReadBackByTheFormatsOwnMarkers) {
  const auto format = ChatFormatOf(model());
  ASSERT_TRUE(format.ok());
  const std::vector<ChatMessage> chat = {{"system", "Be brief."}, {"user", "Why?"}, {"assistant", "Because."}, {"user", "Why\n\nso?"}};
  const auto tokens = EncodeChatFor(model(), *format, chat);
  ASSERT_TRUE(tokens.ok());
  const auto messages = MessagesOf(model(), *format, *tokens);  // the opened answer has no word yet
  ASSERT_TRUE(messages.ok()) << messages.status().message();
  ASSERT_EQ(messages->size(), chat.size());
  for (size_t i = 0; i < chat.size(); ++i) {
    EXPECT_EQ((*messages)[i].role, chat[i].role);
    EXPECT_EQ((*messages)[i].content, chat[i].content);
  }
  EXPECT_EQ(MessagesOf(model(), *format, *model().Tokenize("no chat")).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(MessagesOf(model(), {.style = ChatStyle::kPlain}, *tokens).status().code(), StatusCode::kUnsupported);
  // Another format's markers are other tokens: these are none of its.
  EXPECT_EQ(MessagesOf(model(), {.style = ChatStyle::kLlama3}, *tokens).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace reprise
