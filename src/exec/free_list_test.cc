#include "exec/free_list.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

namespace reprise {
namespace {

TEST(FreeListTest, GivesEveryIndexOnceAndThenNone) {
  FreeList list(5);
  std::set<int32_t> seen;
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(seen.insert(list.Pop()).second);
  EXPECT_EQ(*seen.begin(), 0);
  EXPECT_EQ(*seen.rbegin(), 4);
  EXPECT_EQ(list.free(), 0);
  EXPECT_EQ(list.Pop(), -1);
  EXPECT_EQ(list.Pop(), -1);
  EXPECT_EQ(list.free(), 0);
}

TEST(FreeListTest, TheIndexFreedLastComesBackFirst) {
  FreeList list(4);
  for (int i = 0; i < 4; ++i) list.Pop();
  list.Push(2);
  list.Push(0);
  EXPECT_EQ(list.Pop(), 0);
  EXPECT_EQ(list.Pop(), 2);
  EXPECT_EQ(list.Pop(), -1);
}

TEST(FreeListTest, AnEmptyListIsEmpty) {
  FreeList list(0);
  EXPECT_EQ(list.Pop(), -1);
  EXPECT_EQ(list.free(), 0);
}

// Threads take and return indices; each index has one owner at a time, and what an owner leaves behind is seen by the next one (a plain,
// non-atomic counter each: a missing order between Push and Pop is a race that the thread sanitizer reports and a lost count everywhere
// else).
TEST(FreeListTest, ManyThreads) {
  constexpr int kIndices = 6;
  constexpr int kThreads = 4;
  constexpr int kRounds = 20'000;
  FreeList list(kIndices);
  std::atomic<int> owners[kIndices] = {};
  int64_t uses[kIndices] = {};
  std::atomic<int64_t> taken{0};
  std::atomic<bool> twice{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::vector<int32_t> mine;
      for (int round = 0; round < kRounds; ++round) {
        if (mine.size() < 3 && (round + t) % 3 != 0) {
          if (const int32_t index = list.Pop(); index >= 0) {
            if (owners[index].fetch_add(1, std::memory_order_relaxed) != 0) twice = true;
            ++uses[index];
            ++taken;
            mine.push_back(index);
          }
        } else if (!mine.empty()) {
          const int32_t index = mine.front();
          mine.erase(mine.begin());
          owners[index].fetch_sub(1, std::memory_order_relaxed);
          list.Push(index);
        }
      }
      for (const int32_t index : mine) {
        owners[index].fetch_sub(1, std::memory_order_relaxed);
        list.Push(index);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(twice);
  int64_t total = 0;
  for (const int64_t n : uses) total += n;
  EXPECT_EQ(total, taken);
  EXPECT_EQ(list.free(), kIndices);
  std::set<int32_t> seen;
  for (int i = 0; i < kIndices; ++i) seen.insert(list.Pop());
  EXPECT_EQ(seen.size(), size_t{kIndices});
  EXPECT_EQ(list.Pop(), -1);
}

}  // namespace
}  // namespace reprise
