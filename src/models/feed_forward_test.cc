// The forms in which a file may hold a feed-forward network.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "exec/step_table.h"
#include "formats/gguf_writer.h"
#include "models/network.h"

namespace reprise {
namespace {

constexpr int kWidth = 32, kInner = 48, kExperts = 4, kVocabulary = 64;

struct Tensor {
  std::vector<uint64_t> dims;
  std::vector<float> values;
};

// The tensors of a llama of one block whose network is a mixture of experts.
std::map<std::string, Tensor> Tensors() {
  std::map<std::string, Tensor> tensors;
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 0.3f);
  const auto add = [&](const std::string& name, std::vector<uint64_t> dims) {
    size_t elements = 1;
    for (const uint64_t dim : dims) elements *= dim;
    Tensor& tensor = tensors[name];
    tensor.dims = std::move(dims);
    for (size_t i = 0; i < elements; ++i) tensor.values.push_back(normal(random));
  };
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

class FeedForwardForms : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  // The hidden rows of a few tokens.
  std::vector<float> Hidden(const std::map<std::string, Tensor>& tensors, float scale = 0.0f) {
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
    for (const auto& [name, tensor] : tensors) out.Tensor(name, TensorType::kF32, tensor.dims);
    auto stream = out.WriteTo(path_);
    EXPECT_TRUE(stream.ok()) << stream.status().message();
    for (const auto& [name, tensor] : tensors) EXPECT_TRUE(stream->Append(std::as_bytes(std::span(tensor.values))).ok());
    EXPECT_TRUE(stream->Finish().ok());

    constexpr int kRows = 9;
    const auto file = *GgufFile::Open(path_);
    const auto backend = *MakeCpuBackend({.threads = 2});
    StateLayout layout;
    const auto network = Network::Load(file, *backend, layout, {.max_rows = kRows, .max_lanes = 1, .kv_type = ElementType::kF32});
    EXPECT_TRUE(network.ok()) << network.status().message();
    if (!network.ok()) return {};
    EXPECT_EQ((*network)->info().experts, kExperts);
    EXPECT_EQ((*network)->info().experts_used, 2);
    EXPECT_EQ((*network)->info().parameters, Elements(tensors));
    StepTable table(kRows, 1);
    const auto plan = *backend->Capture(table, [&](Ops& ops) { (*network)->RecordBody(ops, Body::kWhole); });
    std::byte* const read = *backend->Allocate(layout.block_bytes(Space::kDevice), "read");
    std::byte* const write = *backend->Allocate(layout.block_bytes(Space::kDevice), "write");
    std::byte* extent = *backend->Allocate(layout.extent_bytes(Space::kDevice), "extent");
    table.rows = kRows;
    table.lanes = 1;
    table.lane[0] = {read, write, &extent, 0, kRows, 0};
    for (int r = 0; r < kRows; ++r) {
      table.row_lane[static_cast<size_t>(r)] = 0;
      table.row_position[static_cast<size_t>(r)] = r;
      table.token[static_cast<size_t>(r)] = r * 7 % kVocabulary;
    }
    EXPECT_TRUE(backend->stream().Replay(*plan).ok());
    const float* const hidden = (*network)->hidden().data;
    return {hidden, hidden + kRows * kWidth};
  }

  static uint64_t Elements(const std::map<std::string, Tensor>& tensors) {
    uint64_t elements = 0;
    for (const auto& [name, tensor] : tensors) elements += tensor.values.size();
    return elements;
  }

  const std::string path_ = testing::TempDir() + "reprise_feed_forward_test.gguf";
};

TEST_F(FeedForwardForms, GatesAndUpsOfExpertsMayShareATensor) {
  const auto apart = Tensors();
  auto together = apart;
  const std::string gate = "blk.0.ffn_gate_exps.weight", up = "blk.0.ffn_up_exps.weight";
  Tensor& both = together["blk.0.ffn_gate_up_exps.weight"];
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
TEST_F(FeedForwardForms, WeightsOfExpertsMayBeScaled) {
  auto tensors = Tensors();
  const auto once = Hidden(tensors);
  EXPECT_NE(Hidden(tensors, 2.0f), once);
  for (float& value : tensors["blk.0.ffn_down_exps.weight"].values) value /= 2;
  EXPECT_EQ(Hidden(tensors, 2.0f), once);
}

}  // namespace
}  // namespace reprise
