#include <xxhash.h>

#include <cstring>

#include "base/bytes.h"
#include "base/checked.h"
#include "capsule/capsule_format.h"
#include "reprise/capsule.h"

namespace reprise {

uint64_t capsule_format::Checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Result<std::vector<std::byte>> Capsule::Serialize(std::string_view metadata) const {
  using namespace capsule_format;
  if (!valid()) return InvalidArgument("an empty capsule was given to serialise");
  if (metadata.size() > kMaxMetadata) return InvalidArgument("capsule metadata of " + std::to_string(metadata.size()) + " bytes is too long");
  const auto states = layout().states();
  std::vector<std::vector<std::byte>> payloads;
  size_t total = kHeaderBytes + metadata.size();
  for (const StateDecl& state : states) {
    REPRISE_ASSIGN_OR_RETURN(auto payload, Read(state.name));
    total += AlignUp(payload.size(), kPayloadAlignment) + state.name.size() + 128;
    payloads.push_back(std::move(payload));
  }

  ByteWriter layout_section;
  for (size_t i = 0; i < states.size(); ++i) {
    const StateDecl& state = states[i];
    layout_section.Put<uint32_t>(static_cast<uint32_t>(state.name.size()));
    layout_section.Text(state.name);
    layout_section.Put(state.growth);
    layout_section.Put(state.space);
    layout_section.Put(state.type);
    layout_section.Put<uint32_t>(static_cast<uint32_t>(state.shape.size()));
    for (const int64_t dimension : state.shape) layout_section.Put(dimension);
    layout_section.Put<uint64_t>(payloads[i].size());
    layout_section.Put<uint64_t>(Checksum(payloads[i]));
  }

  ByteWriter file;
  file.out().reserve(total);
  file.Bytes(std::as_bytes(std::span(kMagic)));
  file.Put<uint32_t>(kVersion);
  file.Put<uint32_t>(static_cast<uint32_t>(states.size()));
  file.Put<uint64_t>(0);   // total bytes, once known
  file.Put<uint64_t>(static_cast<uint64_t>(position_));
  file.Bytes(std::as_bytes(std::span(fingerprint().bytes)));
  file.Put<uint64_t>(layout_section.size());
  file.Put<uint64_t>(Checksum(layout_section.bytes()));
  file.Put<uint64_t>(metadata.size());
  file.Put<uint64_t>(Checksum(std::as_bytes(std::span(metadata))));
  file.PadTo(kHeaderBytes);
  file.Bytes(layout_section.bytes());
  file.Text(metadata);
  file.PadTo(kPayloadAlignment);
  for (const auto& payload : payloads) {
    file.Bytes(payload);
    file.PadTo(kPayloadAlignment);
  }
  file.PutAt<uint64_t>(16, file.size());
  file.PutAt<uint64_t>(kChecksumOffset, Checksum(file.bytes().first(kChecksumOffset)));
  return std::move(file.out());
}

}  // namespace reprise
