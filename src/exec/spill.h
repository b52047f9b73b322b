// Spill: what a pool's device memory has no room for lies in the host's, and comes back when a lane wants it.
//
// A slab is moved by changing its place: its holders hold it as before, and find its bytes through `data` as before. What no lane uses goes, what was
// used longest ago first, a batch at a time and ahead of need. The copies out run on a stream of their own, behind the steps given so far and
// beside those that follow; the place that was left is given to others once its copy is done, which is the device's to wait for and hardly ever
// has to. Copies back are in order with the steps.
//
// Used by the thread of the steps, while slabs are let go of on any thread. Nothing allocates after construction.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "exec/slabs.h"
#include "exec/stream.h"
#include "reprise/status.h"

namespace reprise {

template <class Pool>
class Spill {
 public:
  using Slab = typename Pool::Slab;

  // `mark` stamps what must stay on the device with the time given. All must outlive this.
  Spill(Pool& pool, Stream& steps, Stream& copies, std::function<void(uint64_t now)> mark)
      : pool_(pool),
        steps_(steps),
        copies_(copies),
        mark_(std::move(mark)),
        batch_(std::max(1, pool.places().device_count() / 16)),
        leaving_(static_cast<size_t>(pool.places().device_count())) {
    candidates_.reserve(static_cast<size_t>(pool.count()));
  }

  // To be called before a slab is acquired: sees to it that some places are free, or soon will be, before they are needed.
  // Two batches of places: one to be taken while the other's copies run.
  Status KeepRoom() {
    return static_cast<size_t>(pool_.places().free_on_device()) + left_ < 2 * static_cast<size_t>(batch_) ? MoveOut() : Ok();
  }

  // Whether a place on the device was made free. If not, lanes use all of them, or the host's are full too.
  Result<bool> FreePlace() {
    if (left_ == 0) REPRISE_RETURN_IF_ERROR(MoveOut());
    if (left_ == 0) return false;
    const Leaving& oldest = leaving_[first_];
    REPRISE_RETURN_IF_ERROR(steps_.Wait(oldest.copied));
    pool_.places().Give(oldest.place);
    first_ = (first_ + 1) % leaving_.size();
    --left_;
    return true;
  }

  bool Away(const Slab& slab) const { return !pool_.places().on_device(slab.place); }
  // Moves a slab that is away to `place`, which the caller has taken.
  Status Return(Slab& slab, int32_t place) {
    Places& places = pool_.places();
    REPRISE_RETURN_IF_ERROR(Settle());
    if (Status status = steps_.Copy(places.at(place), PlacedData(slab), places.stride()); !status.ok()) {
      places.Give(place);
      return status;
    }
    places.Give(slab.place);
    Place(slab, place);
    slab.used = pool_.now();
    ++returned_;
    return Ok();
  }

  // Later work of the steps' stream finds what was moved out in the host's memory.
  Status Settle() { return steps_.Wait(last_); }
  bool Holds(const std::byte* address) const { return pool_.places().on_host(address); }

  uint64_t moved() const { return moved_; }        // slabs out, since construction
  uint64_t returned() const { return returned_; }  // and back

 private:
  struct Leaving {
    int32_t place = 0;
    Event copied;
  };

  void Place(Slab& slab, int32_t place) {
    slab.place = place;
    PlacedData(slab) = pool_.places().at(place);
  }

  // Starts moving a batch out: nothing, when lanes use all there is or the host has no room.
  Status MoveOut() {
    Places& places = pool_.places();
    if (places.free_on_host() == 0) return Ok();
    const uint64_t now = pool_.Tick();
    mark_(now);
    candidates_.clear();
    for (Slab& slab : pool_.slabs()) {
      if (slab.holders.load(std::memory_order_relaxed) > 0 && !Away(slab) && slab.used < now) candidates_.push_back(&slab);
    }
    const size_t count = std::min(candidates_.size(), static_cast<size_t>(std::min(batch_, places.free_on_host())));
    if (count == 0) return Ok();
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count) - 1, candidates_.end(),
                     [](const Slab* a, const Slab* b) { return a->used < b->used; });
    // What the steps given so far write is written before it is copied; and what they bring back has left its place in the host's memory.
    REPRISE_RETURN_IF_ERROR(copies_.Wait(steps_.Record()));
    const size_t before = left_;
    Status status;
    for (size_t i = 0; i < count && status.ok(); ++i) {
      Slab* slab = candidates_[i];
      if (!HoldIfHeld(*slab)) continue;  // nobody can let go of it while it moves
      const int32_t place = places.TakeOnHost();
      status = copies_.Copy(places.at(place), PlacedData(*slab), places.stride());
      if (status.ok()) {
        leaving_[(first_ + left_++) % leaving_.size()].place = slab->place;
        Place(*slab, place);
        ++moved_;
      } else {
        places.Give(place);
      }
      Release(slab);
    }
    last_ = copies_.Record();
    for (size_t i = before; i < left_; ++i) leaving_[(first_ + i) % leaving_.size()].copied = last_;
    return status;
  }

  Pool& pool_;
  Stream& steps_;
  Stream& copies_;
  const std::function<void(uint64_t now)> mark_;
  const int32_t batch_;  // slabs that are moved at once
  // Places that were left and are still read from: a ring in the order of their copies.
  std::vector<Leaving> leaving_;
  size_t first_ = 0, left_ = 0;
  std::vector<Slab*> candidates_;
  Event last_;  // after every copy out so far
  uint64_t moved_ = 0, returned_ = 0;
};

}  // namespace reprise
