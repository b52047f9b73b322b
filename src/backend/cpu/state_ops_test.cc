// Ops that read and rewrite the recurrent state of a lane, against plain references in double precision, and bit-equal however the work is cut.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/cpu/cpu_rig.h"
#include "backend/weight_rig.h"

namespace reprise {
namespace {

using Doubles = std::vector<double>;

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

// Inputs for every row of the job.
Floats1d InputsOf(const Job& job, uint32_t seed) {
  return RandomFloats(static_cast<size_t>(std::accumulate(job.lane_rows.begin(), job.lane_rows.end(), 0)) * job.in, seed);
}

// A recurrence over a state of float32 that begins at `state`, against doubles: step(x, S, wanted) takes a row of the inputs, rewrites S, and
// adds to `wanted` what the row gives.
template <class Step>
void CheckRecurrence(Job job, const Floats1d& in, const StateRef& state, uint32_t seed, double tolerance, const Step& step) {
  job.block_bytes = state.bytes;
  std::vector<Floats1d> begin;
  for (size_t lane = 0; lane < job.lane_rows.size(); ++lane) {
    begin.push_back(RandomFloats(state.bytes / sizeof(float), seed + 100 + static_cast<uint32_t>(lane), 0.3f));
    job.first_block.push_back(BytesOf(begin.back()));
  }
  for (const Outcome& outcome : RunEveryWay(job, in, seed)) {
    const float* x = in.data();
    for (size_t lane = 0; lane < job.lane_rows.size(); ++lane) {
      Doubles S(begin[lane].begin(), begin[lane].end()), wanted;
      for (int row = 0; row < job.lane_rows[lane]; ++row, x += job.in) step(x, S, wanted);
      ExpectNear(outcome.out[lane], wanted, tolerance);
      Floats1d kept(S.size());
      std::memcpy(kept.data(), outcome.block[lane].data(), state.bytes);
      ExpectNear(kept, S, 2e-5);
    }
  }
}

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
  Floats1d a = RandomFloats(static_cast<size_t>(s.value_heads), seed + 1);
  for (float& x : a) x = -std::exp(x);
  const Floats1d dt = RandomFloats(static_cast<size_t>(s.value_heads), seed + 2);
  job.record = [=](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.DeltaNet(out, in.Columns(0, qkv), in.Columns(qkv, s.value_heads), in.Columns(qkv + s.value_heads, s.value_heads),
                 LoadFloats(backend, a), LoadFloats(backend, dt), state, s);
  };
  CheckRecurrence(job, InputsOf(job, seed), state, seed, 2e-5, [&](const float* x, Doubles& S, Doubles& wanted) {
    for (int h = 0; h < s.value_heads; ++h) {
      const auto unit = [&](const float* p) {
        double squares = 1e-6;
        for (int i = 0; i < s.key_dim; ++i) squares += static_cast<double>(p[i]) * p[i];
        Doubles u;
        for (int i = 0; i < s.key_dim; ++i) u.push_back(p[i] / std::sqrt(squares));
        return u;
      };
      const int key_head = s.neighbours ? h * s.key_heads / s.value_heads : h % s.key_heads;
      Doubles q = unit(x + key_head * s.key_dim);
      const Doubles k = unit(x + keys + key_head * s.key_dim);
      for (double& e : q) e /= std::sqrt(static_cast<double>(s.key_dim));
      const double b = 1 / (1 + std::exp(-static_cast<double>(x[qkv + s.value_heads + h])));
      const double z = static_cast<double>(x[qkv + h]) + dt[static_cast<size_t>(h)];
      const double g = std::exp(a[static_cast<size_t>(h)] * std::log1p(std::exp(z)));
      double* const head = &S[static_cast<size_t>(h) * s.key_dim * s.value_dim];
      for (int j = 0; j < s.value_dim; ++j) {
        double seen = 0, y = 0;
        for (int i = 0; i < s.key_dim; ++i) seen += (head[i * s.value_dim + j] *= g) * k[static_cast<size_t>(i)];
        const double d = b * (x[2 * keys + h * s.value_dim + j] - seen);
        for (int i = 0; i < s.key_dim; ++i) y += (head[i * s.value_dim + j] += k[static_cast<size_t>(i)] * d) * q[static_cast<size_t>(i)];
        wanted.push_back(y);
      }
    }
  });
}
TEST(DeltaNet, EqualHeads) { CheckDeltaNet({{4, 32, 4, 64}, {20, 3}}, 21); }
TEST(DeltaNet, GroupedHeadsOfFullWidth) { CheckDeltaNet({{2, 128, 4, 128}, {7, 1, 2}}, 22); }
TEST(DeltaNet, NeighboursShareAKeyHead) { CheckDeltaNet({{3, 16, 6, 32, /*neighbours=*/true}, {7, 2}}, 26); }
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
  Floats1d a = RandomFloats(static_cast<size_t>(s.heads), seed + 1);
  for (float& x : a) x = -std::exp(x);
  const Floats1d bias = RandomFloats(static_cast<size_t>(s.heads), seed + 2), d = RandomFloats(static_cast<size_t>(s.heads), seed + 3);
  job.record = [=](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.Ssm(out, in.Columns(0, xbc), in.Columns(xbc, s.heads), LoadFloats(backend, a), LoadFloats(backend, bias), LoadFloats(backend, d),
            state, s);
  };
  Floats1d in = InputsOf(job, seed);
  in[static_cast<size_t>(xbc)] = 40.0f;  // a long step, where softplus is the identity
  CheckRecurrence(job, in, state, seed, 5e-5, [&](const float* x, Doubles& S, Doubles& wanted) {
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
  });
}
TEST(Ssm, HeadsOfAWholeSlice) { CheckSsm({{6, 32, 1, 64}, {20, 3}}, 71); }
TEST(Ssm, GroupsOfFullWidth) { CheckSsm({{4, 64, 2, 128}, {7, 1, 2}}, 72); }
TEST(Ssm, OddWidths) { CheckSsm({{3, 20, 3, 10}, {9}}, 73); }
TEST(Ssm, SliceAndARemainder) { CheckSsm({{4, 40, 2, 17}, {5, 5}}, 74); }
TEST(Ssm, AStateTooLargeForTheCaches) { CheckSsm({{16, 64, 1, 64}, {3, 1}}, 75); }

