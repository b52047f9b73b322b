#include "cli/capsule_file.h"

#include <algorithm>
#include <cstring>

#include "base/file.h"
#include "capsule/capsule_format.h"

namespace reprise {

Status WriteCapsuleFile(const std::string& path, std::span<const std::byte> bytes) { return WriteFileAtomically(path, bytes, 0600); }

Result<std::vector<std::byte>> ReadCapsuleFile(const std::string& path) {
  constexpr uint64_t kMostBytes = uint64_t{1} << 36;  // a million positions of a large model; the file must exist at that size anyway
  return ReadFile(path, kMostBytes);
}

bool LooksLikeCapsule(std::span<const std::byte> bytes) {
  return bytes.size() >= sizeof(capsule_format::kMagic) &&
         std::memcmp(bytes.data(), capsule_format::kMagic, sizeof(capsule_format::kMagic)) == 0;
}

}  // namespace reprise
