#include "reprise/capsule.h"

#include <gtest/gtest.h>

#include <thread>

#include "capsule/capsule_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

class CapsuleTest : public ::testing::Test {
 protected:
  std::shared_ptr<StateSpace> space_ = NewSpace(MixedLayout(), {.lanes = 8, .capsules = 64, .rows = 64 * 200, .max_position = 1200});
  std::unique_ptr<Lane> lane_ = *space_->NewLane();
};

TEST_F(CapsuleTest, TakingCopiesNothingAndTheFutureDoesNotShow) {
  Model model = OriginModel(*space_);
  ASSERT_TRUE(StepLane(*lane_, 100, 1).ok());
  StepModel(space_->layout(), model, 100, 1);
  const auto usage = space_->usage();
  const Capsule capsule = Capsule::Take(*lane_);
  EXPECT_TRUE(SameUsage(space_->usage(), usage));
  EXPECT_TRUE(capsule.valid());
  EXPECT_EQ(capsule.position(), 100);
  EXPECT_EQ(capsule.recurrent_bytes(), space_->layout().recurrent_bytes());
  EXPECT_EQ(capsule.row_bytes(), 100 * space_->layout().row_bytes());
  EXPECT_EQ(capsule.fingerprint(), space_->fingerprint());
  for (uint64_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(StepLane(*lane_, 7, 2 + i).ok());
    ASSERT_TRUE(HostStepLane(*lane_, 2 + i).ok());
    ASSERT_EQ(ReadCapsule(capsule), model);
  }
  EXPECT_EQ(lane_->copied_rows(), 0u);
}

TEST_F(CapsuleTest, RestoreGivesBackEveryByteAndTheSameFuture) {
  ASSERT_TRUE(StepLane(*lane_, 100, 1).ok());
  const Capsule capsule = Capsule::Take(*lane_);
  const Model there = ReadLane(*lane_);
  ASSERT_TRUE(StepLane(*lane_, 50, 2).ok());
  const Model future = ReadLane(*lane_);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(capsule.RestoreTo(*lane_).ok());
    ASSERT_EQ(ReadLane(*lane_), there);
    ASSERT_TRUE(StepLane(*lane_, 50, 2).ok());
    ASSERT_EQ(ReadLane(*lane_), future);
  }
}

TEST_F(CapsuleTest, ForksAreIsolatedFromEachOtherAndFromTheirParent) {
  ASSERT_TRUE(StepLane(*lane_, 90, 1).ok());
  const Capsule capsule = Capsule::Take(*lane_);
  const Model there = ReadLane(*lane_);
  std::vector<std::unique_ptr<Lane>> lanes;
  std::vector<Model> models;
  for (int i = 0; i < 7; ++i) {
    lanes.push_back(*space_->NewLane());
    ASSERT_TRUE(capsule.RestoreTo(*lanes.back()).ok());
    models.push_back(there);
  }
  for (uint64_t step = 0; step < 10; ++step) {
    for (size_t i = 0; i < lanes.size(); ++i) {
      ASSERT_TRUE(StepLane(*lanes[i], 9, 100 * i + step).ok());
      StepModel(space_->layout(), models[i], 9, 100 * i + step);
    }
    for (size_t i = 0; i < lanes.size(); ++i) ASSERT_EQ(ReadLane(*lanes[i]), models[i]);
    ASSERT_EQ(ReadLane(*lane_), there);
    ASSERT_EQ(ReadCapsule(capsule), there);
  }
}

TEST_F(CapsuleTest, IdsAndParentsTellTheLine) {
  const Capsule a = Capsule::Take(*lane_);
  ASSERT_TRUE(StepLane(*lane_, 1, 1).ok());
  const Capsule b = Capsule::Take(*lane_);
  EXPECT_EQ(a.id(), 1u);
  EXPECT_EQ(a.parent(), 0u);
  EXPECT_EQ(b.parent(), a.id());
  ASSERT_TRUE(a.RestoreTo(*lane_).ok());
  EXPECT_EQ(Capsule::Take(*lane_).parent(), a.id());
  lane_->Reset();
  EXPECT_EQ(Capsule::Take(*lane_).parent(), 0u);
}

