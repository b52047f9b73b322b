#include "capsule/ablation.h"

#include <gtest/gtest.h>

#include "capsule/capsule_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

class AblationTest : public ::testing::Test {
 protected:
  std::shared_ptr<StateSpace> space_ = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 8, .rows = 64 * 40, .max_position = 1024});
};

TEST_F(AblationTest, LeavesOutExactlyTheNamedStates) {
  for (const int position : {0, 1, 64, 150}) {
    Model model;
    const Capsule capsule = CapsuleAt(space_, position, 7, &model);
    const Model origin = OriginModel(*space_);
    const auto states = space_->layout().states();
    for (size_t out = 0; out < states.size(); ++out) {
      const std::vector<std::string> names = {states[out].name};
      auto without = WithoutStates(capsule, names);
      ASSERT_TRUE(without.ok()) << without.status().message();
      Model expected = model;
      if (states[out].growth == Growth::kRecurrent) {
        expected.states[out] = origin.states[out];
      } else {
        std::fill(expected.states[out].begin(), expected.states[out].end(), std::byte{0});
      }
      EXPECT_EQ(ReadCapsule(*without), expected) << states[out].name;
      EXPECT_EQ(without->parent(), capsule.id());
      EXPECT_EQ(ReadCapsule(capsule), model);
    }
    EXPECT_EQ(ReadCapsule(*WithoutStates(capsule, {})), model);
  }
}

// The point of it: the toy's step mixes every state, so leaving any one out must make what follows diverge.
TEST_F(AblationTest, WhatFollowsDiverges) {
  Model model;
  const Capsule capsule = CapsuleAt(space_, 70, 7, &model);
  auto lane = *space_->NewLane();
  ASSERT_TRUE(capsule.RestoreTo(*lane).ok());
  ASSERT_TRUE(StepLane(*lane, 1, 9).ok());
  const Model future = ReadLane(*lane);
  for (const StateDecl& state : space_->layout().states()) {
    const std::vector<std::string> names = {state.name};
    ASSERT_TRUE(WithoutStates(capsule, names)->RestoreTo(*lane).ok());
    ASSERT_TRUE(StepLane(*lane, 1, 9).ok());
    EXPECT_NE(ReadLane(*lane).states[0], future.states[0]) << state.name;
  }
  ASSERT_TRUE(capsule.RestoreTo(*lane).ok());
  ASSERT_TRUE(StepLane(*lane, 1, 9).ok());
  EXPECT_EQ(ReadLane(*lane), future);
}

TEST_F(AblationTest, RowsOnlyKeepsRowsAndHostState) {
  Model model;
  const Capsule capsule = CapsuleAt(space_, 70, 7, &model);
  const Capsule rows = *RowsOnly(capsule);
  Model expected = model;
  const Model origin = OriginModel(*space_);
  for (const char* name : {"a.matrix", "a.tail"}) {
    const auto index = static_cast<size_t>(space_->layout().Find(name));
    expected.states[index] = origin.states[index];
  }
  EXPECT_EQ(ReadCapsule(rows), expected);
}

TEST_F(AblationTest, TheCopyIsIndependent) {
  const auto usage = space_->usage();
  Model model;
  {
    Capsule without;
    {
      const Capsule capsule = CapsuleAt(space_, 70, 7, &model);
      const auto with_one = space_->usage();
      without = *RowsOnly(capsule);
      EXPECT_EQ(space_->usage().extents, with_one.extents + 2);
      EXPECT_EQ(space_->usage().blocks[0], with_one.blocks[0] + 1);
      EXPECT_EQ(space_->usage().blocks[1], with_one.blocks[1] + 1);
    }
    EXPECT_EQ(ReadCapsule(without).states[1], model.states[1]);
    auto lane = *space_->NewLane();
    ASSERT_TRUE(without.RestoreTo(*lane).ok());
    ASSERT_TRUE(StepLane(*lane, 10, 3).ok());
    EXPECT_EQ(ReadCapsule(without).states[1], model.states[1]);
  }
  EXPECT_TRUE(SameUsage(space_->usage(), usage));
}

TEST_F(AblationTest, Refuses) {
  const Capsule capsule = CapsuleAt(space_, 70);
  const std::vector<std::string> names = {"a.matrix", "a.missing"};
  const auto usage = space_->usage();
  const Status status = WithoutStates(capsule, names).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("'a.missing'"), std::string::npos);
  EXPECT_TRUE(SameUsage(space_->usage(), usage));
  EXPECT_EQ(RowsOnly(Capsule()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(WithoutStates(Capsule(), {}).status().code(), StatusCode::kInvalidArgument);
  auto tight = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 4, .rows = 64 * 3, .max_position = 1024});
  const Capsule large = CapsuleAt(tight, 120);
  const auto tight_usage = tight->usage();
  EXPECT_EQ(RowsOnly(large).status().code(), StatusCode::kExhausted);
  EXPECT_TRUE(SameUsage(tight->usage(), tight_usage));
}

}  // namespace
}  // namespace reprise
