// Recurrences in steps of few rows, whose launches are fewer: the same bits as the single launches of steps of more rows, in everything that they leave
// in memory; and nothing becomes one that must not.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "backend/cuda/device_rig.h"
#include "backend/cuda/fuse_rig.h"
#include "backend/weight_rig.h"

namespace reprise {
namespace {

// A layer of the delta rule behind its first product, in lanes that bring rows and lanes that bring none; or what runs again of it.
void CheckDelta(const Ops::DeltaNetShape& s, int kernel, uint32_t seed, bool normed = true) {
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
    if (normed) ops.GatedRmsNorm(remembered, remembered, gate, LoadFloats(backend, norm), 1e-6f);
    if (values % 32 == 0) {
      ops.MatMul(remembered, std::array{Product{*backend.LoadMatrix({"w", TensorType::kQ8_0, values, 40, output}),
                                                out.Columns(channels + values, 40)}});
    } else {
      ops.SwiGlu(out.Columns(channels + values, 40), in.Columns(0, 40), in.Columns(0, 40));
    }
  };
  CheckFused(job, seed, 0.05);
}
TEST(FusedDelta, OneKeyHeadAValueHead) { CheckDelta({2, 64, 2, 64}, 4, 41); }
TEST(FusedDelta, KeyHeadsThatValueHeadsShare) { CheckDelta({2, 128, 6, 128}, 4, 42); }
TEST(FusedDelta, KeyHeadsThatNeighboursShare) { CheckDelta({2, 64, 6, 64, /*neighbours=*/true}, 4, 47); }
TEST(FusedDelta, OneWarp) { CheckDelta({1, 16, 2, 8}, 4, 46); }
TEST(FusedDelta, OddWidths) { CheckDelta({1, 10, 3, 21}, 3, 43); }
TEST(FusedDelta, WidestKeys) { CheckDelta({1, 256, 2, 32}, 2, 44); }
TEST(FusedDelta, ValuesTooWideForOneLaunch) { CheckDelta({2, 32, 2, 160}, 4, 45); }

TEST(FusedDelta, NotNormed) { CheckDelta({2, 64, 6, 64}, 4, 48, /*normed=*/false); }

// What Mamba-2 has of a row behind its first product, up to the last; or what runs again of it.
struct MambaCase {
  Ops::SsmShape shape;
  int kernel;
  TensorType output;
  bool bias, normed;
  bool gated = true;
};
void CheckMamba(const MambaCase& c, uint32_t seed) {
  const Ops::SsmShape& s = c.shape;
  const int inner = s.heads * s.head_dim, channels = inner + 2 * s.groups * s.state_dim, of_group = inner / s.groups;
  constexpr int kOutputs = 40;
  const auto tail_bytes = sizeof(float) * static_cast<size_t>((c.kernel - 1) * channels);
  const StateRef tail{0, tail_bytes, ElementType::kF32},
      memory{(tail_bytes + 63) / 64 * 64, sizeof(float) * static_cast<size_t>(inner * s.state_dim), ElementType::kF32};
  Job job;
  job.in = inner + channels + s.heads;
  job.out = channels + 2 * inner + kOutputs;
  job.lane_rows = {9, 1, 6};  // in one step more than kFewRows
  job.block_bytes = memory.offset + memory.bytes;
  for (uint32_t lane = 0; lane < 3; ++lane) {
    auto block = BytesOf(RandomFloats(job.block_bytes / sizeof(float), seed + lane, 0.3f));
    std::memset(block.data() + tail_bytes, 0xff, memory.offset - tail_bytes);  // nobody's: poisoned in the write block
    job.first_block.push_back(std::move(block));
  }
  const auto random = [&](int count, uint32_t more) { return RandomFloats(static_cast<size_t>(count), seed + more); };
  const Floats1d weight = random(channels * c.kernel, 1), bias = random(channels, 2), dt = random(s.heads, 3), d = random(s.heads, 4),
                 norm = random(inner, 5), a(static_cast<size_t>(s.heads), -0.7f);
  const auto output = RandomWeight(c.output, inner, kOutputs, seed);
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Rows z = in.Columns(0, inner), xbc = in.Columns(inner, channels), steps = in.Columns(inner + channels, s.heads);
    const Rows convolved = out.Columns(0, channels), scanned = out.Columns(channels, inner), normed = out.Columns(channels + inner, inner);
    ops.CausalConv(convolved, xbc, tail, LoadFloats(backend, weight, channels), c.bias ? LoadFloats(backend, bias) : Vector{}, c.kernel,
                   true);
    ops.Ssm(scanned, convolved, steps, LoadFloats(backend, a), LoadFloats(backend, dt), LoadFloats(backend, d), memory, s);
    if (c.gated) ops.SwiGlu(scanned, z, scanned);
    const Vector norms = LoadFloats(backend, norm, s.groups);
    for (int first = 0; c.normed && first < inner; first += of_group) {
      ops.RmsNorm(normed.Columns(first, of_group), scanned.Columns(first, of_group), Vector{norms.data + first, of_group}, 1e-6f);
    }
    ops.MatMul(c.normed ? normed : scanned, std::array{Product{*backend.LoadMatrix({"w", c.output, inner, kOutputs, output}),
                                                               out.Columns(channels + 2 * inner, kOutputs)}});
    if (!c.normed) ops.Multiply(normed, z, z);  // something to be there
  };
  CheckFused(job, seed, 0.05);
}
constexpr auto kByte = TensorType::kQ8_0, kBFloat = TensorType::kBF16;
TEST(FusedMamba, OneGroupNormed) { CheckMamba({{3, 64, 1, 128}, 4, kByte, true, true}, 71); }
TEST(FusedMamba, GroupsNormed) { CheckMamba({{6, 32, 2, 64}, 4, kByte, true, true}, 72); }
TEST(FusedMamba, NotNormed) { CheckMamba({{4, 64, 2, 32}, 4, kByte, false, false}, 73); }
TEST(FusedMamba, HeadsThatAreNoWholeBlocks) { CheckMamba({{4, 80, 2, 40}, 4, kByte, true, true}, 74); }
TEST(FusedMamba, NoWholeBlocksAreQuantisedApart) { CheckMamba({{4, 48, 2, 16}, 3, kByte, true, false}, 75); }
TEST(FusedMamba, OddWidths) { CheckMamba({{3, 21, 3, 10}, 2, kBFloat, true, true}, 76); }
TEST(FusedMamba, WidestStates) { CheckMamba({{2, 32, 1, 256}, 4, kBFloat, true, false}, 77); }
TEST(FusedMamba, NotGated) { CheckMamba({{4, 80, 2, 40}, 4, kByte, true, false, false}, 79); }
TEST(FusedMamba, TailsLongerThanSteps) { CheckMamba({{2, 32, 1, 32}, 12, kByte, true, true}, 78); }