struct ScanCase {
  int channels, states;
  std::vector<int> lane_rows;
};
void CheckScan(const ScanCase& c, uint32_t seed) {
  const int channels = c.channels, states = c.states;
  Job job;
  job.in = 2 * channels + 2 * states;
  job.out = channels;
  job.lane_rows = c.lane_rows;
  const StateRef state{0, sizeof(float) * static_cast<size_t>(channels) * states, ElementType::kF32};
  Floats1d a = RandomFloats(static_cast<size_t>(channels) * states, seed + 1);
  for (float& x : a) x = -std::exp(x);
  const Floats1d bias = RandomFloats(static_cast<size_t>(channels), seed + 2), d = RandomFloats(static_cast<size_t>(channels), seed + 3);
  job.record = [=](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.SelectiveScan(out, in.Columns(0, channels), in.Columns(channels, channels), in.Columns(2 * channels, states),
                      in.Columns(2 * channels + states, states), LoadFloats(backend, a), LoadFloats(backend, bias), LoadFloats(backend, d),
                      state);
  };
  Floats1d in = InputsOf(job, seed);
  in[static_cast<size_t>(channels)] = 40.0f;        // a long step, where softplus is the identity, after which nothing of a state is left
  in[static_cast<size_t>(channels) + 1] = -100.0f;  // one of no length, which leaves a state as it is
  CheckRecurrence(job, in, state, seed, 5e-5, [&](const float* x, Doubles& S, Doubles& wanted) {
    const float *const b = x + 2 * channels, *const reads = b + states;
    for (int channel = 0; channel < channels; ++channel) {
      const double input = x[channel], z = static_cast<double>(x[channels + channel]) + bias[static_cast<size_t>(channel)];
      const double step = z > 0 ? z + std::log1p(std::exp(-z)) : std::log1p(std::exp(z));
      double y = d[static_cast<size_t>(channel)] * input;
      for (int n = 0; n < states; ++n) {
        const auto at = static_cast<size_t>((channel / 16 * states + n) * 16 + channel % 16);
        S[at] = std::exp(a[at] * step) * S[at] + b[n] * step * input;
        y += S[at] * reads[n];
      }
      wanted.push_back(y);
    }
  });
}
TEST(SelectiveScan, OnePiece) { CheckScan({16, 16, {20, 3}}, 81); }
TEST(SelectiveScan, ManyPiecesAndLanes) { CheckScan({720, 16, {7, 1, 2}}, 82); }  // no multiple of what a unit of work has
TEST(SelectiveScan, FewDimensions) { CheckScan({48, 5, {9}}, 83); }
TEST(SelectiveScan, OneDimension) { CheckScan({80, 1, {5, 5}}, 84); }

