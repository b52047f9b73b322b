// Put: the rows that nobody stored before, and the block, each an object; then the index lists them.
//
// The lock of writers is held twice for a moment: to make room, which files of their full size then occupy, and to list what was written. In between
// the files are written and synced, which may take long, while other processes go on.
#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <optional>
#include <utility>

#include "base/checked.h"
#include "store/disk_evict.h"
#include "store/disk_store.h"

namespace reprise {

Result<TemporaryFile> TemporaryFile::Create(FileSystem& files, uint64_t bytes) {
  uint8_t random[16];
  ::randombytes_buf(random, sizeof(random));
  Digest digest{};
  std::copy(std::begin(random), std::end(random), digest.begin());
  TemporaryFile temporary;
  temporary.name_ = fmt::format("{}/{}", kTemporary, HexOf(digest).substr(0, 2 * sizeof(random)));
  REPRISE_ASSIGN_OR_RETURN(temporary.file_, files.Create(temporary.name_, bytes));
  temporary.files_ = &files;
  return temporary;
}

TemporaryFile::~TemporaryFile() {
  if (file_ != nullptr && !kept_) (void)files_->Remove(name_);
}

Status TemporaryFile::MoveTo(const Digest& name) {
  REPRISE_RETURN_IF_ERROR(files_->Rename(name_, ObjectPath(name)));
  kept_ = true;
  return Ok();
}

struct DiskStore::Draft {
  std::span<const int32_t> tokens;
  const StateLayout* layout = nullptr;
  std::string name_space_name;
  IndexedNamespace name_space;
  Index::Step below;   // the segment on which it rests, and how many rows of the path are stored
  ObjectHead segment;  // of the rows that are not; none when it has no rows
  ObjectHead block;
  std::optional<TemporaryFile> segment_file;
  std::optional<TemporaryFile> block_file;
  IndexedObject segment_object;
  IndexedObject block_object;

