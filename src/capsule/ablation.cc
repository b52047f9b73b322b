#include "capsule/ablation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "exec/state_space.h"

namespace reprise {

Result<Capsule> WithoutStates(const Capsule& capsule, std::span<const std::string> names) {
  if (!capsule.valid()) return InvalidArgument("an empty capsule was given to leave states out of");
  const StateLayout& layout = capsule.layout();
  for (const std::string& name : names) {
    if (layout.Find(name) < 0) return NotFound("this capsule holds no state named '" + name + "'");
  }
  StateSpace& space = *capsule.space();
  const HeldState from = capsule.Hold();
  const HeldState origin = space.Origin();
  REPRISE_ASSIGN_OR_RETURN(HeldState to, space.AcquireState(from.position));
  std::vector<std::byte> zeros;  // alive until the copies from it have happened
  for (const StateDecl& state : layout.states()) {
    if (state.growth == Growth::kAppend) zeros.resize(std::max(zeros.size(), state.bytes * kExtentRows));
  }
  for (const StateDecl& state : layout.states()) {
    const bool left_out = std::find(names.begin(), names.end(), state.name) != names.end();
    const int s = static_cast<int>(state.space);
    if (state.growth == Growth::kRecurrent) {
      const HeldState& source = left_out ? origin : from;
      space.Copy(state.space, to.block[s]->data + state.offset, source.block[s]->data + state.offset, state.bytes);
      continue;
    }
    const Extent* old = from.tip.get();
    for (const Extent* own = to.tip.get(); own != nullptr; own = own->previous, old = old->previous) {
      const auto rows = static_cast<size_t>(std::min<int32_t>(kExtentRows, from.position - own->index * kExtentRows));
      space.Copy(state.space, own->data[s] + state.offset, left_out ? zeros.data() : old->data[s] + state.offset, rows * state.bytes);
    }
  }
  space.memory().Synchronize();
  return Capsule::FromHeld(capsule.space(), std::move(to), capsule.id());
}

Result<Capsule> RowsOnly(const Capsule& capsule) {
  if (!capsule.valid()) return InvalidArgument("an empty capsule was given to leave states out of");
  std::vector<std::string> names;
  for (const StateDecl& state : capsule.layout().states()) {
    if (state.growth == Growth::kRecurrent && state.space == Space::kDevice) names.push_back(state.name);
  }
  return WithoutStates(capsule, names);
}

}  // namespace reprise
