// Eviction from a directory: which capsules go when there is no room. A pure function of what the index lists.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "store/index.h"

namespace reprise {

struct Eviction {
  std::vector<int64_t> capsules;  // in the order in which they should go
  uint64_t freed = 0;             // bytes on disk
};

// Capsules worth least by policy.h until `needed` bytes are free, or none when that cannot be had. Pinned and named ones stay, and so do `segments`, on
// which something rests that is not listed yet. Nothing that is worth more, a byte, than `ceiling` goes.
Eviction ChooseEviction(const std::vector<IndexedCapsule>& capsules, const std::vector<IndexedSegment>& segments,
                        const std::set<int64_t>& in_use, uint64_t needed, int64_t now, double ceiling);

// What a capsule is worth, a byte, that saves `tokens` and takes `bytes`, when nobody has used it for `idle` seconds.
double WorthOnDisk(int32_t tokens, uint64_t bytes, int64_t hits, int64_t idle);

}  // namespace reprise
