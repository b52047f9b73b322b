#include "formats/quantize.h"

#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "formats/gguf.h"
#include "formats/mxfp4.h"

namespace reprise {
namespace {

std::string Lowercase(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(c));
  return lower;
}

std::vector<float> Floats(const GgufTensor& tensor) {
  std::vector<float> values(tensor.elements());
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

// Bit equality with the conversions of another implementation: see tools/goldens/quants.py.
TEST(Quantize, AgreesWithTheGoldensToTheBit) {
  const auto file = GgufFile::Open("tests/data/goldens/quants.gguf");
  ASSERT_TRUE(file.ok()) << file.status().message();
  int dequantized = 0, quantized = 0;
  for (const TensorTypeTraits& t : TensorTypes()) {
    const std::string name = Lowercase(t.name);
    const GgufTensor* blocks = file->Find(name + ".blocks");
    if (blocks == nullptr) continue;
    ++dequantized;
    const std::vector<float> expected = Floats(*file->Find(name + ".values"));
    std::vector<float> values(expected.size());
    ASSERT_TRUE(DequantizeRow(t.type, blocks->data, values).ok()) << name;
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], expected[i]) << name << " element " << i;
    if (!CanQuantize(t.type)) continue;
    ++quantized;
    const GgufTensor* goldens = file->Find(name + ".quantized");
    ASSERT_NE(goldens, nullptr) << name;
    std::vector<std::byte> made(goldens->data.size());
    ASSERT_TRUE(QuantizeRow(t.type, Floats(*file->Find(name + ".input")), made).ok()) << name;
    for (size_t i = 0; i < made.size(); ++i) ASSERT_EQ(made[i], goldens->data[i]) << name << " byte " << i;
  }
  EXPECT_EQ(dequantized, 11);
  EXPECT_EQ(quantized, 6);
}

// What was dequantised quantises to values that mean the same, for the types whose scale survives the way back.
TEST(Quantize, IsCloseToWhatItWasGiven) {
  std::vector<float> row(64), back(64);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(static_cast<int>(i * 37 % 64) - 32) / 32;
  for (const auto& [type, error] : std::vector<std::pair<TensorType, float>>{{TensorType::kF32, 0},
                                                                             {TensorType::kF16, 0x1p-11f},
                                                                             {TensorType::kBF16, 0x1p-8f},
                                                                             {TensorType::kQ8_0, 0.005f},
                                                                             {TensorType::kQ4_0, 0.13f},
                                                                             {TensorType::kQ4_1, 0.07f},
                                                                             {TensorType::kMXFP4, 0.25f}}) {
    std::vector<std::byte> blocks(*TensorBytes(type, row.size(), 1));
    ASSERT_TRUE(QuantizeRow(type, row, blocks).ok());
    ASSERT_TRUE(DequantizeRow(type, blocks, back).ok());
    for (size_t i = 0; i < row.size(); ++i) EXPECT_NEAR(back[i], row[i], error) << TensorTypeName(type);
  }
}

TEST(Quantize, RefusesWhatABlockCannotHold) {
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1}) {
    std::vector<std::byte> blocks(*TensorBytes(type, 64, 1));
    for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
      for (const size_t at : {32u, 40u, 63u}) {
        std::vector<float> row(64, 1.0f);
        row[at] = bad;
        const Status error = QuantizeRow(type, row, blocks);
        EXPECT_EQ(error.code(), StatusCode::kInvalidArgument) << TensorTypeName(type) << bad;
        EXPECT_NE(error.message().find("elements 32 to 63"), std::string::npos) << error.message();
      }
    }
    std::vector<float> tiny(64, std::numeric_limits<float>::denorm_min()), back(64);
    ASSERT_TRUE(QuantizeRow(type, tiny, blocks).ok());
    ASSERT_TRUE(DequantizeRow(type, blocks, back).ok());
    EXPECT_EQ(back, std::vector<float>(64, 0.0f));
  }
}

