#include "models/synth.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

#include "formats/gguf_writer.h"
#include "models/random_blocks.h"

namespace reprise {
namespace {

constexpr std::string_view kGranite = "granitehybrid";
constexpr std::string_view kNext = "qwen3next";
constexpr std::string_view kFalcon = "falcon-h1", kNemotron = "nemotron_h", kGemma = "gemma3", kGemma4 = "gemma4", kJamba = "jamba";

constexpr int kAttentionEvery = 4;
constexpr int kLfm2Attention[] = {2, 5, 8, 10, 12, 14};      // of the published sizes without experts, all of 16 layers
constexpr int kLfm2MoeAttention[] = {2, 6, 10, 14, 18, 21};  // of 24 layers
constexpr int kSmallGraniteAttention[] = {10, 13, 17, 27};   // of 32 layers; the larger have every tenth
constexpr int kJambaAttentionEvery = 14;                     // layers, of which the one in the middle attends
constexpr int kConvKernel = 4;
constexpr int kShortConvKernel = 3;
constexpr float kNormEps = 1e-6f;
constexpr float kNemotronWeights = 2.5f;  // that the weights of its experts add up to

int JambaRank(const SynthShape& shape) { return (shape.width + 15) / 16; }

char SublayerOf(const SynthShape& shape, int layer) { return shape.sublayers[static_cast<size_t>(layer)]; }

bool IsGemma(const SynthShape& shape) { return shape.architecture == kGemma || shape.architecture == kGemma4; }
bool Windowed(const SynthShape& shape, int layer) { return (layer + 1) % std::min(shape.every, shape.layers) != 0; }
bool Shares(const SynthShape& shape, int layer) { return layer >= shape.layers - shape.sharing; }
int FeedForwardWidth(const SynthShape& shape, int layer) { return shape.ffn * (shape.double_ffn && Shares(shape, layer) ? 2 : 1); }

bool Attends(const SynthShape& shape, int layer) {
  if (!shape.sublayers.empty()) return SublayerOf(shape, layer) == '*';
  if (shape.family() == "qwen35") return (layer + 1) % kAttentionEvery == 0;
  const auto among = [&](std::span<const int> layers) { return std::ranges::find(layers, layer) != layers.end(); };
  if (shape.architecture == kGranite) return shape.layers == 32 ? among(kSmallGraniteAttention) : layer % 10 == 5;
  if (shape.architecture == kJamba) {
    const int every = std::min(kJambaAttentionEvery, shape.layers);
    return layer % every == every / 2;
  }
  if (shape.architecture == kFalcon || IsGemma(shape)) return true;
  return shape.family() != "lfm2" || (shape.layers == 24 ? among(kLfm2MoeAttention) : among(kLfm2Attention));
}

// What Granite multiplies rows by, and Gemma too as far as embeddings go: embeddings, what is added to the residual stream, scores of attention; and divides logits by.
struct Scales {
  float embedding = 1.0f, residual = 1.0f, attention = 1.0f, logits = 1.0f;
};
Scales ScalesOf(const SynthShape& shape) {
  if (IsGemma(shape)) return {.embedding = std::sqrt(static_cast<float>(shape.width))};
  if (shape.architecture != kGranite) return {};
  const float attention = 1.0f / static_cast<float>(shape.head_dim);
  return shape.layers == 32 ? Scales{12.0f, 0.246f, attention, 3.0f} : Scales{12.0f, 0.22f, attention, 6.0f};
}

enum class Fill {
  kMatrix,     // uniform, of deviation gain / sqrt(inputs)
  kNorm,       // around gain
  kBias,       // around zero
  kFilter,     // convolution taps
  kDecayRate,  // ssm_a: negative, a step keeping between 10 % and 99 % of a state
  kTimeBias,   // ssm_dt.bias
  kDivisors,   // of the frequencies of pairs: a quarter of them turn
};

struct Weight {
  std::string name;
  std::vector<uint64_t> dims;
  Fill fill = Fill::kMatrix;
  float gain = 1.0f;
};

// All tensors of a model, in the order of the file.
class WeightList {
 public:
  WeightList(const SynthShape& shape, bool mtp)
      : shape_(shape), scales_(ScalesOf(shape)), residual_gain_(1.5f / std::sqrt(static_cast<float>(shape.layers)) / scales_.residual) {
    const auto vocabulary = static_cast<uint64_t>(shape.vocabulary);
    // Rows of norm 2: logits of deviation about 2 when tied, and a residual stream that the blocks, not the last token, fill.
    Matrix("token_embd.weight", shape.width, vocabulary, 2.0f / scales_.embedding);
    Norm(shape.family() == "lfm2" ? "token_embd_norm.weight" : "output_norm.weight", shape.width, scales_.embedding * scales_.logits);
    if (!shape.tied) Matrix("output.weight", shape.width, vocabulary, 2.0f);
    if (shape.architecture == kGemma4) TokenTable();
    for (int i = 0; i < shape.layers; ++i) {
      prefix_ = fmt::format("blk.{}.", i);
      if (shape.family() == "qwen35") {
        if (Attends(shape, i)) {
          GatedAttention();
        } else {
          DeltaNet();
        }
        FeedForward("post_attention_norm.weight", i);
      } else if (shape.architecture == kFalcon) {
        GroupedAttention();
        MambaBehindNorm();
        FeedForward("ffn_norm", i);  // without what follows other names
      } else if (shape.family() == kNemotron) {
        if (Attends(shape, i)) {
          GroupedAttention();
        } else if (SublayerOf(shape, i) == 'M') {
          Mamba();
        } else {
          FeedForward("attn_norm.weight", i);
        }
      } else {
        if (shape.architecture == kGemma4) {
          SharedAttention(i);
        } else if (Attends(shape, i)) {
          GroupedAttention();
        } else if (shape.architecture == kGranite) {
          Mamba();
        } else if (shape.architecture == kJamba) {
          Mamba1();
        } else {
          ShortConv();
        }
        FeedForward("ffn_norm.weight", i);
        if (shape.architecture == kGemma4) TokenGate();
      }
    }
    if (mtp) MtpBlock();
  }
  std::span<const Weight> all() const { return weights_; }

