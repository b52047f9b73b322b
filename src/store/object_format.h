// The object format, version 1, as docs/store_format.md describes it. Constants shared by the writer and the reader.
#pragma once

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "store/object_file.h"

namespace reprise::object_format {

inline constexpr char kMagic[8] = {'R', 'E', 'P', 'R', 'O', 'B', 'J', '\x1a'};
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 256;
inline constexpr size_t kReservedOffset = 192;
inline constexpr size_t kChecksumOffset = kHeaderBytes - 8;  // the header's own checksum covers all before it
inline constexpr size_t kAlignment = 64;
inline constexpr uint64_t kMostStateBytes = uint64_t{1} << 40;  // of one state, and of all; as a layout allows
inline constexpr size_t kPieceBytes = size_t{512} << 10;        // read and digested at a time: what a core's cache still holds

uint64_t Checksum(std::span<const std::byte> bytes);  // XXH3, 64 bits, seed 0

// The same, piece by piece.
class RunningChecksum {
 public:
  RunningChecksum() : state_(XXH3_createState(), XXH3_freeState) { Reset(); }
  void Reset() { XXH3_64bits_reset(state_.get()); }
  void Add(std::span<const std::byte> bytes) { XXH3_64bits_update(state_.get(), bytes.data(), bytes.size()); }
  uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
};

std::vector<std::byte> EncodeDetails(const ObjectHead& head);
std::vector<std::byte> EncodeHeader(const ObjectHead& head, const ObjectShape& shape, std::span<const std::byte> details);

}  // namespace reprise::object_format
