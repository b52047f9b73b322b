// Matrix products and embeddings of every weight type.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "backend/cpu/cpu_rig.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/weight_rig.h"
#include "base/checked.h"
#include "base/half.h"
#include "formats/quantize.h"

namespace reprise {
namespace {

constexpr TensorType kAllTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ8_0,
                                    TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1,
                                    TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K, TensorType::kMXFP4};

class EveryType : public testing::TestWithParam<TensorType> {};
INSTANTIATE_TEST_SUITE_P(Weights, EveryType, testing::ValuesIn(kAllTypes),
                         [](const auto& info) { return std::string(TensorTypeName(info.param)); });

TEST_P(EveryType, EmbedIsTheReferenceDequantisationScaled) {
  constexpr int kInputs = 512, kOutputs = 37;
  const auto bytes = RandomWeight(GetParam(), kInputs, kOutputs, 5);
  constexpr float kScale = 12.3f;
  Floats1d wanted(kInputs * kOutputs);
  ASSERT_TRUE(DequantizeRow(GetParam(), bytes, wanted).ok());
  for (float& x : wanted) x *= kScale;
  Job job;
  job.out = kInputs;
  job.lane_rows = {kOutputs};
  for (int i = 0; i < kOutputs; ++i) job.tokens.push_back((i * 11) % kOutputs);
  for (const bool as_table : {false, true}) {
    job.record = [&](Backend& backend, Ops& ops, Rows, Rows out) {
      const WeightSource source{"embed", GetParam(), kInputs, kOutputs, bytes};
      const auto matrix = as_table ? backend.LoadTable(source) : backend.LoadMatrix(source);
      ASSERT_TRUE(matrix.ok()) << matrix.status().message();
      ops.Embed(out, **matrix, kScale);
    };
    for (const Outcome& outcome : RunEveryWay(job, Floats1d(kOutputs), 5)) {
      for (int i = 0; i < kOutputs; ++i) {
        ASSERT_EQ(std::memcmp(&outcome.out[0][static_cast<size_t>(i) * kInputs],
                              &wanted[static_cast<size_t>((i * 11) % kOutputs) * kInputs], kInputs * sizeof(float)),
                  0)
            << "token of row " << i << (as_table ? ", a table" : "");
      }
    }
  }
}

// Its rows are looked up where the file has them, and no copy is kept.
TEST(Tables, AreReadWhereTheyLieAndNotMultiplied) {
  auto backend = *MakeCpuBackend({.threads = 1});
  StepTable table(1, 1);
  table.rows = table.lanes = 1;
  Floats1d rows = RandomFloats(64 * 4, 1);
  const auto loaded = backend->LoadTable({"table", TensorType::kF32, 64, 4, std::as_bytes(std::span(rows))});
  ASSERT_TRUE(loaded.ok());
  auto* const memory = reinterpret_cast<float*>(*backend->Allocate(64 * sizeof(float), "test"));
  const Rows out{memory, 64, 64, Domain::kRows};
  const auto plan = backend->Capture(table, [&](Ops& ops) { ops.Embed(out, **loaded, 2.0f); });
  ASSERT_TRUE(plan.ok());
  table.token[0] = 3;
  rows[3 * 64 + 5] = 100.0f;
  ASSERT_TRUE(backend->stream().Replay(**plan).ok());
  EXPECT_EQ(memory[5], 200.0f);
  const auto product = backend->Capture(table, [&](Ops& ops) { ops.MatMul(out, std::array{Product{*loaded, out.Columns(0, 4)}}); });
  EXPECT_NE(product.status().message().find("belongs to another backend"), std::string::npos) << product.status().message();
  EXPECT_FALSE(backend->LoadTable({"table", TensorType::kF32, 64, 5, std::as_bytes(std::span(rows))}).ok());
}

TEST_P(EveryType, TakesHardlyMoreMemoryThanInTheFile) {
  const auto bytes = RandomWeight(GetParam(), 512, 32, 1);
  const auto packed = PackedMatrix::Plan({"weight", GetParam(), 512, 32, bytes});
  ASSERT_TRUE(packed.ok()) << packed.status().message();
  EXPECT_LE(static_cast<double>(packed->total_bytes()), 1.03 * static_cast<double>(bytes.size()));
}

// What a product computes with in place of its input.
struct Taken {
  std::vector<double> x;
  std::vector<double> sums;  // of blocks, as the minima of K types meet them
};

// CUDA: blocks of 32 with a scale of their own.
Taken TakenInBlocks(const float* x, int inputs) {
  Taken taken{std::vector<double>(x, x + inputs), {}};
  for (int b = 0; b < inputs; b += 32) {
    float top = 0;
    for (int i = 0; i < 32; ++i) top = std::max(top, std::abs(x[b + i]));
    const float scale = top / 127.0f;
    double sum = 0;
    for (int i = 0; i < 32; ++i) {
      double& y = taken.x[static_cast<size_t>(b + i)];
      sum += y = scale > 0 ? std::nearbyint(x[b + i] * (127.0f / top)) * static_cast<double>(scale) : 0.0;
    }
    taken.sums.push_back(sum);
  }
  return taken;
}

// The CPU: blocks of 32 in spans that share a scale.
Taken TakenInSpans(const float* x, int inputs) {
  Taken taken{std::vector<double>(x, x + inputs), {}};
  const auto top = [x](int from, int end) {
    float most = 0;
    for (int i = from; i < end; ++i) most = std::max(most, std::abs(x[i]));
    return most;
  };
  for (int b = 0; b < inputs; b += 32) {
    const int span = b / kSpanInputs * kSpanInputs;
    const float most = top(span, std::min(span + kSpanInputs, inputs)), mine = top(b, b + 32);
    int step = 0;
    while (step + 1 < kSteps && most * kStepFactors[step + 1] >= mine) ++step;
    const float factor = kStepFactors[step];
    const double scale = most / 127.0f;
    int sum = 0;
    for (int i = b; i < b + 32; ++i) {
      const int quant = most > 0 ? static_cast<int>(std::nearbyint(x[i] * (127.0f / (most * factor)))) : 0;
      sum += quant;
      taken.x[static_cast<size_t>(i)] = quant * scale * factor;
    }
    taken.sums.push_back(std::nearbyint(8.0f * factor * static_cast<float>(sum)) / 8 * scale);
  }
  return taken;
}

// Of a matrix of a K type, the minimum of every weight: what it would be without quants. Empty for other types.
Floats1d MinimaOf(TensorType type, std::vector<std::byte> bytes, size_t weights) {
  if (type != TensorType::kQ4_K && type != TensorType::kQ5_K) return {};
  const size_t block_bytes = TraitsOf(type).block_bytes;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i % block_bytes >= 16) bytes[i] = std::byte{0};
  }
  Floats1d minima(weights);
  EXPECT_TRUE(DequantizeRow(type, bytes, minima).ok());
  return minima;
}

