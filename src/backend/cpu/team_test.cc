#include "backend/cpu/team.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

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
  int items, units, number, previous_items;
};
Split SplitStamp(const StampArgs& args, int) { return {args.items, args.units}; }
void Stamp(const StampArgs& args, int64_t first, int64_t last, int) {
  for (int i = 0; i < args.previous_items; ++i) {
    if (args.cells[(args.number - 1) * 4096 + i] != args.number - 1) args.wrong->fetch_add(1);
  }
  for (int64_t i = first; i < last; ++i) args.cells[args.number * 4096 + i] += args.number;
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
        // Including launches of nothing, of one unit, and of more units than items or than the team can count.
        const int items = random() % 5 == 0 ? 0 : static_cast<int>(random() % 200) + 1;
        const int units = random() % 3 == 0 ? 1 : static_cast<int>(random() % 5000);
        launches.push_back(MakeLaunch(RunUntyped<StampArgs, Stamp>, SplitUntyped<StampArgs, SplitStamp>,
                                      StampArgs{&wrong, cells.data(), items, units, n, before}));
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
    ops.Attention(in, {out, 4, 16, 16}, k, v, 4, 0.25f, {}, 0);
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
