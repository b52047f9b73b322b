#include "models/gemma4.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;
constexpr char kTokenTable[] = "per_layer_token_embd.weight";

// A mixture beside the network that every row goes through, each between norms of its own; the router reads the stream by a norm of its own too.
struct Mixture {
  FeedForward experts;
  Vector router_norm;   // [width]
  Vector dense_norm;    // [width], of what the network makes
  Vector experts_norm;  // [width], of what the experts make
};

// Where the token is told to each block: norm(projection(gelu(gate x) * carried)), added to the stream.
struct TokenGate {
  const Matrix* gate = nullptr;        // [told, width]
  const Matrix* projection = nullptr;  // [width, told]
  Vector norm;                         // [width]
};

struct Block {
  bool windowed = false;
  GroupedAttention attention;
  FeedForward dense;
  Mixture mixture;  // without a router: none
  TokenGate token;  // without a gate: none
  float scale = 1;  // of the stream, after the block
};

class Gemma4 : public Network {
 public:
  Gemma4(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    ReadNumbers(loader);
    if (!loader.ok()) return;
    LoadEnds(loader, "output_norm.weight");
    if (told_ > 0) LoadTokenTable(loader);
    for (int i = 0; i < info_.layers && loader.ok(); ++i) LoadBlock(loader, i);
    NewStream(loader);
    NewBlockRows(loader);
  }

 private:
  void ReadNumbers(Loader& loader) {
    info_.layers = loader.Int("block_count", 1, kMostLayers);
    info_.context = loader.Int("context_length", 1, INT32_MAX, 131072);
    info_.width = loader.Int("embedding_length", 1, 1 << 20);
    embedding_scale_ = std::sqrt(static_cast<float>(info_.width));
    told_ = loader.Int("embedding_length_per_layer_input", 0, 1 << 16, 0);
    loader.Require(told_ > 0 || !loader.Has(kTokenTable),
                   "embedding_length_per_layer_input is 0, and there is a " + std::string(kTokenTable));
    carried_ = told_ * info_.layers;
    info_.state_blocks = info_.layers - loader.Int("attention.shared_kv_layers", 0, info_.layers - 1, 0);
    logit_cap_ = static_cast<float>(loader.Float("final_logit_softcapping", 0.0));
    loader.Require(logit_cap_ >= 0.0f && logit_cap_ < 1e6f, "final_logit_softcapping is not between 0 and 1,000,000");
    loader.Require(loader.Float("attn_logit_softcapping", 0.0) == 0.0, "bounded scores (attn_logit_softcapping) are not supported");
    inner_ = loader.IntPerLayer("feed_forward_length", info_.layers, 1, FeedForwardShape::kMostInner);
    if (!loader.ok()) return;
    feed_forward_ = FeedForwardShape::Read(loader, info_.width, *std::max_element(inner_.begin(), inner_.end()), info_);
    feed_forward_.activation = Activation::kGeGlu;
    loader.Require(feed_forward_.shared_inner == 0, "a second network beside the experts is not supported");
    windowed_blocks_ = loader.WindowedBlocks(info_.layers, /*every_otherwise=*/6);
    ReadAttention(loader);
  }

  // Of both kinds of blocks.
  void ReadAttention(Loader& loader) {
    const std::vector<int> kv_heads = loader.IntPerLayer("attention.head_count_kv", info_.layers, 1, 1 << 12);
    if (!loader.ok()) return;
    int everywhere = 0, in_window = 0;  // heads of keys and values; 0: no block of that kind was met
    for (int i = 0; i < info_.layers; ++i) {
      const auto at = static_cast<size_t>(i);
      int& heads = windowed_blocks_[at] ? in_window : everywhere;
      loader.Require(heads == 0 || heads == kv_heads[at], "attention.head_count_kv differs between blocks of one kind");
      heads = kv_heads[at];
    }
    everywhere_ = AttentionShape::Read(loader, info_.width, std::max(everywhere, 1), {.base = 1e6});
    TakeDivisors(loader, everywhere_.rope);
    everywhere_.scale = 1.0f;  // norms of queries and keys have it
    everywhere_.values_may_be_keys = true;
    eps_ = everywhere_.eps;
    windowed_ = everywhere_;
    windowed_.kv_heads = std::max(in_window, 1);
    loader.Require(windowed_.heads % windowed_.kv_heads == 0, "attention.head_count is not a multiple of attention.head_count_kv");
    windowed_.window = loader.Int("attention.sliding_window", 1, INT32_MAX);
    windowed_.head_dim = loader.Int("attention.key_length_swa", 1, 1 << 12, everywhere_.head_dim);
    loader.Require(loader.Int("attention.value_length_swa", 1, 1 << 12, windowed_.head_dim) == windowed_.head_dim,
                   "attention.value_length_swa differs from attention.key_length_swa");
    windowed_.rope = ReadWindowRope(loader, loader.Int("rope.dimension_count_swa", 2, windowed_.head_dim, windowed_.head_dim));
    loader.Require(windowed_.rope.dims % 2 == 0, "rope.dimension_count_swa is odd");
  }

