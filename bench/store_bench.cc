// The store without a model: a look-up among many capsules, putting one where the budget is full, and reading the directory's list again.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "exec/lane.h"
#include "exec/state_space.h"
#include "reprise/store.h"
#include "store/disk_tier.h"
#include "store/file_system.h"

namespace reprise {
namespace {

using Path = std::vector<int32_t>;

constexpr size_t kSystem = 2000;
constexpr int kTurns = 20;
constexpr size_t kTurn = 300;  // 8,000 tokens a conversation

// Conversations of twenty turns on one system message: a capsule at the end of each turn.
struct Filled {
  std::shared_ptr<StateSpace> space;
  std::shared_ptr<CapsuleStore> store;
  std::vector<Path> conversations;
  std::mt19937 random{1};

  Capsule Feed(Lane& lane, std::span<const int32_t> tokens) {
    for (size_t at = 0; at < tokens.size(); at += 512) {
      (void)lane.Begin(static_cast<int>(std::min<size_t>(512, tokens.size() - at)));
      lane.Commit();
    }
    return Capsule::Take(lane);
  }
  Path Random(size_t count) {
    Path path(count);
    for (int32_t& token : path) token = static_cast<int32_t>(random() % 100000);
    return path;
  }
  // `budget` in capsules with their rows; 0 for enough.
  Filled(int capsules, uint64_t budget) {
    StateLayout layout;
    layout.Recurrent("block", ElementType::kBytes, {4096});
    layout.Append("rows", ElementType::kBytes, {4});
    space = *StateSpace::Create(layout,
                                {.lanes = 4, .capsules = capsules + 1000, .rows = int64_t{capsules + 1000} * 400, .max_position = 1 << 15},
                                FingerprintBuilder().Finish(), std::make_shared<HostMemory>());
    const uint64_t each = space->layout().block_bytes(Space::kDevice) + 5 * space->layout().extent_bytes(Space::kDevice);
    store = *CapsuleStore::Open({.memory_budget = budget > 0 ? budget * each : uint64_t{1} << 40}, space);
    const Path system = Random(kSystem);
    auto first = *space->NewLane();
    const Capsule after_system = Feed(*first, system);
    (void)store->Put("", system, after_system, {.keep = Keep::kSystem});
    for (int i = 1; i < capsules;) {
      Path path = system;
      auto lane = *space->NewLane();
      (void)after_system.RestoreTo(*lane);
      for (int turn = 0; turn < kTurns && i < capsules; ++turn, ++i) {
        const Path more = Random(kTurn);
        path.insert(path.end(), more.begin(), more.end());
        (void)store->FindDeepest("", path, static_cast<int32_t>(path.size()));
        (void)store->Put("", path, Feed(*lane, more), {.keep = Keep::kTurn});
      }
      conversations.push_back(std::move(path));
    }
  }
};

void BM_FindDeepest(benchmark::State& state) {
  Filled filled(static_cast<int>(state.range(0)), 0);
  size_t at = 0;
  for (auto _ : state) {
    const auto found = filled.store->FindDeepest("", filled.conversations[at++ % filled.conversations.size()]);
    if (!found.capsule.valid()) state.SkipWithError("not found");
  }
  state.SetLabel(std::to_string(filled.store->stats().entries_in_memory) + " capsules, prompts of 8,000 tokens");
}
BENCHMARK(BM_FindDeepest)->Arg(100)->Arg(1000)->Arg(10000)->Unit(benchmark::kMicrosecond);

void BM_PutIntoAFullBudget(benchmark::State& state) {
  const int count = static_cast<int>(state.range(0));
  Filled filled(count, static_cast<uint64_t>(count) * 9 / 10);
  const Path path = filled.Random(kTurn);
  auto lane = *filled.space->NewLane();
  const Capsule capsule = filled.Feed(*lane, path);
  int32_t next = 0;
  for (auto _ : state) {
    Path mine = path;
    mine[0] = 100000 + next++;
    benchmark::DoNotOptimize(filled.store->Put("", mine, capsule, {.keep = Keep::kPrompt}));
  }
  state.SetLabel(std::to_string(filled.store->stats().evicted_memory) + " evicted");
}
BENCHMARK(BM_PutIntoAFullBudget)->Arg(100)->Arg(1000)->Arg(10000)->Unit(benchmark::kMicrosecond)->Iterations(2000);

// What every store of a directory does when another process has written there: all of it anew, or only what is new (nothing, here).
void BM_ListTheDirectory(benchmark::State& state) {
  Filled filled(static_cast<int>(state.range(0)), 0);
  const std::string path = "/dev/shm/reprise_store_bench." + std::to_string(::getpid());
  {
    const auto tier = *DiskTier::Open(*FileSystem::Open(path, false), {});
    std::vector<int64_t> evicted;
    for (const Path& conversation : filled.conversations) {
      for (size_t length = kSystem + kTurn; length <= conversation.size(); length += kTurn) {
        const auto tokens = std::span(conversation).first(length);
        const auto found = filled.store->FindDeepest("", tokens);
        if (!tier->Put("", tokens, found.capsule, {}, evicted).ok()) state.SkipWithError("not put");
      }
    }
    const Fingerprint fingerprint = filled.space->fingerprint();
    const auto listed = *tier->List(fingerprint);
    std::unordered_set<int64_t> known;
    for (const DiskEntry& entry : listed) {
      if (state.range(1) != 0) known.insert(entry.id);
    }
    for (auto _ : state) benchmark::DoNotOptimize(tier->ListAgain(fingerprint, known));
    state.SetLabel(std::to_string(listed.size()) + " capsules, " + (known.empty() ? "none" : "all") + " known");
  }
  std::filesystem::remove_all(path);
}
BENCHMARK(BM_ListTheDirectory)->ArgsProduct({{100, 1000}, {0, 1}})->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace reprise

BENCHMARK_MAIN();
