// To the directory: the thread that writes, and what other processes did there meanwhile.
//
// The lock is let go of around every call that may touch a file. What was known before such a call is looked up again after it.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "store/capsule_store.h"
#include "store/policy.h"

namespace reprise {
namespace {

using std::chrono::duration;
using std::chrono::milliseconds;

constexpr auto kLookAround = milliseconds(250);  // how often the thread asks whether another process has written

StoreClock::duration Of(double seconds) { return std::chrono::duration_cast<StoreClock::duration>(duration<double>(seconds)); }

}  // namespace

TieredStore::~TieredStore() {
  StopReading();
  (void)Flush();  // what could not be written was told as a notice, which nobody is left to read
  if (!thread_.joinable()) return;
  {
    const Lock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  reader_.join();
}

// A line ends where nothing was kept below, or only what followed the last question or prompt: formats may rewrite its beginning, and it may be asked again.
policy::Place TieredStore::PlaceOf(const Stored& entry) {
  const auto ways_on = [](const TokenTree::Node* node) {
    std::vector<const TokenTree::Node*> ways;
    for (const auto& [token, child] : node->children) {
      if (child->kept > 0) ways.push_back(child.get());
    }
    return ways;
  };
  if (entry.superseded) return policy::Place::kWithin;
  bool end = true;
  std::vector<const TokenTree::Node*> below = ways_on(entry.node);
  const Keep keep = entry.note.keep;
  const bool question = keep == Keep::kTurn || keep == Keep::kPrompt;
  if (!question) end = below.empty();
  for (size_t i = 0; question && end && i < below.size(); ++i) {
    for (const Stored* other : below[i]->entries) end &= other->note.keep != Keep::kTurn && other->note.keep != keep;
    for (const TokenTree::Node* node : ways_on(below[i])) below.push_back(node);
  }
  if (end) return policy::Place::kEnd;
  // Lines part between this boundary and the next that is kept.
  const TokenTree::Node* node = entry.node;
  auto ways = ways_on(node);
  while (ways.size() == 1 && ways[0]->entries.empty()) ways = ways_on(ways[0]);
  return ways.size() > 1 ? policy::Place::kFork : policy::Place::kWithin;
}

// Past the nearest entry above it that is on disk.
int32_t TieredStore::RowsToWrite(const Stored& entry) const {
  const auto on_disk = [](const TokenTree::Node* node) {
    return std::any_of(node->entries.begin(), node->entries.end(), [](const Stored* other) { return other->on_disk(); });
  };
  const TokenTree::Node* written = entry.node;
  while (written != nullptr && !on_disk(written)) written = TokenTree::Above(written);
  return entry.position() - (written != nullptr ? written->depth : 0);
}

// Blocks are large and rows are small, so what is written is few capsules, and every row once.
bool TieredStore::WorthWriting(const Stored& entry, bool closing) const {
  if (!entry.in_memory() || entry.on_disk()) return false;
  if (!entry.automatic()) return true;
  if (closing && entry.superseded) return false;
  const StateLayout& layout = space_->layout();
  return policy::WorthWriting(entry.note.keep, RowsToWrite(entry), PlaceOf(entry), closing, layout.recurrent_bytes(), layout.row_bytes());
}

void TieredStore::Queue(Stored* entry, double delay) {
  if (!writes_ || entry->on_disk()) return;
  entry->queued = true;
  waiting_.emplace(StoreClock::now() + Of(delay), entry->note.id);
  wake_.notify_one();
}

// What memory would drop for good before it is written is written first, and dropped if it is asked for a second time. False when nothing would be lost.
bool TieredStore::Hurry(Stored* entry) {
  if (!entry->queued || entry->hurried || !WorthWriting(*entry, /*closing=*/false)) return false;
  entry->hurried = true;
  Queue(entry, /*delay=*/0);
  return true;
}

Status TieredStore::Write(Lock& lock, Stored* entry) {
  const uint64_t id = entry->note.id;
  auto hold = entry->in_hand;  // it stays where it is counted while it is read, unless it is removed
  Capsule capsule = entry->capsule;
  const DiskNote note = entry->note;
  const std::string name_space = entry->space->name;
  const std::vector<int32_t> tokens = TokenTree::PathOf(entry->node);
  const TokenTree::Node* above = TokenTree::Above(entry->node);
  const uint64_t bytes = space_->layout().recurrent_bytes() +
                         static_cast<uint64_t>(entry->position() - (above != nullptr ? above->depth : 0)) * space_->layout().row_bytes();
  std::vector<int64_t> evicted;
  entry->note_changed = false;

  writing_ = true;
  lock.unlock();
  auto written = disk_->Put(name_space, tokens, capsule, note, evicted);
  lock.lock();
  // Whoever waits for this finds nothing held that is not counted.
  capsule = Capsule();
  hold.reset();
  writing_ = false;
  idle_.notify_all();

  for (const int64_t gone : evicted) {
    GoneFromDisk(gone);
    ++stats_.evicted_disk;
  }
  const auto at = entries_.find(id);
  if (!written.ok()) {
    if (at != entries_.end()) at->second->note_changed = true;
    trouble_ = true;
    const bool lasting = at != entries_.end() && at->second->lasting();
    Notice(lasting ? Unsaved(written.status()).message()
                   : "capsules are no longer written to '" + options_.directory + "': " + written.status().message());
    return written.status();
  }
  if (trouble_) {
    trouble_ = false;
    Notice("capsules are written to '" + options_.directory + "' again");
  }
  if (by_disk_id_.contains(*written)) return Ok();  // another process had put the same
  if (at == entries_.end()) {
    // Removed while it was written.
    lock.unlock();
    (void)disk_->Remove(*written);
    lock.lock();
    return Ok();
  }
  at->second->disk_id = *written;
  at->second->disk_bytes = bytes;
  by_disk_id_[*written] = at->second.get();
  if (at->second->note_changed) UpdateNotes(lock, /*usage_too=*/false);  // named or pinned while it was written
  return Ok();
}

// What was asked for first, then the ends of lines, then from the root down: each is weighed against what is on disk above it. The directory may have no
// room for one and room for the next; any other error is the next one's too.
Status TieredStore::WriteEverything(Lock& lock) {
  std::vector<std::tuple<bool, bool, bool, int32_t, uint64_t>> order;  // neither pinned nor named, automatic, within a line, position, id
  for (const auto& [id, entry] : entries_) {
    if (entry->in_memory() && !entry->on_disk())
      order.emplace_back(!entry->lasting(), entry->automatic(), PlaceOf(*entry) != policy::Place::kEnd, entry->position(), id);
  }
  std::sort(order.begin(), order.end());
  Status trouble;
  for (const auto& [passing, automatic, inner, position, id] : order) {
    const auto at = entries_.find(id);
    if (at == entries_.end() || !WorthWriting(*at->second, /*closing=*/true)) continue;
    Status status = Write(lock, at->second.get());
    if (status.ok()) continue;
    if (trouble.ok()) trouble = status;
    if (status.code() != StatusCode::kExhausted) break;
  }
  return trouble.ok() ? trouble : Unsaved(trouble);
}

// Which of what is pinned or named is not on disk, because of `why`; Ok when all of it is.
Status TieredStore::Unsaved(const Status& why) const {
  const Stored* first = nullptr;
  int others = -1;
  for (const auto& [id, entry] : entries_) {
    if (!entry->lasting() || !entry->in_memory() || entry->on_disk()) continue;
    ++others;
    if (first == nullptr || id < first->note.id) first = entry.get();
  }
  if (first == nullptr) return Ok();
  std::string what = "capsule " + std::to_string(first->note.id);
  if (!first->note.name.empty()) what += " ('" + first->note.name + "')";
  if (others > 0) what += " and " + std::to_string(others) + " more";
  return {why.code(), what + ", pinned or named, could not be written to '" + options_.directory + "' and would end with this process: " +
                          why.message() + "; give the store a larger disk budget, or unpin or remove others"};
}

Status TieredStore::Flush() {
  if (!writes_) return Ok();
  Lock lock(mutex_);
  idle_.wait(lock, [&] { return !writing_; });
  waiting_.clear();
  for (const auto& [id, entry] : entries_) entry->queued = false;
  trouble_ = false;
  Status status = WriteEverything(lock);
  UpdateNotes(lock, /*usage_too=*/true);
  return status;
}

// Names and pins at once; how often something was used when there is time.
void TieredStore::UpdateNotes(Lock& lock, bool usage_too) {
  if (!writes_) return;
  std::vector<std::pair<int64_t, DiskNote>> changed;
  for (const auto& [id, entry] : entries_) {
    if (!entry->on_disk() || !(entry->note_changed || (usage_too && entry->usage_changed))) continue;
    changed.push_back({entry->disk_id, entry->note});
    entry->note_changed = entry->usage_changed = false;
  }
  lock.unlock();
  Status status;
  for (const auto& [disk_id, note] : changed) {
    if (Status updated = disk_->Update(disk_id, note); !updated.ok() && updated.code() != StatusCode::kNotFound) status = updated;
  }
  lock.lock();
  if (!status.ok()) Notice("what is known of the capsules in '" + options_.directory + "' could not be updated: " + status.message());
}

void TieredStore::Run() {
  Lock lock(mutex_);
  auto next_look = StoreClock::now() + kLookAround;
  auto next_write = StoreClock::now();
  // With the least share of a busy processor: hashing and copying a block must not hold up the steps. Where a processor is idle it makes no difference.
#if defined(__linux__)
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19);
#endif
  // State that only the steps' own thread may read is written when that thread flushes.
  const bool may_read = space_->memory().ordinary();
  while (!stop_) {
    if (const auto now = StoreClock::now(); now >= next_look) {
      next_look = now + kLookAround;
      LookAround(lock);
      continue;
    }
    if (writing_) {  // somebody flushes
      idle_.wait(lock, [&] { return !writing_; });
      continue;
    }
    Stored* entry = nullptr;
    while (may_read && entry == nullptr && !waiting_.empty()) {
      const auto at = entries_.find(waiting_.begin()->second);
      if (at != entries_.end()) {
        entry = at->second.get();
      } else {
        waiting_.erase(waiting_.begin());
      }
    }
    const auto due = entry != nullptr ? std::max(waiting_.begin()->first, next_write) : next_look;
    if (entry == nullptr || due > StoreClock::now()) {
      wake_.wait_until(lock, std::min(due, next_look));
      continue;
    }
    waiting_.erase(waiting_.begin());
    entry->queued = false;
    if (!WorthWriting(*entry, /*closing=*/false)) continue;
    const uint64_t before = disk_->bytes_written();
    (void)Write(lock, entry);  // what is wrong was told
    if (options_.write_rate > 0) {
      const auto bytes = static_cast<double>(disk_->bytes_written() - before);
      next_write = StoreClock::now() + Of(bytes / static_cast<double>(options_.write_rate));
    }
  }
}

void TieredStore::LookAround(Lock& lock) {
  if (disk_ == nullptr) return;
  lock.unlock();
  const bool changed = disk_->Changed();
  lock.lock();
  if (changed) Resync(lock);
}

void TieredStore::Resync(Lock& lock) {
  std::unordered_set<int64_t> before;
  before.reserve(by_disk_id_.size());
  for (const auto& [disk_id, entry] : by_disk_id_) before.insert(disk_id);
  lock.unlock();
  auto listed = disk_->ListAgain(space_->fingerprint(), before);
  lock.lock();
  if (!listed.ok()) return Notice("the list of capsules in '" + options_.directory + "' could not be read: " + listed.status().message());
  Merge(*std::move(listed), before);
}

// What the directory lists becomes what the tree holds; of `before`, which come without tokens, what it lists no longer is gone.
void TieredStore::Merge(std::vector<DiskEntry> listed, const std::unordered_set<int64_t>& before) {
  std::unordered_map<int64_t, bool> there;
  for (DiskEntry& found : listed) {
    there[found.id] = true;
    Stored* entry = nullptr;
    if (const auto at = by_disk_id_.find(found.id); at != by_disk_id_.end()) {
      entry = at->second;
    } else {
      // Without tokens: removed from here while it was listed.
      if (found.tokens.empty() || found.tokens.size() > static_cast<size_t>(space_->max_position())) continue;
      NameSpace& space = SpaceOf(found.name_space);
      TokenTree::Node* node = space.tree.Insert(found.tokens);
      const bool automatic = found.note.keep != Keep::kRequested && found.note.name.empty() && !found.note.pinned;
      for (Stored* here : node->entries) {
        if (!here->on_disk() && (here->note.id == found.note.id || (automatic && here->automatic()))) entry = here;
      }
      if (entry == nullptr) {
        entry = NewEntry(space, node, std::move(found.note));
        entry->visits = entry->note.hits;
        entry->note_changed = false;
      }
      entry->disk_id = found.id;
      by_disk_id_[found.id] = entry;
      entry->disk_bytes = found.bytes;
      continue;
    }
    entry->disk_bytes = found.bytes;
    if (entry->note_changed) continue;  // what is said here is newer
    entry->note.pinned = found.note.pinned;
    if (entry->note.name != found.note.name) TakeName(entry, found.note.name);
    entry->note_changed = false;
  }
  for (const int64_t disk_id : before) {
    if (!there.contains(disk_id)) GoneFromDisk(disk_id);
  }
}

void TieredStore::GoneFromDisk(int64_t disk_id) {
  const auto at = by_disk_id_.find(disk_id);
  if (at == by_disk_id_.end()) return;
  Stored* entry = at->second;
  by_disk_id_.erase(at);
  entry->disk_id = 0;
  if (!entry->in_memory()) Forget(entry);
}

}  // namespace reprise
