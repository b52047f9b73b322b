#include "reprise/execution.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <thread>

#include "exec/lane.h"

namespace reprise {
namespace {

constexpr size_t kHidden = 16;
constexpr size_t kFeatures = 4;
constexpr float kOne[] = {1.0f};

// A robot in small: a recurrent policy with (h, c), a simulated world with its own integrator and noise, a trace of what was done, and a
// camera whose image is normalised on its way in. The arithmetic is arbitrary but mixes everything.
class RobotTest : public ::testing::Test {
 protected:
  static StateLayout Layout() {
    StateLayout layout;
    layout.Recurrent("policy.h", ElementType::kF32, {kHidden});
    layout.Recurrent("policy.c", ElementType::kF32, {kHidden});
    layout.Recurrent("world.state", ElementType::kF32, {2, 3});
    layout.Recurrent("world.noise", ElementType::kI64, {}, Space::kHost);
    layout.Recurrent("untouched", ElementType::kBytes, {9});
    layout.Append("actions", ElementType::kF32, {2});
    layout.Append("ticks", ElementType::kI32, {}, Space::kHost);
    return layout;
  }

  void SetUp() override { Open({.lanes = 10, .capsules = 64, .rows = 64 * 100, .max_position = 1000}, "robot 1"); }

  void Open(const ExecutionOptions& options, std::string_view identity) {
    auto created = Execution::Create(Layout(), options, identity);
    ASSERT_TRUE(created.ok()) << created.status().message();
    robot_.emplace(*std::move(created));
    const PortTransform normalise = [](std::span<const std::byte> from, std::span<std::byte> to) {
      for (size_t i = 0; i < from.size(); ++i) {
        const float value = static_cast<float>(from[i]) / 255.0f;
        std::memcpy(to.data() + i * sizeof(float), &value, sizeof(float));
      }
      return Ok();
    };
    ASSERT_TRUE(robot_->AddInput({"camera", ElementType::kF32, {kFeatures}, PortKind::kStaged, kFeatures, normalise}).ok());
    ASSERT_TRUE(robot_->AddInput({.name = "command", .type = ElementType::kF32, .shape = {1}}).ok());
    ASSERT_TRUE(robot_->AddInput({.name = "gain", .type = ElementType::kF32, .shape = {1}, .kind = PortKind::kSetup}).ok());
    h_ = *robot_->FindRecurrent<float>("policy.h");
    c_ = *robot_->FindRecurrent<float>("policy.c");
    world_ = *robot_->FindRecurrent<float>("world.state");
    noise_ = *robot_->FindRecurrent<int64_t>("world.noise");
    untouched_ = *robot_->FindRecurrent<std::byte>("untouched");
    actions_ = *robot_->FindRows<float>("actions");
    ticks_ = *robot_->FindRows<int32_t>("ticks");
    camera_ = *robot_->FindInput<float>("camera");
    command_ = *robot_->FindInput<float>("command");
    gain_ = *robot_->FindInput<float>("gain");
    std::vector<float> start(6);
    std::iota(start.begin(), start.end(), 1.0f);
    ASSERT_TRUE(robot_->SetOrigin(world_, start).ok());
    ASSERT_TRUE(robot_->SetOrigin(untouched_, std::as_bytes(std::span("unchanged", 9))).ok());
    ASSERT_TRUE(robot_->Write("gain", std::as_bytes(std::span(kOne))).ok());
    Look(7);
  }

  void Look(uint8_t at) {
    const uint8_t image[kFeatures] = {at, static_cast<uint8_t>(at * 3), static_cast<uint8_t>(at * 5), 255};
    ASSERT_TRUE(robot_->Write(camera_, std::as_bytes(std::span(image))).ok());
  }

  ExecutionLane NewLane() {
    auto lane = robot_->NewLane();
    EXPECT_TRUE(lane.ok()) << lane.status().message();
    return *std::move(lane);
  }