 private:
  void Add(std::string_view name, std::vector<uint64_t> dims, Fill fill, float gain) {
    weights_.push_back({prefix_ + std::string(name), std::move(dims), fill, gain});
  }
  void Matrix(std::string_view name, uint64_t inputs, uint64_t outputs, float gain = 1.0f) {
    Add(name, {inputs, outputs}, Fill::kMatrix, gain);
  }
  bool gated() const { return shape_.family() != kNemotron; }  // its feed-forward networks
  void Norm(std::string_view name, uint64_t size, float around = 1.0f) { Add(name, {size}, Fill::kNorm, around); }

  // Scores of deviation about 3: random keys are far apart, so only a peaked softmax lets single positions matter in a long context.
  static constexpr float kSharpness = 1.75f;

  // Where heads have norms, these sharpen, not the matrices.
  void GroupedAttention() {
    const uint64_t width = shape_.width, q = shape_.heads * shape_.head_dim, kv = shape_.kv_heads * shape_.head_dim;
    const bool head_norms = shape_.family() == "qwen3" || shape_.family() == "lfm2" || shape_.architecture == kGemma;
    // Scaled by 1 / head_dim, not its root, keys and queries make up for the rest.
    const float gain = head_norms ? 1.0f : scales_.attention < 1.0f ? kSharpness / std::pow(scales_.attention, 0.25f) : kSharpness;
    Norm("attn_norm.weight", width);
    Matrix("attn_q.weight", width, q, gain);
    Matrix("attn_k.weight", width, kv, gain);
    Matrix("attn_v.weight", width, kv);
    Matrix("attn_output.weight", q, width, residual_gain_);
    if (head_norms) HeadNorms();
    if (shape_.architecture == kGemma) Norm("post_attention_norm.weight", width, residual_gain_);
    if (shape_.architecture == "qwen2") {
      Add("attn_q.bias", {q}, Fill::kBias, 1.0f);
      Add("attn_k.bias", {kv}, Fill::kBias, 1.0f);
      Add("attn_v.bias", {kv}, Fill::kBias, 1.0f);
    }
  }

