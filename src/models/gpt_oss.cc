#include "models/gpt_oss.h"

#include <string>
#include <vector>

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

struct Block {
  bool windowed = false;
  GroupedAttention attention;
  FeedForward feed_forward;
};

class GptOss : public Network {
 public:
  GptOss(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    ReadNumbers(loader);
    if (!loader.ok()) return;
    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < info_.layers && loader.ok(); ++i) LoadBlock(loader, i);
    NewStream(loader);
    ffn_rows_.normed = attention_rows_.normed = loader.NewRows(info_.width);
    attention_rows_.key = loader.NewRows(everywhere_.kv_width());
    attention_rows_.value = loader.NewRows(everywhere_.kv_width());
    attention_rows_.query = loader.NewRows(everywhere_.query_width());
    attention_rows_.attended = loader.NewRows(everywhere_.query_width());
    ffn_rows_.NewScores(loader, feed_forward_);
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
    feed_forward_ = FeedForwardShape::Read(loader, info_.width, /*inner=*/0, info_);
    loader.Require(feed_forward_.experts > 0, "expert_count is missing");
    feed_forward_.activation = Activation::kClampedSwiGlu;
    const int kv_heads = loader.Int("attention.head_count_kv", 1, 1 << 12);
    if (!loader.ok()) return;
    // Its own code lets the ramp of YaRN begin and end between pairs; llama.cpp does not.
    everywhere_ = AttentionShape::Read(loader, info_.width, kv_heads, {.base = 150000.0, .whole_numbers = false});
    windowed_ = everywhere_;
    windowed_.window = loader.Int("attention.sliding_window", 1, INT32_MAX);
    is_windowed_ = loader.WindowedBlocks(info_.layers, /*every_otherwise=*/2);
    eps_ = everywhere_.eps;
  }

  void LoadBlock(Loader& loader, int index) {
    const std::string name = "blk." + std::to_string(index) + ".";
    Block& block = blocks_.emplace_back();
    block.windowed = is_windowed_[static_cast<size_t>(index)];
    block.attention.Load(loader, name, everywhere_, /*head_norms=*/false);
    block.attention.sinks = loader.LoadVector(name + "attn_sinks.weight", everywhere_.heads);
    block.feed_forward.Load(loader, name, "post_attention_norm", feed_forward_);
  }

  AttentionShape everywhere_, windowed_;
  std::vector<bool> is_windowed_;  // by block
  FeedForwardShape feed_forward_;
  std::vector<Block> blocks_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadGptOss(Loader& loader, NetworkInfo info) { return LoadAs<GptOss>(loader, std::move(info)); }

}  // namespace reprise
