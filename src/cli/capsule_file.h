// Capsules in files: written whole or not at all, readable by their owner alone, because a capsule holds what was said.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "reprise/status.h"

namespace reprise {

Status WriteCapsuleFile(const std::string& path, std::span<const std::byte> bytes);

// The bytes of the file; whether they are a capsule is for whoever reads them. kExhausted beyond what memory can hold.
Result<std::vector<std::byte>> ReadCapsuleFile(const std::string& path);

// Whether a file that starts so is a capsule.
bool LooksLikeCapsule(std::span<const std::byte> bytes);

}  // namespace reprise
