// The forms in which a file may hold a block of Qwen3-Next's delta net.
#include <algorithm>
#include <cstring>

#include "models/hidden_rig.h"

namespace reprise {
namespace {

constexpr int kWidth = 32, kVocabulary = 64, kKeyHeads = 2, kShared = 3, kDim = 16, kValueHeads = kKeyHeads * kShared;
constexpr int kKeys = kKeyHeads * kDim, kValues = kValueHeads * kDim, kChannels = 2 * kKeys + kValues;

TestTensors Tensors() {
  TestTensors tensors;
  std::mt19937 random(5);
  const auto add = [&](const std::string& name, std::vector<uint64_t> dims) { AddRandom(tensors, random, name, std::move(dims)); };
  add("token_embd.weight", {kWidth, kVocabulary});
  add("output_norm.weight", {kWidth});
  for (const char* name : {"attn_norm", "post_attention_norm"}) add(std::string("blk.0.") + name + ".weight", {kWidth});
  add("blk.0.attn_qkv.weight", {kWidth, kChannels});
  add("blk.0.attn_gate.weight", {kWidth, kValues});
  add("blk.0.ssm_ba.weight", {kWidth, 2 * kValueHeads});
  add("blk.0.ssm_a", {kValueHeads});
  for (float& a : tensors["blk.0.ssm_a"].values) a = -std::abs(a);
  add("blk.0.ssm_dt.bias", {kValueHeads});
  add("blk.0.ssm_conv1d.weight", {4, kChannels});
  add("blk.0.ssm_norm.weight", {kDim});
  add("blk.0.ssm_out.weight", {kValues, kWidth});
  add("blk.0.ffn_gate.weight", {kWidth, 48});
  add("blk.0.ffn_up.weight", {kWidth, 48});
  add("blk.0.ffn_down.weight", {48, kWidth});
  return tensors;
}

std::vector<float> Hidden(const TestTensors& tensors) {
  GgufWriter out;
  out.String("general.architecture", "qwen3next");
  const auto number = [&](const char* key, uint32_t value) { out.Number<uint32_t>(std::string("qwen3next.") + key, value); };
  number("block_count", 1);
  number("embedding_length", kWidth);
  number("feed_forward_length", 48);
  number("attention.head_count", 2);
  number("attention.head_count_kv", 1);
  number("attention.key_length", 16);
  number("rope.dimension_count", 4);
  number("ssm.conv_kernel", 4);
  number("ssm.state_size", kDim);
  number("ssm.group_count", kKeyHeads);
  number("ssm.time_step_rank", kValueHeads);
  number("ssm.inner_size", kValues);
  return HiddenRows(std::move(out), tensors);
}

TEST(DeltaNetForms, QueriesKeysValuesAndGatesMayShareATensorKeyHeadByKeyHead) {
  const TestTensors apart = Tensors();
  TestTensors together = apart;
  TestTensor& mixed = together["blk.0.ssm_in.weight"];
  mixed.dims = {kWidth, kChannels + kValues};
  const auto take = [&](const char* name, int first, int rows) {
    const auto from = apart.at(name).values.begin() + first * kWidth;
    mixed.values.insert(mixed.values.end(), from, from + rows * kWidth);
  };
  for (int head = 0; head < kKeyHeads; ++head) {
    take("blk.0.attn_qkv.weight", head * kDim, kDim);
    take("blk.0.attn_qkv.weight", kKeys + head * kDim, kDim);
    take("blk.0.attn_qkv.weight", 2 * kKeys + head * kShared * kDim, kShared * kDim);
    take("blk.0.attn_gate.weight", head * kShared * kDim, kShared * kDim);
  }
  together.erase("blk.0.attn_qkv.weight");
  together.erase("blk.0.attn_gate.weight");
  const auto expected = Hidden(apart), got = Hidden(together);
  ASSERT_EQ(got.size(), expected.size());
  EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace reprise
