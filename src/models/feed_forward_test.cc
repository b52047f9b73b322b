// The forms in which a file may hold a feed-forward network.
#include "models/feed_forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>

#include "models/hidden_rig.h"
#include "models/loader.h"

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

std::vector<float> Hidden(const TestTensors& tensors, float scale = 0.0f, bool normed = true, uint32_t gating = 0) {
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
  if (!normed) out.Bool("llama.expert_weights_norm", false);
  if (gating != 0) number("expert_gating_func", gating);
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

// Probabilities among all experts are less than shares of those of the chosen, which a softmax over these alone gives in any case.
TEST(FeedForwardForms, WeightsOfExpertsMayBeProbabilities) {
  constexpr uint32_t kSoftmax = 1, kSoftmaxOfChosen = 3;
  const auto tensors = Tensors();
  const auto shares = Hidden(tensors);
  EXPECT_NE(Hidden(tensors, 0.0f, /*normed=*/false), shares);
  EXPECT_EQ(Hidden(tensors, 0.0f, /*normed=*/false, kSoftmax), Hidden(tensors, 0.0f, /*normed=*/false));
  EXPECT_EQ(Hidden(tensors, 0.0f, /*normed=*/false, kSoftmaxOfChosen), shares);
}

// ---- A network by itself, of a file of its tensors ----

constexpr int kRows = 3;
constexpr double kEps = 1e-5;

TestTensors WithBiases() {
  TestTensors tensors = Tensors();
  std::mt19937 random(6);
  AddRandom(tensors, random, "blk.0.ffn_gate_inp.bias", {kExperts});
  AddRandom(tensors, random, "blk.0.ffn_gate_exps.bias", {kInner, kExperts});
  AddRandom(tensors, random, "blk.0.ffn_up_exps.bias", {kInner, kExperts});
  AddRandom(tensors, random, "blk.0.ffn_down_exps.bias", {kWidth, kExperts});
  for (float& x : tensors.at("blk.0.ffn_up_exps.weight").values) x *= 6;  // so that some are clamped
  return tensors;
}

// What it makes of `residual`, in place; or why it does not.
Status Apply(const TestTensors& tensors, Activation activation, std::vector<float>& residual, bool dense = false) {
  const std::string path = testing::TempDir() + "reprise_feed_forward_test.gguf";
  GgufWriter out;
  const auto number = [&](const char* key, uint32_t value) { out.Number<uint32_t>(std::string("llama.") + key, value); };
  number("feed_forward_length", kInner);
  if (!dense) number("expert_count", kExperts);
  if (!dense) number("expert_used_count", 2);
  for (const auto& [name, tensor] : tensors) out.Tensor(name, TensorType::kF32, tensor.dims);
  auto stream = out.WriteTo(path);
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(stream->Append(std::as_bytes(std::span(tensor.values))).ok());
  EXPECT_TRUE(stream->Finish().ok());
  const auto file = *GgufFile::Open(path);
  std::filesystem::remove(path);
  const auto backend = *MakeCpuBackend({.threads = 2});
  StateLayout layout;
  const NetworkOptions options{.max_rows = kRows, .max_lanes = 1};
  Loader loader(file, *backend, layout, options, "llama");
  NetworkInfo info;
  FeedForwardShape shape = FeedForwardShape::Read(loader, kWidth, info);
  shape.activation = activation;
  FeedForward network;
  network.Load(loader, "blk.0.", "ffn_norm", shape);
  REPRISE_RETURN_IF_ERROR(loader.status());
  FeedForwardRows rows;
  rows.normed = loader.NewRows(kWidth);
  rows.gate = loader.NewRows(WidestInner(shape));
  rows.up = loader.NewRows(WidestInner(shape));
  rows.NewScores(loader, shape);
  const Rows stream_rows = loader.NewRows(kWidth);
  StepTable table(kRows, 1);
  const auto plan = backend->Capture(table, [&](Ops& ops) { network.Record(ops, rows, stream_rows, static_cast<float>(kEps)); });
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  if (!plan.ok()) return plan.status();
  table.rows = table.lane[0].rows = kRows;
  table.lanes = 1;
  for (size_t r = 0; r < kRows; ++r) table.row_position[r] = static_cast<int>(r);
  std::copy(residual.begin(), residual.end(), stream_rows.data);
  REPRISE_RETURN_IF_ERROR(backend->stream().Replay(**plan));
  residual.assign(stream_rows.data, stream_rows.data + residual.size());
  return Ok();
}

// The same in doubles, as the definition of gpt-oss has it: softmax over the scores of the chosen, and biases wherever there is a product.
std::vector<double> Defined(const TestTensors& tensors, Activation activation, const std::vector<float>& residual) {
  std::vector<double> out(residual.begin(), residual.end());
  const auto values = [&](const std::string& name) -> const std::vector<float>& { return tensors.at("blk.0." + name).values; };
  for (size_t row = 0; row < kRows; ++row) {
    std::vector<double> x(residual.begin() + static_cast<long>(row * kWidth), residual.begin() + static_cast<long>((row + 1) * kWidth));
    double squares = 0;
    for (const double v : x) squares += v * v;
    for (size_t i = 0; i < kWidth; ++i) x[i] *= values("ffn_norm.weight")[i] / std::sqrt(squares / kWidth + kEps);
    // Rows [first, first + count) of a matrix times `from`, and their biases.
    const auto product = [&](const std::string& name, const std::vector<double>& from, size_t first, size_t count) {
      std::vector<double> to(count);
      for (size_t o = 0; o < count; ++o) {
        to[o] = values(name + ".bias")[first + o];
        for (size_t i = 0; i < from.size(); ++i)
          to[o] += static_cast<double>(values(name + ".weight")[(first + o) * from.size() + i]) * from[i];
      }
      return to;
    };
    const std::vector<double> scores = product("ffn_gate_inp", x, 0, kExperts);
    std::vector<size_t> order(kExperts);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    const double sum = std::exp(scores[order[0]]) + std::exp(scores[order[1]]);
    for (const size_t e : {order[0], order[1]}) {
      const auto gate = product("ffn_gate_exps", x, e * kInner, kInner), up = product("ffn_up_exps", x, e * kInner, kInner);
      std::vector<double> hidden(kInner);
      for (size_t i = 0; i < kInner; ++i) {
        const bool clamped = activation == Activation::kClampedSwiGlu;
        const double g = clamped ? std::min(gate[i], 7.0) : gate[i], u = clamped ? std::clamp(up[i], -7.0, 7.0) + 1 : up[i];
        hidden[i] = u * g / (1 + std::exp(-(clamped ? 1.702 : 1.0) * g));
      }
      const auto made = product("ffn_down_exps", hidden, e * kWidth, kWidth);
      for (size_t o = 0; o < kWidth; ++o) out[row * kWidth + o] += std::exp(scores[e]) / sum * made[o];
    }
  }
  return out;
}

std::vector<float> Residual() {
  std::vector<float> residual(static_cast<size_t>(kRows) * kWidth);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (float& x : residual) x = normal(random);
  return residual;
}

TEST(FeedForward, HasTheBiasesOfTheFileAndTheActivationOfTheArchitecture) {
  const TestTensors tensors = WithBiases();
  std::vector<std::vector<float>> results;
  for (const Activation activation : {Activation::kSwiGlu, Activation::kClampedSwiGlu}) {
    const std::vector<double> wanted = Defined(tensors, activation, Residual());
    std::vector<float> got = Residual();
    const Status status = Apply(tensors, activation, got);
    ASSERT_TRUE(status.ok()) << status.message();
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 1e-4) << i;
    // Each of the four matters, and may be missing.
    for (const char* part : {"gate_inp", "gate_exps", "up_exps", "down_exps"}) {
      TestTensors fewer = tensors;
      ASSERT_EQ(fewer.erase(std::string("blk.0.ffn_") + part + ".bias"), 1u);
      std::vector<float> other = Residual();
      ASSERT_TRUE(Apply(fewer, activation, other).ok());
      EXPECT_NE(other, got) << part;
    }
    results.push_back(got);
  }
  EXPECT_NE(results[0], results[1]);
}

