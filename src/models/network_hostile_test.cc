// Files that are sound GGUF and lie about their model: each is refused by name, before anything is computed with it.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "base/file.h"
#include "formats/gguf_writer.h"
#include "models/network.h"
#include "models/synth.h"

namespace reprise {
namespace {

// Bytes from a key's name to its number, and to the first element of its array: a type; for the array its elements' type and their count too.
constexpr size_t kNumber = 4, kElements = 4 + 4 + 8;

class NetworkHostile : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  void Make(const std::string& shape) {
    ASSERT_TRUE(Synthesize({shape, TensorType::kF32}, path_).ok());
    Take(path_);
  }
  void Take(const std::string& path) {
    const auto bytes = ReadFile(path, size_t{64} << 20);
    ASSERT_TRUE(bytes.ok()) << bytes.status().message();
    sound_.assign(bytes->begin(), bytes->end());
    ASSERT_EQ(Error(sound_), "") << path;
  }

  // What loading says with the 32-bit number of `key` changed, or element `index` of its array.
  std::string With(const std::string& key, uint32_t value, int index = -1) {
    const size_t skip = index < 0 ? kNumber : kElements + static_cast<size_t>(index) * sizeof(value);
    return Changed(key, key.size() + skip, &value, sizeof(value));
  }
  // What it says when a tensor is called otherwise, by a name of the same length.
  std::string Renamed(const std::string& tensor, const std::string& name) {
    EXPECT_EQ(tensor.size(), name.size());
    return Changed(tensor, 0, name.data(), name.size());
  }
  void Refused(const std::string& key, uint32_t value, const std::string& words, int index = -1) {
    const std::string error = With(key, value, index);
    EXPECT_NE(error.find(words), std::string::npos) << key << " = " << value << " gives '" << error << "'";
  }

  static std::string Error(const std::vector<std::byte>& bytes) {
    const auto file = GgufFile::Parse(bytes);
    if (!file.ok()) return "not even a file: " + file.status().message();
    const auto backend = MakeCpuBackend({.threads = 1});
    EXPECT_TRUE(backend.ok());
    StateLayout layout;
    return Network::Load(*file, **backend, layout, {.max_rows = 4, .max_lanes = 1}).status().message();
  }

  // The same for good, where what follows is about it.
  void Rewrite(const std::string& text, const std::string& by) {
    ASSERT_EQ(text.size(), by.size());
    const auto at = Find(sound_, text);
    ASSERT_NE(at, sound_.end()) << text;
    std::memcpy(&*at, by.data(), by.size());
  }

  const std::string path_ = testing::TempDir() + "reprise_network_hostile_test.gguf";
  std::vector<std::byte> sound_;

 private:
  // What it says with other bytes written `skip` bytes from where `text` begins.
  std::string Changed(const std::string& text, size_t skip, const void* from, size_t size) {
    std::vector<std::byte> bytes = sound_;
    const auto at = Find(bytes, text);
    EXPECT_NE(at, bytes.end()) << text;
    if (at == bytes.end()) return "";
    std::memcpy(&at[static_cast<std::ptrdiff_t>(skip)], from, size);
    return Error(bytes);
  }

