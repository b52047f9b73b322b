// The Llama family (Llama, SmolLM2 and their kin): grouped-query attention with rotary positions, and a gated feed-forward network.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadLlama(Loader& loader, NetworkInfo info);

}  // namespace reprise
