#include "models/mamba.h"

#include <array>

namespace reprise {

MambaShape MambaShape::Read(Loader& loader, int width) {
  MambaShape shape;
  shape.width = width;
  shape.kernel = loader.Int("ssm.conv_kernel", 2, 16);
  shape.ssm.state_dim = loader.Int("ssm.state_size", 1, 1 << 12);
  shape.ssm.groups = loader.Int("ssm.group_count", 1, 1 << 12);
  shape.ssm.heads = loader.Int("ssm.time_step_rank", 1, 1 << 12);
  const int inner = loader.Int("ssm.inner_size", 1, 1 << 24);
  loader.Require(shape.ssm.heads % shape.ssm.groups == 0, "ssm.time_step_rank is not a multiple of ssm.group_count");
  loader.Require(inner % shape.ssm.heads == 0, "ssm.inner_size is not a multiple of ssm.time_step_rank");
  shape.ssm.head_dim = inner / shape.ssm.heads;
  return shape;
}

void Mamba::Load(Loader& loader, const std::string& block, const MambaShape& shape) {
  norm = loader.LoadVector(block + "attn_norm.weight", shape.width);
  LoadBehindNorm(loader, block, shape);
}

void Mamba::LoadBehindNorm(Loader& loader, const std::string& block, const MambaShape& shape) {
  const int heads = shape.ssm.heads, groups = shape.ssm.groups;
  loader.Require(!loader.Has(block + "ssm_in.bias") && !loader.Has(block + "ssm_out.bias"), "biases of Mamba's products are not supported");
  input = loader.LoadMatrix(block + "ssm_in.weight", shape.width, shape.projected());
  convolution = loader.LoadVector(block + "ssm_conv1d.weight", shape.kernel, shape.channels());
  if (loader.Has(block + "ssm_conv1d.bias")) convolution_bias = loader.LoadVector(block + "ssm_conv1d.bias", shape.channels());
  a = loader.LoadVector(block + "ssm_a", 1, heads);
  dt_bias = loader.LoadVector(block + "ssm_dt.bias", heads);
  d = loader.LoadVector(block + "ssm_d", 1, heads);
  if (shape.normed) gated_norm = loader.LoadVector(block + "ssm_norm.weight", shape.inner() / groups, groups);
  output = loader.LoadMatrix(block + "ssm_out.weight", shape.inner(), shape.width);
  tail = loader.Recurrent(block + "conv.tail", {shape.kernel - 1, shape.channels()});
  memory = loader.Recurrent(block + "ssm.memory", {heads, shape.ssm.state_dim, shape.ssm.head_dim});
  log = loader.NewLogged(shape.projected());
  loader.Log(log.Columns(shape.inner(), shape.channels() + shape.ssm.heads));
}

void Mamba::Record(Ops& ops, const MambaShape& shape, const MambaRows& rows, Rows residual, float eps, bool logged) const {
  const Rows projected = logged ? log : rows.projected;
  ops.RmsNorm(rows.normed, residual, norm, eps);
  ops.MatMul(rows.normed, std::array{Product{input, projected}});
  RecordProjected(ops, shape, rows, projected, residual);
}

void Mamba::RecordProjected(Ops& ops, const MambaShape& shape, const MambaRows& rows, Rows projected, Rows residual) const {
  RecordRecurrence(ops, shape, rows, projected);
  ops.SwiGlu(rows.scanned, projected.Columns(0, shape.inner()), rows.scanned);
  Rows gated = rows.scanned;
  if (gated_norm.data != nullptr) {
    // To other rows, which the recurrence has left: a backend may then let the product do it (backend/cuda/fuse.h).
    gated = rows.convolved.Columns(0, shape.inner());
    const int of_group = shape.inner() / shape.ssm.groups;
    for (int first = 0; first < shape.inner(); first += of_group) {
      ops.RmsNorm(gated.Columns(first, of_group), rows.scanned.Columns(first, of_group), Vector{gated_norm.data + first, of_group},
                  shape.norm_eps);
    }
  }
  ops.MatMul(gated, std::array{Product{output, residual, /*accumulate=*/true}});
}

void Mamba::RecordRecurrence(Ops& ops, const MambaShape& shape, const MambaRows& rows, Rows projected) const {
  const Rows xbc = projected.Columns(shape.inner(), shape.channels());
  const Rows dt = projected.Columns(shape.inner() + shape.channels(), shape.ssm.heads);
  ops.CausalConv(rows.convolved, xbc, tail, convolution, convolution_bias, shape.kernel, /*silu=*/true);
  ops.Ssm(rows.scanned, rows.convolved, dt, a, dt_bias, d, memory, shape.ssm);
}

}  // namespace reprise
