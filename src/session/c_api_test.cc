// The C interface: what it does, and what it refuses.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/hot_calls.h"
#include "models/synth.h"
#include "reprise/reprise.h"

namespace {

using Tokens = std::vector<int32_t>;

class CApi : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = std::filesystem::temp_directory_path() / ("reprise_c_api_" + std::to_string(::getpid()) + ".gguf");
    reprise::SynthOptions options;
    options.shape = "tiny";
    ASSERT_TRUE(reprise::Synthesize(options, path_.string()).ok());
  }
  static void TearDownTestSuite() { std::filesystem::remove(path_); }

  void SetUp() override {
    model_ = Load(4);
    ASSERT_NE(model_, nullptr) << reprise_last_error();
    ASSERT_EQ(reprise_session_new(model_, &session_), REPRISE_OK) << reprise_last_error();
    ASSERT_EQ(reprise_capsule_new(&capsule_), REPRISE_OK);
  }
  void TearDown() override {
    reprise_session_free(session_);
    reprise_capsule_free(capsule_);
    reprise_model_free(model_);
  }

  static reprise_model* Load(int lanes) {
    reprise_model_options options;
    EXPECT_EQ(reprise_model_options_init(&options, sizeof(options)), REPRISE_OK);
    options.lanes = lanes;
    options.context = 512;
    options.threads = 2;
    reprise_model* model = nullptr;
    EXPECT_EQ(reprise_model_load(path_.c_str(), &options, &model), REPRISE_OK) << reprise_last_error();
    return model;
  }
  void Sample(reprise_session* session, uint64_t seed = 3) {
    reprise_sampling sampling;
    ASSERT_EQ(reprise_sampling_init(&sampling, sizeof(sampling)), REPRISE_OK);
    sampling.temperature = 1;
    sampling.repetition_penalty = 1.1F;
    sampling.seed = seed;
    ASSERT_EQ(reprise_set_sampling(session, &sampling), REPRISE_OK) << reprise_last_error();
  }
  void Prompt(int count = 70) {
    Tokens prompt;
    for (int i = 0; i < count; ++i) prompt.push_back(i * 7 % 500);
    ASSERT_EQ(reprise_prefill(session_, prompt.data(), prompt.size(), nullptr), REPRISE_OK) << reprise_last_error();
  }
  static Tokens Next(reprise_session* session, int count) {
    Tokens tokens;
    for (int i = 0; i < count; ++i) {
      reprise_token token;
      EXPECT_EQ(reprise_next(session, &token), REPRISE_OK) << reprise_last_error();
      tokens.push_back(token.id);
    }
    return tokens;
  }

  static inline std::filesystem::path path_;
  reprise_model* model_ = nullptr;
  reprise_session* session_ = nullptr;
  reprise_capsule* capsule_ = nullptr;
};

bool LastErrorSays(const char* part) { return std::strstr(reprise_last_error(), part) != nullptr; }

TEST_F(CApi, WhatFollowsARestoreIsWhatFollowed) {
  Sample(session_);
  Prompt();
  Next(session_, 5);
  ASSERT_EQ(reprise_snapshot(session_, capsule_), REPRISE_OK);
  EXPECT_EQ(reprise_capsule_position(capsule_), reprise_position(session_));
  const Tokens first = Next(session_, 20);
  ASSERT_EQ(reprise_restore(session_, capsule_), REPRISE_OK);
  EXPECT_EQ(Next(session_, 20), first);

  uint8_t* bytes = nullptr;
  size_t size = 0;
  ASSERT_EQ(reprise_capsule_serialize(session_, capsule_, &bytes, &size), REPRISE_OK) << reprise_last_error();
  reprise_model* other = Load(2);
  reprise_session* there = nullptr;
  reprise_capsule* arrived = nullptr;
  ASSERT_EQ(reprise_session_new(other, &there), REPRISE_OK);
  ASSERT_EQ(reprise_capsule_new(&arrived), REPRISE_OK);
  ASSERT_EQ(reprise_capsule_import(other, bytes, size, arrived), REPRISE_OK) << reprise_last_error();
  reprise_bytes_free(bytes);
  ASSERT_EQ(reprise_restore(there, arrived), REPRISE_OK);
  EXPECT_EQ(Next(there, 20), first);
  // A capsule of another loaded model is not this one's, even if its bytes would be.
  EXPECT_EQ(reprise_restore(session_, arrived), REPRISE_MISMATCH);
  reprise_model_free(other);  // first: the session and the capsule keep what they need
  EXPECT_EQ(reprise_restore(there, arrived), REPRISE_OK);
  EXPECT_EQ(Next(there, 20), first);
  reprise_session_free(there);
  reprise_capsule_free(arrived);
}

