#include "exec/lane.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "exec/state_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

std::unique_ptr<Lane> LaneOf(StateSpace& space) {
  auto lane = space.NewLane();
  EXPECT_TRUE(lane.ok()) << lane.status().message();
  return *std::move(lane);
}

const std::byte* RowAddress(const Lane& lane, int32_t position) {
  return lane.row(lane.space().layout()[lane.space().layout().Find("a.keys")], position);
}

TEST(LaneTest, StartsAtTheOrigin) {
  auto space = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 2, .max_position = 300});
  auto lane = LaneOf(*space);
  EXPECT_EQ(lane->position(), 0);
  EXPECT_EQ(ReadLane(*lane), OriginModel(*space));
  EXPECT_EQ(lane->read(Space::kDevice), space->origin(0).data()) << "by reference, not by copy";
  EXPECT_TRUE(space->origin(space->layout().Find("a.keys")).empty());
}

TEST(LaneTest, StepsLikeTheNaiveModelWhateverTheirSize) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 0, .max_position = 1000});
  auto lane = LaneOf(*space);
  Model model = OriginModel(*space);
  uint64_t seed = 0;
  for (const int rows : {1, 62, 1, 1, 63, 64, 65, 1, 128, 200, 3}) {
    ASSERT_TRUE(StepLane(*lane, rows, ++seed).ok());
    StepModel(space->layout(), model, rows, seed);
    ASSERT_EQ(ReadLane(*lane), model) << "after a step of " << rows;
    ASSERT_TRUE(HostStepLane(*lane, ++seed).ok());
    HostStepModel(space->layout(), model, seed);
    ASSERT_EQ(ReadLane(*lane), model);
  }
  EXPECT_EQ(lane->copied_rows(), 0u);
}

TEST(LaneTest, EveryShapeOfLayoutWorks) {
  for (const StateLayout& layout : {RecurrentLayout(), AppendLayout(), HostLayout()}) {
    auto space = NewSpace(layout, {.lanes = 1, .capsules = 1, .max_position = 200});
    auto lane = LaneOf(*space);
    Model model = OriginModel(*space);
    for (const int rows : {1, 70, 5}) {
      ASSERT_TRUE(StepLane(*lane, rows, 9).ok());
      StepModel(layout, model, rows, 9);
    }
    EXPECT_EQ(ReadLane(*lane), model);
  }
}

TEST(LaneTest, RefusesImpossibleSteps) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 0, .max_position = 100});
  auto lane = LaneOf(*space);
  for (const int rows : {0, -1, INT32_MIN}) EXPECT_EQ(lane->Begin(rows).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(lane->Begin(101).code(), StatusCode::kExhausted);
  EXPECT_EQ(lane->Begin(INT32_MAX).code(), StatusCode::kExhausted);
  EXPECT_FALSE(lane->in_step());
  ASSERT_TRUE(StepLane(*lane, 100, 1).ok());
  const Status full = lane->Begin(1);
  EXPECT_EQ(full.code(), StatusCode::kExhausted);
  EXPECT_NE(full.message().find("context of 100"), std::string::npos) << full.message();
  EXPECT_TRUE(HostStepLane(*lane, 2).ok()) << "a full context still has host steps";
}

TEST(LaneTest, AbortLeavesEverythingAsItWas) {
  auto space = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 2, .max_position = 400});
  auto lane = LaneOf(*space);
  ASSERT_TRUE(StepLane(*lane, 70, 1).ok());
  const HeldState kept = lane->Hold();  // somebody else holds the tip
  const Model before = ReadLane(*lane);
  const auto usage = space->usage();
  for (const int rows : {1, 57, 58, 59, 200}) {
    ASSERT_TRUE(lane->Begin(rows).ok());
    EXPECT_TRUE(lane->in_step());
    ComputeStep(*lane, rows, 77);
    EXPECT_EQ(lane->position(), 70) << "until the commit";
    lane->Abort();
    EXPECT_FALSE(lane->in_step());
    EXPECT_EQ(ReadLane(*lane), before);
    EXPECT_TRUE(SameUsage(space->usage(), usage));
    EXPECT_EQ(kept.tip->frontier.load(), 6) << "an aborted step gives its rows back";
  }
  ASSERT_TRUE(lane->BeginHost().ok());
  std::memset(lane->write(Space::kHost), 0xEE, space->layout().block_bytes(Space::kHost));
  lane->Abort();
  EXPECT_EQ(ReadLane(*lane), before);
  ASSERT_TRUE(StepLane(*lane, 1, 2).ok());
  EXPECT_EQ(lane->copied_rows(), 0u);
}

