#include "models/llama.h"

#include <array>
#include <cmath>

#include "models/blocks.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

struct LlamaBlock {
  Vector attention_norm;           // [width]
  const Matrix* query = nullptr;   // [heads x head_dim, width]
  const Matrix* key = nullptr;     // [kv_heads x head_dim, width]
  const Matrix* value = nullptr;   // [kv_heads x head_dim, width]
  const Matrix* output = nullptr;  // [width, heads x head_dim]
  StateRef keys;                   // a row: kv_heads x head_dim
  StateRef values;                 // a row: kv_heads x head_dim
  FeedForward feed_forward;
};

class Llama : public Network {
 public:
  Llama(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    width_ = loader.Int("embedding_length", 1, 1 << 20);
    const int layers = loader.Int("block_count", 1, kMostLayers);
    const int inner = loader.Int("feed_forward_length", 1, 1 << 22);
    heads_ = loader.Int("attention.head_count", 1, 1 << 12);
    kv_heads_ = loader.Int("attention.head_count_kv", 1, 1 << 12, heads_);
    loader.Require(heads_ % kv_heads_ == 0, "attention.head_count is not a multiple of attention.head_count_kv");
    head_dim_ = loader.Int("attention.key_length", 1, 1 << 12, width_ / heads_);
    loader.Require(loader.Int("attention.value_length", 1, 1 << 12, head_dim_) == head_dim_,
                   "attention.value_length differs from attention.key_length");
    eps_ = static_cast<float>(loader.Float("attention.layer_norm_rms_epsilon", 1e-5));
    rope_.dims = loader.Int("rope.dimension_count", 2, 1 << 12, head_dim_);
    loader.Require(rope_.dims <= head_dim_ && rope_.dims % 2 == 0, "rope.dimension_count is odd or larger than a head");
    rope_.base = loader.Float("rope.freq_base", 10000.0);
    rope_.interleaved = true;  // GGUF stores the q and k rows permuted for it
    loader.RefuseUnless("rope.scaling.type", "none", "scaled rotary positions");
    loader.Require(loader.Int("expert_count", 0, 1 << 16, 0) == 0, "mixtures of experts are not supported");
    info_.context = loader.Int("context_length", 1, INT32_MAX, 2048);
    info_.width = width_;
    info_.layers = layers;
    if (!loader.ok()) return;

    if (loader.Has("rope_freqs.weight")) rope_.factors = loader.LoadVector("rope_freqs.weight", rope_.dims / 2).data;
    embedding_ = loader.LoadMatrix("token_embd.weight", width_, info_.vocabulary);
    output_norm_ = loader.LoadVector("output_norm.weight", width_);
    output_ = loader.Has("output.weight") ? loader.LoadMatrix("output.weight", width_, info_.vocabulary) : embedding_;
    for (int i = 0; i < layers && loader.ok(); ++i) LoadBlock(loader, "blk." + std::to_string(i) + ".", inner);
    last_hidden_ = loader.Recurrent("last.hidden", {width_});

    residual_ = loader.NewRows(width_);
    hidden_ = loader.NewRows(width_);
    query_ = loader.NewRows(heads_ * head_dim_);
    key_ = loader.NewRows(kv_heads_ * head_dim_);
    value_ = loader.NewRows(kv_heads_ * head_dim_);
    attended_ = loader.NewRows(heads_ * head_dim_);
    ffn_ = {loader.NewRows(width_), loader.NewRows(inner), loader.NewRows(inner), loader.NewRows(inner)};
  }

  void RecordBody(Ops& ops, bool /*logged*/) const override {
    ops.Embed(residual_, *embedding_, 1.0f);
    for (const LlamaBlock& block : blocks_) {
      RecordAttention(ops, block);
      RecordFeedForward(ops, block.feed_forward, ffn_, residual_, eps_);
    }
    ops.RmsNorm(hidden_, residual_, output_norm_, eps_);
    ops.SaveLast(last_hidden_, hidden_);
  }

  void RecordReplay(Ops& ops) const override { ops.SaveLast(last_hidden_, hidden_); }

  void RecordHead(Ops& ops, Rows logits, Rows hidden) const override { ops.MatMul(hidden, std::array{Product{output_, logits}}); }

 private:
  void LoadBlock(Loader& loader, const std::string& name, int inner) {
    LlamaBlock block;
    const int query_width = heads_ * head_dim_;
    const int kv_width = kv_heads_ * head_dim_;
    loader.Require(!loader.Has(name + "attn_q.bias"), "attention biases are not supported");
    block.attention_norm = loader.LoadVector(name + "attn_norm.weight", width_);
    block.query = loader.LoadMatrix(name + "attn_q.weight", width_, query_width);
    block.key = loader.LoadMatrix(name + "attn_k.weight", width_, kv_width);
    block.value = loader.LoadMatrix(name + "attn_v.weight", width_, kv_width);
    block.output = loader.LoadMatrix(name + "attn_output.weight", query_width, width_);
    block.keys = loader.KeyValueRows(name + "attn.k", kv_heads_, head_dim_);
    block.values = loader.KeyValueRows(name + "attn.v", kv_heads_, head_dim_);
    block.feed_forward.Load(loader, name, "ffn_norm", width_, inner);
    blocks_.push_back(block);
  }

  void RecordAttention(Ops& ops, const LlamaBlock& block) const {
    const Heads query = AllHeads(query_, heads_, head_dim_);
    ops.RmsNorm(ffn_.normed, residual_, block.attention_norm, eps_);
    ops.MatMul(ffn_.normed, std::array{Product{block.query, query_}, Product{block.key, key_}, Product{block.value, value_}});
    ops.NormRope(query, Vector{}, eps_, rope_);
    ops.NormRope(AllHeads(key_, kv_heads_, head_dim_), Vector{}, eps_, rope_);
    ops.Append(block.keys, key_);
    ops.Append(block.values, value_);
    ops.Attention(attended_, query, block.keys, block.values, kv_heads_, 1.0f / std::sqrt(static_cast<float>(head_dim_)), Heads{}, 0);
    ops.MatMul(attended_, std::array{Product{block.output, residual_, /*accumulate=*/true}});
  }

  int width_ = 0, heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
  float eps_ = 0;
  RopeSpec rope_;
  const Matrix* embedding_ = nullptr;
  const Matrix* output_ = nullptr;
  Vector output_norm_;
  std::vector<LlamaBlock> blocks_;
  Rows residual_, query_, key_, value_, attended_;
  FeedForwardRows ffn_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadLlama(Loader& loader, NetworkInfo info) {
  auto network = std::make_unique<Llama>(loader, std::move(info));
  REPRISE_RETURN_IF_ERROR(loader.status());
  return std::unique_ptr<Network>(std::move(network));
}

}  // namespace reprise
