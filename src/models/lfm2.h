// LFM2 and LFM2.5, the dense text models: gated short convolutions, and grouped-query attention in some of the blocks.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadLfm2(Loader& loader, NetworkInfo info);

}  // namespace reprise
