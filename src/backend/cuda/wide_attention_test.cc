// Attention of heads wider than 256 columns, which are staged, summed and joined in turns: the same bits from either form of its work and from each of the
// kernels that a number of rows may get, over histories that lanes share, and what the join quantises in passing. attention_test.cc holds such heads
// against sums of doubles. On the emulator, and on a GPU where there is one.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <string>

#include "backend/cpu/cpu_rig.h"
#include "backend/cuda/device_rig.h"
#include "backend/weight_rig.h"
#include "base/checked.h"

namespace reprise {
namespace {

struct WideCase {
  int heads, kv_heads, width;
  ElementType type;
  AttentionSpec spec;

  int q_width() const { return heads * width; }
  int kv_width() const { return kv_heads * width; }
  // Row: [q | k | v | gate].
  Job MakeJob(std::vector<int> lane_rows) const {
    const WideCase c = *this;
    Job job;
    job.in = 2 * q_width() + 2 * kv_width();
    job.out = q_width();
    job.lane_rows = std::move(lane_rows);
    const size_t elements = static_cast<size_t>(type == ElementType::kQ8_0 ? kv_width() / kQ8Values : kv_width());
    const StateRef k{0, ElementSize(type) * elements, type};
    const StateRef v{AlignUp(k.bytes * kExtentRows, 64), k.bytes, type};
    job.extent_bytes = v.offset + v.bytes * kExtentRows;
    job.record = [=](Backend& backend, Ops& ops, Rows in, Rows out) {
      ops.Append(k, in.Columns(c.q_width(), c.kv_width()));
      ops.Append(v, in.Columns(c.q_width() + c.kv_width(), c.kv_width()));
      AttentionSpec spec = c.spec;
      spec.kv_heads = c.kv_heads;
      spec.scale = 1.0f / std::sqrt(static_cast<float>(c.width));
      spec.sinks = LoadFloats(backend, RandomFloats(static_cast<size_t>(c.heads), 6, 2.0f), c.heads);
      const Rows gate = in.Columns(c.q_width() + 2 * c.kv_width(), c.q_width());
      ops.Attention(out, {in.Columns(0, c.q_width()), c.heads, c.width, c.width}, k, v, {gate, c.heads, c.width, c.width}, spec);
    };
    return job;
  }
};

class WideHeads : public testing::TestWithParam<WideCase> {};
INSTANTIATE_TEST_SUITE_P(Widths, WideHeads,
                         testing::Values(WideCase{8, 1, 512, ElementType::kF16, {.first_position = 200}},
                                         WideCase{8, 1, 512, ElementType::kF32, {.first_position = 200}},
                                         WideCase{4, 2, 320, ElementType::kF16, {.window = 40}},
                                         WideCase{4, 2, 320, ElementType::kF32, {.window = 40}},
                                         WideCase{8, 1, 512, ElementType::kQ8_0, {.first_position = 200}},
                                         WideCase{4, 2, 320, ElementType::kQ8_0, {.window = 40}},
                                         WideCase{6, 2, 128, ElementType::kQ8_0, {}},
                                         WideCase{3, 3, 32, ElementType::kQ8_0, {.window = 20}},  // rows of three blocks: read byte by byte
                                         WideCase{1, 1, 259, ElementType::kF16, {.window = 20}},  // rows that do not start on 16 bytes
                                         WideCase{1, 1, 259, ElementType::kF32, {.window = 20}}),
                         [](const auto& info) {
                           const WideCase& c = info.param;
                           return std::to_string(c.heads) + "On" + std::to_string(c.kv_heads) + "Of" + std::to_string(c.width) +
                                  (c.type == ElementType::kF32   ? "Floats"
                                   : c.type == ElementType::kF16 ? "Halves"
                                                                 : "Bytes");
                         });

// A lane that goes on in the extents of another, against one that has its whole history to itself in one step. With the emulator's memory for partials,
// the second lane's single rows (of four heads: all its rows) are cut by block, and the others are not.
TEST_P(WideHeads, GiveTheSameBitsHoweverTheyAreCut) {
  const WideCase c = GetParam();
  constexpr int kShared = 256, kOwn = 5;
  Job job = c.MakeJob({kShared + 1, kOwn});
  job.prefix = {0, kShared};
  const Job whole = c.MakeJob({kShared + kOwn});
  const auto width = static_cast<size_t>(job.in);
  const Floats1d rows = RandomFloats(kShared * width, 31), other = RandomFloats(width, 32), own = RandomFloats(kOwn * width, 33);
  Floats1d shared = rows, alone = rows;
  shared.insert(shared.end(), other.begin(), other.end());
  shared.insert(shared.end(), own.begin(), own.end());
  alone.insert(alone.end(), own.begin(), own.end());
  for (TestBackend& device : DeviceBackends()) {
    const Floats1d wanted = RunJobOn(*device.backend, whole, alone, OneStep(whole.lane_rows)).out[0];
    const Outcome got = RunJobOn(*device.backend, job, shared, {{kShared, 0}, {0, 1}, {1, 1}, {0, 3}});
    const auto first = static_cast<size_t>(kShared * job.out);
    EXPECT_EQ(std::memcmp(got.out[0].data(), wanted.data(), first * sizeof(float)), 0) << device.name;
    EXPECT_EQ(std::memcmp(got.out[1].data(), wanted.data() + first, got.out[1].size() * sizeof(float)), 0) << device.name;
  }
}

// A product of what was attended is that of the same rows given as such, whichever kernel quantised them: the join does it in passing.
TEST(WideAttention, TheJoinQuantisesEveryColumn) {
  constexpr int kOutputs = 33, kRows = 260;
  const WideCase c{2, 1, 512, ElementType::kF32, {.first_position = 250}};
  const auto bytes = RandomWeight(TensorType::kQ8_0, c.q_width(), kOutputs, 5);
  const auto multiply = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.MatMul(in, std::array{Product{*backend.LoadMatrix({"w", TensorType::kQ8_0, c.q_width(), kOutputs, bytes}), out}});
  };
  const Job attention = c.MakeJob({kRows});
  Job both = attention, product;
  both.out += kOutputs;
  both.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    attention.record(backend, ops, in, out.Columns(0, attention.out));
    multiply(backend, ops, out.Columns(0, attention.out), out.Columns(attention.out, kOutputs));
  };
  product.in = attention.out;
  product.out = kOutputs;
  product.lane_rows = {kRows};
  product.record = multiply;
  const Floats1d in = RandomFloats(static_cast<size_t>(kRows * both.in), 7);
  for (TestBackend& device : DeviceBackends()) {
    const Floats1d got = RunJobOn(*device.backend, both, in, {{256}, {1}, {3}}).out[0];  // the last by block
    Floats1d attended, products;
    for (auto row = got.begin(); row != got.end(); row += both.out) {
      attended.insert(attended.end(), row, row + attention.out);
      products.insert(products.end(), row + attention.out, row + both.out);
    }
    EXPECT_EQ(RunJobOn(*device.backend, product, attended, {{kRows}}).out[0], products) << device.name;
  }
}

}  // namespace
}  // namespace reprise
