// StateSpace: the pools that all state of one layout lives in. Sized at creation; nothing here allocates afterwards.
//
// Thread-safety: blocks and extents may be released on any thread. Lanes of one space may step on different threads, each lane on one thread
// at a time, when the DeviceMemory allows it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "exec/memory.h"
#include "exec/slabs.h"
#include "exec/spill.h"
#include "reprise/fingerprint.h"
#include "reprise/layout.h"

namespace reprise {

class Lane;

struct StateSpaceOptions {
  int lanes = 1;               // live executions at once
  int capsules = 64;           // recurrent blocks beyond what the lanes themselves need
  int host_blocks = 0;         // further blocks of the host space alone: states that a host step changes are small, and worth keeping often
  int64_t rows = 0;            // append-only rows in all (rounded up to extents); 0 for lanes * max_position
  int max_position = 1 << 20;  // of any lane
  int log_rows = 0;            // of each lane's ReplayLog
  size_t log_row_bytes = 0;
  // Where the device's memory is not the host's: recurrent blocks, and rows, that the host's holds beyond those of the device (see Spill).
  int spilled_capsules = 0;
  int64_t spilled_rows = 0;
};

// What a lane or a capsule holds of a space: everything an execution remembers, by reference. A value; copying it takes three references.
struct HeldState {
  Ref<StateBlock> block[kSpaces];
  Ref<Extent> tip;  // holds row position - 1, and through it every row before; none at position 0 or without append-only states
  int32_t position = 0;

  // What `tip` would be at an earlier position of this history.
  Ref<Extent> TipAt(int32_t earlier) const;
};

class StateSpace : public std::enable_shared_from_this<StateSpace> {
 public:
  // `memory` provides the device part and must be given; the host part is the space's own. The space keeps `memory` alive.
  static Result<std::shared_ptr<StateSpace>> Create(StateLayout layout, const StateSpaceOptions& options, const Fingerprint& fingerprint,
                                                    std::shared_ptr<DeviceMemory> memory);
  StateSpace(const StateSpace&) = delete;
  StateSpace& operator=(const StateSpace&) = delete;

  const StateLayout& layout() const { return layout_; }
  const Fingerprint& fingerprint() const { return fingerprint_; }
  int max_position() const { return options_.max_position; }
  DeviceMemory& memory() { return *memory_; }

  // A recurrent state at position 0. Zero unless its owner writes other bytes here before the first lane is made.
  // An append-only state has no rows there: empty.
  std::span<std::byte> origin(int state);
  HeldState Origin() const { return origin_; }

  // A lane at the origin. Lanes are destroyed before the caller lets go of the space. kExhausted when `lanes` are live.
  Result<std::unique_ptr<Lane>> NewLane();

  // Called when a pool is empty, on the thread that needs memory; returns whether it let something go, and is then called again if that was
  // not enough. It may drop capsules and must not touch lanes.
  void SetEvictor(std::function<bool()> evictor) { evictor_ = std::move(evictor); }

  struct Usage {
    int blocks[kSpaces];  // in use
    int block_limit;
    int extents;  // in use
    int extent_limit;
    size_t bytes;  // held by what is in use, both spaces
    // Of the device's blocks and extents: how many places the host has for them, and how often one went there and came back.
    int spilled_block_limit;
    int spilled_extent_limit;
    uint64_t spilled;
    uint64_t returned;
  };
  Usage usage() const;

  uint64_t NextCapsuleId() { return next_capsule_id_.fetch_add(1, std::memory_order_relaxed); }

  // For lanes and for code that builds state from bytes. The error says which pool is full and how large it is.
  Result<Ref<StateBlock>> AcquireBlock(Space space);
  // Takes over `previous` on success only.
  Result<Ref<Extent>> AcquireExtent(Ref<Extent>& previous, int32_t index, int32_t frontier);
  // Blocks and extents for a state at `position`, all or nothing and held by nobody else, their contents whatever was in them before.
  Result<HeldState> AcquireState(int32_t position);
  // Copies between disjoint ranges, of which those of the space's own memory lie in `space`. Device copies are in order with steps.
  void Copy(Space space, std::byte* to, const std::byte* from, size_t bytes);
  bool has_extents() const { return layout_.row_bytes() > 0; }

 private:
  friend class Lane;
  StateSpace(StateLayout layout, const StateSpaceOptions& options, const Fingerprint& fingerprint, std::shared_ptr<DeviceMemory> memory);
  Status AllocatePools();
  void Leave(Lane& lane);
  // Stamps what must stay on the device: what lanes use, the origin, and what is being brought back.
  void MarkBlocks(uint64_t now);
  void MarkExtents(uint64_t now);
  // Whether something was moved or dropped, so that it is worth asking again for a slab (or, if `place_alone`, for a place of one).
  template <class Pool>
  Result<bool> MakeRoom(Pool& pool, std::optional<Spill<Pool>>& spill, bool place_alone);
  // Brings to the device what of `held` lies in the host's memory, down to `known`, an extent that is on the device with all before it, or null
  // for everything. It may take the place of what `lane` holds. kExhausted when other lanes use too much: then that is back, perhaps elsewhere.
  Status BringBack(const HeldState& held, const Extent* known, const Lane& lane);
  Status BringBack(const HeldState& held, const Extent* known);
  template <class Pool>
  Status BringBack(typename Pool::Slab& slab, Pool& pool, std::optional<Spill<Pool>>& spill);

  StateLayout layout_;
  StateSpaceOptions options_;
  Fingerprint fingerprint_;
  std::shared_ptr<DeviceMemory> memory_;
  HostMemory host_memory_;
  std::optional<BlockPool> blocks_[kSpaces];
  std::optional<ExtentPool> extents_;
  std::optional<Spill<BlockPool>> spill_blocks_;  // of the device's blocks; none where nothing is moved
  std::optional<Spill<ExtentPool>> spill_extents_;
  HeldState origin_;                   // after the pools: let go of before they go
  const HeldState* coming_ = nullptr;  // what is being brought back
  const Lane* leaving_ = nullptr;      // whose state it takes the place of
  std::function<bool()> evictor_;
  std::atomic<uint64_t> next_capsule_id_{1};
  std::mutex lanes_mutex_;
  std::vector<Lane*> lanes_;  // the live ones
  std::vector<std::byte*> free_logs_;
};

}  // namespace reprise