TEST_F(CapsuleTest, IsAValue) {
  ASSERT_TRUE(StepLane(*lane_, 70, 1).ok());
  const Model there = ReadLane(*lane_);
  const auto usage = space_->usage();
  {
    Capsule a = Capsule::Take(*lane_);
    Capsule b = a;
    Capsule c = std::move(a);
    EXPECT_FALSE(a.valid());  // NOLINT(bugprone-use-after-move)
    a = b;
    b = Capsule();
    a = *&a;
    EXPECT_EQ(a.id(), c.id());
    lane_->Reset();
    EXPECT_EQ(ReadCapsule(a), there);
    EXPECT_EQ(ReadCapsule(c), there);
    ASSERT_TRUE(c.RestoreTo(*lane_).ok());
  }
  EXPECT_TRUE(SameUsage(space_->usage(), usage));
}

TEST_F(CapsuleTest, OutlivesItsLaneAndItsOwnersOfTheSpace) {
  ASSERT_TRUE(StepLane(*lane_, 70, 1).ok());
  const Model there = ReadLane(*lane_);
  const Capsule capsule = Capsule::Take(*lane_);
  lane_.reset();
  space_.reset();
  EXPECT_EQ(ReadCapsule(capsule), there);
}

TEST_F(CapsuleTest, TakenWithinAStepItIsTheCommittedBoundary) {
  ASSERT_TRUE(StepLane(*lane_, 40, 1).ok());
  const Model there = ReadLane(*lane_);
  ASSERT_TRUE(lane_->Begin(200).ok());
  const Capsule capsule = Capsule::Take(*lane_);
  EXPECT_EQ(capsule.position(), 40);
  ComputeStep(*lane_, 200, 5);
  EXPECT_EQ(ReadCapsule(capsule), there);
  EXPECT_EQ(capsule.RestoreTo(*lane_).code(), StatusCode::kInvalidArgument) << "not in the middle of a step";
  lane_->Commit();
  EXPECT_EQ(ReadCapsule(capsule), there);
}

TEST_F(CapsuleTest, RefusesALaneOfAnotherSpaceAndChangesNothing) {
  auto other = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 2, .max_position = 400}, "another");
  const Capsule capsule = CapsuleAt(other, 33);
  ASSERT_TRUE(StepLane(*lane_, 40, 1).ok());
  const Model there = ReadLane(*lane_);
  const Status status = capsule.RestoreTo(*lane_);
  EXPECT_EQ(status.code(), StatusCode::kMismatch);
  EXPECT_NE(status.message().find(other->fingerprint().ShortHex()), std::string::npos);
  EXPECT_EQ(ReadLane(*lane_), there);
  EXPECT_EQ(Capsule().RestoreTo(*lane_).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadLane(*lane_), there);
  EXPECT_EQ(capsule.Read("nothing").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Capsule().Serialize().status().code(), StatusCode::kInvalidArgument);
}

TEST_F(CapsuleTest, CopiesAreDroppedOnOtherThreads) {
  ASSERT_TRUE(StepLane(*lane_, 300, 1).ok());
  const auto usage = space_->usage();
  {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([capsule = Capsule::Take(*lane_), t]() mutable {
        for (int i = 0; i < 5000; ++i) {
          Capsule copy = capsule;
          Capsule moved = std::move(copy);
          if (i % 1000 == t) {
            EXPECT_EQ(moved.Read("history")->size(), 1200u);
          }
        }
      });
    }
    for (uint64_t i = 0; i < 200; ++i) {
      ASSERT_TRUE(StepLane(*lane_, 1, i).ok());
      threads.emplace_back([capsule = Capsule::Take(*lane_)]() mutable { capsule = Capsule(); });
      if (i % 16 == 15) {
        while (threads.size() > 4) {
          threads.back().join();
          threads.pop_back();
        }
      }
    }
    for (auto& thread : threads) thread.join();
  }
  EXPECT_EQ(space_->usage().blocks[0], usage.blocks[0]);
  EXPECT_EQ(space_->usage().extents, 8);  // 500 rows
}

TEST_F(CapsuleTest, ALongHistoryIsLetGoOfWithoutRecursion) {
  auto space = NewSpace(AppendLayout(), {.lanes = 1, .capsules = 1, .max_position = 1 << 22});
  Capsule capsule;
  {
    auto lane = *space->NewLane();
    ASSERT_TRUE(lane->Begin(1 << 22).ok());
    lane->Commit();
    capsule = Capsule::Take(*lane);
  }
  EXPECT_EQ(space->usage().extents, 1 << 16);
  capsule = Capsule();
  EXPECT_EQ(space->usage().extents, 0);
}

}  // namespace
}  // namespace reprise
