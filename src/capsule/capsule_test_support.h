// For tests alone: capsules beside the models of what they hold.
#pragma once

#include "exec/state_test_support.h"
#include "reprise/capsule.h"

namespace reprise::testing_support {

inline Model ReadCapsule(const Capsule& capsule) {
  Model model;
  model.position = static_cast<int32_t>(capsule.position());
  for (const StateDecl& state : capsule.layout().states()) {
    auto bytes = capsule.Read(state.name);
    EXPECT_TRUE(bytes.ok()) << bytes.status().message();
    model.states.push_back(*std::move(bytes));
  }
  return model;
}

// A capsule at `position`, and its lane, which goes away.
inline Capsule CapsuleAt(const std::shared_ptr<StateSpace>& space, int position, uint64_t seed = 1, Model* model = nullptr) {
  auto lane = space->NewLane();
  EXPECT_TRUE(lane.ok()) << lane.status().message();
  if (position > 0) {
    const Status status = StepLane(**lane, position, seed);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  if (model != nullptr) {
    *model = OriginModel(*space);
    StepModel(space->layout(), *model, position, seed);
  }
  return Capsule::Take(**lane);
}

}  // namespace reprise::testing_support
