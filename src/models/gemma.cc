#include "models/gemma.h"

#include <cmath>
#include <string>
#include <vector>

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;
constexpr int kLayersOf27B = 62;  // whose scale of scores is not told by the width of a head, nor by its file

struct Block {
  bool windowed = false;
  GroupedAttention attention;
  FeedForward feed_forward;
};

class Gemma3 : public Network {
 public:
  Gemma3(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    ReadNumbers(loader);
    if (!loader.ok()) return;
    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < info_.layers && loader.ok(); ++i) LoadBlock(loader, i);
    NewStream(loader);
    ffn_rows_.normed = attention_rows_.normed = loader.NewRows(info_.width);
    ffn_rows_.result = attention_rows_.result = loader.NewRows(info_.width);
    attention_rows_.key = loader.NewRows(everywhere_.kv_width());
    attention_rows_.value = loader.NewRows(everywhere_.kv_width());
    loader.NewSharedRows({{&attention_rows_.query, everywhere_.query_width()}, {&ffn_rows_.gate, WidestInner(feed_forward_)}});
    loader.NewSharedRows({{&attention_rows_.attended, everywhere_.query_width()}, {&ffn_rows_.up, WidestInner(feed_forward_)}});
  }

  void RecordReplay(Ops& ops) const override { ops.SaveLast(last_hidden_, hidden_); }

 private:
  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool /*logged*/) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    block.attention.Record(ops, block.windowed ? windowed_ : everywhere_, attention_rows_, residual, part);
  }

  void RecordFeedForward(Ops& ops, int block, Rows residual) const override {
    blocks_[static_cast<size_t>(block)].feed_forward.Record(ops, ffn_rows_, residual, eps_);
  }

  void ReadNumbers(Loader& loader) {
    info_.width = loader.Int("embedding_length", 1, 1 << 20);
    info_.layers = loader.Int("block_count", 1, kMostLayers);
    info_.context = loader.Int("context_length", 1, INT32_MAX, 131072);
    feed_forward_ = FeedForwardShape::Read(loader, info_.width, info_);
    feed_forward_.activation = Activation::kGeGlu;
    loader.Require(feed_forward_.experts == 0, "experts behind a norm of their own are not supported");
    const int kv_heads = loader.Int("attention.head_count_kv", 1, 1 << 12);
    loader.Require(loader.Float("final_logit_softcapping", 0.0) == 0.0, "bounded logits (final_logit_softcapping) are not supported");
    loader.Require(loader.Float("attn_logit_softcapping", 0.0) == 0.0, "bounded scores (attn_logit_softcapping) are not supported");
    if (!loader.ok()) return;
    everywhere_ = AttentionShape::Read(loader, info_.width, kv_heads, {.base = 1e6});
    if (info_.layers == kLayersOf27B) everywhere_.scale = 1.0f / std::sqrt(static_cast<float>(info_.width) / everywhere_.heads);
    windowed_ = everywhere_;
    windowed_.window = loader.Int("attention.sliding_window", 1, INT32_MAX);
    windowed_.rope = RopeSpec{.dims = everywhere_.rope.dims, .base = loader.Float("rope.freq_base_swa", 10000.0)};
    loader.Require(windowed_.rope.base > 1.0 && windowed_.rope.base <= 1e12, "rope.freq_base_swa is not between 1 and 10^12");
    is_windowed_ = loader.WindowedBlocks(info_.layers, /*every_otherwise=*/6);
    eps_ = everywhere_.eps;
    embedding_scale_ = std::sqrt(static_cast<float>(info_.width));
  }

  void LoadBlock(Loader& loader, int index) {
    const std::string name = "blk." + std::to_string(index) + ".";
    Block& block = blocks_.emplace_back();
    block.windowed = is_windowed_[static_cast<size_t>(index)];
    block.attention.Load(loader, name, everywhere_, /*head_norms=*/true);
    loader.Require(block.attention.output_bias.data == nullptr, "a bias of attention's output is not supported");
    block.attention.output_norm = loader.LoadVector(name + "post_attention_norm.weight", info_.width);
    block.feed_forward.Load(loader, name, "ffn_norm", feed_forward_);
    block.feed_forward.output_norm = loader.LoadVector(name + "post_ffw_norm.weight", info_.width);
  }

  AttentionShape everywhere_, windowed_;
  std::vector<bool> is_windowed_;  // by block
  FeedForwardShape feed_forward_;
  std::vector<Block> blocks_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadGemma3(Loader& loader, NetworkInfo info) { return LoadAs<Gemma3>(loader, std::move(info)); }

}  // namespace reprise
