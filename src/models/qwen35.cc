#include "models/qwen35.h"

#include <array>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {
namespace {

constexpr int kMostLayers = 1024;

// Of `groups` groups of `stride` rows, the rows [first, first + count) of each.
std::vector<int> RowsOfGroups(int groups, int stride, int first, int count) {
  std::vector<int> rows;
  for (int group = 0; group < groups; ++group) {
    for (int i = 0; i < count; ++i) rows.push_back(group * stride + first + i);
  }
  return rows;
}

struct GatedAttention {
  Vector norm;                     // [width]
  const Matrix* query = nullptr;   // [heads x (query head_dim, gate head_dim), width]
  const Matrix* key = nullptr;     // [kv_heads x head_dim, width]
  const Matrix* value = nullptr;   // [kv_heads x head_dim, width]
  const Matrix* output = nullptr;  // [width, heads x head_dim]
  Vector query_norm;               // [head_dim]
  Vector key_norm;                 // [head_dim]
  StateRef keys;                   // a row: kv_heads x head_dim
  StateRef values;                 // a row: kv_heads x head_dim
};

// What the recurrence of one block takes from a row, and all it takes: enough to run it again without a matrix product.
struct DeltaInputs {
  Rows qkv;    // before the convolution
  Rows alpha;  // value_heads
  Rows beta;   // value_heads
};

struct DeltaNet {
  Vector norm;                     // [width]
  const Matrix* qkv = nullptr;     // [key_heads x key_dim | key_heads x key_dim | value_heads x value_dim, width]
  const Matrix* gate = nullptr;    // z: [value_heads x value_dim, width]
  const Matrix* alpha = nullptr;   // [value_heads, width]
  const Matrix* beta = nullptr;    // [value_heads, width]
  Vector a;                        // [value_heads], -exp(A_log)
  Vector dt;                       // [value_heads]
  Vector convolution;              // [channels of qkv][kernel]
  Vector head_norm;                // [value_dim]
  const Matrix* output = nullptr;  // [width, value_heads x value_dim]
  StateRef tail;                   // [kernel - 1][channels of qkv]
  StateRef memory;                 // [value_heads][key_dim][value_dim]
  DeltaInputs log;                 // of a logged step
};

struct Block {
  bool recurrent = false;
  GatedAttention attention;  // of a full-attention block
  DeltaNet delta;            // of a recurrent block
  FeedForward feed_forward;
};

// Draft: from the hidden row of the token before and the embedding of a token, the hidden row whose logits foretell the token after it.
struct DraftBlock {
  Vector embedding_norm;          // [width]
  Vector hidden_norm;             // [width]
  const Matrix* merge = nullptr;  // [width, 2 x width]: of the normed embedding, then the normed hidden row
  GatedAttention attention;       // with keys and values of its own
  FeedForward feed_forward;
  Vector head_norm;  // [width]
  const Matrix* embedding = nullptr;
  const Matrix* output = nullptr;
};

class Qwen35 : public Network {
 public:
  Qwen35(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    ReadNumbers(loader);
    if (!loader.ok()) return;

    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < info_.layers && loader.ok(); ++i) LoadBlock(loader, i);
    if (info_.has_draft) LoadDraft(loader, "blk." + std::to_string(info_.layers) + ".");
    NewStream(loader);
    NewActivations(loader);
  }

  void RecordDraftStep(Ops& ops, bool chained) const override { RecordDraftBlock(ops, chained ? draft_hidden_ : Rows{}, MixerPart::kAll); }

  void RecordDraftHead(Ops& ops, Rows logits, Rows hidden) const override {
    ops.MatMul(hidden, std::array{Product{draft_.output, logits}});
  }

 private:
  void RecordRecurrences(Ops& ops) const override {
    for (const Block& block : blocks_) {
      if (block.recurrent) RecordRecurrence(ops, block.delta, block.delta.log);
    }
  }

