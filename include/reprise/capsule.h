// Capsule: an immutable snapshot of everything that one execution remembers, at a committed boundary.
//
// Taking a capsule copies nothing. It takes a reference to the recurrent state block and one to the last extent of append-only rows; the
// execution it was taken from goes on by writing a fresh block and by appending past the rows that the capsule can see. Taking, copying,
// restoring and dropping a capsule therefore cost a few microseconds or less, at any length of history, and allocate nothing.
//
// What holds for every capsule:
//   - It is complete. All state is declared in one StateLayout, and a capsule holds the whole of it.
//   - It never changes, whatever its execution, its siblings or its parent do next.
//   - Restoring it gives back every byte, so what follows equals what would have followed without the interruption.
//   - It keeps its memory in the pools of its state space for as long as a copy of it lives. When the pools are full a step fails with
//     kExhausted, and says so, until a capsule is dropped.
//
// As bytes a capsule can be moved to another process or machine: see Serialize, and docs/capsule_format.md.
//
// Thread-safety: a Capsule is a value. Different copies may be used and dropped on different threads; one copy is used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/fingerprint.h"
#include "reprise/layout.h"
#include "reprise/status.h"

namespace reprise {

struct StateBlock;
struct Extent;
struct HeldState;
class StateSpace;
class Lane;

class Capsule {
 public:
  Capsule() = default;  // holds nothing; valid() is false, and of the calls below only valid() and assignment are allowed
  Capsule(const Capsule& other);
  Capsule(Capsule&& other) noexcept;
  Capsule& operator=(Capsule other) noexcept;
  ~Capsule();

  bool valid() const { return space_ != nullptr; }
  int64_t position() const { return position_; }  // how many positions the execution had committed
  uint64_t id() const { return id_; }             // unique within its state space, from 1
  uint64_t parent() const { return parent_; }     // the capsule that its execution last took or restored before, or 0
  const StateLayout& layout() const;
  const Fingerprint& fingerprint() const;

  // What the capsule's states hold, in bytes. Most of it is shared with other capsules and costs nothing more.
  size_t recurrent_bytes() const;
  size_t row_bytes() const;  // of all its append-only rows

  // A copy of one state by name: the whole of a recurrent state, or position() rows of an append-only one. kNotFound names an unknown state.
  Result<std::vector<std::byte>> Read(std::string_view state) const;

  // The capsule as bytes (docs/capsule_format.md). `metadata` travels with it and means nothing to this layer; at most kMaxMetadata bytes.
  Result<std::vector<std::byte>> Serialize(std::string_view metadata = {}) const;
  static constexpr size_t kMaxMetadata = 1 << 16;

  // The verbs, on lanes (exec/lane.h); Session and Execution offer them to users.
  static Capsule Take(Lane& lane);     // the lane's last committed boundary
  Status RestoreTo(Lane& lane) const;  // refused with kMismatch, and nothing changed, if the lane is of another state space
  static Capsule FromHeld(std::shared_ptr<StateSpace> space, HeldState held, uint64_t parent);
  HeldState Hold() const;  // the same state by reference
  const std::shared_ptr<StateSpace>& space() const { return space_; }

 private:
  size_t StateBytes(const StateDecl& state) const;
  void CopyOut(const StateDecl& state, std::byte* to) const;  // StateBytes() of them; done once the memory is synchronised

  std::shared_ptr<StateSpace> space_;
  StateBlock* block_[kSpaces] = {nullptr, nullptr};  // held
  Extent* tip_ = nullptr;                            // held
  int32_t position_ = 0;
  uint64_t id_ = 0;
  uint64_t parent_ = 0;
};

// What serialised bytes say of themselves, for `inspect`: header, layout and metadata, checked; payloads not looked at.
struct CapsuleSummary {
  uint32_t version = 0;
  int64_t position = 0;
  Fingerprint fingerprint;
  StateLayout layout;
  std::vector<uint64_t> payload_bytes;  // of each state
  std::string metadata;
};
Result<CapsuleSummary> SummariseCapsule(std::span<const std::byte> bytes);

// A capsule of `space` from bytes. The bytes are hostile until proven: sizes, layout, fingerprint and every checksum are verified before
// anything is acquired; an error names what is wrong and where, and nothing has changed.
Result<Capsule> DeserializeCapsule(std::span<const std::byte> bytes, const std::shared_ptr<StateSpace>& space,
                                   std::string* metadata = nullptr);

}  // namespace reprise
