#include "models/synth.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <vector>

#include "formats/gguf.h"
#include "formats/quantize.h"
#include "models/random_blocks.h"

namespace reprise {
namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ8_0,
                                 TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kMXFP4};

class SynthTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_ = testing::TempDir() + "reprise_synth_test.gguf";
};

uint64_t Fnv1a(std::span<const std::byte> bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<uint64_t>(byte)) * 0x100000001b3;
  return hash;
}

TEST_F(SynthTest, TinyModelsOfEveryTypeAreSoundFiles) {
  for (const std::string shape : {"tiny", "tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-lfm2", "tiny-granite", "tiny-qwen35moe",
                                  "tiny-qwen3moe", "tiny-lfm2moe", "tiny-granite-moe", "tiny-qwen3next", "tiny-falcon-h1", "tiny-nemotron",
                                  "tiny-nemotron-moe", "tiny-gemma3", "tiny-gemma4", "tiny-jamba"}) {
    for (const TensorType type : kTypes) {
      const SynthOptions options{shape, type, /*mtp=*/shape == "tiny" || shape == "tiny-qwen35moe" || shape == "tiny-qwen3next"};
      ASSERT_TRUE(Synthesize(options, path_).ok());
      const auto file = GgufFile::Open(path_);
      ASSERT_TRUE(file.ok()) << file.status().message();
      EXPECT_EQ(file->bytes().size(), *SynthesizedBytes(options));
      EXPECT_EQ(file->Find("token_embd.weight")->type, type);
      EXPECT_EQ(file->Find(shape.starts_with("tiny-lfm2") ? "token_embd_norm.weight" : "output_norm.weight")->type, TensorType::kF32);
      EXPECT_EQ(file->Find("output.weight"), nullptr);
      if (const GgufTensor* router = file->Find("blk.1.ffn_gate_inp.weight")) {
        EXPECT_EQ(router->type, TensorType::kF32);
      }
      EXPECT_EQ(file->GetStrings("tokenizer.ggml.tokens")->size(), 512u);
      EXPECT_EQ(file->Find("blk.4.nextn.eh_proj.weight") != nullptr, options.mtp);
      for (const GgufTensor& tensor : file->tensors()) {
        std::vector<float> values(tensor.elements());
        ASSERT_TRUE(DequantizeRow(tensor.type, tensor.data, values).ok());
        for (const float value : values) ASSERT_TRUE(std::isfinite(value)) << tensor.name;
        if (tensor.name.ends_with("ssm_a")) {
          for (const float value : values) EXPECT_LT(value, 0) << tensor.name;
        }
      }
    }
  }
}

TEST_F(SynthTest, TheMixtureOfSixAndFourBitsIsThatOfTheField) {
  ASSERT_TRUE(Synthesize({"qwen3.5-0.1b", TensorType::kQ4_K}, path_).ok());
  const auto file = GgufFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->Find("token_embd.weight")->type, TensorType::kQ6_K);  // tied: it is the output matrix too
  EXPECT_EQ(file->Find("blk.0.ffn_down.weight")->type, TensorType::kQ6_K);
  EXPECT_EQ(file->Find("blk.0.ffn_up.weight")->type, TensorType::kQ4_K);
  int six = 0, four = 0;
  for (const GgufTensor& tensor : file->tensors()) {
    if (!tensor.name.ends_with("ffn_down.weight")) continue;
    six += tensor.type == TensorType::kQ6_K;
    four += tensor.type == TensorType::kQ4_K;
  }
  EXPECT_GT(six, 0);
  EXPECT_GT(four, six / 2);
}

// The same bytes on every machine, so that timings and failures can be spoken of by shape and seed.
TEST_F(SynthTest, TheSameSeedGivesTheSameBytes) {
  const auto digest = [&](std::string shape, TensorType type, uint64_t seed) {
    EXPECT_TRUE(Synthesize({std::move(shape), type, false, seed}, path_).ok());
    return Fnv1a(GgufFile::Open(path_)->bytes());
  };
  EXPECT_EQ(digest("tiny", TensorType::kQ8_0, 1), 11653414839250867907u);
  EXPECT_EQ(digest("tiny-llama", TensorType::kF32, 1), 930892878842242901u);
  EXPECT_NE(digest("tiny", TensorType::kQ8_0, 2), digest("tiny", TensorType::kQ8_0, 1));
}