void CheckMatMul(TensorType type, int inputs, int outputs, const std::vector<int>& lane_rows, uint32_t seed, bool accumulate,
                 int most_chunk) {
  SCOPED_TRACE(testing::Message() << TensorTypeName(type) << " " << outputs << " x " << inputs);
  const auto bytes = RandomWeight(type, inputs, outputs, seed);
  Floats1d weight(static_cast<size_t>(inputs) * outputs);
  ASSERT_TRUE(DequantizeRow(type, bytes, weight).ok());
  const Floats1d minima = MinimaOf(type, bytes, weight.size());
  int rows = 0;
  for (int n : lane_rows) rows += n;
  Floats1d in = RandomFloats(static_cast<size_t>(rows) * inputs, seed);
  for (int i = 0; i < inputs; ++i) in[static_cast<size_t>(rows / 2) * inputs + static_cast<size_t>(i)] = 0.0f;  // a row of zeros
  const int width = inputs + (accumulate ? outputs : 0);
  Job job;
  job.in = width;
  job.out = outputs;
  job.lane_rows = lane_rows;
  Floats1d both;
  const Floats1d residual = RandomFloats(static_cast<size_t>(rows) * outputs, seed + 7);
  for (int r = 0; r < rows; ++r) {
    both.insert(both.end(), in.begin() + static_cast<long>(r) * inputs, in.begin() + static_cast<long>(r + 1) * inputs);
    if (accumulate)
      both.insert(both.end(), residual.begin() + static_cast<long>(r) * outputs, residual.begin() + static_cast<long>(r + 1) * outputs);
  }
  job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
    const auto matrix = backend.LoadMatrix({"weight", type, inputs, outputs, bytes});
    ASSERT_TRUE(matrix.ok()) << matrix.status().message();
    if (accumulate) {
      ops.SwiGlu(out, x.Columns(inputs, outputs), x.Columns(inputs, outputs));  // something to add to
    }
    const Product product{*matrix, out, accumulate};
    ops.MatMul(x.Columns(0, inputs), {&product, 1});
  };
  const bool quantised = TraitsOf(type).block_elements > 1;
  for (const Outcome& outcome : RunEveryWay(job, both, seed, most_chunk)) {
    int row = 0;
    for (size_t lane = 0; lane < lane_rows.size(); ++lane) {
      std::vector<double> wanted;
      double magnitude = 0;
      for (int r = 0; r < lane_rows[lane]; ++r, ++row) {
        const float* const from = &in[static_cast<size_t>(row) * inputs];
        Taken taken{std::vector<double>(from, from + inputs), {}};
        if (quantised) taken = outcome.numerics.starts_with("cpu") ? TakenInSpans(from, inputs) : TakenInBlocks(from, inputs);
        for (int o = 0; o < outputs; ++o) {
          const size_t column = static_cast<size_t>(o) * static_cast<size_t>(inputs);
          double y = 0;
          for (size_t i = 0; i < taken.x.size(); ++i) {
            y += taken.x[i] * (weight[column + i] - (minima.empty() ? 0.0 : static_cast<double>(minima[column + i])));
          }
          for (size_t b = 0; b < taken.sums.size() && !minima.empty(); ++b) y += taken.sums[b] * minima[column + b * 32];
          if (accumulate) {
            const double e = residual[static_cast<size_t>(row) * outputs + static_cast<size_t>(o)];
            y += e / (1 + std::exp(-e)) * e;
          }
          wanted.push_back(y);
          magnitude = std::max(magnitude, std::abs(y));
        }
      }
      ExpectNear(outcome.out[lane], wanted, 1e-5 * (1 + magnitude / 10));
    }
  }
}

