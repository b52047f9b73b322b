#include "exec/state_space.h"

#include <gtest/gtest.h>

#include "exec/lane.h"
#include "exec/state_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

TEST(StateSpaceTest, RefusesImpossibleOptions) {
  const auto code = [](StateLayout layout, StateSpaceOptions options) {
    return StateSpace::Create(std::move(layout), options, TestFingerprint(), std::make_shared<HostMemory>()).status().code();
  };
  EXPECT_EQ(code(MixedLayout(), {.lanes = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(MixedLayout(), {.lanes = -3}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(MixedLayout(), {.capsules = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(MixedLayout(), {.rows = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(MixedLayout(), {.max_position = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(MixedLayout(), {.lanes = INT32_MAX, .capsules = INT32_MAX}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(MixedLayout(), {.rows = INT64_MAX}), StatusCode::kInvalidArgument);
  StateLayout bad;
  bad.Recurrent("s", ElementType::kF32, {0});
  EXPECT_EQ(code(bad, {}), StatusCode::kInvalidArgument);
  StateLayout huge;
  huge.Recurrent("s", ElementType::kBytes, {int64_t{1} << 39});
  EXPECT_EQ(code(huge, {.capsules = 1 << 28}), StatusCode::kInvalidArgument) << "2^39 x 2^28 bytes";
  EXPECT_EQ(code(huge, {.capsules = 1 << 18}), StatusCode::kExhausted) << "more than any address space has";
  EXPECT_EQ(StateSpace::Create(MixedLayout(), {}, TestFingerprint(), nullptr).status().code(), StatusCode::kInvalidArgument);
}

// Counts down to the call that fails.
class FailingMemory : public HostMemory {
 public:
  explicit FailingMemory(int at) : left_(at) {}
  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override {
    if (--left_ == 0) return Exhausted("no memory for " + std::string(what));
    return HostMemory::Allocate(bytes, what);
  }

 private:
  int left_;
};

TEST(StateSpaceTest, EveryFailedAllocationIsReported) {
  int failures = 0;
  for (int n = 1;; ++n) {
    auto space = StateSpace::Create(MixedLayout(), {}, TestFingerprint(), std::make_shared<FailingMemory>(n));
    if (space.ok()) break;
    ++failures;
    EXPECT_EQ(space.status().code(), StatusCode::kExhausted);
    EXPECT_NE(space.status().message().find("no memory for"), std::string::npos);
  }
  EXPECT_EQ(failures, 2) << "state blocks and extents";
}

TEST(StateSpaceTest, TheDefaultPoolHoldsEveryLaneAtItsFullLength) {
  auto space = NewSpace(MixedLayout(), {.lanes = 3, .capsules = 0, .max_position = 100});  // two extents a lane, not 300 / 64 in all
  std::vector<std::unique_ptr<Lane>> lanes;
  for (int i = 0; i < 3; ++i) {
    lanes.push_back(*space->NewLane());
    for (int step = 0; step < 100; ++step) ASSERT_TRUE(StepLane(*lanes.back(), 1, 1).ok());
  }
  EXPECT_EQ(space->usage().extents, 6);
}

TEST(StateSpaceTest, LanesAreCounted) {
  auto space = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 0, .max_position = 100});
  auto a = space->NewLane();
  auto b = space->NewLane();
  ASSERT_TRUE(a.ok() && b.ok());
  auto c = space->NewLane();
  EXPECT_EQ(c.status().code(), StatusCode::kExhausted);
  EXPECT_NE(c.status().message().find("all 2 lanes"), std::string::npos);
  (*a).reset();
  EXPECT_TRUE(space->NewLane().ok());
}

TEST(StateSpaceTest, UsageAccountsForEveryByteAndGoesBackToTheOrigin) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 3, .max_position = 1000});
  const StateLayout& layout = space->layout();
  const size_t blocks = layout.block_bytes(Space::kDevice) + layout.block_bytes(Space::kHost);
  const size_t extent = layout.extent_bytes(Space::kDevice) + layout.extent_bytes(Space::kHost);
  EXPECT_EQ(space->usage().bytes, blocks);
  EXPECT_EQ(space->usage().block_limit, 6);
  EXPECT_EQ(space->usage().extent_limit, 16);
  {
    auto lane = *space->NewLane();
    EXPECT_EQ(space->usage().bytes, blocks);
    ASSERT_TRUE(StepLane(*lane, 65, 1).ok());
    EXPECT_EQ(space->usage().bytes, 2 * blocks + 2 * extent);
    ASSERT_TRUE(lane->Begin(64).ok());
    EXPECT_EQ(space->usage().bytes, 3 * blocks + 3 * extent);
    lane->Commit();
    EXPECT_EQ(space->usage().bytes, 2 * blocks + 3 * extent);
    const HeldState held = lane->Hold();
    ASSERT_TRUE(HostStepLane(*lane, 1).ok());
    EXPECT_EQ(space->usage().bytes, 2 * blocks + 3 * extent + layout.block_bytes(Space::kHost)) << "the device block stays shared";
  }
  EXPECT_EQ(space->usage().bytes, blocks);
  EXPECT_EQ(space->usage().extents, 0);
}

TEST(StateSpaceTest, TheEvictorIsAskedUntilThereIsRoomOrNothingIsLeft) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 2, .max_position = 1000});
  auto lane = *space->NewLane();
  std::vector<HeldState> held;
  int asked = 0;
  space->SetEvictor([&] {
    ++asked;
    if (held.empty()) return false;
    held.erase(held.begin());
    return true;
  });
  for (uint64_t i = 0; i < 4; ++i) {  // the fifth block is the origin
    ASSERT_TRUE(StepLane(*lane, 1, i).ok());
    held.push_back(lane->Hold());
  }
  EXPECT_EQ(asked, 0) << "not while there is room";
  ASSERT_TRUE(StepLane(*lane, 1, 4).ok());
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(held.size(), 3u);
  space->SetEvictor(nullptr);
}

TEST(StateSpaceTest, AcquireStateIsAllOrNothingAndAsksForNothingInVain) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 2, .rows = 256, .max_position = 1000});
  const auto usage = space->usage();
  int asked = 0;
  space->SetEvictor([&] {
    ++asked;
    return false;
  });
  EXPECT_EQ(space->AcquireState(257).status().code(), StatusCode::kExhausted);
  EXPECT_EQ(asked, 0) << "there is no point in evicting";
  auto a = space->AcquireState(100);
  ASSERT_TRUE(a.ok());
  EXPECT_EQ(a->tip->index, 1);
  EXPECT_EQ(a->tip->frontier.load(), 36);
  EXPECT_EQ(a->tip->previous->frontier.load(), 64);
  const auto with_a = space->usage();
  EXPECT_EQ(space->AcquireState(200).status().code(), StatusCode::kExhausted);
  EXPECT_EQ(asked, 1);
  EXPECT_TRUE(SameUsage(space->usage(), with_a));
  *a = HeldState();
  EXPECT_TRUE(SameUsage(space->usage(), usage));
  EXPECT_FALSE(space->AcquireState(0)->tip);
  space->SetEvictor(nullptr);
}

TEST(StateSpaceTest, MemoryIsZeroedAlignedAndUsedOnlyWhenTouched) {
  HostMemory memory;
  auto bytes = memory.Allocate(size_t{1} << 36, "nothing in particular");
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(*bytes) % kStateAlignment, 0u);
  EXPECT_EQ((*bytes)[(size_t{1} << 36) - 1], std::byte{0});
  EXPECT_TRUE(memory.Allocate(0, "an empty space").ok());
  auto impossible = memory.Allocate(size_t{1} << 60, "state blocks");
  EXPECT_EQ(impossible.status().code(), StatusCode::kExhausted);
  EXPECT_NE(impossible.status().message().find("state blocks"), std::string::npos);
}

}  // namespace
}  // namespace reprise
