// Tokens that a model's file says are never to be chosen (tokenizer.ggml.suppress_tokens, as Gemma 4's has it).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "models/synth.h"
#include "reprise/session.h"

namespace reprise {
namespace {

TEST(Silence, NoTokenOfItIsChosen) {
  const std::string path = testing::TempDir() + "silence_test.gguf";
  ASSERT_TRUE(Synthesize({"tiny-gemma4", TensorType::kF32}, path).ok());
  const auto silent = GgufFile::Open(path)->GetInts("tokenizer.ggml.suppress_tokens");
  ASSERT_TRUE(silent.ok() && silent->size() == 2);
  auto model = Model::Load(path, {.threads = 2, .context = 256, .lanes = 2, .capsules = 4});
  ASSERT_TRUE(model.ok()) << model.status().message();
  Session session = *model->NewSession();
  ASSERT_TRUE(session.Prefill(std::string_view("What is this?")).ok());
  const auto check = [&] {
    const auto logits = session.Logits();
    ASSERT_TRUE(logits.ok());
    for (size_t token = 0; token < logits->size(); ++token) {
      const bool is_silent = std::find(silent->begin(), silent->end(), static_cast<int64_t>(token)) != silent->end();
      EXPECT_EQ(std::isfinite((*logits)[token]), !is_silent) << token;
    }
  };
  check();
  // At this temperature each of 512 tokens is as likely as any other.
  ASSERT_TRUE(session.SetSampling({.temperature = 100.0f, .seed = 1}).ok());
  std::vector<Session> branches = *session.Fork(session.Snapshot(), 1);
  for (Session* one : {&session, &branches[0]}) {
    ASSERT_TRUE(one->Generate(100, [](const Token&) { return true; }).ok());
    const std::vector<int32_t> tokens = one->tokens();
    for (const int64_t token : *silent) EXPECT_EQ(std::count(tokens.begin(), tokens.end(), token), 0);
  }
  check();
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace reprise
