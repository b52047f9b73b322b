// What answers a prompt: the deepest capsule on its path, from memory or, where that is faster than computing, from disk.
#include <algorithm>

#include "store/capsule_store.h"
#include "store/policy.h"
#include "store/reading.h"

namespace reprise {
namespace {

bool IsDeeper(const Stored* entry, int32_t than) { return entry != nullptr && entry->position() > than; }

std::string CouldNotBeRead(int32_t position, const Status& why) {
  return "the capsule at token " + std::to_string(position) + " could not be read back: " + why.message();
}

}  // namespace

// What the store's thread has read of it, or failed to, for somebody who has not gone on from there yet.
std::shared_ptr<DiskRead> TieredStore::ReadOf(const Stored& entry) {
  auto read = entry.read.lock();
  return read != nullptr && read->over && !read->given_up ? read : nullptr;
}

Capsule TieredStore::AtHand(const Stored& entry) {
  if (entry.in_memory()) return entry.capsule;
  const auto read = ReadOf(entry);
  return read != nullptr ? read->capsule : Capsule();
}

// It counts as read from disk for whoever had it read, although it is in memory by now.
Capsule TieredStore::Take(Stored* entry, Tier& tier) {
  Touch(entry);
  ++entry->note.hits;
  const auto read = ReadOf(*entry);
  tier = read != nullptr && read->status.ok() ? Tier::kDisk : Tier::kMemory;
  ++(tier == Tier::kDisk ? stats_.hits_disk : stats_.hits_memory);
  return AtHand(*entry);
}

// Of the nearest entry above whose capsule is at hand, or none.
Capsule TieredStore::BaseOf(const Stored& entry) {
  for (const TokenTree::Node* node = TokenTree::Above(entry.node); node != nullptr; node = TokenTree::Above(node)) {
    for (const Stored* above : node->entries) {
      if (Capsule capsule = AtHand(*above); capsule.valid()) return capsule;
    }
  }
  return {};
}

TieredStore::Sight TieredStore::Look(NameSpace& space, std::span<const int32_t> prompt, int32_t deeper_than,
                                     const std::vector<uint64_t>& unreadable) const {
  Sight sight;
  sight.match = space.tree.Find(prompt);
  Stored* on_disk = nullptr;
  for (TokenTree::Node* node = sight.match.node; node != nullptr; node = node->parent) {
    for (Stored* entry : node->entries) {
      if (sight.deepest == nullptr) sight.deepest = entry;
      const auto read = ReadOf(*entry);
      const bool failed = read != nullptr && !read->status.ok();
      if (failed) sight.trouble = CouldNotBeRead(entry->position(), read->status);
      if (sight.at_hand == nullptr && (entry->in_memory() || (read != nullptr && !failed))) sight.at_hand = entry;
      const bool readable = !failed && std::find(unreadable.begin(), unreadable.end(), entry->note.id) == unreadable.end();
      if (on_disk == nullptr && entry->on_disk() && readable) on_disk = entry;
    }
  }
  const int32_t at_hand = sight.at_hand != nullptr ? sight.at_hand->position() : 0;
  const int32_t have = std::max(deeper_than, at_hand);
  if (!IsDeeper(on_disk, have)) return sight;
  const int32_t rows = on_disk->position() - at_hand;
  const double compute = tokens_per_second_ > 0 ? (on_disk->position() - have) / tokens_per_second_ : 1e9;
  if (ReadSeconds(rows) < compute) {
    sight.to_read = on_disk;
  } else {
    sight.reason = "computing is faster than reading " + std::to_string(rows) + " tokens back from disk";
  }
  return sight;
}

uint64_t TieredStore::MustRead(std::string_view name_space, std::span<const int32_t> prompt) {
  const Lock lock(mutex_);
  const auto space = spaces_.find(name_space);
  if (space == spaces_.end()) return 0;
  const Sight sight = Look(*space->second, prompt, 0, {});
  return sight.to_read != nullptr ? sight.to_read->note.id : 0;
}

bool TieredStore::MustRead(std::string_view name_space, uint64_t id) {
  const Lock lock(mutex_);
  const Stored* entry = EntryOf(name_space, id);
  return entry != nullptr && entry->on_disk() && !entry->in_memory() && ReadOf(*entry) == nullptr;
}

CapsuleStore::Found TieredStore::FindDeepest(std::string_view name_space, std::span<const int32_t> prompt, int32_t deeper_than) {
  Lock lock(mutex_);
  Found found;
  if (!spaces_.contains(name_space)) {
    found.reason = "nothing is stored yet";
    ++stats_.misses;
    return found;
  }
  NameSpace& space = SpaceOf(name_space);
  std::string trouble;
  std::vector<uint64_t> unreadable;
  // Each round may lose an entry to a file that cannot be read; then the next best answers.
  for (bool first = true;; first = false) {
    Sight sight = Look(space, prompt, deeper_than, unreadable);
    found.known = sight.match.length;
    const Stored* left = sight.match.left != nullptr ? TokenTree::AnyBelow(sight.match.left) : nullptr;
    found.diverged_from = left != nullptr ? left->note.id : 0;
    found.reason = std::move(sight.reason);
    if (trouble.empty()) trouble = std::move(sight.trouble);
    for (TokenTree::Node* node = sight.match.node; first && node != nullptr; node = node->parent) {
      for (Stored* entry : node->entries) ++entry->visits;
    }
    if (!IsDeeper(sight.deepest, deeper_than)) {
      if (sight.deepest != nullptr) Touch(sight.deepest);  // the caller has what it would have had from here
      if (deeper_than == 0 && sight.deepest == nullptr) {
        ++stats_.misses;
        found.reason = found.known == 0 ? "no earlier prompt begins like this one" : "no capsule is kept on this path any more";
      }
      break;
    }
    if (sight.to_read != nullptr) {
      const uint64_t id = sight.to_read->note.id;
      const int32_t position = sight.to_read->position();
      found.hold = sight.to_read->in_hand;
      auto brought = Bring(lock, id, sight.at_hand != nullptr ? AtHand(*sight.at_hand) : Capsule());
      if (!brought.ok()) {
        trouble = CouldNotBeRead(position, brought.status());
        found.hold.reset();
        unreadable.push_back(id);
        continue;
      }
      found.capsule = *std::move(brought);
      found.tier = Tier::kDisk;
      found.id = id;
      ++stats_.hits_disk;
      if (Stored* entry = EntryOf(name_space, id)) {
        Touch(entry);
        ++entry->note.hits;
      }
    } else if (IsDeeper(sight.at_hand, deeper_than)) {
      found.capsule = Take(sight.at_hand, found.tier);
      found.id = sight.at_hand->note.id;
      found.hold = sight.at_hand->in_hand;
    }
    break;
  }
  found.position = found.capsule.valid() ? static_cast<int32_t>(found.capsule.position()) : 0;
  if (!trouble.empty()) {
    found.reason = trouble;
  } else if (found.reason.empty() && std::max(found.position, deeper_than) + policy::kNear < found.known) {
    found.reason = "the nearest capsule below token " + std::to_string(found.known) + " of the known path is at token " +
                   std::to_string(std::max(found.position, deeper_than));
  }
  return found;
}

Result<Capsule> TieredStore::Get(std::string_view name_space, uint64_t id, Tier* tier) {
  Lock lock(mutex_);
  if (EntryOf(name_space, id) == nullptr) LookAround(lock);  // another process may have put it
  Stored* entry = EntryOf(name_space, id);
  if (entry == nullptr) return NoSuch(id);
  Tier from = Tier::kDisk;
  Result<Capsule> capsule = AtHand(*entry);
  if (capsule->valid()) {
    (void)Take(entry, from);
  } else if (const auto read = ReadOf(*entry); read != nullptr) {
    return read->status;
  } else {
    Touch(entry);
    ++entry->note.hits;
    capsule = Bring(lock, id, BaseOf(*entry));
    if (capsule.ok()) ++stats_.hits_disk;
  }
  if (tier != nullptr) *tier = from;
  return capsule;
}

}  // namespace reprise