TEST_P(EveryType, ProductOfManyShapes) {
  const int step = static_cast<int>(TraitsOf(GetParam()).block_elements);
  const auto inputs = [&](int n) { return step == 1 ? n : AlignUp(static_cast<uint64_t>(n), static_cast<uint64_t>(step)); };
  CheckMatMul(GetParam(), static_cast<int>(inputs(33)), 17, {1}, 1, false, 1);
  CheckMatMul(GetParam(), static_cast<int>(inputs(96)), 40, {13, 2}, 2, false, 5);
  CheckMatMul(GetParam(), static_cast<int>(inputs(7)), 16, {30}, 3, false, 13);
  CheckMatMul(GetParam(), static_cast<int>(inputs(160)), 100, {11, 12, 13}, 4, true, 12);
  CheckMatMul(GetParam(), static_cast<int>(inputs(1100)), 20, {30}, 5, true, 13);  // several panels
}

// Quants and activations as large as they come, of all signs: where a sum of few products overflowed or saturated, it would be far off.
TEST_P(EveryType, ExtremesDoNotSaturate) {
  const TensorType type = GetParam();
  const TensorTypeTraits& traits = TraitsOf(type);
  if (traits.block_elements == 1) return;
  constexpr int kInputs = 256, kOutputs = 5, kRows = 4;
  std::vector<std::byte> bytes(*TensorBytes(type, kInputs, kOutputs));
  const uint8_t fill[kOutputs] = {0xff, 0x00, 0x80, 0x7f, 0x77};  // the last is the greatest of MXFP4, wherever a nibble lies
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(fill[i * kOutputs / bytes.size()]);
  for (size_t block = 0; block < bytes.size(); block += traits.block_bytes) {
    if (type == TensorType::kMXFP4) {
      bytes[block] = std::byte{117};
      continue;
    }
    const uint16_t small = FloatToHalf(1.0f / 1024);
    std::memcpy(bytes.data() + block + (type == TensorType::kQ6_K ? 208 : 0), &small, 2);
    if (type == TensorType::kQ4_1 || type == TensorType::kQ5_1 || type == TensorType::kQ4_K || type == TensorType::kQ5_K) {
      std::memcpy(bytes.data() + block + 2, &small, 2);
    }
  }
  Floats1d weight(kInputs * kOutputs), in(kInputs * kRows);
  ASSERT_TRUE(DequantizeRow(type, bytes, weight).ok());
  for (int i = 0; i < kInputs * kRows; ++i) {
    const int row = i / kInputs;
    in[static_cast<size_t>(i)] = row == 0 || (row == 2 && i % 2 == 0) || (row == 3 && i % 4 < 2) ? 127.0f : -127.0f;
  }
  Job job;
  job.in = kInputs;
  job.out = kOutputs;
  job.lane_rows = {kRows};
  job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
    const Product product{*backend.LoadMatrix({"weight", type, kInputs, kOutputs, bytes}), out};
    ops.MatMul(x, {&product, 1});
  };
  for (const Outcome& outcome : RunEveryWay(job, in, 1, 2)) {
    std::vector<double> wanted;
    for (int r = 0; r < kRows; ++r) {
      for (int o = 0; o < kOutputs; ++o) {
        double y = 0;
        for (int i = 0; i < kInputs; ++i) {
          y += static_cast<double>(in[static_cast<size_t>(r * kInputs + i)]) * weight[static_cast<size_t>(o * kInputs + i)];
        }
        wanted.push_back(y);
      }
    }
    ExpectNear(outcome.out[0], wanted, 1e-4);
  }
}