TEST(FeedForward, RefusesBiasesThatAreNotAsLongAsWhatTheyAreAddedTo) {
  const auto error = [](const std::string& name, const std::vector<uint64_t>& dims, Activation activation = Activation::kClampedSwiGlu) {
    TestTensors tensors = WithBiases();
    tensors["blk.0." + name] = {dims, std::vector<float>(std::accumulate(dims.begin(), dims.end(), size_t{1}, std::multiplies<>()))};
    std::vector<float> residual = Residual();
    return Apply(tensors, activation, residual).message();
  };
  for (const char* name : {"ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias"}) {
    const uint64_t own = std::string(name) == "ffn_down_exps.bias" ? kWidth : kInner;
    EXPECT_EQ(error(name, {own, kExperts}), "");
    for (const auto& dims : {std::vector<uint64_t>{own}, {own * kExperts}, {own, kExperts - 1}, {own + 1, kExperts}, {kExperts, own}}) {
      EXPECT_NE(error(name, dims).find(name), std::string::npos) << error(name, dims);
    }
  }
  for (const uint64_t size : {kExperts - 1, kExperts + 1}) {
    EXPECT_NE(error("ffn_gate_inp.bias", {size}).find("ffn_gate_inp.bias"), std::string::npos);
  }
  EXPECT_NE(error("ffn_gate_up_exps.bias", {2 * kInner, kExperts}).find("gates and ups in one tensor"), std::string::npos);
  EXPECT_NE(error("ffn_up.bias", {kInner}, Activation::kReluSquared).find("experts without a gate"), std::string::npos);
}

TEST(FeedForward, ADenseNetworkIsNotClamped) {
  TestTensors tensors = Tensors();
  std::mt19937 random(8);
  AddRandom(tensors, random, "blk.0.ffn_gate.weight", {kWidth, kInner});
  AddRandom(tensors, random, "blk.0.ffn_up.weight", {kWidth, kInner});
  AddRandom(tensors, random, "blk.0.ffn_down.weight", {kInner, kWidth});
  std::vector<float> residual = Residual();
  EXPECT_TRUE(Apply(tensors, Activation::kSwiGlu, residual, /*dense=*/true).ok());
  EXPECT_NE(Apply(tensors, Activation::kClampedSwiGlu, residual, /*dense=*/true).message().find("of experts alone"), std::string::npos);
}

}  // namespace
}  // namespace reprise
