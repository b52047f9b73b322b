// Stored: what the store knows of one entry. Guarded by the store's lock.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "reprise/capsule.h"
#include "store/disk_tier.h"
#include "store/token_tree.h"

namespace reprise {

using StoreClock = std::chrono::steady_clock;

struct DiskRead;
struct NameSpace;

struct Stored {
  DiskNote note;
  NameSpace* space = nullptr;
  TokenTree::Node* node = nullptr;
  Capsule capsule;      // valid() while it is in memory
  int64_t disk_id = 0;  // 0 while it is not on disk
  uint64_t disk_bytes = 0;

  int64_t visits = 0;  // prompts that passed through here
  bool superseded = false;
  StoreClock::time_point put;
  StoreClock::time_point used;
  uint64_t touched = 0;        // the survey during which it was last used: its rank in that survey is void
  bool queued = false;         // to be written behind
  bool hurried = false;        // to be written at once, since memory would have dropped it
  bool note_changed = false;   // name or pin, since they were last written
  bool usage_changed = false;  // hits and last use, likewise
  // Whoever has a prompt in hand that began here holds a copy.
  std::shared_ptr<const char> in_hand = std::make_shared<const char>();
  std::weak_ptr<DiskRead> read;  // the last that was asked for, while somebody waits for it or has not gone on from it yet

  int32_t position() const { return node->depth; }
  bool in_memory() const { return capsule.valid(); }
  bool on_disk() const { return disk_id != 0; }
  bool lasting() const { return note.pinned || !note.name.empty(); }
  bool automatic() const { return note.keep != Keep::kRequested && !lasting(); }
  bool protected_() const { return lasting() || in_hand.use_count() > 1; }

  // Of the last survey.
  Stored* above = nullptr;
  int32_t children = 0;
  double weight = 0;
  uint64_t weighed = 0;
};

}  // namespace reprise