struct Collected {
  Tokens tokens;
  std::string text;
  size_t most = SIZE_MAX;
};
int Collect(const reprise_token* token, void* user) {
  auto& to = *static_cast<Collected*>(user);
  if (token->id >= 0) to.tokens.push_back(token->id);
  to.text.append(token->text, token->text_bytes);
  return to.tokens.size() < to.most ? 1 : 0;
}

TEST_F(CApi, GenerateHandsOverWhatNextWouldChoose) {
  Sample(session_);
  Prompt();
  ASSERT_EQ(reprise_snapshot(session_, capsule_), REPRISE_OK);
  const Tokens expected = Next(session_, 30);
  ASSERT_EQ(reprise_restore(session_, capsule_), REPRISE_OK);
  Collected first{.most = 12}, rest;
  reprise_finish finish = REPRISE_FINISH_NONE;
  ASSERT_EQ(reprise_generate(session_, 30, Collect, &first, &finish), REPRISE_OK) << reprise_last_error();
  EXPECT_EQ(finish, REPRISE_FINISH_CANCELLED);
  EXPECT_EQ(first.tokens, Tokens(expected.begin(), expected.begin() + 12));
  ASSERT_EQ(reprise_generate(session_, 18, Collect, &rest, &finish), REPRISE_OK) << reprise_last_error();
  EXPECT_EQ(finish, REPRISE_FINISH_LENGTH);
  EXPECT_EQ(rest.tokens, Tokens(expected.begin() + 12, expected.end()));
  EXPECT_EQ(reprise_generate(session_, 1, Collect, &rest, nullptr), REPRISE_OK);
  EXPECT_EQ(reprise_generate(session_, 1, nullptr, nullptr, &finish), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_generate(nullptr, 1, Collect, &rest, &finish), REPRISE_INVALID_ARGUMENT);
}

TEST_F(CApi, AStoreOutlivesItsModel) {
  EXPECT_EQ(reprise_store_flush(model_), REPRISE_UNSUPPORTED);
  EXPECT_EQ(reprise_store_flush(nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_end_reply(session_), REPRISE_OK);
  EXPECT_EQ(reprise_end_reply(nullptr), REPRISE_INVALID_ARGUMENT);
  const std::string directory = path_.string() + ".store";
  std::filesystem::remove_all(directory);
  reprise_model_options options;
  ASSERT_EQ(reprise_model_options_init(&options, sizeof(options)), REPRISE_OK);
  options.context = 512;
  options.store = "";
  reprise_model* model = nullptr;
  EXPECT_EQ(reprise_model_load(path_.c_str(), &options, &model), REPRISE_INVALID_ARGUMENT);
  options.store = directory.c_str();
  Tokens prompt(200, 3), replies[2];
  prompt[100] = 4;
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(reprise_model_load(path_.c_str(), &options, &model), REPRISE_OK) << reprise_last_error();
    reprise_session* session = nullptr;
    ASSERT_EQ(reprise_session_new(model, &session), REPRISE_OK);
    reprise_prefill_report report;
    ASSERT_EQ(reprise_prefill(session, prompt.data(), prompt.size(), &report), REPRISE_OK) << reprise_last_error();
    EXPECT_EQ(report.reused, round == 0 ? 0 : 200);
    EXPECT_EQ(report.computed, round == 0 ? 200 : 0);
    replies[round] = Next(session, 150);
    ASSERT_EQ(reprise_end_reply(session), REPRISE_OK) << reprise_last_error();
    ASSERT_EQ(reprise_store_flush(model), REPRISE_OK) << reprise_last_error();
    reprise_session_free(session);
    reprise_model_free(model);
  }
  EXPECT_EQ(replies[0], replies[1]);
  prompt.insert(prompt.end(), replies[0].begin(), replies[0].end());  // the last of them was never computed
  prompt.push_back(5);
  ASSERT_EQ(reprise_model_load(path_.c_str(), &options, &model), REPRISE_OK);
  reprise_session* session = nullptr;
  ASSERT_EQ(reprise_session_new(model, &session), REPRISE_OK);
  reprise_prefill_report report;
  ASSERT_EQ(reprise_prefill(session, prompt.data(), prompt.size(), &report), REPRISE_OK);
  EXPECT_EQ(report.reused, 349);
  reprise_session_free(session);
  reprise_model_free(model);
  std::filesystem::remove_all(directory);
}

