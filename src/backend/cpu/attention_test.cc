// Attention over the rows of a lane's history, and what appends them, against plain references in double precision, and bit-equal however the work
// is cut.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "backend/cpu/cpu_rig.h"
#include "base/checked.h"
#include "base/half.h"
#include "formats/quantize.h"

namespace reprise {
namespace {

using Doubles = std::vector<double>;

struct AttentionCase {
  int heads, kv_heads, width;
  ElementType type;
  int first_position;
  bool gated;
  std::vector<int> lane_rows;
  int window = 0;
  bool sinks = false;

  AttentionSpec Spec() const {
    AttentionSpec spec;
    spec.kv_heads = kv_heads;
    spec.scale = 1.0f / std::sqrt(static_cast<float>(width));
    spec.first_position = first_position;
    spec.window = window;
    return spec;
  }
  // Some far above the scores, some far below.
  Floats1d Sinks() const { return RandomFloats(static_cast<size_t>(heads), 77, 4.0f); }
};

size_t RowBytes(ElementType type, int numbers) {
  return ElementSize(type) * static_cast<size_t>(type == ElementType::kQ8_0 ? numbers / kQ8Values : numbers);
}

// Row: [q | k | v | gate]. Keys and values are appended, then attended to.
Job AttentionJob(const AttentionCase& c) {
  const int q_width = c.heads * c.width, kv_width = c.kv_heads * c.width;
  Job job;
  job.in = q_width + 2 * kv_width + q_width;
  job.out = q_width;
  job.lane_rows = c.lane_rows;
  const StateRef k{0, RowBytes(c.type, kv_width), c.type};
  const StateRef v{AlignUp(k.bytes * kExtentRows, 64), k.bytes, c.type};
  job.extent_bytes = v.offset + v.bytes * kExtentRows;
  job.record = [=](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.Append(k, in.Columns(q_width, kv_width));
    ops.Append(v, in.Columns(q_width + kv_width, kv_width));
    const Heads q{in.Columns(0, q_width), c.heads, c.width, c.width};
    Heads gate{in.Columns(q_width + 2 * kv_width, q_width), c.heads, c.width, c.width};
    if (!c.gated) gate.count = 0;
    AttentionSpec spec = c.Spec();
    if (c.sinks) {
      const Floats1d sinks = c.Sinks();
      spec.sinks = *backend.LoadVector({"sinks", TensorType::kF32, 1, c.heads, std::as_bytes(std::span(sinks))});
    }
    ops.Attention(out, q, k, v, gate, spec);
  };
  return job;
}

// A head of keys or values as attention reads it back. As Q8_0: what ggml's arithmetic makes of it, on a device the nearest halves of that.
Doubles Stored(ElementType type, const float* x, int width, bool on_device) {
  Doubles stored(x, x + width);
  if (type == ElementType::kQ8_0) {
    std::vector<std::byte> blocks(static_cast<size_t>(width) / 32 * 34);
    Floats1d back(static_cast<size_t>(width));
    EXPECT_TRUE(QuantizeRow(TensorType::kQ8_0, {x, back.size()}, blocks).ok());
    EXPECT_TRUE(DequantizeRow(TensorType::kQ8_0, blocks, back).ok());
    stored.assign(back.begin(), back.end());
  }
  if (type == ElementType::kF16 || (type == ElementType::kQ8_0 && on_device)) {
    for (double& y : stored) y = HalfToFloat(FloatToHalf(static_cast<float>(y)));
  }
  return stored;
}

// A query times the scale, as it meets the keys: those of Q8_0 on the CPU as bytes.
Doubles Asked(ElementType type, const float* x, int width, float scale, bool on_device) {
  Doubles asked;
  for (int i = 0; i < width; ++i) asked.push_back(static_cast<double>(x[i] * scale));
  if (type != ElementType::kQ8_0 || on_device) return asked;
  for (int b = 0; b < width; b += 32) {
    float top = 0;
    for (int i = b; i < b + 32; ++i) top = std::max(top, std::abs(x[i] * scale));
    for (int i = b; i < b + 32; ++i) {
      asked[static_cast<size_t>(i)] = static_cast<double>(top / 127.0f) * std::nearbyint(x[i] * scale * (127.0f / top));
    }
  }
  return asked;
}

// `in`: the rows of all lanes, as AttentionJob has them.
void CheckAttention(const AttentionCase& c, const Floats1d& in, uint32_t seed, int most_chunk, double tolerance) {
  const Job job = AttentionJob(c);
  const int q_width = c.heads * c.width, kv_width = c.kv_heads * c.width;
  const AttentionSpec spec = c.Spec();
  const Floats1d sinks = c.Sinks();
  for (const Outcome& outcome : RunEveryWay(job, in, seed, most_chunk)) {
    SCOPED_TRACE(outcome.numerics);
    const bool on_device = outcome.numerics.starts_with("cuda");
    int first = 0;
    for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
      Doubles wanted;
      for (int row = 0; row < c.lane_rows[lane]; ++row) {
        const float* x = &in[static_cast<size_t>(first + row) * job.in];
        for (int head = 0; head < c.heads; ++head) {
          const int kv_head = head / (c.heads / c.kv_heads);
          Doubles scores, sums(c.width);
          double most = -1e300, total = 0;
          const Doubles asked = Asked(c.type, x + head * c.width, c.width, spec.scale, on_device);
          const int seen = std::max(c.first_position, c.window ? row - c.window + 1 : 0);
          for (int p = seen; p <= row; ++p) {
            const Doubles key =
                Stored(c.type, &in[static_cast<size_t>(first + p) * job.in] + q_width + kv_head * c.width, c.width, on_device);
            scores.push_back(std::inner_product(asked.begin(), asked.end(), key.begin(), 0.0));
            most = std::max(most, scores.back());
          }
          for (int p = seen; p <= row; ++p) {
            const float* from = &in[static_cast<size_t>(first + p) * job.in] + q_width + kv_width + kv_head * c.width;
            const Doubles value = Stored(c.type, from, c.width, on_device);
            const double weight = std::exp(scores[static_cast<size_t>(p - seen)] - most);
            total += weight;
            for (size_t i = 0; i < sums.size(); ++i) sums[i] += weight * value[i];
          }
          if (c.sinks && total > 0) total += std::exp(static_cast<double>(sinks[static_cast<size_t>(head)]) - most);
          for (int i = 0; i < c.width; ++i) {
            double y = total > 0 ? sums[static_cast<size_t>(i)] / total : 0.0;
            if (c.gated) y /= 1 + std::exp(-static_cast<double>(x[q_width + 2 * kv_width + head * c.width + i]));
            wanted.push_back(y);
          }
        }
      }
      ExpectNear(outcome.out[lane], wanted, tolerance);
      first += c.lane_rows[lane];
    }
  }
}

void CheckAttention(const AttentionCase& c, uint32_t seed, int most_chunk) {
  const int rows = std::accumulate(c.lane_rows.begin(), c.lane_rows.end(), 0);
  // Halves, and values of bytes, are multiplied as integers of some 14 bits, of which wide heads leave a query fewer.
  const double tolerance = c.type == ElementType::kF32 ? 2e-5 : c.width > 256 ? 5e-4 : 2e-4;
  CheckAttention(c, RandomFloats(static_cast<size_t>(rows) * AttentionJob(c).in, seed), seed, most_chunk, tolerance);
}

TEST(Attention, GroupedHeadsOfTwoLanes) { CheckAttention({8, 2, 64, ElementType::kF16, 0, true, {70, 5}}, 1, 9); }
TEST(Attention, OneHeadAcrossBlocks) { CheckAttention({1, 1, 16, ElementType::kF32, 0, false, {600}}, 2, 150); }
TEST(Attention, ManyHeadsAcrossBlocks) { CheckAttention({6, 2, 32, ElementType::kF16, 0, false, {300, 257, 256}}, 3, 100); }
TEST(Attention, OddWidths) { CheckAttention({3, 1, 20, ElementType::kF16, 0, true, {40, 1}}, 4, 5); }
TEST(Attention, NarrowHeads) { CheckAttention({4, 4, 6, ElementType::kF32, 0, false, {33}}, 5, 5); }
TEST(Attention, FirstPosition) { CheckAttention({2, 1, 16, ElementType::kF32, 3, true, {40}}, 6, 7); }
TEST(Attention, FirstPositionInALaterBlock) { CheckAttention({2, 1, 16, ElementType::kF16, 270, false, {400, 280}}, 7, 60); }
TEST(Attention, BytesOfTwoLanesAcrossBlocks) { CheckAttention({8, 2, 64, ElementType::kQ8_0, 0, true, {300, 70, 5}}, 9, 100); }
TEST(Attention, BytesFromAFirstPositionOn) { CheckAttention({3, 1, 32, ElementType::kQ8_0, 270, false, {400, 280}}, 10, 60); }
TEST(Attention, WindowWithinABlock) { CheckAttention({4, 2, 32, ElementType::kF16, 0, true, {90, 7}, 20}, 12, 17); }
TEST(Attention, WindowOfFloatsAcrossBlocks) { CheckAttention({2, 1, 16, ElementType::kF32, 0, false, {600, 300}, 130}, 13, 120); }
TEST(Attention, WindowOfWholeBlocks) { CheckAttention({6, 2, 32, ElementType::kF16, 0, false, {830}, 256}, 14, 200); }
TEST(Attention, WindowOfOnePosition) { CheckAttention({2, 2, 20, ElementType::kF32, 0, false, {300}, 1}, 15, 90); }
TEST(Attention, WindowOfBytes) { CheckAttention({8, 1, 64, ElementType::kQ8_0, 0, true, {560, 20}, 100}, 16, 110); }
TEST(Attention, WindowAfterAFirstPosition) { CheckAttention({3, 1, 24, ElementType::kF16, 270, true, {620, 272}, 200}, 17, 90); }
TEST(Attention, WindowBeyondAllPositions) { CheckAttention({2, 1, 16, ElementType::kF16, 0, false, {300}, 5000}, 18, 90); }
TEST(Attention, Sinks) {
  for (const ElementType type : {ElementType::kF32, ElementType::kF16, ElementType::kQ8_0}) {
    CheckAttention({8, 2, 64, type, 3, true, {300, 70}, 0, true}, 19, 90);
    CheckAttention({8, 2, 32, type, 0, false, {300, 5}, 64, true}, 20, 90);
  }
}
TEST(Attention, BytesOfWideHeads) { CheckAttention({8, 1, 256, ElementType::kQ8_0, 3, true, {130}}, 11, 40); }

TEST(Append, BytesAreThoseOfQ8_0) {
  constexpr int kWidth = 96, kRows = 70;
  const StateRef state{64, RowBytes(ElementType::kQ8_0, kWidth), ElementType::kQ8_0};
  Job job;
  job.in = job.out = kWidth;
  job.lane_rows = {kRows};
  job.extent_bytes = state.offset + state.bytes * kExtentRows;
  job.record = [&](Backend&, Ops& ops, Rows in, Rows out) {
    ops.Append(state, in);
    ops.SwiGlu(out, in, in);  // a job has an output
  };
  Floats1d in = RandomFloats(kRows * kWidth, 50);
  std::fill_n(in.begin() + 32, 32, 0.0f);
  std::fill_n(in.begin() + 64, 32, 1e-35f);
  for (int i = 0; i < 32; ++i) in[static_cast<size_t>(kWidth + i)] *= 1e4f;
  for (const Outcome& outcome : RunEveryWay(job, in, 50)) {
    for (size_t row = 0; row < kRows; ++row) {
      std::vector<std::byte> wanted(state.bytes);
      ASSERT_TRUE(QuantizeRow(TensorType::kQ8_0, std::span(in).subspan(row * kWidth, kWidth), wanted).ok());
      const std::byte* const got = &outcome.rows[0][row / kExtentRows * job.extent_bytes + state.offset + row % kExtentRows * state.bytes];
      for (size_t b = 0; b < kWidth / 32; ++b) {
        EXPECT_EQ(std::memcmp(got + b * 32, &wanted[b * 34 + 2], 32), 0) << "row " << row << ", block " << b;
        EXPECT_EQ(std::memcmp(got + kWidth + b * 2, &wanted[b * 34], 2), 0) << "row " << row << ", block " << b;
      }
    }
  }
}

// Every product of a score, and of a sum of values, is as large as it can be and has the same sign: what no sum of 32 bits may exceed. Equal
// numbers are rounded alike, which is the worst that rounding does: half of a 2,048th of a query's, half of a 512th of a weight.
TEST(Attention, SumsOfIntegersAtTheirLimits) {
  const AttentionCase c{2, 1, 256, ElementType::kF16, 0, false, {300}};
  const int width = AttentionJob(c).in;
  Floats1d in;
  for (int row = 0; row < c.lane_rows[0]; ++row) {
    const float key = row % 3 == 0 ? -1.9990234f : 1.9990234f, value = row % 5 == 0 ? 1.5f : 1.9990234f;
    for (int i = 0; i < width; ++i) in.push_back(i < 256 ? 0.02f : i < 512 ? -0.02f : i < 768 ? key : value);
  }
  CheckAttention(c, in, 62, 70, 1e-3);
}

// Numbers of very different magnitudes, in one row and in neighbouring rows.
TEST(Attention, HalvesFromTheLeastToTheGreatest) {
  const AttentionCase c{2, 1, 64, ElementType::kF16, 0, false, {200, 3}};
  const int width = AttentionJob(c).in, rows = c.lane_rows[0] + c.lane_rows[1];
  Floats1d in = RandomFloats(static_cast<size_t>(rows) * width, 63);
  for (int row = 0; row < rows; ++row) {
    float *const q = &in[static_cast<size_t>(row) * width], *const k = q + 128, *const v = k + 64;
    if (row % 4 == 0) q[row % 64] = 12.0f;       // one input stands out
    if (row % 7 == 1) std::fill_n(q, 64, 0.0f);  // all positions weigh the same
    if (row % 5 == 2) k[(row * 3) % 64] = 10.0f;
    if (row % 9 == 3) std::fill_n(k, 64, 6e-8f);  // the least half
    if (row % 11 == 4) std::fill_n(v, 64, 0.0f);
    for (int i = 0; row % 13 == 5 && i < 64; ++i) v[i] *= 1e-7f;
    if (row == 150) std::fill_n(v, 64, 60000.0f);
  }
  CheckAttention(c, in, 64, 50, 1e-3);
}

// What is no number in a key, a value or a query reaches the rows that see it, and no other.
TEST(Attention, WhatIsNoNumberStaysWhereItIsSeen) {
  int count = 0;
  for (const ElementType type : {ElementType::kF32, ElementType::kF16, ElementType::kQ8_0, ElementType::kF32, ElementType::kF16}) {
    const int window = count++ < 3 ? 0 : 20;  // of more than a tile of 16, and rows that see it in part
    const AttentionCase c{4, 1, 32, type, 0, false, {90}, window};
    const Job job = AttentionJob(c);
    const Floats1d clean = RandomFloats(static_cast<size_t>(90) * job.in, 60);
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
      for (const int column : {40, 4 * 32 + 5, 5 * 32 + 5}) {  // of the second query head, the key, the value
        constexpr size_t kBad = 67;
        Floats1d in = clean;
        in[kBad * static_cast<size_t>(job.in) + static_cast<size_t>(column)] = bad;
        const bool of_query = column == 40;
        const std::vector<Outcome> outcomes = RunEveryWay(job, in, 61, 20), wanted = RunEveryWay(job, clean, 61, 20);
        for (size_t i = 0; i < outcomes.size(); ++i) {
          const float *const got = outcomes[i].out[0].data(), *const good = wanted[i].out[0].data();
          const auto row = static_cast<size_t>(job.out);
          EXPECT_EQ(std::memcmp(got, good, kBad * row * sizeof(float)), 0);
          // A score of minus infinity is a weight of zero, but a block of bytes has no infinities.
          if (std::isnan(bad) || type == ElementType::kQ8_0) {
            EXPECT_TRUE(std::isnan(got[kBad * row + (of_query ? 33 : 5)]));
          }
          const size_t after = of_query ? kBad + 1 : window ? kBad + static_cast<size_t>(window) : c.lane_rows[0];
          EXPECT_EQ(std::memcmp(got + after * row, good + after * row, (c.lane_rows[0] - after) * row * sizeof(float)), 0);
        }
      }
    }
  }
}