// Exponents as far from one another as files may have them: what one block makes is far below what a float of the sum holds, or subnormal, and of 255
// (quants beyond 0.5 are infinite there, as in ggml) what is finite in the file is finite in a product.
TEST(MatMul, Mxfp4ScalesReachAsFarAsExponentsDo) {
  constexpr int kInputs = 32, kRows = 30;
  const int exponents[] = {0, 1, 2, 3, 60, 127, 128, 200, 230, 255};
  constexpr int kOutputs = std::size(exponents);
  auto bytes = RandomWeight(TensorType::kMXFP4, kInputs, kOutputs, 3);
  for (size_t o = 0; o < kOutputs; ++o) {
    bytes[o * 17] = static_cast<std::byte>(exponents[o]);
    if (exponents[o] < 255) continue;
    for (size_t i = 1; i < 17; ++i) bytes[o * 17 + i] = i == 2 ? std::byte{0x01} : std::byte{0x80};  // one of 0.5, the others nothing
  }
  Floats1d weight(kInputs * kOutputs), in = RandomFloats(kRows * kInputs, 4);
  ASSERT_TRUE(DequantizeRow(TensorType::kMXFP4, bytes, weight).ok());
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(static_cast<int>(i * 29 % 255) - 127);
  for (size_t row = 0; row < kRows; ++row) {
    in[row * kInputs] = 127.0f;  // so that quantising changes nothing
    in[row * kInputs + 1] = row % 2 ? 1.0f : -1.0f;
  }
  Job job;
  job.in = kInputs;
  job.out = kOutputs;
  job.lane_rows = {kRows};
  job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
    const Product product{*backend.LoadMatrix({"weight", TensorType::kMXFP4, kInputs, kOutputs, bytes}), out};
    ops.MatMul(x, {&product, 1});
  };
  for (const Outcome& outcome : RunEveryWay(job, in, 1, 20)) {
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t o = 0; o < kOutputs; ++o) {
        double wanted = 0;
        for (size_t i = 0; i < kInputs; ++i) wanted += static_cast<double>(in[row * kInputs + i]) * weight[o * kInputs + i];
        const double got = outcome.out[0][row * kOutputs + o];
        EXPECT_NEAR(got, wanted, 1e-6 * std::abs(wanted)) << outcome.numerics << ", exponent " << exponents[o] << ", row " << row;
      }
    }
  }
}

TEST(MatMul, EveryRowCountAroundTheGroups) {
  for (int rows = 1; rows <= 26; ++rows) CheckMatMul(TensorType::kQ8_0, 64, 24, {rows}, static_cast<uint32_t>(rows), false, rows);
}

TEST(MatMul, SeveralPassesOfRows) {
  CheckMatMul(TensorType::kQ8_0, 64, 40, {400, 3}, 6, false, 150);
  CheckMatMul(TensorType::kQ4_0, 16384, 40, {40}, 7, false, 30);  // of long rows a pass takes fewer
  CheckMatMul(TensorType::kQ4_0, 49152, 17, {14}, 8, false, 13);  // and at last one group
}