TEST_F(CApi, AnUnknownDeviceIsAnError) {
  reprise_model_options options;
  ASSERT_EQ(reprise_model_options_init(&options, sizeof(options)), REPRISE_OK);
  options.device = "abacus";
  reprise_model* model = nullptr;
  EXPECT_EQ(reprise_model_load(path_.c_str(), &options, &model), REPRISE_INVALID_ARGUMENT);
  EXPECT_TRUE(LastErrorSays("abacus"));
  options.device = "cpu";
  ASSERT_EQ(reprise_model_load(path_.c_str(), &options, &model), REPRISE_OK) << reprise_last_error();
  reprise_model_free(model);
}

TEST_F(CApi, ForksDecodeAsOneBatchAsEachWouldAlone) {
  Sample(session_);
  Prompt();
  ASSERT_EQ(reprise_snapshot(session_, capsule_), REPRISE_OK);
  std::array<reprise_session*, 3> forks{};
  ASSERT_EQ(reprise_fork(session_, capsule_, forks.size(), forks.data()), REPRISE_OK) << reprise_last_error();
  std::array<Tokens, 3> alone;
  for (size_t i = 0; i < forks.size(); ++i) {
    Sample(session_, 10 + i);
    alone[i] = Next(session_, 12);
    ASSERT_EQ(reprise_restore(session_, capsule_), REPRISE_OK);
    Sample(forks[i], 10 + i);
  }
  std::array<Tokens, 3> together;
  for (int step = 0; step < 12; ++step) {
    std::array<reprise_token, 3> tokens;
    ASSERT_EQ(reprise_next_batch(forks.data(), forks.size(), tokens.data()), REPRISE_OK) << reprise_last_error();
    for (size_t i = 0; i < forks.size(); ++i) together[i].push_back(tokens[i].id);
  }
  EXPECT_EQ(together, alone);
  EXPECT_NE(alone[0], alone[1]);

  const std::array<reprise_session*, 2> twice{forks[0], forks[0]};
  std::array<reprise_token, 2> tokens;
  EXPECT_EQ(reprise_next_batch(twice.data(), 2, tokens.data()), REPRISE_INVALID_ARGUMENT);
  // Four lanes: the session and three forks. One more does not fit, and leaves nothing behind.
  reprise_session* more[2] = {nullptr, nullptr};
  EXPECT_EQ(reprise_fork(session_, capsule_, 2, more), REPRISE_EXHAUSTED);
  EXPECT_EQ(more[0], nullptr);
  for (reprise_session* fork : forks) reprise_session_free(fork);
  EXPECT_EQ(reprise_fork(session_, capsule_, 2, more), REPRISE_OK);
  reprise_session_free(more[0]);
  reprise_session_free(more[1]);
}

TEST_F(CApi, RollbackIsAsIfTheTokensHadNotBeen) {
  Sample(session_);
  Prompt();
  Next(session_, 4);
  const Tokens first = Next(session_, 9);
  ASSERT_EQ(reprise_rollback(session_, 9), REPRISE_OK) << reprise_last_error();
  EXPECT_EQ(Next(session_, 9), first);
  EXPECT_EQ(reprise_rollback(session_, -1), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_rollback(session_, 1000), REPRISE_INVALID_ARGUMENT);
}

