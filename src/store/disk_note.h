// DiskNote: what is written beside a capsule, and read back.
#pragma once

#include <cstdint>
#include <string>

#include "reprise/store.h"

namespace reprise {

struct DiskNote {
  uint64_t id = 0;  // the store's, below 2^53
  Keep keep = Keep::kRequested;
  std::string name;
  bool pinned = false;
  std::string metadata;
  int64_t created = 0;  // seconds since the epoch
  int64_t used = 0;
  int64_t hits = 0;
};

}  // namespace reprise