  // What a token tells all blocks: its row of the table, and a projection of its embedding, in equal parts.
  void LoadTokenTable(Loader& loader) {
    constexpr float kPart = 0.70710678f;  // the root of a half
    info_.token_table = kTokenTable;
    token_table_ = loader.LoadTable(kTokenTable, carried_, info_.vocabulary);
    table_scale_ = kPart * std::sqrt(static_cast<float>(told_));
    token_projection_ = loader.LoadMatrix("per_layer_model_proj.weight", info_.width, carried_);
    projection_norm_ = loader.LoadScaledVector("per_layer_proj_norm.weight", told_, kPart);
  }

  void LoadBlock(Loader& loader, int index) {
    const std::string name = "blk." + std::to_string(index) + ".";
    const int width = info_.width;
    Block block;
    block.windowed = windowed_blocks_[static_cast<size_t>(index)];
    LoadAttention(loader, name, index, block);
    FeedForwardShape dense = feed_forward_;
    dense.inner = inner_[static_cast<size_t>(index)];
    dense.experts = 0;
    block.dense.Load(loader, name, "ffn_norm", dense);
    block.dense.output_norm = loader.LoadVector(name + "post_ffw_norm.weight", width);
    if (feed_forward_.experts > 0) {
      Mixture& mixture = block.mixture;
      mixture.experts.Load(loader, name, "pre_ffw_norm_2", feed_forward_);
      mixture.experts.experts.adds = false;
      mixture.router_norm = loader.LoadScaledVector(name + "ffn_gate_inp.scale", width, 1.0f / std::sqrt(static_cast<float>(width)));
      mixture.dense_norm = loader.LoadVector(name + "post_ffw_norm_1.weight", width);
      mixture.experts_norm = loader.LoadVector(name + "post_ffw_norm_2.weight", width);
    }
    if (told_ > 0) {
      block.token.gate = loader.LoadMatrix(name + "inp_gate.weight", width, told_);
      block.token.projection = loader.LoadMatrix(name + "proj.weight", told_, width);
      block.token.norm = loader.LoadVector(name + "post_norm.weight", width);
    }
    if (loader.Has(name + "layer_output_scale.weight")) block.scale = loader.LoadNumber(name + "layer_output_scale.weight");
    if (told_ == 0) block.dense.output_scale = block.scale;  // the network's sum is the block's last
    blocks_.push_back(block);
  }

  void LoadAttention(Loader& loader, const std::string& name, int index, Block& block) {
    const AttentionShape& shape = ShapeOf(block);
    GroupedAttention& attention = block.attention;
    if (index < info_.state_blocks) {
      attention.Load(loader, name, shape, /*head_norms=*/true);
      attention.value_norm = loader.NewVector(std::vector<float>(static_cast<size_t>(shape.head_dim), 1.0f));
    } else {
      attention.LoadQueries(loader, name, shape, /*head_norms=*/true);
      const auto shared =
          std::find_if(blocks_.rend() - info_.state_blocks, blocks_.rend(), [&](const Block& b) { return b.windowed == block.windowed; });
      loader.Require(shared != blocks_.rend(), "a block is to attend to keys of another, and there is none of its kind");
      if (!loader.ok()) return;
      attention.keys = shared->attention.keys;
      attention.values = shared->attention.values;
    }
    loader.Require(attention.output_bias.data == nullptr, "a bias of attention's output is not supported");
    attention.output_norm = loader.LoadVector(name + "post_attention_norm.weight", info_.width);
  }

