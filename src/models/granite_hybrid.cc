#include "models/granite_hybrid.h"

#include <algorithm>
#include <array>
#include <string>

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

// y = out_proj(norm(ssm(silu(conv(x B C))) * silu(z))), where [z | x B C | dt] = in_proj(h), added to the residual stream.
struct Mamba {
  Vector norm;                     // [width]
  const Matrix* input = nullptr;   // [z: inner | x: inner | B: groups x state_dim | C: groups x state_dim | dt: heads, width]
  Vector convolution;              // [channels of x B C][kernel]
  Vector convolution_bias;         // [channels]; without data: none
  Vector a;                        // [heads], -exp(A_log)
  Vector dt_bias;                  // [heads]
  Vector d;                        // [heads]
  Vector gated_norm;               // [groups][inner / groups], each group normed by itself
  const Matrix* output = nullptr;  // [width, inner]
  StateRef tail;                   // [kernel - 1][channels]
  StateRef memory;                 // [heads][state_dim][head_dim]
  Rows log;                        // in_proj(h) of a logged step: what the recurrence takes from a row, and z beside it
};

struct Block {
  bool recurrent = false;
  GroupedAttention attention;  // of an attention block
  Mamba mamba;                 // of a recurrent block
  FeedForward feed_forward;
};

// Every sublayer's result is scaled before it is added to the residual stream. The stream is kept divided by that scale instead: then what is
// added needs none, what is embedded is divided by it, and the norms that read the stream see its square in their epsilon.
class GraniteHybrid : public Network {
 public:
  GraniteHybrid(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    ReadNumbers(loader);
    if (!loader.ok()) return;

    LoadEnds(loader, "output_norm.weight", 1.0f / logit_divisor_);
    for (int i = 0; i < info_.layers && loader.ok(); ++i) LoadBlock(loader, i);
    NewStream(loader);
    ffn_rows_.normed = attention_rows_.normed = loader.NewRows(width_);
    attention_rows_.key = loader.NewRows(attention_.kv_width());
    attention_rows_.value = loader.NewRows(attention_.kv_width());
    scanned_ = loader.NewRows(inner_size());
    ffn_rows_.NewScores(loader, feed_forward_);
    loader.NewSharedRows({{&projected_, projected_width()},
                          {&attention_rows_.query, attention_.query_width()},
                          {&ffn_rows_.gate, WidestInner(feed_forward_)}});
    loader.NewSharedRows(
        {{&convolved_, channels()}, {&attention_rows_.attended, attention_.query_width()}, {&ffn_rows_.up, WidestInner(feed_forward_)}});
  }

  void RecordReplay(Ops& ops) const override {
    for (const Block& block : blocks_) {
      if (block.recurrent) RecordRecurrence(ops, block.mamba, block.mamba.log);
    }
    ops.SaveLast(last_hidden_, hidden_);
  }