TEST_F(SynthTest, FullShapesHaveTheirPublishedSizes) {
  const auto megabytes = [](std::string shape, TensorType type, bool mtp = false) {
    const auto bytes = SynthesizedBytes({std::move(shape), type, mtp});
    EXPECT_TRUE(bytes.ok()) << bytes.status().message();
    return static_cast<double>(*bytes) * 1e-6;
  };
  EXPECT_NEAR(megabytes("qwen3.5-0.8b", TensorType::kQ8_0), 806, 4);
  EXPECT_NEAR(megabytes("smollm2-135m", TensorType::kQ4_1), 85, 1);
  EXPECT_NEAR(megabytes("smollm2-135m", TensorType::kBF16), 269 + 1.5, 2);
  EXPECT_NEAR(megabytes("llama-3.2-1b", TensorType::kBF16), 2472, 10);
  EXPECT_NEAR(megabytes("llama-3.1-8b", TensorType::kBF16), 16060, 20);
  EXPECT_NEAR(megabytes("qwen3.5-0.1b", TensorType::kF32), 4 * 115, 20);
  EXPECT_NEAR(megabytes("qwen2.5-0.5b", TensorType::kBF16), 2 * 494 + 3, 4);
  EXPECT_NEAR(megabytes("qwen3-0.6b", TensorType::kBF16), 2 * 596 + 3, 4);
  EXPECT_NEAR(megabytes("lfm2-350m", TensorType::kBF16), 2 * 354.5 + 2, 3);
  EXPECT_NEAR(megabytes("lfm2-1.2b", TensorType::kBF16), 2 * 1170.3 + 2, 4);
  EXPECT_NEAR(megabytes("granite-4.0-h-350m", TensorType::kBF16), 2 * 340.3 + 4, 4);
  EXPECT_NEAR(megabytes("granite-4.0-h-1b", TensorType::kBF16), 2 * 1462 + 5, 8);
  EXPECT_NEAR(megabytes("jamba-reasoning-3b", TensorType::kBF16), 2 * 3030, 80);
  // 8.3, 6.9, 30.5 and 34.7 billion parameters.
  EXPECT_NEAR(megabytes("lfm2-8b-a1b", TensorType::kBF16), 2 * 8340, 30);
  EXPECT_NEAR(megabytes("granite-4.0-h-tiny", TensorType::kBF16), 2 * 6939, 30);
  EXPECT_NEAR(megabytes("qwen3-30b-a3b", TensorType::kBF16), 2 * 30532, 80);
  EXPECT_NEAR(megabytes("qwen3.5-35b-a3b", TensorType::kBF16), 2 * 34661, 150);
  EXPECT_GT(megabytes("qwen3.5-0.8b", TensorType::kQ8_0, true), 820);
  EXPECT_NEAR(megabytes("qwen3.5-0.8b", TensorType::kQ4_K), 530, 25);
  for (const SynthShape& shape : SynthShapes()) EXPECT_GT(megabytes(std::string(shape.name), TensorType::kQ4_0), 0) << shape.name;
}

TEST_F(SynthTest, MistakesAndCancellationLeaveNoFile) {
  EXPECT_NE(Synthesize({"qwen"}, path_).message().find("there is no shape 'qwen'; there are tiny, qwen3.5-0.1b, "), std::string::npos);
  EXPECT_EQ(Synthesize({"tiny", TensorType::kQ6_K}, path_).code(), StatusCode::kInvalidArgument);
  EXPECT_NE(Synthesize({"tiny-llama", TensorType::kF32, true}, path_).message().find("no multi-token-prediction block"), std::string::npos);
  uint64_t last = 0, expected = *SynthesizedBytes({"tiny"});
  const Status status = Synthesize({"tiny"}, path_, [&](uint64_t written, uint64_t total) {
    EXPECT_GT(written, last);
    EXPECT_EQ(total, expected);
    last = written;
    return written < total / 2;
  });
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST(RandomBlocks, HaveTheDeviationAskedFor) {
  std::vector<TensorType> types(std::begin(kTypes), std::end(kTypes));
  types.insert(types.end(), {TensorType::kQ4_K, TensorType::kQ6_K});
  for (const TensorType type : types) {
    std::vector<float> values(1 << 18);
    std::vector<std::byte> blocks(*TensorBytes(type, values.size(), 1));
    RandomBits random(3);
    FillRandomly(type, 0.05f, random, blocks);
    ASSERT_TRUE(DequantizeRow(type, blocks, values).ok());
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
    double square = 0;
    for (const float value : values) square += static_cast<double>(value) * value;
    EXPECT_NEAR(mean, 0, 0.001) << TensorTypeName(type);
    EXPECT_NEAR(std::sqrt(square / static_cast<double>(values.size())), 0.05, 0.002) << TensorTypeName(type);
    if (type == TensorType::kQ8_0) {
      for (size_t at = 0; at < blocks.size(); ++at) EXPECT_TRUE(at % 34 < 2 || blocks[at] != std::byte{0x80});
    }
  }
}

}  // namespace
}  // namespace reprise
