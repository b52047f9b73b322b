// On the hot path nothing allocates: counted by replacing the global allocation functions of this test program.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "decode/decode_state.h"

namespace {
std::atomic<int64_t> allocations{0};

void* Count(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(bytes > 0 ? bytes : 1);
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

void* operator new(size_t bytes) { return Count(bytes); }
void* operator new[](size_t bytes) { return Count(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

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

  for (const SamplingOptions& options : std::vector<SamplingOptions>{
           {.stop = stop},
           {.frequency_penalty = 1, .stop = stop},
           {.temperature = 1},
           {.temperature = 1, .top_k = 40},
           {.temperature = 1, .top_k = 4000},
           {.temperature = 1, .top_p = 0.95f, .stop = stop},
           {.temperature = 1, .top_k = 100, .top_p = 0.9f, .min_p = 0.05f, .repetition_penalty = 1.1f, .penalty_window = -1, .stop = stop}}) {
    ASSERT_TRUE(state.Configure(options, host.data()).ok());
    const int64_t before = allocations.load();
    bool ok = true;
    for (int i = 0; i < 100; ++i) {
      const auto token = state.Sample(logits, window, host.data(), workspace);
      ok = ok && token.ok();
      state.set_pending(host.data(), *token);
      state.Feed("nor thi\xE2\x82\xAC", host.data(), text);
    }
    state.Flush(host.data(), text);
    EXPECT_EQ(allocations.load() - before, 0);
    EXPECT_TRUE(ok);
    text.clear();
  }
}

TEST(Allocation, TheCounterCounts) {
  const int64_t before = allocations.load();
  const auto kept = std::make_unique<int>(1);
  EXPECT_GT(allocations.load(), before);
}

}  // namespace
}  // namespace reprise
