// For tests and the fuzzer alone: a capsule file taken apart into its fields, changed, and put together again with every checksum right. It is
// written from docs/capsule_format.md and shares no code with the reader and the writer.
#pragma once

#include <xxhash.h>

#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace reprise::testing_support {

template <class T>
T GetField(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <class T>
void PutField(std::vector<std::byte>& bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

template <class T>
void AddField(std::vector<std::byte>& bytes, T value) {
  bytes.resize(bytes.size() + sizeof(T));
  PutField(bytes, bytes.size() - sizeof(T), value);
}

inline void AddBytes(std::vector<std::byte>& bytes, std::span<const std::byte> more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

inline uint64_t Xxh3(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

// The header's own checksum, made right.
inline void SealHeader(std::vector<std::byte>& bytes) { PutField(bytes, 120, Xxh3(std::span(bytes).first(120))); }

struct CapsuleFile {
  struct State {
    std::string name;
    uint32_t growth = 0;
    uint32_t space = 0;
    uint32_t type = 0;
    std::vector<int64_t> shape;
    std::vector<std::byte> payload;
    // Where a field should lie instead of saying what is there.
    std::optional<uint32_t> name_bytes_override;
    std::optional<uint32_t> dimensions_override;
    std::optional<uint64_t> payload_bytes_override;
    std::optional<uint64_t> checksum_override;
  };
  std::vector<std::byte> start;  // the first 64 bytes: magic to fingerprint
  uint64_t position = 0;
  std::vector<State> states;
  std::vector<std::byte> layout_tail;  // behind the last entry
  std::vector<std::byte> metadata;
  std::vector<std::byte> tail;  // behind the last payload
  std::optional<uint32_t> count_override;

  // Nothing when the bytes do not have the shape of a file.
  static std::optional<CapsuleFile> Split(std::span<const std::byte> bytes) {
    CapsuleFile file;
    if (bytes.size() < 128) return std::nullopt;
    const auto fits = [&](size_t at, uint64_t count) { return at <= bytes.size() && count <= bytes.size() - at; };
    file.start.assign(bytes.begin(), bytes.begin() + 64);
    const auto count = GetField<uint32_t>(bytes, 12);
    file.position = GetField<uint64_t>(bytes, 24);
    const auto layout_bytes = GetField<uint64_t>(bytes, 64);
    const auto metadata_bytes = GetField<uint64_t>(bytes, 80);
    if (!fits(128, layout_bytes) || !fits(128 + layout_bytes, metadata_bytes)) return std::nullopt;
    const size_t layout_end = 128 + layout_bytes;
    AddBytes(file.metadata, bytes.subspan(layout_end, metadata_bytes));
    size_t payload = (layout_end + metadata_bytes + 63) / 64 * 64;
    size_t at = 128;
    const auto entry_fits = [&](uint64_t n) { return at <= layout_end && n <= layout_end - at; };
    for (uint32_t i = 0; i < count; ++i) {
      State state;
      if (!entry_fits(4)) return std::nullopt;
      const auto name_bytes = GetField<uint32_t>(bytes, at);
      at += 4;
      if (!entry_fits(uint64_t{name_bytes} + 16)) return std::nullopt;
      state.name.assign(reinterpret_cast<const char*>(bytes.data() + at), name_bytes);
      at += name_bytes;
      state.growth = GetField<uint32_t>(bytes, at);
      state.space = GetField<uint32_t>(bytes, at + 4);
      state.type = GetField<uint32_t>(bytes, at + 8);
      const auto dimensions = GetField<uint32_t>(bytes, at + 12);
      at += 16;
      if (!entry_fits(uint64_t{dimensions} * 8 + 16)) return std::nullopt;
      for (uint32_t d = 0; d < dimensions; ++d, at += 8) state.shape.push_back(GetField<int64_t>(bytes, at));
      const auto payload_bytes = GetField<uint64_t>(bytes, at);
      at += 16;
      if (!fits(payload, payload_bytes)) return std::nullopt;
      AddBytes(state.payload, bytes.subspan(payload, payload_bytes));
      payload = (payload + payload_bytes + 63) / 64 * 64;
      file.states.push_back(std::move(state));
    }
    AddBytes(file.layout_tail, bytes.subspan(at, layout_end - at));
    if (payload < bytes.size()) AddBytes(file.tail, bytes.subspan(payload));
    return file;
  }

  std::vector<std::byte> Join() const {
    std::vector<std::byte> layout;
    for (const State& state : states) {
      AddField<uint32_t>(layout, state.name_bytes_override.value_or(static_cast<uint32_t>(state.name.size())));
      AddBytes(layout, std::as_bytes(std::span(state.name)));
      AddField<uint32_t>(layout, state.growth);
      AddField<uint32_t>(layout, state.space);
      AddField<uint32_t>(layout, state.type);
      AddField<uint32_t>(layout, state.dimensions_override.value_or(static_cast<uint32_t>(state.shape.size())));
      for (const int64_t dimension : state.shape) AddField<int64_t>(layout, dimension);
      AddField<uint64_t>(layout, state.payload_bytes_override.value_or(state.payload.size()));
      AddField<uint64_t>(layout, state.checksum_override.value_or(Xxh3(state.payload)));
    }
    AddBytes(layout, layout_tail);
    std::vector<std::byte> bytes = start;
    PutField<uint32_t>(bytes, 12, count_override.value_or(static_cast<uint32_t>(states.size())));
    PutField<uint64_t>(bytes, 24, position);
    AddField<uint64_t>(bytes, layout.size());
    AddField<uint64_t>(bytes, Xxh3(layout));
    AddField<uint64_t>(bytes, metadata.size());
    AddField<uint64_t>(bytes, Xxh3(metadata));
    bytes.resize(128);
    AddBytes(bytes, layout);
    AddBytes(bytes, metadata);
    const auto pad = [&] { bytes.resize((bytes.size() + 63) / 64 * 64); };
    pad();
    for (const State& state : states) {
      AddBytes(bytes, state.payload);
      pad();
    }
    AddBytes(bytes, tail);
    PutField<uint64_t>(bytes, 16, bytes.size());
    SealHeader(bytes);
    return bytes;
  }
};

}  // namespace reprise::testing_support
