#include "store/disk_tier.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "base/checked.h"
#include "store/disk_store.h"
#include "store/record_file.h"

namespace reprise {

Result<std::unique_ptr<DiskTier>> DiskTier::Open(std::shared_ptr<FileSystem> files, const DiskOptions& options) {
  if (::sodium_init() < 0) return Internal("libsodium cannot be used on this machine");
  auto store = std::make_unique<DiskStore>(std::move(files), options);
  REPRISE_RETURN_IF_ERROR(store->Start());
  return std::unique_ptr<DiskTier>(std::move(store));
}

DiskStore::~DiskStore() = default;

Status DiskStore::Start() {
  read_only_ = options_.read_only || !files_->writable();
  if (read_only_) return OpenIndex(false);
  // Whoever is alone may create and repair; the others wait until that is done.
  constexpr int kTries = 1000;
  bool alone = false;
  for (int i = 0; lock_ == nullptr; ++i) {
    if (i == kTries) return IoError("the store is being repaired by another process, which does not come to an end");
    REPRISE_ASSIGN_OR_RETURN(lock_, files_->Lock(kLock, true));
    alone = lock_ != nullptr;
    if (!alone) {
      REPRISE_ASSIGN_OR_RETURN(lock_, files_->Lock(kLock, false));
    }
    if (lock_ == nullptr) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (alone) REPRISE_RETURN_IF_ERROR(Prepare());
  REPRISE_RETURN_IF_ERROR(OpenIndex(alone));
  if (alone) {
    REPRISE_RETURN_IF_ERROR(Sweep().status());
    lock_.reset();
    for (int i = 0; lock_ == nullptr; ++i) {
      if (i == kTries) return IoError("the store is being repaired by another process, which does not come to an end");
      if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      REPRISE_ASSIGN_OR_RETURN(lock_, files_->Lock(kLock, false));
    }
  }
  return Ok();
}

Status DiskStore::Prepare() {
  // Files of another purpose are not mixed with the store's.
  REPRISE_ASSIGN_OR_RETURN(const auto there, files_->List(""));
  const auto is = [&](std::string_view name) {
    return std::any_of(there.begin(), there.end(), [&](const auto& f) { return f.name == name; });
  };
  for (const auto& file : there) {
    const bool ours = file.name == kLock || file.name.starts_with(Index::kFile) || file.name.starts_with(RecordFile::kFile);
    if (!ours && !is(Index::kFile)) {
      return InvalidArgument(
          fmt::format("the directory is no store, and holds files of another purpose; give the store a directory of its own"));
    }
  }
  for (const char* folder : {kObjects, kTemporary, kQuarantine}) REPRISE_RETURN_IF_ERROR(files_->MakeDirectory(folder));
  if (!is(Index::kFile)) REPRISE_RETURN_IF_ERROR(files_->Touch(Index::kFile));
  return files_->SyncDirectory("");
}

Status DiskStore::OpenIndex(bool alone) {
  auto opened = Index::Open(*files_, read_only_);
  if (opened.ok()) {
    index_ = *std::move(opened);
    return Ok();
  }
  if (opened.status().code() != StatusCode::kCorrupt) return opened.status();
  if (!alone) return opened.status().Within("the store's index cannot be used; it is made anew when nobody else has the store open");
  const std::string why = opened.status().message();
  REPRISE_ASSIGN_OR_RETURN(const auto there, files_->List(""));
  for (const auto& file : there) {
    if (!file.name.starts_with(Index::kFile)) continue;
    REPRISE_RETURN_IF_ERROR(files_->Rename(file.name, std::string(kQuarantine) + "/" + file.name));
  }
  REPRISE_RETURN_IF_ERROR(files_->Touch(Index::kFile));
  REPRISE_RETURN_IF_ERROR(files_->SyncDirectory(kQuarantine));
  REPRISE_RETURN_IF_ERROR(files_->SyncDirectory(""));
  REPRISE_ASSIGN_OR_RETURN(index_, Index::Open(*files_, false));
  Notice(fmt::format("the store's index was damaged and has been made anew from its objects ({})", why));
  return Rebuild();
}

Status DiskStore::Writable() const {
  return read_only_ ? IoError("the store's directory is used read-only; nothing is written to it") : Ok();
}

std::vector<std::string> DiskStore::TakeNotices() {
  const std::lock_guard lock(mutex_);
  return std::exchange(notices_, {});
}

bool DiskStore::Changed() {
  const std::lock_guard lock(mutex_);
  const auto version = index_->Version();
  return version.ok() && *version != seen_version_;
}

Result<std::vector<Fingerprint>> DiskStore::Fingerprints() {
  const std::lock_guard lock(mutex_);
  REPRISE_ASSIGN_OR_RETURN(const Transaction transaction, index_->Read());
  return index_->Fingerprints();
}

Result<std::vector<DiskEntry>> DiskStore::ListAgain(const Fingerprint& fingerprint, const std::unordered_set<int64_t>& known) {
  const std::lock_guard lock(mutex_);
  REPRISE_ASSIGN_OR_RETURN(const int64_t version, index_->Version());
  REPRISE_ASSIGN_OR_RETURN(const Transaction transaction, index_->Read());
  REPRISE_ASSIGN_OR_RETURN(const auto capsules, index_->CapsulesOf(fingerprint));
  REPRISE_ASSIGN_OR_RETURN(const auto all_segments, index_->Segments());
  REPRISE_ASSIGN_OR_RETURN(const auto name_spaces, index_->Namespaces());
  seen_version_ = version;

  struct Node {
    const IndexedSegment* segment;
    std::optional<std::vector<int32_t>> tokens;  // once a capsule has asked for them
    int users = 0;                               // children and capsules
    bool bad = false;
  };
  std::map<int64_t, Node> segments;
  for (const IndexedSegment& segment : all_segments) {
    if (segment.fingerprint != fingerprint) continue;
    Node node{&segment, {}, 0, bad_.contains(segment.object.name)};
    if (const auto parent = segments.find(segment.parent); parent != segments.end()) {
      ++parent->second.users;
      node.bad |= parent->second.bad;
    }
    segments.emplace(segment.id, std::move(node));
  }
  for (const IndexedCapsule& capsule : capsules) {
    if (const auto node = segments.find(capsule.segment); node != segments.end()) ++node->second.users;
  }

  std::vector<DiskEntry> entries;
  for (const IndexedCapsule& capsule : capsules) {
    if (bad_.contains(capsule.object.name)) continue;
    DiskEntry entry;
    entry.id = capsule.id;
    entry.fingerprint = fingerprint;
    entry.note = capsule.note;
    entry.bytes = AlignUp(capsule.object.bytes, kDiskPage);
    for (const auto& name_space : name_spaces) {
      if (name_space.id == capsule.name_space) entry.name_space = name_space.name;
    }
    const bool is_known = known.contains(capsule.id);
    if (!is_known) entry.tokens.resize(static_cast<size_t>(capsule.position));
    bool whole = true;
    bool alone = true;  // so far only this capsule needs the segments
    int32_t until = capsule.position;
    for (int64_t id = capsule.segment; id != 0 && whole;) {
      const auto found = segments.find(id);
      whole = found != segments.end() && !found->second.bad && found->second.segment->first < until && until <= found->second.segment->last;
      if (!whole) break;
      Node& node = found->second;
      if (!is_known) {
        if (!node.tokens) {
          REPRISE_ASSIGN_OR_RETURN(node.tokens, index_->Tokens(id));
        }
        std::copy_n(node.tokens->begin(), until - node.segment->first, entry.tokens.begin() + node.segment->first);
      }
      alone = alone && node.users == 1;
      if (alone) entry.bytes += AlignUp(node.segment->object.bytes, kDiskPage);
      until = node.segment->first;
      id = node.segment->parent;
    }
    if (whole && until == 0) entries.push_back(std::move(entry));
  }
  return entries;
}

Result<DiskStore::Located> DiskStore::Locate(int64_t id) {
  REPRISE_ASSIGN_OR_RETURN(const Transaction transaction, index_->Read());
  REPRISE_ASSIGN_OR_RETURN(const auto capsule, index_->Capsule(id));
  if (!capsule) return NotFound(fmt::format("the store lists no capsule {}", id));
  Located located;
  located.capsule = *capsule;
  REPRISE_ASSIGN_OR_RETURN(const auto name_spaces, index_->Namespaces());
  for (const auto& name_space : name_spaces) {
    if (name_space.id == capsule->name_space) located.name_space = name_space;
  }
  REPRISE_ASSIGN_OR_RETURN(const auto chain, index_->Chain(capsule->segment));
  for (size_t i = 0; i < chain.size(); ++i) {
    located.path.push_back({chain[i], i + 1 < chain.size() ? chain[i + 1].first : capsule->position});
    const auto& step = located.path.back();
    if (step.until <= step.segment.first || step.until > step.segment.last) {
      return Corrupt(fmt::format("'{}' is damaged: capsule {} does not lie on its segments", Index::kFile, id));
    }
  }
  return located;
}

Result<std::unique_ptr<ObjectReader>> DiskStore::OpenObject(const IndexedObject& object, ObjectKind kind, const Fingerprint& fingerprint,
                                                            const Digest& salt, int32_t first, int32_t last, const Digest& below) {
  const std::string name = ObjectPath(object.name);
  REPRISE_ASSIGN_OR_RETURN(auto file, files_->OpenFile(name));
  REPRISE_ASSIGN_OR_RETURN(ObjectReader reader, ObjectReader::Open(std::move(file), name));
  const ObjectHead& head = reader.head();
  // Sound, and yet perhaps another one: put in its place, or rewritten.
  if (reader.seal() != object.seal || reader.shape().total != object.bytes || head.kind != kind || head.fingerprint != fingerprint ||
      head.salt != salt || head.first != first || head.last != last || head.below != below) {
    return Corrupt(fmt::format("'{}' is not the object that the index lists under this name", name));
  }
  return std::make_unique<ObjectReader>(std::move(reader));
}

Status DiskStore::Update(int64_t id, const DiskNote& note) {
  REPRISE_RETURN_IF_ERROR(Writable());
  if (note.name.size() > kMaxStoreName) return InvalidArgument(fmt::format("a name of {} bytes is too long", note.name.size()));
  if (note.metadata.size() > Capsule::kMaxMetadata)
    return InvalidArgument(fmt::format("metadata of {} bytes is too long", note.metadata.size()));
  const std::lock_guard lock(mutex_);
  REPRISE_ASSIGN_OR_RETURN(Transaction transaction, index_->Write());
  REPRISE_ASSIGN_OR_RETURN(auto capsule, index_->Capsule(id));
  if (!capsule) return NotFound(fmt::format("the store lists no capsule {}", id));
  const DiskNote was = std::exchange(capsule->note, note);
  capsule->note.id = was.id;
  capsule->note.keep = was.keep;
  capsule->note.created = was.created;
  REPRISE_RETURN_IF_ERROR(index_->Update(*capsule));
  return transaction.Commit();
}

Status DiskStore::Remove(int64_t id) {
  REPRISE_RETURN_IF_ERROR(Writable());
  const std::lock_guard lock(mutex_);
  std::vector<Digest> objects;
  {
    REPRISE_ASSIGN_OR_RETURN(Transaction transaction, index_->Write());
    REPRISE_RETURN_IF_ERROR(index_->RemoveCapsule(id, objects));
    if (objects.empty()) return NotFound(fmt::format("the store lists no capsule {}", id));
    REPRISE_RETURN_IF_ERROR(transaction.Commit());
  }
  return Unlink(objects);
}

Status DiskStore::Unlink(const std::vector<Digest>& objects) {
  if (objects.empty()) return Ok();
  // Under the lock of writers, and only what is still not listed: an object that was removed may be written again under the same name.
  const auto unlink = [&]() -> Status {
    REPRISE_ASSIGN_OR_RETURN(const Transaction transaction, index_->Write());
    Status first_error;
    for (const Digest& object : objects) {
      REPRISE_ASSIGN_OR_RETURN(const bool listed, index_->Lists(object));
      if (listed) continue;
      Status status = files_->Remove(ObjectPath(object));
      if (!status.ok() && status.code() != StatusCode::kNotFound && first_error.ok()) first_error = std::move(status);
    }
    return first_error;
  };
  // What stays is an orphan: nothing wrong, only room that is not free yet.
  if (!unlink().ok()) sweep_due_ = true;
  return Ok();
}

Result<uint64_t> DiskStore::Usage() {
  REPRISE_ASSIGN_OR_RETURN(uint64_t bytes, index_->ObjectBytes());
  for (const char* folder : {"", kTemporary, kQuarantine}) {
    REPRISE_ASSIGN_OR_RETURN(const auto files, files_->List(folder));
    for (const auto& file : files) bytes += AlignUp(file.bytes, kDiskPage);
  }
  return bytes;
}

uint64_t DiskStore::bytes() const {
  const std::lock_guard lock(mutex_);
  const auto usage = const_cast<DiskStore*>(this)->Usage();
  return usage.ok() ? *usage : 0;
}

}  // namespace reprise
