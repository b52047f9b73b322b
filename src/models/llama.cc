#include "models/llama.h"

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

// In what the members of the family differ. Biases are where a file has them.
struct Member {
  bool interleaved_rope;  // GGUF stores the q and k rows permuted for it
  bool head_norms;        // of queries and keys
};
constexpr Member kLlama = {.interleaved_rope = true, .head_norms = false};
constexpr Member kQwen2 = {.interleaved_rope = false, .head_norms = false};
constexpr Member kQwen3 = {.interleaved_rope = false, .head_norms = true};

struct LlamaBlock {
  GroupedAttention attention;
  FeedForward feed_forward;
};

class Llama : public Network {
 public:
  Llama(Loader& loader, NetworkInfo info, const Member& member) {
    info_ = std::move(info);
    const int width = loader.Int("embedding_length", 1, 1 << 20);
    const int layers = loader.Int("block_count", 1, kMostLayers);
    const FeedForwardShape feed_forward = FeedForwardShape::Read(loader, width, info_);
    const int heads = loader.Int("attention.head_count", 1, 1 << 12);
    attention_ = AttentionShape::Read(loader, width, loader.Int("attention.head_count_kv", 1, 1 << 12, heads));
    attention_.rope.interleaved = member.interleaved_rope;
    info_.context = loader.Int("context_length", 1, INT32_MAX, 2048);
    info_.width = width;
    info_.layers = layers;
    if (!loader.ok()) return;

    RopeSpec& rope = attention_.rope;
    if (loader.Has("rope_freqs.weight")) {
      loader.Require(rope.factors == nullptr, "rotary positions are scaled by rope.scaling and by rope_freqs.weight");
      rope.factors = loader.LoadVector("rope_freqs.weight", rope.dims / 2).data;
    }
    eps_ = attention_.eps;
    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < layers && loader.ok(); ++i) {
      const std::string name = "blk." + std::to_string(i) + ".";
      LlamaBlock& block = blocks_.emplace_back();
      block.attention.Load(loader, name, attention_, member.head_norms);
      block.feed_forward.Load(loader, name, "ffn_norm", feed_forward);
    }
    NewStream(loader);
    ffn_rows_.normed = attention_rows_.normed = loader.NewRows(width);
    ffn_rows_.NewScores(loader, feed_forward);
    attention_rows_.key = loader.NewRows(attention_.kv_width());
    attention_rows_.value = loader.NewRows(attention_.kv_width());
    loader.NewSharedRows({{&attention_rows_.query, attention_.query_width()}, {&ffn_rows_.gate, WidestInner(feed_forward)}});
    loader.NewSharedRows({{&attention_rows_.attended, attention_.query_width()}, {&ffn_rows_.up, WidestInner(feed_forward)}});
  }

  void RecordReplay(Ops& ops) const override { ops.SaveLast(last_hidden_, hidden_); }

 private:
  void RecordMixer(Ops& ops, int block, Rows residual, MixerPart part, bool /*logged*/) const override {
    blocks_[static_cast<size_t>(block)].attention.Record(ops, attention_, attention_rows_, residual, part);
  }

  void RecordFeedForward(Ops& ops, int block, Rows residual) const override {
    blocks_[static_cast<size_t>(block)].feed_forward.Record(ops, ffn_rows_, residual, eps_);
  }

  AttentionShape attention_;
  std::vector<LlamaBlock> blocks_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadLlama(Loader& loader, NetworkInfo info) { return LoadAs<Llama>(loader, std::move(info), kLlama); }
Result<std::unique_ptr<Network>> LoadQwen2(Loader& loader, NetworkInfo info) { return LoadAs<Llama>(loader, std::move(info), kQwen2); }
Result<std::unique_ptr<Network>> LoadQwen3(Loader& loader, NetworkInfo info) { return LoadAs<Llama>(loader, std::move(info), kQwen3); }

}  // namespace reprise
