// Ops that read or write the state of a lane, against plain references in double precision, and bit-equal however the work is cut.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "backend/cpu/cpu_rig.h"
#include "base/checked.h"
#include "base/half.h"
#include "formats/quantize.h"

namespace reprise {
namespace {

using Doubles = std::vector<double>;

Vector LoadFloats(Backend& backend, const Floats1d& x, int64_t outputs = 1) {
  const auto bytes = BytesOf(x);
  auto vector = backend.LoadVector({"test", TensorType::kF32, static_cast<int64_t>(x.size()) / outputs, outputs, bytes});
  EXPECT_TRUE(vector.ok()) << vector.status().message();
  return *vector;
}

struct AttentionCase {
  int heads, kv_heads, width;
  ElementType type;
  int first_position;
  bool gated;
  std::vector<int> lane_rows;
};

size_t RowBytes(ElementType type, int numbers) {
  return ElementSize(type) * static_cast<size_t>(type == ElementType::kQ8_0 ? numbers / kQ8Values : numbers);
}

// Row: [q | k | v | gate]. Keys and values are appended, then attended to.
Job AttentionJob(const AttentionCase& c) {
  const int q_width = c.heads * c.width, kv_width = c.kv_heads * c.width;
  Job job;
  job.cpu_alone = c.type == ElementType::kQ8_0;
  job.in = q_width + 2 * kv_width + q_width;
  job.out = q_width;
  job.lane_rows = c.lane_rows;
  const StateRef k{0, RowBytes(c.type, kv_width), c.type};
  const StateRef v{AlignUp(k.bytes * kExtentRows, 64), k.bytes, c.type};
  job.extent_bytes = v.offset + v.bytes * kExtentRows;
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.width));
  job.record = [=](Backend&, Ops& ops, Rows in, Rows out) {
    ops.Append(k, in.Columns(q_width, kv_width));
    ops.Append(v, in.Columns(q_width + kv_width, kv_width));
    const Heads q{in.Columns(0, q_width), c.heads, c.width, c.width};
    Heads gate{in.Columns(q_width + 2 * kv_width, q_width), c.heads, c.width, c.width};
    if (!c.gated) gate.count = 0;
    ops.Attention(out, q, k, v, c.kv_heads, scale, gate, c.first_position);
  };
  return job;
}

// A head of keys or values as attention reads it back. As Q8_0: what ggml's arithmetic makes of it.
Doubles Stored(ElementType type, const float* x, int width) {
  Doubles stored(x, x + width);
  if (type == ElementType::kF16) {
    for (double& y : stored) y = HalfToFloat(FloatToHalf(static_cast<float>(y)));
  } else if (type == ElementType::kQ8_0) {
    std::vector<std::byte> blocks(static_cast<size_t>(width) / 32 * 34);
    Floats1d back(static_cast<size_t>(width));
    EXPECT_TRUE(QuantizeRow(TensorType::kQ8_0, {x, back.size()}, blocks).ok());
    EXPECT_TRUE(DequantizeRow(TensorType::kQ8_0, blocks, back).ok());
    stored.assign(back.begin(), back.end());
  }
  return stored;
}