  bool has_segment() const { return segment.last > segment.first; }
  uint64_t pages() const { return AlignUp(block_object.bytes, kDiskPage) + (has_segment() ? AlignUp(segment_object.bytes, kDiskPage) : 0); }
};

Result<int64_t> DiskStore::Put(std::string_view name_space, std::span<const int32_t> tokens, const Capsule& capsule, const DiskNote& note,
                               std::vector<int64_t>& evicted) {
  REPRISE_RETURN_IF_ERROR(Writable());
  if (!capsule.valid()) return InvalidArgument("an empty capsule was given to store");
  if (static_cast<uint64_t>(capsule.position()) != tokens.size()) {
    return InvalidArgument(fmt::format("a capsule at position {} was given with {} tokens", capsule.position(), tokens.size()));
  }
  if (std::any_of(tokens.begin(), tokens.end(), [](int32_t t) { return t < 0; })) return InvalidArgument("a token is negative");
  if (name_space.size() > kMaxStoreName || note.name.size() > kMaxStoreName || note.metadata.size() > Capsule::kMaxMetadata) {
    return InvalidArgument(fmt::format("a namespace or name of more than {} bytes, or metadata of more than {}, was given to store",
                                       kMaxStoreName, Capsule::kMaxMetadata));
  }
  Draft draft;
  draft.tokens = tokens;
  draft.layout = &capsule.layout();
  draft.name_space_name = name_space;
  draft.block.note = note;
  draft.block.fingerprint = capsule.fingerprint();
  // Another process may remove what this one meant to rest on; then the rows are written after all.
  constexpr int kTries = 3;
  for (int i = 0; i < kTries; ++i) {
    REPRISE_ASSIGN_OR_RETURN(const int64_t there, Reserve(draft, evicted));
    if (there != 0) return there;
    REPRISE_RETURN_IF_ERROR(Write(draft, capsule));
    REPRISE_ASSIGN_OR_RETURN(const int64_t id, Commit(draft));
    if (id != 0) return id;
  }
  return IoError("another process keeps removing what this capsule would rest on");
}

// Finds out what is to be written, and makes files of that size. Returns the id of an automatic entry that is there already, or 0.
Result<int64_t> DiskStore::Reserve(Draft& draft, std::vector<int64_t>& evicted) {
  const std::lock_guard lock(mutex_);
  if (sweep_due_) (void)Sweep();
  constexpr int kTries = 5;  // another process may take the room that was made
  for (int i = 0; i < kTries; ++i) {
    REPRISE_ASSIGN_OR_RETURN(Transaction transaction, index_->Write());
    REPRISE_RETURN_IF_ERROR(Plan(draft));
    const DiskNote& note = draft.block.note;
    if (note.keep != Keep::kRequested && note.name.empty()) {
      REPRISE_ASSIGN_OR_RETURN(const auto path, index_->Walk(draft.name_space.id, draft.block.fingerprint, draft.tokens));
      REPRISE_ASSIGN_OR_RETURN(const auto there, index_->AutomaticAt(path, draft.name_space.id, draft.block.fingerprint, draft.block.last));
      if (there) return *there;
    }
    // The index grows too: tokens and note, in the log and then in the file, and the pages around them.
    const uint64_t needed = draft.pages() + kIndexMargin +
                            2 * ((draft.has_segment() ? draft.segment.tokens.size() * sizeof(int32_t) : 0) + note.metadata.size());
    REPRISE_ASSIGN_OR_RETURN(const uint64_t used, Usage());
    if (needed > options_.budget || used > options_.budget - needed) {
      if (i == 0) {  // the log is the cheapest to give up
        { const Transaction ended = std::move(transaction); }
        index_->Shrink();
        continue;
      }
      REPRISE_ASSIGN_OR_RETURN(const auto path, index_->Walk(draft.name_space.id, draft.block.fingerprint, draft.tokens));
      const uint64_t missing = used + needed - std::min(used + needed, options_.budget);
      REPRISE_RETURN_IF_ERROR(MakeRoom(path, missing, WorthOf(draft, path), transaction, evicted));
      continue;
    }
    draft.segment_file.reset();
    if (draft.has_segment()) {
      REPRISE_ASSIGN_OR_RETURN(draft.segment_file, TemporaryFile::Create(*files_, draft.segment_object.bytes));
    }
    REPRISE_ASSIGN_OR_RETURN(draft.block_file, TemporaryFile::Create(*files_, draft.block_object.bytes));
    REPRISE_RETURN_IF_ERROR(transaction.Commit());
    return 0;
  }
  return Exhausted("other processes take the room in the store's directory as fast as it is made");
}

Status DiskStore::Plan(Draft& draft) {
  REPRISE_ASSIGN_OR_RETURN(const auto known, index_->FindNamespace(draft.name_space_name));
  if (known) {
    draft.name_space = *known;
  } else {
    Digest salt;
    ::randombytes_buf(salt.data(), salt.size());
    REPRISE_ASSIGN_OR_RETURN(draft.name_space, index_->AddNamespace(draft.name_space_name, salt));
  }
  ObjectHead& block = draft.block;
  REPRISE_ASSIGN_OR_RETURN(const auto path, index_->Walk(draft.name_space.id, block.fingerprint, draft.tokens));
  draft.below = path.empty() ? Index::Step() : path.back();
  block.kind = ObjectKind::kBlock;
  block.layout = LayoutDigest(*draft.layout);
  block.salt = draft.name_space.salt;
  block.first = block.last = static_cast<int32_t>(draft.tokens.size());
  block.sizes = SizesOf(*draft.layout, ObjectKind::kBlock);
  block.name_space = draft.name_space_name;
  block.below = draft.below.segment.object.name;  // unless rows are written: then what they become

  ObjectHead& segment = draft.segment;
  segment = ObjectHead();
  segment.kind = ObjectKind::kSegment;
  segment.fingerprint = block.fingerprint;
  segment.layout = block.layout;
  segment.salt = block.salt;
  segment.below = draft.below.segment.object.name;
  segment.first = draft.below.until;
  segment.last = block.last;
  segment.sizes = SizesOf(*draft.layout, ObjectKind::kSegment);
  segment.tokens.assign(draft.tokens.begin() + segment.first, draft.tokens.end());

  REPRISE_ASSIGN_OR_RETURN(const ObjectShape block_shape, ObjectShape::Of(block));
  draft.block_object.bytes = block_shape.total;
  if (!draft.has_segment()) return Ok();
  REPRISE_ASSIGN_OR_RETURN(const ObjectShape segment_shape, ObjectShape::Of(segment));
  draft.segment_object.bytes = segment_shape.total;
  return Ok();
}

// What the draft is worth, a byte, against what would have to go. What was asked for is worth whatever it takes.
double DiskStore::WorthOf(const Draft& draft, const std::vector<Index::Step>& path) {
  const DiskNote& note = draft.block.note;
  if (note.keep == Keep::kRequested || note.pinned || !note.name.empty()) return std::numeric_limits<double>::infinity();
  int32_t above = 0;
  const auto capsules = index_->Capsules();
  if (!capsules.ok()) return 0;
  for (const IndexedCapsule& capsule : *capsules) {
    for (const auto& step : path) {
      if (capsule.segment == step.segment.id && capsule.position <= step.until) above = std::max(above, capsule.position);
    }
  }
  return WorthOnDisk(draft.block.last - above, draft.pages(), note.hits, 0);
}

// Commits `transaction` with what it evicts. What crashed writers left goes first, then what is in quarantine.
Status DiskStore::MakeRoom(const std::vector<Index::Step>& in_use, uint64_t needed, double ceiling, Transaction& transaction,
                           std::vector<int64_t>& evicted) {
  uint64_t freed = 0;
  for (const char* folder : {kTemporary, kQuarantine}) {
    REPRISE_ASSIGN_OR_RETURN(const auto files, files_->List(folder));
    for (const auto& file : files) {
      if (freed >= needed) break;
      REPRISE_ASSIGN_OR_RETURN(const bool gone, files_->RemoveAbandoned(fmt::format("{}/{}", folder, file.name)));
      if (gone) freed += AlignUp(file.bytes, kDiskPage);
    }
  }
  if (freed >= needed) return transaction.Commit();
  REPRISE_ASSIGN_OR_RETURN(const auto capsules, index_->Capsules());
  REPRISE_ASSIGN_OR_RETURN(const auto segments, index_->Segments());
  std::set<int64_t> kept;
  for (const auto& step : in_use) kept.insert(step.segment.id);
  const Eviction eviction = ChooseEviction(capsules, segments, kept, needed - freed, std::time(nullptr), ceiling);
  if (eviction.capsules.empty()) {
    return Exhausted(fmt::format("the store's directory lacks {} bytes within its budget of {}, and holds nothing that is worth less",
                                 needed, options_.budget));
  }
  std::vector<Digest> objects;
  for (const int64_t id : eviction.capsules) REPRISE_RETURN_IF_ERROR(index_->RemoveCapsule(id, objects));
  REPRISE_RETURN_IF_ERROR(transaction.Commit());
  index_->Shrink();  // or the log of the removal would take the room that it made
  evicted.insert(evicted.end(), eviction.capsules.begin(), eviction.capsules.end());
  return Unlink(objects);
}

namespace {

// One piece of memory of a space, as bytes that the host can read.
class Gatherer {
 public:
  explicit Gatherer(StateSpace& space) : space_(space), direct_(space.memory().ordinary()) {}
  Status Give(ObjectWriter& writer, Space space, const std::byte* from, size_t bytes) {
    if (direct_ || space == Space::kHost) return writer.Write(std::span(from, bytes));
    buffer_.resize(bytes);
    space_.Copy(space, buffer_.data(), from, bytes);
    space_.memory().Synchronize();
    return writer.Write(buffer_);
  }