TEST(SelectiveScan, RefusesWhatDoesNotAgree) {
  const auto backend = *MakeCpuBackend({.threads = 1});
  StepTable table(4, 1);
  Floats1d memory(1024);
  const auto error = [&](int channels, int states, int of_a, int of_bias, int of_c, size_t bytes) {
    const auto plan = backend->Capture(table, [&](Ops& ops) {
      const Rows rows{memory.data(), 64, 64, Domain::kRows};
      const auto vector = [&](int size) { return Vector{memory.data(), size}; };
      ops.SelectiveScan(rows.Columns(0, channels), rows.Columns(0, channels), rows.Columns(0, channels), rows.Columns(0, states),
                        rows.Columns(0, of_c), vector(of_a), vector(of_bias), vector(channels), {0, bytes, ElementType::kF32});
    });
    return plan.ok() ? std::string("nothing") : std::string(plan.status().message());
  };
  EXPECT_EQ(error(32, 4, 128, 32, 4, 512), "nothing");
  EXPECT_NE(error(24, 4, 96, 24, 4, 384).find("no multiple of 16"), std::string::npos);
  EXPECT_NE(error(32, 4, 64, 32, 4, 512).find("a is not"), std::string::npos);
  EXPECT_NE(error(32, 4, 128, 16, 4, 512).find("dt_bias or d"), std::string::npos);
  EXPECT_NE(error(32, 4, 128, 32, 5, 512).find("widths"), std::string::npos);
  EXPECT_NE(error(32, 4, 128, 32, 4, 508).find("the state is not"), std::string::npos);
}

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

TEST(LastRow, LastRowsAreOneRowALane) {
  auto backend = *MakeCpuBackend({.threads = 2});
  StepTable table(8, 3);
  const Floats1d in = RandomFloats(7 * 24, 3);
  Floats1d out(3 * 24, -1.0f);
  const Rows from{const_cast<float*>(in.data()), 24, 24, Domain::kRows}, to{out.data(), 24, 24, Domain::kLanes};
  auto plan = backend->Capture(table, [&](Ops& ops) { ops.LastRows(to, from); });
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  table.lanes = 3;
  table.rows = 7;
  const int firsts[] = {0, 5, 5}, counts[] = {5, 0, 2};
  for (size_t i = 0; i < 3; ++i) {
    table.lane[i].first_row = firsts[i];
    table.lane[i].rows = counts[i];
  }
  ASSERT_TRUE(backend->stream().Replay(**plan).ok());
  EXPECT_EQ(std::memcmp(out.data(), in.data() + 4 * 24, 24 * sizeof(float)), 0);
  EXPECT_EQ(out[24], -1.0f) << "a lane without rows";
  EXPECT_EQ(std::memcmp(out.data() + 2 * 24, in.data() + 6 * 24, 24 * sizeof(float)), 0);

  const auto refused = backend->Capture(table, [&](Ops& ops) { ops.LastRows(from, from); });
  EXPECT_NE(refused.status().message().find("domains"), std::string::npos) << refused.status().message();
}