  // What tells blocks of a token, and how far the pairs of heads turn that see everything.
  void TokenTable() {
    const uint64_t told = shape_.told, all = told * shape_.layers;
    prefix_.clear();
    Add("rope_freqs.weight", {static_cast<uint64_t>(shape_.wide_head_dim / 2)}, Fill::kDivisors, 1.0f);
    // Scaled by the root of `told`, rows are of order one.
    Matrix("per_layer_token_embd.weight", all, shape_.vocabulary, std::sqrt(static_cast<float>(all) / static_cast<float>(told)));
    Matrix("per_layer_model_proj.weight", shape_.width, all);
    Norm("per_layer_proj_norm.weight", told);
  }
  void TokenGate() {
    Matrix("inp_gate.weight", shape_.width, shape_.told);
    Matrix("proj.weight", shape_.told, shape_.width);
    Norm("post_norm.weight", shape_.width, residual_gain_);
    Norm("layer_output_scale.weight", 1);
  }
  // Scores are not scaled, but by the norms of queries and keys.
  void SharedAttention(int layer) {
    const uint64_t width = shape_.width, dim = Windowed(shape_, layer) ? shape_.head_dim : shape_.wide_head_dim;
    const uint64_t q = shape_.heads * dim, kv = shape_.kv_heads * dim;
    const float gain = kSharpness / std::pow(static_cast<float>(dim), 0.25f);
    Norm("attn_norm.weight", width);
    Matrix("attn_q.weight", width, q);
    Norm("attn_q_norm.weight", dim, gain);
    if (!Shares(shape_, layer)) {
      Matrix("attn_k.weight", width, kv);
      Matrix("attn_v.weight", width, kv);
      Norm("attn_k_norm.weight", dim, gain);
    }
    Matrix("attn_output.weight", q, width, residual_gain_);
    Norm("post_attention_norm.weight", width, residual_gain_);
  }

  void HeadNorms() {
    Norm("attn_q_norm.weight", shape_.head_dim, kSharpness);
    Norm("attn_k_norm.weight", shape_.head_dim, kSharpness);
  }

  void ShortConv() {
    const uint64_t width = shape_.width;
    Norm("attn_norm.weight", width);
    Matrix("shortconv.in_proj.weight", width, 3 * width);
    Add("shortconv.conv.weight", {kShortConvKernel, width}, Fill::kFilter, 1.0f);
    Matrix("shortconv.out_proj.weight", width, width, residual_gain_);
  }

  void Mamba() {
    Norm("attn_norm.weight", shape_.width);
    MambaBehindNorm();
  }

  void MambaBehindNorm() {
    const uint64_t width = shape_.width, heads = shape_.value_heads, inner = shape_.ssm_inner(), groups = shape_.key_heads;
    const uint64_t channels = inner + 2 * groups * shape_.state_dim;
    Matrix("ssm_in.weight", width, inner + channels + heads);
    Add("ssm_a", {1, heads}, Fill::kDecayRate, 1.0f);
    Add("ssm_dt.bias", {heads}, Fill::kTimeBias, 1.0f);
    Add("ssm_d", {1, heads}, Fill::kNorm, 1.0f);
    Add("ssm_conv1d.weight", {kConvKernel, channels}, Fill::kFilter, 1.0f);
    Add("ssm_conv1d.bias", {channels}, Fill::kFilter, 1.0f);
    if (shape_.architecture != kFalcon) Add("ssm_norm.weight", {inner / groups, groups}, Fill::kNorm, 1.0f);
    Matrix("ssm_out.weight", inner, width, residual_gain_);
  }

  void Mamba1() {
    const uint64_t width = shape_.width, inner = shape_.ssm_inner(), states = shape_.state_dim, rank = JambaRank(shape_);
    Norm("attn_norm.weight", width);
    Matrix("ssm_in.weight", width, 2 * inner);
    Add("ssm_conv1d.weight", {kConvKernel, inner}, Fill::kFilter, 1.0f);
    Add("ssm_conv1d.bias", {inner}, Fill::kFilter, 1.0f);
    Matrix("ssm_x.weight", inner, rank + 2 * states);
    Norm("ssm_dt_norm.weight", rank);
    Norm("ssm_b_norm.weight", states);
    Norm("ssm_c_norm.weight", states);
    Matrix("ssm_dt.weight", rank, inner);
    Add("ssm_dt.bias", {inner}, Fill::kTimeBias, 1.0f);
    Add("ssm_a", {states, inner}, Fill::kDecayRate, 1.0f);
    Add("ssm_d", {inner}, Fill::kNorm, 1.0f);
    Matrix("ssm_out.weight", inner, width, residual_gain_);
  }

