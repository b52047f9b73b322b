// Gemma 3, the text models: grouped-query attention, in five blocks of six over a window, and a gated feed-forward network, each with a norm before and
// a norm after it.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadGemma3(Loader& loader, NetworkInfo info);

}  // namespace reprise
