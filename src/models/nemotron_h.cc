#include "models/nemotron_h.h"

#include <algorithm>
#include <string>

#include "models/blocks.h"
#include "models/feed_forward.h"
#include "models/mamba.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

enum class Sublayer { kMamba, kAttention, kFeedForward };

struct Block {
  Sublayer sublayer = Sublayer::kMamba;
  Mamba mamba;
  GroupedAttention attention;
  FeedForward feed_forward;
};

class NemotronH : public Network {
 public:
  NemotronH(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    ReadNumbers(loader);
    if (!loader.ok()) return;

    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < info_.layers && loader.ok(); ++i) LoadBlock(loader, i);
    NewStream(loader);
    ffn_rows_.normed = attention_rows_.normed = mamba_rows_.normed = loader.NewRows(width_);
    attention_rows_.key = loader.NewRows(attention_.kv_width());
    attention_rows_.value = loader.NewRows(attention_.kv_width());
    mamba_rows_.scanned = loader.NewRows(mamba_.inner());
    ffn_rows_.NewScores(loader, feed_forward_);
    loader.NewSharedRows({{&mamba_rows_.projected, mamba_.projected()},
                          {&attention_rows_.query, attention_.query_width()},
                          {&ffn_rows_.up, WidestInner(feed_forward_)}});
    loader.NewSharedRows({{&mamba_rows_.convolved, mamba_.channels()}, {&attention_rows_.attended, attention_.query_width()}});
  }

 private:
  void RecordRecurrences(Ops& ops) const override {
    for (const Block& block : blocks_) {
      if (block.sublayer == Sublayer::kMamba) block.mamba.RecordLogged(ops, mamba_, mamba_rows_);
    }
  }

  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool logged) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    if (block.sublayer == Sublayer::kAttention) {
      block.attention.Record(ops, attention_, attention_rows_, residual, part);
    } else if (block.sublayer == Sublayer::kMamba && part != MixerPart::kResult) {
      block.mamba.Record(ops, mamba_, mamba_rows_, residual, eps_, logged);
    }
  }

  void RecordFeedForward(Ops& ops, int index, Rows residual) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    if (block.sublayer == Sublayer::kFeedForward) block.feed_forward.Record(ops, ffn_rows_, residual, eps_);
  }

  void ReadNumbers(Loader& loader) {
    loader.Require(loader.Int("moe_latent_size", 0, INT32_MAX, 0) == 0, "experts of a narrowed row (moe_latent_size) are not supported");
    width_ = loader.Int("embedding_length", 1, 1 << 20);
    info_.width = width_;
    info_.context = loader.Int("context_length", 1, INT32_MAX, 32768);
    const int blocks = loader.Int("block_count", 1, kMostLayers);
    info_.layers = blocks - loader.Int("nextn_predict_layers", 0, blocks - 1, 0);  // what foretells tokens comes last, and is not run
    mamba_ = MambaShape::Read(loader, width_);
    ReadSublayers(loader, blocks);
    if (!loader.ok()) return;

    attention_ = AttentionShape::Read(loader, width_, *std::max_element(kv_heads_.begin(), kv_heads_.end()));
    attention_.rope.dims = 0;
    eps_ = attention_.eps = mamba_.norm_eps = static_cast<float>(loader.Float(
        "attention.layer_norm_rms_epsilon", loader.Float("attention.layer_norm_epsilon", 1e-5)));  // either may be all there is
    feed_forward_ = FeedForwardShape::Read(loader, width_, *std::max_element(inner_.begin(), inner_.end()), info_);
    feed_forward_.activation = Activation::kReluSquared;
    feed_forward_.sigmoid = true;  // no file says so
  }

  // A block attends that has heads of keys and values, and has a feed-forward network that has a length; the others are recurrent.
  void ReadSublayers(Loader& loader, int blocks) {
    kv_heads_ = KvHeadsPerBlock(loader, blocks);
    inner_ = loader.IntPerLayer("feed_forward_length", blocks, 0, FeedForwardShape::kMostInner);
    const int most = *std::max_element(inner_.begin(), inner_.end());
    for (size_t i = 0; i < inner_.size(); ++i) {
      loader.Require(inner_[i] == 0 || inner_[i] == most, "feed_forward_length differs between blocks that have one");
      loader.Require(inner_[i] == 0 || kv_heads_[i] == 0 || i >= static_cast<size_t>(info_.layers),
                     "a block has both attention.head_count_kv and feed_forward_length");
    }
  }

  void LoadBlock(Loader& loader, int index) {
    const std::string name = "blk." + std::to_string(index) + ".";
    Block& block = blocks_.emplace_back();
    if (inner_[static_cast<size_t>(index)] > 0) {
      block.sublayer = Sublayer::kFeedForward;
      block.feed_forward.Load(loader, name, "attn_norm", feed_forward_);
    } else if (kv_heads_[static_cast<size_t>(index)] > 0) {
      block.sublayer = Sublayer::kAttention;
      block.attention.Load(loader, name, attention_, /*head_norms=*/false);
    } else {
      block.mamba.Load(loader, name, mamba_);
    }
  }

  int width_ = 0;
  MambaShape mamba_;
  AttentionShape attention_;
  FeedForwardShape feed_forward_;
  std::vector<int> kv_heads_, inner_;  // of each block; 0: it has none
  std::vector<Block> blocks_;
  MambaRows mamba_rows_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadNemotronH(Loader& loader, NetworkInfo info) { return LoadAs<NemotronH>(loader, std::move(info)); }

}  // namespace reprise