  void GatedAttention() {
    const uint64_t width = shape_.width, q = shape_.heads * shape_.head_dim, kv = shape_.kv_heads * shape_.head_dim;
    Norm("attn_norm.weight", width);
    Matrix("attn_q.weight", width, 2 * q);  // each head: its query, then its gate
    Matrix("attn_k.weight", width, kv);
    Matrix("attn_v.weight", width, kv);
    Matrix("attn_output.weight", q, width, residual_gain_);
    HeadNorms();
  }

  void DeltaNet() {
    const uint64_t width = shape_.width, heads = shape_.value_heads, values = heads * shape_.state_dim;
    const uint64_t channels = 2 * shape_.key_heads * shape_.state_dim + values;
    Norm("attn_norm.weight", width);
    Matrix("attn_qkv.weight", width, channels);
    Matrix("attn_gate.weight", width, values);
    if (shape_.architecture == kNext) {
      Matrix("ssm_ba.weight", width, 2 * heads);
    } else {
      Matrix("ssm_beta.weight", width, heads);
      Matrix("ssm_alpha.weight", width, heads);
    }
    Add("ssm_a", {heads}, Fill::kDecayRate, 1.0f);
    Add("ssm_dt.bias", {heads}, Fill::kTimeBias, 1.0f);
    Add("ssm_conv1d.weight", {kConvKernel, channels}, Fill::kFilter, 1.0f);
    Norm("ssm_norm.weight", shape_.state_dim);
    Matrix("ssm_out.weight", values, width, residual_gain_);
  }

  void FeedForward(std::string_view norm, int layer) {
    Norm(norm, shape_.width);
    if (layer < shape_.dense_first || shape_.experts == 0) return EveryRows("", FeedForwardWidth(shape_, layer));
    const uint64_t width = shape_.width, inner = shape_.expert_ffn, experts = shape_.experts;
    Matrix("ffn_gate_inp.weight", width, experts, 2.0f);
    if (shape_.family() == "lfm2" || !gated()) Add("exp_probs_b.bias", {experts}, Fill::kBias, 1.0f);
    if (gated()) Add("ffn_gate_exps.weight", {width, inner, experts}, Fill::kMatrix, 1.0f);
    Add("ffn_up_exps.weight", {width, inner, experts}, Fill::kMatrix, 1.0f);
    // A mean of as many as a row uses is smaller than one of them.
    const float down = residual_gain_ * std::sqrt(static_cast<float>(shape_.used)) / (gated() ? 1.0f : kNemotronWeights);
    Add("ffn_down_exps.weight", {inner, width, experts}, Fill::kMatrix, down);
    if (shape_.shared_ffn == 0) return;
    if (shape_.family() == "qwen35") Matrix("ffn_gate_inp_shexp.weight", width, 1);
    EveryRows("_shexp", shape_.shared_ffn);
  }

  void EveryRows(std::string_view suffix, uint64_t inner) {
    if (gated()) Matrix(fmt::format("ffn_gate{}.weight", suffix), shape_.width, inner);
    Matrix(fmt::format("ffn_up{}.weight", suffix), shape_.width, inner);
    Matrix(fmt::format("ffn_down{}.weight", suffix), inner, shape_.width, residual_gain_);
    if (IsGemma(shape_)) Norm("post_ffw_norm.weight", shape_.width, residual_gain_);
  }

  void MtpBlock() {
    prefix_ = fmt::format("blk.{}.", shape_.layers);
    GatedAttention();
    FeedForward("post_attention_norm.weight", shape_.layers);
    Matrix("nextn.eh_proj.weight", 2 * shape_.width, shape_.width);
    Norm("nextn.enorm.weight", shape_.width);
    Norm("nextn.hnorm.weight", shape_.width);
    Norm("nextn.shared_head_norm.weight", shape_.width);
  }

