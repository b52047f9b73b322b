#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"
#include "capsule/capsule_format.h"
#include "capsule/checked_capsule.h"
#include "exec/state_space.h"
#include "reprise/capsule.h"

namespace reprise {
namespace {

using namespace capsule_format;

// One reading of the bytes: the summary, and where each payload lies. Everything but the payloads' own bytes has been checked.
struct Parsed {
  CapsuleSummary summary;
  std::vector<std::span<const std::byte>> payloads;
  std::vector<uint64_t> checksums;
};

bool AllZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

Status CheckHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) {
    return Corrupt("a capsule starts with a header of " + std::to_string(kHeaderBytes) + " bytes; only " + std::to_string(bytes.size()) +
                   " are here");
  }
  if (std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0)
    return Corrupt("this is no capsule: its first eight bytes are not those of one");
  ByteReader reader(bytes.subspan(sizeof(kMagic)));
  REPRISE_ASSIGN_OR_RETURN(const auto version, reader.Get<uint32_t>("the version"));
  if (version != kVersion) {
    return Unsupported("capsule format version " + std::to_string(version) + " is not known; this build reads version " +
                       std::to_string(kVersion));
  }
  uint64_t stored;
  std::memcpy(&stored, bytes.data() + kChecksumOffset, sizeof(stored));
  if (stored != Checksum(bytes.first(kChecksumOffset)))
    return Corrupt("the capsule's header is damaged: its checksum at offset 120 does not match");
  return Ok();
}

// Names are not repeated in errors before StateLayout has found them printable.
Result<StateDecl> ReadState(ByteReader& reader, uint32_t index, uint64_t& payload_bytes, uint64_t& checksum) {
  StateDecl state;
  REPRISE_ASSIGN_OR_RETURN(const auto name_bytes, reader.Get<uint32_t>("the length of a state's name"));
  if (name_bytes > kMaxStateNameBytes) return Corrupt("a state's name of " + std::to_string(name_bytes) + " bytes is too long");
  REPRISE_ASSIGN_OR_RETURN(const auto name, reader.Bytes(name_bytes, "a state's name"));
  state.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  REPRISE_ASSIGN_OR_RETURN(state.growth, reader.Get<Growth>("a state's growth"));
  REPRISE_ASSIGN_OR_RETURN(state.space, reader.Get<Space>("a state's space"));
  REPRISE_ASSIGN_OR_RETURN(state.type, reader.Get<ElementType>("a state's element type"));
  if (static_cast<uint32_t>(state.growth) > 1 || static_cast<uint32_t>(state.space) > 1 || ElementSize(state.type) == 0) {
    return Corrupt("state " + std::to_string(index) + " has an unknown growth, space or element type");
  }
  REPRISE_ASSIGN_OR_RETURN(const auto dimensions, reader.Get<uint32_t>("a state's dimensions"));
  if (dimensions > kMaxDimensions) return Corrupt("state " + std::to_string(index) + " has " + std::to_string(dimensions) + " dimensions");
  for (uint32_t d = 0; d < dimensions; ++d) {
    REPRISE_ASSIGN_OR_RETURN(const auto dimension, reader.Get<int64_t>("a state's shape"));
    state.shape.push_back(dimension);
  }
  REPRISE_ASSIGN_OR_RETURN(payload_bytes, reader.Get<uint64_t>("a payload's size"));
  REPRISE_ASSIGN_OR_RETURN(checksum, reader.Get<uint64_t>("a payload's checksum"));
  return state;
}

