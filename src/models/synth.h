// Synthesize: a model file of a real shape with random weights, for timing and for tests. It computes what the real model costs, and says
// nothing.
//
// Weights are drawn so that activations stay of order one through any depth and every state matters: recurrent decays from fast to slow,
// norms around one, attention that picks out positions. The same shape, type and seed give the same bytes on every machine. The vocabulary
// is a valid byte-level BPE (256 bytes, some merges, made-up words up to the real size, ChatML's control tokens), so that any text goes in
// and what comes out can be printed.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "formats/tensor_type.h"
#include "reprise/status.h"

namespace reprise {

struct SynthShape {
  std::string_view name;          // "qwen3.5-0.8b"
  std::string_view architecture;  // one of Network::Architectures()
  int layers;
  int width;
  int ffn;
  int heads;
  int kv_heads;
  int head_dim;
  int key_heads;    // of the delta net, or groups of an SSM; 0 without either
  int value_heads;  // of the delta net, or heads of an SSM
  int state_dim;    // of a key head and of a value head, of an SSM, or of a channel of Jamba's
  int vocabulary;
  bool tied;  // the embedding is the output matrix too
  double rope_base;
  int context;
  // Of a mixture of experts.
  int experts = 0;
  int used = 0;  // by a row
  int expert_ffn = 0;
  int shared_ffn = 0;      // of the network that every row goes through beside them; 0: none
  int dense_first = 0;     // blocks at the beginning that have no experts
  int value_head_dim = 0;  // of a head of an SSM; 0: its heads together are twice as wide as the stream
  std::string_view
      sublayers{};  // of nemotron_h, the only one of each block: M (Mamba), * (attention), - (a feed-forward network) or E (a mixture)

  int window = 0;  // positions that a row sees in most blocks; 0: all in all blocks
  int every = 6;   // of so many blocks the last one sees everything
  // Of Gemma 4.
  int wide_head_dim = 0;    // of blocks that see everything
  int sharing = 0;          // blocks at the end that attend to keys and values of earlier ones
  bool double_ffn = false;  // of these
  int told = 0;             // values that each block is told of a token

  // The architecture that this one is but for its experts, and the layout of some tensors.
  std::string_view family() const {
    if (architecture == "qwen3next") return "qwen35";
    if (!architecture.ends_with("moe")) return architecture;
    return architecture.substr(0, architecture.size() - (architecture.ends_with("_moe") ? 4 : 3));
  }
  int ssm_inner() const { return value_head_dim > 0 ? value_heads * value_head_dim : 2 * width; }
};

// Smallest first within an architecture.
std::span<const SynthShape> SynthShapes();
// kInvalidArgument, naming the shapes there are, for another name.
Result<SynthShape> FindSynthShape(std::string_view name);

struct SynthOptions {
  std::string shape;
  TensorType type = TensorType::kQ8_0;  // of the matrices: Q8_0, Q4_0, Q4_1, Q4_K, MXFP4, F16, BF16 or F32; vectors are F32.
                                        // Q4_K is the mixture that is known as Q4_K_M: the matrices that matter most are Q6_K
  bool mtp = false;                     // add a multi-token-prediction block (qwen35, qwen35moe and qwen3next only)
  uint64_t seed = 1;
};

// Called with the bytes written so far and in all; false stops, and Synthesize returns kCancelled.
using SynthProgress = std::function<bool(uint64_t written, uint64_t total)>;

// Writes the model; `path` appears whole at the end, or not at all. Holds about a megabyte of it in memory at a time.
Status Synthesize(const SynthOptions& options, const std::string& path, const SynthProgress& progress = {});

// The size of the file that these options make.
Result<uint64_t> SynthesizedBytes(const SynthOptions& options);

}  // namespace reprise
