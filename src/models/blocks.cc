#include "models/blocks.h"

#include <array>

namespace reprise {

void FeedForward::Load(Loader& loader, const std::string& block, std::string_view norm_name, int width, int inner) {
  norm = loader.LoadVector(block + std::string(norm_name) + ".weight", width);
  gate = loader.LoadMatrix(block + "ffn_gate.weight", width, inner);
  up = loader.LoadMatrix(block + "ffn_up.weight", width, inner);
  down = loader.LoadMatrix(block + "ffn_down.weight", inner, width);
}

void RecordFeedForward(Ops& ops, const FeedForward& weights, const FeedForwardRows& rows, Rows residual, float eps) {
  ops.RmsNorm(rows.normed, residual, weights.norm, eps);
  ops.MatMul(rows.normed, std::array{Product{weights.gate, rows.gate}, Product{weights.up, rows.up}});
  ops.SwiGlu(rows.mixed, rows.gate, rows.up);
  ops.MatMul(rows.mixed, std::array{Product{weights.down, residual, /*accumulate=*/true}});
}

}  // namespace reprise
