// Capsules that leave a directory as objects, and objects that arrive to become capsules of it.
//
// What arrives keeps its payload and is written anew around it: with this directory's salt, resting on this directory's segments. Rows that are here
// already are verified like the rest, and not written again.
#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "base/checked.h"
#include "store/disk_store.h"
#include "store/object_format.h"

namespace reprise {

using namespace object_format;

Result<DiskTier::Shipment> DiskStore::PlanExport(std::span<const int64_t> ids) {
  const std::lock_guard lock(mutex_);
  Shipment shipment;
  std::set<int64_t> segments;
  std::set<int64_t> capsules;
  std::vector<Digest> blocks;
  for (const int64_t id : ids) {
    if (!capsules.insert(id).second) continue;
    REPRISE_ASSIGN_OR_RETURN(const Located located, Locate(id));
    if (blocks.empty()) {
      shipment.name_space = located.name_space.name;
      shipment.fingerprint = located.capsule.fingerprint;
    }
    if (shipment.name_space != located.name_space.name || shipment.fingerprint != located.capsule.fingerprint) {
      return InvalidArgument("capsules of different namespaces or models cannot be exported together");
    }
    for (const auto& step : located.path) {
      if (segments.insert(step.segment.id).second) shipment.objects.push_back(step.segment.object.name);
    }
    blocks.push_back(located.capsule.object.name);
  }
  if (blocks.empty()) return InvalidArgument("no capsule was given to export");
  shipment.capsules = static_cast<uint32_t>(blocks.size());
  shipment.objects.insert(shipment.objects.end(), blocks.begin(), blocks.end());
  return shipment;
}

Result<std::unique_ptr<ReadableFile>> DiskStore::OpenExported(const Digest& object) { return files_->OpenFile(ObjectPath(object)); }

struct DiskStore::Intake {
  IndexedNamespace name_space;
  Fingerprint fingerprint;
  Digest layout{};
  bool any = false;

  struct Segment {
    std::vector<int32_t> path;  // all tokens from the root to its last row
    int32_t first = 0;
    int arrived = -1;  // which of `objects` it becomes; -1: its rows are here already
  };
  std::map<Digest, Segment> segments;  // by the name that it had where it came from