  const SynthShape& shape_;
  Scales scales_;
  float residual_gain_;  // of what is added to the residual stream, so that its sum over the layers stays of order one
  std::string prefix_;
  std::vector<Weight> weights_;
};

// ---- Metadata. ----

uint32_t FileType(TensorType type) {  // general.file_type, as ggml numbers it
  switch (type) {
    case TensorType::kF16: return 1;
    case TensorType::kQ4_0: return 2;
    case TensorType::kQ4_1: return 3;
    case TensorType::kQ8_0: return 7;
    case TensorType::kQ4_K: return 15;
    case TensorType::kBF16: return 32;
    case TensorType::kMXFP4: return 38;
    default: return 0;
  }
}

void AddGranite(GgufWriter& out, const SynthShape& shape) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", shape.architecture, name); };
  const Scales scales = ScalesOf(shape);
  out.Bool(key("rope.scaling.finetuned"), false);  // that is how files say that positions are not told
  out.Number<float>(key("attention.scale"), scales.attention);
  out.Number<float>(key("embedding_scale"), scales.embedding);
  out.Number<float>(key("residual_scale"), scales.residual);
  out.Number<float>(key("logit_scale"), scales.logits);
}

void AddMamba(GgufWriter& out, const SynthShape& shape) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", shape.architecture, name); };
  out.Number<uint32_t>(key("ssm.conv_kernel"), kConvKernel);
  out.Number<uint32_t>(key("ssm.state_size"), shape.state_dim);
  out.Number<uint32_t>(key("ssm.group_count"), shape.key_heads);
  out.Number<uint32_t>(key("ssm.time_step_rank"), shape.value_heads);
  out.Number<uint32_t>(key("ssm.inner_size"), shape.ssm_inner());
}

void AddMamba1(GgufWriter& out, const SynthShape& shape) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", shape.architecture, name); };
  out.Number<uint32_t>(key("ssm.conv_kernel"), kConvKernel);
  out.Number<uint32_t>(key("ssm.inner_size"), shape.ssm_inner());
  out.Number<uint32_t>(key("ssm.state_size"), shape.state_dim);
  out.Number<uint32_t>(key("ssm.time_step_rank"), JambaRank(shape));
}

void AddGemma4(GgufWriter& out, const SynthShape& shape) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", shape.architecture, name); };
  std::vector<bool> windowed(static_cast<size_t>(shape.layers));
  for (int i = 0; i < shape.layers; ++i) windowed[static_cast<size_t>(i)] = Windowed(shape, i);
  out.Bools(key("attention.sliding_window_pattern"), windowed);
  for (const char* name : {"attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"}) {
    out.Number<uint32_t>(key(name), shape.head_dim);
  }
  out.Number<float>(key("rope.freq_base_swa"), 10000.0f);
  out.Number<uint32_t>(key("attention.shared_kv_layers"), shape.sharing);
  out.Number<uint32_t>(key("embedding_length_per_layer_input"), shape.told);
  out.Number<float>(key("final_logit_softcapping"), 30.0f);
}

void AddExperts(GgufWriter& out, const SynthShape& shape) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", shape.architecture, name); };
  out.Number<uint32_t>(key("expert_count"), shape.experts);
  out.Number<uint32_t>(key("expert_used_count"), shape.used);
  if (shape.architecture != kGranite) out.Number<uint32_t>(key("expert_feed_forward_length"), shape.expert_ffn);
  if (shape.shared_ffn > 0) out.Number<uint32_t>(key("expert_shared_feed_forward_length"), shape.shared_ffn);
  if (shape.family() == kNemotron) {
    out.Bool(key("expert_weights_norm"), true);
    out.Number<float>(key("expert_weights_scale"), kNemotronWeights);
  }
  if (shape.family() != "lfm2") return;
  constexpr uint32_t kSigmoids = 2;
  out.Number<uint32_t>(key("expert_gating_func"), kSigmoids);
  out.Number<uint32_t>(key("leading_dense_block_count"), shape.dense_first);
}

