#include "models/mamba1.h"

#include <array>

namespace reprise {

constexpr int kPiece = Ops::kScanChannels;

Mamba1Shape Mamba1Shape::Read(Loader& loader, int width) {
  Mamba1Shape shape;
  shape.width = width;
  shape.kernel = loader.Int("ssm.conv_kernel", 2, 16);
  shape.inner = loader.Int("ssm.inner_size", 1, 1 << 24);
  shape.state_dim = loader.Int("ssm.state_size", 1, 1 << 12);
  shape.rank = loader.Int("ssm.time_step_rank", 1, 1 << 24);
  loader.Require(shape.inner % kPiece == 0, "ssm.inner_size is no multiple of 16");
  return shape;
}

void Mamba1::Load(Loader& loader, const std::string& block, const Mamba1Shape& shape) {
  const int inner = shape.inner, states = shape.state_dim;
  loader.Require(!loader.Has(block + "ssm_in.bias") && !loader.Has(block + "ssm_out.bias"), "biases of Mamba's products are not supported");
  norm = loader.LoadVector(block + "attn_norm.weight", shape.width);
  input = loader.LoadMatrix(block + "ssm_in.weight", shape.width, 2 * inner);
  convolution = loader.LoadVector(block + "ssm_conv1d.weight", shape.kernel, inner);
  if (loader.Has(block + "ssm_conv1d.bias")) convolution_bias = loader.LoadVector(block + "ssm_conv1d.bias", inner);
  selector = loader.LoadMatrix(block + "ssm_x.weight", inner, shape.selected());
  rank_norm = loader.LoadVector(block + "ssm_dt_norm.weight", shape.rank);
  b_norm = loader.LoadVector(block + "ssm_b_norm.weight", states);
  c_norm = loader.LoadVector(block + "ssm_c_norm.weight", states);
  steps = loader.LoadMatrix(block + "ssm_dt.weight", shape.rank, inner);
  a = loader.LoadPieces(block + "ssm_a", states, inner, kPiece);
  dt_bias = loader.LoadVector(block + "ssm_dt.bias", inner);
  d = loader.LoadVector(block + "ssm_d", inner);
  output = loader.LoadMatrix(block + "ssm_out.weight", inner, shape.width);
  tail = loader.Recurrent(block + "conv.tail", {shape.kernel - 1, inner});
  memory = loader.Recurrent(block + "ssm.memory", {inner / kPiece, states, kPiece});
  log = loader.NewLogged(2 * inner);
  selected_log = loader.NewLogged(shape.selected());
  step_log = loader.NewLogged(inner);
  loader.Log(log.Columns(0, inner));
  loader.Log(selected_log.Columns(shape.rank, 2 * states));
  loader.Log(step_log);
}

void Mamba1::Record(Ops& ops, const Mamba1Shape& shape, const Mamba1Rows& of_all, Rows residual, bool logged) const {
  const Mamba1Rows rows = logged ? Logged(of_all) : of_all;
  ops.RmsNorm(rows.normed, residual, norm, shape.eps);
  ops.MatMul(rows.normed, std::array{Product{input, rows.projected}});
  RecordConvolution(ops, shape, rows);
  ops.MatMul(rows.convolved, std::array{Product{selector, rows.selected}});
  const Rows b = shape.B(rows.selected), c = shape.C(rows.selected), rank = shape.Rank(rows.selected);
  ops.RmsNorm(b, b, b_norm, shape.eps);
  ops.RmsNorm(c, c, c_norm, shape.eps);
  ops.RmsNorm(rank, rank, rank_norm, shape.eps);
  ops.MatMul(rank, std::array{Product{steps, rows.steps}});
  RecordScan(ops, shape, rows);
  ops.SwiGlu(rows.scanned, rows.projected.Columns(shape.inner, shape.inner), rows.scanned);
  ops.MatMul(rows.scanned, std::array{Product{output, residual, /*accumulate=*/true}});
}

void Mamba1::RecordLogged(Ops& ops, const Mamba1Shape& shape, const Mamba1Rows& rows) const {
  const Mamba1Rows logged = Logged(rows);
  RecordConvolution(ops, shape, logged);
  RecordScan(ops, shape, logged);
}

Mamba1Rows Mamba1::Logged(Mamba1Rows rows) const {
  rows.projected = log;
  rows.selected = selected_log;
  rows.steps = step_log;
  return rows;
}

void Mamba1::RecordConvolution(Ops& ops, const Mamba1Shape& shape, const Mamba1Rows& rows) const {
  ops.CausalConv(rows.convolved, rows.projected.Columns(0, shape.inner), tail, convolution, convolution_bias, shape.kernel, /*silu=*/true);
}

void Mamba1::RecordScan(Ops& ops, const Mamba1Shape& shape, const Mamba1Rows& rows) const {
  ops.SelectiveScan(rows.scanned, rows.convolved, rows.steps, shape.B(rows.selected), shape.C(rows.selected), a, dt_bias, d, memory);
}

}  // namespace reprise
