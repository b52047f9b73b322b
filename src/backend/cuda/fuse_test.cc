// Steps of few rows, whose launches are fewer: the same bits as the single launches of steps of more rows, in everything that they leave in memory; and
// nothing becomes one that must not.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>

#include "backend/cpu/cpu_rig.h"
#include "backend/cuda/cuda_plan.h"
#include "backend/cuda/device_rig.h"
#include "backend/weight_rig.h"

namespace reprise {
namespace {

// Every way of cutting `job`, one row at a time among them, gives the same bits on each device (RunOnDevices); here also that they are near the CPU's.
void Check(const Job& job, uint32_t seed, double tolerance) {
  int rows = 0;
  for (int n : job.lane_rows) rows += n;
  const auto outcomes = RunEveryWay(job, RandomFloats(static_cast<size_t>(rows) * static_cast<size_t>(job.in), seed), seed);
  const Outcome& wanted = outcomes.front();
  for (const Outcome& got : outcomes) {
    for (size_t lane = 0; lane < wanted.out.size(); ++lane) {
      double top = 0, apart = 0;
      for (size_t i = 0; i < wanted.out[lane].size(); ++i) {
        top = std::max(top, std::abs(double{wanted.out[lane][i]}));
        apart = std::max(apart, std::abs(double{wanted.out[lane][i]} - double{got.out[lane][i]}));
      }
      EXPECT_LE(apart, tolerance * top) << got.numerics;
    }
  }
}

struct ProductCase {
  TensorType type, other;  // of the first products, and of a last one beside them
  int inputs, inner, outputs;
};
class FusedProduct : public testing::TestWithParam<ProductCase> {};
INSTANTIATE_TEST_SUITE_P(
    Shapes, FusedProduct,
    testing::Values(ProductCase{TensorType::kQ8_0, TensorType::kF32, 160, 96, 70},    // a last segment that is not whole
                    ProductCase{TensorType::kQ4_0, TensorType::kQ8_0, 256, 512, 33},  // more tiles than run at once
                    ProductCase{TensorType::kMXFP4, TensorType::kMXFP4, 160, 96, 100},
                    ProductCase{TensorType::kQ4_K, TensorType::kQ6_K, 1280, 256, 64},    // few tiles of many segments: more warps
                    ProductCase{TensorType::kQ5_K, TensorType::kQ4_1, 256, 256, 40},     // inner and inputs quantised in one place
                    ProductCase{TensorType::kQ5_1, TensorType::kBF16, 4160, 64, 9600}),  // sums of more than one window
    [](const auto& info) { return std::string(TensorTypeName(info.param.type)); });

// A feed-forward network: norm, gate and up (and a product of another form of the same input), SwiGLU, down; then a product of what came, which is
// quantised for it alone.
TEST_P(FusedProduct, GivesTheBitsOfSingleLaunches) {
  const ProductCase c = GetParam();
  constexpr int kOther = 45;
  Job job;
  job.in = c.inputs;
  job.out = c.inputs + 2 * c.inner + kOther + 2 * c.outputs + kOther;
  job.lane_rows = {3, 2};
  const auto gate = RandomWeight(c.type, c.inputs, c.inner, 1), up = RandomWeight(c.type, c.inputs, c.inner, 2);
  const auto other = RandomWeight(c.other, c.inputs, kOther, 3), down = RandomWeight(TensorType::kQ8_0, c.inner, c.outputs, 4);
  const auto last = RandomWeight(TensorType::kQ8_0, 32, kOther, 5);
  const Floats1d norm = RandomFloats(static_cast<size_t>(c.inputs), 6);
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    int at = 0;
    const auto next = [&](int width) { return out.Columns(std::exchange(at, at + width), width); };
    const Rows normed = next(c.inputs), gated = next(c.inner), upper = next(c.inner), beside = next(kOther), sum = next(c.outputs);
    const auto load = [&](TensorType type, int inputs, int outputs, const std::vector<std::byte>& bytes) {
      return *backend.LoadMatrix({"w", type, inputs, outputs, bytes});
    };
    ops.RmsNorm(normed, in, LoadFloats(backend, norm), 1e-6f);
    ops.MatMul(normed,
               std::array{Product{load(c.type, c.inputs, c.inner, gate), gated}, Product{load(c.type, c.inputs, c.inner, up), upper}});
    ops.SwiGlu(gated, gated, upper);
    const Product narrow{load(TensorType::kQ8_0, c.inner, c.outputs, down), sum};
    ops.MatMul(gated, {&narrow, 1});
    ops.MatMul(normed, std::array{Product{load(c.other, c.inputs, kOther, other), beside}});
    const Rows again = next(c.outputs);
    ops.SwiGlu(again, sum, sum);  // something to add to
    ops.MatMul(gated, std::array{Product{narrow.weight, again, /*accumulate=*/true}});
    ops.MatMul(sum.Columns(0, 32), std::array{Product{load(TensorType::kQ8_0, 32, kOther, last), next(kOther)}});
  };
  Check(job, 7, 0.05);
}

// A layer of the delta rule behind its first product, in lanes that bring rows and lanes that bring none.
void CheckDelta(const Ops::DeltaNetShape& s, int kernel, uint32_t seed) {
  const int keys = s.key_heads * s.key_dim, values = s.value_heads * s.value_dim, channels = 2 * keys + values;
  const auto tail_bytes = sizeof(float) * static_cast<size_t>((kernel - 1) * channels);
  const StateRef tail{0, tail_bytes, ElementType::kF32},
      memory{(tail_bytes + 63) / 64 * 64, sizeof(float) * static_cast<size_t>(s.value_heads * s.key_dim * s.value_dim), ElementType::kF32};
  Job job;
  job.in = channels + 2 * s.value_heads + values;
  job.out = channels + values + 40;
  job.lane_rows = {9, 1, 6};  // in one step more than kFewRows
  job.block_bytes = memory.offset + memory.bytes;
  for (uint32_t lane = 0; lane < 3; ++lane) {
    auto block = BytesOf(RandomFloats(job.block_bytes / sizeof(float), seed + lane, 0.3f));
    std::memset(block.data() + tail_bytes, 0xff, memory.offset - tail_bytes);  // nobody's: poisoned in the write block
    job.first_block.push_back(std::move(block));
  }
  const Floats1d weight = RandomFloats(static_cast<size_t>(channels * kernel), seed + 1),
                 dt = RandomFloats(static_cast<size_t>(s.value_heads), seed + 2),
                 norm = RandomFloats(static_cast<size_t>(s.value_dim), seed + 3), a(static_cast<size_t>(s.value_heads), -0.7f);
  const auto output = values % 32 == 0 ? RandomWeight(TensorType::kQ8_0, values, 40, seed) : std::vector<std::byte>();
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Rows qkv = in.Columns(0, channels), alpha = in.Columns(channels, s.value_heads),
               beta = in.Columns(channels + s.value_heads, s.value_heads), gate = in.Columns(channels + 2 * s.value_heads, values);
    const Rows convolved = out.Columns(0, channels), remembered = out.Columns(channels, values);
    ops.CausalConv(convolved, qkv, tail, LoadFloats(backend, weight, channels), {}, kernel, true);
    ops.DeltaNet(remembered, convolved, alpha, beta, LoadFloats(backend, a), LoadFloats(backend, dt), memory, s);
    ops.GatedRmsNorm(remembered, remembered, gate, LoadFloats(backend, norm), 1e-6f);
    if (values % 32 == 0) {
      ops.MatMul(remembered, std::array{Product{*backend.LoadMatrix({"w", TensorType::kQ8_0, values, 40, output}),
                                                out.Columns(channels + values, 40)}});
    } else {
      ops.SwiGlu(out.Columns(channels + values, 40), in.Columns(0, 40), in.Columns(0, 40));
    }
  };
  Check(job, seed, 0.05);
}
TEST(FusedDelta, OneKeyHeadAValueHead) { CheckDelta({2, 64, 2, 64}, 4, 41); }
TEST(FusedDelta, KeyHeadsThatValueHeadsShare) { CheckDelta({2, 128, 6, 128}, 4, 42); }
TEST(FusedDelta, KeyHeadsThatNeighboursShare) { CheckDelta({2, 64, 6, 64, /*neighbours=*/true}, 4, 47); }
TEST(FusedDelta, OneWarp) { CheckDelta({1, 16, 2, 8}, 4, 46); }
TEST(FusedDelta, OddWidths) { CheckDelta({1, 10, 3, 21}, 3, 43); }
TEST(FusedDelta, WidestKeys) { CheckDelta({1, 256, 2, 32}, 2, 44); }
TEST(FusedDelta, ValuesTooWideForOneLaunch) { CheckDelta({2, 32, 2, 160}, 4, 45); }