// Speculation: rows are begun for a whole draft, and committed as far as it was accepted.
TEST(LaneTest, ACommitOfTheFirstRowsGivesTheOthersBack) {
  for (const int start : {0, 1, 60, 63, 64, 100}) {
    for (const int rows : {1, 4, 5, 70, 130}) {
      for (const int kept : {1, 2, 4, 64, 65}) {
        if (kept > rows) continue;
        auto space = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 4, .max_position = 400});
        auto lane = LaneOf(*space);
        Model model = OriginModel(*space);
        if (start > 0) {
          ASSERT_TRUE(StepLane(*lane, start, 1).ok());
          StepModel(space->layout(), model, start, 1);
        }
        HeldState shared = lane->Hold();
        const Model before = model;
        ASSERT_TRUE(TentativeStepLane(*lane, rows, kept, 2).ok());
        StepModel(space->layout(), model, kept, 2);
        ASSERT_EQ(lane->position(), start + kept);
        ASSERT_EQ(ReadLane(*lane), model) << start << " " << rows << " " << kept;
        ASSERT_EQ(space->usage().extents, (start + kept + 63) / 64);
        ASSERT_EQ(lane->Hold().tip->frontier.load(), (start + kept - 1) % 64 + 1);

        const HeldState here = lane->Hold();  // goes on in place, also when the tip is shared
        ASSERT_TRUE(StepLane(*lane, 70, 3).ok());
        StepModel(space->layout(), model, 70, 3);
        ASSERT_EQ(ReadLane(*lane), model);
        ASSERT_EQ(lane->copied_rows(), 0u);
        auto other = LaneOf(*space);
        ASSERT_TRUE(other->Adopt(shared).ok());
        ASSERT_EQ(ReadLane(*other), before);
      }
    }
  }
}

TEST(LaneTest, ALaneDestroyedWithinAStepGivesEverythingBack) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 2, .max_position = 400});
  {
    auto lane = LaneOf(*space);
    ASSERT_TRUE(StepLane(*lane, 10, 1).ok());
    ASSERT_TRUE(lane->Begin(100).ok());
  }
  EXPECT_EQ(space->usage().blocks[0], 1);
  EXPECT_EQ(space->usage().blocks[1], 1);
  EXPECT_EQ(space->usage().extents, 0);
}

TEST(LaneTest, WhatIsHeldWithinAStepIsTheCommittedState) {
  auto space = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 2, .max_position = 400});
  auto lane = LaneOf(*space);
  ASSERT_TRUE(StepLane(*lane, 60, 1).ok());
  const Model before = ReadLane(*lane);
  ASSERT_TRUE(lane->Begin(100).ok());
  const HeldState held = lane->Hold();
  EXPECT_EQ(held.position, 60);
  EXPECT_EQ(held.tip->index, 0);
  ComputeStep(*lane, 100, 2);
  lane->Commit();
  auto other = LaneOf(*space);
  ASSERT_TRUE(other->Adopt(held).ok());
  EXPECT_EQ(ReadLane(*other), before);
}

