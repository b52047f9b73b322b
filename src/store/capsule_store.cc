#include "store/capsule_store.h"

#include <sodium.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "store/policy.h"

namespace reprise {
namespace {

int64_t Now() { return static_cast<int64_t>(std::time(nullptr)); }

// Below 2^53, so that it survives being a number in JSON; random, so that processes that share a directory need not agree.
uint64_t NewId() {
  uint64_t id = 0;
  while (id == 0) {
    randombytes_buf(&id, sizeof(id));
    id >>= 12;
  }
  return id;
}

}  // namespace

TieredStore::TieredStore(const StoreOptions& options, std::shared_ptr<StateSpace> space, std::unique_ptr<DiskTier> disk)
    : options_(options),
      space_(std::move(space)),
      disk_(std::move(disk)),
      writes_(disk_ != nullptr && !disk_->read_only()),
      memory_(*space_, options_.memory_budget) {
  stats_.memory_budget = options_.memory_budget;
  stats_.disk_budget = disk_ != nullptr ? options_.disk_budget : 0;
}

Result<std::shared_ptr<CapsuleStore>> TieredStore::Make(const StoreOptions& given, std::shared_ptr<StateSpace> space,
                                                        std::unique_ptr<DiskTier> disk) {
  for (const double delay : {given.write_delay, given.tip_delay}) {
    if (delay < 0 || !(delay < 1e9)) return InvalidArgument("a write delay is a number of seconds, 0 or more");
  }
  if (sodium_init() < 0) return Internal("libsodium cannot be initialised");
  StoreOptions options = given;
  if (options.memory_budget == 0) {
    const StateSpace::Usage pools = space->usage();
    uint64_t bytes = 0;
    for (int s = 0; s < kSpaces; ++s) {
      bytes += static_cast<uint64_t>(pools.block_limit - pools.blocks[0]) * space->layout().block_bytes(static_cast<Space>(s));
      bytes += static_cast<uint64_t>(pools.extent_limit) * space->layout().extent_bytes(static_cast<Space>(s));
    }
    options.memory_budget = bytes / 4 * 3;
  }
  std::shared_ptr<TieredStore> store(new TieredStore(options, std::move(space), std::move(disk)));
  if (store->disk_ != nullptr) {
    REPRISE_ASSIGN_OR_RETURN(auto listed, store->disk_->List(store->space_->fingerprint()));
    Lock lock(store->mutex_);
    store->Merge(std::move(listed), {});
    if (!store->writes_ && !options.read_only)
      store->Notice("the store in '" + options.directory + "' cannot be written: it is used as it is");
    store->thread_ = std::thread([raw = store.get()] { raw->Run(); });
    store->reader_ = std::thread([raw = store.get()] { raw->ReadInTurn(); });
  }
  return std::shared_ptr<CapsuleStore>(std::move(store));
}

Result<std::shared_ptr<CapsuleStore>> CapsuleStore::Open(const StoreOptions& options, std::shared_ptr<StateSpace> space) {
  if (space == nullptr) return InvalidArgument("a store needs the state space whose capsules it keeps");
  std::unique_ptr<DiskTier> disk;
  if (!options.directory.empty()) {
    auto files = options.files != nullptr ? Result(options.files) : FileSystem::Open(options.directory, options.read_only);
    if (!files.ok() && !options.read_only) {
      // Perhaps it can be read all the same; if not, why it cannot be written is what to tell.
      if (auto readable = FileSystem::Open(options.directory, /*read_only=*/true); readable.ok()) files = std::move(readable);
    }
    if (!files.ok()) return files.status().Within("the store in '" + options.directory + "'");
    auto opened = DiskTier::Open(*std::move(files), {.budget = options.disk_budget, .read_only = options.read_only});
    if (!opened.ok()) return opened.status().Within("the store in '" + options.directory + "'");
    disk = *std::move(opened);
  }
  return TieredStore::Make(options, std::move(space), std::move(disk));
}

NameSpace& TieredStore::SpaceOf(std::string_view name) {
  const auto at = spaces_.find(name);
  if (at != spaces_.end()) return *at->second;
  auto made = std::make_unique<NameSpace>();
  made->name = name;
  return *(spaces_[std::string(name)] = std::move(made));
}

Stored* TieredStore::EntryOf(std::string_view name_space, uint64_t id) const {
  const auto at = entries_.find(id);
  return at != entries_.end() && at->second->space->name == name_space ? at->second.get() : nullptr;
}

// The same words for an entry of another namespace.
Status TieredStore::NoSuch(uint64_t id) const { return NotFound("there is no capsule " + std::to_string(id)); }

void TieredStore::Notice(std::string text) {
  if (text == last_trouble_) return;
  last_trouble_ = text;
  notices_.push_back(std::move(text));
}

Stored* TieredStore::NewEntry(NameSpace& space, TokenTree::Node* node, DiskNote note) {
  auto made = std::make_unique<Stored>();
  Stored* entry = made.get();
  while (note.id == 0 || entries_.contains(note.id)) note.id = NewId();
  entry->note = std::move(note);
  entry->space = &space;
  entry->node = node;
  entry->put = entry->used = StoreClock::now();
  space.tree.Keep(node, entry);
  entries_[entry->note.id] = std::move(made);
  if (!entry->note.name.empty()) TakeName(entry, entry->note.name);
  return entry;
}

void TieredStore::TakeName(Stored* entry, std::string_view name) {
  auto& names = entry->space->names;
  const auto drop = [&](Stored* from) {
    if (const auto mine = names.find(from->note.name); mine != names.end() && mine->second == from) names.erase(mine);
    from->note.name.clear();
    from->note_changed = true;
  };
  const std::string wanted(name);  // `name` may be the entry's own
  if (!entry->note.name.empty()) drop(entry);
  if (wanted.empty()) return;
  if (const auto other = names.find(wanted); other != names.end()) drop(other->second);
  names[wanted] = entry;
  entry->note.name = wanted;
  entry->note_changed = true;
}

void TieredStore::Install(Stored* entry, const Capsule& capsule) {
  memory_.Add(capsule);
  entry->capsule = capsule;
  ++stats_.entries_in_memory;
}

void TieredStore::Touch(Stored* entry) {
  entry->used = StoreClock::now();
  entry->note.used = Now();
  entry->touched = survey_;
  entry->usage_changed = true;
}

void TieredStore::Forget(Stored* entry) {
  if (entry->in_memory()) {
    memory_.Remove(entry->capsule);
    entry->capsule = Capsule();
    --stats_.entries_in_memory;
  }
  TakeName(entry, "");
  if (entry->on_disk()) by_disk_id_.erase(entry->disk_id);
  entry->space->tree.Drop(entry->node, entry);
  entries_.erase(entry->note.id);
}

void TieredStore::LeaveMemory(Stored* entry) {
  if (!entry->on_disk()) return Forget(entry);
  memory_.Remove(entry->capsule);
  entry->capsule = Capsule();
  --stats_.entries_in_memory;
}

Result<uint64_t> TieredStore::Put(std::string_view name_space, std::span<const int32_t> tokens, const Capsule& capsule,
                                  const PutOptions& options) {
  if (!capsule.valid()) return InvalidArgument("an empty capsule was given to the store");
  if (capsule.space() != space_) return Mismatch("the capsule belongs to another loaded model than the store");
  if (tokens.empty()) return InvalidArgument("a capsule at position 0 holds nothing worth storing");
  if (static_cast<int64_t>(tokens.size()) != capsule.position()) {
    return InvalidArgument("the capsule is at position " + std::to_string(capsule.position()) + ", and the tokens given are " +
                           std::to_string(tokens.size()));
  }
  if (options.metadata.size() > Capsule::kMaxMetadata) {
    return InvalidArgument("metadata of " + std::to_string(options.metadata.size()) + " bytes; at most " +
                           std::to_string(Capsule::kMaxMetadata));
  }
  if (options.name.size() > kMaxName) {
    return InvalidArgument("a name of " + std::to_string(options.name.size()) + " bytes; at most " + std::to_string(kMaxName));
  }
  Lock lock(mutex_);
  NameSpace& space = SpaceOf(name_space);
  TokenTree::Node* node = space.tree.Insert(tokens);
  const bool automatic = options.keep != Keep::kRequested && options.name.empty() && !options.pinned;
  if (automatic) {
    for (Stored* entry : node->entries) {
      if (!entry->automatic()) continue;
      Touch(entry);
      entry->note.keep = std::min(entry->note.keep, options.keep);
      entry->superseded = false;
      if (!entry->in_memory() && MakeRoom(capsule, Proven(*entry))) Install(entry, capsule);
      return entry->note.id;
    }
    // A few tokens past another capsule; but the end of a system message or a question is what later prompts match.
    const TokenTree::Node* above = TokenTree::Above(node);
    const bool near = above != nullptr && node->depth - above->depth <= policy::kNear;
    if (near && options.keep != Keep::kSystem && options.keep != Keep::kTurn) return uint64_t{0};
  }
  Stored* entry = NewEntry(space, node,
                           {.keep = options.keep,
                            .name = options.name,
                            .pinned = options.pinned,
                            .metadata = options.metadata,
                            .created = Now(),
                            .used = Now()});
  if (automatic) Supersede(entry);
  const uint64_t id = entry->note.id;
  const auto self = entry->in_hand;  // not a candidate itself
  if (!MakeRoom(capsule, !automatic || Proven(*entry))) {
    Forget(entry);
    return uint64_t{0};
  }
  Install(entry, capsule);
  const double delay = entry->lasting() ? 0 : policy::Delay(options.keep, RowsToWrite(*entry), options_);
  Queue(entry, delay);
  return id;
}

// What a new boundary takes the place of, along the path above it.
void TieredStore::Supersede(Stored* entry) {
  const int32_t tip = entry->position();
  const bool next_turn = entry->note.keep == Keep::kTurn || entry->note.keep == Keep::kPrompt;
  int32_t above = tip;  // of the neighbour nearer to the tip
  for (TokenTree::Node* node = TokenTree::Above(entry->node); node != nullptr;) {
    TokenTree::Node* up = TokenTree::Above(node);
    Stored* spare = nullptr;
    for (Stored* old : node->entries) {
      if (!old->automatic()) continue;
      const Keep keep = old->note.keep;
      if (keep == Keep::kStop || (next_turn && (keep == Keep::kPrompt || keep == Keep::kReply))) old->superseded = true;
      const int32_t below = up != nullptr ? up->depth : 0;
      if (keep == Keep::kStride && !old->protected_() && !old->on_disk() && policy::StrideIsSpare(below, above, tip)) spare = old;
    }
    const int32_t here = node->depth;
    const bool gone = spare != nullptr && node->entries.size() == 1;
    if (spare != nullptr) Forget(spare);  // `node` may be gone
    if (!gone) above = here;
    node = up;
  }
}

Result<StoreEntry> TieredStore::Find(std::string_view name_space, std::string_view name) {
  Lock lock(mutex_);
  LookAround(lock);
  const auto space = spaces_.find(name_space);
  if (space != spaces_.end() && !name.empty()) {
    const auto at = space->second->names.find(name);
    if (at != space->second->names.end()) return Describe(*at->second);
  }
  return NotFound("there is no capsule named '" + std::string(name) + "'");
}

Result<StoreEntry> TieredStore::Show(std::string_view name_space, uint64_t id) {
  Lock lock(mutex_);
  LookAround(lock);
  const Stored* entry = EntryOf(name_space, id);
  if (entry == nullptr) return NoSuch(id);
  return Describe(*entry);
}

Result<std::vector<int32_t>> TieredStore::Tokens(std::string_view name_space, uint64_t id) {
  Lock lock(mutex_);
  const Stored* entry = EntryOf(name_space, id);
  if (entry == nullptr) return NoSuch(id);
  return TokenTree::PathOf(entry->node);
}

std::vector<StoreEntry> TieredStore::List(std::string_view name_space) {
  Lock lock(mutex_);
  LookAround(lock);
  std::vector<StoreEntry> list;
  const auto space = spaces_.find(name_space);
  if (space == spaces_.end()) return list;
  space->second->tree.ForEach([&](const TokenTree::Node& node) {
    for (const Stored* entry : node.entries) list.push_back(Describe(*entry));
  });
  return list;
}

StoreEntry TieredStore::Describe(const Stored& entry) const {
  StoreEntry shown;
  shown.id = entry.note.id;
  if (const TokenTree::Node* above = TokenTree::Above(entry.node)) shown.parent = above->entries.front()->note.id;
  shown.name_space = entry.space->name;
  shown.name = entry.note.name;
  shown.pinned = entry.note.pinned;
  shown.keep = entry.note.keep;
  shown.position = entry.position();
  shown.bytes = entry.in_memory() ? memory_.Freed(entry.capsule) : entry.disk_bytes;
  shown.in_memory = entry.in_memory();
  shown.on_disk = entry.on_disk();
  shown.created = entry.note.created;
  shown.used = entry.note.used;
  shown.hits = entry.note.hits;
  shown.metadata = entry.note.metadata;
  return shown;
}

Status TieredStore::Pin(std::string_view name_space, uint64_t id, bool pinned) {
  Lock lock(mutex_);
  Stored* entry = EntryOf(name_space, id);
  if (entry == nullptr) return NoSuch(id);
  entry->note.pinned = pinned;
  entry->note_changed = true;
  if (pinned) Queue(entry, /*delay=*/0);
  UpdateNotes(lock, /*usage_too=*/false);
  return Ok();
}

Status TieredStore::Name(std::string_view name_space, uint64_t id, std::string_view name) {
  if (name.size() > kMaxName)
    return InvalidArgument("a name of " + std::to_string(name.size()) + " bytes; at most " + std::to_string(kMaxName));
  Lock lock(mutex_);
  Stored* entry = EntryOf(name_space, id);
  if (entry == nullptr) return NoSuch(id);
  TakeName(entry, name);
  if (!name.empty()) Queue(entry, /*delay=*/0);
  UpdateNotes(lock, /*usage_too=*/false);
  return Ok();
}

Status TieredStore::Remove(std::string_view name_space, uint64_t id) {
  Lock lock(mutex_);
  Stored* entry = EntryOf(name_space, id);
  if (entry == nullptr) return NoSuch(id);
  if (entry->on_disk() && !writes_) return IoError("capsule " + std::to_string(id) + " lies in a directory that cannot be written");
  const int64_t disk_id = entry->disk_id;
  Forget(entry);
  if (disk_id == 0) return Ok();
  lock.unlock();
  const Status status = disk_->Remove(disk_id);
  return status.code() == StatusCode::kNotFound ? Ok() : status;
}

void TieredStore::Measured(int64_t tokens, double seconds) {
  if (tokens < 8 || !(seconds > 0)) return;  // a few tokens say more of the step's fixed cost than of the model's speed
  const Lock lock(mutex_);
  const double rate = static_cast<double>(tokens) / seconds;
  tokens_per_second_ = tokens_per_second_ == 0 ? rate : 0.8 * tokens_per_second_ + 0.2 * rate;
}

CapsuleStore::Stats TieredStore::stats() const {
  Stats stats;
  {
    const Lock lock(mutex_);
    stats = stats_;
    stats.memory_bytes = memory_.bytes();
    stats.entries_on_disk = by_disk_id_.size();
    stats.waiting = waiting_.size() + (writing_ ? 1 : 0);
  }
  if (disk_ != nullptr) {
    stats.disk_bytes = disk_->bytes();
    stats.bytes_written = disk_->bytes_written();
    stats.rows_written = disk_->rows_written();
  }
  return stats;
}

std::vector<std::string> TieredStore::TakeNotices() {
  std::vector<std::string> notices;
  if (disk_ != nullptr) notices = disk_->TakeNotices();
  const Lock lock(mutex_);
  notices.insert(notices.end(), std::make_move_iterator(notices_.begin()), std::make_move_iterator(notices_.end()));
  notices_.clear();
  return notices;
}

}  // namespace reprise
