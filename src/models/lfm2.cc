#include "models/lfm2.h"

#include <algorithm>
#include <array>

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

// y = out_proj(C * conv(B * x)), where [B | C | x] = in_proj(h), added to the residual stream. The convolution is causal, a channel at a time.
struct ShortConv {
  Vector norm;                     // [width]
  const Matrix* input = nullptr;   // [B | C | x: width each, width]
  Vector convolution;              // [width][kernel]
  const Matrix* output = nullptr;  // [width, width]
  StateRef tail;                   // [kernel - 1][width]: the last B * x
  Rows log;                        // B * x of a logged step: all that the recurrence takes from a row
};

struct Block {
  bool recurrent = false;
  GroupedAttention attention;  // of an attention block
  ShortConv convolution;       // of a recurrent block
  FeedForward feed_forward;
};

class Lfm2 : public Network {
 public:
  Lfm2(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    width_ = loader.Int("embedding_length", 1, 1 << 20);
    const FeedForwardShape feed_forward = FeedForwardShape::Read(loader, width_, info_);
    kernel_ = loader.Int("shortconv.l_cache", 2, 16);
    loader.Require(loader.Int("attention.sliding_window", 0, INT32_MAX, 0) == 0, "sliding windows are not supported");
    info_.context = loader.Int("context_length", 1, INT32_MAX, 32768);
    info_.width = width_;
    info_.layers = loader.Int("block_count", 1, kMostLayers);
    const std::vector<int> kv_heads = KvHeadsPerBlock(loader, info_.layers);
    if (!loader.ok()) return;
    attention_ = AttentionShape::Read(loader, width_, *std::max_element(kv_heads.begin(), kv_heads.end()));
    if (!loader.ok()) return;

    eps_ = attention_.eps;
    LoadEnds(loader, "token_embd_norm.weight");  // its name in the files notwithstanding
    for (int i = 0; i < info_.layers && loader.ok(); ++i) {
      const std::string name = "blk." + std::to_string(i) + ".";
      Block& block = blocks_.emplace_back();
      block.recurrent = kv_heads[static_cast<size_t>(i)] == 0;
      if (block.recurrent) {
        block.convolution = LoadShortConv(loader, name);
      } else {
        block.attention.Load(loader, name, attention_, /*head_norms=*/true);
      }
      block.feed_forward.Load(loader, name, "ffn_norm", feed_forward);
    }
    NewStream(loader);
    ffn_rows_.normed = attention_rows_.normed = loader.NewRows(width_);
    attention_rows_.key = loader.NewRows(attention_.kv_width());
    attention_rows_.value = loader.NewRows(attention_.kv_width());
    convolved_ = loader.NewRows(width_);
    ffn_rows_.NewScores(loader, feed_forward);
    loader.NewSharedRows(
        {{&projected_, 3 * width_}, {&attention_rows_.query, attention_.query_width()}, {&ffn_rows_.gate, WidestInner(feed_forward)}});
    loader.NewSharedRows(
        {{&gated_, width_}, {&attention_rows_.attended, attention_.query_width()}, {&ffn_rows_.up, WidestInner(feed_forward)}});
  }

 private:
  void RecordRecurrences(Ops& ops) const override {
    for (const Block& block : blocks_) {
      if (block.recurrent) RecordRecurrence(ops, block.convolution, block.convolution.log);
    }
  }

  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool logged) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    if (!block.recurrent) {
      block.attention.Record(ops, attention_, attention_rows_, residual, part);
    } else if (part != MixerPart::kResult) {
      RecordShortConv(ops, block.convolution, logged ? block.convolution.log : gated_, residual);
    }
  }

  void RecordFeedForward(Ops& ops, int block, Rows residual) const override {
    blocks_[static_cast<size_t>(block)].feed_forward.Record(ops, ffn_rows_, residual, eps_);
  }

  ShortConv LoadShortConv(Loader& loader, const std::string& name) {
    for (const char* part : {"in_proj", "conv", "out_proj"}) {
      loader.Require(!loader.Has(name + "shortconv." + part + ".bias"), "biases of short convolutions are not supported");
    }
    ShortConv block;
    block.norm = loader.LoadVector(name + "attn_norm.weight", width_);
    block.input = loader.LoadMatrix(name + "shortconv.in_proj.weight", width_, 3 * width_);
    block.convolution = loader.LoadVector(name + "shortconv.conv.weight", kernel_, width_);
    block.output = loader.LoadMatrix(name + "shortconv.out_proj.weight", width_, width_);
    block.tail = loader.Recurrent(name + "conv.tail", {kernel_ - 1, width_});
    block.log = loader.NewLogged(width_);
    loader.Log(block.log);
    return block;
  }

  void RecordShortConv(Ops& ops, const ShortConv& block, Rows gated, Rows residual) const {
    const Rows b = projected_.Columns(0, width_), c = projected_.Columns(width_, width_), x = projected_.Columns(2 * width_, width_);
    ops.RmsNorm(ffn_rows_.normed, residual, block.norm, eps_);
    ops.MatMul(ffn_rows_.normed, std::array{Product{block.input, projected_}});
    ops.Multiply(gated, b, x);
    RecordRecurrence(ops, block, gated);
    ops.Multiply(convolved_, c, convolved_);
    ops.MatMul(convolved_, std::array{Product{block.output, residual, /*accumulate=*/true}});
  }

  // The state of the block, and `convolved_`.
  void RecordRecurrence(Ops& ops, const ShortConv& block, Rows gated) const {
    ops.CausalConv(convolved_, gated, block.tail, block.convolution, Vector{}, kernel_, /*silu=*/false);
  }

  int width_ = 0, kernel_ = 0;
  AttentionShape attention_;
  std::vector<Block> blocks_;
  Rows projected_, gated_, convolved_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadLfm2(Loader& loader, NetworkInfo info) { return LoadAs<Lfm2>(loader, std::move(info)); }

}  // namespace reprise