// A scale of every exponent byte is the power of two it says, and no value of a block is a NaN.
TEST(Quantize, Mxfp4HasAllPowersOfTwo) {
  for (int e = 0; e < 256; ++e) EXPECT_EQ(static_cast<double>(HalfScale(static_cast<uint8_t>(e))), std::ldexp(1.0, e - 128)) << e;
  std::vector<std::byte> block(17);
  for (size_t i = 0; i < 16; ++i) block[1 + i] = static_cast<std::byte>(i | (15 - i) << 4);
  constexpr double kMagnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (const int e : {0, 1, 2, 127, 254, 255}) {
    block[0] = static_cast<std::byte>(e);
    std::vector<float> values(32);
    ASSERT_TRUE(DequantizeRow(TensorType::kMXFP4, block, values).ok());
    for (size_t i = 0; i < 32; ++i) {
      const size_t code = i < 16 ? i : 31 - i;
      const double exact = std::ldexp(code < 8 ? kMagnitudes[code] : -kMagnitudes[code - 8], e - 127);
      EXPECT_EQ(values[i], static_cast<float>(exact)) << "exponent " << e << ", code " << code;
    }
  }
}

TEST(Quantize, Mxfp4TakesTheNearestOfItsValues) {
  const auto there_and_back = [](const std::vector<float>& row) {
    std::vector<std::byte> block(17);
    std::vector<float> back(32);
    EXPECT_TRUE(QuantizeRow(TensorType::kMXFP4, row, block).ok());
    EXPECT_TRUE(DequantizeRow(TensorType::kMXFP4, block, back).ok());
    return back;
  };
  std::vector<float> row(32);
  for (size_t i = 0; i < 16; ++i) {
    row[i] = static_cast<float>(i) / 2;
    row[31 - i] = -row[i];
  }
  const std::vector<float> whole = there_and_back(row);  // the greatest is 7.5, beyond what the block holds
  const float wanted[] = {0, 0.5f, 1, 1.5f, 2, 2, 3, 3, 4, 4, 4, 6, 6, 6, 6, 6};
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(whole[i], wanted[i]) << row[i];
    EXPECT_EQ(whole[31 - i], -wanted[i]) << row[31 - i];
  }
  for (const float top : {0x1p-149f, 0x1p-140f, 0x1p-126f, 1.0f, 0x1p125f, 0x1p127f}) {  // with less than 2^-129 all is zero
    std::vector<float> scaled(32, 0.0f);
    scaled[3] = top;
    scaled[4] = -top;
    const std::vector<float> back = there_and_back(scaled);
    EXPECT_EQ(back[3], top < 0x1p-128f ? 0.0f : top);
    EXPECT_EQ(back[4], top < 0x1p-128f ? 0.0f : -top);
    EXPECT_EQ(back[5], 0.0f);
  }
  std::vector<float> broken(32, 1.0f);
  std::vector<std::byte> block(17);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    broken[17] = bad;
    EXPECT_EQ(QuantizeRow(TensorType::kMXFP4, broken, block).code(), StatusCode::kInvalidArgument);
  }
}

TEST(Quantize, RefusesSizesThatDisagreeAndTypesItDoesNotKnow) {
  std::vector<float> row(64);
  std::vector<std::byte> blocks(68);
  EXPECT_TRUE(DequantizeRow(TensorType::kQ8_0, blocks, row).ok());
  EXPECT_EQ(DequantizeRow(TensorType::kQ8_0, std::span(blocks).first(67), row).message(),
            "64 elements and 67 bytes are not one row of Q8_0");
  EXPECT_EQ(QuantizeRow(TensorType::kQ8_0, std::span(row).first(63), blocks).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(DequantizeRow(TensorType::kIQ1_S, blocks, row).code(), StatusCode::kUnsupported);
  EXPECT_EQ(QuantizeRow(TensorType::kQ6_K, row, blocks).code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace reprise