// What Mamba-1 has of a row behind the product that makes its steps: three norms (of which only two are read), the scan, the gate, and a product.
void CheckScan(int channels, int states, TensorType type, uint32_t seed) {
  constexpr int kOutputs = 40;
  const StateRef state{0, sizeof(float) * static_cast<size_t>(channels * states), ElementType::kF32};
  Job job;
  job.in = 3 * channels + 2 * states + 32;
  job.out = 2 * states + 32 + channels + kOutputs;
  job.lane_rows = {9, 1, 6};  // in one step more than kFewRows
  job.block_bytes = state.bytes;
  for (uint32_t lane = 0; lane < 3; ++lane) job.first_block.push_back(BytesOf(RandomFloats(state.bytes / sizeof(float), seed + lane)));
  const auto random = [&](int count, uint32_t more) { return RandomFloats(static_cast<size_t>(count), seed + more); };
  const Floats1d dt = random(channels, 3), d = random(channels, 4), of_b = random(states, 5), of_c = random(states, 6),
                 of_rank = random(32, 7);
  Floats1d a = random(channels * states, 8);
  for (float& x : a) x = -std::exp(x);
  const auto output = RandomWeight(type, channels, kOutputs, seed);
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Rows x = in.Columns(0, channels), steps = in.Columns(channels, channels), z = in.Columns(2 * channels, channels);
    const Rows b = out.Columns(0, states), c = out.Columns(states, states), scanned = out.Columns(2 * states + 32, channels);
    ops.RmsNorm(b, in.Columns(3 * channels, states), LoadFloats(backend, of_b), 1e-6f);
    ops.RmsNorm(c, in.Columns(3 * channels + states, states), LoadFloats(backend, of_c), 1e-6f);
    ops.RmsNorm(out.Columns(2 * states, 32), in.Columns(3 * channels + 2 * states, 32), LoadFloats(backend, of_rank), 1e-6f);
    ops.SelectiveScan(scanned, x, steps, b, c, LoadFloats(backend, a), LoadFloats(backend, dt), LoadFloats(backend, d), state);
    ops.SwiGlu(scanned, z, scanned);
    ops.MatMul(scanned, std::array{Product{*backend.LoadMatrix({"w", type, channels, kOutputs, output}),
                                           out.Columns(2 * states + 32 + channels, kOutputs)}});
  };
  CheckFused(job, seed, 0.05);
}
TEST(FusedScan, Quantised) { CheckScan(96, 16, kByte, 91); }
TEST(FusedScan, FewDimensions) { CheckScan(64, 5, kBFloat, 92); }
TEST(FusedScan, NoWholeBlocks) { CheckScan(48, 16, kBFloat, 93); }

