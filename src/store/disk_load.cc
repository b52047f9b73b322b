// Load: the block and the rows, each read once and verified, straight into the memory that the capsule will hold where that is ordinary memory.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/checked.h"
#include "store/disk_store.h"

namespace reprise {
namespace {

// A section's pieces of memory, or a buffer that stands for them until the section is verified.
class Scatter {
 public:
  explicit Scatter(StateSpace& space) : space_(space), direct_(space.memory().ordinary()) {}

  void Add(Space space, std::byte* to, size_t bytes) { pieces_.push_back({space, {to, bytes}}); }

  Status Read(ObjectReader& reader, size_t section) {
    std::vector<std::span<std::byte>> into;
    size_t bytes = 0;
    for (const Piece& piece : pieces_) bytes += piece.memory.size();
    if (direct_) {
      for (const Piece& piece : pieces_) into.push_back(piece.memory);
    } else {
      buffer_.resize(bytes);
      into.emplace_back(buffer_);
    }
    REPRISE_RETURN_IF_ERROR(reader.ReadSection(section, into));
    if (!direct_) {
      const std::byte* from = buffer_.data();
      for (const Piece& piece : pieces_) {
        space_.Copy(piece.space, piece.memory.data(), from, piece.memory.size());
        from += piece.memory.size();
      }
      space_.memory().Synchronize();  // the buffer is used again
    }
    pieces_.clear();
    return Ok();
  }