// A query times the scale, as it meets the keys.
Doubles Asked(ElementType type, const float* x, int width, float scale) {
  Doubles asked;
  for (int i = 0; i < width; ++i) asked.push_back(static_cast<double>(x[i] * scale));
  if (type != ElementType::kQ8_0) return asked;
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
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.width));
  for (const Outcome& outcome : RunEveryWay(job, in, seed, most_chunk)) {
    int first = 0;
    for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
      Doubles wanted;
      for (int row = 0; row < c.lane_rows[lane]; ++row) {
        const float* x = &in[static_cast<size_t>(first + row) * job.in];
        for (int head = 0; head < c.heads; ++head) {
          const int kv_head = head / (c.heads / c.kv_heads);
          Doubles scores, sums(c.width);
          double most = -1e300, total = 0;
          const Doubles asked = Asked(c.type, x + head * c.width, c.width, scale);
          for (int p = c.first_position; p <= row; ++p) {
            const Doubles key = Stored(c.type, &in[static_cast<size_t>(first + p) * job.in] + q_width + kv_head * c.width, c.width);
            scores.push_back(std::inner_product(asked.begin(), asked.end(), key.begin(), 0.0));
            most = std::max(most, scores.back());
          }
          for (int p = c.first_position; p <= row; ++p) {
            const float* from = &in[static_cast<size_t>(first + p) * job.in] + q_width + kv_width + kv_head * c.width;
            const Doubles value = Stored(c.type, from, c.width);
            const double weight = std::exp(scores[static_cast<size_t>(p - c.first_position)] - most);
            total += weight;
            for (size_t i = 0; i < sums.size(); ++i) sums[i] += weight * value[i];
          }
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
  // Halves, and values of bytes, are multiplied as integers of some 14 bits.
  const double tolerance = c.type == ElementType::kF32 ? 2e-5 : 2e-4;
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
TEST(Attention, BytesOfWideHeads) { CheckAttention({8, 1, 256, ElementType::kQ8_0, 3, true, {130}}, 11, 40); }

TEST(Append, BytesAreThoseOfQ8_0) {
  constexpr int kWidth = 96, kRows = 70;
  const StateRef state{64, RowBytes(ElementType::kQ8_0, kWidth), ElementType::kQ8_0};
  Job job;
  job.cpu_alone = true;
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
  for (const ElementType type : {ElementType::kF32, ElementType::kF16, ElementType::kQ8_0}) {
    const AttentionCase c{4, 1, 32, type, 0, false, {90}};
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
          const size_t after = of_query ? kBad + 1 : c.lane_rows[0];
          EXPECT_EQ(std::memcmp(got + after * row, good + after * row, (c.lane_rows[0] - after) * row * sizeof(float)), 0);
        }
      }
    }
  }
}

// Lanes that read a shared history in the same extents, some further than others, against lanes that have all of it to themselves.
void CheckSharedHistory(ElementType type) {
  const AttentionCase c{8, 2, 32, type, 0, true, {640, 30, 225, 30, 3}};
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
TEST(Attention, WideHeadsOfOneGroup) { CheckAttention({4, 1, 256, ElementType::kF16, 0, true, {130}}, 8, 40); }

struct ConvCase {
  int channels, kernel;
  bool bias, silu;
  std::vector<int> lane_rows;
};
void CheckConv(const ConvCase& c, uint32_t seed) {
  Job job;
  job.in = job.out = c.channels;
  job.lane_rows = c.lane_rows;
  const StateRef tail{64, sizeof(float) * (c.kernel - 1) * c.channels, ElementType::kF32};
  job.block_bytes = 64 + tail.bytes;
  std::vector<Floats1d> tails;
  for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
    tails.push_back(RandomFloats(static_cast<size_t>(c.kernel - 1) * c.channels, seed + 100 + static_cast<uint32_t>(lane)));
    job.first_block.emplace_back(job.block_bytes);
    if (tail.bytes) std::memcpy(job.first_block.back().data() + 64, tails.back().data(), tail.bytes);
    // What no op owns is poisoned in the write block, so keep it out of the comparison.
    std::memset(job.first_block.back().data(), 0xff, 64);
  }
  const Floats1d weight = RandomFloats(static_cast<size_t>(c.channels) * c.kernel, seed + 1);
  const Floats1d bias = RandomFloats(static_cast<size_t>(c.channels), seed + 2);
  job.record = [=](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Vector shift = c.bias ? LoadFloats(backend, bias) : Vector{};
    ops.CausalConv(out, in, tail, LoadFloats(backend, weight, c.channels), shift, c.kernel, c.silu);
  };
  int all = 0;
  for (int n : c.lane_rows) all += n;
  const Floats1d in = RandomFloats(static_cast<size_t>(all) * c.channels, seed);
  for (const Outcome& outcome : RunEveryWay(job, in, seed)) {
    int first = 0;
    for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
      const auto input = [&](int t, int channel) -> double {
        if (t < 0) return tails[lane][static_cast<size_t>((t + c.kernel - 1) * c.channels + channel)];
        return in[static_cast<size_t>((first + t) * c.channels + channel)];
      };
      Doubles wanted;
      for (int t = 0; t < c.lane_rows[lane]; ++t) {
        for (int channel = 0; channel < c.channels; ++channel) {
          double y = c.bias ? bias[static_cast<size_t>(channel)] : 0;
          for (int k = 0; k < c.kernel; ++k)
            y += input(t - c.kernel + 1 + k, channel) * weight[static_cast<size_t>(channel * c.kernel + k)];
          wanted.push_back(c.silu ? y / (1 + std::exp(-y)) : y);
        }
      }
      ExpectNear(outcome.out[lane], wanted, 1e-5);
      const auto* kept = reinterpret_cast<const float*>(outcome.block[lane].data() + 64);
      for (int k = 0; k < c.kernel - 1; ++k) {
        for (int channel = 0; channel < c.channels; ++channel) {
          EXPECT_EQ(kept[k * c.channels + channel], static_cast<float>(input(c.lane_rows[lane] - c.kernel + 1 + k, channel)));
        }
      }
      first += c.lane_rows[lane];
    }
  }
}
TEST(CausalConv, FourTapsWithSilu) { CheckConv({192, 4, false, true, {9, 2, 30}}, 11); }
TEST(CausalConv, FourTapsWithABias) { CheckConv({192, 4, true, true, {9, 2, 30}}, 14); }
TEST(CausalConv, ThreeTapsOddChannels) { CheckConv({37, 3, true, false, {1, 5}}, 12); }
TEST(CausalConv, OneTapHasNoTail) { CheckConv({16, 1, false, false, {4}}, 13); }

