// Qwen3.5 and its successors, the text models, and Qwen3-Next before them: three gated delta net blocks to each full-attention block, and an optional
// block that predicts the token after next (MTP).
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadQwen35(Loader& loader, NetworkInfo info);

}  // namespace reprise