// A row's result does not depend on how many rows are with it, whether or not its last span is whole.
TEST_P(EveryType, AnyNumberOfRowsOfAnyWidth) {
  constexpr int kOutputs = 24, kRows = 300;
  const int step = std::max(32, static_cast<int>(TraitsOf(GetParam()).block_elements));
  for (int inputs = step; inputs <= std::max(9 * 32, 3 * step); inputs += step) {
    SCOPED_TRACE(testing::Message() << inputs << " inputs");
    const auto bytes = RandomWeight(GetParam(), inputs, kOutputs, 8);
    const Floats1d in = RandomFloats(static_cast<size_t>(kRows * inputs), 8);
    Job job;
    job.in = inputs;
    job.out = kOutputs;
    job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
      const Product product{*backend.LoadMatrix({"weight", GetParam(), inputs, kOutputs, bytes}), out};
      ops.MatMul(x, {&product, 1});
    };
    for (const std::string& isa : CpuInstructionSets()) {
      const auto first_rows = [&](int rows) {
        job.lane_rows = {rows};
        return RunJob(job, in, OneStep(job.lane_rows), {.threads = 1, .isa = isa}).out[0];
      };
      const Floats1d all = first_rows(kRows);
      for (int rows = 1; rows <= 30; ++rows) {
        const Floats1d some = first_rows(rows);
        ASSERT_EQ(std::memcmp(some.data(), all.data(), some.size() * sizeof(float)), 0) << isa << ", " << rows << " rows";
      }
    }
  }
}

// Whether the launch that arranges a product's input makes that input too, or finds it made.
TEST(MatMul, TakesInWhatMakesItsInput) {
  constexpr int kOutputs = 20;
  for (int width : {32, 96, 576, 1056}) {
    const auto bytes = RandomWeight(TensorType::kQ8_0, width, kOutputs, 3);
    const auto weight_bytes = BytesOf(RandomFloats(static_cast<size_t>(width), 4));
    const Floats1d in = RandomFloats(static_cast<size_t>(16 * width), 5);
    for (int op = 0; op < 4; ++op) {
      SCOPED_TRACE(testing::Message() << "op " << op << ", width " << width);
      Job job;
      job.in = width;
      job.out = 2 * width + 2 * kOutputs;
      job.lane_rows = {3, 13};
      const auto record = [&](bool apart) {
        return [&, apart](Backend& backend, Ops& ops, Rows x, Rows out) {
          const auto vector = [&](int size) {
            const auto used = std::span(weight_bytes).first(sizeof(float) * static_cast<size_t>(size));
            return *backend.LoadVector({"v", TensorType::kF32, size, 1, used});
          };
          const Matrix* const matrix = *backend.LoadMatrix({"w", TensorType::kQ8_0, width, kOutputs, bytes});
          const Rows made = out.Columns(0, width);
          if (op == 0) ops.RmsNorm(made, x, vector(width), 1e-6f);
          if (op == 1) ops.SwiGlu(made, x, x);
          if (op == 2) ops.GatedRmsNorm(made, x, x, vector(16), 1e-6f);
          if (op == 3) ops.Multiply(made, x, x);
          if (apart) ops.SwiGlu(out.Columns(width, width), x, x);
          const Product first{matrix, out.Columns(2 * width, kOutputs)}, second{matrix, out.Columns(2 * width + kOutputs, kOutputs)};
          ops.MatMul(made, {&first, 1});
          ops.MatMul(made, {&second, 1});
          if (!apart) ops.SwiGlu(out.Columns(width, width), x, x);
        };
      };
      job.record = record(false);
      const auto taken_in = RunEveryWay(job, in, 6);
      job.record = record(true);
      const auto apart = RunEveryWay(job, in, 6);
      for (size_t i = 0; i < apart.size(); ++i) EXPECT_TRUE(SameBits(taken_in[i], apart[i]));
    }
  }
}

