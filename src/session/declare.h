// What a model is before it has memory: its network, every state of an execution of it, its tokenizer. Declared in this one place, for the engine
// that runs it and for whoever only asks what it holds.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "backend/backend.h"
#include "decode/decode_state.h"
#include "formats/gguf.h"
#include "models/network.h"
#include "reprise/fingerprint.h"
#include "reprise/layout.h"
#include "reprise/model.h"
#include "text/tokenizer.h"

namespace reprise {

struct DeclaredModel {
  std::unique_ptr<Network> network;
  int max_rows = 0;    // of one step
  StateLayout layout;  // the network's states, the token history, the decoder's
  int history = -1;    // the append-only state of token ids
  DecodeState decode;
  std::optional<Tokenizer> tokenizer;
  Status tokenizer_status;  // why there is none
};

// kInvalidArgument for options that no model takes.
Status CheckOptions(const ModelOptions& options);
// Of the device, the threads and the instruction set that the options name.
Result<std::unique_ptr<Backend>> MakeBackendFor(const ModelOptions& options);
// `file` stays mapped as long as the network lives, which `backend` outlives too: its weights are loaded there.
Result<DeclaredModel> DeclareModel(const GgufFile& file, Backend& backend, const ModelOptions& options);

// What Model::Load of the same options would give, as far as it can be told without weights in memory: every weight is checked and none is packed.
struct ModelOutline {
  NetworkInfo network;
  StateLayout layout;
  Fingerprint fingerprint;
  std::string backend;  // that it is the fingerprint for
  std::optional<Tokenizer> tokenizer;
  Status tokenizer_status;  // why there is none
};
// Fails where Model::Load would but for memory. Reads all weights once, for the fingerprint; options.progress is told how far that is.
Result<ModelOutline> OutlineModel(const GgufFile& file, const ModelOptions& options);

}  // namespace reprise
