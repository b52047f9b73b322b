// CheckedCapsule: bytes that were proven to be a capsule of one state space, before any memory of it is taken.
//
// Thread-safety: a value that may be used on any thread, but for CopyTo where it says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "exec/state_space.h"
#include "reprise/capsule.h"
#include "reprise/status.h"

namespace reprise {

class CheckedCapsule {
 public:
  // Verifies all of `bytes`, which stay as they are for as long as this is used. Errors: DeserializeCapsule's, but for memory.
  static Result<CheckedCapsule> Of(std::span<const std::byte> bytes, std::shared_ptr<StateSpace> space);

  const std::shared_ptr<StateSpace>& space() const { return space_; }
  int32_t position() const { return position_; }
  const std::string& metadata() const { return metadata_; }
  // Of a state, by its index in the space's layout: the whole of a recurrent one, position() rows of an append-only one.
  std::span<const std::byte> payload(int state) const { return payloads_[static_cast<size_t>(state)]; }
  // All recurrent states of `space` as a state block holds them.
  std::vector<std::byte> Block(Space space) const;

  // Writes every state to `held`, which is of this position and nobody else's, and returns when it is there. Where the memory is not ordinary
  // (DeviceMemory), on the thread of the steps.
  void CopyTo(const HeldState& held) const;

 private:
  CheckedCapsule() = default;

  std::shared_ptr<StateSpace> space_;
  int32_t position_ = 0;
  std::string metadata_;
  std::vector<std::span<const std::byte>> payloads_;
};

}  // namespace reprise