TEST(LaneTest, TheFirstToGoOnTakesTheFrontierAndTheOthersCopyOneExtent) {
  auto space = NewSpace(MixedLayout(), {.lanes = 3, .capsules = 4, .rows = 64 * 12, .max_position = 400});
  auto a = LaneOf(*space);
  ASSERT_TRUE(StepLane(*a, 170, 1).ok());  // two full extents, and 42 rows in a third
  auto b = LaneOf(*space);
  auto c = LaneOf(*space);
  ASSERT_TRUE(b->Adopt(a->Hold()).ok());
  ASSERT_TRUE(c->Adopt(a->Hold()).ok());
  EXPECT_EQ(space->usage().extents, 3) << "adopting shares";
  Model model_a = ReadLane(*a);
  Model model_b = model_a;
  Model model_c = model_a;

  ASSERT_TRUE(StepLane(*b, 5, 2).ok());  // in place: it stood at the frontier
  EXPECT_EQ(b->copied_rows(), 0u);
  EXPECT_EQ(space->usage().extents, 3);
  ASSERT_TRUE(StepLane(*c, 5, 3).ok());  // behind it: a copy of the 42 rows, never of the 128 below
  EXPECT_EQ(c->copied_rows(), 42u);
  EXPECT_EQ(space->usage().extents, 4);
  EXPECT_EQ(RowAddress(*c, 127), RowAddress(*a, 127));
  EXPECT_NE(RowAddress(*c, 128), RowAddress(*a, 128));
  ASSERT_TRUE(StepLane(*c, 5, 4).ok());
  EXPECT_EQ(c->copied_rows(), 42u) << "its own now";
  ASSERT_TRUE(StepLane(*a, 5, 5).ok());
  EXPECT_EQ(a->copied_rows(), 42u);

  StepModel(space->layout(), model_b, 5, 2);
  StepModel(space->layout(), model_c, 5, 3);
  StepModel(space->layout(), model_c, 5, 4);
  StepModel(space->layout(), model_a, 5, 5);
  EXPECT_EQ(ReadLane(*a), model_a);
  EXPECT_EQ(ReadLane(*b), model_b);
  EXPECT_EQ(ReadLane(*c), model_c);
}

TEST(LaneTest, ASoleHolderGoesOnInPlaceWhereverTheFrontierIs) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 4, .max_position = 400});
  auto lane = LaneOf(*space);
  ASSERT_TRUE(StepLane(*lane, 10, 1).ok());
  {
    const HeldState early = lane->Hold();
    ASSERT_TRUE(StepLane(*lane, 30, 2).ok());
    ASSERT_TRUE(lane->Adopt(early).ok());
  }
  EXPECT_EQ(lane->position(), 10);
  ASSERT_TRUE(StepLane(*lane, 1, 3).ok());
  EXPECT_EQ(lane->copied_rows(), 0u);
  EXPECT_EQ(lane->Hold().tip->frontier.load(), 11);
  EXPECT_EQ(space->usage().extents, 1);
}

TEST(LaneTest, AtAnExtentsEndNobodyCopies) {
  auto space = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 4, .max_position = 400});
  auto a = LaneOf(*space);
  ASSERT_TRUE(StepLane(*a, 128, 1).ok());
  auto b = LaneOf(*space);
  ASSERT_TRUE(b->Adopt(a->Hold()).ok());
  ASSERT_TRUE(StepLane(*a, 70, 2).ok());
  ASSERT_TRUE(StepLane(*b, 70, 3).ok());
  EXPECT_EQ(a->copied_rows() + b->copied_rows(), 0u);
  EXPECT_EQ(space->usage().extents, 2 + 2 + 2);
}

