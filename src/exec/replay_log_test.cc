#include "exec/replay_log.h"

#include <gtest/gtest.h>

#include "exec/lane.h"
#include "exec/state_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

TEST(ReplayLogTest, HoldsTheLastRowsOfOneHistory) {
  ReplayLog log{.capacity = 8};
  EXPECT_FALSE(log.Holds(0, 1));
  log.Extend(5, 6);
  log.Extend(6, 9);
  EXPECT_TRUE(log.Holds(5, 9));
  EXPECT_FALSE(log.Holds(4, 9));
  EXPECT_FALSE(log.Holds(5, 10));
  log.Extend(9, 15);  // over position 5 and 6
  EXPECT_FALSE(log.Holds(6, 15));
  EXPECT_TRUE(log.Holds(7, 15));
  log.Extend(20, 21);  // what lies between was not kept
  EXPECT_FALSE(log.Holds(14, 21));
  EXPECT_TRUE(log.Holds(20, 21));
  log.Clear();
  EXPECT_FALSE(log.Holds(20, 21));
}

TEST(ReplayLogTest, AStepThatIsNotCommittedCostsWhatItWroteOver) {
  ReplayLog log{.capacity = 8};
  log.Extend(0, 8);
  log.GiveUpFor(11);
  EXPECT_FALSE(log.Holds(2, 8));
  EXPECT_TRUE(log.Holds(3, 8));
  log.Extend(8, 9);  // of the three rows written, one became the lane's
  EXPECT_FALSE(log.Holds(2, 9));
  EXPECT_TRUE(log.Holds(3, 9));
}

TEST(ReplayLogTest, GoingBackLeavesWhatLiesBelow) {
  ReplayLog log{.capacity = 8};
  log.Extend(10, 16);
  log.CutAt(13);
  EXPECT_TRUE(log.Holds(10, 13));
  EXPECT_FALSE(log.Holds(10, 14));
  log.CutAt(4);
  EXPECT_FALSE(log.Holds(4, 5));
  log.Extend(4, 6);
  EXPECT_TRUE(log.Holds(4, 6));
}

TEST(ReplayLogTest, WithoutRowsItHoldsNothing) {
  ReplayLog log;
  log.Extend(0, 3);
  EXPECT_FALSE(log.Holds(2, 3));
}

// Memory is a lane's while it lives, and what it says is of the history that the lane stands on.
TEST(ReplayLogTest, EachLaneHasItsOwn) {
  auto space = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 4, .max_position = 300, .log_rows = 4, .log_row_bytes = 48});
  auto a = *space->NewLane(), b = *space->NewLane();
  ASSERT_EQ(a->log().capacity, 4);
  EXPECT_EQ(a->log().row_bytes, 48u);
  EXPECT_GE(std::abs(a->log().rows - b->log().rows), 4 * 48);
  std::byte* const of_a = a->log().rows;
  a.reset();
  EXPECT_EQ((*space->NewLane())->log().rows, of_a);

  ASSERT_TRUE(StepLane(*b, 3, 1).ok());
  b->log().Extend(0, 3);
  const HeldState held = b->Hold();
  ASSERT_TRUE(StepLane(*b, 2, 2).ok());
  EXPECT_TRUE(b->log().Holds(0, 3)) << "a step is the log's business only where it is told";
  ASSERT_TRUE(b->Adopt(held).ok());
  EXPECT_FALSE(b->log().Holds(2, 3)) << "what is adopted may be of another history";
  EXPECT_EQ((*NewSpace(MixedLayout(), {.lanes = 1, .max_position = 300})->NewLane())->log().rows, nullptr);
}

TEST(HeldStateTest, TheTipOfAnEarlierPositionHoldsTheRowBeforeIt) {
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 4, .max_position = 300});
  auto lane = *space->NewLane();
  ASSERT_TRUE(StepLane(*lane, 200, 1).ok());
  const HeldState held = lane->Hold();
  EXPECT_FALSE(held.TipAt(0));
  for (const int32_t earlier : {1, 63, 64, 65, 128, 129, 199, 200}) {
    ASSERT_TRUE(held.TipAt(earlier)) << earlier;
    EXPECT_EQ(held.TipAt(earlier)->index, (earlier - 1) / kExtentRows) << earlier;
  }
}

}  // namespace
}  // namespace reprise
