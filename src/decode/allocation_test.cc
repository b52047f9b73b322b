// On the hot path nothing allocates.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/allocations.h"
#include "base/count_allocations.h"
#include "decode/decode_state.h"

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

TEST(Allocation, TheCounterCounts) {
  if (!CountsAllocations()) GTEST_SKIP() << "allocations are not counted on this system";
  const int64_t before = AllocationCount();
  const auto kept = std::make_unique<int>(1);
  EXPECT_GT(AllocationCount(), before);
}

}  // namespace
}  // namespace reprise