 private:
  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool logged) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    if (!block.recurrent) {
      block.attention.Record(ops, attention_, attention_rows_, residual, part);
    } else if (part != MixerPart::kResult) {
      RecordMamba(ops, block.mamba, logged ? block.mamba.log : projected_, residual);
    }
  }

  void RecordFeedForward(Ops& ops, int block, Rows residual) const override {
    blocks_[static_cast<size_t>(block)].feed_forward.Record(ops, ffn_rows_, residual, eps_);
  }

  void ReadNumbers(Loader& loader) {
    width_ = loader.Int("embedding_length", 1, 1 << 20);
    feed_forward_ = FeedForwardShape::Read(loader, width_, info_);
    info_.layers = loader.Int("block_count", 1, kMostLayers);
    info_.context = loader.Int("context_length", 1, INT32_MAX, 32768);
    info_.width = width_;
    kernel_ = loader.Int("ssm.conv_kernel", 2, 16);
    shape_.state_dim = loader.Int("ssm.state_size", 1, 1 << 12);
    shape_.groups = loader.Int("ssm.group_count", 1, 1 << 12);
    shape_.heads = loader.Int("ssm.time_step_rank", 1, 1 << 12);
    const int inner_size = loader.Int("ssm.inner_size", 1, 1 << 24);
    loader.Require(shape_.heads % shape_.groups == 0, "ssm.time_step_rank is not a multiple of ssm.group_count");
    loader.Require(inner_size % shape_.heads == 0, "ssm.inner_size is not a multiple of ssm.time_step_rank");
    shape_.head_dim = inner_size / shape_.heads;
    kv_heads_ = KvHeadsPerBlock(loader, info_.layers);
    if (!loader.ok()) return;

    attention_ = AttentionShape::Read(loader, width_, *std::max_element(kv_heads_.begin(), kv_heads_.end()));
    attention_.rope.interleaved = true;  // where there is any: GGUF stores the q and k rows permuted for it
    if (!loader.Bool("rope.scaling.finetuned", true)) attention_.rope.dims = 0;
    loader.Require(!loader.Has("rope_freqs.weight"), "scaled rotary positions are not supported");
    attention_.scale = Scale(loader, "attention.scale", attention_.scale);
    const float residual_scale = Scale(loader, "residual_scale", 1.0f);
    embedding_scale_ = Scale(loader, "embedding_scale", 1.0f) / residual_scale;
    logit_divisor_ = Scale(loader, "logit_scale", 1.0f);
    mamba_eps_ = attention_.eps;
    eps_ = attention_.eps = mamba_eps_ / (residual_scale * residual_scale);
  }

  // Zero, as in llama.cpp, says that there is none.
  static float Scale(Loader& loader, std::string_view key, float otherwise) {
    const auto scale = static_cast<float>(loader.Float(key, 0.0));
    if (scale == 0.0f) return otherwise;
    loader.Require(scale >= 1e-4f && scale <= 1e4f, std::string(key) + " is out of the range from 0.0001 to 10000");
    return scale;
  }

  int inner_size() const { return shape_.heads * shape_.head_dim; }
  int channels() const { return inner_size() + 2 * shape_.groups * shape_.state_dim; }
  int projected_width() const { return inner_size() + channels() + shape_.heads; }

  void LoadBlock(Loader& loader, int index) {
    const std::string name = "blk." + std::to_string(index) + ".";
    Block& block = blocks_.emplace_back();
    block.recurrent = kv_heads_[static_cast<size_t>(index)] == 0;
    if (block.recurrent) {
      block.mamba = LoadMamba(loader, name);
    } else {
      block.attention.Load(loader, name, attention_, /*head_norms=*/false);
    }
    block.feed_forward.Load(loader, name, "ffn_norm", feed_forward_);
  }

  Mamba LoadMamba(Loader& loader, const std::string& name) {
    loader.Require(!loader.Has(name + "ssm_in.bias") && !loader.Has(name + "ssm_out.bias"), "biases of Mamba's products are not supported");
    Mamba mamba;
    mamba.norm = loader.LoadVector(name + "attn_norm.weight", width_);
    mamba.input = loader.LoadMatrix(name + "ssm_in.weight", width_, projected_width());
    mamba.convolution = loader.LoadVector(name + "ssm_conv1d.weight", kernel_, channels());
    if (loader.Has(name + "ssm_conv1d.bias")) mamba.convolution_bias = loader.LoadVector(name + "ssm_conv1d.bias", channels());
    mamba.a = loader.LoadVector(name + "ssm_a", 1, shape_.heads);
    mamba.dt_bias = loader.LoadVector(name + "ssm_dt.bias", shape_.heads);
    mamba.d = loader.LoadVector(name + "ssm_d", 1, shape_.heads);
    mamba.gated_norm = loader.LoadVector(name + "ssm_norm.weight", inner_size() / shape_.groups, shape_.groups);
    mamba.output = loader.LoadMatrix(name + "ssm_out.weight", inner_size(), width_);
    mamba.tail = loader.Recurrent(name + "conv.tail", {kernel_ - 1, channels()});
    mamba.memory = loader.Recurrent(name + "ssm.memory", {shape_.heads, shape_.state_dim, shape_.head_dim});
    mamba.log = loader.NewRows(projected_width(), kReplayRows);
    return mamba;
  }

  void RecordMamba(Ops& ops, const Mamba& block, Rows projected, Rows residual) const {
    ops.RmsNorm(ffn_rows_.normed, residual, block.norm, attention_.eps);
    ops.MatMul(ffn_rows_.normed, std::array{Product{block.input, projected}});
    RecordRecurrence(ops, block, projected);
    ops.SwiGlu(scanned_, projected.Columns(0, inner_size()), scanned_);
    const int of_group = inner_size() / shape_.groups;
    for (int first = 0; first < inner_size(); first += of_group) {
      const Rows group = scanned_.Columns(first, of_group);
      ops.RmsNorm(group, group, Vector{block.gated_norm.data + first, of_group}, mamba_eps_);
    }
    ops.MatMul(scanned_, std::array{Product{block.output, residual, /*accumulate=*/true}});
  }

  // Both states of the block, and `scanned_`.
  void RecordRecurrence(Ops& ops, const Mamba& block, Rows projected) const {
    const Rows xbc = projected.Columns(inner_size(), channels()), dt = projected.Columns(inner_size() + channels(), shape_.heads);
    ops.CausalConv(convolved_, xbc, block.tail, block.convolution, block.convolution_bias, kernel_, /*silu=*/true);
    ops.Ssm(scanned_, convolved_, dt, block.a, block.dt_bias, block.d, block.memory, shape_);
  }

  int width_ = 0, kernel_ = 0;
  float mamba_eps_ = 0;      // of the norm within a Mamba block
  float logit_divisor_ = 1;  // which divides the output norm, so that logits need not be divided
  Ops::SsmShape shape_{};
  AttentionShape attention_;
  FeedForwardShape feed_forward_;
  std::vector<int> kv_heads_;  // of each block; 0: it is recurrent
  std::vector<Block> blocks_;
  Rows projected_, convolved_, scanned_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadGraniteHybrid(Loader& loader, NetworkInfo info) {
  return LoadAs<GraniteHybrid>(loader, std::move(info));
}

}  // namespace reprise