 private:
  struct Piece {
    Space space;
    std::span<std::byte> memory;
  };
  StateSpace& space_;
  bool direct_;
  std::vector<Piece> pieces_;
  std::vector<std::byte> buffer_;
};

Status CheckLayout(const ObjectHead& head, const StateLayout& layout, const Digest& digest) {
  if (head.layout == digest && head.sizes == SizesOf(layout, head.kind)) return Ok();
  return Mismatch("it is of another layout than the model of this fingerprint has");
}

// Whether a capsule can be read into `space` at all.
Status CheckPlace(const IndexedCapsule& capsule, const StateSpace& space) {
  if (capsule.fingerprint != space.fingerprint()) {
    return Mismatch(fmt::format("capsule {} is of another model, quantisation or kernel version: its fingerprint is {}, this model's is {}",
                                capsule.id, capsule.fingerprint.ShortHex(), space.fingerprint().ShortHex()));
  }
  if (capsule.position > space.max_position()) {
    return Exhausted(fmt::format("capsule {} is at position {}, beyond the context of {} positions; load the model with a longer context",
                                 capsule.id, capsule.position, space.max_position()));
  }
  return Ok();
}

}  // namespace

Result<Landing> Landing::At(StateSpace& space, int32_t position, const Capsule& base) {
  Landing landing;
  if (!base.valid() || base.space().get() != &space || !space.has_extents()) {
    REPRISE_ASSIGN_OR_RETURN(landing.held, space.AcquireState(position));
    return landing;
  }
  const int32_t extents = static_cast<int32_t>(CeilDiv(static_cast<uint64_t>(position), kExtentRows));
  // A base that goes on beyond shares the last extent too, where its rows are complete: a lane that appends after them copies them first.
  landing.shared = base.position() >= position ? extents : static_cast<int32_t>(base.position() / kExtentRows);
  const HeldState held_base = base.Hold();
  const Extent* tip = held_base.tip.get();
  while (tip != nullptr && tip->index >= landing.shared) tip = tip->previous;
  HeldState& held = landing.held;
  held.position = position;
  held.tip = Ref<Extent>::To(const_cast<Extent*>(tip));
  for (int s = 0; s < kSpaces; ++s) {
    REPRISE_ASSIGN_OR_RETURN(held.block[s], space.AcquireBlock(static_cast<Space>(s)));
  }
  for (int32_t index = landing.shared; index < extents; ++index) {
    const int32_t frontier = std::min<int32_t>(kExtentRows, position - index * kExtentRows);
    REPRISE_ASSIGN_OR_RETURN(held.tip, space.AcquireExtent(held.tip, index, frontier));
  }
  return landing;
}

Result<Capsule> DiskStore::Load(int64_t id, const std::shared_ptr<StateSpace>& space, const Capsule& base) {
  Located located;
  {
    const std::lock_guard lock(mutex_);
    REPRISE_ASSIGN_OR_RETURN(located, Locate(id));
  }
  REPRISE_RETURN_IF_ERROR(CheckPlace(located.capsule, *space));
  REPRISE_ASSIGN_OR_RETURN(const Landing landing, Landing::At(*space, located.capsule.position, base));
  return LoadInto(id, space, landing, /*stop=*/false);
}

Result<Capsule> DiskStore::LoadInto(int64_t id, const std::shared_ptr<StateSpace>& space, const Landing& landing,
                                    const std::atomic<bool>& stop) {
  // What was missing or wrong may have been removed and put again meanwhile, and be sound now.
  constexpr int kTries = 3;
  for (int i = 1;; ++i) {
    bool again = false;
    auto loaded = LoadOnce(id, space, landing, stop, again);
    if (loaded.ok() || !again || i == kTries) return loaded;
  }
}

Result<Capsule> DiskStore::LoadOnce(int64_t id, const std::shared_ptr<StateSpace>& space, const Landing& landing,
                                    const std::atomic<bool>& stop, bool& again) {
  Located located;
  {
    const std::lock_guard lock(mutex_);
    REPRISE_ASSIGN_OR_RETURN(located, Locate(id));
  }
  REPRISE_RETURN_IF_ERROR(CheckPlace(located.capsule, *space));
  if (located.capsule.position != landing.held.position) {
    return Internal(fmt::format("capsule {} is at position {}, and memory was taken for one at {}", id, located.capsule.position,
                                landing.held.position));
  }
  Digest reading{};
  Status status = ReadState(located, *space, landing, stop, reading);
  if (status.ok()) return Capsule::FromHeld(space, landing.held, 0);
  const bool missing = status.code() == StatusCode::kNotFound;
  if (!missing && status.code() != StatusCode::kCorrupt && status.code() != StatusCode::kUnsupported) return status;
  const std::lock_guard lock(mutex_);
  REPRISE_ASSIGN_OR_RETURN(const bool listed, index_->Lists(reading));
  if (!listed) return NotFound(fmt::format("capsule {} was removed while it was read", id));
  if (status.code() == StatusCode::kUnsupported) return status;  // a later version's: sound, and not ours to move
  if (missing) status = Corrupt(fmt::format("'{}' is missing", ObjectPath(reading)));
  REPRISE_ASSIGN_OR_RETURN(const bool bad, Quarantine(reading, status.message()));
  again = !bad;
  return status;
}

// `reading` is the object at hand, also after an error.
Status DiskStore::ReadState(const Located& located, StateSpace& space, const Landing& landing, const std::atomic<bool>& stop,
                            Digest& reading) {
  const HeldState& held = landing.held;
  const int32_t shared = landing.shared;
  const auto read = [&](Scatter& scatter, ObjectReader& object, size_t section) -> Status {
    if (stop.load(std::memory_order_relaxed)) return Cancelled("nobody waits for the capsule any more");
    return scatter.Read(object, section);
  };
  const StateLayout& layout = space.layout();
  const Digest digest = LayoutDigest(layout);
  const IndexedCapsule& capsule = located.capsule;
  const Digest& salt = located.name_space.salt;
  Scatter scatter(space);

  reading = capsule.object.name;
  const Digest below = located.path.empty() ? Digest{} : located.path.back().segment.object.name;
  REPRISE_ASSIGN_OR_RETURN(const auto block, OpenObject(capsule.object, ObjectKind::kBlock, capsule.fingerprint, salt, capsule.position,
                                                        capsule.position, below));
  REPRISE_RETURN_IF_ERROR(CheckLayout(block->head(), layout, digest).Within("'" + ObjectPath(reading) + "'"));
  size_t section = 0;
  for (const StateDecl& state : layout.states()) {
    if (state.growth != Growth::kRecurrent) continue;
    scatter.Add(state.space, held.block[static_cast<int>(state.space)]->data + state.offset, state.bytes);
    REPRISE_RETURN_IF_ERROR(read(scatter, *block, section++));
  }

  if (!space.has_extents()) return Ok();
  std::vector<Extent*> extents(CeilDiv(static_cast<uint64_t>(held.position), kExtentRows));
  for (Extent* extent = held.tip.get(); extent != nullptr; extent = extent->previous) extents[static_cast<size_t>(extent->index)] = extent;
  for (size_t i = 0; i < located.path.size(); ++i) {
    const IndexedSegment& segment = located.path[i].segment;
    const int32_t until = located.path[i].until;
    if (until <= shared * kExtentRows) continue;
    reading = segment.object.name;
    const Digest parent = i == 0 ? Digest{} : located.path[i - 1].segment.object.name;
    REPRISE_ASSIGN_OR_RETURN(const auto object, OpenObject(segment.object, ObjectKind::kSegment, segment.fingerprint, salt, segment.first,
                                                           segment.last, parent));
    REPRISE_RETURN_IF_ERROR(CheckLayout(object->head(), layout, digest).Within("'" + ObjectPath(reading) + "'"));
    for (size_t s = 0; s < object->shape().sections.size(); ++s) {
      const RowRange rows = RowsOfSection(object->head(), s);
      if (rows.first >= until) break;
      if (rows.last <= shared * kExtentRows) continue;
      // A section is verified as a whole, so it is read as a whole: rows from `until` on are the next segment's to overwrite, or beyond the position.
      const Extent* extent = extents[static_cast<size_t>(rows.first / kExtentRows)];
      for (const StateDecl& state : layout.states()) {
        if (state.growth != Growth::kAppend) continue;
        std::byte* to =
            extent->data[static_cast<int>(state.space)] + state.offset + static_cast<size_t>(rows.first % kExtentRows) * state.bytes;
        scatter.Add(state.space, to, static_cast<size_t>(rows.last - rows.first) * state.bytes);
      }
      REPRISE_RETURN_IF_ERROR(read(scatter, *object, s));
    }
  }
  return Ok();
}

}  // namespace reprise
