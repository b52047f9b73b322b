// The bundle format, version 1, as docs/store_format.md describes it: header, body, trailer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "reprise/fingerprint.h"
#include "reprise/status.h"
#include "store/file_system.h"

namespace reprise::bundle_format {

inline constexpr char kMagic[8] = {'R', 'E', 'P', 'R', 'B', 'N', 'D', '\x1a'};
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 1024;
inline constexpr size_t kChecksumOffset = kHeaderBytes - 8;
inline constexpr size_t kTrailerBytes = 96;   // the body's digest, and the signature over header and digest (zero when there is none)
inline constexpr size_t kChunkBytes = 65536;  // encrypted at a time
inline constexpr size_t kChunkOverhead = 17;
inline constexpr size_t kTextBytes = 256;
inline constexpr uint32_t kEncrypted = 1;
inline constexpr uint32_t kSigned = 2;
inline constexpr uint64_t kMostBytes = uint64_t{1} << 50;

using Bytes32 = std::array<uint8_t, 32>;

struct Header {
  uint32_t flags = 0;
  uint64_t plain_bytes = 0;  // of the body before encryption: the sizes of the objects, then the objects
  Bytes32 id{};
  Fingerprint fingerprint;
  uint32_t objects = 0;
  uint32_t capsules = 0;
  int64_t created = 0;
  Bytes32 signer{};
  std::array<uint8_t, 24> stream{};  // where the encryption starts
  std::string name_space;
  std::string origin;

  bool encrypted() const { return (flags & kEncrypted) != 0; }
  bool is_signed() const { return (flags & kSigned) != 0; }
  uint64_t body_bytes() const;
  uint64_t total_bytes() const { return kHeaderBytes + body_bytes() + kTrailerBytes; }
};

std::vector<std::byte> EncodeHeader(const Header& header);
// Of bytes that may be anything; `total` is how many the file has.
Result<Header> ParseHeader(std::span<const std::byte> bytes, uint64_t total);

// What a signature covers.
std::vector<unsigned char> SignedBytes(std::span<const std::byte> header, const Bytes32& body_digest);

}  // namespace reprise::bundle_format