TEST_F(CApi, PositionContextAndLogits) {
  EXPECT_EQ(reprise_position(session_), 0);
  EXPECT_EQ(reprise_pending_token(session_), -1);
  const float* logits = nullptr;
  size_t count = 0;
  EXPECT_EQ(reprise_logits(session_, &logits, &count), REPRISE_INVALID_ARGUMENT);
  Prompt(33);
  EXPECT_EQ(reprise_position(session_), 33);
  const Tokens more{1, 2, 3};
  ASSERT_EQ(reprise_append(session_, more.data(), more.size()), REPRISE_OK);
  EXPECT_EQ(reprise_position(session_), 36);
  ASSERT_EQ(reprise_logits(session_, &logits, &count), REPRISE_OK);
  EXPECT_EQ(count, 512U);
  EXPECT_TRUE(std::isfinite(logits[0]));

  EXPECT_EQ(reprise_context(session_, nullptr, 0, &count), REPRISE_EXHAUSTED);
  ASSERT_EQ(count, 36U);
  Tokens context(count);
  ASSERT_EQ(reprise_context(session_, context.data(), context.size(), &count), REPRISE_OK);
  EXPECT_EQ(context[1], 7);
  EXPECT_EQ(context[35], 3);

  reprise_token token;
  ASSERT_EQ(reprise_next(session_, &token), REPRISE_OK);
  EXPECT_EQ(reprise_pending_token(session_), token.id);
}