 private:
  StateSpace& space_;
  bool direct_;
  std::vector<std::byte> buffer_;
};

Status WriteRows(ObjectWriter& writer, const ObjectHead& head, StateSpace& space, const HeldState& held) {
  if (!space.has_extents()) return Ok();
  std::vector<const Extent*> extents(CeilDiv(static_cast<uint64_t>(held.position), kExtentRows));
  for (const Extent* extent = held.tip.get(); extent != nullptr; extent = extent->previous)
    extents[static_cast<size_t>(extent->index)] = extent;
  Gatherer gatherer(space);
  for (int32_t row = head.first; row < head.last;) {
    const int32_t within = row % kExtentRows;
    const int32_t rows = std::min(kExtentRows - within, head.last - row);
    const Extent* extent = extents[static_cast<size_t>(row / kExtentRows)];
    for (const StateDecl& state : space.layout().states()) {
      if (state.growth != Growth::kAppend) continue;
      const std::byte* from = extent->data[static_cast<int>(state.space)] + state.offset + static_cast<size_t>(within) * state.bytes;
      REPRISE_RETURN_IF_ERROR(gatherer.Give(writer, state.space, from, static_cast<size_t>(rows) * state.bytes));
    }
    row += rows;
  }
  return Ok();
}

Status WriteBlock(ObjectWriter& writer, StateSpace& space, const HeldState& held) {
  Gatherer gatherer(space);
  for (const StateDecl& state : space.layout().states()) {
    if (state.growth != Growth::kRecurrent) continue;
    const std::byte* from = held.block[static_cast<int>(state.space)]->data + state.offset;
    REPRISE_RETURN_IF_ERROR(gatherer.Give(writer, state.space, from, state.bytes));
  }
  return Ok();
}

}  // namespace

Status DiskStore::Write(Draft& draft, const Capsule& capsule) {
  StateSpace& space = *capsule.space();
  const HeldState held = capsule.Hold();
  if (draft.has_segment()) {
    REPRISE_ASSIGN_OR_RETURN(ObjectWriter writer, ObjectWriter::Start(draft.segment, draft.segment_file->file()));
    REPRISE_RETURN_IF_ERROR(WriteRows(writer, draft.segment, space, held));
    REPRISE_ASSIGN_OR_RETURN(const ObjectId id, writer.Finish());
    REPRISE_RETURN_IF_ERROR(draft.segment_file->file().Sync());
    draft.segment_object = {id.name, draft.segment_object.bytes, id.seal};
    draft.block.below = id.name;
    bytes_written_ += draft.segment_object.bytes;
    rows_written_ += static_cast<uint64_t>(draft.segment.last - draft.segment.first);
  }
  REPRISE_ASSIGN_OR_RETURN(ObjectWriter writer, ObjectWriter::Start(draft.block, draft.block_file->file()));
  REPRISE_RETURN_IF_ERROR(WriteBlock(writer, space, held));
  REPRISE_ASSIGN_OR_RETURN(const ObjectId id, writer.Finish());
  REPRISE_RETURN_IF_ERROR(draft.block_file->file().Sync());
  draft.block_object = {id.name, draft.block_object.bytes, id.seal};
  bytes_written_ += draft.block_object.bytes;
  return Ok();
}

// Returns 0 when what the draft rests on has gone meanwhile.
Result<int64_t> DiskStore::Commit(Draft& draft) {
  const std::lock_guard lock(mutex_);
  REPRISE_ASSIGN_OR_RETURN(Transaction transaction, index_->Write());
  int64_t segment = draft.below.segment.id;
  if (segment != 0) {
    REPRISE_ASSIGN_OR_RETURN(const bool there, index_->HasSegment(segment));
    if (!there) return 0;
  }
  // The same state at the same place with the same note is the same capsule.
  REPRISE_ASSIGN_OR_RETURN(const int64_t same, index_->CapsuleOf(draft.block_object.name));
  if (same != 0) return same;
  // From here on a failure leaves files that nothing lists, or a lost commit's frames in the log: the next sweep sees to both.
  sweep_due_ = true;
  // Whoever wrote the same rows at the same time made the same object.
  int64_t twin = 0;
  if (draft.has_segment()) {
    REPRISE_ASSIGN_OR_RETURN(twin, index_->SegmentOf(draft.segment_object.name));
    if (twin == 0) REPRISE_RETURN_IF_ERROR(draft.segment_file->MoveTo(draft.segment_object.name));
  }
  REPRISE_RETURN_IF_ERROR(draft.block_file->MoveTo(draft.block_object.name));
  REPRISE_RETURN_IF_ERROR(files_->SyncDirectory(kObjects));
  if (twin != 0) {
    segment = twin;
  } else if (draft.has_segment()) {
    const ObjectHead& head = draft.segment;
    REPRISE_ASSIGN_OR_RETURN(segment, index_->Insert(IndexedSegment{0, segment, draft.name_space.id, head.fingerprint, head.first,
                                                                    head.last, draft.segment_object},
                                                     head.tokens));
  }
  REPRISE_ASSIGN_OR_RETURN(const int64_t id, index_->Insert(IndexedCapsule{0, segment, draft.name_space.id, draft.block.fingerprint,
                                                                           draft.block.last, draft.block_object, draft.block.note}));
  REPRISE_RETURN_IF_ERROR(transaction.Commit());
  sweep_due_ = false;
  return id;
}

}  // namespace reprise