// An attention layer up to its result, over halves and over floats.
template <int kWidth = 32>
void CheckAppend(ElementType type, bool keys_alone, uint32_t seed) {
  constexpr int kHeads = 4, kKeyHeads = 2, kKeys = kKeyHeads * kWidth;
  const size_t row = type == ElementType::kQ8_0 ? kKeys / kQ8Values * 34 : kKeys * ElementSize(type);
  const StateRef k{0, row, type}, v{kExtentRows * row, row, type};
  Job job;
  job.in = 2 * kHeads * kWidth + 2 * kKeys;
  job.out = kHeads * kWidth;
  job.lane_rows = {5, 3};
  job.extent_bytes = 2 * kExtentRows * row;
  const Floats1d norm = RandomFloats(kWidth, seed);
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Heads query{in.Columns(0, 2 * kHeads * kWidth), kHeads, kWidth, 2 * kWidth};  // each head: its query, then its gate
    const Heads gate{in.Columns(kWidth, (2 * kHeads - 1) * kWidth), kHeads, kWidth, 2 * kWidth};
    const Rows key = in.Columns(2 * kHeads * kWidth, kKeys), value = in.Columns(2 * kHeads * kWidth + kKeys, kKeys);
    const RopeSpec rope{kWidth / 2, 1e4, false, nullptr};
    if (!keys_alone) ops.NormRope(query, LoadFloats(backend, norm), 1e-6f, rope);
    ops.NormRope({key, kKeyHeads, kWidth, kWidth}, LoadFloats(backend, norm), 1e-6f, rope);
    ops.Append(k, key);
    ops.Append(v, value);
    ops.Attention(out, query, k, v, gate, {.kv_heads = kKeyHeads, .scale = 0.2f});
  };
  Check(job, seed, 0.02);
}
TEST(FusedAppend, Halves) { CheckAppend(ElementType::kF16, false, 51); }
TEST(FusedAppend, Floats) { CheckAppend(ElementType::kF32, false, 52); }
TEST(FusedAppend, Bytes) { CheckAppend(ElementType::kQ8_0, false, 55); }
TEST(FusedAppend, WideHeads) { CheckAppend<512>(ElementType::kF16, false, 54); }
TEST(FusedAppend, KeysAreTurnedAlone) { CheckAppend(ElementType::kF16, true, 53); }