  // `rows` ticks in one step: the policy acts on the camera and its memory, and the world answers.
  void Tick(StepView& step, float push) {
    auto h = step.Update(h_);
    auto c = step.Update(c_);
    auto world = step.Write(world_);
    const auto before = step.Read(world_);
    std::copy(before.begin(), before.end(), world.begin());
    auto noise = step.Update(noise_);
    const auto camera = step.Read(camera_);
    for (int row = 0; row < step.rows(); ++row) {
      float past = 0;
      for (int64_t p = 0; p < step.position() + row; ++p) past = 0.9f * past + step.History(actions_, p)[1];
      noise[0] = static_cast<int64_t>(static_cast<uint64_t>(noise[0]) * 6364136223846793005u + 1442695040888963407u);
      const float wind = static_cast<float>((noise[0] >> 33) & 0xffff) / 65536.0f;
      for (size_t i = 0; i < kHidden; ++i) {
        const float x = camera[i % kFeatures] + world[i % 6] * step.Read(gain_)[0] + past * 0.1f + h[(i + 1) % kHidden];
        const float gate = 1.0f / (1.0f + std::exp(-x));
        c[i] = gate * c[i] + (1.0f - gate) * std::tanh(x * 0.5f + push);
        h[i] = gate * std::tanh(c[i]);
      }
      for (size_t i = 0; i < 6; ++i) world[i] = 0.97f * world[i] + 0.1f * h[i] + 0.01f * wind + 0.01f * step.Read(command_)[0];
      auto action = step.Row(actions_, row);
      action[0] = h[0];
      action[1] = world[0] + wind;
      step.Row(ticks_, row)[0] = static_cast<int32_t>(step.position()) + row;
    }
  }

  Status Run(ExecutionLane& lane, int rows, float push = 0) {
    return lane.Step(rows, [&](StepView& step) { Tick(step, push); });
  }

  // Every byte of the lane.
  std::vector<std::byte> Everything(const ExecutionLane& lane) const {
    std::vector<std::byte> all;
    const auto add = [&](auto values) {
      const auto bytes = std::as_bytes(values);
      all.insert(all.end(), bytes.begin(), bytes.end());
    };
    add(lane.Read(h_));
    add(lane.Read(c_));
    add(lane.Read(world_));
    add(lane.Read(noise_));
    add(lane.Read(untouched_));
    for (int64_t p = 0; p < lane.position(); ++p) {
      add(lane.Row(actions_, p));
      add(lane.Row(ticks_, p));
    }
    return all;
  }

