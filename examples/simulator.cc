// A toy world and the policy that acts in it: what a robot or a game gets from Reprise, without a language model.
//
// The policy looks ahead: at a decision it takes a capsule, forks it into one future for each action, plays them out, and goes on with the
// best. The capsule is taken in microseconds, and a future never shows in another.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "reprise/execution.h"

using reprise::ElementType;
using reprise::Execution;
using reprise::Space;
using reprise::StepView;

namespace {

constexpr float kActions[] = {-1.0f, 0.0f, 1.0f};

// Everything that a step reads and writes, by name resolved once.
struct Names {
  reprise::RecurrentState<float> world;    // position, velocity
  reprise::RecurrentState<int64_t> noise;  // the generator of the wind
  reprise::RowState<float> trace;          // position and action at each step
  reprise::Input<float> goal;
};

// One tick: the action, the wind, the physics; the trace remembers it.
void Tick(StepView& step, const Names& names, float action) {
  const auto before = step.Read(names.world);
  const uint64_t seed = static_cast<uint64_t>(step.Read(names.noise)[0]) * 6364136223846793005u + 1442695040888963407u;
  const float wind = static_cast<float>(seed >> 40) / static_cast<float>(1 << 24) - 0.5f;
  const float velocity = 0.95f * before[1] + 0.1f * action + 0.02f * wind;
  const auto after = step.Write(names.world);
  after[0] = before[0] + 0.1f * velocity;
  after[1] = velocity;
  step.Write(names.noise)[0] = static_cast<int64_t>(seed);
  const auto row = step.Row(names.trace, 0);
  row[0] = after[0];
  row[1] = action;
}

int Fail(const reprise::Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}

}  // namespace

int main() {
  reprise::StateLayout layout;
  layout.Recurrent("world", ElementType::kF32, {2});
  layout.Recurrent("noise", ElementType::kI64, {1}, Space::kHost);
  layout.Append("trace", ElementType::kF32, {2});
  auto simulator = Execution::Create(layout, {.lanes = 4, .capsules = 32, .rows = 64 * 64, .max_position = 4096}, "toy-simulator 1");
  if (!simulator.ok()) return Fail(simulator.status());
  if (auto status = simulator->AddInput({.name = "goal", .type = ElementType::kF32, .shape = {1}}); !status.ok()) return Fail(status);

  const auto world = simulator->FindRecurrent<float>("world");
  const auto noise = simulator->FindRecurrent<int64_t>("noise");
  const auto trace = simulator->FindRows<float>("trace");
  const auto goal = simulator->FindInput<float>("goal");
  if (!world.ok() || !noise.ok() || !trace.ok() || !goal.ok()) return 1;
  const Names names{*world, *noise, *trace, *goal};
  const float wanted[] = {1.0f};
  if (auto status = simulator->Write(names.goal, std::as_bytes(std::span(wanted))); !status.ok()) return Fail(status);

  auto lane = simulator->NewLane();
  if (!lane.ok()) return Fail(lane.status());
  for (int decision = 0; decision < 12; ++decision) {
    const reprise::Capsule here = lane->Snapshot();
    auto futures = simulator->Fork(here, static_cast<int>(std::size(kActions)));
    if (!futures.ok()) return Fail(futures.status());
    size_t best = 0;
    float least = INFINITY;
    for (size_t i = 0; i < futures->size(); ++i) {
      float distance = 0;
      for (int tick = 0; tick < 20; ++tick) {
        const auto status = (*futures)[i].Step(1, [&](StepView& step) {
          Tick(step, names, kActions[i]);
          distance = std::fabs(step.Update(names.world)[0] - step.Read(names.goal)[0]);
        });
        if (!status.ok()) return Fail(status);
      }
      if (distance < least) {
        least = distance;
        best = i;
      }
    }
    // The future that was best becomes the present.
    if (auto status = lane->Restore((*futures)[best].Snapshot()); !status.ok()) return Fail(status);
    std::printf("tick %4lld  action %+.0f  position %.3f\n", static_cast<long long>(lane->position()), static_cast<double>(kActions[best]),
                static_cast<double>(lane->Read(names.world)[0]));
  }
  return 0;
}
