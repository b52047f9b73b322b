// Room in memory: what goes first when the budget is full. What the judgements are and why is policy.h's; here they are carried out.
#include <algorithm>

#include "store/capsule_store.h"
#include "store/policy.h"

namespace reprise {
namespace {

double Seconds(StoreClock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// The nearest entry above, or null.
Stored* AboveOf(const Stored& entry) {
  const TokenTree::Node* node = TokenTree::Above(entry.node);
  return node != nullptr ? node->entries.front() : nullptr;
}

}  // namespace

// Makes room for `capsule` within the budget, before it is counted. False, perhaps after something went, when what is left must stay.
bool TieredStore::MakeRoom(const Capsule& capsule, bool proven) {
  const StateLayout& layout = space_->layout();
  uint64_t alone = 0;
  for (int s = 0; s < kSpaces; ++s) {
    const auto space = static_cast<Space>(s);
    const int64_t extents = space_->has_extents() ? (capsule.position() + kExtentRows - 1) / kExtentRows : 0;
    alone += layout.block_bytes(space) + static_cast<uint64_t>(extents) * layout.extent_bytes(space);
  }
  if (alone > memory_.budget()) return false;
  if (alone > memory_.budget() / 8 && !memory_.HasRoomFor(capsule)) {
    // It may never fit beside what must stay; then nothing should go for it.
    MemoryTier stays(*space_, memory_.budget());
    for (const auto& [id, entry] : entries_) {
      if (entry->in_memory() && entry->protected_()) stays.Add(entry->capsule);
    }
    if (!stays.HasRoomFor(capsule)) return false;
  }
  while (!memory_.HasRoomFor(capsule)) {
    if (!Evict(proven)) return false;
  }
  return true;
}

// Drops the entry that is worth least from memory. Proven ones compete only for what is proven too, or when they hold more than their share.
bool TieredStore::Evict(bool proven_too) {
  for (int round = 0; round < 3; ++round) {
    while (trusted_ > 0 && !ranked_.empty()) {
      const auto at = entries_.find(ranked_.back());
      Stored* entry = at != entries_.end() ? at->second.get() : nullptr;
      if (entry == nullptr || !entry->in_memory() || entry->protected_() || entry->touched == survey_) {
        ranked_.pop_back();
        continue;
      }
      const bool proven = Proven(*entry);
      if (proven && !proven_too && static_cast<double>(proven_bytes_) <= policy::kProvenShare * static_cast<double>(memory_.budget()))
        break;
      ranked_.pop_back();
      if (Hurry(entry)) continue;
      --trusted_;
      LeaveMemory(entry);
      ++stats_.evicted_memory;
      return true;
    }
    if (round < 2) Survey();
  }
  return false;
}

bool TieredStore::DropOne() {
  const Lock lock(mutex_);
  return Evict(/*proven_too=*/true);
}

// Ranks every entry in memory. A survey looks at all entries, so that many may go on the word of one when there are many.
void TieredStore::Survey() {
  ++survey_;
  ranked_.clear();
  for (const auto& [id, entry] : entries_) {
    entry->above = AboveOf(*entry);
    entry->children = 0;
  }
  for (const auto& [id, entry] : entries_) {
    if (entry->above != nullptr) ++entry->above->children;
  }
  struct Rank {
    bool proven;
    double worth;
    StoreClock::time_point used;
    uint64_t id;
  };
  std::vector<Rank> ranks;
  proven_bytes_ = 0;
  for (const auto& [id, entry] : entries_) {
    if (!entry->in_memory()) continue;
    entry->weight = WeightOf(entry.get());
    const bool proven = Proven(*entry);
    if (proven) {
      const int32_t above = entry->above != nullptr ? entry->above->position() : 0;
      proven_bytes_ += space_->layout().block_bytes(Space::kDevice) + space_->layout().block_bytes(Space::kHost) +
                       static_cast<uint64_t>(entry->position() - above) * space_->layout().row_bytes();
    }
    if (!entry->protected_()) ranks.push_back({proven, WorthOf(entry.get()), entry->used, id});
  }
  std::sort(ranks.begin(), ranks.end(), [](const Rank& a, const Rank& b) {
    if (a.proven != b.proven) return a.proven;
    if (a.worth != b.worth) return a.worth > b.worth;
    if (a.used != b.used) return a.used > b.used;
    return a.id > b.id;
  });
  ranked_.reserve(ranks.size());
  for (const Rank& rank : ranks) ranked_.push_back(rank.id);
  trusted_ = std::max<size_t>(1, ranks.size() / 16);
}

// From the top of its line down: what is above has its weight first.
double TieredStore::WeightOf(Stored* entry) {
  std::vector<Stored*> line;
  for (Stored* at = entry; at != nullptr && at->weighed != survey_; at = at->above) line.push_back(at);
  for (; !line.empty(); line.pop_back()) {
    Stored* at = line.back();
    at->weight =
        at->above != nullptr ? policy::Weight(at->visits, at->above->weight, at->above->children) : policy::Weight(at->visits, 0, 1);
    at->weighed = survey_;
  }
  return entry->weight;
}

double TieredStore::WorthOf(Stored* entry) const {
  // What would answer in its place: another entry at the same boundary, or the nearest above.
  bool doubled = false;
  for (const Stored* other : entry->node->entries)
    doubled |= other != entry && (other->in_memory() || other->on_disk()) && entry->automatic();
  const int32_t above = entry->above != nullptr ? entry->above->position() : 0;
  policy::Stake stake;
  stake.tokens = doubled ? 0 : entry->position() - above;
  if (entry->on_disk() && tokens_per_second_ > 0) {
    stake.tokens = std::min(stake.tokens, ReadSeconds(entry->position() - above) * tokens_per_second_);
  }
  stake.bytes = static_cast<double>(memory_.Freed(entry->capsule));
  stake.weight = entry->weight;
  stake.idle = Seconds(StoreClock::now() - entry->used);
  stake.superseded = entry->superseded;
  return policy::Worth(stake);
}

// Whether its line has kept coming back, lately. An entry that no survey has seen yet is judged by the one above.
bool TieredStore::Proven(const Stored& entry) const {
  double weight = entry.weight;
  if (weight == 0) {
    const Stored* above = AboveOf(entry);
    weight = above != nullptr
                 ? policy::Weight(entry.visits, std::max(above->weight, 1.0 + static_cast<double>(above->visits)), above->children + 1)
                 : policy::Weight(entry.visits, 0, 1);
  }
  return weight * policy::Decay(Seconds(StoreClock::now() - entry.used)) >= policy::kProven;
}

double TieredStore::ReadSeconds(int32_t rows) const {
  const StateLayout& layout = space_->layout();
  const uint64_t bytes = layout.recurrent_bytes() + static_cast<uint64_t>(rows) * layout.row_bytes();
  return policy::kReadLatency + static_cast<double>(bytes) / read_bytes_per_second_;
}

}  // namespace reprise