  static std::vector<std::byte>::iterator Find(std::vector<std::byte>& bytes, const std::string& text) {
    const auto* const sought = reinterpret_cast<const std::byte*>(text.data());
    return std::search(bytes.begin(), bytes.end(), sought, sought + text.size());
  }
};

constexpr uint32_t kMinusOne = 0xffffffff;

TEST_F(NetworkHostile, NumbersOfEveryArchitecture) {
  for (const auto& [shape, name] : {std::pair<std::string, std::string>{"tiny", "qwen35"},
                                    {"tiny-llama", "llama"},
                                    {"tiny-qwen2", "qwen2"},
                                    {"tiny-qwen3", "qwen3"},
                                    {"tiny-lfm2", "lfm2"},
                                    {"tiny-granite", "granitehybrid"},
                                    {"tiny-gemma3", "gemma3"},
                                    {"tiny-falcon-h1", "falcon-h1"}}) {
    SCOPED_TRACE(name);
    Make(shape);
    for (const char* key : {"block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.key_length"}) {
      for (const uint32_t value : {uint32_t{0}, kMinusOne, uint32_t{1} << 30}) Refused(name + "." + key, value, std::string(key));
    }
    Refused(name + ".context_length", 0, "context_length");
    Refused(name + ".embedding_length", 63, "[63, 512] was expected");
    Refused(name + ".feed_forward_length", 129, "ffn_gate.weight");
    Refused(name + ".attention.head_count", 3, "not a multiple");
    Refused(name + ".attention.value_length", 8, "differs from attention.key_length");
    Refused(name + ".rope.dimension_count", 3, "odd or larger");
    Refused(name + ".rope.dimension_count", 4096, "odd or larger");
    // A layer more than there are tensors, or than the array of another key has.
    Refused(name + ".block_count", 5, name == "lfm2" || name == "granitehybrid" ? "array of 5" : "blk.");
  }
}

TEST_F(NetworkHostile, WindowsAndScaledPositions) {
  Make("tiny-gemma3");
  for (const uint32_t value : {uint32_t{0}, kMinusOne}) {
    Refused("gemma3.attention.sliding_window", value, "sliding_window");
    Refused("gemma3.attention.sliding_window_pattern", value, "sliding_window_pattern");
  }
  EXPECT_NE(Renamed("blk.1.attn_norm.weight", "blk.0.attn_output.bias").find("bias of attention's output"), std::string::npos);
  Take("tests/data/goldens/gpt_oss.gguf");
  Refused("gpt-oss.expert_count", 0, "expert_count is missing");
  Refused("gpt-oss.attention.sliding_window", 0, "sliding_window");
  EXPECT_NE(Renamed("blk.1.attn_sinks.weight", "blk.1.attn_drain.weight").find("attn_sinks"), std::string::npos);
  Take("tests/data/goldens/qwen3_yarn.gguf");
  const std::string rope = "qwen3.rope.";
  for (const float wrong : {0.0f, -4.0f, 0.5f, 1e13f, std::nanf(""), INFINITY}) {
    for (const char* key : {"freq_base", "scaling.factor"}) Refused(rope + key, std::bit_cast<uint32_t>(wrong), "rope." + std::string(key));
  }
  for (const uint32_t value : {uint32_t{0}, kMinusOne}) Refused(rope + "scaling.original_context_length", value, "original_context_length");
  Rewrite("yarn", "yorn");
  EXPECT_NE(Error(sound_).find("rope.scaling.type is 'yorn', neither none, linear nor yarn"), std::string::npos) << Error(sound_);
}

TEST_F(NetworkHostile, PositionsOfLongTextsAndMatricesInOne) {
  Take("tests/data/goldens/phi3.gguf");
  for (const uint32_t value : {uint32_t{0}, kMinusOne})
    Refused("phi3.rope.scaling.original_context_length", value, "original_context_length");
  for (const float wrong : {0.0f, -1.0f, std::nanf(""), INFINITY}) {
    Refused("phi3.rope.scaling.attn_factor", std::bit_cast<uint32_t>(wrong), "rope.scaling.attn_factor");
  }
  Refused("phi3.rope.dimension_count", 10, "rope_factors");
  Refused("phi3.feed_forward_length", 63, "ffn_up.weight");
  Refused("phi3.attention.head_count_kv", 1, "attn_qkv.weight");
  EXPECT_NE(Renamed("blk.1.attn_qkv.weight", "blk.1.attn_xyz.weight").find("attn_q.weight"), std::string::npos);
  EXPECT_NE(Renamed("rope_factors_long.weight", "rope_factors_lung.weight").find("rope_factors_long.weight"), std::string::npos);
}

TEST_F(NetworkHostile, Temperatures) {
  Take("tests/data/goldens/mistral3.gguf");
  for (const float wrong : {-1.0f, 101.0f, std::nanf(""), INFINITY}) {
    Refused("mistral3.attention.temperature_scale", std::bit_cast<uint32_t>(wrong), "attention.temperature_scale");
    Refused("mistral3.rope.scaling.yarn_log_multiplier", std::bit_cast<uint32_t>(wrong * 100), "rope.scaling.yarn_log_multiplier");
  }
  for (const uint32_t value : {uint32_t{0}, kMinusOne}) {
    Refused("mistral3.rope.scaling.original_context_length", value, "original_context_length");
  }
}

TEST_F(NetworkHostile, KeysOfOtherBlocksAndTablesOfTokens) {
  Make("tiny-gemma4");  // the last two of five blocks share; every second one sees everything
  const std::string key = "gemma4.";
  for (const uint32_t value : {uint32_t{5}, kMinusOne}) Refused(key + "attention.shared_kv_layers", value, "attention.shared_kv_layers");
  Refused(key + "attention.shared_kv_layers", 1, "blk.3.attn_k.weight");
  Refused(key + "attention.shared_kv_layers", 4, "none of its kind");
  Refused(key + "embedding_length_per_layer_input", 0, "embedding_length_per_layer_input is 0");
  Refused(key + "embedding_length_per_layer_input", 17, "per_layer_token_embd.weight");
  Refused(key + "embedding_length_per_layer_input", kMinusOne, "embedding_length_per_layer_input");
  for (const uint32_t value : {uint32_t{0}, kMinusOne}) Refused(key + "attention.key_length_swa", value, "attention.key_length_swa");
  Refused(key + "attention.key_length_swa", 15, "differs from attention.key_length_swa");
  for (const uint32_t value : {uint32_t{0}, uint32_t{3}, uint32_t{18}}) {
    Refused(key + "rope.dimension_count_swa", value, "rope.dimension_count_swa");
  }
  for (const float wrong : {-1.0f, 1e7f, std::nanf(""), INFINITY}) {
    Refused(key + "final_logit_softcapping", std::bit_cast<uint32_t>(wrong), "final_logit_softcapping");
  }
  for (const float wrong : {0.0f, 1e13f, std::nanf("")}) {
    Refused(key + "rope.freq_base_swa", std::bit_cast<uint32_t>(wrong), "rope.freq_base_swa");
  }
  for (const char* name :
       {"per_layer_token_embd.weight", "per_layer_proj_norm.weight", "blk.3.inp_gate.weight", "blk.1.attn_k_norm.weight"}) {
    const std::string other = std::string(name).replace(0, 1, "x");
    EXPECT_NE(Renamed(name, other).find(name), std::string::npos) << name;
  }
  for (const uint32_t value : {uint32_t{512}, kMinusOne})
    Refused("tokenizer.ggml.suppress_tokens", value, "suppress_tokens names token", 1);
  Take("tests/data/goldens/gemma4_moe.gguf");
  for (const char* name : {"blk.0.pre_ffw_norm_2.weight", "blk.1.post_ffw_norm_1.weight", "blk.1.ffn_gate_inp.scale"}) {
    const std::string other = std::string(name).replace(0, 1, "x");
    EXPECT_NE(Renamed(name, other).find(name), std::string::npos) << name;
  }
}

TEST_F(NetworkHostile, KeyValueHeads) {
  Make("tiny-qwen3");
  for (const uint32_t value : {uint32_t{0}, uint32_t{3}, kMinusOne}) Refused("qwen3.attention.head_count_kv", value, "head_count_kv");
  Refused("qwen3.attention.head_count_kv", 4, "attn_k.weight");
  Make("tiny-lfm2");  // blocks 0, 1 and 3 convolve, block 2 attends
  const std::string key = "lfm2.attention.head_count_kv";
  Refused(key, 0, "none attends", 2);
  Refused(key, 3, "not a multiple", 2);
  Refused(key, kMinusOne, "head_count_kv", 2);
  Refused(key, 4097, "head_count_kv", 2);
  Refused(key, 1, "differs between blocks", 0);
  Refused(key, 2, "blk.0.attn_q.weight", 0);
}

// A bias that is there and not added would go unseen.
TEST_F(NetworkHostile, Biases) {
  Make("tiny-qwen2");
  for (const char part : {'q', 'k', 'v'}) {
    const std::string name = std::string("blk.0.attn_") + part + ".bias";
    EXPECT_EQ(Renamed(name, "blk.0.attn_x.bias"), "the file has no tensor '" + name + "'");
  }
  EXPECT_NE(Renamed("blk.1.attn_q.bias", "blk.0.ffn_up.bias").find("biases of the feed-forward network"), std::string::npos);
}

TEST_F(NetworkHostile, KernelsOfShortConvolutions) {
  Make("tiny-lfm2");
  for (const uint32_t value : {uint32_t{0}, uint32_t{1}, uint32_t{17}, kMinusOne})
    Refused("lfm2.shortconv.l_cache", value, "shortconv.l_cache");
  Refused("lfm2.shortconv.l_cache", 4, "blk.0.shortconv.conv.weight");
}

TEST_F(NetworkHostile, ShapesOfStateSpaces) {
  Make("tiny-granite");  // of 4 heads in 2 groups, 128 wide together, and 32 dimensions
  const std::string ssm = "granitehybrid.ssm.";
  for (const char* key : {"conv_kernel", "state_size", "group_count", "time_step_rank", "inner_size"}) {
    for (const uint32_t value : {uint32_t{0}, kMinusOne, uint32_t{1} << 30}) Refused(ssm + key, value, "ssm." + std::string(key));
  }
  Refused(ssm + "conv_kernel", 1, "ssm.conv_kernel");
  Refused(ssm + "conv_kernel", 5, "blk.0.ssm_conv1d.weight");
  Refused(ssm + "state_size", 33, "blk.0.ssm_in.weight");
  Refused(ssm + "group_count", 3, "time_step_rank is not a multiple of ssm.group_count");
  Refused(ssm + "group_count", 4, "blk.0.ssm_in.weight");
  Refused(ssm + "time_step_rank", 6, "inner_size is not a multiple of ssm.time_step_rank");
  Refused(ssm + "time_step_rank", 8, "blk.0.ssm_in.weight");
  Refused(ssm + "inner_size", 64, "blk.0.ssm_in.weight");
  Refused("granitehybrid.attention.head_count_kv", 2, "blk.0.attn_q.weight", 0);
  const std::string error = Renamed("blk.0.ssm_dt.bias", "blk.0.ssm_in.bias");
  EXPECT_NE(error.find("biases of Mamba's products"), std::string::npos) << error;
}

TEST_F(NetworkHostile, MixedProjections) {
  Make("tiny-qwen3next");  // 4 value heads of 2 key heads, all of 32
  Refused("qwen3next.ssm.group_count", 3, "not a multiple");
  EXPECT_EQ(Renamed("blk.0.ssm_ba.weight", "blk.0.ssm_xx.weight"), "the file has no tensor 'blk.0.ssm_ba.weight'");
  EXPECT_EQ(Renamed("blk.0.attn_qkv.weight", "blk.0.attn_xxx.weight"), "the file has no tensor 'blk.0.attn_qkv.weight'");
  EXPECT_NE(Renamed("blk.0.ssm_ba.weight", "blk.0.ssm_in.weight").find("blk.0.ssm_in.weight"), std::string::npos);
}

TEST_F(NetworkHostile, SideBySide) {
  Make("tiny-falcon-h1");  // of 6 heads of state in 2 groups, 96 wide together, and 32 dimensions
  const std::string ssm = "falcon-h1.ssm.";
  for (const char* key : {"conv_kernel", "state_size", "group_count", "time_step_rank", "inner_size"}) {
    for (const uint32_t value : {uint32_t{0}, kMinusOne, uint32_t{1} << 30}) Refused(ssm + key, value, "ssm." + std::string(key));
  }
  Refused(ssm + "inner_size", 48, "blk.0.ssm_in.weight");
  for (const uint32_t value : {uint32_t{0}, uint32_t{3}, kMinusOne}) Refused("falcon-h1.attention.head_count_kv", value, "head_count_kv");
  const auto missing = [&](const std::string& name, const std::string& other) {
    EXPECT_EQ(Renamed(name, other), "the file has no tensor '" + name + "'");
  };
  missing("blk.1.attn_q.weight", "blk.1.attn_x.weight");
  missing("blk.1.ssm_out.weight", "blk.1.ssm_xxx.weight");
  EXPECT_NE(Renamed("blk.1.ffn_norm", "blk.1.fff_norm").find("blk.1.ffn_norm"), std::string::npos);
}

TEST_F(NetworkHostile, ChannelsWithStepsOfTheirOwn) {
  Make("tiny-jamba");  // 128 channels of 16 dimensions, steps of rank 4; block 2 attends
  const std::string ssm = "jamba.ssm.";
  for (const char* key : {"conv_kernel", "state_size", "time_step_rank", "inner_size"}) {
    for (const uint32_t value : {uint32_t{0}, kMinusOne, uint32_t{1} << 30}) Refused(ssm + key, value, "ssm." + std::string(key));
  }
  Refused(ssm + "conv_kernel", 1, "ssm.conv_kernel");
  Refused(ssm + "conv_kernel", 5, "blk.0.ssm_conv1d.weight");
  Refused(ssm + "inner_size", 120, "ssm.inner_size is no multiple of 16");
  Refused(ssm + "inner_size", 64, "blk.0.ssm_in.weight");
  Refused(ssm + "state_size", 15, "blk.0.ssm_x.weight");
  Refused(ssm + "time_step_rank", 5, "blk.0.ssm_x.weight");
  Refused("jamba.attention.head_count_kv", 2, "blk.0.attn_q.weight", 0);
  Refused("jamba.attention.head_count_kv", 0, "none attends", 2);
  for (const char* name : {"ssm_dt_norm.weight", "ssm_b_norm.weight", "ssm_c_norm.weight", "ssm_dt.weight", "ssm_dt.bias", "ssm_a",
                           "ssm_x.weight", "ssm_out.weight"}) {
    const std::string whole = std::string("blk.1.") + name, other = std::string("xlk.1.") + name;
    EXPECT_EQ(Renamed(whole, other), "the file has no tensor '" + whole + "'");
  }
  const std::string error = Renamed("blk.0.ssm_dt.bias", "blk.0.ssm_in.bias");
  EXPECT_NE(error.find("biases of Mamba's products"), std::string::npos) << error;
}

TEST_F(NetworkHostile, Sublayers) {
  Make("tiny-nemotron");  // Mamba, a network, Mamba, attention, a network
  const std::string inner = "nemotron_h.feed_forward_length", kv_heads = "nemotron_h.attention.head_count_kv";
  Refused(inner, 129, "differs between blocks that have one", 1);
  for (const uint32_t value : {kMinusOne, uint32_t{1} << 30}) Refused(inner, value, "feed_forward_length", 1);
  Refused(inner, 0, "blk.1.ssm_in.weight", 1);
  Refused(inner, 128, "blk.0.ffn_up.weight", 0);
  Refused(inner, 128, "both attention.head_count_kv and feed_forward_length", 3);
  Refused(kv_heads, 2, "both attention.head_count_kv and feed_forward_length", 1);
  Refused(kv_heads, 2, "blk.0.attn_q.weight", 0);
  Refused(kv_heads, 0, "none attends", 3);
  Refused("nemotron_h.block_count", 6, "array of 6");
  EXPECT_NE(Renamed("blk.0.ssm_d", "blk.0.xxx_d").find("blk.0.ssm_d"), std::string::npos);

  Make("tiny-nemotron-moe");
  EXPECT_NE(Renamed("nemotron_h_moe.ssm.conv_kernel", "nemotron_h_moe.moe_latent_size").find("moe_latent_size"), std::string::npos);
  Refused("nemotron_h_moe.expert_shared_feed_forward_length", 65, "blk.1.ffn_up_shexp.weight");
  EXPECT_EQ(Renamed("blk.1.ffn_up_exps.weight", "blk.1.ffn_xx_exps.weight"), "the file has no tensor 'blk.1.ffn_up_exps.weight'");
  EXPECT_NE(Renamed("blk.1.ffn_up_exps.weight", "blk.1.ffn_gate_exps.bias").find("experts without a gate"), std::string::npos);
}

// What only foretells is not run, and need not be there.
TEST_F(NetworkHostile, BlocksThatForetell) {
  Make("tiny-nemotron");
  Rewrite("nemotron_h.rope.dimension_count", "nemotron_h.nextn_predict_layers");
  Refused("nemotron_h.nextn_predict_layers", 5, "nextn_predict_layers");
  const auto number = [](char value) { return std::string("nemotron_h.nextn_predict_layers\4\0\0\0", 35) + std::string{value, 0, 0, 0}; };
  Rewrite(number(32), number(1));
  EXPECT_EQ(Renamed("blk.4.ffn_up.weight", "blk.4.ffn_xx.weight"), "");
  EXPECT_NE(Renamed("blk.3.attn_q.weight", "blk.3.attn_x.weight"), "");
}

TEST_F(NetworkHostile, ScalesBeyondReason) {
  Make("tiny-granite");
  for (const char* key : {"attention.scale", "embedding_scale", "residual_scale", "logit_scale"}) {
    for (const float value : {1e-6f, -1.0f, 1e6f}) {
      Refused(std::string("granitehybrid.") + key, std::bit_cast<uint32_t>(value), std::string(key) + " is out of the range");
    }
    Refused(std::string("granitehybrid.") + key, std::bit_cast<uint32_t>(INFINITY), key);
  }
}

TEST_F(NetworkHostile, Experts) {
  Make("tiny-qwen35moe");  // 8 experts, of which a row uses 3, 32 wide, and 64 wide what stands beside them
  const std::string key = "qwen35moe.expert_";
  Refused(key + "count", 0, "feed_forward_length");
  for (const uint32_t value : {uint32_t{2}, uint32_t{4097}, kMinusOne}) Refused(key + "count", value, "expert_");
  Refused(key + "count", 7, "blk.0.ffn_gate_inp.weight");
  Refused(key + "count", 9, "blk.0.ffn_gate_inp.weight");
  for (const uint32_t value : {uint32_t{0}, uint32_t{9}, kMinusOne}) Refused(key + "used_count", value, "expert_used_count");
  Refused(key + "feed_forward_length", 0, "neither expert_feed_forward_length nor feed_forward_length");
  for (const uint32_t value : {uint32_t{33}, uint32_t{1} << 22}) Refused(key + "feed_forward_length", value, "blk.0.ffn_gate_exps.weight");
  Refused(key + "feed_forward_length", kMinusOne, "expert_feed_forward_length");
  Refused(key + "shared_feed_forward_length", 65, "blk.0.ffn_gate_shexp.weight");
  const auto refused_as = [&](const std::string& tensor, const std::string& name, const std::string& words) {
    const std::string error = Renamed(tensor, name);
    EXPECT_NE(error.find(words), std::string::npos) << error;
  };
  refused_as("blk.0.ffn_up_exps.weight", "blk.0.ffn_xx_exps.weight", "no tensor 'blk.0.ffn_up_exps.weight'");
  refused_as("blk.0.ffn_gate_inp.weight", "blk.0.ffn_xxxx_inp.weight", "feed_forward_length is missing");
  refused_as("blk.1.attn_norm.weight", "blk.0.exp_probs_b.bias", "goes with sigmoids alone");
  refused_as("blk.1.ssm_conv1d.weight", "blk.0.ffn_gate_inp.bias", "tensor 'blk.0.ffn_gate_inp.bias'");
  refused_as("blk.1.attn_norm.weight", "blk.0.ffn_up_exps.bias", "tensor 'blk.0.ffn_up_exps.bias'");
  refused_as("blk.1.ffn_up_exps.weight", "blk.0.ffn_gate_exps.bias", "tensor 'blk.0.ffn_gate_exps.bias'");
  refused_as("blk.1.ffn_up_exps.weight", "blk.0.ffn_down_exps.bias", "tensor 'blk.0.ffn_down_exps.bias'");
  refused_as("blk.1.ffn_gate_shexp.weight", "blk.0.ffn_gate_up_exps.bias", "a bias of gates and ups in one tensor");
  refused_as("blk.1.ssm_conv1d.weight", "blk.0.ffn_up_shexp.bias", "biases of the feed-forward network");
  Make("tiny-lfm2moe");
  for (const uint32_t value : {uint32_t{4}, uint32_t{255}})
    Refused("lfm2moe.expert_gating_func", value, "neither softmax (1, 3) nor sigmoid (2)");
  Refused("lfm2moe.expert_gating_func", 1, "goes with sigmoids alone");
}

}  // namespace
}  // namespace reprise
