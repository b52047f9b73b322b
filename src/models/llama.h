// The Llama family (Llama, SmolLM2, SmolLM3 and their kin) and Qwen2, 2.5 and 3: grouped-query attention with rotary positions, and a gated
// feed-forward network. Qwen turns halves of a head instead of neighbouring pairs; 2 has biases of queries, keys and values, and 3 norms queries
// and keys head by head. SmolLM3 turns nothing in every fourth block. Ministral 3 makes queries longer the farther they are.
// Phi 3 and 4 have some matrices in one, and positions that are told otherwise where texts may be long.
#pragma once

#include "models/loader.h"

namespace reprise {

Result<std::unique_ptr<Network>> LoadLlama(Loader& loader, NetworkInfo info);
Result<std::unique_ptr<Network>> LoadMistral3(Loader& loader, NetworkInfo info);
Result<std::unique_ptr<Network>> LoadPhi3(Loader& loader, NetworkInfo info);
Result<std::unique_ptr<Network>> LoadQwen2(Loader& loader, NetworkInfo info);
Result<std::unique_ptr<Network>> LoadQwen3(Loader& loader, NetworkInfo info);
Result<std::unique_ptr<Network>> LoadSmolLm3(Loader& loader, NetworkInfo info);

}  // namespace reprise
