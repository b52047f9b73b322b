#include "models/feed_forward.h"

#include <algorithm>
#include <array>
#include <vector>

namespace reprise {
namespace {

constexpr int kMostInner = FeedForwardShape::kMostInner;

int ExpertCount(Loader& loader) { return loader.Int("expert_count", 0, 1 << 12, 0); }

}  // namespace

FeedForwardShape FeedForwardShape::Read(Loader& loader, int width, NetworkInfo& info) {
  constexpr char kKey[] = "feed_forward_length";
  const int inner = ExpertCount(loader) > 0 ? loader.Int(kKey, 0, kMostInner, 0) : loader.Int(kKey, 1, kMostInner);
  return Read(loader, width, inner, info);
}

FeedForwardShape FeedForwardShape::Read(Loader& loader, int width, int inner, NetworkInfo& info) {
  FeedForwardShape shape;
  shape.width = width;
  shape.inner = inner;
  shape.experts = ExpertCount(loader);
  if (shape.experts == 0) return shape;
  shape.used = loader.Int("expert_used_count", 1, shape.experts);
  info.experts = shape.experts;
  info.experts_used = shape.used;
  shape.expert_inner = loader.Int("expert_feed_forward_length", 0, kMostInner, 0);
  if (shape.expert_inner == 0) shape.expert_inner = shape.inner;
  loader.Require(shape.expert_inner > 0, "neither expert_feed_forward_length nor feed_forward_length says how wide an expert is");
  shape.shared_inner = loader.Int("expert_shared_feed_forward_length", 0, kMostInner, 0);
  constexpr int kSoftmax = 1, kSigmoid = 2,
                kSoftmaxOfChosen = 3;  // as GGUF numbers them; the third is the first whose weights add up to one
  const int gating = loader.Int("expert_gating_func", 0, 255, 0);
  loader.Require(gating == 0 || gating == kSoftmax || gating == kSigmoid || gating == kSoftmaxOfChosen,
                 "expert_gating_func is " + std::to_string(gating) + ", neither softmax (1, 3) nor sigmoid (2)");
  shape.sigmoid = gating == kSigmoid;
  loader.Require(loader.Int("expert_group_count", 0, INT32_MAX, 0) <= 1, "experts in groups are not supported");
  shape.normed = loader.Bool("expert_weights_norm", true) || gating == kSoftmaxOfChosen;
  const auto scale = static_cast<float>(loader.Float("expert_weights_scale", 0.0));  // zero, as in llama.cpp, says that there is none
  if (scale != 0.0f) shape.scale = scale;
  return shape;
}

void FeedForwardRows::NewScores(Loader& loader, const FeedForwardShape& shape) {
  if (shape.experts == 0) return;
  scores = loader.NewRows(shape.experts);
  shared_gate = loader.NewRows(1);
}

int WidestInner(const FeedForwardShape& shape) { return std::max({1, shape.inner, shape.shared_inner}); }

void FeedForward::Load(Loader& loader, const std::string& block, std::string_view norm_name, const FeedForwardShape& shape) {
  activation = shape.activation;
  const std::string norm_tensor = block + std::string(norm_name);
  norm = loader.LoadVector(loader.Has(norm_tensor) ? norm_tensor : norm_tensor + ".weight", shape.width);  // Falcon-H1's is named so
  const auto load = [&](std::string_view suffix, int inner) {
    const auto named = [&](std::string_view part) { return std::string(block).append(part).append(suffix); };
    for (const char* part : {"ffn_gate", "ffn_up", "ffn_down"}) {
      loader.Require(!loader.Has(named(part) + ".bias"), "biases of the feed-forward network are not supported");
    }
    loader.Require(shape.activation != Activation::kClampedSwiGlu, "a clamped activation is supported of experts alone");
    if (shape.gate_in_up) {
      gate = loader.LoadRows(named("ffn_up") + ".weight", shape.width, 2 * inner, 0, inner);
      up = loader.LoadRows(named("ffn_up") + ".weight", shape.width, 2 * inner, inner, inner);
    } else {
      if (HasGate(shape.activation)) gate = loader.LoadMatrix(named("ffn_gate") + ".weight", shape.width, inner);
      up = loader.LoadMatrix(named("ffn_up") + ".weight", shape.width, inner);
    }
    down = loader.LoadMatrix(named("ffn_down") + ".weight", inner, shape.width);
  };
  // Some models begin with blocks that have no experts.
  if (shape.experts == 0 || !loader.Has(block + "ffn_gate_inp.weight")) {
    loader.Require(shape.inner > 0, "feed_forward_length is missing, and '" + block + "' has no experts");
    return load("", shape.inner);
  }
  const bool gated = HasGate(shape.activation);
  router = loader.LoadMatrix(block + "ffn_gate_inp.weight", shape.width, shape.experts);
  experts.count = shape.experts;
  experts.used = shape.used;
  experts.sigmoid = shape.sigmoid;
  experts.normed = shape.normed;
  experts.scale = shape.scale;
  experts.activation = shape.activation;
  if (loader.Has(block + "exp_probs_b.bias")) {
    loader.Require(shape.sigmoid, "a bias of the experts' probabilities goes with sigmoids alone");
    experts.choice_bias = loader.LoadVector(block + "exp_probs_b.bias", shape.experts);
  }
  if (loader.Has(block + "ffn_gate_inp.bias")) experts.score_bias = loader.LoadVector(block + "ffn_gate_inp.bias", shape.experts);
  const auto bias_of = [&](std::string_view part, int width) {
    const std::string name = std::string(block).append(part).append(".bias");
    return loader.Has(name) ? loader.LoadVector(name, width, shape.experts) : Vector{};
  };
  loader.Require(gated || !loader.Has(block + "ffn_gate_exps.bias"), "experts without a gate have a bias of it");
  loader.Require(!loader.Has(block + "ffn_gate_up_exps.bias"), "a bias of gates and ups in one tensor is not supported");
  if (gated) experts.gate_bias = bias_of("ffn_gate_exps", shape.expert_inner);
  experts.up_bias = bias_of("ffn_up_exps", shape.expert_inner);
  experts.down_bias = bias_of("ffn_down_exps", shape.width);
  if (loader.Has(block + "ffn_down_exps.scale")) experts.weight_scale = loader.LoadVector(block + "ffn_down_exps.scale", shape.experts);
  if (gated && loader.Has(block + "ffn_gate_up_exps.weight")) {
    experts.gate = loader.LoadExperts(block + "ffn_gate_up_exps.weight", shape.width, shape.expert_inner, shape.experts, {0, 2});
    experts.up = loader.LoadExperts(block + "ffn_gate_up_exps.weight", shape.width, shape.expert_inner, shape.experts, {1, 2});
  } else {
    if (gated) experts.gate = loader.LoadExperts(block + "ffn_gate_exps.weight", shape.width, shape.expert_inner, shape.experts);
    experts.up = loader.LoadExperts(block + "ffn_up_exps.weight", shape.width, shape.expert_inner, shape.experts);
  }
  experts.down = loader.LoadExperts(block + "ffn_down_exps.weight", shape.expert_inner, shape.width, shape.experts);
  if (shape.shared_inner > 0) {
    load("_shexp", shape.shared_inner);
    if (loader.Has(block + "ffn_gate_inp_shexp.weight"))
      shared_gate = loader.LoadMatrix(block + "ffn_gate_inp_shexp.weight", shape.width, 1);
  }
}

void FeedForward::Record(Ops& ops, const FeedForwardRows& rows, Rows residual, float eps) const {
  ops.RmsNorm(rows.normed, residual, norm, eps);
  if (router) {
    std::vector<Product> scores{{router, rows.scores}};
    if (shared_gate) scores.push_back({shared_gate, rows.shared_gate});
    ops.MatMul(rows.normed, scores);
    ops.MixExperts(residual, rows.normed, rows.scores, experts);
  }
  if (!up) return;
  if (output_norm.data) {
    RecordNetwork(ops, rows, rows.result, /*accumulate=*/false);
    ops.AddRmsNorm(residual, rows.result, output_norm, eps, output_scale);
  } else {
    RecordNetwork(ops, rows, residual, /*accumulate=*/true);
  }
}

void FeedForward::RecordNetwork(Ops& ops, const FeedForwardRows& rows, Rows out, bool accumulate) const {
  const Rows upper = rows.up.Columns(0, up->outputs), hidden = gate ? rows.gate.Columns(0, gate->outputs) : upper;
  if (gate) {
    ops.MatMul(rows.normed, std::array{Product{gate, hidden}, Product{up, upper}});
    activation == Activation::kGeGlu ? ops.GeGlu(hidden, hidden, upper) : ops.SwiGlu(hidden, hidden, upper);
  } else {
    ops.MatMul(rows.normed, std::array{Product{up, upper}});
    ops.ReluSquared(hidden, upper);
  }
  if (shared_gate) ops.SigmoidGate(hidden, rows.shared_gate);
  ops.MatMul(hidden, std::array{Product{down, out, accumulate}});
}

}  // namespace reprise