Result<Parsed> Parse(std::span<const std::byte> bytes) {
  REPRISE_RETURN_IF_ERROR(CheckHeader(bytes));
  Parsed parsed;
  CapsuleSummary& summary = parsed.summary;
  ByteReader reader(bytes);
  REPRISE_RETURN_IF_ERROR(reader.Bytes(sizeof(kMagic), "the magic").status());
  REPRISE_ASSIGN_OR_RETURN(summary.version, reader.Get<uint32_t>("the version"));
  REPRISE_ASSIGN_OR_RETURN(const auto state_count, reader.Get<uint32_t>("the number of states"));
  REPRISE_ASSIGN_OR_RETURN(const auto total_bytes, reader.Get<uint64_t>("the total size"));
  REPRISE_ASSIGN_OR_RETURN(const auto position, reader.Get<uint64_t>("the position"));
  REPRISE_ASSIGN_OR_RETURN(const auto fingerprint, reader.Bytes(summary.fingerprint.bytes.size(), "the fingerprint"));
  std::memcpy(summary.fingerprint.bytes.data(), fingerprint.data(), fingerprint.size());
  REPRISE_ASSIGN_OR_RETURN(const auto layout_bytes, reader.Get<uint64_t>("the size of the layout"));
  REPRISE_ASSIGN_OR_RETURN(const auto layout_checksum, reader.Get<uint64_t>("the checksum of the layout"));
  REPRISE_ASSIGN_OR_RETURN(const auto metadata_bytes, reader.Get<uint64_t>("the size of the metadata"));
  REPRISE_ASSIGN_OR_RETURN(const auto metadata_checksum, reader.Get<uint64_t>("the checksum of the metadata"));
  if (!AllZero(bytes.subspan(reader.offset(), kChecksumOffset - reader.offset())))
    return Corrupt("the header's reserved bytes are not zero");
  REPRISE_RETURN_IF_ERROR(reader.Bytes(kHeaderBytes - reader.offset(), "the header").status());

  if (total_bytes != bytes.size()) {
    return Corrupt("the capsule says that it has " + std::to_string(total_bytes) + " bytes; " + std::to_string(bytes.size()) + " are here");
  }
  if (state_count > kMaxStates) return Corrupt("the capsule says that it has " + std::to_string(state_count) + " states");
  if (position > static_cast<uint64_t>(std::numeric_limits<int32_t>::max()))
    return Corrupt("the position " + std::to_string(position) + " is impossible");
  summary.position = static_cast<int64_t>(position);
  if (metadata_bytes > Capsule::kMaxMetadata) return Corrupt("metadata of " + std::to_string(metadata_bytes) + " bytes is too long");

  REPRISE_ASSIGN_OR_RETURN(const auto layout_section, reader.Bytes(layout_bytes, "the layout"));
  if (Checksum(layout_section) != layout_checksum) return Corrupt("the capsule's layout is damaged: its checksum does not match");
  REPRISE_ASSIGN_OR_RETURN(const auto metadata, reader.Bytes(metadata_bytes, "the metadata"));
  if (Checksum(metadata) != metadata_checksum) return Corrupt("the capsule's metadata is damaged: its checksum does not match");
  summary.metadata.assign(reinterpret_cast<const char*>(metadata.data()), metadata.size());

  const auto skip_padding = [&]() -> Status {
    const size_t padding = AlignUp(reader.offset(), kPayloadAlignment) - reader.offset();
    REPRISE_ASSIGN_OR_RETURN(const auto pad, reader.Bytes(padding, "padding"));
    return AllZero(pad) ? Ok() : Corrupt("the padding that ends at offset " + std::to_string(reader.offset()) + " is not zero");
  };
  REPRISE_RETURN_IF_ERROR(skip_padding());

  ByteReader layout_reader(layout_section);
  for (uint32_t i = 0; i < state_count; ++i) {
    uint64_t payload_bytes = 0;
    uint64_t checksum = 0;
    REPRISE_ASSIGN_OR_RETURN(StateDecl state, ReadState(layout_reader, i, payload_bytes, checksum));
    const int index = state.growth == Growth::kAppend ? summary.layout.Append(state.name, state.type, state.shape, state.space)
                                                      : summary.layout.Recurrent(state.name, state.type, state.shape, state.space);
    if (Status status = summary.layout.Check(); !status.ok()) return Corrupt("the capsule's layout is impossible: " + status.message());
    // `bytes` is at most 2^40 and the position below 2^31: their product may pass 2^64.
    const StateDecl& declared = summary.layout[index];
    const auto expected =
        declared.growth == Growth::kAppend ? CheckedMul(declared.bytes, position) : std::optional<uint64_t>(declared.bytes);
    if (!expected || *expected != payload_bytes) {
      return Corrupt("the state '" + state.name + "' says that it has " + std::to_string(payload_bytes) + " bytes; its shape gives " +
                     (expected ? std::to_string(*expected) : std::string("more than 2^64")));
    }
    const size_t offset = reader.offset();
    REPRISE_ASSIGN_OR_RETURN(const auto payload,
                             reader.Bytes(payload_bytes, "the state '" + state.name + "' at offset " + std::to_string(offset)));
    REPRISE_RETURN_IF_ERROR(skip_padding());
    summary.payload_bytes.push_back(payload_bytes);
    parsed.payloads.push_back(payload);
    parsed.checksums.push_back(checksum);
  }
  if (layout_reader.remaining() != 0) return Corrupt("the layout goes on after its last state");
  if (reader.remaining() != 0) return Corrupt("the capsule goes on after its last state, at offset " + std::to_string(reader.offset()));
  return parsed;
}

