#include "models/llama.h"

#include <cmath>
#include <vector>

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;
constexpr int kMostPositions = 1 << 20;  // beyond which no context goes

// In what the members of the family differ. Biases are where a file has them.
struct Member {
  bool interleaved_rope = false;  // GGUF stores the q and k rows permuted for it
  bool head_norms = false;        // of queries and keys
  int unturned_every = 0;         // of so many blocks the last one is not told positions; 0: all are
  bool gate_in_up = false;        // of the feed-forward network
  bool windowed = false;          // where a file names a window
  bool tempered = false;          // queries are scaled by how far they are beyond the context that the model was first made for
};
constexpr Member kLlama = {.interleaved_rope = true};
constexpr Member kQwen2 = {};
constexpr Member kQwen3 = {.head_norms = true};
constexpr Member kMistral3 = {.interleaved_rope = true, .tempered = true};
constexpr Member kPhi3 = {.gate_in_up = true, .windowed = true};
constexpr Member kSmolLm3 = {.interleaved_rope = true, .unturned_every = 4};

struct LlamaBlock {
  GroupedAttention attention;
  FeedForward feed_forward;
};

class Llama : public Network {
 public:
  Llama(Loader& loader, NetworkInfo info, const Member& member) : member_(member) {
    info_ = std::move(info);
    const int width = loader.Int("embedding_length", 1, 1 << 20);
    const int layers = loader.Int("block_count", 1, kMostLayers);
    FeedForwardShape feed_forward = FeedForwardShape::Read(loader, width, info_);
    feed_forward.gate_in_up = member.gate_in_up;
    const int heads = loader.Int("attention.head_count", 1, 1 << 12);
    attention_ = AttentionShape::Read(loader, width, loader.Int("attention.head_count_kv", 1, 1 << 12, heads));
    attention_.rope.interleaved = member.interleaved_rope;
    info_.context = loader.Int("context_length", 1, INT32_MAX, 2048);
    info_.width = width;
    info_.layers = layers;
    if (!loader.ok()) return;

    TakeDivisors(loader, attention_.rope);
    if (loader.Has("rope_factors_long.weight") || loader.Has("rope_factors_short.weight")) ReadLongPositions(loader);
    if (member.tempered) ReadTemperatures(loader);
    if (member.windowed) attention_.window = loader.Int("attention.sliding_window", 0, INT32_MAX, 0);
    unturned_ = attention_;
    unturned_.rope.dims = 0;
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

 private:
  // Positions that are scaled one way where the context is that of the first training, and another way where it is longer (LongRoPE, arXiv
  // 2402.13753). Keys that were turned one way cannot go on the other, so how long a session may become decides.
  void ReadLongPositions(Loader& loader) {
    RopeSpec& rope = attention_.rope;
    loader.Require(rope.factors == nullptr, "rotary positions are scaled in two ways");
    const bool is_long =
        ContextOf(loader.options().context, info_.context) > loader.Int("rope.scaling.original_context_length", 1, INT32_MAX);
    rope.factors = loader.LoadVector(is_long ? "rope_factors_long.weight" : "rope_factors_short.weight", rope.dims / 2).data;
    const double magnitude = loader.Float("rope.scaling.attn_factor", 1.0);
    loader.Require(magnitude > 0.0 && magnitude <= 1e4, "rope.scaling.attn_factor is not between 0 and 10,000");
    rope.magnitude = static_cast<float>(magnitude);
    info_.positions = is_long ? "of long texts" : "of short texts";
  }

  // 1 + s log(1 + n) after n times that context.
  void ReadTemperatures(Loader& loader) {
    const double scale = loader.Float("attention.temperature_scale", 0.0);
    loader.Require(scale >= 0.0 && scale <= 100.0, "attention.temperature_scale is not between 0 and 100");
    if (scale == 0.0 || !loader.ok()) return;
    attention_.temperature_every = loader.Int("rope.scaling.original_context_length", 1, INT32_MAX);
    std::vector<float> temperatures;
    for (int n = 0; n <= kMostPositions / attention_.temperature_every; ++n) {
      temperatures.push_back(static_cast<float>(1.0 + scale * std::log(1.0 + n)));
    }
    attention_.temperatures = loader.NewVector(temperatures);
  }

  void RecordMixer(Ops& ops, int block, Rows residual, MixerPart part, bool /*logged*/) const override {
    const bool turned = member_.unturned_every == 0 || (block + 1) % member_.unturned_every != 0;
    blocks_[static_cast<size_t>(block)].attention.Record(ops, turned ? attention_ : unturned_, attention_rows_, residual, part);
  }

  void RecordFeedForward(Ops& ops, int block, Rows residual) const override {
    blocks_[static_cast<size_t>(block)].feed_forward.Record(ops, ffn_rows_, residual, eps_);
  }

  const Member member_;
  AttentionShape attention_, unturned_;
  std::vector<LlamaBlock> blocks_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadLlama(Loader& loader, NetworkInfo info) { return LoadAs<Llama>(loader, std::move(info), kLlama); }
Result<std::unique_ptr<Network>> LoadQwen2(Loader& loader, NetworkInfo info) { return LoadAs<Llama>(loader, std::move(info), kQwen2); }
Result<std::unique_ptr<Network>> LoadQwen3(Loader& loader, NetworkInfo info) { return LoadAs<Llama>(loader, std::move(info), kQwen3); }
Result<std::unique_ptr<Network>> LoadMistral3(Loader& loader, NetworkInfo info) {
  return LoadAs<Llama>(loader, std::move(info), kMistral3);
}
Result<std::unique_ptr<Network>> LoadPhi3(Loader& loader, NetworkInfo info) { return LoadAs<Llama>(loader, std::move(info), kPhi3); }
Result<std::unique_ptr<Network>> LoadSmolLm3(Loader& loader, NetworkInfo info) { return LoadAs<Llama>(loader, std::move(info), kSmolLm3); }

}  // namespace reprise
