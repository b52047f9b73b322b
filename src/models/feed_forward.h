// The feed-forward network of a block: one that every row goes through, a mixture of experts, or both.
#pragma once

#include <string>
#include <string_view>

#include "models/loader.h"

namespace reprise {

struct FeedForwardShape {
  static constexpr int kMostInner = 1 << 22;
  int width = 0;  // of the residual stream
  int inner = 0;  // of a block without experts
  bool gated = true;
  bool gelu = false;  // what the gate goes through; otherwise SiLU. Of a network without experts
  // Of a block with them. `experts` is 0 where a model has none.
  int experts = 0;
  int used = 0;          // by a row
  int expert_inner = 0;  // of one expert
  int shared_inner = 0;  // of the network beside them that every row goes through; 0: none
  bool sigmoid = false;  // how scores become probabilities; otherwise their softmax
  float scale = 1.0f;    // of the experts' weights, which add up to it

  // The numbers `feed_forward_length` and `expert_*`, checked; those of experts are told to `info`.
  static FeedForwardShape Read(Loader& loader, int width, NetworkInfo& info);
  // The same of files that give `feed_forward_length` block by block, where it has been read: `inner`.
  static FeedForwardShape Read(Loader& loader, int width, int inner, NetworkInfo& info);
};

// Activations of one block at a time.
struct FeedForwardRows {
  Rows normed;       // width
  Rows gate;         // inner; then silu(gate) * up. Where networks have no gate: none
  Rows up;           // inner
  Rows scores;       // experts
  Rows shared_gate;  // 1
  Rows result;       // width; where it is normed before it is added to the residual stream

  // Those that mixtures alone have.
  void NewScores(Loader& loader, const FeedForwardShape& shape);
};
// Of `gate` and `up`, whatever a block has.
int WidestInner(const FeedForwardShape& shape);

// Added to the residual stream, with x = norm(stream):
//   the experts that the router chooses, each down(silu(gate x) * up x), weighted (Ops::MixExperts), where a block has a router;
//   down(sigmoid(shared_gate x) * silu(gate x) * up x), where it has these matrices; without a shared_gate that factor is 1.
// Where shape.gated is false, max(0, up x)^2 takes the place of silu(gate x) * up x. With an output_norm, its norm is added instead.
struct FeedForward {
  Vector norm;                          // [width]
  const Matrix* gate = nullptr;         // [inner, width]
  const Matrix* up = nullptr;           // [inner, width]
  const Matrix* down = nullptr;         // [width, inner]
  const Matrix* router = nullptr;       // [experts, width]
  const Matrix* shared_gate = nullptr;  // [1, width]
  Experts experts;
  Vector output_norm;  // [width], set after Load; without data: none. Of a network without experts
  bool gelu = false;

  void Load(Loader& loader, const std::string& block, std::string_view norm_name, const FeedForwardShape& shape);
  void Record(Ops& ops, const FeedForwardRows& rows, Rows residual, float eps) const;
};

}  // namespace reprise
