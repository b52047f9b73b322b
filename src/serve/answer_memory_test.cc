#include "serve/answer_memory.h"

#include <gtest/gtest.h>

#include "store/disk_test_support.h"

namespace reprise::serve {
namespace {

using Tokens = std::vector<int32_t>;

ChatMessage Called(const std::string& id, const std::string& arguments) { return {"assistant", "I look.", "", {{id, "read", arguments}}}; }

TEST(AnswerMemory, AMessageThatSaysTheSameGivesTheTokens) {
  AnswerMemory memory;
  const Tokens prompt = {1, 2, 3, 4};
  const Tokens tokens = {7, 8, 9};
  memory.Remember("mine", prompt, Called("a", R"({"x": 1, "y": [2]})"), tokens);
  const auto ask = [&](const std::string& name_space, const Tokens& head, const Tokens& before, const Tokens& opening,
                       const ChatMessage& message) { return memory.Recall(name_space, head)(before, opening, message, true); };
  EXPECT_EQ(ask("mine", {}, prompt, {}, Called("a", R"({"x": 1, "y": [2]})")), tokens);
  EXPECT_EQ(ask("mine", {1}, {2, 3}, {4}, Called("a", R"({"x": 1, "y": [2]})")), tokens) << "however the prompt is divided";
  EXPECT_EQ(ask("mine", {}, prompt, {}, Called("a", R"({"y":[2],"x":1})")), tokens) << "order and white space of arguments";
  EXPECT_EQ(ask("mine", {}, prompt, {}, Called("a", R"({"x": 2, "y": [2]})")), std::nullopt);
  EXPECT_EQ(ask("mine", {}, prompt, {}, Called("b", R"({"x": 1, "y": [2]})")), std::nullopt);
  EXPECT_EQ(ask("mine", {}, {1, 2, 3}, {}, Called("a", R"({"x": 1, "y": [2]})")), std::nullopt) << "after another prompt";
  EXPECT_EQ(ask("theirs", {}, prompt, {}, Called("a", R"({"x": 1, "y": [2]})")), std::nullopt) << "of another namespace";
  ChatMessage padded = Called("a", R"({"x": 1, "y": [2]})");
  padded.content = "\nI look. \n";
  EXPECT_EQ(ask("mine", {}, prompt, {}, padded), tokens);
  padded.content = "I looked.";
  EXPECT_EQ(ask("mine", {}, prompt, {}, padded), std::nullopt);
}

TEST(AnswerMemory, ThoughtsComeBackWhereTheyAreShown) {
  AnswerMemory memory;
  ChatMessage message{"assistant", "Yes.", "Hm."};
  memory.Remember("", Tokens{1}, message, Tokens{5, 6});
  const auto ask = [&](const std::string& thoughts, bool shown) {
    return memory.Recall("", {})(Tokens{1}, {}, ChatMessage{"assistant", "Yes.", thoughts}, shown).has_value();
  };
  EXPECT_TRUE(ask("", true));
  EXPECT_TRUE(ask("Hm.", true));
  EXPECT_FALSE(ask("Ha!", true)) << "thoughts that the client changed";
  EXPECT_FALSE(ask("Hm.", false)) << "a template that drops them";
}

TEST(AnswerMemory, IsBounded) {
  AnswerMemory memory(1000);
  for (int32_t i = 0; i < 100; ++i) memory.Remember("", Tokens{i}, {"assistant", "x"}, Tokens(36, i));
  EXPECT_LE(memory.held(), 1000u);
  const auto recall = [&](int32_t i) { return memory.Recall("", {})(Tokens{i}, {}, {"assistant", "x"}, true).has_value(); };
  EXPECT_FALSE(recall(0));
  EXPECT_TRUE(recall(99));
}

// A server that starts again: what it knew is in the store's directory.
TEST(AnswerMemory, OutlivesItsProcessInAFile) {
  const testing_support::TemporaryDirectory directory;
  const Fingerprint model = FingerprintBuilder().Add("name", "model").Finish();
  const auto started = [&](const Fingerprint& fingerprint, int vocabulary, size_t most = 1000) {
    auto memory = std::make_unique<AnswerMemory>(most);
    const auto files = FileSystem::Open(directory / "store", false);
    bool begun_anew = false;
    auto file = RecordFile::Open(**files, fingerprint, 1 << 20, begun_anew);
    EXPECT_TRUE(file.ok()) << file.status().message();
    EXPECT_TRUE(memory->KeepIn(*std::move(file), vocabulary).ok());
    return memory;
  };
  const auto ask = [](AnswerMemory& memory, const std::string& name_space, const ChatMessage& message) {
    return memory.Recall(name_space, {})(Tokens{1, 2}, {}, message, true);
  };
  const ChatMessage thought{"assistant", "Yes.", "Hm."}, other{"assistant", "No."};
  {
    const auto memory = started(model, 100);
    memory->Remember("mine", Tokens{1, 2}, thought, Tokens{5, 6, 99});
    memory->Remember("mine", Tokens{1, 2}, other, Tokens{7});
    memory->Remember("mine", Tokens{1, 2}, other, Tokens{8});
    EXPECT_EQ(ask(*started(model, 100), "mine", thought), std::nullopt) << "nobody waits for a disk before WriteOut";
    EXPECT_TRUE(memory->WriteOut().ok());
  }
  const auto memory = started(model, 100);
  EXPECT_EQ(ask(*memory, "mine", thought), (Tokens{5, 6, 99}));
  EXPECT_EQ(ask(*memory, "mine", {"assistant", "Yes.", "Ha!"}), std::nullopt) << "thoughts that the client changed";
  EXPECT_EQ(ask(*memory, "mine", other), (Tokens{8})) << "the latest";
  EXPECT_EQ(ask(*memory, "theirs", thought), std::nullopt);
  EXPECT_EQ(ask(*started(FingerprintBuilder().Add("name", "another").Finish(), 100), "mine", thought), std::nullopt);
  EXPECT_EQ(ask(*started(model, 99), "mine", thought), std::nullopt) << "a token that the model does not have";
  // Two servers on one directory, each with what the other has said since.
  const auto beside = started(model, 100);
  const ChatMessage later{"assistant", "Later."};
  beside->Remember("mine", Tokens{1, 2}, later, Tokens{9});
  ASSERT_TRUE(beside->WriteOut().ok());
  EXPECT_EQ(ask(*memory, "mine", later), std::nullopt);
  ASSERT_TRUE(memory->ReadIn().ok());
  EXPECT_EQ(ask(*memory, "mine", later), (Tokens{9}));
  memory->Remember("mine", Tokens{1, 2}, later, Tokens{10});
  ASSERT_TRUE(memory->WriteOut().ok());
  ASSERT_TRUE(beside->ReadIn().ok());
  EXPECT_EQ(ask(*beside, "mine", later), (Tokens{10})) << "the latest, whoever said it";
  const size_t held = memory->held();
  ASSERT_TRUE(memory->ReadIn().ok());
  EXPECT_EQ(memory->held(), held);
  EXPECT_EQ(started(model, 100, 100)->held(), 65u) << "as much as the memory may hold, the latest first";
}

}  // namespace
}  // namespace reprise::serve
