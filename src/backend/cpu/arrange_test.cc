// What becomes of the inputs of products with quantised weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "backend/cpu/cpu_rig.h"
#include "backend/cpu/kernels.h"
#include "base/half.h"
#include "formats/quantize.h"

namespace reprise {
namespace {

// A product with a matrix that has nothing but a 1 for each input gives back what became of the input.
Floats1d AsQuantised(const Floats1d& in, int rows, const std::string& isa) {
  const int inputs = static_cast<int>(in.size()) / rows;
  std::vector<std::byte> bytes(*TensorBytes(TensorType::kQ8_0, static_cast<uint64_t>(inputs), static_cast<uint64_t>(inputs)));
  const uint16_t one = FloatToHalf(1.0f);
  for (size_t block = 0; block < bytes.size(); block += 34) std::memcpy(bytes.data() + block, &one, 2);
  for (int i = 0; i < inputs; ++i)
    bytes[static_cast<size_t>(i * (inputs / 32) + i / 32) * 34 + 2 + static_cast<size_t>(i % 32)] = std::byte{1};
  Job job;
  job.in = job.out = inputs;
  job.lane_rows = {rows};
  job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
    const Product product{*backend.LoadMatrix({"ones", TensorType::kQ8_0, inputs, inputs, bytes}), out};
    ops.MatMul(x, {&product, 1});
  };
  return RunJob(job, in, OneStep(job.lane_rows), {.threads = 1, .isa = isa}).out[0];
}

class Quantising : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Of, Quantising, testing::ValuesIn(CpuInstructionSets()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// Blocks of every magnitude beside a greater one: each is as near as a step allows, which is a quarter more than its own scale would be off,
// and a fifth of the span's scale where it is further below. The greatest of a block comes back, so no quant is beyond 127.
TEST_P(Quantising, EachBlockIsTakenByItsOwnMagnitude) {
  constexpr int kRows = 100, kInputs = 2 * kSpanInputs + 3 * kQuantBlock;
  Floats1d in = RandomFloats(kRows * kInputs, 3);
  std::mt19937 random(4);
  std::uniform_real_distribution<float> powers(-5.0f, 0.0f);
  for (size_t b = 0; b < in.size() / kQuantBlock; ++b) {
    const float times = std::exp2(powers(random));
    for (size_t i = 0; i < kQuantBlock; ++i) in[b * kQuantBlock + i] *= times;
  }
  const Floats1d out = AsQuantised(in, kRows, GetParam());
  const auto top = [&](int row, int from, int end) {
    float most = 0;
    for (int k = from; k < end; ++k) most = std::max(most, std::abs(in[static_cast<size_t>(row * kInputs + k)]));
    return most;
  };
  for (int row = 0; row < kRows; ++row) {
    for (int b = 0; b < kInputs; b += kQuantBlock) {
      const int span = b / kSpanInputs * kSpanInputs;
      const float reach = std::max(top(row, b, b + kQuantBlock) * 1.26f, top(row, span, std::min(span + kSpanInputs, kInputs)) * 0.1985f);
      for (int i = 0; i < kQuantBlock; ++i) {
        const auto at = static_cast<size_t>(row * kInputs + b + i);
        ASSERT_LE(std::abs(out[at] - in[at]), reach / 127 / 2 * 1.001f) << "row " << row << ", input " << b + i;
      }
    }
  }
}

TEST_P(Quantising, Extremes) {
  Floats1d in = RandomFloats(4 * kSpanInputs, 5);
  const auto row = [&](Floats1d& x, int r) { return std::span(x).subspan(static_cast<size_t>(r * kSpanInputs), kSpanInputs); };
  std::fill_n(row(in, 0).begin() + 64, kQuantBlock, 0.0f);                     // a block of nothing in a live span
  row(in, 1)[40] = -3e38f;                                                     // an outlier
  for (float& x : row(in, 2)) x *= 1e-40f;                                     // denormals alone
  for (int i = 0; i < 128; ++i) row(in, 3)[static_cast<size_t>(i)] *= 1e-40f;  // and beside others
  Floats1d out = AsQuantised(in, 4, GetParam());
  for (int i = 0; i < kSpanInputs; ++i) {
    const auto at = static_cast<size_t>(i);
    if (i / kQuantBlock == 2) {
      EXPECT_EQ(row(out, 0)[at], 0.0f);
    } else {
      EXPECT_NEAR(row(out, 0)[at], row(in, 0)[at], 0.03f);
    }
    if (i == 40) {
      EXPECT_NEAR(row(out, 1)[at] / row(in, 1)[at], 1.0f, 1e-6f);
    } else {
      EXPECT_EQ(row(out, 1)[at], 0.0f);
    }
    EXPECT_EQ(row(out, 2)[at], 0.0f);
    if (i < 128) {
      EXPECT_EQ(row(out, 3)[at], 0.0f);
    } else {
      EXPECT_NEAR(row(out, 3)[at], row(in, 3)[at], 0.03f);
    }
  }
}

}  // namespace
}  // namespace reprise