// A convolution between two products of its channels, and the product of weights that follows.
void CheckShortConv(int width, int kernel, TensorType type, uint32_t seed) {
  constexpr int kOutputs = 40;
  const StateRef tail{0, sizeof(float) * static_cast<size_t>((kernel - 1) * width), ElementType::kF32};
  Job job;
  job.in = 3 * width;
  job.out = 2 * width + kOutputs;
  job.lane_rows = {9, 1, 6};  // in one step more than kFewRows
  job.block_bytes = tail.bytes;
  for (uint32_t lane = 0; lane < 3; ++lane) job.first_block.push_back(BytesOf(RandomFloats(tail.bytes / sizeof(float), seed + lane)));
  const Floats1d weight = RandomFloats(static_cast<size_t>(width * kernel), seed + 3);
  const auto output = RandomWeight(type, width, kOutputs, seed);
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Rows b = in.Columns(0, width), c = in.Columns(width, width), x = in.Columns(2 * width, width);
    const Rows gated = out.Columns(0, width), convolved = out.Columns(width, width);
    ops.Multiply(gated, b, x);
    ops.CausalConv(convolved, gated, tail, LoadFloats(backend, weight, width), {}, kernel, false);
    ops.Multiply(convolved, c, convolved);
    ops.MatMul(convolved, std::array{Product{*backend.LoadMatrix({"w", type, width, kOutputs, output}), out.Columns(2 * width, kOutputs)}});
  };
  CheckFused(job, seed, 0.05);
}
TEST(FusedShortConv, Quantised) { CheckShortConv(320, 3, kByte, 81); }  // more than a block of threads
TEST(FusedShortConv, OddWidth) { CheckShortConv(75, 3, kBFloat, 82); }
TEST(FusedShortConv, LongTail) { CheckShortConv(64, 16, kByte, 83); }

