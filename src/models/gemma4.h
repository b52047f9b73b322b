// Gemma 4: attention over a window in most blocks, with heads of a width of their own; in its small models a table tells each block of the token, and
// the later blocks attend to keys and values of earlier ones.
#pragma once

#include <memory>
#include <string_view>

#include "models/loader.h"

namespace reprise {

inline constexpr std::string_view kTokenTable = "per_layer_token_embd.weight";  // of which a token reads a row

Result<std::unique_ptr<Network>> LoadGemma4(Loader& loader, NetworkInfo info);

}  // namespace reprise