  void RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool logged) const override {
    const Block& block = blocks_[static_cast<size_t>(index)];
    if (!block.recurrent) {
      RecordAttention(ops, block.attention, residual, /*first_position=*/0, part);
    } else if (part != MixerPart::kResult) {
      RecordDeltaNet(ops, block.delta, logged ? block.delta.log : inputs_, residual);
    }
  }

  void RecordFeedForward(Ops& ops, int block, Rows residual) const override {
    blocks_[static_cast<size_t>(block)].feed_forward.Record(ops, ffn_, residual, eps_);
  }

  // What is foretold at a row is nobody's history.
  void RecordDraft(Ops& ops, Body body) const override {
    RecordDraftBlock(ops, Rows{}, body == Body::kHistory ? MixerPart::kState : MixerPart::kAll);
  }

  void ReadNumbers(Loader& loader) {
    const int blocks = loader.Int("block_count", 1, kMostLayers);
    const int drafts = loader.Int("nextn_predict_layers", 0, 1, 0);  // counted in block_count
    info_.layers = blocks - drafts;
    info_.has_draft = drafts > 0;
    loader.Require(info_.layers >= 1, "block_count leaves no block beside the MTP block");
    width_ = loader.Int("embedding_length", 1, 1 << 20);
    feed_forward_ = FeedForwardShape::Read(loader, width_, info_);
    heads_ = loader.Int("attention.head_count", 1, 1 << 12);
    kv_heads_ = loader.Int("attention.head_count_kv", 1, 1 << 12);
    loader.Require(heads_ % kv_heads_ == 0, "attention.head_count is not a multiple of attention.head_count_kv");
    head_dim_ = loader.Int("attention.key_length", 1, 1 << 12);
    loader.Require(loader.Int("attention.value_length", 1, 1 << 12, head_dim_) == head_dim_,
                   "attention.value_length differs from attention.key_length");
    eps_ = static_cast<float>(loader.Float("attention.layer_norm_rms_epsilon", 1e-6));
    const int dims = loader.Int("rope.dimension_count", 2, 1 << 12);
    loader.Require(dims <= head_dim_ && dims % 2 == 0, "rope.dimension_count is odd or larger than a head");
    if (loader.ok()) rope_ = ReadRope(loader, dims, {.base = 1e7});
    kernel_ = loader.Int("ssm.conv_kernel", 2, 16);
    shape_.key_dim = loader.Int("ssm.state_size", 1, 1 << 12);
    shape_.key_heads = loader.Int("ssm.group_count", 1, 1 << 12);
    shape_.value_heads = loader.Int("ssm.time_step_rank", 1, 1 << 12);
    const int inner_size = loader.Int("ssm.inner_size", 1, 1 << 24);
    loader.Require(shape_.value_heads % shape_.key_heads == 0, "ssm.time_step_rank is not a multiple of ssm.group_count");
    loader.Require(inner_size % shape_.value_heads == 0, "ssm.inner_size is not a multiple of ssm.time_step_rank");
    shape_.value_dim = inner_size / shape_.value_heads;
    shape_.neighbours = info_.architecture == "qwen3next";
    interval_ = loader.Int("full_attention_interval", 1, kMostLayers, 4);
    info_.context = loader.Int("context_length", 1, INT32_MAX, 32768);
    info_.width = width_;
  }

  int channels() const { return 2 * shape_.key_heads * shape_.key_dim + shape_.value_heads * shape_.value_dim; }

  void LoadBlock(Loader& loader, int index) {
    const std::string name = "blk." + std::to_string(index) + ".";
    Block block;
    block.recurrent = (index + 1) % interval_ != 0;
    if (block.recurrent) {
      block.delta = LoadDelta(loader, name);
    } else {
      block.attention = LoadAttention(loader, name, name + "attn");
    }
    block.feed_forward.Load(loader, name, "post_attention_norm", feed_forward_);
    blocks_.push_back(block);
  }

  GatedAttention LoadAttention(Loader& loader, const std::string& name, const std::string& state) {
    GatedAttention attention;
    attention.norm = loader.LoadVector(name + "attn_norm.weight", width_);
    attention.query = loader.LoadMatrix(name + "attn_q.weight", width_, 2 * heads_ * head_dim_);
    attention.key = loader.LoadMatrix(name + "attn_k.weight", width_, kv_heads_ * head_dim_);
    attention.value = loader.LoadMatrix(name + "attn_v.weight", width_, kv_heads_ * head_dim_);
    attention.output = loader.LoadMatrix(name + "attn_output.weight", heads_ * head_dim_, width_);
    attention.query_norm = loader.LoadVector(name + "attn_q_norm.weight", head_dim_);
    attention.key_norm = loader.LoadVector(name + "attn_k_norm.weight", head_dim_);
    attention.keys = loader.KeyValueRows(state + ".k", kv_heads_, head_dim_);
    attention.values = loader.KeyValueRows(state + ".v", kv_heads_, head_dim_);
    return attention;
  }

  DeltaNet LoadDelta(Loader& loader, const std::string& name) {
    const int values = shape_.value_heads * shape_.value_dim;
    DeltaNet delta;
    delta.norm = loader.LoadVector(name + "attn_norm.weight", width_);
    if (shape_.neighbours && loader.Has(name + "ssm_in.weight")) {
      LoadMixedProjections(loader, name, delta);
    } else {
      delta.qkv = loader.LoadMatrix(name + "attn_qkv.weight", width_, channels());
      delta.gate = loader.LoadMatrix(name + "attn_gate.weight", width_, values);
    }
    if (shape_.neighbours) {
      LoadMixedGates(loader, name, delta);
    } else {
      delta.alpha = loader.LoadMatrix(name + "ssm_alpha.weight", width_, shape_.value_heads);
      delta.beta = loader.LoadMatrix(name + "ssm_beta.weight", width_, shape_.value_heads);
    }
    delta.a = loader.LoadVector(name + "ssm_a", shape_.value_heads);
    delta.dt = loader.LoadVector(name + "ssm_dt.bias", shape_.value_heads);
    delta.convolution = loader.LoadVector(name + "ssm_conv1d.weight", kernel_, channels());
    delta.head_norm = loader.LoadVector(name + "ssm_norm.weight", shape_.value_dim);
    delta.output = loader.LoadMatrix(name + "ssm_out.weight", values, width_);
    delta.tail = loader.Recurrent(name + "conv.tail", {kernel_ - 1, channels()});
    const Rows logged = loader.NewLogged(channels() + 2 * shape_.value_heads);
    loader.Log(logged);
    delta.log = {logged.Columns(0, channels()), logged.Columns(channels(), shape_.value_heads),
                 logged.Columns(channels() + shape_.value_heads, shape_.value_heads)};
    delta.memory = loader.Recurrent(name + "delta.memory", {shape_.value_heads, shape_.key_dim, shape_.value_dim});
    return delta;
  }

  // Qwen3-Next's beta and alpha are one matrix: of each key head, beta of its value heads, then alpha.
  void LoadMixedGates(Loader& loader, const std::string& name, DeltaNet& delta) {
    const int shared = shape_.value_heads / shape_.key_heads;
    const auto load = [&](int first) {
      return loader.LoadRows(name + "ssm_ba.weight", width_, 2 * shape_.value_heads,
                             RowsOfGroups(shape_.key_heads, 2 * shared, first, shared));
    };
    delta.beta = load(0);
    delta.alpha = load(shared);
  }

  // In its older files q, k, v and z are one matrix as well: of each key head its q, its k, then v and z of its value heads.
  void LoadMixedProjections(Loader& loader, const std::string& name, DeltaNet& delta) {
    const int keys = shape_.key_dim, values = shape_.value_heads / shape_.key_heads * shape_.value_dim, stride = 2 * (keys + values);
    const auto rows = [&](int first, int count) { return RowsOfGroups(shape_.key_heads, stride, first, count); };
    std::vector<int> qkv = rows(0, keys);
    for (const auto& [first, count] : {std::pair{keys, keys}, std::pair{2 * keys, values}}) {
      const std::vector<int> more = rows(first, count);
      qkv.insert(qkv.end(), more.begin(), more.end());
    }
    delta.qkv = loader.LoadRows(name + "ssm_in.weight", width_, shape_.key_heads * stride, qkv);
    delta.gate = loader.LoadRows(name + "ssm_in.weight", width_, shape_.key_heads * stride, rows(2 * keys + values, values));
  }

  void LoadDraft(Loader& loader, const std::string& name) {
    draft_.embedding_norm = loader.LoadVector(name + "nextn.enorm.weight", width_);
    draft_.hidden_norm = loader.LoadVector(name + "nextn.hnorm.weight", width_);
    draft_.merge = loader.LoadMatrix(name + "nextn.eh_proj.weight", 2 * width_, width_);
    draft_.attention = LoadAttention(loader, name, "mtp.attn");
    draft_.feed_forward.Load(loader, name, "post_attention_norm", feed_forward_);
    const std::string head_norm = name + "nextn.shared_head_norm.weight";
    draft_.head_norm = loader.Has(head_norm) ? loader.LoadVector(head_norm, width_) : output_norm_;
    const std::string head = name + "nextn.shared_head_head.weight";
    draft_.output = loader.Has(head) ? loader.LoadMatrix(head, width_, info_.vocabulary) : output_;
    const std::string tokens = name + "nextn.embed_tokens.weight";
    draft_.embedding = loader.Has(tokens) ? loader.LoadMatrix(tokens, width_, info_.vocabulary) : embedding_;
  }

  void NewActivations(Loader& loader) {
    const int values = shape_.value_heads * shape_.value_dim;
    // What goes into a sublayer's first product and, of the recurrence, into its second.
    loader.NewSharedRows({{&ffn_.normed, width_}, {&remembered_, values}});
    key_ = loader.NewRows(kv_heads_ * head_dim_);
    value_ = loader.NewRows(kv_heads_ * head_dim_);
    inputs_.alpha = loader.NewRows(shape_.value_heads);
    inputs_.beta = loader.NewRows(shape_.value_heads);
    z_ = loader.NewRows(values);
    // What that product makes, and what comes between it and the second.
    loader.NewSharedRows({{&inputs_.qkv, channels()}, {&query_, 2 * heads_ * head_dim_}, {&ffn_.gate, WidestInner(feed_forward_)}});
    loader.NewSharedRows({{&convolved_, channels()}, {&attended_, heads_ * head_dim_}, {&ffn_.up, WidestInner(feed_forward_)}});
    ffn_.NewScores(loader, feed_forward_);
    if (info_.has_draft) {
      draft_residual_ = loader.NewRows(width_);
      draft_merged_ = loader.NewRows(2 * width_);
      draft_hidden_ = loader.NewRows(width_);
    }
  }

  // residual += o_proj(attention(rope(norm(q)), rope(norm(k)), v) * sigmoid(gate))
  void RecordAttention(Ops& ops, const GatedAttention& block, Rows residual, int first_position, MixerPart part) const {
    const Heads query = {query_, heads_, head_dim_, 2 * head_dim_};  // each head: its query, then its gate
    const Heads gate = {query_.Columns(head_dim_, query_.width - head_dim_), heads_, head_dim_, 2 * head_dim_};
    const bool appends = part != MixerPart::kResult, attends = part != MixerPart::kState;
    const std::array products{Product{block.query, query_}, Product{block.key, key_}, Product{block.value, value_}};
    ops.RmsNorm(ffn_.normed, residual, block.norm, eps_);
    ops.MatMul(ffn_.normed, ProductsFor(part, products));
    if (attends) ops.NormRope(query, block.query_norm, eps_, rope_);
    if (appends) {
      ops.NormRope(AllHeads(key_, kv_heads_, head_dim_), block.key_norm, eps_, rope_);
      ops.Append(block.keys, key_);
      ops.Append(block.values, value_);
    }
    if (attends) {
      const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
      ops.Attention(attended_, query, block.keys, block.values, gate,
                    {.kv_heads = kv_heads_, .scale = scale, .first_position = first_position});
      ops.MatMul(attended_, std::array{Product{block.output, residual, /*accumulate=*/true}});
    }
  }

  // residual += out_proj(norm(delta rule over silu(conv(qkv))) * silu(z))
  void RecordDeltaNet(Ops& ops, const DeltaNet& block, const DeltaInputs& inputs, Rows residual) const {
    ops.RmsNorm(ffn_.normed, residual, block.norm, eps_);
    ops.MatMul(ffn_.normed, std::array{Product{block.qkv, inputs.qkv}, Product{block.gate, z_}, Product{block.alpha, inputs.alpha},
                                       Product{block.beta, inputs.beta}});
    RecordRecurrence(ops, block, inputs);
    ops.GatedRmsNorm(remembered_, remembered_, z_, block.head_norm, eps_);
    ops.MatMul(remembered_, std::array{Product{block.output, residual, /*accumulate=*/true}});
  }

  // Both states of the block, and `remembered_`.
  void RecordRecurrence(Ops& ops, const DeltaNet& block, const DeltaInputs& inputs) const {
    ops.CausalConv(convolved_, inputs.qkv, block.tail, block.convolution, Vector{}, kernel_, /*silu=*/true);
    ops.DeltaNet(remembered_, convolved_, inputs.alpha, inputs.beta, block.a, block.dt, block.memory, shape_);
  }

  // Row i sees the hidden row of position i - 1 (or the rows `before`, where they are given) and the token at i. Position 0 has no hidden row before it, so nothing attends to its row.
  void RecordDraftBlock(Ops& ops, Rows before, MixerPart part) const {
    const Rows embedded = draft_merged_.Columns(0, width_);
    const Rows previous = draft_merged_.Columns(width_, width_);
    ops.Embed(embedded, *draft_.embedding, 1.0f);
    ops.RmsNorm(embedded, embedded, draft_.embedding_norm, eps_);
    if (before.data == nullptr) {
      ops.Previous(previous, hidden_, last_hidden_);
      ops.RmsNorm(previous, previous, draft_.hidden_norm, eps_);
    } else {
      ops.RmsNorm(previous, before, draft_.hidden_norm, eps_);
    }
    ops.MatMul(draft_merged_, std::array{Product{draft_.merge, draft_residual_}});
    RecordAttention(ops, draft_.attention, draft_residual_, /*first_position=*/1, part);
    if (part == MixerPart::kState) return;
    draft_.feed_forward.Record(ops, ffn_, draft_residual_, eps_);
    ops.RmsNorm(draft_hidden_, draft_residual_, draft_.head_norm, eps_);
  }

  int width_ = 0, heads_ = 0, kv_heads_ = 0, head_dim_ = 0, kernel_ = 0, interval_ = 4;
  RopeSpec rope_;
  FeedForwardShape feed_forward_;
  Ops::DeltaNetShape shape_{};
  std::vector<Block> blocks_;
  DraftBlock draft_;
  Rows query_, key_, value_, attended_;
  DeltaInputs inputs_;
  Rows convolved_, z_, remembered_;
  FeedForwardRows ffn_;
  Rows draft_residual_, draft_merged_;
};

}  // namespace

Result<std::unique_ptr<Network>> LoadQwen35(Loader& loader, NetworkInfo info) { return LoadAs<Qwen35>(loader, std::move(info)); }

}  // namespace reprise