// How many launches a step has, where it may be fewer and where it must not.
TEST(Fuse, OnlyRecurrencesThatMayBecomeOneLaunch) {
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    LaunchCounter launches(backend);
    const auto rows = [&](int n) { return launches.rows(n); };
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

    const Ops::SsmShape m{2, 32, 1, 32};  // with as many channels
    const auto mamba = [&](Ops& ops, Rows xbc, Rows gate, Rows dt, Rows out) {
      ops.CausalConv(rows(1), xbc, tail, weight, {}, 4, true);
      ops.Ssm(out.Columns(0, 64), rows(1), dt.Columns(0, 2), of_heads, of_heads, of_heads, memory, m);
      ops.SwiGlu(out.Columns(0, 64), gate.Columns(0, 64), out.Columns(0, 64));
    };
    for (const int few : {1, 2, 8}) {
      EXPECT_EQ(launches([&](Ops& ops) { mamba(ops, rows(0), rows(2), rows(3), rows(4)); }, few), 1u) << few;
    }
    EXPECT_EQ(launches([&](Ops& ops) { mamba(ops, rows(0), rows(2), rows(3), rows(0).Columns(64, 64)); }, 8), 3u)
        << "its result among what other heads convolve";
    EXPECT_EQ(launches([&](Ops& ops) { mamba(ops, rows(0), rows(2), rows(4).Columns(32, 2), rows(4)); }, 8), 3u)
        << "its result over what other heads' steps are made of";
    EXPECT_EQ(launches([&](Ops& ops) { mamba(ops, rows(0), rows(1), rows(3), rows(4)); }, 8), 2u) << "what is convolved over the gate";
    EXPECT_EQ(launches([&](Ops& ops) { mamba(ops, rows(0), rows(2), rows(3), rows(1)); }, 8), 3u) << "two results in one place";
    EXPECT_EQ(launches([&](Ops& ops) {
                ops.CausalConv(rows(1), rows(0), tail, weight, {}, 4, true);
                ops.Ssm(rows(4).Columns(0, 64), rows(1), rows(3).Columns(0, 2), of_heads, of_heads, of_heads, memory, m);
                ops.SwiGlu(rows(5).Columns(0, 64), rows(2).Columns(0, 64), rows(4).Columns(0, 64));
              }),
              2u)
        << "what was read of the state stays";
    EXPECT_EQ(launches([&](Ops& ops) {
                ops.CausalConv(rows(1), rows(0), tail, weight, {}, 4, true);
                ops.Ssm(rows(4).Columns(0, 64), rows(1), rows(3).Columns(0, 2), of_heads, of_heads, of_heads, memory, m);
                ops.CausalConv(rows(1), rows(2), tail, weight, {}, 4, true);
                ops.DeltaNet(rows(4).Columns(0, 64), rows(1), rows(3).Columns(0, 2), rows(3).Columns(2, 2), of_heads, of_heads, memory, s);
              }),
              2u)
        << "recurrences that run again for their states alone";

    const Vector of_channels = LoadFloats(backend, Floats1d(64, 1.0f)), of_states = LoadFloats(backend, Floats1d(64 * 8, -1.0f));
    const auto scan = [&](Ops& ops, Rows x, Rows gate, Rows out, Rows b, int channels) {
      const StateRef states{0, static_cast<size_t>(channels) * 8 * 4, ElementType::kF32};
      const Vector own{of_channels.data, channels};
      ops.SelectiveScan(out.Columns(0, channels), x.Columns(0, channels), rows(1).Columns(0, channels), b.Columns(0, 8), b.Columns(8, 8),
                        {of_states.data, int64_t{channels} * 8}, own, own, states);
      ops.SwiGlu(out.Columns(0, channels), gate.Columns(0, channels), out.Columns(0, channels));
    };
    for (const int few : {1, 2, 8}) {
      EXPECT_EQ(launches([&](Ops& ops) { scan(ops, rows(0), rows(2), rows(3), rows(4), 64); }, few), 1u) << few;
    }
    EXPECT_EQ(launches([&](Ops& ops) { scan(ops, rows(0), rows(2), rows(3), rows(4), 48); }), 2u) << "channels that are no whole blocks";
    EXPECT_EQ(launches([&](Ops& ops) { scan(ops, rows(0), rows(2), rows(3), rows(3).Columns(32, 16), 64); }), 2u)
        << "its result over what other channels read";

    const auto short_conv = [&](Ops& ops, Rows a, Rows b, Rows c, Rows out) {
      ops.Multiply(rows(1), a, b);
      ops.CausalConv(out, rows(1), tail, weight, {}, 4, false);
      ops.Multiply(out, c, out);
    };
    for (const int few : {1, 2, 8}) {
      EXPECT_EQ(launches([&](Ops& ops) { short_conv(ops, rows(0), rows(2), rows(3), rows(4)); }, few), 1u) << few;
    }
    EXPECT_EQ(launches([&](Ops& ops) { short_conv(ops, rows(0), rows(2), rows(3), rows(3)); }), 3u) << "over what it is multiplied with";
    EXPECT_EQ(launches([&](Ops& ops) { short_conv(ops, rows(0), rows(2), rows(1), rows(4)); }), 3u) << "multiplied with what is convolved";
    EXPECT_EQ(launches([&](Ops& ops) { short_conv(ops, rows(0), rows(2), rows(3), rows(0)); }), 3u) << "over what is multiplied first";
  }
}

}  // namespace
}  // namespace reprise
