// The feed-forward network of a block: one that every row goes through, a mixture of experts, or both.
#pragma once

#include <string>
#include <string_view>

#include "models/loader.h"

namespace reprise {

struct FeedForwardShape {
  static constexpr int kMostInner = 1 << 22;
  int width = 0;                                // of the residual stream
  int inner = 0;                                // of a block without experts
  Activation activation = Activation::kSwiGlu;  // no file says so: an architecture sets what it has after Read
  bool gate_in_up = false;                      // ffn_up holds the rows of the gate, then those of up; set after Read
  // Of a block with them. `experts` is 0 where a model has none.
  int experts = 0;
  int used = 0;          // by a row
  int expert_inner = 0;  // of one expert
  int shared_inner = 0;  // of the network beside them that every row goes through; 0: none
  bool sigmoid = false;  // how scores become probabilities; otherwise their softmax
  bool normed = true;    // the experts' weights add up to `scale`; otherwise they are probabilities, times it
  float scale = 1.0f;    // of the weights

  // The numbers `feed_forward_length` and `expert_*`, checked; those of experts are told to `info`.
  static FeedForwardShape Read(Loader& loader, int width, NetworkInfo& info);
  // The same of files that give `feed_forward_length` block by block, where it has been read: `inner`.
  static FeedForwardShape Read(Loader& loader, int width, int inner, NetworkInfo& info);
};

// Activations of one block at a time.
struct FeedForwardRows {
  Rows normed;       // width
  Rows gate;         // inner; then the activation of gate and up. Where networks have no gate: none
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
//   the experts that the router chooses, each down(activation(gate x, up x)), weighted (Ops::MixExperts), where a block has a router; to the router's
//   scores and to each of the three products a bias is added, where the file has it;
//   down(sigmoid(shared_gate x) * activation(gate x, up x)), where it has these matrices; without a shared_gate that factor is 1. Biases of these, and
//   the clamped activation, are refused. With an output_norm, the norm of what such a network makes is added instead.
struct FeedForward {
  Vector norm;                          // [width]
  const Matrix* gate = nullptr;         // [inner, width]
  const Matrix* up = nullptr;           // [inner, width]
  const Matrix* down = nullptr;         // [width, inner]
  const Matrix* router = nullptr;       // [experts, width]
  const Matrix* shared_gate = nullptr;  // [1, width]
  Experts experts;
  Vector output_norm;         // [width], set after Load; without data: none. Of a network without experts
  float output_scale = 1.0f;  // of the residual stream, after what was normed is added to it
  Activation activation = Activation::kSwiGlu;

  void Load(Loader& loader, const std::string& block, std::string_view norm_name, const FeedForwardShape& shape);
  void Record(Ops& ops, const FeedForwardRows& rows, Rows residual, float eps) const;
  // What the network that every row goes through makes of rows.normed: `out`, or added to it.
  void RecordNetwork(Ops& ops, const FeedForwardRows& rows, Rows out, bool accumulate) const;
};

}  // namespace reprise
