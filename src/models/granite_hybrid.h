// Granite 4.0-H, the dense models: blocks of Mamba-2 and a few that attend, without rotary positions.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadGraniteHybrid(Loader& loader, NetworkInfo info);

}  // namespace reprise