// Two parts of rows of three lanes, one of which has no log, go into the rings and come back; nothing lies anywhere else.
TEST(Log, KeepsEachLanesRowsAtTheirPositionsAndGivesThemBack) {
  auto backend = *MakeCpuBackend({.threads = 2});
  constexpr int kA = 40, kB = 7, kCapacity = 4;
  constexpr size_t kRow = kA + kB + 3;  // longer than what is kept
  StepTable table(8, 3);
  const Floats1d a = RandomFloats(8 * 64, 1), b = RandomFloats(8 * kB, 2);
  Floats1d live_a = a, live_b = b;
  const std::array parts{LogPart{{live_a.data() + 5, 64, kA, Domain::kRows}, 2}, LogPart{{live_b.data(), kB, kB, Domain::kRows}, 2 + kA}};
  auto keep = backend->Capture(table, [&](Ops& ops) { ops.KeepLog(parts); });
  auto recall = backend->Capture(table, [&](Ops& ops) { ops.RecallLog(parts); });
  ASSERT_TRUE(keep.ok() && recall.ok()) << keep.status().message() << recall.status().message();

  Floats1d rings[2] = {Floats1d(kCapacity * kRow, -1.0f), Floats1d(kCapacity * kRow, -1.0f)};
  table.lanes = 3;
  const int lanes[] = {0, 0, 0, 1, 2, 2}, positions[] = {6, 7, 8, 100, 5, 6};
  table.rows = 6;
  for (size_t r = 0; r < 6; ++r) {
    table.row_lane[r] = lanes[r];
    table.row_position[r] = positions[r];
  }
  for (const size_t lane : {size_t{0}, size_t{2}}) {
    table.lane[lane].log = reinterpret_cast<std::byte*>(rings[lane / 2].data());
    table.lane[lane].log_capacity = kCapacity;
    table.lane[lane].log_row_bytes = kRow * sizeof(float);
  }
  ASSERT_TRUE(backend->stream().Replay(**keep).ok());
  EXPECT_EQ(live_a, a);
  Floats1d wanted[2] = {Floats1d(kCapacity * kRow, -1.0f), Floats1d(kCapacity * kRow, -1.0f)};
  for (size_t r = 0; r < 6; ++r) {
    if (lanes[r] == 1) continue;
    float* to = wanted[lanes[r] / 2].data() + static_cast<size_t>(positions[r] % kCapacity) * kRow + 2;
    std::copy_n(a.data() + r * 64 + 5, kA, to);
    std::copy_n(b.data() + r * kB, kB, to + kA);
  }
  EXPECT_EQ(rings[0], wanted[0]);
  EXPECT_EQ(rings[1], wanted[1]);

  std::fill(live_a.begin(), live_a.end(), -2.0f);
  std::fill(live_b.begin(), live_b.end(), -2.0f);
  ASSERT_TRUE(backend->stream().Replay(**recall).ok());
  for (size_t r = 0; r < 8; ++r) {
    const bool comes_back = r < 6 && lanes[r] != 1;
    for (size_t i = 0; i < 64; ++i) {
      ASSERT_EQ(live_a[r * 64 + i], comes_back && i >= 5 && i < 5 + kA ? a[r * 64 + i] : -2.0f) << r << ", " << i;
    }
    for (size_t i = 0; i < kB; ++i) ASSERT_EQ(live_b[r * kB + i], comes_back ? b[r * kB + i] : -2.0f) << r << ", " << i;
  }
  EXPECT_EQ(rings[0], wanted[0]);

  const auto refused = [&](LogPart part) {
    return std::string(backend->Capture(table, [&](Ops& ops) { ops.KeepLog({&part, 1}); }).status().message());
  };
  EXPECT_NE(refused({parts[0].rows, -1}).find("before"), std::string::npos);
  EXPECT_NE(refused({{live_a.data(), 64, kA, Domain::kLanes}, 0}).find("domains"), std::string::npos);
  EXPECT_NE(std::string(backend->Capture(table, [&](Ops& ops) { ops.KeepLog({}); }).status().message()).find("nothing"), std::string::npos);
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