// Adopt walks down from the new tip only until the histories meet: the entries below are not written again. They are made wrong on purpose
// here, through the table's address, to see that they are left alone.
TEST(LaneTest, AdoptStopsWhereTheHistoriesMeet) {
  auto space = NewSpace(AppendLayout(), {.lanes = 1, .capsules = 4, .rows = 64 * 20, .max_position = 640});
  auto lane = LaneOf(*space);
  ASSERT_TRUE(StepLane(*lane, 300, 1).ok());
  const HeldState early = lane->Hold();
  ASSERT_TRUE(StepLane(*lane, 100, 2).ok());
  auto** table = const_cast<std::byte**>(lane->extents(Space::kDevice));
  std::byte* const kept = table[2];
  table[2] = nullptr;
  ASSERT_TRUE(lane->Adopt(early).ok());  // its tip, extent 4, is below the lane's own: at once the same
  EXPECT_EQ(table[2], nullptr);
  table[2] = kept;

  ASSERT_TRUE(StepLane(*lane, 10, 3).ok());  // a copy of extent 4; 0 to 3 are common
  EXPECT_EQ(lane->copied_rows(), 44u);
  table[2] = nullptr;
  ASSERT_TRUE(lane->Adopt(early).ok());
  EXPECT_EQ(table[2], nullptr);
  table[2] = kept;
  Model model = OriginModel(*space);
  StepModel(space->layout(), model, 300, 1);
  EXPECT_EQ(ReadLane(*lane), model);

  const HeldState held = lane->Hold();
  lane->Reset();  // nothing in common: everything is entered again
  table[2] = nullptr;
  ASSERT_TRUE(lane->Adopt(held).ok());
  EXPECT_EQ(table[2], kept);
  EXPECT_EQ(ReadLane(*lane), model);
}

TEST(LaneTest, TableAddressesNeverMove) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 4, .max_position = 400});
  auto lane = LaneOf(*space);
  std::byte* const* tables[kSpaces] = {lane->extents(Space::kDevice), lane->extents(Space::kHost)};
  const HeldState origin = lane->Hold();
  ASSERT_TRUE(StepLane(*lane, 300, 1).ok());
  ASSERT_TRUE(lane->Adopt(origin).ok());
  ASSERT_TRUE(StepLane(*lane, 400, 1).ok());
  lane->Reset();
  EXPECT_EQ(lane->extents(Space::kDevice), tables[0]);
  EXPECT_EQ(lane->extents(Space::kHost), tables[1]);
}

TEST(LaneTest, ResetForgetsTheParent) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 4, .max_position = 400});
  auto lane = LaneOf(*space);
  ASSERT_TRUE(StepLane(*lane, 3, 1).ok());
  lane->parent_capsule = 7;
  lane->Reset();
  EXPECT_EQ(lane->position(), 0);
  EXPECT_EQ(lane->parent_capsule, 0u);
  EXPECT_EQ(ReadLane(*lane), OriginModel(*space));
}

TEST(LaneTest, AFullPoolLeavesTheLaneAsItWas) {
  auto space = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 4, .rows = 64 * 3, .max_position = 400});
  auto lane = LaneOf(*space);
  ASSERT_TRUE(StepLane(*lane, 100, 1).ok());
  const HeldState shared = lane->Hold();
  const Model before = ReadLane(*lane);
  const auto usage = space->usage();

  // In place first (it stands at the frontier), then one extent more, and then there is none left: the claim on the tip is taken back.
  Status status = lane->Begin(28 + 64 + 1);
  EXPECT_EQ(status.code(), StatusCode::kExhausted);
  EXPECT_NE(status.message().find("all 3 extents"), std::string::npos) << status.message();
  EXPECT_TRUE(SameUsage(space->usage(), usage));
  EXPECT_EQ(ReadLane(*lane), before);
  EXPECT_EQ(shared.tip->frontier.load(), 36);

  // Another goes on first, so that this lane must copy: there is room for the copy but not for the extent after it.
  auto other = LaneOf(*space);
  ASSERT_TRUE(other->Adopt(shared).ok());
  ASSERT_TRUE(StepLane(*other, 1, 5).ok());
  const auto usage_with_other = space->usage();
  EXPECT_EQ(lane->Begin(28 + 1).code(), StatusCode::kExhausted);
  EXPECT_TRUE(SameUsage(space->usage(), usage_with_other)) << "a copy that led nowhere is not kept";
  EXPECT_EQ(ReadLane(*lane), before);
  EXPECT_EQ(lane->Hold().tip.get(), shared.tip.get());

  Model model = before;
  ASSERT_TRUE(StepLane(*lane, 28, 3).ok()) << "what does fit still goes";
  StepModel(space->layout(), model, 28, 3);
  EXPECT_EQ(ReadLane(*lane), model);
}