// How many launches a step has, where it may be fewer and where it must not.
TEST(Fuse, OnlyWhatMayBecomesOneLaunch) {
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    constexpr int kWidth = 128, kMost = 16;
    StepTable table(kMost, 2);
    auto* const x = reinterpret_cast<float*>(*backend.Allocate(size_t{6} * kMost * kWidth * sizeof(float), "rows"));
    const auto rows = [&](int n) { return Rows{x + n * kMost * kWidth, kWidth, kWidth, Domain::kRows}; };
    const auto bytes = RandomWeight(TensorType::kQ8_0, kWidth, kWidth, 1);
    const Matrix* const w = *backend.LoadMatrix({"w", TensorType::kQ8_0, kWidth, kWidth, bytes});
    const Vector norm = LoadFloats(backend, Floats1d(kWidth, 1.0f));
    // Of a step of so many rows; `of_many`: how many fewer than recorded those of many rows are.
    const auto launches = [&](const std::function<void(Ops&)>& record, int step_rows = 1, size_t of_many = 0) {
      auto plan = backend.Capture(table, record);
      EXPECT_TRUE(plan.ok()) << plan.status().message();
      const auto& captured = static_cast<const cuda::CudaPlan&>(**plan);
      EXPECT_EQ(captured.launches(kMost, 1) + of_many, captured.launches());
      return captured.launches(step_rows, 1);
    };
    const auto multiply = [&](Ops& ops, Rows in, Rows out) { ops.MatMul(in, std::array{Product{w, out}}); };
    EXPECT_EQ(launches([&](Ops& ops) { multiply(ops, rows(0), rows(1)); }), 1u) << "quantises by itself";
    EXPECT_EQ(launches([&](Ops& ops) { ops.RmsNorm(rows(1), rows(0), norm, 1e-6f), multiply(ops, rows(1), rows(2)); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { ops.AddRmsNorm(rows(1), rows(0), norm, 1e-6f), multiply(ops, rows(1), rows(2)); }), 2u)
        << "an accumulating norm";
    EXPECT_EQ(launches([&](Ops& ops) { ops.RmsNorm(rows(1), rows(1), norm, 1e-6f), multiply(ops, rows(1), rows(2)); }), 2u)
        << "a norm in place: who is late would take the norm of it again";
    EXPECT_EQ(launches([&](Ops& ops) { ops.RmsNorm(rows(1), rows(0), norm, 1e-6f), multiply(ops, rows(1), rows(0)); }), 2u)
        << "a product over what the norm is of";
    EXPECT_EQ(launches([&](Ops& ops) { multiply(ops, rows(1), rows(1)); }), 2u) << "a product over what it quantises";
    const auto gated = [&](Ops& ops, Rows out, Rows gate, Rows up) {
      ops.RmsNorm(rows(1), rows(0), norm, 1e-6f);
      ops.MatMul(rows(1), std::array{Product{w, gate}, Product{w, up}});
      ops.SwiGlu(out, gate, up);
    };
    EXPECT_EQ(launches([&](Ops& ops) { gated(ops, rows(2), rows(2), rows(3)); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { gated(ops, rows(4), rows(2), rows(3)); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { gated(ops, rows(0), rows(2), rows(3)); }), 2u) << "its result over what the norm is of";
    EXPECT_EQ(launches([&](Ops& ops) { gated(ops, rows(2), rows(2), rows(3)), multiply(ops, rows(2), rows(4)); }), 2u + 1u)
        << "its result, as wide as the input, is quantised where the input is: the SwiGLU stays a launch";
    EXPECT_EQ(launches([&](Ops& ops) {
                ops.RmsNorm(rows(1), rows(0), norm, 1e-6f);
                ops.MatMul(rows(1), std::array{Product{w, rows(2)}, Product{w, rows(3)}});
                ops.SwiGlu(rows(4), rows(3), rows(2));
              }),
              2u)
        << "gate and up the other way round";

    const RopeSpec rope{32, 1e4, false, nullptr};
    const StateRef keys{0, kWidth * 2, ElementType::kF16}, values{32768, kWidth * 2, ElementType::kF16};
    const auto append = [&](Ops& ops, Rows turned, Rows key, Rows value) {
      ops.NormRope({turned, 4, 32, 32}, {}, 1e-6f, rope);
      ops.Append(keys, key);
      ops.Append(values, value);
    };
    const size_t table_of_angles = 1;
    EXPECT_EQ(launches([&](Ops& ops) { append(ops, rows(0), rows(0), rows(1)); }, kMost, 1), table_of_angles + 1);
    const Rows half = rows(0).Columns(0, 64), other_half = rows(0).Columns(64, 64);
    EXPECT_EQ(launches(
                  [&](Ops& ops) {
                    ops.NormRope({half, 2, 32, 32}, {}, 1e-6f, rope);
                    ops.Append({0, 128, ElementType::kF16}, half);
                    ops.Append({8192, 128, ElementType::kF16}, other_half);
                  },
                  kMost, 1),
              table_of_angles + 1)
        << "values that lie in turns with what is turned";
    EXPECT_EQ(launches([&](Ops& ops) { append(ops, rows(0), rows(2), rows(1)); }), table_of_angles + 2)
        << "what is turned is not what is appended";
    EXPECT_EQ(launches([&](Ops& ops) { append(ops, rows(0), rows(0), rows(0)); }), table_of_angles + 2) << "values that are turned as well";

    const Ops::DeltaNetShape s{1, 32, 2, 32};
    constexpr int kChannels = 128;
    const StateRef tail{0, 3 * kChannels * 4, ElementType::kF32}, memory{4096, 2 * 32 * 32 * 4, ElementType::kF32};
    const auto weight = LoadFloats(backend, Floats1d(kChannels * 4, 0.1f), kChannels), of_heads = LoadFloats(backend, {1.0f, 1.0f}),
               head_norm = LoadFloats(backend, Floats1d(32, 1.0f));
    const auto delta = [&](Ops& ops, Rows qkv, Rows out) {
      ops.CausalConv(rows(1), qkv, tail, weight, {}, 4, true);
      ops.DeltaNet(out.Columns(0, 64), rows(1), rows(2).Columns(0, 2), rows(2).Columns(2, 2), of_heads, of_heads, memory, s);
      ops.GatedRmsNorm(out.Columns(0, 64), out.Columns(0, 64), rows(3).Columns(0, 64), head_norm, 1e-6f);
    };
    for (const int few : {1, 2, 8}) EXPECT_EQ(launches([&](Ops& ops) { delta(ops, rows(0), rows(4)); }, few), 1u) << few;
    EXPECT_EQ(launches([&](Ops& ops) { delta(ops, rows(0), rows(0).Columns(64, 64)); }, 8), 4u)
        << "its result among what other heads convolve";
    EXPECT_EQ(launches([&](Ops& ops) { delta(ops, rows(0), rows(0)); }), 4u) << "its result over what other heads convolve";
  }
}

}  // namespace
}  // namespace reprise