std::string Describe(const StateDecl& state) {
  std::string text = "'" + state.name + "' (" + (state.growth == Growth::kAppend ? "append-only " : "recurrent ") +
                     (state.space == Space::kHost ? "host " : "device ") + std::string(ElementTypeName(state.type)) + " [";
  for (size_t i = 0; i < state.shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(state.shape[i]);
  return text + "])";
}

Status CheckBelongs(const Parsed& parsed, const StateSpace& space) {
  const CapsuleSummary& summary = parsed.summary;
  if (summary.fingerprint != space.fingerprint()) {
    return Mismatch("the capsule was taken on another model, quantisation or kernel version: its fingerprint is " +
                    summary.fingerprint.ShortHex() + ", this model's is " + space.fingerprint().ShortHex());
  }
  const auto theirs = summary.layout.states();
  const auto ours = space.layout().states();
  for (size_t i = 0; i < std::max(theirs.size(), ours.size()); ++i) {
    if (i >= theirs.size()) return Mismatch("the capsule lacks the state " + Describe(ours[i]));
    if (i >= ours.size()) return Mismatch("the capsule has a state that this model has not: " + Describe(theirs[i]));
    if (Describe(theirs[i]) != Describe(ours[i])) {
      return Mismatch("state " + std::to_string(i) + " of the capsule is " + Describe(theirs[i]) + "; here it is " + Describe(ours[i]));
    }
  }
  if (summary.position > space.max_position()) {
    return Exhausted("the capsule is at position " + std::to_string(summary.position) + ", beyond the context of " +
                     std::to_string(space.max_position()) + " positions; load the model with a longer context");
  }
  for (size_t i = 0; i < parsed.payloads.size(); ++i) {
    if (Checksum(parsed.payloads[i]) != parsed.checksums[i])
      return Corrupt("the state '" + ours[i].name + "' is damaged: its checksum does not match");
  }
  return Ok();
}

}  // namespace

Result<CapsuleSummary> SummariseCapsule(std::span<const std::byte> bytes) {
  REPRISE_ASSIGN_OR_RETURN(Parsed parsed, Parse(bytes));
  return std::move(parsed.summary);
}

Result<CheckedCapsule> CheckedCapsule::Of(std::span<const std::byte> bytes, std::shared_ptr<StateSpace> space) {
  REPRISE_ASSIGN_OR_RETURN(Parsed parsed, Parse(bytes));
  REPRISE_RETURN_IF_ERROR(CheckBelongs(parsed, *space));
  CheckedCapsule checked;
  checked.space_ = std::move(space);
  checked.position_ = static_cast<int32_t>(parsed.summary.position);
  checked.metadata_ = std::move(parsed.summary.metadata);
  checked.payloads_ = std::move(parsed.payloads);
  return checked;
}

std::vector<std::byte> CheckedCapsule::Block(Space space) const {
  const StateLayout& layout = space_->layout();
  std::vector<std::byte> block(layout.block_bytes(space));
  for (size_t i = 0; i < payloads_.size(); ++i) {
    const StateDecl& state = layout.states()[i];
    if (state.growth == Growth::kRecurrent && state.space == space)
      std::memcpy(block.data() + state.offset, payloads_[i].data(), state.bytes);
  }
  return block;
}

void CheckedCapsule::CopyTo(const HeldState& held) const {
  const bool ordinary = space_->memory().ordinary();
  const auto copy = [&](Space space, std::byte* to, const std::byte* from, size_t bytes) {
    if (ordinary) {
      std::memcpy(to, from, bytes);  // beside the steps, whose order the memory's own copies would enter
    } else {
      space_->Copy(space, to, from, bytes);
    }
  };
  for (size_t i = 0; i < payloads_.size(); ++i) {
    const StateDecl& state = space_->layout().states()[i];
    const int s = static_cast<int>(state.space);
    const std::byte* payload = payloads_[i].data();
    if (state.growth == Growth::kRecurrent) {
      copy(state.space, held.block[s]->data + state.offset, payload, state.bytes);
      continue;
    }
    for (const Extent* extent = held.tip.get(); extent != nullptr; extent = extent->previous) {
      const int32_t first = extent->index * kExtentRows;
      const int32_t rows = std::min<int32_t>(kExtentRows, held.position - first);
      copy(state.space, extent->data[s] + state.offset, payload + static_cast<size_t>(first) * state.bytes,
           static_cast<size_t>(rows) * state.bytes);
    }
  }
  if (!ordinary) space_->memory().Synchronize();
}

Result<Capsule> DeserializeCapsule(std::span<const std::byte> bytes, const std::shared_ptr<StateSpace>& space, std::string* metadata) {
  REPRISE_ASSIGN_OR_RETURN(const CheckedCapsule checked, CheckedCapsule::Of(bytes, space));
  // From here on only a full pool can fail, and what was acquired is let go of by its Refs.
  REPRISE_ASSIGN_OR_RETURN(HeldState held, space->AcquireState(checked.position()));
  checked.CopyTo(held);
  if (metadata != nullptr) *metadata = checked.metadata();
  return Capsule::FromHeld(space, std::move(held), 0);
}

}  // namespace reprise
