#include <xxhash.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/checked.h"
#include "capsule/capsule_format.h"
#include "exec/state_space.h"
#include "reprise/capsule.h"

namespace reprise {

uint64_t capsule_format::Checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Result<std::vector<std::byte>> Capsule::Serialize(std::string_view metadata) const {
  using namespace capsule_format;
  if (!valid()) return InvalidArgument("an empty capsule was given to serialise");
  if (metadata.size() > kMaxMetadata)
    return InvalidArgument("capsule metadata of " + std::to_string(metadata.size()) + " bytes is too long");
  // Sizes first, so that the file is allocated once and every payload is copied once, straight into its place.
  size_t total = kHeaderBytes + metadata.size();
  for (const StateDecl& state : layout().states()) {
    total += kStateEntryBytes + state.name.size() + state.shape.size() * sizeof(int64_t);
  }
  const size_t first_payload = AlignUp(total, kPayloadAlignment);
  total = first_payload;
  for (const StateDecl& state : layout().states()) total += AlignUp(StateBytes(state), kPayloadAlignment);
  std::vector<std::byte> file(total);  // zeroed: the padding

  size_t offset = first_payload;
  for (const StateDecl& state : layout().states()) {
    CopyOut(state, file.data() + offset);
    offset += AlignUp(StateBytes(state), kPayloadAlignment);
  }
  space_->memory().Synchronize();

  ByteWriter entries;
  offset = first_payload;
  for (const StateDecl& state : layout().states()) {
    entries.Put<uint32_t>(static_cast<uint32_t>(state.name.size()));
    entries.Text(state.name);
    entries.Put(state.growth);
    entries.Put(state.space);
    entries.Put(state.type);
    entries.Put<uint32_t>(static_cast<uint32_t>(state.shape.size()));
    for (const int64_t dimension : state.shape) entries.Put(dimension);
    entries.Put<uint64_t>(StateBytes(state));
    entries.Put<uint64_t>(Checksum(std::span(file).subspan(offset, StateBytes(state))));
    offset += AlignUp(StateBytes(state), kPayloadAlignment);
  }

  ByteWriter head;
  head.Bytes(std::as_bytes(std::span(kMagic)));
  head.Put<uint32_t>(kVersion);
  head.Put<uint32_t>(static_cast<uint32_t>(layout().states().size()));
  head.Put<uint64_t>(total);
  head.Put<uint64_t>(static_cast<uint64_t>(position_));
  head.Bytes(std::as_bytes(std::span(fingerprint().bytes)));
  head.Put<uint64_t>(entries.size());
  head.Put<uint64_t>(Checksum(entries.bytes()));
  head.Put<uint64_t>(metadata.size());
  head.Put<uint64_t>(Checksum(std::as_bytes(std::span(metadata))));
  head.PadTo(kHeaderBytes);
  head.PutAt<uint64_t>(kChecksumOffset, Checksum(head.bytes().first(kChecksumOffset)));
  head.Bytes(entries.bytes());
  head.Text(metadata);
  std::copy(head.bytes().begin(), head.bytes().end(), file.begin());
  return file;
}

}  // namespace reprise
