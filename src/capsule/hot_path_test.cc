// What a step, a snapshot, a restore, a fork and a drop may allocate and lock: nothing. Every call of the program is counted, whoever makes it.
#include <gtest/gtest.h>

#include <mutex>
#include <shared_mutex>
#include <string>

#include "base/count_hot_calls.h"
#include "base/hot_calls.h"
#include "capsule/capsule_test_support.h"
#include "reprise/execution.h"

namespace reprise {
namespace {

using namespace testing_support;

TEST(HotPathTest, TheCountersCount) {
  const int64_t before = AllocationCount();
  auto* text = new std::string(1000, 'x');
  EXPECT_GE(AllocationCount() - before, 2);
  delete text;
  if (!CountsLocks()) GTEST_SKIP() << "this program does not count locks";
  const int64_t locks = LockCount();
  std::mutex mutex;
  std::shared_mutex shared;
  { const std::lock_guard lock(mutex); }
  { const std::shared_lock lock(shared); }
  { const std::unique_lock lock(shared); }
  { const std::unique_lock lock(mutex, std::try_to_lock); }
  EXPECT_EQ(LockCount() - locks, 4);
}

TEST(HotPathTest, WhatADriverDoesIsCountedApart) {
  const auto use = [] {
    const std::string text(1000, 'x');
    std::mutex mutex;
    const std::lock_guard lock(mutex);
    return text.size();
  };
  const int64_t before = AllocationCount() + LockCount(), driver = DriverAllocationCount();
  {
    const InDriver in_driver;
    EXPECT_EQ(use(), size_t{1000});
    const InDriver again;
  }
  EXPECT_EQ(AllocationCount() + LockCount(), before);
  if (CountsAllocations()) {
    EXPECT_GE(DriverAllocationCount() - driver, 1);
  }
  const int64_t outside = AllocationCount();
  EXPECT_EQ(use(), size_t{1000});
  EXPECT_GE(AllocationCount() - outside, 1);
}

TEST(HotPathTest, NothingAllocatesOrLocks) {
  auto space = NewSpace(MixedLayout(), {.lanes = 4, .capsules = 32, .rows = 64 * 300, .max_position = 8192});
  auto lane = *space->NewLane();
  auto other = *space->NewLane();
  Capsule kept[8];
  const int64_t before = AllocationCount() + LockCount();
  bool ok = true;
  for (int round = 0; round < 200; ++round) {
    ok = ok && lane->Begin(1 + round % 40).ok();
    lane->Commit();
    ok = ok && lane->BeginHost().ok();
    lane->Commit();
    ok = ok && lane->Begin(100).ok();
    lane->Abort();
    kept[round % 8] = Capsule::Take(*lane);
    Capsule copy = kept[(round + 3) % 8];
    if (copy.valid() && round % 3 == 0) ok = ok && copy.RestoreTo(*other).ok();  // a fork: both go on from there
    if (round % 7 == 6) ok = ok && kept[(round + 6) % 8].RestoreTo(*lane).ok();  // a rollback
    ok = ok && other->Begin(5).ok();                                             // copies on write
    other->Commit();
    if (round % 50 == 49) lane->Reset();
    if (round % 11 == 0) kept[(round + 5) % 8] = Capsule();
  }
  const int64_t count = AllocationCount() + LockCount() - before;
  EXPECT_TRUE(ok);
  EXPECT_GT(other->copied_rows(), 0u);
  EXPECT_EQ(count, 0);
}

TEST(HotPathTest, NothingAllocatesOrLocksBehindTheFacade) {
  StateLayout layout;
  layout.Recurrent("h", ElementType::kF32, {64});
  layout.Recurrent("world", ElementType::kBytes, {100}, Space::kHost);
  layout.Append("actions", ElementType::kF32, {7});
  auto execution = *Execution::Create(layout, {.lanes = 2, .capsules = 8, .max_position = 4096}, "hot 1");
  const float command[] = {0.5f};
  ASSERT_TRUE(execution.AddInput({.name = "command", .type = ElementType::kF32, .shape = {1}}).ok());
  const auto h = *execution.FindRecurrent<float>("h");
  const auto world = *execution.FindRecurrent<uint8_t>("world");
  const auto actions = *execution.FindRows<float>("actions");
  const auto input = *execution.FindInput<float>("command");
  auto lane = *execution.NewLane();
  Capsule kept[4];
  const int64_t before = AllocationCount() + LockCount();
  bool ok = true;
  for (int round = 0; round < 300; ++round) {
    ok = ok && execution.Write(input, std::as_bytes(std::span(command))).ok();
    ok = ok && lane.Step(3,
                         [&](StepView& step) {
                           step.Write(h)[0] = step.Read(h)[0] + step.Read(input)[0];
                           step.Row(actions, 1)[6] = step.History(actions, step.position())[0];
                         })
                   .ok();
    ok = ok && lane.Step(0, [&](StepView& step) { ++step.Update(world)[3]; }).ok();
    kept[round % 4] = lane.Snapshot();
    if (round % 5 == 4) ok = ok && lane.Restore(kept[(round + 2) % 4]).ok();
  }
  const int64_t count = AllocationCount() + LockCount() - before;
  EXPECT_TRUE(ok);
  EXPECT_EQ(count, 0);
}

}  // namespace
}  // namespace reprise
