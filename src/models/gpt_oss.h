// gpt-oss: grouped-query attention with sinks, over a window in every other block, and a mixture of experts in all of them.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadGptOss(Loader& loader, NetworkInfo info);

}  // namespace reprise
