// State moved between a device's memory and the host's: a device that is ordinary memory, and a second stream whose copies are as late as they may be.
#include "exec/spill.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <random>

#include "exec/lane.h"
#include "exec/state_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

// A copy happens when somebody waits for it, or when Progress says that time has passed, and no sooner.
class LateStream : public Stream {
 public:
  Status Replay(const Plan&) override { return Internal("no plans here"); }
  Status Copy(std::byte* to, const std::byte* from, size_t bytes) override {
    waiting_.push_back({to, from, bytes});
    ++given_;
    return Ok();
  }
  Event Record() override { return {this, given_}; }
  Status Wait(const Event&) override { return Ok(); }  // the steps' work is done when it is given
  Status Synchronize() override { return Ok(); }

  void Progress(size_t copies) {
    for (; copies > 0 && !waiting_.empty(); --copies) {
      std::memcpy(waiting_.front().to, waiting_.front().from, waiting_.front().bytes);
      waiting_.pop_front();
    }
  }
  void WaitedFor(uint64_t sequence) {
    const uint64_t done = given_ - waiting_.size();
    if (sequence <= done) return;
    ++stalls_;
    Progress(sequence - done);
  }
  int stalls() const { return stalls_; }

 private:
  struct Piece {
    std::byte* to;
    const std::byte* from;
    size_t bytes;
  };
  std::deque<Piece> waiting_;
  uint64_t given_ = 0;
  int stalls_ = 0;
};

class StepStream : public Stream {
 public:
  explicit StepStream(LateStream& copies) : copies_(copies) {}
  Status Replay(const Plan&) override { return Internal("no plans here"); }
  Status Copy(std::byte* to, const std::byte* from, size_t bytes) override {
    std::memcpy(to, from, bytes);
    return Ok();
  }
  Event Record() override { return {this, 0}; }
  Status Wait(const Event& event) override {
    if (event.stream == &copies_) copies_.WaitedFor(event.sequence);
    return Ok();
  }
  Status Synchronize() override { return Ok(); }

 private:
  LateStream& copies_;
};

class TwoMemories : public HostMemory {
 public:
  Stream* steps() override { return &steps_; }
  Stream* copies() override { return &late; }
  Result<std::byte*> AllocateForHost(size_t bytes, std::string_view what) override {
    REPRISE_ASSIGN_OR_RETURN(std::byte * memory, Allocate(bytes, what));
    host_.emplace_back(memory, bytes);
    return memory;
  }
  bool OnHost(const std::byte* address) const {
    return std::any_of(host_.begin(), host_.end(), [&](std::span<std::byte> part) {
      return address - part.data() < static_cast<std::ptrdiff_t>(part.size()) && address >= part.data();
    });
  }
  LateStream late;

 private:
  StepStream steps_{late};
  std::vector<std::span<std::byte>> host_;
};

class SpillTest : public testing::Test {
 protected:
  std::shared_ptr<StateSpace> Make(const StateSpaceOptions& options) {
    memory_ = std::make_shared<TwoMemories>();
    auto space = StateSpace::Create(MixedLayout(), options, TestFingerprint(), memory_);
    EXPECT_TRUE(space.ok()) << space.status().message();
    return *std::move(space);
  }
  // Where a kernel would look.
  bool OnDevice(const Lane& lane) const {
    if (memory_->OnHost(lane.read(Space::kDevice))) return false;
    for (int32_t p = 0; p < lane.position(); p += kExtentRows) {
      if (memory_->OnHost(lane.extents(Space::kDevice)[p / kExtentRows])) return false;
    }
    return true;
  }
  std::shared_ptr<TwoMemories> memory_;
};