  std::optional<Execution> robot_;
  RecurrentState<float> h_, c_, world_;
  RecurrentState<int64_t> noise_;
  RecurrentState<std::byte> untouched_;
  RowState<float> actions_;
  RowState<int32_t> ticks_;
  Input<float> camera_, command_, gain_;
};

TEST_F(RobotTest, RestoreForkAndRollbackAreExact) {
  ExecutionLane lane = NewLane();
  std::vector<Capsule> capsules;
  std::vector<std::vector<std::byte>> states;
  for (int i = 0; i < 30; ++i) {
    capsules.push_back(lane.Snapshot());
    states.push_back(Everything(lane));
    ASSERT_TRUE(Run(lane, 1 + i % 9).ok());
  }
  const auto end = Everything(lane);
  EXPECT_EQ(std::memcmp(lane.Read(untouched_).data(), "unchanged", 9), 0);

  // Rollback to any of them, and the same future again, bit for bit.
  for (const size_t at : {size_t{29}, size_t{12}, size_t{0}, size_t{20}}) {
    ASSERT_TRUE(lane.Restore(capsules[at]).ok());
    ASSERT_EQ(lane.position(), capsules[at].position());
    ASSERT_EQ(Everything(lane), states[at]);
    for (int i = static_cast<int>(at); i < 30; ++i) ASSERT_TRUE(Run(lane, 1 + i % 9).ok());
    ASSERT_EQ(Everything(lane), end);
  }

  // Forks differ from the first differing push on, and never show in one another.
  auto futures = robot_->Fork(capsules[20], 8);
  ASSERT_TRUE(futures.ok()) << futures.status().message();
  std::vector<std::vector<std::byte>> alone;
  for (size_t f = 0; f < 8; ++f) {
    ASSERT_TRUE(lane.Restore(capsules[20]).ok());
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(Run(lane, 7, 0.1f * static_cast<float>(f)).ok());
    alone.push_back(Everything(lane));
  }
  for (int i = 0; i < 10; ++i) {
    for (size_t f = 0; f < 8; ++f) ASSERT_TRUE(Run((*futures)[f], 7, 0.1f * static_cast<float>(f)).ok());
  }
  for (size_t f = 0; f < 8; ++f) {
    EXPECT_EQ(Everything((*futures)[f]), alone[f]);
    if (f > 0) {
      EXPECT_NE(alone[f], alone[0]);
    }
  }
  for (size_t i = 0; i < capsules.size(); ++i) {
    ASSERT_TRUE(lane.Restore(capsules[i]).ok());
    ASSERT_EQ(Everything(lane), states[i]);
  }
}

TEST_F(RobotTest, HowTicksAreCutIntoStepsDoesNotMatter) {
  ExecutionLane one = NewLane();
  ExecutionLane other = NewLane();
  ASSERT_TRUE(Run(one, 150).ok());
  for (int i = 0; i < 150; ++i) ASSERT_TRUE(Run(other, 1).ok());
  EXPECT_EQ(Everything(one), Everything(other));
}

TEST_F(RobotTest, MovesToAnotherProcessAsBytes) {
  ExecutionLane lane = NewLane();
  ASSERT_TRUE(Run(lane, 100).ok());
  const auto bytes = lane.Snapshot().Serialize("after a hundred ticks");
  ASSERT_TRUE(bytes.ok());
  ASSERT_TRUE(Run(lane, 30).ok());
  const auto end = Everything(lane);

  Open({.lanes = 1, .capsules = 2, .max_position = 200}, "robot 1");  // another size, the same identity
  std::string metadata;
  auto capsule = robot_->Deserialize(*bytes, &metadata);
  ASSERT_TRUE(capsule.ok()) << capsule.status().message();
  EXPECT_EQ(metadata, "after a hundred ticks");
  ExecutionLane there = NewLane();
  ASSERT_TRUE(there.Restore(*capsule).ok());
  ASSERT_TRUE(Run(there, 30).ok());
  EXPECT_EQ(Everything(there), end);

  Open({.lanes = 1, .capsules = 2, .max_position = 200}, "robot 2");
  EXPECT_EQ(robot_->Deserialize(*bytes).status().code(), StatusCode::kMismatch);
  ExecutionLane newer = NewLane();
  const auto before = Everything(newer);
  EXPECT_EQ(newer.Restore(*capsule).code(), StatusCode::kMismatch);
  EXPECT_EQ(Everything(newer), before);
}

TEST_F(RobotTest, AStepThatFailsIsUndone) {
  ExecutionLane lane = NewLane();
  ASSERT_TRUE(Run(lane, 70).ok());
  const auto before = Everything(lane);
  const size_t bytes = robot_->bytes_in_use();
  const auto expect_unchanged = [&] {
    EXPECT_EQ(Everything(lane), before);
    EXPECT_EQ(lane.position(), 70);
    EXPECT_EQ(robot_->bytes_in_use(), bytes);
  };
  Status status = lane.Step(5, [&](StepView& step) -> Status {
    Tick(step, 1);
    return Cancelled("the emergency stop was pressed");
  });
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  expect_unchanged();
  EXPECT_THROW((void)lane.Step(5,
                               [&](StepView& step) -> Status {
                                 Tick(step, 1);
                                 throw std::runtime_error("from the caller's own code");
                               }),
               std::runtime_error);
  expect_unchanged();

  const auto misused = [&](int rows, auto fn, const char* word) {
    const Status refused = lane.Step(rows, fn);
    EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(refused.message().find(word), std::string::npos) << refused.message();
    expect_unchanged();
  };
  misused(
      1, [&](StepView& step) { EXPECT_TRUE(step.Write(RecurrentState<float>{}).empty()); }, "wrote a recurrent state");
  misused(
      1, [&](StepView& step) { EXPECT_TRUE(step.Update(RecurrentState<float>{99}).empty()); }, "wrote a recurrent state");
  misused(
      1, [&](StepView& step) { EXPECT_TRUE(step.Read(RecurrentState<float>{actions_.index}).empty()); }, "read a recurrent state");
  misused(
      1, [&](StepView& step) { EXPECT_TRUE(step.Row(actions_, 1).empty()); }, "not of this step");
  misused(
      1, [&](StepView& step) { EXPECT_TRUE(step.Row(actions_, -1).empty()); }, "not of this step");
  misused(
      1, [&](StepView& step) { EXPECT_TRUE(step.History(actions_, 71).empty()); }, "history");
  misused(
      1, [&](StepView& step) { EXPECT_TRUE(step.History(actions_, -1).empty()); }, "history");
  misused(
      1, [&](StepView& step) { EXPECT_TRUE(step.Read(Input<float>{3}).empty()); }, "input");
  misused(
      0, [&](StepView& step) { EXPECT_TRUE(step.Write(h_).empty()); }, "device state");
  misused(
      0, [&](StepView& step) { EXPECT_TRUE(step.Row(ticks_, 0).empty()); }, "not of this step");
  misused(
      -1, [&](StepView&) { FAIL(); }, "-1");
  EXPECT_EQ(lane.Step(1000, [](StepView&) { FAIL(); }).code(), StatusCode::kExhausted);
  expect_unchanged();

  Capsule within;
  ASSERT_TRUE(lane.Step(1,
                        [&](StepView& step) {
                          Tick(step, 0);
                          within = lane.Snapshot();
                          EXPECT_EQ(lane.Step(1, [](StepView&) {}).code(), StatusCode::kInvalidArgument);
                          EXPECT_EQ(lane.Restore(within).code(), StatusCode::kInvalidArgument);
                          EXPECT_EQ(lane.Reset().code(), StatusCode::kInvalidArgument);
                        })
                  .ok());
  ASSERT_TRUE(lane.Restore(within).ok());
  EXPECT_EQ(Everything(lane), before) << "a snapshot within a step is of the boundary before it";
}

TEST_F(RobotTest, WhatAStepDoesNotWriteStaysAndForgottenRowsAreZero) {
  ExecutionLane lane = NewLane();
  ASSERT_TRUE(Run(lane, 10).ok());
  ASSERT_TRUE(lane.Reset().ok());
  ASSERT_TRUE(Run(lane, 3).ok());  // the memory of the rows from 3 on holds what the first run left
  const std::vector<float> h(lane.Read(h_).begin(), lane.Read(h_).end());
  ASSERT_TRUE(lane.Step(2, [&](StepView& step) { step.Update(c_)[0] = 42; }).ok());
  EXPECT_EQ(lane.position(), 5);
  EXPECT_TRUE(std::equal(h.begin(), h.end(), lane.Read(h_).begin()));
  EXPECT_EQ(lane.Read(c_)[0], 42);
  EXPECT_EQ(lane.Row(actions_, 4)[1], 0.0f);
  EXPECT_EQ(lane.Row(ticks_, 3)[0], 0);
  EXPECT_NE(lane.Row(actions_, 2)[1], 0.0f);
  EXPECT_TRUE(lane.Row(actions_, 5).empty());
  ASSERT_TRUE(lane.Step(0, [&](StepView& step) { step.Write(noise_)[0] = 5; }).ok());
  EXPECT_EQ(lane.Read(noise_)[0], 5);
  EXPECT_EQ(lane.position(), 5);
}

TEST_F(RobotTest, InputsAreReadByEveryLaneAndAreNotState) {
  ExecutionLane a = NewLane();
  ExecutionLane b = NewLane();
  const Capsule start = a.Snapshot();
  Look(100);
  ASSERT_TRUE(Run(a, 5).ok());
  ASSERT_TRUE(Run(b, 5).ok());
  EXPECT_EQ(Everything(a), Everything(b));
  Look(101);
  ASSERT_TRUE(b.Restore(start).ok());
  ASSERT_TRUE(Run(b, 5).ok());
  EXPECT_NE(Everything(a), Everything(b)) << "the restore left the camera as it was";
  Look(100);
  ASSERT_TRUE(b.Restore(start).ok());
  ASSERT_TRUE(Run(b, 5).ok());
  EXPECT_EQ(Everything(a), Everything(b));

  EXPECT_EQ(robot_->Write("gain", std::as_bytes(std::span(kOne))).code(), StatusCode::kInvalidArgument) << "sealed by the first step";
  EXPECT_TRUE(robot_->Write("command", std::as_bytes(std::span(kOne))).ok());
  EXPECT_EQ(robot_->Write("command", {}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->Write("nothing", {}).code(), StatusCode::kNotFound);
  EXPECT_EQ(robot_->Write(Input<float>{}, {}).code(), StatusCode::kInvalidArgument);
}

TEST_F(RobotTest, SealingByHand) {
  EXPECT_TRUE(robot_->Write("gain", std::as_bytes(std::span(kOne))).ok());
  robot_->Seal();
  EXPECT_EQ(robot_->Write("gain", std::as_bytes(std::span(kOne))).code(), StatusCode::kInvalidArgument);
}

TEST_F(RobotTest, NamesAreResolvedWithTheirTypes) {
  EXPECT_EQ(robot_->FindRecurrent<float>("policy.x").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(robot_->FindRecurrent<int32_t>("policy.h").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->FindRecurrent<double>("policy.h").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->FindRecurrent<float>("actions").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->FindRows<float>("policy.h").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->FindInput<uint8_t>("camera").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->FindInput<float>("lidar").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(robot_->FindRecurrent<std::byte>("policy.h").ok());
}

TEST_F(RobotTest, TheOriginAndTheInputsAreFixedByTheFirstLane) {
  EXPECT_EQ(robot_->SetOrigin(h_, std::vector<float>(3)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->SetOrigin(RecurrentState<float>{}, std::vector<float>(3)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->AddInput({.name = "camera", .shape = {1}}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->AddInput({.name = "two words", .shape = {1}}).code(), StatusCode::kInvalidArgument);
  ExecutionLane lane = NewLane();
  EXPECT_EQ(lane.Read(world_)[5], 6.0f);
  EXPECT_EQ(robot_->SetOrigin(h_, std::vector<float>(kHidden)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->AddInput({.name = "late", .shape = {1}}).code(), StatusCode::kInvalidArgument);
}

TEST_F(RobotTest, ForkIsAllOrNothing) {
  ExecutionLane lane = NewLane();
  ASSERT_TRUE(Run(lane, 3).ok());
  const Capsule capsule = lane.Snapshot();
  EXPECT_EQ(robot_->Fork(capsule, 10).status().code(), StatusCode::kExhausted);
  EXPECT_EQ(robot_->Fork(capsule, -1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(robot_->Fork(Capsule(), 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(robot_->Fork(capsule, 0)->empty());
  EXPECT_EQ(robot_->Fork(capsule, 9)->size(), 9u) << "the refused forks left no lane behind";
}

TEST_F(RobotTest, HandlesKeepWhatTheyNeedAlive) {
  ExecutionLane lane = NewLane();
  ASSERT_TRUE(Run(lane, 3).ok());
  Capsule capsule = lane.Snapshot();
  robot_.reset();
  ASSERT_TRUE(Run(lane, 3).ok());
  ExecutionLane moved = std::move(lane);
  ASSERT_TRUE(moved.Restore(capsule).ok());
  moved = ExecutionLane(std::move(moved));
  EXPECT_EQ(moved.position(), 3);
}

TEST_F(RobotTest, TheEvictorMakesRoom) {
  Open({.lanes = 1, .capsules = 3, .max_position = 900}, "robot 1");
  std::vector<Capsule> kept;
  robot_->SetEvictor([&] {
    if (kept.empty()) return false;
    kept.erase(kept.begin());
    return true;
  });
  {
    ExecutionLane lane = NewLane();
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(Run(lane, 1).ok());
      kept.push_back(lane.Snapshot());
    }
  }
  EXPECT_EQ(kept.size(), 5u);
  robot_->SetEvictor(nullptr);
}

TEST_F(RobotTest, LanesStepOnThreadsOfTheirOwn) {
  ExecutionLane lane = NewLane();
  ASSERT_TRUE(Run(lane, 100).ok());
  const Capsule capsule = lane.Snapshot();
  auto lanes = robot_->Fork(capsule, 4);
  ASSERT_TRUE(lanes.ok());
  std::vector<std::thread> threads;
  for (ExecutionLane& one : *lanes) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        if (i % 10 == 9) {
          ASSERT_TRUE(one.Restore(capsule).ok());
        }
        ASSERT_TRUE(Run(one, 3).ok());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (size_t i = 1; i < lanes->size(); ++i) EXPECT_EQ(Everything((*lanes)[i]), Everything((*lanes)[0]));
}

TEST(ExecutionTest, RefusesWhatCannotBe) {
  EXPECT_EQ(Execution::Create({}, {}, "").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Execution::Create({}, {.lanes = 0}, "a 1").status().code(), StatusCode::kInvalidArgument);
  StateLayout layout;
  layout.Recurrent("s", ElementType::kF32, {-1});
  EXPECT_EQ(Execution::Create(layout, {}, "a 1").status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(Execution::Create({}, {}, "a 1")->fingerprint(), Execution::Create({}, {}, "a 2")->fingerprint());
}

}  // namespace
}  // namespace reprise
