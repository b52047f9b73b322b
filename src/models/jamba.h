// Jamba (Lieber et al., arXiv:2403.19887): blocks of Mamba-1 and a few that attend, without positions; networks or mixtures of experts.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadJamba(Loader& loader, NetworkInfo info);

}  // namespace reprise
