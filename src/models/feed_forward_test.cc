// The forms in which a file may hold a feed-forward network.
#include <cstring>

#include "models/hidden_rig.h"

namespace reprise {
namespace {

constexpr int kWidth = 32, kInner = 48, kExperts = 4, kVocabulary = 64;

// The tensors of a llama of one block whose network is a mixture of experts.
TestTensors Tensors() {
  TestTensors tensors;
  std::mt19937 random(5);
  const auto add = [&](const std::string& name, std::vector<uint64_t> dims) { AddRandom(tensors, random, name, std::move(dims)); };
  add("token_embd.weight", {kWidth, kVocabulary});
  add("output_norm.weight", {kWidth});
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) add(std::string("blk.0.") + name + ".weight", {kWidth, kWidth});
  for (const char* name : {"attn_norm", "ffn_norm"}) add(std::string("blk.0.") + name + ".weight", {kWidth});
  add("blk.0.ffn_gate_inp.weight", {kWidth, kExperts});
  add("blk.0.ffn_gate_exps.weight", {kWidth, kInner, kExperts});
  add("blk.0.ffn_up_exps.weight", {kWidth, kInner, kExperts});
  add("blk.0.ffn_down_exps.weight", {kInner, kWidth, kExperts});
  return tensors;
}

std::vector<float> Hidden(const TestTensors& tensors, float scale = 0.0f) {
  GgufWriter out;
  out.String("general.architecture", "llama");
  const auto number = [&](const char* key, uint32_t value) { out.Number<uint32_t>(std::string("llama.") + key, value); };
  number("block_count", 1);
  number("embedding_length", kWidth);
  number("feed_forward_length", kInner);
  number("attention.head_count", 2);
  number("expert_count", kExperts);
  number("expert_used_count", 2);
  if (scale != 0.0f) out.Number<float>("llama.expert_weights_scale", scale);
  NetworkInfo info;
  const auto hidden = HiddenRows(std::move(out), tensors, &info);
  EXPECT_EQ(info.experts, kExperts);
  EXPECT_EQ(info.experts_used, 2);
  return hidden;
}

TEST(FeedForwardForms, GatesAndUpsOfExpertsMayShareATensor) {
  const auto apart = Tensors();
  auto together = apart;
  const std::string gate = "blk.0.ffn_gate_exps.weight", up = "blk.0.ffn_up_exps.weight";
  TestTensor& both = together["blk.0.ffn_gate_up_exps.weight"];
  both.dims = {kWidth, 2 * kInner, kExperts};
  constexpr long kOne = long{kWidth} * kInner;
  for (long e = 0; e < kExperts; ++e) {
    for (const std::string& part : {gate, up}) {
      const auto from = apart.at(part).values.begin() + e * kOne;
      both.values.insert(both.values.end(), from, from + kOne);
    }
  }
  together.erase(gate);
  together.erase(up);
  const auto expected = Hidden(apart), got = Hidden(together);
  ASSERT_EQ(got.size(), expected.size());
  EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0);
}

// The same experts with weights twice as large make another result than once; with results half as large in turn, the same.
TEST(FeedForwardForms, WeightsOfExpertsMayBeScaled) {
  auto tensors = Tensors();
  const auto once = Hidden(tensors);
  EXPECT_NE(Hidden(tensors, 2.0f), once);
  for (float& value : tensors["blk.0.ffn_down_exps.weight"].values) value /= 2;
  EXPECT_EQ(Hidden(tensors, 2.0f), once);
}

}  // namespace
}  // namespace reprise