void AddShape(GgufWriter& out, const SynthShape& shape, bool mtp) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", shape.architecture, name); };
  out.Number<uint32_t>(key("context_length"), shape.context);
  out.Number<uint32_t>(key("block_count"), shape.layers + (mtp ? 1 : 0));
  if (mtp) out.Number<uint32_t>(key("nextn_predict_layers"), 1);
  out.Number<uint32_t>(key("embedding_length"), shape.width);
  if (shape.family() == kNemotron) {
    std::vector<int32_t> inner(static_cast<size_t>(shape.layers));
    for (int i = 0; i < shape.layers; ++i) {
      const char sublayer = SublayerOf(shape, i);
      inner[static_cast<size_t>(i)] = sublayer == '-' ? shape.ffn : sublayer == 'E' ? shape.expert_ffn : 0;
    }
    out.Numbers<int32_t>(key("feed_forward_length"), inner);
  } else if (shape.architecture == kGemma4) {
    std::vector<int32_t> inner(static_cast<size_t>(shape.layers));
    for (int i = 0; i < shape.layers; ++i) inner[static_cast<size_t>(i)] = FeedForwardWidth(shape, i);
    out.Numbers<int32_t>(key("feed_forward_length"), inner);
  } else if (shape.ffn > 0) {
    out.Number<uint32_t>(key("feed_forward_length"), shape.ffn);
  }
  if (shape.experts > 0) AddExperts(out, shape);
  out.Number<uint32_t>(key("vocab_size"), shape.vocabulary);
  out.Number<uint32_t>(key("attention.head_count"), shape.heads);
  if (shape.family() == "lfm2" || shape.architecture == kGranite || shape.family() == kNemotron || shape.architecture == kJamba) {
    std::vector<int32_t> kv_heads(static_cast<size_t>(shape.layers));
    for (int i = 0; i < shape.layers; ++i) kv_heads[static_cast<size_t>(i)] = Attends(shape, i) ? shape.kv_heads : 0;
    out.Numbers<int32_t>(key("attention.head_count_kv"), kv_heads);
  } else {
    out.Number<uint32_t>(key("attention.head_count_kv"), shape.kv_heads);
  }
  const int head_dim = shape.wide_head_dim > 0 ? shape.wide_head_dim : shape.head_dim;
  out.Number<uint32_t>(key("attention.key_length"), head_dim);
  out.Number<uint32_t>(key("attention.value_length"), head_dim);
  out.Number<float>(key("attention.layer_norm_rms_epsilon"), kNormEps);
  out.Number<float>(key("rope.freq_base"), static_cast<float>(shape.rope_base));
  if (shape.family() == "lfm2") out.Number<uint32_t>(key("shortconv.l_cache"), kShortConvKernel);
  if (shape.family() != "qwen35") {
    out.Number<uint32_t>(key("rope.dimension_count"), head_dim);
    if (shape.architecture == kGranite) AddGranite(out, shape);
    if (shape.window > 0) {
      out.Number<uint32_t>(key("attention.sliding_window"), shape.window);
      if (shape.architecture == kGemma) out.Number<uint32_t>(key("attention.sliding_window_pattern"), std::min(shape.layers, shape.every));
    }
    if (shape.architecture == kGemma4) AddGemma4(out, shape);
    if (shape.architecture == kJamba) AddMamba1(out, shape);
    if (shape.architecture == kGranite || shape.architecture == kFalcon || shape.family() == kNemotron) AddMamba(out, shape);
    return;
  }
  const int rope_dims = shape.head_dim / 4, third = rope_dims / 6;
  out.Number<uint32_t>(key("rope.dimension_count"), rope_dims);
  out.Numbers<int32_t>(key("rope.dimension_sections"), std::vector<int32_t>{rope_dims / 2 - 2 * third, third, third, 0});
  out.Number<uint32_t>(key("ssm.conv_kernel"), kConvKernel);
  out.Number<uint32_t>(key("ssm.state_size"), shape.state_dim);
  out.Number<uint32_t>(key("ssm.group_count"), shape.key_heads);
  out.Number<uint32_t>(key("ssm.time_step_rank"), shape.value_heads);
  out.Number<uint32_t>(key("ssm.inner_size"), shape.value_heads * shape.state_dim);
  out.Number<uint32_t>(key("full_attention_interval"), kAttentionEvery);
}

void AppendUtf8(std::string& text, unsigned code_point) {  // below U+0800
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else {
    text += static_cast<char>(0xc0 | code_point >> 6);
    text += static_cast<char>(0x80 | (code_point & 0x3f));
  }
}