TEST(LaneTest, BlocksRunOutCleanly) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 1, .max_position = 400});
  auto lane = LaneOf(*space);
  std::vector<HeldState> held;
  Status status;
  Model model = OriginModel(*space);
  for (uint64_t i = 0; i < 10; ++i) {
    status = StepLane(*lane, 1, i);
    if (!status.ok()) break;
    StepModel(space->layout(), model, 1, i);
    held.push_back(lane->Hold());
  }
  EXPECT_EQ(status.code(), StatusCode::kExhausted);
  EXPECT_NE(status.message().find("all 4 state blocks"), std::string::npos) << status.message();
  EXPECT_EQ(ReadLane(*lane), model);
  EXPECT_EQ(HostStepLane(*lane, 3).code(), StatusCode::kExhausted);
  EXPECT_EQ(ReadLane(*lane), model);
  held.erase(held.begin());
  EXPECT_TRUE(StepLane(*lane, 1, 3).ok()) << "once something is let go of";
}

TEST(LaneTest, AnEvictionThatEndsTheSharingMakesTheCopyNeedless) {
  auto space = NewSpace(AppendLayout(), {.lanes = 2, .capsules = 4, .rows = 64, .max_position = 400});
  auto lane = LaneOf(*space);
  ASSERT_TRUE(StepLane(*lane, 10, 1).ok());
  HeldState capsule = lane->Hold();
  {
    auto other = LaneOf(*space);
    ASSERT_TRUE(other->Adopt(capsule).ok());
    ASSERT_TRUE(StepLane(*other, 1, 2).ok());  // takes the frontier along
  }
  EXPECT_EQ(lane->Begin(1).code(), StatusCode::kExhausted);
  int asked = 0;
  space->SetEvictor([&] {
    ++asked;
    const bool had = static_cast<bool>(capsule.tip);
    capsule = HeldState();
    return had;
  });
  EXPECT_TRUE(StepLane(*lane, 1, 3).ok());
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(lane->copied_rows(), 0u);
  space->SetEvictor(nullptr);
}

// Lanes of one space on threads of their own, sharing a history and handing states to one another.
TEST(LaneTest, ManyThreads) {
  auto space = NewSpace(MixedLayout(), {.lanes = 5, .capsules = 64, .rows = 64 * 64, .max_position = 400});
  auto root = LaneOf(*space);
  ASSERT_TRUE(StepLane(*root, 100, 1).ok());
  const HeldState shared = root->Hold();
  const Model base = ReadLane(*root);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      auto lane = LaneOf(*space);
      for (int round = 0; round < 40; ++round) {
        ASSERT_TRUE(lane->Adopt(shared).ok());
        Model model = base;
        for (int step = 0; step < 3; ++step) {
          const uint64_t seed = static_cast<uint64_t>(t * 1000 + round * 10 + step);
          const int rows = 1 + (t + round + step) % 40;
          ASSERT_TRUE(StepLane(*lane, rows, seed).ok());
          StepModel(space->layout(), model, rows, seed);
          if (step == 1) {
            ASSERT_TRUE(lane->Begin(3).ok());
            ComputeStep(*lane, 3, 1);
            lane->Abort();
          }
        }
        ASSERT_EQ(ReadLane(*lane), model);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ReadLane(*root), base);
  const HeldState origin = space->Origin();
  const HeldState root_held = root->Hold();
  // `origin` and `root_held` are holds of this test, beside those of the space and of the lane.
  EXPECT_EQ(Unaccounted(*space, {&origin, &origin, &root_held, &root_held, &shared}), "");
}

}  // namespace
}  // namespace reprise
