#include "models/falcon_h1.h"

#include <array>
#include <string>

#include "models/blocks.h"
#include "models/feed_forward.h"
#include "models/mamba.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

struct Block {
  GroupedAttention attention;  // its norm is Mamba's too
  Mamba mamba;
  FeedForward feed_forward;
};

// The model's many multipliers are in the weights of its files, but for the one of what a tied embedding is as the output matrix: that is not told.
class FalconH1 : public Network {
 public:
  FalconH1(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    ReadNumbers(loader);
    if (!loader.ok()) return;

    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < info_.layers && loader.ok(); ++i) {
      const std::string name = "blk." + std::to_string(i) + ".";
      Block& block = blocks_.emplace_back();
      block.attention.Load(loader, name, attention_, /*head_norms=*/false);
      block.mamba.LoadBehindNorm(loader, name, mamba_);
      block.feed_forward.Load(loader, name, "ffn_norm", feed_forward_);
    }
    NewStream(loader);
    ffn_rows_.normed = attention_rows_.normed = mamba_rows_.normed = loader.NewRows(width_);
    attention_rows_.query = loader.NewRows(attention_.query_width());
    attention_rows_.key = loader.NewRows(attention_.kv_width());
    attention_rows_.value = loader.NewRows(attention_.kv_width());
    mamba_rows_.scanned = loader.NewRows(mamba_.inner());
    ffn_rows_.NewScores(loader, feed_forward_);
    loader.NewSharedRows({{&mamba_rows_.projected, mamba_.projected()}, {&ffn_rows_.gate, WidestInner(feed_forward_)}});
    loader.NewSharedRows({{&mamba_rows_.convolved, mamba_.channels()},
                          {&attention_rows_.attended, attention_.query_width()},
                          {&ffn_rows_.up, WidestInner(feed_forward_)}});
  }

 private:
  void RecordRecurrences(Ops& ops) const override {
    for (const Block& block : blocks_) block.mamba.RecordLogged(ops, mamba_, mamba_rows_);
  }

  // Once Mamba's result is in the stream, what attention would read again is gone: it attends where its keys and values are appended.
  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool logged) const override {
    if (part == MixerPart::kResult) return;
    const Block& block = blocks_[static_cast<size_t>(index)];
    const GroupedAttention& attention = block.attention;
    const Rows projected = logged ? block.mamba.log : mamba_rows_.projected;
    ops.RmsNorm(mamba_rows_.normed, residual, attention.norm, eps_);
    ops.MatMul(mamba_rows_.normed,
               std::array{Product{block.mamba.input, projected}, Product{attention.query, attention_rows_.query},
                          Product{attention.key, attention_rows_.key}, Product{attention.value, attention_rows_.value}});
    block.mamba.RecordProjected(ops, mamba_, mamba_rows_, projected, residual);
    attention.RecordProjected(ops, attention_, attention_rows_, residual, MixerPart::kAll);
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
    mamba_ = MambaShape::Read(loader, width_);
    mamba_.normed = loader.Has("blk.0.ssm_norm.weight");  // the 34B model has it
    const int kv_heads = loader.Int("attention.head_count_kv", 1, 1 << 12);
    if (!loader.ok()) return;
    attention_ = AttentionShape::Read(loader, width_, kv_heads);
    loader.Require(!loader.Has("rope_freqs.weight"), "scaled rotary positions are not supported");
    eps_ = mamba_.norm_eps = attention_.eps;
  }

  int width_ = 0;
  MambaShape mamba_;
  AttentionShape attention_;
  FeedForwardShape feed_forward_;
  std::vector<Block> blocks_;
  MambaRows mamba_rows_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadFalconH1(Loader& loader, NetworkInfo info) { return LoadAs<FalconH1>(loader, std::move(info)); }

}  // namespace reprise
