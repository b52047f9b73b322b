#include "models/blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace reprise {
namespace {

constexpr char kFused[] = "attn_qkv.weight";  // rows of queries, keys and values in one

}  // namespace

std::vector<int> KvHeadsPerBlock(Loader& loader, int blocks) {
  std::vector<int> kv_heads = loader.IntPerLayer("attention.head_count_kv", blocks, 0, 1 << 12);
  const int most = *std::max_element(kv_heads.begin(), kv_heads.end());
  loader.Require(most > 0, "attention.head_count_kv is 0 for every block, so that none attends");
  loader.Require(std::all_of(kv_heads.begin(), kv_heads.end(), [&](int heads) { return heads == 0 || heads == most; }),
                 "attention.head_count_kv differs between blocks that attend");
  return kv_heads;
}

AttentionShape AttentionShape::Read(Loader& loader, int width, int kv_heads, const RopeReading& rope) {
  AttentionShape shape;
  shape.width = width;
  shape.heads = loader.Int("attention.head_count", 1, 1 << 12);
  shape.kv_heads = kv_heads;
  loader.Require(shape.heads % kv_heads == 0, "attention.head_count is not a multiple of attention.head_count_kv");
  shape.head_dim = loader.Int("attention.key_length", 1, 1 << 12, width / shape.heads);
  loader.Require(shape.head_dim >= 1, "attention.head_count is larger than embedding_length");
  loader.Require(loader.Int("attention.value_length", 1, 1 << 12, shape.head_dim) == shape.head_dim,
                 "attention.value_length differs from attention.key_length");
  shape.eps = static_cast<float>(loader.Float("attention.layer_norm_rms_epsilon", 1e-5));
  const int dims = loader.Int("rope.dimension_count", 2, 1 << 12, shape.head_dim);
  loader.Require(dims <= shape.head_dim && dims % 2 == 0, "rope.dimension_count is odd or larger than a head");
  if (loader.ok()) shape.rope = ReadRope(loader, dims, rope);
  shape.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  return shape;
}

void GroupedAttention::LoadQueries(Loader& loader, const std::string& block, const AttentionShape& shape, bool head_norms) {
  norm = loader.LoadVector(block + "attn_norm.weight", shape.width);
  if (!loader.Has(block + kFused)) query = loader.LoadMatrix(block + "attn_q.weight", shape.width, shape.query_width());
  output = loader.LoadMatrix(block + "attn_output.weight", shape.query_width(), shape.width);
  if (loader.Has(block + "attn_output.bias")) output_bias = loader.LoadVector(block + "attn_output.bias", shape.width);
  if (head_norms) query_norm = loader.LoadVector(block + "attn_q_norm.weight", shape.head_dim);
}

void GroupedAttention::Load(Loader& loader, const std::string& block, const AttentionShape& shape, bool head_norms) {
  LoadQueries(loader, block, shape, head_norms);
  if (loader.Has(block + kFused)) {
    const int q = shape.query_width(), kv = shape.kv_width();
    query = loader.LoadRows(block + kFused, shape.width, q + 2 * kv, 0, q);
    key = loader.LoadRows(block + kFused, shape.width, q + 2 * kv, q, kv);
    value = loader.LoadRows(block + kFused, shape.width, q + 2 * kv, q + kv, kv);
  } else {
    key = loader.LoadMatrix(block + "attn_k.weight", shape.width, shape.kv_width());
    if (!shape.values_may_be_keys || loader.Has(block + "attn_v.weight"))
      value = loader.LoadMatrix(block + "attn_v.weight", shape.width, shape.kv_width());
  }
  if (loader.Has(block + "attn_q.bias") || loader.Has(block + "attn_k.bias") || loader.Has(block + "attn_v.bias")) {
    query_bias = loader.LoadVector(block + "attn_q.bias", shape.query_width());
    key_bias = loader.LoadVector(block + "attn_k.bias", shape.kv_width());
    value_bias = loader.LoadVector(block + "attn_v.bias", shape.kv_width());
  }
  if (head_norms) key_norm = loader.LoadVector(block + "attn_k_norm.weight", shape.head_dim);
  keys = loader.KeyValueRows(block + "attn.k", shape.kv_heads, shape.head_dim);
  values = loader.KeyValueRows(block + "attn.v", shape.kv_heads, shape.head_dim);
}

void GroupedAttention::Record(Ops& ops, const AttentionShape& shape, const AttentionRows& rows, Rows residual, MixerPart part) const {
  std::vector<Product> products{{query, rows.query}};
  if (key) products.push_back({key, rows.key});
  if (value) products.push_back({value, rows.value});
  ops.RmsNorm(rows.normed, residual, norm, shape.eps);
  ops.MatMul(rows.normed, ProductsFor(part, products));
  RecordProjected(ops, shape, rows, residual, part);
}

void GroupedAttention::RecordProjected(Ops& ops, const AttentionShape& shape, const AttentionRows& rows, Rows residual,
                                       MixerPart part) const {
  const Heads queries = AllHeads(rows.query, shape.heads, shape.head_dim);
  const bool appends = part != MixerPart::kResult && key, attends = part != MixerPart::kState;
  const bool biased = query_bias.data != nullptr, turned = shape.rope.dims > 0 || query_norm.data != nullptr;
  if (attends && biased) ops.AddBias(rows.query, query_bias);
  if (appends && biased) {
    ops.AddBias(rows.key, key_bias);
    ops.AddBias(rows.value, value_bias);
  }
  if (appends && value_norm.data) ops.RmsNorm(rows.value, value ? rows.value : rows.key, value_norm, shape.eps);
  if (attends && turned) ops.NormRope(queries, query_norm, shape.eps, shape.rope);
  if (appends && turned) ops.NormRope(AllHeads(rows.key, shape.kv_heads, shape.head_dim), key_norm, shape.eps, shape.rope);
  if (appends) {
    ops.Append(keys, rows.key);
    ops.Append(values, rows.value);
  }
  if (attends) {
    if (shape.temperatures.data) ops.ScaleByPosition(rows.query, shape.temperatures, shape.temperature_every);
    ops.Attention(rows.attended, queries, keys, values, Heads{},
                  {.kv_heads = shape.kv_heads, .scale = shape.scale, .window = shape.window, .sinks = sinks});
    if (output_norm.data) {
      ops.MatMul(rows.attended, std::array{Product{output, rows.result}});
      ops.AddRmsNorm(residual, rows.result, output_norm, shape.eps);
    } else {
      ops.MatMul(rows.attended, std::array{Product{output, residual, /*accumulate=*/true}});
      if (output_bias.data) ops.AddBias(residual, output_bias);
    }
  }
}

}  // namespace reprise
