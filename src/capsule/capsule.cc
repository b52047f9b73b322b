#include "reprise/capsule.h"

#include <algorithm>
#include <utility>

#include "exec/lane.h"
#include "exec/state_space.h"

namespace reprise {

Capsule::Capsule(const Capsule& other)
    : space_(other.space_), tip_(other.tip_), position_(other.position_), id_(other.id_), parent_(other.parent_) {
  for (int s = 0; s < kSpaces; ++s) {
    block_[s] = other.block_[s];
    if (block_[s] != nullptr) reprise::Hold(block_[s]);
  }
  if (tip_ != nullptr) reprise::Hold(tip_);
}

Capsule::Capsule(Capsule&& other) noexcept
    : space_(std::move(other.space_)),
      tip_(std::exchange(other.tip_, nullptr)),
      position_(other.position_),
      id_(other.id_),
      parent_(other.parent_) {
  for (int s = 0; s < kSpaces; ++s) block_[s] = std::exchange(other.block_[s], nullptr);
}

Capsule& Capsule::operator=(Capsule other) noexcept {
  std::swap(space_, other.space_);
  std::swap(block_, other.block_);
  std::swap(tip_, other.tip_);
  std::swap(position_, other.position_);
  std::swap(id_, other.id_);
  std::swap(parent_, other.parent_);
  return *this;
}

Capsule::~Capsule() {
  // Before space_ goes: the pools take these back.
  for (StateBlock* block : block_) {
    if (block != nullptr) Release(block);
  }
  if (tip_ != nullptr) Release(tip_);
}

const StateLayout& Capsule::layout() const { return space_->layout(); }
const Fingerprint& Capsule::fingerprint() const { return space_->fingerprint(); }
size_t Capsule::recurrent_bytes() const { return layout().recurrent_bytes(); }
size_t Capsule::row_bytes() const { return layout().row_bytes() * static_cast<size_t>(position_); }

Capsule Capsule::FromHeld(std::shared_ptr<StateSpace> space, HeldState held, uint64_t parent) {
  Capsule capsule;
  capsule.id_ = space->NextCapsuleId();
  capsule.parent_ = parent;
  capsule.space_ = std::move(space);
  for (int s = 0; s < kSpaces; ++s) capsule.block_[s] = held.block[s].Detach();
  capsule.tip_ = held.tip.Detach();
  capsule.position_ = held.position;
  return capsule;
}

HeldState Capsule::Hold() const {
  HeldState held;
  for (int s = 0; s < kSpaces; ++s) held.block[s] = Ref<StateBlock>::To(block_[s]);
  held.tip = Ref<Extent>::To(tip_);
  held.position = position_;
  return held;
}

Capsule Capsule::Take(Lane& lane) {
  Capsule capsule = FromHeld(lane.space().shared_from_this(), lane.Hold(), lane.parent_capsule);
  lane.parent_capsule = capsule.id_;
  return capsule;
}

Status Capsule::RestoreTo(Lane& lane) const {
  if (!valid()) return InvalidArgument("an empty capsule was given to restore");
  if (&lane.space() != space_.get()) {
    return Mismatch("capsule " + std::to_string(id_) + " belongs to another loaded model (fingerprint " + fingerprint().ShortHex() +
                    ", here " + lane.space().fingerprint().ShortHex() + "); move it as bytes instead");
  }
  if (lane.in_step()) return InvalidArgument("a lane cannot be restored in the middle of a step");
  REPRISE_RETURN_IF_ERROR(lane.Adopt(Hold()));
  lane.parent_capsule = id_;
  return Ok();
}

Result<std::vector<std::byte>> Capsule::Read(std::string_view name) const {
  const int index = layout().Find(name);
  if (index < 0) return NotFound("this capsule holds no state named '" + std::string(name) + "'");
  const StateDecl& state = layout()[index];
  std::vector<std::byte> bytes(StateBytes(state));
  CopyOut(state, bytes.data());
  space_->memory().Synchronize();
  return bytes;
}

size_t Capsule::StateBytes(const StateDecl& state) const {
  return state.growth == Growth::kAppend ? state.bytes * static_cast<size_t>(position_) : state.bytes;
}

void Capsule::CopyOut(const StateDecl& state, std::byte* to) const {
  const int space = static_cast<int>(state.space);
  if (state.growth == Growth::kRecurrent) {
    space_->Copy(state.space, to, block_[space]->data + state.offset, state.bytes);
    return;
  }
  for (const Extent* extent = tip_; extent != nullptr; extent = extent->previous) {
    const int64_t first = int64_t{extent->index} * kExtentRows;
    const int64_t rows = std::min<int64_t>(kExtentRows, position_ - first);
    space_->Copy(state.space, to + static_cast<size_t>(first) * state.bytes, extent->data[space] + state.offset,
                 static_cast<size_t>(rows) * state.bytes);
  }
}

}  // namespace reprise
