#include "backend/cpu/team.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include "backend/cpu/cpu_rig.h"

// Counts what this program takes from the heap while `g_counting`.
namespace {
std::atomic<bool> g_counting{false};
std::atomic<long> g_allocations{0};
void* Counted(std::size_t bytes) {
  if (g_counting.load(std::memory_order_relaxed)) g_allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = std::malloc(bytes ? bytes : 1);
  if (!p) throw std::bad_alloc();
  return p;
}
}  // namespace
void* operator new(std::size_t bytes) { return Counted(bytes); }
void* operator new[](std::size_t bytes) { return Counted(bytes); }
// A sanitizer's own form of this one would not go through ours, and its memory comes back here: std::stable_sort takes it so.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes ? bytes : 1); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

namespace reprise {
namespace {

// Each item adds the number of the launch to its cell, if the launch before has done all of its own.
struct StampArgs {
  std::atomic<int>* wrong;
  int* cells;
  int items, unit, block, number, previous_items;
};
Split SplitStamp(const StampArgs& args) { return {args.items, args.unit, args.block}; }
void Stamp(const StampArgs& args, int64_t first, int64_t last, int) {
  for (int i = 0; i < args.previous_items; ++i) {
    if (args.cells[(args.number - 1) * 4096 + i] != args.number - 1) args.wrong->fetch_add(1);
  }
  for (int64_t i = first; i < last; ++i) args.cells[args.number * 4096 + i] += args.number;
}

// Every item is in one unit, of the share that its block says, and a share's units follow one another.
TEST(Deal, SharesAreBlockCyclic) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const int threads = static_cast<int>(random() % 9) + 1;
    const Split split{static_cast<int64_t>(random() % 3000) + 1, static_cast<int64_t>(random() % 40), static_cast<int64_t>(random() % 200)};
    const Deal deal(split, threads);
    std::vector<int> owner(static_cast<size_t>(split.items), -1);
    for (int share = 0; share < threads; ++share) {
      int64_t before = -1;
      for (int64_t n = 0;; ++n) {
        const Deal::Range range = deal.Unit(share, n, threads);
        if (range.empty()) break;
        ASSERT_GT(range.first, before);
        before = range.last - 1;
        ASSERT_LE(range.last - range.first, std::max<int64_t>(split.unit, 1)) << split.items << ' ' << split.unit << ' ' << split.block;
        for (int64_t i = range.first; i < range.last; ++i) {
          ASSERT_EQ(owner[static_cast<size_t>(i)], -1) << "item " << i << " is dealt twice";
          owner[static_cast<size_t>(i)] = share;
        }
      }
    }
    for (int64_t i = 0; i < split.items; ++i) {
      ASSERT_EQ(owner[static_cast<size_t>(i)], i / deal.block % threads) << split.items << ' ' << split.unit << ' ' << split.block;
    }
  }
}

// Launches by the thousand of few tiny units: threads come late to most of them, with what they read of another.
TEST(Team, LateThreadsClaimNothing) {
  for (int threads : {2, 4, 8}) {
    Team team(threads, false);
    std::atomic<int> wrong{0};
    constexpr int kLaunches = 400;
    std::vector<int> cells((kLaunches + 1) * 4096);
    std::vector<Launch> launches;
    for (int n = 1, before = 0; n <= kLaunches; ++n) {
      const int items = n % 7 + 1;
      launches.push_back(MakeLaunch(RunUntyped<StampArgs, Stamp>, SplitUntyped<StampArgs, SplitStamp>,
                                    StampArgs{&wrong, cells.data(), items, n % 3 + 1, n % 2, n, before}));
      before = items;
    }
    for (int round = 0; round < 50; ++round) {
      std::fill(cells.begin(), cells.end(), 0);
      team.Run(launches);
      for (int n = 1; n <= kLaunches; ++n) {
        for (int i = 0; i < 8; ++i) ASSERT_EQ(cells[static_cast<size_t>(n * 4096 + i)], i < n % 7 + 1 ? n : 0);
      }
    }
    EXPECT_EQ(wrong.load(), 0);
  }
}