// The letters that stand for the 256 bytes in a byte-level vocabulary: a printable Latin-1 character for itself, the others from U+0100 on.
std::vector<std::string> ByteLetters() {
  std::vector<std::string> letters(256);
  unsigned extra = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    AppendUtf8(letters[byte], printable ? byte : extra++);
  }
  return letters;
}

constexpr std::string_view kChatTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

constexpr std::string_view kControlTokens[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
constexpr int32_t kNormalToken = 1;
constexpr int32_t kControlToken = 3;

std::string_view PreTokenizer(const SynthShape& shape) {
  if (shape.architecture == kNext) return "qwen2";
  if (shape.family() == "qwen35") return "qwen35";
  if (shape.family() == "qwen2" || shape.family() == "qwen3") return "qwen2";
  if (shape.family() == "lfm2") return "lfm2";
  if (shape.architecture == kGranite) return "dbrx";
  if (shape.architecture == kFalcon) return "falcon-h1";
  if (shape.family() == kNemotron) return "pixtral";
  return shape.name.starts_with("llama") ? "llama-bpe" : "smollm";
}

void AddTokenizer(GgufWriter& out, const SynthShape& shape) {
  const size_t words_end = shape.vocabulary - std::size(kControlTokens);
  const std::vector<std::string> letters = ByteLetters();
  const std::string& space = letters[' '];
  std::vector<std::string> tokens = letters, merges;
  for (const char first : std::string_view("etaoinshrdlu")) {  // 144 pairs of frequent letters, which text merges into
    for (const char second : std::string_view("etaoinshrdlu")) {
      tokens.push_back({first, second});
      merges.push_back({first, ' ', second});
    }
  }
  // Words that no text becomes, because no merge makes them, but that a model may say: a space and five letters, counted through.
  for (uint32_t number = 0; tokens.size() < words_end; ++number) {
    std::string word = space;
    uint32_t rest = number;
    for (int i = 0; i < 5; ++i, rest /= 26) word += static_cast<char>('a' + rest % 26);
    tokens.push_back(std::move(word));
  }
  std::vector<int32_t> kinds(tokens.size(), kNormalToken);
  for (const std::string_view control : kControlTokens) {
    tokens.emplace_back(control);
    kinds.push_back(kControlToken);
  }
  out.String("tokenizer.ggml.model", "gpt2").String("tokenizer.ggml.pre", PreTokenizer(shape));
  out.Strings("tokenizer.ggml.tokens", tokens)
      .Numbers<int32_t>("tokenizer.ggml.token_type", kinds)
      .Strings("tokenizer.ggml.merges", merges);
  out.Number<uint32_t>("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(words_end + 2));
  out.Number<uint32_t>("tokenizer.ggml.padding_token_id", static_cast<uint32_t>(words_end));
  // Published files of Gemma 4 name those that end its images and sounds.
  const auto last_word = static_cast<int32_t>(words_end) - 1;
  if (shape.architecture == kGemma4) out.Numbers<int32_t>("tokenizer.ggml.suppress_tokens", std::vector<int32_t>{last_word, last_word - 1});
  out.Bool("tokenizer.ggml.add_bos_token", false).String("tokenizer.chat_template", kChatTemplate);
}

// ---- Values. ----

float VectorValue(const Weight& weight, uint64_t index, RandomBits& random) {
  const float u = random.Unit();
  switch (weight.fill) {
    case Fill::kNorm: return weight.gain * (0.8f + 0.4f * u);
    case Fill::kBias: return u - 0.5f;
    case Fill::kFilter: return 1.7f * u - 0.85f;
    // Cubed, so that slow decays are as frequent as fast ones.
    case Fill::kDecayRate: return -(0.02f + 1.98f * u * u * u);
    case Fill::kTimeBias: return 3.0f * u - 2.0f;
    case Fill::kDivisors: return index < weight.dims[0] / 4 ? 1.0f : 1e30f;
    case Fill::kMatrix: break;
  }
  return 0.0f;
}

// Which matrices of a Q4_K_M file are Q6_K: the output's, and in the first eighth, the last eighth and a third of the layers between, the
// values' and the one that leads out of the feed-forward part. Rows that are no multiple of 256 stay in 8 bits, those that are none of 32 (the
// steps of a tiny Jamba) floats.
// Routers are small, and what they choose is not to hang on rounding: they are floats in every file.
TensorType MatrixType(TensorType type, const Weight& weight, const SynthShape& shape) {
  if (weight.name.find(".ffn_gate_inp") != std::string::npos) return TensorType::kF32;
  const auto fits = [&](TensorType t) { return weight.dims[0] % TraitsOf(t).block_elements == 0; };
  if (!fits(type)) return fits(TensorType::kQ8_0) ? TensorType::kQ8_0 : TensorType::kF32;
  if (type != TensorType::kQ4_K) return type;
  if (weight.name == "output.weight" || (weight.name == "token_embd.weight" && shape.tied)) return TensorType::kQ6_K;
  int layer = 0;
  if (std::sscanf(weight.name.c_str(), "blk.%d.", &layer) != 1) return type;
  const int eighth = shape.layers / 8;
  const bool matters = layer < eighth || layer >= shape.layers - eighth || (layer - eighth) % 3 == 2;
  return matters && (weight.name.ends_with("attn_v.weight") || weight.name.find(".ffn_down") != std::string::npos) ? TensorType::kQ6_K
                                                                                                                   : type;
}

struct Plan {
  SynthShape shape;
  WeightList weights;
  GgufWriter writer;
};

Result<Plan> MakePlan(const SynthOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const SynthShape shape, FindSynthShape(options.shape));
  if (!CanFillRandomly(options.type) || options.type == TensorType::kQ6_K) {
    return InvalidArgument(fmt::format("random weights are made in F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and MXFP4, not in {}",
                                       TensorTypeName(options.type)));
  }
  if (options.mtp && shape.family() != "qwen35") {
    return InvalidArgument(
        fmt::format("shape '{}' is a {} model, which has no multi-token-prediction block", shape.name, shape.architecture));
  }
  GgufWriter out;
  out.String("general.architecture", shape.architecture);
  out.String("general.name", fmt::format("{} with random weights", shape.name));
  out.Number<uint32_t>("general.file_type", FileType(options.type)).Number<uint32_t>("general.quantization_version", 2);
  AddShape(out, shape, options.mtp);
  AddTokenizer(out, shape);
  WeightList weights(shape, options.mtp);
  for (const Weight& weight : weights.all()) {
    out.Tensor(weight.name, weight.fill == Fill::kMatrix ? MatrixType(options.type, weight, shape) : TensorType::kF32, weight.dims);
  }
  return Plan{shape, std::move(weights), std::move(out)};
}

}  // namespace

