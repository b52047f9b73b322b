// The care of a directory: what a crash or damage left is found, put aside, removed, or made good.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <utility>

#include "base/checked.h"
#include "store/disk_store.h"

namespace reprise {

// Called with the lock held. The object and what rests on it are no longer listed; the file is kept aside, to be looked at.
Result<bool> DiskStore::Quarantine(const Digest& object, std::string_view why) {
  if (read_only_) {
    if (bad_.insert(object).second) Notice(fmt::format("{}; it is not used, and stays where it is since the directory is read-only", why));
    return true;
  }
  std::vector<Digest> objects;
  std::vector<int64_t> capsules;
  {
    REPRISE_ASSIGN_OR_RETURN(Transaction transaction, index_->Write());
    REPRISE_ASSIGN_OR_RETURN(auto segments, index_->Segments());
    REPRISE_ASSIGN_OR_RETURN(auto all, index_->Capsules());
    REPRISE_ASSIGN_OR_RETURN(const auto name_spaces, index_->Namespaces());
    // Looked at once more, now that nobody writes: it may have been removed and put again since it was found to be bad.
    std::erase_if(all, [&](const IndexedCapsule& capsule) { return capsule.object.name != object; });
    const auto findings = Examine(all, segments, name_spaces, &object);
    if (std::none_of(findings.begin(), findings.end(), [](const Finding& finding) { return finding.damaged; })) return false;
    for (const IndexedSegment& segment : segments) {
      if (segment.object.name == object) REPRISE_RETURN_IF_ERROR(index_->RemoveSegment(segment.id, objects, capsules));
    }
    for (const IndexedCapsule& capsule : all) {
      capsules.push_back(capsule.id);
      REPRISE_RETURN_IF_ERROR(index_->RemoveCapsule(capsule.id, objects));
    }
    (void)files_->Rename(ObjectPath(object), fmt::format("{}/{}", kQuarantine, HexOf(object)));
    REPRISE_RETURN_IF_ERROR(transaction.Commit());
  }
  Notice(fmt::format("{}; it was put into quarantine, and {} capsule{} that rested on it can no longer be used", why, capsules.size(),
                     capsules.size() == 1 ? "" : "s"));
  REPRISE_RETURN_IF_ERROR(Unlink(objects));
  return true;
}

Result<std::vector<std::string>> DiskStore::Orphans() {
  std::vector<std::string> orphans;
  REPRISE_ASSIGN_OR_RETURN(const auto listed, index_->Objects());
  REPRISE_ASSIGN_OR_RETURN(const auto objects, files_->List(kObjects));
  for (const auto& file : objects) {
    const auto name = DigestFromHex(file.name);
    if (!name || !std::binary_search(listed.begin(), listed.end(), *name)) orphans.push_back(fmt::format("{}/{}", kObjects, file.name));
  }
  return orphans;
}

// Called with the lock held.
Result<uint64_t> DiskStore::Sweep() {
  REPRISE_RETURN_IF_ERROR(index_->Overwrite());
  uint64_t freed = 0;
  REPRISE_ASSIGN_OR_RETURN(const Transaction transaction, index_->Write());
  REPRISE_ASSIGN_OR_RETURN(const auto listed, index_->Objects());
  for (const char* folder : {kObjects, kTemporary}) {
    REPRISE_ASSIGN_OR_RETURN(const auto files, files_->List(folder));
    for (const auto& file : files) {
      const auto name = DigestFromHex(file.name);
      if (folder == kObjects && name && std::binary_search(listed.begin(), listed.end(), *name)) continue;
      REPRISE_ASSIGN_OR_RETURN(const bool gone, files_->RemoveAbandoned(fmt::format("{}/{}", folder, file.name)));
      if (gone) freed += file.bytes;
    }
  }
  sweep_due_ = false;
  return freed;
}

Result<DiskTier::CheckReport> DiskStore::Check() {
  CheckReport report;
  std::vector<IndexedCapsule> capsules;
  std::vector<IndexedSegment> segments;
  std::vector<IndexedNamespace> name_spaces;
  {
    const std::lock_guard lock(mutex_);
    if (Status status = index_->Verify(); !status.ok()) report.faults.push_back(status.message());
    REPRISE_ASSIGN_OR_RETURN(const Transaction transaction, index_->Read());
    REPRISE_ASSIGN_OR_RETURN(capsules, index_->Capsules());
    REPRISE_ASSIGN_OR_RETURN(segments, index_->Segments());
    REPRISE_ASSIGN_OR_RETURN(name_spaces, index_->Namespaces());
    REPRISE_ASSIGN_OR_RETURN(report.orphans, Orphans());
    REPRISE_ASSIGN_OR_RETURN(report.bytes, Usage());
  }
  for (const Finding& finding : Examine(capsules, segments, name_spaces)) {
    const std::lock_guard lock(mutex_);
    // Removed, or removed and put again, while this looked: only what is still wrong is a fault.
    REPRISE_ASSIGN_OR_RETURN(auto now_capsules, index_->Capsules());
    REPRISE_ASSIGN_OR_RETURN(const auto now_segments, index_->Segments());
    std::erase_if(now_capsules, [&](const IndexedCapsule& capsule) { return capsule.object.name != finding.object; });
    if (!Examine(now_capsules, now_segments, name_spaces, &finding.object).empty()) report.faults.push_back(finding.what);
  }
  report.capsules = static_cast<int64_t>(capsules.size());
  report.objects = static_cast<int64_t>(capsules.size() + segments.size());
  return report;
}

std::vector<DiskStore::Finding> DiskStore::Examine(const std::vector<IndexedCapsule>& capsules, const std::vector<IndexedSegment>& segments,
                                                   const std::vector<IndexedNamespace>& name_spaces, const Digest* only) {
  std::vector<Finding> findings;
  std::map<int64_t, const IndexedSegment*> by_id;
  std::map<int64_t, Digest> salts;
  for (const IndexedSegment& segment : segments) by_id[segment.id] = &segment;
  for (const IndexedNamespace& name_space : name_spaces) salts[name_space.id] = name_space.salt;
  const auto find = [&](const Digest& object, const Status& status, std::string_view of) {
    if (status.ok()) return;
    const bool damaged = status.code() == StatusCode::kCorrupt || status.code() == StatusCode::kNotFound;
    findings.push_back({object, fmt::format("{}: {}", of, status.message()), damaged});
  };
  const auto below = [&](int64_t segment) { return by_id.contains(segment) ? by_id[segment]->object.name : Digest{}; };
  const auto examine = [&](const IndexedObject& object, ObjectKind kind, const Fingerprint& fingerprint, int64_t name_space, int32_t first,
                           int32_t last, const Digest& rests_on) -> Status {
    REPRISE_ASSIGN_OR_RETURN(const auto reader, OpenObject(object, kind, fingerprint, salts[name_space], first, last, rests_on));
    for (size_t i = 0; i < reader->shape().sections.size(); ++i) {
      REPRISE_RETURN_IF_ERROR(reader->ScanSection(i, [](std::span<const std::byte>) { return Ok(); }));
    }
    REPRISE_ASSIGN_OR_RETURN(const Digest name, reader->ComputeName());
    return name == object.name ? Ok() : Corrupt(fmt::format("'{}' is damaged: its digest is another", ObjectPath(object.name)));
  };
  for (const IndexedSegment& segment : segments) {
    if (only != nullptr && segment.object.name != *only) continue;
    find(segment.object.name,
         examine(segment.object, ObjectKind::kSegment, segment.fingerprint, segment.name_space, segment.first, segment.last,
                 below(segment.parent)),
         fmt::format("rows {} to {}", segment.first, segment.last));
  }
  for (const IndexedCapsule& capsule : capsules) {
    find(capsule.object.name,
         examine(capsule.object, ObjectKind::kBlock, capsule.fingerprint, capsule.name_space, capsule.position, capsule.position,
                 below(capsule.segment)),
         fmt::format("capsule {}", capsule.id));
  }
  return findings;
}

Result<uint64_t> DiskStore::CollectGarbage() {
  REPRISE_RETURN_IF_ERROR(Writable());
  std::vector<IndexedCapsule> capsules;
  std::vector<IndexedSegment> segments;
  std::vector<IndexedNamespace> name_spaces;
  uint64_t freed = 0;
  {
    const std::lock_guard lock(mutex_);
    REPRISE_ASSIGN_OR_RETURN(const auto quarantined, files_->List(kQuarantine));
    for (const auto& file : quarantined) {
      REPRISE_RETURN_IF_ERROR(files_->Remove(fmt::format("{}/{}", kQuarantine, file.name)));
      freed += file.bytes;
    }
    REPRISE_ASSIGN_OR_RETURN(const Transaction transaction, index_->Read());
    REPRISE_ASSIGN_OR_RETURN(capsules, index_->Capsules());
    REPRISE_ASSIGN_OR_RETURN(segments, index_->Segments());
    REPRISE_ASSIGN_OR_RETURN(name_spaces, index_->Namespaces());
  }
  const auto findings = Examine(capsules, segments, name_spaces);
  const std::lock_guard lock(mutex_);
  for (const Finding& finding : findings) {
    if (finding.damaged) REPRISE_RETURN_IF_ERROR(Quarantine(finding.object, finding.what).status());
  }
  REPRISE_ASSIGN_OR_RETURN(const uint64_t swept, Sweep());
  return freed + swept;
}

// Into an empty index, from what the objects say of themselves. Payloads are not read: Load verifies them as ever.
Status DiskStore::Rebuild() {
  REPRISE_ASSIGN_OR_RETURN(const auto files, files_->List(kObjects));
  std::vector<Digest> waiting;
  std::map<Digest, ObjectHead> heads;
  std::map<Digest, IndexedObject> objects;
  for (const auto& file : files) {
    const auto name = DigestFromHex(file.name);
    if (!name) continue;
    auto opened = files_->OpenFile(ObjectPath(*name));
    if (!opened.ok()) continue;
    auto reader = ObjectReader::Open(*std::move(opened), ObjectPath(*name));
    if (!reader.ok()) continue;
    objects[*name] = {*name, reader->shape().total, reader->seal()};
    heads[*name] = std::move(reader->head());
  }
  REPRISE_ASSIGN_OR_RETURN(Transaction transaction, index_->Write());
  // Ids that were given before are not given again: seconds pass faster than capsules are written.
  REPRISE_RETURN_IF_ERROR(index_->StartIdsAt(std::time(nullptr)));
  std::map<Digest, IndexedNamespace> name_spaces;  // by salt
  for (const auto& [name, head] : heads) {
    if (head.kind != ObjectKind::kBlock || name_spaces.contains(head.salt)) continue;
    REPRISE_ASSIGN_OR_RETURN(const auto known, index_->FindNamespace(head.name_space));
    if (known) continue;  // two salts for one namespace: one of them is not ours
    REPRISE_ASSIGN_OR_RETURN(name_spaces[head.salt], index_->AddNamespace(head.name_space, head.salt));
  }
  // Parents before children: first rows rise along a path.
  waiting.reserve(heads.size());
  for (const auto& [name, head] : heads) waiting.push_back(name);
  std::sort(waiting.begin(), waiting.end(), [&](const Digest& a, const Digest& b) {
    const ObjectHead& x = heads[a];
    const ObjectHead& y = heads[b];
    if (x.kind != y.kind) return x.kind == ObjectKind::kSegment;
    if (x.first != y.first) return x.first < y.first;
    return x.note.created != y.note.created ? x.note.created < y.note.created : a < b;  // the newest of two keeps a name
  });
  std::map<Digest, std::pair<int64_t, const ObjectHead*>> segments;
  for (const Digest& name : waiting) {
    const ObjectHead& head = heads[name];
    const auto name_space = name_spaces.find(head.salt);
    if (name_space == name_spaces.end()) continue;
    int64_t below = 0;
    if (head.below != Digest{}) {
      const auto found = segments.find(head.below);
      if (found == segments.end()) continue;
      const ObjectHead& rests_on = *found->second.second;
      const bool fits = rests_on.first < head.first && head.first <= rests_on.last && rests_on.fingerprint == head.fingerprint &&
                        rests_on.salt == head.salt && rests_on.layout == head.layout;
      if (!fits) continue;
      below = found->second.first;
    }
    if (head.kind == ObjectKind::kSegment) {
      REPRISE_ASSIGN_OR_RETURN(const int64_t id, index_->Insert(IndexedSegment{0, below, name_space->second.id, head.fingerprint,
                                                                               head.first, head.last, objects[name]},
                                                                head.tokens));
      segments[name] = {id, &head};
    } else {
      REPRISE_RETURN_IF_ERROR(
          index_->Insert(IndexedCapsule{0, below, name_space->second.id, head.fingerprint, head.last, objects[name], head.note}).status());
    }
  }
  return transaction.Commit();
}

}  // namespace reprise