struct DeltaCase {
  Ops::DeltaNetShape shape;
  std::vector<int> lane_rows;
};
void CheckDeltaNet(const DeltaCase& c, uint32_t seed) {
  const Ops::DeltaNetShape s = c.shape;
  const int keys = s.key_heads * s.key_dim, values = s.value_heads * s.value_dim, qkv = 2 * keys + values;
  Job job;
  job.in = qkv + 2 * s.value_heads;
  job.out = values;
  job.lane_rows = c.lane_rows;
  const size_t states = static_cast<size_t>(s.value_heads) * s.key_dim * s.value_dim;
  const StateRef state{0, sizeof(float) * states, ElementType::kF32};
  job.block_bytes = state.bytes;
  std::vector<Floats1d> begin;
  for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
    begin.push_back(RandomFloats(states, seed + 100 + static_cast<uint32_t>(lane), 0.3f));
    job.first_block.push_back(BytesOf(begin.back()));
  }
  Floats1d a = RandomFloats(static_cast<size_t>(s.value_heads), seed + 1);
  for (float& x : a) x = -std::exp(x);
  const Floats1d dt = RandomFloats(static_cast<size_t>(s.value_heads), seed + 2);
  job.record = [=](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.DeltaNet(out, in.Columns(0, qkv), in.Columns(qkv, s.value_heads), in.Columns(qkv + s.value_heads, s.value_heads),
                 LoadFloats(backend, a), LoadFloats(backend, dt), state, s);
  };
  int all = 0;
  for (int n : c.lane_rows) all += n;
  const Floats1d in = RandomFloats(static_cast<size_t>(all) * job.in, seed);
  for (const Outcome& outcome : RunEveryWay(job, in, seed)) {
    int first = 0;
    for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
      Doubles S(begin[lane].begin(), begin[lane].end()), wanted;
      for (int t = 0; t < c.lane_rows[lane]; ++t) {
        const float* x = &in[static_cast<size_t>(first + t) * job.in];
        for (int h = 0; h < s.value_heads; ++h) {
          const auto unit = [&](const float* p) {
            double squares = 1e-6;
            for (int i = 0; i < s.key_dim; ++i) squares += static_cast<double>(p[i]) * p[i];
            Doubles u;
            for (int i = 0; i < s.key_dim; ++i) u.push_back(p[i] / std::sqrt(squares));
            return u;
          };
          Doubles q = unit(x + h % s.key_heads * s.key_dim);
          const Doubles k = unit(x + keys + h % s.key_heads * s.key_dim);
          for (double& e : q) e /= std::sqrt(static_cast<double>(s.key_dim));
          const double b = 1 / (1 + std::exp(-static_cast<double>(x[qkv + s.value_heads + h])));
          const double z = static_cast<double>(x[qkv + h]) + dt[static_cast<size_t>(h)];
          const double g = std::exp(a[static_cast<size_t>(h)] * std::log1p(std::exp(z)));
          double* const head = &S[static_cast<size_t>(h) * s.key_dim * s.value_dim];
          for (int j = 0; j < s.value_dim; ++j) {
            double seen = 0, y = 0;
            for (int i = 0; i < s.key_dim; ++i) seen += (head[i * s.value_dim + j] *= g) * k[static_cast<size_t>(i)];
            const double d = b * (x[2 * keys + h * s.value_dim + j] - seen);
            for (int i = 0; i < s.key_dim; ++i)
              y += (head[i * s.value_dim + j] += k[static_cast<size_t>(i)] * d) * q[static_cast<size_t>(i)];
            wanted.push_back(y);
          }
        }
      }
      ExpectNear(outcome.out[lane], wanted, 2e-5);
      Floats1d kept(states);
      std::memcpy(kept.data(), outcome.block[lane].data(), state.bytes);
      ExpectNear(kept, S, 2e-5);
      first += c.lane_rows[lane];
    }
  }
}
TEST(DeltaNet, EqualHeads) { CheckDeltaNet({{4, 32, 4, 64}, {20, 3}}, 21); }
TEST(DeltaNet, GroupedHeadsOfFullWidth) { CheckDeltaNet({{2, 128, 4, 128}, {7, 1, 2}}, 22); }
TEST(DeltaNet, OddWidths) { CheckDeltaNet({{1, 10, 3, 20}, {9}}, 23); }
TEST(DeltaNet, SliceAndARemainder) { CheckDeltaNet({{2, 16, 2, 40}, {5, 5}}, 24); }
TEST(DeltaNet, AStateTooLargeForTheCaches) { CheckDeltaNet({{8, 64, 16, 64}, {3, 1}}, 25); }

