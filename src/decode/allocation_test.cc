// On the hot path nothing allocates.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/count_hot_calls.h"
#include "base/hot_calls.h"
#include "decode/decode_state.h"
#include "decode/grammar_masks.h"

namespace reprise {
namespace {

TEST(Allocation, ChoosingAndShowingAllocateNothing) {
  constexpr int kVocabulary = 5000;
  StateLayout layout;
  const DecodeState state = DecodeState::Declare(layout);
  std::vector<std::byte> host(layout.block_bytes(Space::kHost));
  SampleWorkspace workspace(kVocabulary);
  std::vector<float> logits(kVocabulary);
  Generator generator{1, 0};
  for (float& logit : logits) logit = static_cast<float>(generator.Uniform()) * 10;
  std::vector<int32_t> window = {1, 2, 3, 4, 4};
  std::string text;
  text.reserve(1 << 16);
  const std::vector<std::string> stop = {"never seen", "nor this"};

  SamplingOptions everything{.temperature = 1, .top_k = 100, .top_p = 0.9f, .min_p = 0.05f, .stop = stop};
  everything.repetition_penalty = 1.1f;
  everything.penalty_window = -1;
  const std::vector<SamplingOptions> all = {{.stop = stop},
                                            {.frequency_penalty = 1, .stop = stop},
                                            {.temperature = 1},
                                            {.temperature = 1, .top_k = 40},
                                            {.temperature = 1, .top_k = 4000},
                                            {.temperature = 1, .top_p = 0.95f, .stop = stop},
                                            everything};
  for (const SamplingOptions& options : all) {
    ASSERT_TRUE(state.Configure(options, host.data()).ok());
    const int64_t before = AllocationCount();
    bool ok = true;
    for (int i = 0; i < 100; ++i) {
      const auto token = state.Sample(logits, window, host.data(), workspace);
      ok = ok && token.ok();
      state.set_pending(host.data(), *token);
      state.Feed("nor thi\xE2\x82\xAC", host.data(), text);
    }
    state.Flush(host.data(), text);
    EXPECT_EQ(AllocationCount() - before, 0);
    EXPECT_TRUE(ok);
    text.clear();
  }
}

// Nor does keeping to a grammar, where it is met for the first time as where it is known.
TEST(Allocation, GrammarsAllocateNothing) {
  std::vector<std::string> words;
  for (int byte = 0; byte < 256; ++byte) words.emplace_back(1, static_cast<char>(byte));
  for (const char* word : {"{\"", "\": ", "\", \"", "\"}", "true", "ab", "abc"}) words.emplace_back(word);
  const TokenTrie trie(std::vector<std::string_view>(words.begin(), words.end()), {});
  StateLayout layout;
  const DecodeState state = DecodeState::Declare(layout);
  std::vector<std::byte> host(layout.block_bytes(Space::kHost));
  SampleWorkspace workspace(static_cast<int>(words.size()));
  std::vector<float> logits(words.size());
  Generator generator{1, 0};
  for (float& logit : logits) logit = static_cast<float>(generator.Uniform());
  ASSERT_TRUE(state.Configure({.temperature = 1, .seed = 3, .grammar = Grammar::JsonObject()}, host.data()).ok());
  GrammarMasks masks(trie, state.grammar(host.data()));
  std::string text;
  text.reserve(1 << 16);
  const int64_t before = AllocationCount();
  for (int i = 0; i < 300 && !state.IsComplete(host.data()); ++i) {
    const auto token = state.Sample(logits, {}, host.data(), workspace, masks.Allowed(state.threads(host.data())));
    ASSERT_TRUE(token.ok());
    state.Feed(words[static_cast<size_t>(*token)], host.data(), text);
  }
  EXPECT_EQ(AllocationCount() - before, 0);
  EXPECT_GT(text.size(), 10u);
}

TEST(Allocation, TheCounterCounts) {
  if (!CountsAllocations()) GTEST_SKIP() << "allocations are not counted on this system";
  const int64_t before = AllocationCount();
  const auto kept = std::make_unique<int>(1);
  EXPECT_GT(AllocationCount(), before);
}

}  // namespace
}  // namespace reprise
