// Falcon-H1: in each block Mamba-2 and attention read the same normed rows, side by side; then a feed-forward network.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadFalconH1(Loader& loader, NetworkInfo info);

}  // namespace reprise