struct SsmCase {
  Ops::SsmShape shape;
  std::vector<int> lane_rows;
};
void CheckSsm(const SsmCase& c, uint32_t seed) {
  const Ops::SsmShape s = c.shape;
  const int inner = s.heads * s.head_dim, written = s.groups * s.state_dim, xbc = inner + 2 * written;
  Job job;
  job.in = xbc + s.heads;
  job.out = inner;
  job.lane_rows = c.lane_rows;
  const size_t states = static_cast<size_t>(inner) * s.state_dim;
  const StateRef state{0, sizeof(float) * states, ElementType::kF32};
  job.block_bytes = state.bytes;
  std::vector<Floats1d> begin;
  for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
    begin.push_back(RandomFloats(states, seed + 100 + static_cast<uint32_t>(lane), 0.3f));
    job.first_block.push_back(BytesOf(begin.back()));
  }
  Floats1d a = RandomFloats(static_cast<size_t>(s.heads), seed + 1);
  for (float& x : a) x = -std::exp(x);
  const Floats1d bias = RandomFloats(static_cast<size_t>(s.heads), seed + 2), d = RandomFloats(static_cast<size_t>(s.heads), seed + 3);
  job.record = [=](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.Ssm(out, in.Columns(0, xbc), in.Columns(xbc, s.heads), LoadFloats(backend, a), LoadFloats(backend, bias), LoadFloats(backend, d),
            state, s);
  };
  int all = 0;
  for (int n : c.lane_rows) all += n;
  Floats1d in = RandomFloats(static_cast<size_t>(all) * job.in, seed);
  in[static_cast<size_t>(xbc)] = 40.0f;  // a long step, where softplus is the identity
  for (const Outcome& outcome : RunEveryWay(job, in, seed)) {
    int first = 0;
    for (size_t lane = 0; lane < c.lane_rows.size(); ++lane) {
      Doubles S(begin[lane].begin(), begin[lane].end()), wanted;
      for (int t = 0; t < c.lane_rows[lane]; ++t) {
        const float* x = &in[static_cast<size_t>(first + t) * job.in];
        for (int h = 0; h < s.heads; ++h) {
          const auto head = static_cast<size_t>(h);
          const float *const b = x + inner + h / (s.heads / s.groups) * s.state_dim, *const reads = b + written;
          const double z = static_cast<double>(x[xbc + h]) + bias[head];
          const double step = z > 0 ? z + std::log1p(std::exp(-z)) : std::log1p(std::exp(z));
          const double keep = std::exp(a[head] * step);
          double* const memory = &S[head * s.state_dim * s.head_dim];
          for (int j = 0; j < s.head_dim; ++j) {
            const double input = x[h * s.head_dim + j];
            double y = d[head] * input;
            for (int i = 0; i < s.state_dim; ++i) {
              double& cell = memory[i * s.head_dim + j];
              cell = keep * cell + b[i] * step * input;
              y += cell * reads[i];
            }
            wanted.push_back(y);
          }
        }
      }
      ExpectNear(outcome.out[lane], wanted, 5e-5);
      Floats1d kept(states);
      std::memcpy(kept.data(), outcome.block[lane].data(), state.bytes);
      ExpectNear(kept, S, 2e-5);
      first += c.lane_rows[lane];
    }
  }
}
TEST(Ssm, HeadsOfAWholeSlice) { CheckSsm({{6, 32, 1, 64}, {20, 3}}, 71); }
TEST(Ssm, GroupsOfFullWidth) { CheckSsm({{4, 64, 2, 128}, {7, 1, 2}}, 72); }
TEST(Ssm, OddWidths) { CheckSsm({{3, 20, 3, 10}, {9}}, 73); }
TEST(Ssm, SliceAndARemainder) { CheckSsm({{4, 40, 2, 17}, {5, 5}}, 74); }
TEST(Ssm, AStateTooLargeForTheCaches) { CheckSsm({{16, 64, 1, 64}, {3, 1}}, 75); }

