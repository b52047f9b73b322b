// What makes two loaded models the same model: see reprise/fingerprint.h.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "formats/gguf.h"
#include "models/network.h"
#include "reprise/fingerprint.h"
#include "reprise/layout.h"

namespace reprise {

// Over every tensor (name, type, shape, data), every number of the architecture's metadata, NetworkInfo::positions, the layout of the state and `numerics`
// (Backend::numerics()). Reads all weights once, as the file holds them; `progress` is told the bytes read so far. The tokenizer and the chat
// template are not part of it.
Fingerprint ModelFingerprint(const GgufFile& file, const NetworkInfo& network, const StateLayout& layout, std::string_view numerics,
                             const std::function<void(uint64_t bytes)>& progress = {});

}  // namespace reprise