// Lanes that read a shared history in the same extents, some further than others, against lanes that have all of it to themselves.
void CheckSharedHistory(ElementType type, int window = 0) {
  const AttentionCase c{8, 2, 32, type, 0, true, {640, 30, 225, 30, 3}, window};
  Job job = AttentionJob(c);
  job.prefix = {0, 576, 320, 576, 576};
  std::vector<Floats1d> rows;  // by lane
  for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
    rows.push_back(RandomFloats(static_cast<size_t>(c.lane_rows[lane]) * job.in, 40 + static_cast<uint32_t>(lane)));
  }
  Floats1d shared, alone;
  Job whole = AttentionJob(c);
  for (size_t lane = 0; lane < rows.size(); ++lane) {
    shared.insert(shared.end(), rows[lane].begin(), rows[lane].end());
    alone.insert(alone.end(), rows[0].begin(), rows[0].begin() + int64_t{job.prefix[lane]} * job.in);
    alone.insert(alone.end(), rows[lane].begin(), rows[lane].end());
    whole.lane_rows[lane] += job.prefix[lane];
  }
  Cut cut = {{600, 0, 0, 0, 0}, {3, 2, 1, 0, 1}, {0, 0, 200, 0, 0}};
  for (int i = 0; i < 20; ++i) cut.push_back({1, 1, 1, 1, i < 2});
  cut.push_back({17, 8, 4, 10, 0});
  const Outcome wanted = RunJob(whole, alone, OneStep(whole.lane_rows), {.threads = 2});
  const std::string numerics = (*MakeCpuBackend({.threads = 1}))->numerics();
  for (const std::string& isa : CpuInstructionSets()) {
    if ((*MakeCpuBackend({.threads = 1, .isa = isa}))->numerics() != numerics) continue;
    for (int threads : {1, 2, 8}) {
      const Outcome outcome = RunJob(job, shared, cut, {.threads = threads, .isa = isa});
      for (size_t lane = 0; lane < rows.size(); ++lane) {
        const float* const from = wanted.out[lane].data() + int64_t{job.prefix[lane]} * job.out;
        EXPECT_EQ(std::memcmp(outcome.out[lane].data(), from, sizeof(float) * outcome.out[lane].size()), 0)
            << isa << ", " << threads << " threads, lane " << lane;
      }
    }
  }
}
TEST(Attention, SharedHistoryIsReadOnceForTheSameBits) { CheckSharedHistory(ElementType::kF16); }
TEST(Attention, SharedHistoryOfBytesIsReadOnceForTheSameBits) { CheckSharedHistory(ElementType::kQ8_0); }
TEST(Attention, SharedHistoryWithinWindowsIsReadOnceForTheSameBits) {
  for (int window : {40, 256, 300, 512}) {
    CheckSharedHistory(ElementType::kF16, window);
    CheckSharedHistory(ElementType::kF32, window);
  }
}
TEST(Attention, WideHeadsOfOneGroup) { CheckAttention({4, 1, 256, ElementType::kF16, 0, true, {130}}, 8, 40); }
TEST(Attention, HeadsWiderThan256) {
  for (const ElementType type : {ElementType::kF32, ElementType::kF16}) {
    CheckAttention({8, 1, 512, type, 0, true, {20, 9}, 0, true}, 21, 7);
    CheckAttention({2, 1, 512, type, 250, false, {264}}, 22, 90);  // across blocks
    CheckAttention({4, 2, 320, type, 0, false, {30, 5}, 12}, 23, 9);
    CheckAttention({3, 1, 300, type, 0, true, {20}}, 24, 5);
    CheckAttention({2, 1, 259, type, 0, false, {20}}, 25, 5);
  }
}

}  // namespace
}  // namespace reprise