TEST(LastRow, PreviousAndSaveLast) {
  constexpr int kWidth = 24;
  Job job;
  job.in = job.out = kWidth;
  job.lane_rows = {5, 1, 8};
  const StateRef last{0, sizeof(float) * kWidth, ElementType::kF32};
  job.block_bytes = last.bytes;
  std::vector<Floats1d> begin;
  for (uint32_t lane = 0; lane < 3; ++lane) {
    begin.push_back(RandomFloats(kWidth, lane));
    job.first_block.push_back(BytesOf(begin.back()));
  }
  job.record = [=](Backend&, Ops& ops, Rows in, Rows out) {
    ops.Previous(out, in, last);
    ops.SaveLast(last, in);
  };
  const Floats1d in = RandomFloats(14 * kWidth, 31);
  for (const Outcome& outcome : RunEveryWay(job, in, 31)) {
    size_t first = 0;
    for (size_t lane = 0; lane < 3; ++lane) {
      const auto rows = static_cast<size_t>(job.lane_rows[lane]);
      Floats1d wanted = begin[lane];
      wanted.insert(wanted.end(), in.begin() + static_cast<long>(first * kWidth),
                    in.begin() + static_cast<long>((first + rows - 1) * kWidth));
      EXPECT_EQ(outcome.out[lane], wanted);
      EXPECT_EQ(outcome.block[lane], BytesOf(Floats1d(in.begin() + static_cast<long>((first + rows - 1) * kWidth),
                                                      in.begin() + static_cast<long>((first + rows) * kWidth))));
      first += rows;
    }
  }
}

TEST(LastRow, LoadLastIsOneRowALane) {
  auto backend = *MakeCpuBackend({.threads = 2});
  StepTable table(4, 2);
  auto* out = reinterpret_cast<float*>(*backend->Allocate(2 * 8 * sizeof(float), "out"));
  auto plan = backend->Capture(table, [&](Ops& ops) { ops.LoadLast({out, 8, 8, Domain::kLanes}, {64, 32, ElementType::kF32}); });
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const Floats1d blocks[2] = {RandomFloats(24, 1), RandomFloats(24, 2)};
  table.lanes = 2;
  for (size_t i = 0; i < 2; ++i) table.lane[i].read = reinterpret_cast<const std::byte*>(blocks[i].data());
  ASSERT_TRUE(backend->stream().Replay(**plan).ok());
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(std::memcmp(out + i * 8, blocks[i].data() + 16, 32), 0);
}

}  // namespace
}  // namespace reprise