// Lanes that step, are kept and go back at random, with far less device memory than what is kept takes.
TEST_F(SpillTest, WhatIsKeptIsTheSameWhereverItLies) {
  auto space = Make({.lanes = 2, .capsules = 1, .rows = 64 * 10, .max_position = 250, .spilled_capsules = 30, .spilled_rows = 64 * 60});
  std::vector<std::unique_ptr<Lane>> lanes;
  std::vector<Model> models;
  for (int i = 0; i < 2; ++i) {
    lanes.push_back(*space->NewLane());
    models.push_back(OriginModel(*space));
  }
  std::vector<std::pair<HeldState, Model>> kept;
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (uint64_t turn = 0; turn < 1500; ++turn) {
    const size_t at = below(2);
    Lane& lane = *lanes[at];
    const size_t what = below(10);
    if (what < 5 && lane.position() < 200) {
      const int rows = 1 + static_cast<int>(below(40));
      ASSERT_TRUE(StepLane(lane, rows, turn).ok()) << "turn " << turn;
      StepModel(space->layout(), models[at], rows, turn);
    } else if (what < 7) {
      if (kept.size() > 12) kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(below(kept.size())));
      kept.emplace_back(lane.Hold(), models[at]);
    } else if (!kept.empty() && what < 9) {
      const auto& [held, model] = kept[below(kept.size())];
      ASSERT_TRUE(lane.Adopt(held).ok()) << "turn " << turn;
      models[at] = model;
    } else if (lane.position() >= 200) {
      lane.Reset();
      models[at] = OriginModel(*space);
    }
    memory_->late.Progress(below(3));
    for (size_t i = 0; i < 2; ++i) {
      ASSERT_TRUE(OnDevice(*lanes[i])) << "turn " << turn;
      ASSERT_EQ(ReadLane(*lanes[i]), models[i]) << "turn " << turn << ", lane " << i;
    }
  }
  EXPECT_GT(space->usage().spilled, 100u);
  EXPECT_GT(space->usage().returned, 20u);
  kept.clear();
  lanes.clear();
  EXPECT_EQ(space->usage().blocks[0], 1) << "the origin";
  EXPECT_EQ(space->usage().extents, 0);
}

// Copies go on as steps do, one a step; that is soon enough for no step to wait for one.
TEST_F(SpillTest, StepsDoNotWaitForWhatLeaves) {
  auto space =
      Make({.lanes = 1, .capsules = 61, .rows = 64 * 64, .max_position = 1 << 12, .spilled_capsules = 400, .spilled_rows = 64 * 400});
  auto lane = *space->NewLane();
  std::vector<HeldState> kept;
  for (uint64_t i = 0; i < 300; ++i) {
    ASSERT_TRUE(lane->Begin(1).ok());
    lane->Commit();
    kept.push_back(lane->Hold());
    memory_->late.Progress(1);
  }
  EXPECT_GT(space->usage().spilled, 200u);
  EXPECT_EQ(memory_->late.stalls(), 0);
}

// Reading, as the disk tier does, and writing, as loading does, follow what was moved.
TEST_F(SpillTest, CopiesFindWhatHasMoved) {
  auto space = Make({.lanes = 1, .capsules = 0, .rows = 64 * 4, .max_position = 100, .spilled_capsules = 8, .spilled_rows = 64 * 8});
  auto lane = *space->NewLane();
  ASSERT_TRUE(StepLane(*lane, 70, 1).ok());
  const Model model = ReadLane(*lane);
  const HeldState held = lane->Hold();
  lane->Reset();
  ASSERT_TRUE(StepLane(*lane, 100, 2).ok());
  HeldState fresh = *space->AcquireState(70);
  HeldState further = *space->AcquireState(70);
  for (const HeldState* one : {&held, &std::as_const(fresh), &std::as_const(further)}) {
    SCOPED_TRACE(one == &held ? "held" : "acquired");
    for (int i = 0; i < static_cast<int>(space->layout().states().size()); ++i) {
      const StateDecl& state = space->layout()[i];
      const auto s = static_cast<int>(state.space);
      const auto& bytes = model.states[static_cast<size_t>(i)];
      std::vector<std::byte> seen(bytes.size());
      const auto visit = [&](std::byte* at, size_t from, size_t count) {
        if (one != &held) space->Copy(state.space, at, bytes.data() + from, count);
        space->Copy(state.space, seen.data() + from, at, count);
      };
      if (state.growth == Growth::kRecurrent) {
        visit(one->block[s]->data + state.offset, 0, state.bytes);
      } else {
        for (Extent* e = one->tip.get(); e != nullptr; e = e->previous) {
          const auto first = static_cast<size_t>(e->index) * kExtentRows;
          visit(e->data[s] + state.offset, first * state.bytes, std::min<size_t>(kExtentRows, 70 - first) * state.bytes);
        }
      }
      EXPECT_EQ(seen, bytes) << state.name;
    }
  }
  ASSERT_TRUE(lane->Adopt(further).ok());
  EXPECT_EQ(ReadLane(*lane), model);
}

