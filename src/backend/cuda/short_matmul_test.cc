// Products of weights of 16-bit floats: the same bits from each of the kernels that a number of rows may get, as near to the exact sums as floats are, for
// activations of any size. On the emulator, and on a GPU where there is one.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_rig.h"
#include "backend/cuda/device_rig.h"
#include "base/half.h"

namespace reprise {
namespace {

constexpr int kRows = 70;

struct ShortWeight {
  ShortWeight(TensorType type_in, int inputs_in, int outputs_in, uint32_t seed)
      : type(type_in), inputs(inputs_in), outputs(outputs_in), values(static_cast<size_t>(inputs_in) * static_cast<size_t>(outputs_in)) {
    bytes.resize(values.size() * 2);
    const Floats1d random = RandomFloats(values.size(), seed);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t bits = type == TensorType::kF16 ? FloatToHalf(random[i]) : FloatToBFloat16(random[i]);
      std::memcpy(bytes.data() + i * 2, &bits, 2);
      values[i] = type == TensorType::kF16 ? HalfToFloat(bits) : BFloat16ToFloat(bits);
    }
  }
  const Matrix* Load(Backend& backend) const { return *backend.LoadMatrix({"w", type, inputs, outputs, bytes}); }

  TensorType type;
  int inputs, outputs;
  Floats1d values;
  std::vector<std::byte> bytes;
};

class ShortMatMul : public testing::TestWithParam<TensorType> {};
INSTANTIATE_TEST_SUITE_P(Weights, ShortMatMul, testing::Values(TensorType::kF16, TensorType::kBF16),
                         [](const auto& info) { return std::string(TensorTypeName(info.param)); });

// Steps of the emulator's three multiprocessors: all rows in blocks of 8 tiles; 40 in blocks of 4 and 30 for the kernel of up to 32; few for the one of
// up to 8. Rows that start on 16 bytes and ones that do not; a last segment that is not whole; two products in a launch, of which one adds. A NaN stays
// in its row.
TEST_P(ShortMatMul, AnyNumberOfRowsGivesTheSameBits) {
  for (const int inputs : {300, 301}) {
    const ShortWeight first(GetParam(), inputs, 300, 1), second(GetParam(), inputs, 40, 2);
    constexpr int kOutputs = 340;
    Job job;
    job.in = inputs;
    job.out = kOutputs;
    job.lane_rows = {kRows};
    job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
      const Rows sums = out.Columns(300, 40);
      ops.SwiGlu(sums, x.Columns(0, 40), x.Columns(0, 40));  // something to add to
      ops.MatMul(x, std::array{Product{first.Load(backend), out.Columns(0, 300)}, Product{second.Load(backend), sums, true}});
    };
    Floats1d in = RandomFloats(static_cast<size_t>(kRows * inputs), 3);
    constexpr int kBroken = 37;
    in[static_cast<size_t>(kBroken * inputs + 200)] = std::nanf("");
    for (TestBackend& device : DeviceBackends()) {
      const Outcome whole = RunJobOn(*device.backend, job, in, OneStep(job.lane_rows));
      for (const Cut& cut : {Cut{{40}, {30}}, Cut{{1}, {8}, {9}, {3}, {17}, {2}, {30}}}) {
        EXPECT_TRUE(SameBits(RunJobOn(*device.backend, job, in, cut), whole)) << device.name;
      }
      for (int row = 0; row < kRows; ++row) {
        const float* x = in.data() + static_cast<size_t>(row * inputs);
        for (int output = 0; output < kOutputs; ++output) {
          const ShortWeight& weight = output < 300 ? first : second;
          const float* w = weight.values.data() + static_cast<size_t>((output < 300 ? output : output - 300) * inputs);
          const double start = output < 300 ? 0.0 : double{x[output - 300]};
          double wanted = start * start / (1 + std::exp(-start)), magnitude = std::abs(wanted);
          for (int i = 0; i < inputs; ++i) {
            wanted += double{x[i]} * double{w[i]};
            magnitude += std::abs(double{x[i]} * double{w[i]});
          }
          const float got = whole.out[0][static_cast<size_t>(row * kOutputs + output)];
          if (row == kBroken) {
            ASSERT_TRUE(std::isnan(got)) << device.name << ", output " << output;
          } else {
            ASSERT_LE(std::abs(double{got} - wanted), 4e-7 * magnitude) << device.name << ", row " << row << ", output " << output;
          }
        }
      }
    }
  }
}

// Halves end at 65,504 and begin at 2^-24; activations may be larger and smaller, and both in one row.
TEST_P(ShortMatMul, ActivationsMayHaveAnySize) {
  constexpr int kInputs = 256, kOutputs = 16;
  const float scales[] = {1e-30f, 1e-9f, 1e-4f, 1.0f, 3e4f, 1e7f, 1e30f};
  constexpr int kSizes = 7;
  const ShortWeight weight(GetParam(), kInputs, kOutputs, 4);
  Job job;
  job.in = kInputs;
  job.out = kOutputs;
  job.lane_rows = {kSizes + 2};
  job.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) { ops.MatMul(x, std::array{Product{weight.Load(backend), out}}); };
  Floats1d in = RandomFloats(static_cast<size_t>((kSizes + 2) * kInputs), 5);
  for (size_t i = 0; i < kSizes * kInputs; ++i) in[i] *= scales[i / kInputs];
  in[kSizes * kInputs + 100] = 1e4f;                                                  // one far above the rest of its row,
  for (size_t i = (kSizes + 1) * kInputs + 128; i < in.size(); ++i) in[i] *= 1e-12f;  // and a segment far below the other
  for (const Outcome& outcome : RunOnDevices(job, in, 6, 4)) {
    for (int row = 0; row < kSizes + 2; ++row) {
      for (int output = 0; output < kOutputs; ++output) {
        double wanted = 0, magnitude = 0;
        for (int i = 0; i < kInputs; ++i) {
          const double product =
              double{in[static_cast<size_t>(row * kInputs + i)]} * double{weight.values[static_cast<size_t>(output * kInputs + i)]};
          wanted += product;
          magnitude += std::abs(product);
        }
        EXPECT_LE(std::abs(double{outcome.out[0][static_cast<size_t>(row * kOutputs + output)]} - wanted), 4e-7 * magnitude)
            << "row " << row << ", output " << output;
      }
    }
  }
}

}  // namespace
}  // namespace reprise