TEST(MatMul, ProductsOfSeveralTypesShareAnInput) {
  constexpr int kInputs = 256;
  const std::vector<int> outputs = {20, 48, 5, 16, 33};
  const TensorType types[] = {TensorType::kQ8_0, TensorType::kF16, TensorType::kQ4_1, TensorType::kQ6_K, TensorType::kQ4_0};
  std::vector<std::vector<std::byte>> bytes;
  Job job;
  job.in = kInputs;
  job.out = 20 + 48 + 5 + 16 + 33;
  job.lane_rows = {3, 17};
  for (size_t i = 0; i < 5; ++i) bytes.push_back(RandomWeight(types[i], kInputs, outputs[i], static_cast<uint32_t>(i)));
  const Floats1d in = RandomFloats(20 * kInputs, 9);
  const auto load = [&](Backend& backend, size_t i) { return *backend.LoadMatrix({"w", types[i], kInputs, outputs[i], bytes[i]}); };
  job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
    std::vector<Product> products;
    int at = 0;
    for (size_t i = 0; i < 5; ++i) {
      products.push_back({load(backend, i), out.Columns(at, outputs[i])});
      at += outputs[i];
    }
    ops.MatMul(x, products);
  };
  const auto together = RunEveryWay(job, in, 9);
  job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
    int at = 0;
    for (size_t i = 0; i < 5; ++i) {
      const Product product{load(backend, i), out.Columns(at, outputs[i])};
      ops.MatMul(x, {&product, 1});
      at += outputs[i];
    }
  };
  const auto apart = RunEveryWay(job, in, 9);
  for (size_t i = 0; i < together.size(); ++i) EXPECT_TRUE(SameBits(together[i], apart[i]));
}

TEST(MatMul, BrokenInputsStayVisibleAndInTheirRow) {
  constexpr int kInputs = 64, kOutputs = 16;
  const auto bytes = RandomWeight(TensorType::kQ8_0, kInputs, kOutputs, 1);
  Job job;
  job.in = kInputs;
  job.out = kOutputs;
  job.lane_rows = {5};
  job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
    const Product product{*backend.LoadMatrix({"w", TensorType::kQ8_0, kInputs, kOutputs, bytes}), out};
    ops.MatMul(x, {&product, 1});
  };
  Floats1d in = RandomFloats(5 * kInputs, 1);
  in[kInputs + 3] = std::nanf("");
  in[2 * kInputs + 40] = INFINITY;
  for (int i = 0; i < kInputs; ++i) in[static_cast<size_t>(3 * kInputs + i)] *= 1e37f;
  for (const std::string& isa : CpuInstructionSets()) {
    const Outcome outcome = RunJob(job, in, OneStep(job.lane_rows), {.threads = 2, .isa = isa});
    for (int o = 0; o < kOutputs; ++o) {
      const auto at = [&](int row) { return outcome.out[0][static_cast<size_t>(row * kOutputs + o)]; };
      EXPECT_TRUE(std::isfinite(at(0)));
      EXPECT_TRUE(std::isnan(at(1)));
      EXPECT_TRUE(std::isnan(at(2)));
      EXPECT_FALSE(std::isnan(at(3)));
      EXPECT_TRUE(std::isfinite(at(4)));
    }
  }
}

TEST(LoadMatrix, RefusesWhatItCannotPack) {
  auto backend = *MakeCpuBackend({.threads = 1});
  const std::vector<std::byte> bytes(1024);
  const auto unknown = backend->LoadMatrix({"blk.0.w", TensorType::kQ2_K, 256, 1, std::span(bytes).first(84)});
  EXPECT_EQ(unknown.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(unknown.status().message().find("blk.0.w"), std::string::npos);
  EXPECT_NE(unknown.status().message().find("Q2_K"), std::string::npos);
  EXPECT_EQ(backend->LoadMatrix({"w", TensorType::kF32, 16, 17, bytes}).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(backend->LoadMatrix({"w", TensorType::kF32, 0, 16, {}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(backend->LoadMatrix({"w", TensorType::kF32, int64_t{1} << 40, int64_t{1} << 40, bytes}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_FALSE(backend->LoadMatrix({"w", TensorType::kQ8_0, 33, 16, bytes}).ok());
  EXPECT_FALSE(backend->LoadVector({"v", TensorType::kQ8_0, 32, 1, std::span(bytes).first(34)}).ok());
  EXPECT_FALSE(backend->LoadVector({"v", TensorType::kF32, 32, 1, bytes}).ok());
}

}  // namespace
}  // namespace reprise