TEST(Team, EveryItemOnceAndInOrder) {
  for (int threads : {1, 2, 3, 8}) {
    Team team(threads, false);
    std::mt19937 random(static_cast<uint32_t>(threads));
    std::atomic<int> wrong{0};
    for (int round = 0; round < 50; ++round) {
      constexpr int kLaunches = 20;
      std::vector<int> cells((kLaunches + 1) * 4096);
      std::vector<Launch> launches;
      int before = 0;
      for (int n = 1; n <= kLaunches; ++n) {
        // Including launches of nothing, of one unit, of single items, and of blocks larger than there are items.
        const int items = random() % 5 == 0 ? 0 : static_cast<int>(random() % 200) + 1;
        const int unit = random() % 3 == 0 ? 1000 : static_cast<int>(random() % 20);
        const int block = random() % 3 == 0 ? 0 : static_cast<int>(random() % 300);
        launches.push_back(MakeLaunch(RunUntyped<StampArgs, Stamp>, SplitUntyped<StampArgs, SplitStamp>,
                                      StampArgs{&wrong, cells.data(), items, unit, block, n, before}));
        before = items;
      }
      team.Run(launches);
      for (int n = 1; n <= kLaunches; ++n) {
        StampArgs args;
        std::memcpy(&args, launches[static_cast<size_t>(n - 1)].args, sizeof(args));
        for (int i = 0; i < args.items; ++i) ASSERT_EQ(cells[static_cast<size_t>(n * 4096 + i)], n);
        for (int i = args.items; i < 4096; ++i) ASSERT_EQ(cells[static_cast<size_t>(n * 4096 + i)], 0);
      }
      if (round % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // let the workers fall asleep
    }
    EXPECT_EQ(wrong.load(), 0);
  }
}

TEST(Team, SleepsWhenIdle) {
  Team team(4, false);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto used = [] {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec * 1e6 + usage.ru_utime.tv_usec + usage.ru_stime.tv_sec * 1e6 + usage.ru_stime.tv_usec;
  };
  const double before = used();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(used() - before, 50e3) << "microseconds of processor time in 200 ms of nothing to do";
}

TEST(Replay, AllocatesNothing) {
  constexpr int kWidth = 64;
  auto backend = *MakeCpuBackend({.threads = 2});
  StepTable table(16, 1);
  auto* x = reinterpret_cast<float*>(*backend->Allocate(16 * 4 * kWidth * sizeof(float), "x"));
  auto* y = reinterpret_cast<float*>(*backend->Allocate(16 * 4 * kWidth * sizeof(float), "y"));
  const auto bytes = BytesOf(RandomFloats(kWidth * kWidth, 1));
  const StateRef k{0, kWidth * 2, ElementType::kF16}, v{kWidth * 2 * kExtentRows, kWidth * 2, ElementType::kF16};
  const Rows in{x, 4 * kWidth, kWidth}, out{y, 4 * kWidth, kWidth};
  auto plan = backend->Capture(table, [&](Ops& ops) {
    const Product product{*backend->LoadMatrix({"w", TensorType::kF32, kWidth, kWidth, bytes}), out};
    ops.MatMul(in, {&product, 1});
    ops.NormRope({out, 4, 16, 16}, {}, 1e-6f, {16});
    ops.Append(k, out);
    ops.Append(v, out);
    ops.Attention(in, {out, 4, 16, 16}, k, v, {}, {.kv_heads = 4, .scale = 0.25f});
  });
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  std::vector<std::vector<std::byte>> extents(10, std::vector<std::byte>(kWidth * 4 * kExtentRows));
  std::vector<std::byte*> list;
  for (auto& extent : extents) list.push_back(extent.data());
  table.rows = 16;
  table.lanes = 1;
  table.lane[0] = {nullptr, nullptr, list.data(), 0, 16, 600};
  for (int i = 0; i < 16; ++i) {
    table.row_lane[static_cast<size_t>(i)] = 0;
    table.row_position[static_cast<size_t>(i)] = 600 + i;
  }
  for (int i = 0; i < 16; ++i) std::fill_n(x + i * 4 * kWidth, kWidth, 1.0f);
  Status statuses[20];
  g_allocations = 0;
  g_counting = true;
  for (Status& status : statuses) status = backend->stream().Replay(**plan);
  g_counting = false;
  EXPECT_EQ(g_allocations.load(), 0);
  for (const Status& status : statuses) EXPECT_TRUE(status.ok());
}

}  // namespace
}  // namespace reprise