TEST_F(SpillTest, WhatCannotComeBackLeavesTheLaneAsItWas) {
  auto space = Make({.lanes = 2, .capsules = 4, .rows = 64 * 4, .max_position = 256, .spilled_capsules = 8, .spilled_rows = 64 * 8});
  auto a = *space->NewLane(), b = *space->NewLane();
  ASSERT_TRUE(StepLane(*a, 192, 1).ok());
  const HeldState early = a->Hold();
  const Model model = ReadLane(*a);
  a->Reset();
  ASSERT_TRUE(StepLane(*a, 100, 2).ok());
  ASSERT_TRUE(StepLane(*b, 100, 3).ok());  // the device is full of what lanes use
  const Model before = ReadLane(*b);
  const Status status = b->Adopt(early);
  EXPECT_EQ(status.code(), StatusCode::kExhausted);
  EXPECT_NE(status.message().find("lanes use all 4 places on the device"), std::string::npos) << status.message();
  EXPECT_EQ(ReadLane(*b), before);
  a->Reset();
  ASSERT_TRUE(b->Adopt(early).ok());
  EXPECT_EQ(ReadLane(*b), model);
}

// Two histories that fill the device each change places.
TEST_F(SpillTest, WhatALaneLeavesMakesRoomForWhatItGoesTo) {
  auto space = Make({.lanes = 1, .capsules = 4, .rows = 64 * 4, .max_position = 256, .spilled_capsules = 8, .spilled_rows = 64 * 8});
  auto lane = *space->NewLane();
  HeldState held[2];
  Model models[2];
  for (size_t i = 0; i < 2; ++i) {
    lane->Reset();
    ASSERT_TRUE(StepLane(*lane, 250, i).ok());
    held[i] = lane->Hold();
    models[i] = ReadLane(*lane);
  }
  for (size_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(lane->Adopt(held[i % 2]).ok());
    EXPECT_EQ(ReadLane(*lane), models[i % 2]);
  }
  EXPECT_GE(space->usage().returned, 20u);
}

TEST_F(SpillTest, WhenBothAreFullTheEvictorIsAskedAndTheErrorSaysWhere) {
  auto space = Make({.lanes = 1, .capsules = 1, .rows = 64 * 16, .max_position = 1000, .spilled_capsules = 3, .spilled_rows = 64 * 4});
  auto lane = *space->NewLane();
  std::deque<HeldState> kept;
  Status status;
  while (status.ok()) {
    status = StepLane(*lane, 1, 1);
    kept.push_back(lane->Hold());
  }
  EXPECT_EQ(status.message(),
            "all 7 state blocks are held (4 on the device, 3 moved to the host); drop a capsule, or ask for more capsules when loading");
  space->SetEvictor([&] {
    if (kept.empty()) return false;
    kept.pop_front();
    return true;
  });
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(StepLane(*lane, 1, 2).ok());
    kept.push_back(lane->Hold());
  }
  space->SetEvictor(nullptr);
}

// Memory that the host reads has no second stream, and nothing to gain.
TEST_F(SpillTest, OrdinaryMemoryKeepsItsState) {
  auto space =
      NewSpace(MixedLayout(), {.lanes = 1, .capsules = 2, .rows = 64 * 4, .max_position = 100, .spilled_capsules = 8, .spilled_rows = 640});
  EXPECT_EQ(space->usage().spilled_block_limit, 0);
  EXPECT_EQ(space->usage().block_limit, 5);
}

}  // namespace
}  // namespace reprise
