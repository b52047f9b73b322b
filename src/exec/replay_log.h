// ReplayLog: where a lane keeps what its recurrences took from its recent rows, so that going back among them needs no matrix product.
//
// A recurrent block of every position would be the state many times over; what a recurrence takes from one row is a small part of that. The rows lie
// in a ring, in memory of the device, each as long as whoever writes it says. The log is no part of the state: a capsule has none of it, and
// without it everything can still be computed. Used by its lane's thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace reprise {

struct ReplayLog {
  std::byte* rows = nullptr;  // [capacity][row_bytes]; that of position p is number p % capacity
  int32_t capacity = 0;       // 0: none are kept
  size_t row_bytes = 0;
  // Positions [first, end), of the lane's present history, are there.
  int32_t first = 0, end = 0;

  bool Holds(int32_t from, int32_t until) const { return first <= from && until <= end; }
  void Clear() { first = end = 0; }
  // Rows up to `until` may be written from here on, over those that are as far behind as the ring is long.
  void GiveUpFor(int32_t until) { first = std::max(first, until - capacity); }
  // Rows [from, until) have been written, and are the lane's now.
  void Extend(int32_t from, int32_t until) {
    if (from != end) first = from;
    end = until;
    GiveUpFor(until);
  }
  // The lane went back: rows from `position` on are of no history of its own.
  void CutAt(int32_t position) {
    end = std::min(end, position);
    first = std::min(first, end);
  }
};

}  // namespace reprise
