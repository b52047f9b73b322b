// Recurrences in steps of few rows, whose launches are fewer: the same bits as the single launches of steps of more rows, in everything that they leave
// in memory; and nothing becomes one that must not.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <utility>

#include "backend/cuda/device_rig.h"
#include "backend/cuda/fuse_rig.h"
#include "backend/weight_rig.h"

namespace reprise {
namespace {

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
  CheckFused(job, seed, 0.05);
}
TEST(FusedDelta, OneKeyHeadAValueHead) { CheckDelta({2, 64, 2, 64}, 4, 41); }
TEST(FusedDelta, KeyHeadsThatValueHeadsShare) { CheckDelta({2, 128, 6, 128}, 4, 42); }
TEST(FusedDelta, KeyHeadsThatNeighboursShare) { CheckDelta({2, 64, 6, 64, /*neighbours=*/true}, 4, 47); }
TEST(FusedDelta, OneWarp) { CheckDelta({1, 16, 2, 8}, 4, 46); }
TEST(FusedDelta, OddWidths) { CheckDelta({1, 10, 3, 21}, 3, 43); }
TEST(FusedDelta, WidestKeys) { CheckDelta({1, 256, 2, 32}, 2, 44); }
TEST(FusedDelta, ValuesTooWideForOneLaunch) { CheckDelta({2, 32, 2, 160}, 4, 45); }

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
  }
}

}  // namespace
}  // namespace reprise
