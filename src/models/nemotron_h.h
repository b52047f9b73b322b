// Nemotron-H and Nemotron Nano 2, and with mixtures of experts Nemotron 3: of Mamba-2, attention without rotary positions and a feed-forward network
// with squared ReLU, each block has one.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadNemotronH(Loader& loader, NetworkInfo info);

}  // namespace reprise