  struct Object {
    ObjectHead head;
    std::optional<TemporaryFile> file;
    IndexedObject object;
    int below = -1;            // which of `objects` it rests on,
    int64_t below_listed = 0;  // or which segment
    int64_t there = 0;         // a capsule that stands for it
  };
  std::vector<Object> objects;
};

Result<std::vector<int64_t>> DiskStore::Import(const Arrival& arrival, ObjectStream& stream) {
  REPRISE_RETURN_IF_ERROR(Writable());
  uint64_t bytes = 0;
  for (const uint64_t size : stream.sizes()) {
    const auto sum = CheckedAdd(bytes, size);
    if (!sum || size < kHeaderBytes) return Corrupt("it holds an object of an impossible size");
    bytes = *sum;
  }
  if (bytes > options_.budget) {
    return Exhausted(fmt::format("its {} bytes do not fit the budget of {} of the store's directory", bytes, options_.budget));
  }
  Intake intake;
  intake.fingerprint = arrival.fingerprint;
  REPRISE_ASSIGN_OR_RETURN(intake.name_space, Welcome(arrival, bytes + stream.sizes().size() * kDiskPage));
  for (const uint64_t size : stream.sizes()) REPRISE_RETURN_IF_ERROR(TakeIn(intake, stream, size));
  REPRISE_RETURN_IF_ERROR(stream.Finish());
  return ListIntake(arrival, intake);
}

// Room for all of it, and the namespace.
Result<IndexedNamespace> DiskStore::Welcome(const Arrival& arrival, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  constexpr int kTries = 4;
  for (int i = 0; i < kTries; ++i) {
    REPRISE_ASSIGN_OR_RETURN(Transaction transaction, index_->Write());
    REPRISE_ASSIGN_OR_RETURN(const bool seen, index_->HasBundle(arrival.id));
    if (seen) return InvalidArgument("it was imported before");
    REPRISE_ASSIGN_OR_RETURN(const uint64_t used, Usage());
    const uint64_t needed = used + bytes + kIndexMargin;
    if (needed > options_.budget) {
      std::vector<int64_t> evicted;
      REPRISE_RETURN_IF_ERROR(MakeRoom({}, needed - options_.budget, std::numeric_limits<double>::infinity(), transaction, evicted));
      continue;
    }
    REPRISE_ASSIGN_OR_RETURN(const auto known, index_->FindNamespace(arrival.name_space));
    if (known) return *known;
    Digest salt;
    ::randombytes_buf(salt.data(), salt.size());
    REPRISE_ASSIGN_OR_RETURN(IndexedNamespace added, index_->AddNamespace(arrival.name_space, salt));
    REPRISE_RETURN_IF_ERROR(transaction.Commit());
    return added;
  }
  return Exhausted("other processes take the room in the store's directory as fast as it is made");
}

// Where an object belongs here. `head` becomes that of this directory; `wanted` tells whether it has to be written.
Status DiskStore::Settle(Intake& intake, ObjectHead& head, const Digest& source, bool& wanted) {
  if (head.fingerprint != intake.fingerprint) return Mismatch("it holds an object of another fingerprint than its header says");
  if (intake.any && head.layout != intake.layout) return Corrupt("its objects are of different layouts");
  intake.layout = head.layout;
  intake.any = true;
  Intake::Object object;
  const Intake::Segment* below = nullptr;
  std::vector<int32_t> path;
  if (head.below != Digest{}) {
    const auto found = intake.segments.find(head.below);
    if (found == intake.segments.end()) return Corrupt("an object rests on one that is not there before it");
    below = &found->second;
    const auto last = static_cast<int32_t>(below->path.size());
    if (head.first <= below->first || head.first > last) return Corrupt("an object rests on rows that are not there");
    path.assign(below->path.begin(), below->path.begin() + head.first);
    object.below = below->arrived;
  }
  path.insert(path.end(), head.tokens.begin(), head.tokens.end());

  const std::lock_guard lock(mutex_);
  REPRISE_ASSIGN_OR_RETURN(const auto known, index_->Walk(intake.name_space.id, intake.fingerprint, path));
  const bool all_here = !known.empty() && known.back().until == static_cast<int32_t>(path.size());
  if (head.kind == ObjectKind::kSegment) {
    wanted = !all_here;
    Intake::Segment& segment = intake.segments[source];
    if (!segment.path.empty()) return Corrupt("it holds an object twice");
    segment.first = head.first;
    segment.arrived = wanted ? static_cast<int>(intake.objects.size()) : -1;
    segment.path = std::move(path);
  } else {
    wanted = true;
    if (head.note.keep != Keep::kRequested && head.note.name.empty() && (all_here || path.empty())) {
      REPRISE_ASSIGN_OR_RETURN(const auto there, index_->AutomaticAt(known, intake.name_space.id, intake.fingerprint, head.last));
      wanted = !there.has_value();
      object.there = there.value_or(0);
    }
  }
  if (wanted && below != nullptr && object.below < 0) {
    for (const auto& step : known) {
      if (step.segment.first < head.first && head.first <= step.until)
        object.below_listed = step.segment.id, head.below = step.segment.object.name;
    }
    if (object.below_listed == 0) return IoError("another process removed rows that the bundle rests on");
  }
  if (object.below >= 0) head.below = intake.objects[static_cast<size_t>(object.below)].object.name;
  head.salt = intake.name_space.salt;
  head.name_space = head.kind == ObjectKind::kBlock ? intake.name_space.name : "";
  if (head.kind == ObjectKind::kBlock)
    head.note.id = 1 + ::randombytes_uniform(0x7fffffff) + (uint64_t{::randombytes_uniform(1 << 21)} << 31);
  if (wanted || head.kind == ObjectKind::kBlock) {
    object.head = head;
    intake.objects.push_back(std::move(object));
  }
  return Ok();
}

// One object: verified as it passes, and written as one of this directory.
Status DiskStore::TakeIn(Intake& intake, ObjectStream& stream, uint64_t bytes) {
  crypto_generichash_state digest;
  crypto_generichash_init(&digest, nullptr, 0, sizeof(Digest));
  uint64_t left = bytes;
  const auto read = [&](std::span<std::byte> into) -> Status {
    if (into.size() > left) return Corrupt("an object goes beyond its end");
    REPRISE_RETURN_IF_ERROR(stream.Read(into));
    crypto_generichash_update(&digest, reinterpret_cast<const unsigned char*>(into.data()), into.size());
    left -= into.size();
    return Ok();
  };
  const auto read_padding = [&](uint64_t after) -> Status {
    std::byte padding[kAlignment];
    const auto pad = std::span(padding).first(AlignUp(after, kAlignment) - after);
    REPRISE_RETURN_IF_ERROR(read(pad));
    return std::all_of(pad.begin(), pad.end(), [](std::byte b) { return b == std::byte{0}; }) ? Ok() : Corrupt("its padding is not zero");
  };
  std::vector<std::byte> header(kHeaderBytes);
  REPRISE_RETURN_IF_ERROR(read(header));
  REPRISE_ASSIGN_OR_RETURN(const uint64_t details_bytes, AnnouncedDetails(header, bytes));
  std::vector<std::byte> details(details_bytes);
  REPRISE_RETURN_IF_ERROR(read(details));
  REPRISE_ASSIGN_OR_RETURN(ObjectHead head, ParseObjectHead(header, details));
  REPRISE_ASSIGN_OR_RETURN(const ObjectShape shape, ObjectShape::Of(head));
  if (shape.total != bytes) return Corrupt(fmt::format("an object's states take {} bytes; it has {}", shape.total, bytes));
  REPRISE_RETURN_IF_ERROR(read_padding(details.size()));

  // The name that others rest on comes out at the end, so a segment is settled under a stand-in until then.
  const Digest stand_in = {0xff};
  bool wanted = false;
  REPRISE_RETURN_IF_ERROR(Settle(intake, head, stand_in, wanted));
  Intake::Object* const object = wanted ? &intake.objects.back() : nullptr;
  std::optional<ObjectWriter> writer;
  if (wanted) {
    REPRISE_ASSIGN_OR_RETURN(const ObjectShape here, ObjectShape::Of(head));
    REPRISE_ASSIGN_OR_RETURN(object->file, TemporaryFile::Create(*files_, here.total));
    REPRISE_ASSIGN_OR_RETURN(writer, ObjectWriter::Start(head, object->file->file()));
    object->object.bytes = here.total;
  }
  std::vector<uint64_t> checksums;
  std::vector<std::byte> buffer;
  for (const auto& section : shape.sections) {
    RunningChecksum checksum;
    for (uint64_t done = 0; done < section.bytes; done += buffer.size()) {
      buffer.resize(std::min<uint64_t>(section.bytes - done, kPieceBytes));
      REPRISE_RETURN_IF_ERROR(read(buffer));
      checksum.Add(buffer);
      if (writer) REPRISE_RETURN_IF_ERROR(writer->Write(buffer));
    }
    REPRISE_RETURN_IF_ERROR(read_padding(section.bytes));
    checksums.push_back(checksum.value());
  }
  std::vector<uint64_t> table(shape.sections.size() + 1);
  REPRISE_RETURN_IF_ERROR(read(std::as_writable_bytes(std::span(table))));
  checksums.push_back(Checksum(std::as_bytes(std::span(checksums))));
  if (table != checksums) return Corrupt("an object's checksums do not match");
  REPRISE_RETURN_IF_ERROR(read_padding(table.size() * sizeof(uint64_t)));
  if (left != 0) return Corrupt("an object goes on after its end");

  Digest name;
  crypto_generichash_final(&digest, name.data(), name.size());
  if (head.kind == ObjectKind::kSegment) {
    auto settled = intake.segments.extract(stand_in);
    settled.key() = name;
    if (!intake.segments.insert(std::move(settled)).inserted) return Corrupt("it holds an object twice");
  }
  if (!writer) return Ok();
  REPRISE_ASSIGN_OR_RETURN(const ObjectId id, writer->Finish());
  REPRISE_RETURN_IF_ERROR(object->file->file().Sync());
  object->object.name = id.name;
  object->object.seal = id.seal;
  bytes_written_ += object->object.bytes;
  if (head.kind == ObjectKind::kSegment) rows_written_ += static_cast<uint64_t>(head.last - head.first);
  return Ok();
}

Result<std::vector<int64_t>> DiskStore::ListIntake(const Arrival& arrival, Intake& intake) {
  const auto is_block = [](const auto& object) { return object.head.kind == ObjectKind::kBlock; };
  if (std::count_if(intake.objects.begin(), intake.objects.end(), is_block) != arrival.capsules) {
    return Corrupt(fmt::format("it says that it has {} capsules, and has another number", arrival.capsules));
  }
  const std::lock_guard lock(mutex_);
  REPRISE_ASSIGN_OR_RETURN(Transaction transaction, index_->Write());
  REPRISE_ASSIGN_OR_RETURN(const bool seen, index_->HasBundle(arrival.id));
  if (seen) return InvalidArgument("it was imported before");
  const int64_t now = std::time(nullptr);
  REPRISE_RETURN_IF_ERROR(index_->AddBundle(arrival.id, now));
  sweep_due_ = true;  // until this is done: see Commit
  for (auto& object : intake.objects) {
    if (object.there == 0) REPRISE_RETURN_IF_ERROR(object.file->MoveTo(object.object.name));
  }
  REPRISE_RETURN_IF_ERROR(files_->SyncDirectory(kObjects));
  std::vector<int64_t> ids;
  std::vector<int64_t> segment_ids(intake.objects.size());
  for (size_t i = 0; i < intake.objects.size(); ++i) {
    Intake::Object& object = intake.objects[i];
    const ObjectHead& head = object.head;
    if (object.there != 0) {
      ids.push_back(object.there);
      continue;
    }
    const int64_t below = object.below >= 0 ? segment_ids[static_cast<size_t>(object.below)] : object.below_listed;
    if (below != 0) {
      REPRISE_ASSIGN_OR_RETURN(const bool there, index_->HasSegment(below));
      if (!there) return IoError("another process removed rows that the bundle rests on; import it again");
    }
    if (head.kind == ObjectKind::kSegment) {
      // Written by somebody else meanwhile, perhaps: the same rows in the same place are the same object.
      REPRISE_ASSIGN_OR_RETURN(segment_ids[i], index_->SegmentOf(object.object.name));
      if (segment_ids[i] != 0) continue;
      REPRISE_ASSIGN_OR_RETURN(segment_ids[i], index_->Insert(IndexedSegment{0, below, intake.name_space.id, head.fingerprint, head.first,
                                                                             head.last, object.object},
                                                              head.tokens));
    } else {
      IndexedCapsule capsule{0, below, intake.name_space.id, head.fingerprint, head.last, object.object, head.note};
      // What somebody else pinned or named takes neither room for good nor a name that is in use.
      capsule.note.pinned = false;
      capsule.note.used = now;
      REPRISE_ASSIGN_OR_RETURN(const bool taken, index_->HasName(capsule));
      if (taken) capsule.note.name.clear();
      REPRISE_ASSIGN_OR_RETURN(const int64_t id, index_->Insert(capsule));
      ids.push_back(id);
    }
  }
  REPRISE_RETURN_IF_ERROR(transaction.Commit());
  sweep_due_ = false;
  return ids;
}

}  // namespace reprise