Result<uint64_t> SynthesizedBytes(const SynthOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const Plan plan, MakePlan(options));
  return plan.writer.FileSize();
}

Status Synthesize(const SynthOptions& options, const std::string& path, const SynthProgress& progress) {
  REPRISE_ASSIGN_OR_RETURN(const Plan plan, MakePlan(options));
  REPRISE_ASSIGN_OR_RETURN(GgufStream stream, plan.writer.WriteTo(path));
  const uint64_t total = plan.writer.FileSize();
  const std::span<const Weight> weights = plan.weights.all();
  std::vector<std::byte> piece;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Weight& weight = weights[i];
    const GgufDeclaration& tensor = plan.writer.tensors()[i];
    // A sequence for each tensor, so that one does not depend on what precedes it.
    RandomBits seeds(options.seed + i * 0x632be59bd9b4e019);
    RandomBits random(seeds.Next());
    const float deviation = weight.gain / std::sqrt(static_cast<float>(weight.dims[0]));
    const uint64_t block = TraitsOf(tensor.type).block_bytes;
    const uint64_t piece_bytes = (1 << 20) / block * block;
    for (uint64_t done = 0; done < tensor.bytes; done += piece.size()) {
      piece.resize(std::min(piece_bytes, tensor.bytes - done));
      if (weight.fill == Fill::kMatrix) {
        FillRandomly(tensor.type, deviation, random, piece);
      } else {
        for (size_t at = 0; at < piece.size(); at += sizeof(float)) {
          const float value = VectorValue(weight, (done + at) / sizeof(float), random);
          std::memcpy(&piece[at], &value, sizeof(value));
        }
      }
      REPRISE_RETURN_IF_ERROR(stream.Append(piece));
      if (progress && !progress(stream.bytes_written(), total)) return Cancelled("writing the model was stopped");
    }
  }
  return stream.Finish();
}

}  // namespace reprise
