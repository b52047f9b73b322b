// The capsule file format, version 1, as docs/capsule_format.md describes it. Constants shared by the writer and the reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace reprise::capsule_format {

inline constexpr char kMagic[8] = {'R', 'E', 'P', 'R', 'I', 'S', 'E', '\x1a'};
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 128;
inline constexpr size_t kChecksumOffset = kHeaderBytes - 8;  // the header's own checksum covers all before it
inline constexpr size_t kStateEntryBytes = 36;               // of a state's entry in the layout, without its name and dimensions
inline constexpr size_t kPayloadAlignment = 64;

uint64_t Checksum(std::span<const std::byte> bytes);  // XXH3, 64 bits, seed 0

}  // namespace reprise::capsule_format
