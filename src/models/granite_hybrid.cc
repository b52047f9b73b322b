#include "models/granite_hybrid.h"

#include <algorithm>
#include <string>

#include "models/blocks.h"
#include "models/feed_forward.h"
#include "models/mamba.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

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
    ffn_rows_.normed = attention_rows_.normed = mamba_rows_.normed = loader.NewRows(width_);
    attention_rows_.key = loader.NewRows(attention_.kv_width());
    attention_rows_.value = loader.NewRows(attention_.kv_width());
    if (recurs()) mamba_rows_.scanned = loader.NewRows(mamba_.inner());
    ffn_rows_.NewScores(loader, feed_forward_);
    loader.NewSharedRows({{&mamba_rows_.projected, recurs() ? mamba_.projected() : 1},
                          {&attention_rows_.query, attention_.query_width()},
                          {&ffn_rows_.gate, WidestInner(feed_forward_)}});
    loader.NewSharedRows({{&mamba_rows_.convolved, recurs() ? mamba_.channels() : 1},
                          {&attention_rows_.attended, attention_.query_width()},
                          {&ffn_rows_.up, WidestInner(feed_forward_)}});
  }

 private:
  void RecordRecurrences(Ops& ops) const override {
    for (const Block& block : blocks_) {
      if (block.recurrent) block.mamba.RecordLogged(ops, mamba_, mamba_rows_);
    }
  }

  bool recurs() const {
    return std::any_of(kv_heads_.begin(), kv_heads_.end(), [](int heads) { return heads == 0; });
  }

  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool logged) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    if (!block.recurrent) {
      block.attention.Record(ops, attention_, attention_rows_, residual, part);
    } else if (part != MixerPart::kResult) {
      block.mamba.Record(ops, mamba_, mamba_rows_, residual, attention_.eps, logged);
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
    kv_heads_ = KvHeadsPerBlock(loader, info_.layers);
    if (!loader.ok()) return;
    if (recurs()) mamba_ = MambaShape::Read(loader, width_);
    if (!loader.ok()) return;

    attention_ = AttentionShape::Read(loader, width_, *std::max_element(kv_heads_.begin(), kv_heads_.end()));
    attention_.rope.interleaved = true;  // where there is any: GGUF stores the q and k rows permuted for it
    if (!loader.Bool("rope.scaling.finetuned", true)) attention_.rope.dims = 0;
    loader.Require(!loader.Has("rope_freqs.weight"), "scaled rotary positions are not supported");
    attention_.scale = Scale(loader, "attention.scale", attention_.scale);
    const float residual_scale = Scale(loader, "residual_scale", 1.0f);
    embedding_scale_ = Scale(loader, "embedding_scale", 1.0f) / residual_scale;
    logit_divisor_ = Scale(loader, "logit_scale", 1.0f);
    mamba_.norm_eps = attention_.eps;
    eps_ = attention_.eps = attention_.eps / (residual_scale * residual_scale);
  }

  // Zero, as in llama.cpp, says that there is none.
  static float Scale(Loader& loader, std::string_view key, float otherwise) {
    const auto scale = static_cast<float>(loader.Float(key, 0.0));
    if (scale == 0.0f) return otherwise;
    loader.Require(scale >= 1e-4f && scale <= 1e4f, std::string(key) + " is out of the range from 0.0001 to 10000");
    return scale;
  }

  void LoadBlock(Loader& loader, int index) {
    const std::string name = "blk." + std::to_string(index) + ".";
    Block& block = blocks_.emplace_back();
    block.recurrent = kv_heads_[static_cast<size_t>(index)] == 0;
    if (block.recurrent) {
      block.mamba.Load(loader, name, mamba_);
    } else {
      block.attention.Load(loader, name, attention_, /*head_norms=*/false);
    }
    block.feed_forward.Load(loader, name, "ffn_norm", feed_forward_);
  }

  int width_ = 0;
  float logit_divisor_ = 1;  // which divides the output norm, so that logits need not be divided
  MambaShape mamba_;
  AttentionShape attention_;
  FeedForwardShape feed_forward_;
  std::vector<int> kv_heads_;  // of each block; 0: it is recurrent
  std::vector<Block> blocks_;
  MambaRows mamba_rows_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadGraniteHybrid(Loader& loader, NetworkInfo info) {
  return LoadAs<GraniteHybrid>(loader, std::move(info));
}

}  // namespace reprise
