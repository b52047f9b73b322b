// Products and attention in steps of few rows, whose launches are fewer: the same bits as the single launches of steps of more rows, in everything that
// they leave in memory; and nothing becomes one that must not.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <utility>

#include "backend/cuda/cuda_plan.h"
#include "backend/cuda/device_rig.h"
#include "backend/cuda/fuse_rig.h"
#include "backend/weight_rig.h"

namespace reprise {
namespace {

struct ProductCase {
  TensorType type, other, down;  // of the first products, of one beside them, of those of what comes
  int inputs, inner, outputs;
  Activation activation = Activation::kSwiGlu;
};
class FusedProduct : public testing::TestWithParam<ProductCase> {};
constexpr auto kByte = TensorType::kQ8_0, kHalf = TensorType::kF16, kBFloat = TensorType::kBF16;
INSTANTIATE_TEST_SUITE_P(
    Shapes, FusedProduct,
    testing::Values(ProductCase{kByte, TensorType::kF32, kByte, 160, 96, 70},    // a last segment that is not whole
                    ProductCase{TensorType::kQ4_0, kByte, kByte, 256, 512, 33},  // more tiles than run at once
                    ProductCase{TensorType::kMXFP4, TensorType::kMXFP4, kByte, 160, 96, 100},
                    ProductCase{TensorType::kQ4_K, TensorType::kQ6_K, kByte, 1280, 256, 64},  // few tiles of many segments: more warps
                    ProductCase{TensorType::kQ5_K, TensorType::kQ4_1, kByte, 256, 256, 40},   // inner and inputs quantised in one place
                    ProductCase{TensorType::kQ5_1, kBFloat, kByte, 4160, 64, 9600},           // sums of more than one window
                    ProductCase{kByte, kByte, kByte, 160, 96, 70, Activation::kGeGlu},
                    ProductCase{kByte, kByte, kByte, 160, 96, 70, Activation::kReluSquared}, ProductCase{kHalf, kHalf, kHalf, 160, 96, 70},
                    ProductCase{kBFloat, kBFloat, kBFloat, 4160, 320, 100},  // more than one window, more tiles than run at once
                    ProductCase{kBFloat, kBFloat, kBFloat, 161, 97, 70, Activation::kGeGlu},  // rows that do not begin on 16 bytes
                    ProductCase{kHalf, kBFloat, kBFloat, 160, 96, 70, Activation::kReluSquared},
                    ProductCase{kBFloat, kByte, kByte, 160, 96, 70}),  // what others read is quantised
    [](const auto& info) { return std::string(TensorTypeName(info.param.type)) + "_" + std::to_string(info.index); });

// A feed-forward network: norm, gate and up (and a product of another form of the same input), activation, down; then a product of what came, which is
// quantised for it alone.
TEST_P(FusedProduct, GivesTheBitsOfSingleLaunches) {
  const ProductCase c = GetParam();
  constexpr int kOther = 45;
  Job job;
  job.in = c.inputs;
  job.out = c.inputs + 2 * c.inner + kOther + 2 * c.outputs + kOther;
  job.lane_rows = {3, 2};
  const auto gate = RandomWeight(c.type, c.inputs, c.inner, 1), up = RandomWeight(c.type, c.inputs, c.inner, 2);
  const auto other = RandomWeight(c.other, c.inputs, kOther, 3), down = RandomWeight(c.down, c.inner, c.outputs, 4);
  const auto last = RandomWeight(c.down, 32, kOther, 5);
  const Floats1d norm = RandomFloats(static_cast<size_t>(c.inputs), 6);
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    int at = 0;
    const auto next = [&](int width) { return out.Columns(std::exchange(at, at + width), width); };
    const Rows normed = next(c.inputs), gated = next(c.inner), upper = next(c.inner), beside = next(kOther), sum = next(c.outputs);
    const auto load = [&](TensorType type, int inputs, int outputs, const std::vector<std::byte>& bytes) {
      return *backend.LoadMatrix({"w", type, inputs, outputs, bytes});
    };
    const Product to_gate{load(c.type, c.inputs, c.inner, gate), gated}, to_up{load(c.type, c.inputs, c.inner, up), upper};
    ops.RmsNorm(normed, in, LoadFloats(backend, norm), 1e-6f);
    if (c.activation == Activation::kReluSquared) {
      ops.MatMul(normed, {&to_up, 1});
      ops.ReluSquared(gated, upper);
    } else {
      ops.MatMul(normed, std::array{to_gate, to_up});
      c.activation == Activation::kGeGlu ? ops.GeGlu(gated, gated, upper) : ops.SwiGlu(gated, gated, upper);
    }
    const Product narrow{load(c.down, c.inner, c.outputs, down), sum};
    ops.MatMul(gated, {&narrow, 1});
    ops.MatMul(normed, std::array{Product{load(c.other, c.inputs, kOther, other), beside}});
    const Rows again = next(c.outputs);
    ops.SwiGlu(again, sum, sum);  // something to add to
    ops.MatMul(gated, std::array{Product{narrow.weight, again, /*accumulate=*/true}});
    ops.MatMul(sum.Columns(0, 32), std::array{Product{load(c.down, 32, kOther, last), next(kOther)}});
  };
  CheckFused(job, 7, 0.05);
}

// Groups of a row with weights of their own, which are recorded one by one, before a product.
void CheckGroups(TensorType type, int groups, int width, bool in_place, uint32_t seed) {
  const int inputs = groups * width;
  constexpr int kOutputs = 70;
  Job job;
  job.in = inputs;
  job.out = 2 * inputs + kOutputs;
  job.lane_rows = {5, 4};
  const Floats1d norm = RandomFloats(static_cast<size_t>(inputs), seed);
  const auto weight = RandomWeight(type, inputs, kOutputs, seed);
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Rows normed = out.Columns(0, inputs), doubled = out.Columns(inputs, inputs);
    const Vector norms = LoadFloats(backend, norm, groups);
    ops.Multiply(in_place ? normed : doubled, in, in);
    for (int first = 0; first < inputs; first += width) {
      const Rows from = (in_place ? normed : doubled).Columns(first, width);
      ops.RmsNorm(normed.Columns(first, width), from, Vector{norms.data + first, width}, 1e-6f);
    }
    if (in_place) ops.Multiply(doubled, in, in);
    ops.MatMul(normed, std::array{Product{*backend.LoadMatrix({"w", type, inputs, kOutputs, weight}), out.Columns(2 * inputs, kOutputs)}});
  };
  CheckFused(job, seed, 0.05);
}
TEST(FusedGroups, OfWholeBlocks) { CheckGroups(kByte, 3, 64, false, 61); }
TEST(FusedGroups, ThatShareBlocks) { CheckGroups(kByte, 4, 40, false, 62); }
TEST(FusedGroups, InPlace) { CheckGroups(kByte, 3, 64, true, 63); }
TEST(FusedGroups, WiderThanABlockOfThreads) { CheckGroups(kByte, 2, 608, false, 64); }
TEST(FusedGroups, AsManyAsThereMayBe) { CheckGroups(kByte, 64, 32, false, 65); }
TEST(FusedGroups, MoreThanThereMayBe) { CheckGroups(kByte, 65, 32, false, 66); }
TEST(FusedGroups, BeforeHalves) { CheckGroups(kHalf, 4, 40, false, 67); }

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
  CheckFused(job, seed, 0.02);
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
    LaunchCounter launches(backend);
    constexpr int kWidth = LaunchCounter::kWidth, kMost = LaunchCounter::kMost;
    const auto rows = [&](int n) { return launches.rows(n); };
    const auto bytes = RandomWeight(TensorType::kQ8_0, kWidth, kWidth, 1);
    const Matrix* const w = *backend.LoadMatrix({"w", TensorType::kQ8_0, kWidth, kWidth, bytes});
    const Vector norm = LoadFloats(backend, Floats1d(kWidth, 1.0f));
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
    EXPECT_EQ(launches([&](Ops& ops) { multiply(ops, rows(0), rows(1)), ops.ReluSquared(rows(1), rows(1)); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { multiply(ops, rows(0), rows(1)), ops.ReluSquared(rows(0), rows(1)); }), 2u)
        << "its result over what every block of threads quantises";
    EXPECT_EQ(launches([&](Ops& ops) {
                ops.MatMul(rows(0), std::array{Product{w, rows(1)}, Product{w, rows(2)}});
                ops.ReluSquared(rows(1), rows(1));
              }),
              2u)
        << "of one product of two";

    const auto half_bytes = RandomWeight(kHalf, kWidth, kWidth, 2);
    const Matrix* const halves = *backend.LoadMatrix({"w", kHalf, kWidth, kWidth, half_bytes});
    const auto of_halves = [&](Ops& ops, Rows in, Rows out) { ops.MatMul(in, std::array{Product{halves, out}}); };
    EXPECT_EQ(launches([&](Ops& ops) { ops.RmsNorm(rows(1), rows(0), norm, 1e-6f), of_halves(ops, rows(1), rows(2)); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { ops.RmsNorm(rows(1), rows(0), norm, 1e-6f), of_halves(ops, rows(1), rows(2)); }, 2), 2u);
    EXPECT_EQ(launches([&](Ops& ops) { ops.RmsNorm(rows(1), rows(0), norm, 1e-6f), of_halves(ops, rows(1), rows(0)); }), 2u)
        << "a product over what the norm is of";
    EXPECT_EQ(launches([&](Ops& ops) {
                ops.RmsNorm(rows(1), rows(0), norm, 1e-6f);
                ops.MatMul(rows(1), std::array{Product{halves, rows(2)}, Product{w, rows(3)}});
              }),
              3u)
        << "what the norm quantises for another product";
    EXPECT_EQ(launches([&](Ops& ops) { of_halves(ops, rows(0), rows(1)), ops.ReluSquared(rows(1), rows(1)); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { of_halves(ops, rows(0), rows(1)), ops.ReluSquared(rows(0), rows(1)); }), 2u)
        << "its result over what every block of threads reads";

    const Vector norms = LoadFloats(backend, Floats1d(kWidth, 1.0f), 2);
    const auto groups = [&](Ops& ops, Rows out, Rows in, int second) {
      ops.RmsNorm(out.Columns(0, 64), in.Columns(0, 64), {norms.data, 64}, 1e-6f);
      ops.RmsNorm(out.Columns(64, 64), in.Columns(64, 64), {norms.data + second, 64}, 1e-6f);
    };
    EXPECT_EQ(launches([&](Ops& ops) { groups(ops, rows(1), rows(0), 64), multiply(ops, rows(1), rows(2)); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { groups(ops, rows(1), rows(0), 64); }, kMost), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { groups(ops, rows(1), rows(1), 64); }, kMost), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { groups(ops, rows(1), rows(0), 0); }, kMost, 1), 1u)
        << "with weights of their own they are two norms";
    const Rows later{rows(0).data + 64, kWidth, kWidth, Domain::kRows};
    EXPECT_EQ(launches([&](Ops& ops) { groups(ops, later, rows(0), 64); }, kMost), 2u) << "the first group over the second";

    const auto norm_of = [&](Ops& ops, Rows out, Rows in) { ops.RmsNorm(out, in, norm, 1e-6f); };
    EXPECT_EQ(launches([&](Ops& ops) { norm_of(ops, rows(1), rows(0)), norm_of(ops, rows(2), rows(2)); }, kMost, 1), 1u);
    EXPECT_EQ(launches(
                  [&](Ops& ops) {
                    for (int n = 1; n < 5; ++n) norm_of(ops, rows(n), rows(0));
                  },
                  kMost, 2),
              2u)
        << "three and one";
    EXPECT_EQ(launches([&](Ops& ops) { norm_of(ops, rows(1), rows(0)), norm_of(ops, rows(2), rows(1)); }), 2u) << "a norm of a norm";
    EXPECT_EQ(launches([&](Ops& ops) { norm_of(ops, rows(1), rows(0)), norm_of(ops, rows(0), rows(2)); }), 2u)
        << "over what the first is of";
    EXPECT_EQ(launches([&](Ops& ops) { norm_of(ops, rows(1), rows(0)), norm_of(ops, rows(1), rows(2)); }), 2u) << "over the first";
    EXPECT_EQ(
        launches([&](Ops& ops) { norm_of(ops, rows(1), rows(0)), norm_of(ops, rows(2), rows(0)), multiply(ops, rows(2), rows(3)); }, 1, 1),
        2u)
        << "the second goes into the product";

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
  }
}

}  // namespace
}  // namespace reprise