  void NewBlockRows(Loader& loader) {
    const int queries = std::max(everywhere_.query_width(), windowed_.query_width());
    const int keys = std::max(everywhere_.kv_width(), windowed_.kv_width());
    const int inner = WidestInner(feed_forward_);
    ffn_rows_.normed = attention_rows_.normed = loader.NewRows(info_.width);
    ffn_rows_.result = attention_rows_.result = loader.NewRows(info_.width);
    if (feed_forward_.experts > 0) mixed_ = loader.NewRows(info_.width);
    ffn_rows_.NewScores(loader, feed_forward_);
    attention_rows_.key = loader.NewRows(keys);
    attention_rows_.value = loader.NewRows(keys);
    loader.NewSharedRows({{&attention_rows_.query, queries}, {&ffn_rows_.gate, inner}, {&told_rows_, std::max(carried_, 1)}});
    loader.NewSharedRows({{&attention_rows_.attended, queries}, {&ffn_rows_.up, inner}});
  }

  void RecordCarried(Ops& ops, Rows stream, Rows carried) const override {
    ops.Embed(carried, *token_table_, table_scale_);
    ops.MatMul(stream, std::array{Product{token_projection_, told_rows_}});
    // What is normed is scaled by width^-1/2 before, which all but the norm's epsilon makes nothing of.
    ops.AddRmsNorm(carried, told_rows_, projection_norm_, eps_ * static_cast<float>(info_.width));
  }

  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool /*logged*/) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    const AttentionShape& shape = ShapeOf(block);
    AttentionRows rows = attention_rows_;
    rows.query.width = rows.attended.width = shape.query_width();
    rows.key.width = rows.value.width = shape.kv_width();
    block.attention.Record(ops, shape, rows, residual, part);
  }

  void RecordFeedForward(Ops& ops, int index, Rows residual) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    if (block.mixture.experts.router) {
      RecordMixture(ops, block, residual);
    } else {
      block.dense.Record(ops, ffn_rows_, residual, eps_);
    }
    if (block.token.gate == nullptr) return;
    const Rows told = told_rows_.Columns(0, told_);
    ops.MatMul(residual, std::array{Product{block.token.gate, told}});
    ops.GeGlu(told, told, Carried(residual, index * told_, told_));
    ops.MatMul(told, std::array{Product{block.token.projection, ffn_rows_.result}});
    ops.AddRmsNorm(residual, ffn_rows_.result, block.token.norm, eps_, block.scale);
  }

  void RecordMixture(Ops& ops, const Block& block, Rows residual) const {
    const Mixture& mixture = block.mixture;
    const Rows normed = ffn_rows_.normed, dense = ffn_rows_.result;
    ops.RmsNorm(normed, residual, block.dense.norm, eps_);
    block.dense.RecordNetwork(ops, ffn_rows_, dense, /*accumulate=*/false);
    ops.RmsNorm(dense, dense, mixture.dense_norm, eps_);
    ops.RmsNorm(normed, residual, mixture.router_norm, eps_);
    ops.MatMul(normed, std::array{Product{mixture.experts.router, ffn_rows_.scores}});
    ops.RmsNorm(normed, residual, mixture.experts.norm, eps_);
    ops.MixExperts(mixed_, normed, ffn_rows_.scores, mixture.experts.experts);
    ops.AddRmsNorm(dense, mixed_, mixture.experts_norm, eps_);
    ops.AddRmsNorm(residual, dense, block.dense.output_norm, eps_, block.dense.output_scale);
  }

  const AttentionShape& ShapeOf(const Block& block) const { return block.windowed ? windowed_ : everywhere_; }

  AttentionShape everywhere_, windowed_;
  FeedForwardShape feed_forward_;  // `inner` is the widest
  std::vector<int> inner_;         // by block
  std::vector<bool> windowed_blocks_;
  std::vector<Block> blocks_;

  int told_ = 0;  // values that each block is told of a token; 0: none
  const Matrix* token_table_ = nullptr;
  float table_scale_ = 1;
  const Matrix* token_projection_ = nullptr;  // [layers x told, width]
  Vector projection_norm_;                    // [told]

  AttentionRows attention_rows_;  // as wide as the wider kind of blocks wants them
  FeedForwardRows ffn_rows_;
  Rows mixed_;      // width: what experts make
  Rows told_rows_;  // layers x told
};

}  // namespace

Result<std::unique_ptr<Network>> LoadGemma4(Loader& loader, NetworkInfo info) { return LoadAs<Gemma4>(loader, std::move(info)); }

}  // namespace reprise