TEST_F(CApi, TextAndTokens) {
  const std::string text("a\0b \xff c", 7);
  size_t count = 0;
  EXPECT_EQ(reprise_tokenize(model_, text.data(), text.size(), 0, nullptr, 0, &count), REPRISE_EXHAUSTED);
  ASSERT_GT(count, 0U);
  Tokens tokens(count);
  ASSERT_EQ(reprise_tokenize(model_, text.data(), text.size(), 0, tokens.data(), tokens.size(), &count), REPRISE_OK);
  std::string back(64, '\0');
  ASSERT_EQ(reprise_detokenize(model_, tokens.data(), tokens.size(), back.data(), back.size(), &count), REPRISE_OK);
  back.resize(count);
  EXPECT_EQ(back, text);
  EXPECT_EQ(reprise_tokenize(model_, nullptr, 0, 0, nullptr, 0, &count), REPRISE_OK);
  EXPECT_EQ(count, 0U);
  EXPECT_EQ(reprise_tokenize(model_, nullptr, 1, 0, nullptr, 0, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_tokenize(model_, "x", SIZE_MAX, 0, nullptr, 0, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_is_end_of_generation(nullptr, 1), 0);
  EXPECT_EQ(reprise_is_end_of_generation(model_, -5), 0);

  reprise_prefill_report report;
  ASSERT_EQ(reprise_prefill_text(session_, "hello world", 11, &report), REPRISE_OK) << reprise_last_error();
  EXPECT_EQ(report.reused, 0);
  EXPECT_EQ(report.computed, reprise_position(session_));
  ASSERT_EQ(reprise_prefill_text(session_, "hello world", 11, &report), REPRISE_OK);
  EXPECT_EQ(report.computed, 0);
  const char* rest = nullptr;
  EXPECT_EQ(reprise_flush(session_, &rest, &count), REPRISE_OK);
  EXPECT_EQ(count, 0U);
}

TEST_F(CApi, MessagesAreThePromptOfTheModel) {
  const reprise_message chat[] = {{"system", "Be brief."}, {"user", "What ends <|im_end|> a turn?"}};
  size_t count = 0;
  EXPECT_EQ(reprise_chat_tokens(model_, chat, 2, REPRISE_THINK_AUTO, nullptr, 0, &count), REPRISE_EXHAUSTED);
  Tokens tokens(count);
  ASSERT_EQ(reprise_chat_tokens(model_, chat, 2, REPRISE_THINK_AUTO, tokens.data(), tokens.size(), &count), REPRISE_OK);
  std::string text(1000, '\0');
  ASSERT_EQ(reprise_detokenize(model_, tokens.data(), tokens.size(), text.data(), text.size(), &count), REPRISE_OK);
  text.resize(count);
  EXPECT_EQ(text,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat ends <|im_end|> a turn?<|im_end|>\n<|im_start|>assistant\n");

  reprise_prefill_report report;
  ASSERT_EQ(reprise_prefill_chat(session_, chat, 2, REPRISE_THINK_OFF, &report), REPRISE_OK) << reprise_last_error();
  EXPECT_EQ(report.computed, static_cast<int32_t>(tokens.size()));
  Tokens held(tokens.size());
  ASSERT_EQ(reprise_context(session_, held.data(), held.size(), &count), REPRISE_OK);
  EXPECT_EQ(held, tokens);
}

TEST_F(CApi, RefusesWhatIsNoChat) {
  size_t count = 0;
  const reprise_message strange[] = {{"oracle", "?"}}, half[] = {{"user", nullptr}}, good[] = {{"user", "?"}};
  EXPECT_EQ(reprise_chat_tokens(model_, strange, 1, REPRISE_THINK_AUTO, nullptr, 0, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_chat_tokens(model_, half, 1, REPRISE_THINK_AUTO, nullptr, 0, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_TRUE(LastErrorSays("message 0"));
  EXPECT_EQ(reprise_chat_tokens(model_, good, 1, 7, nullptr, 0, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_chat_tokens(model_, nullptr, 1, REPRISE_THINK_AUTO, nullptr, 0, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_chat_tokens(model_, nullptr, 0, REPRISE_THINK_AUTO, nullptr, 0, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_chat_tokens(nullptr, good, 1, REPRISE_THINK_AUTO, nullptr, 0, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_chat_tokens(model_, good, 1, REPRISE_THINK_AUTO, nullptr, 0, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_prefill_chat(session_, strange, 1, REPRISE_THINK_AUTO, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_prefill_chat(nullptr, good, 1, REPRISE_THINK_AUTO, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_position(session_), 0);
}

TEST_F(CApi, RefusesBytesThatAreNoCapsuleOfThisModel) {
  Prompt();
  ASSERT_EQ(reprise_snapshot(session_, capsule_), REPRISE_OK);
  const Tokens expected = Next(session_, 8);
  uint8_t* bytes = nullptr;
  size_t size = 0;
  ASSERT_EQ(reprise_capsule_serialize(session_, capsule_, &bytes, &size), REPRISE_OK);
  EXPECT_EQ(reprise_capsule_import(model_, nullptr, 0, capsule_), REPRISE_CORRUPT);
  EXPECT_EQ(reprise_capsule_import(model_, nullptr, 10, capsule_), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_capsule_import(model_, bytes, size - 1, capsule_), REPRISE_CORRUPT);
  bytes[size / 2] ^= 1;
  EXPECT_EQ(reprise_capsule_import(model_, bytes, size, capsule_), REPRISE_CORRUPT);
  EXPECT_STRNE(reprise_last_error(), "");
  bytes[size / 2] ^= 1;
  bytes[40] ^= 1;  // in the fingerprint: the header's checksum notices first
  EXPECT_NE(reprise_capsule_import(model_, bytes, size, capsule_), REPRISE_OK);
  reprise_bytes_free(bytes);
  // What was refused changed nothing.
  ASSERT_EQ(reprise_restore(session_, capsule_), REPRISE_OK);
  EXPECT_EQ(Next(session_, 8), expected);
}

TEST_F(CApi, NullAndHostileArgumentsAreErrors) {
  reprise_model* model = nullptr;
  reprise_session* session = nullptr;
  reprise_token token;
  size_t count = 0;
  EXPECT_EQ(reprise_model_load(nullptr, nullptr, &model), REPRISE_INVALID_ARGUMENT);
  EXPECT_TRUE(LastErrorSays("path"));
  EXPECT_EQ(reprise_model_load("x", nullptr, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_model_load("/nowhere/model.gguf", nullptr, &model), REPRISE_NOT_FOUND);
  EXPECT_TRUE(LastErrorSays("/nowhere/model.gguf"));
  EXPECT_EQ(model, nullptr);
  EXPECT_EQ(reprise_session_new(nullptr, &session), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_session_new(model_, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_position(nullptr), -1);
  EXPECT_EQ(reprise_pending_token(nullptr), -1);
  EXPECT_EQ(reprise_capsule_position(nullptr), -1);
  EXPECT_EQ(reprise_capsule_position(capsule_), -1);
  EXPECT_EQ(reprise_next(nullptr, &token), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_next(session_, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_next(session_, &token), REPRISE_INVALID_ARGUMENT);  // nothing to continue
  EXPECT_EQ(reprise_next_batch(nullptr, 1, &token), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_next_batch(&session, 1, &token), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_next_batch(&session_, SIZE_MAX, &token), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_prefill(session_, nullptr, 0, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_prefill(session_, nullptr, 4, nullptr), REPRISE_INVALID_ARGUMENT);
  const int32_t outside[] = {1, -1, 512};
  EXPECT_EQ(reprise_prefill(session_, outside, 3, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_prefill(session_, outside, SIZE_MAX / 2, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_append(session_, outside + 1, 1), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_append(nullptr, outside, 1), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_position(session_), 0);
  const Tokens long_prompt(513, 1);
  EXPECT_EQ(reprise_prefill(session_, long_prompt.data(), long_prompt.size(), nullptr), REPRISE_EXHAUSTED);
  EXPECT_EQ(reprise_snapshot(nullptr, capsule_), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_snapshot(session_, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_restore(session_, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_restore(session_, capsule_), REPRISE_INVALID_ARGUMENT);  // empty
  EXPECT_TRUE(LastErrorSays("empty"));
  EXPECT_EQ(reprise_fork(session_, capsule_, 1, &session), REPRISE_INVALID_ARGUMENT);
  ASSERT_EQ(reprise_snapshot(session_, capsule_), REPRISE_OK);
  EXPECT_EQ(reprise_fork(session_, capsule_, 0, &session), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_fork(session_, capsule_, SIZE_MAX, &session), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_fork(session_, capsule_, 1, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_context(session_, nullptr, 3, &count), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_context(session_, nullptr, 0, nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_capsule_new(nullptr), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_capsule_import(nullptr, nullptr, 0, capsule_), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_capsule_serialize(session_, nullptr, nullptr, nullptr), REPRISE_INVALID_ARGUMENT);
  reprise_model_free(nullptr);
  reprise_session_free(nullptr);
  reprise_capsule_free(nullptr);
  reprise_bytes_free(nullptr);
  EXPECT_STREQ(reprise_status_name(static_cast<reprise_status>(99)), "unknown");
  EXPECT_STREQ(reprise_status_name(REPRISE_CORRUPT), "corrupt");
}

TEST_F(CApi, StructsOfOtherVersions) {
  reprise_sampling sampling;
  EXPECT_EQ(reprise_sampling_init(nullptr, sizeof(sampling)), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_sampling_init(&sampling, 4), REPRISE_INVALID_ARGUMENT);
  EXPECT_EQ(reprise_sampling_init(&sampling, SIZE_MAX), REPRISE_INVALID_ARGUMENT);
  ASSERT_EQ(reprise_sampling_init(&sampling, sizeof(sampling)), REPRISE_OK);
  sampling.size = 0;  // never initialised
  EXPECT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_INVALID_ARGUMENT);

  // A newer program: a longer struct is taken as long as what this library does not know is zero.
  struct Newer {
    reprise_sampling known;
    uint64_t added;
  } newer;
  ASSERT_EQ(reprise_sampling_init(&newer.known, sizeof(newer)), REPRISE_OK);
  EXPECT_EQ(newer.added, 0U);
  EXPECT_EQ(reprise_set_sampling(session_, &newer.known), REPRISE_OK) << reprise_last_error();
  newer.added = 1;
  EXPECT_EQ(reprise_set_sampling(session_, &newer.known), REPRISE_UNSUPPORTED);

  reprise_model_info info;
  info.size = 3;
  EXPECT_EQ(reprise_model_info_get(model_, &info), REPRISE_INVALID_ARGUMENT);
  info.size = sizeof(info);
  ASSERT_EQ(reprise_model_info_get(model_, &info), REPRISE_OK);
  EXPECT_EQ(info.vocabulary, 512);
  EXPECT_EQ(info.lanes, 4);
  EXPECT_STREQ(info.architecture, "qwen35");
}

TEST_F(CApi, SamplingIsCheckedAndStopsEndIt) {
  reprise_sampling sampling;
  ASSERT_EQ(reprise_sampling_init(&sampling, sizeof(sampling)), REPRISE_OK);
  sampling.temperature = NAN;
  EXPECT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_INVALID_ARGUMENT);
  sampling.temperature = 0;
  sampling.stop_count = 1;
  EXPECT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_INVALID_ARGUMENT);
  sampling.stop_count = SIZE_MAX;
  EXPECT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_INVALID_ARGUMENT);
  const char* none[] = {nullptr};
  sampling.stop = none;
  sampling.stop_count = 1;
  EXPECT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_INVALID_ARGUMENT);
  const char* empty[] = {""};
  sampling.stop = empty;
  EXPECT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_INVALID_ARGUMENT);

  // Whatever the model says first that is text becomes the stop string.
  Prompt();
  ASSERT_EQ(reprise_snapshot(session_, capsule_), REPRISE_OK);
  std::string said;
  for (int i = 0; i < 30 && said.empty(); ++i) {
    reprise_token token;
    ASSERT_EQ(reprise_next(session_, &token), REPRISE_OK);
    said.assign(token.text, token.text_bytes);
  }
  ASSERT_FALSE(said.empty());
  ASSERT_EQ(reprise_restore(session_, capsule_), REPRISE_OK);
  const char* stop[] = {said.c_str()};
  sampling.stop = stop;
  ASSERT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_OK) << reprise_last_error();
  reprise_token token{};
  for (int i = 0; i < 30 && token.finish == REPRISE_FINISH_NONE; ++i) ASSERT_EQ(reprise_next(session_, &token), REPRISE_OK);
  EXPECT_EQ(token.finish, REPRISE_FINISH_STOP_STRING);
}

TEST_F(CApi, AJsonSchemaHoldsTheText) {
  reprise_sampling sampling;
  ASSERT_EQ(reprise_sampling_init(&sampling, sizeof(sampling)), REPRISE_OK);
  sampling.json_schema = "{\"type\": \"number\", \"multipleOf\": 3}";
  EXPECT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_UNSUPPORTED);
  EXPECT_NE(std::string(reprise_last_error()).find("'multipleOf' at #"), std::string::npos) << reprise_last_error();
  sampling.json_schema = "{\"enum\": [{\"to\": [\"Jane\", 3]}]}";
  Prompt();
  ASSERT_EQ(reprise_set_sampling(session_, &sampling), REPRISE_OK) << reprise_last_error();
  std::string said;
  reprise_token token{};
  for (int i = 0; i < 60 && token.finish == REPRISE_FINISH_NONE; ++i) {
    ASSERT_EQ(reprise_next(session_, &token), REPRISE_OK) << reprise_last_error();
    said.append(token.text, token.text_bytes);
  }
  EXPECT_EQ(token.finish, REPRISE_FINISH_COMPLETE);
  EXPECT_EQ(said, "{\"to\":[\"Jane\",3]}");
}

TEST_F(CApi, TheHotPathAllocatesNothing) {
  if (!reprise::CountsAllocations()) GTEST_SKIP() << "this program does not count allocations";
  Sample(session_);
  Prompt();
  Next(session_, 70);  // past the first checkpoints
  ASSERT_EQ(reprise_snapshot(session_, capsule_), REPRISE_OK);
  const int64_t before = reprise::AllocationCount();
  for (int i = 0; i < 100; ++i) {
    reprise_token token;
    const float* logits;
    const char* text;
    size_t count;
    ASSERT_EQ(reprise_next(session_, &token), REPRISE_OK);
    ASSERT_EQ(reprise_next_batch(&session_, 1, &token), REPRISE_OK);
    ASSERT_EQ(reprise_logits(session_, &logits, &count), REPRISE_OK);
    ASSERT_EQ(reprise_flush(session_, &text, &count), REPRISE_OK);
    ASSERT_GE(reprise_position(session_), 0);
    if (i % 10 == 0) {
      ASSERT_EQ(reprise_snapshot(session_, capsule_), REPRISE_OK);
    }
    if (i % 17 == 0) {
      ASSERT_EQ(reprise_restore(session_, capsule_), REPRISE_OK);
    }
  }
  EXPECT_EQ(reprise::AllocationCount() - before, 0);
}

}  // namespace
