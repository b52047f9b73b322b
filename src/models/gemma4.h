// Gemma 4: attention over a window in most blocks, with heads of a width of their own; in its small models a table tells each block of the token, and
// the later blocks attend to keys and values of earlier ones.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadGemma4(Loader& loader, NetworkInfo info);

}  // namespace reprise
