#include "models/jamba.h"

#include <algorithm>
#include <string>

#include "models/blocks.h"
#include "models/feed_forward.h"
#include "models/mamba1.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

struct Block {
  bool recurrent = false;
  GroupedAttention attention;  // of an attention block
  Mamba1 mamba;                // of a recurrent block
  FeedForward feed_forward;
};

class Jamba : public Network {
 public:
  Jamba(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    ReadNumbers(loader);
    if (!loader.ok()) return;

    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < info_.layers && loader.ok(); ++i) LoadBlock(loader, i);
    NewStream(loader);
    ffn_rows_.normed = attention_rows_.normed = mamba_rows_.normed = loader.NewRows(width_);
    attention_rows_.key = loader.NewRows(attention_.kv_width());
    attention_rows_.value = loader.NewRows(attention_.kv_width());
    mamba_rows_.selected = loader.NewRows(mamba_.selected());
    mamba_rows_.scanned = loader.NewRows(mamba_.inner);
    mamba_rows_.steps = loader.NewRows(mamba_.inner);
    ffn_rows_.NewScores(loader, feed_forward_);
    loader.NewSharedRows({{&mamba_rows_.projected, 2 * mamba_.inner},
                          {&attention_rows_.query, attention_.query_width()},
                          {&ffn_rows_.gate, WidestInner(feed_forward_)}});
    loader.NewSharedRows({{&mamba_rows_.convolved, mamba_.inner},
                          {&attention_rows_.attended, attention_.query_width()},
                          {&ffn_rows_.up, WidestInner(feed_forward_)}});
  }

 private:
  void RecordRecurrences(Ops& ops) const override {
    for (const Block& block : blocks_) {
      if (block.recurrent) block.mamba.RecordLogged(ops, mamba_, mamba_rows_);
    }
  }

  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool logged) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    if (!block.recurrent) {
      block.attention.Record(ops, attention_, attention_rows_, residual, part);
    } else if (part != MixerPart::kResult) {
      block.mamba.Record(ops, mamba_, mamba_rows_, residual, logged);
    }
  }

  void RecordFeedForward(Ops& ops, int block, Rows residual) const override {
    blocks_[static_cast<size_t>(block)].feed_forward.Record(ops, ffn_rows_, residual, eps_);
  }

  void ReadNumbers(Loader& loader) {
    width_ = loader.Int("embedding_length", 1, 1 << 20);
    info_.width = width_;
    info_.layers = loader.Int("block_count", 1, kMostLayers);
    info_.context = loader.Int("context_length", 1, INT32_MAX, 32768);
    feed_forward_ = FeedForwardShape::Read(loader, width_, info_);
    feed_forward_.normed = false;  // no file says so
    kv_heads_ = KvHeadsPerBlock(loader, info_.layers);
    mamba_ = Mamba1Shape::Read(loader, width_);
    if (!loader.ok()) return;

    attention_ = AttentionShape::Read(loader, width_, *std::max_element(kv_heads_.begin(), kv_heads_.end()));
    attention_.rope.dims = 0;
    eps_ = mamba_.eps = attention_.eps;
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
  Mamba1Shape mamba_;
  AttentionShape attention_;
  FeedForwardShape feed_forward_;
  std::vector<int> kv_heads_;  // of each block; 0: it is recurrent
  std::vector<Block> blocks_;
  Mamba1Rows mamba_rows_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadJamba(Loader& loader, NetworkInfo info) { return LoadAs<Jamba>(loader, std::move(info)); }

}  // namespace reprise
