// What the CUDA backend answers for alone: far positions, ties and NaNs, the whole-unit form of attention, capsules on memory that the host cannot
// read, refusals. On the emulator, and on a GPU where there is one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "backend/cpu/cpu_rig.h"
#include "backend/cuda/device_rig.h"
#include "base/checked.h"
#include "base/half.h"

namespace reprise {
namespace {

float* NewFloats(Backend& backend, const Floats1d& values) {
  auto* memory = reinterpret_cast<float*>(*backend.Allocate(values.size() * sizeof(float), "test"));
  Write(backend, memory, values.data(), values.size() * sizeof(float));
  return memory;
}

TEST(DeviceOps, AnglesStayExactAtFarPositions) {
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    StepTable table(1, 1);
    Floats1d start(64, 0.0f);
    std::fill_n(start.begin(), 32, 1.0f);
    float* const x = NewFloats(backend, start);
    auto plan = backend.Capture(table, [&](Ops& ops) {
      ops.NormRope({{x, 64, 64, Domain::kRows}, 1, 64, 64}, {}, 0.0f, {64, 1e7, false, nullptr});
    });
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    for (const int position : {0, 1, 1000, 262143, 2000000000}) {
      Write(backend, x, start.data(), 64 * sizeof(float));
      table.rows = 1;
      table.lanes = 0;
      table.row_position[0] = position;
      ASSERT_TRUE(backend.stream().Replay(**plan).ok());
      const Floats1d y = ReadFloats(backend, x, 64);
      for (int i = 0; i < 32; ++i) {
        const long double angle = position * std::pow(1e7L, -2.0L * i / 64);
        EXPECT_NEAR(y[static_cast<size_t>(i)], static_cast<double>(std::cos(angle)), 1e-6) << position << " " << i;
        EXPECT_NEAR(y[static_cast<size_t>(32 + i)], static_cast<double>(std::sin(angle)), 1e-6) << position << " " << i;
      }
    }
  }
}

TEST(DeviceOps, ArgMaxIsTheFirstOfTheGreatestAndNeverANaN) {
  const float nan = std::nanf(""), inf = INFINITY;
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    for (const int width : {1, 16, 37, 700}) {
      const auto last = static_cast<size_t>(width - 1);
      std::vector<Floats1d> rows(8, Floats1d(static_cast<size_t>(width)));
      const float fills[8] = {nan, -inf, -3.0f, nan, 7.0f, inf, -5.0f, -0.0f};
      for (size_t row = 0; row < 8; ++row) std::fill(rows[row].begin(), rows[row].end(), fills[row]);
      rows[2][last] = -2.0f;
      rows[3][last] = -inf;
      rows[5][0] = nan;
      rows[6][static_cast<size_t>(width / 2)] = rows[6][last] = 0.0f;
      rows[7][last] = 0.0f;
      Floats1d all;
      for (const Floats1d& row : rows) all.insert(all.end(), row.begin(), row.end());
      StepTable table(8, 1);
      float* const x = NewFloats(backend, all);
      auto* const index = reinterpret_cast<int32_t*>(*backend.AllocateForHost(8 * sizeof(int32_t), "index"));
      auto plan = backend.Capture(table, [&](Ops& ops) { ops.ArgMax(index, {x, width, width, Domain::kRows}); });
      ASSERT_TRUE(plan.ok());
      table.rows = 8;
      table.lanes = 1;
      ASSERT_TRUE(backend.stream().Replay(**plan).ok());
      ASSERT_TRUE(backend.stream().Synchronize().ok());
      const int end = width - 1;
      const int wanted[8] = {0, 0, end, end, 0, width > 1 ? 1 : 0, width / 2, 0};
      for (int row = 0; row < 8; ++row) EXPECT_EQ(index[row], wanted[row]) << device.name << ", width " << width << ", row " << row;
    }
  }
}

// Against the plain definition: few and many columns, within a part and across parts, ties at the edge, signed zeros, infinities and NaN.
TEST(DeviceOps, TheBestAreThoseOfTheDefinition) {
  const float inf = INFINITY;
  std::mt19937 random(3);
  const auto make = [&](int width, int kind) {
    Floats1d row(static_cast<size_t>(width));
    for (float& x : row) {
      const auto any = static_cast<int>(random() % 64);
      const float odd[] = {std::nanf(""), -inf, inf, -0.0f, 0.0f};
      if (kind == 0) x = std::normal_distribution<float>(0.0f, 3.0f)(random);                  // all different
      if (kind == 1) x = any < 5 ? odd[any] : static_cast<float>(any % 7 - 3);                 // hardly any different
      if (kind == 2) x = any < 60 ? -inf : static_cast<float>(any);                            // few that count
      if (kind == 3) x = -1.5f;                                                                // all the same
      if (kind == 4) x = std::nanf("");                                                        // none
      if (kind == 5) x = 20.0f + 1e-5f * std::normal_distribution<float>(0.0f, 1.0f)(random);  // different in their last bits
    }
    return row;
  };
  constexpr int kKinds = 6;
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    ASSERT_TRUE(backend.finds_best());
    for (const int width : {1, 100, 128, 129, 4096, 4097, 13000, 600000}) {  // the last: of more parts than are ranked in shared memory
      std::vector<Floats1d> rows;
      Floats1d all;
      for (int kind = 0; kind < kKinds; ++kind) {
        rows.push_back(make(width, kind));
        all.insert(all.end(), rows.back().begin(), rows.back().end());
      }
      StepTable table(64, kKinds);  // of more rows than there is room for, none of which come
      float* const x = NewFloats(backend, all);
      constexpr size_t kWords = size_t{kKinds} * kBestValues;
      BestRows out;
      out.index = reinterpret_cast<int32_t*>(*backend.AllocateForHost(kKinds * sizeof(int32_t), "index"));
      out.values = reinterpret_cast<float*>(*backend.AllocateForHost(kWords * sizeof(float), "values"));
      out.columns = reinterpret_cast<int32_t*>(*backend.AllocateForHost(kWords * sizeof(int32_t), "columns"));
      out.rows = kKinds;
      for (const Domain domain : {Domain::kRows, Domain::kLanes}) {
        auto plan = backend.Capture(table, [&](Ops& ops) { ops.Best(out, {x, width, width, domain}); });
        ASSERT_TRUE(plan.ok()) << plan.status().message();
        std::fill_n(out.columns, kWords, -7);
        table.rows = domain == Domain::kRows ? kKinds : 0;
        table.lanes = domain == Domain::kLanes ? kKinds : 1;
        ASSERT_TRUE(backend.stream().Replay(**plan).ok());
        ASSERT_TRUE(backend.stream().Synchronize().ok());
        for (size_t row = 0; row < kKinds; ++row) {
          std::vector<int32_t> wanted;
          for (int i = 0; i < width; ++i) {
            if (rows[row][static_cast<size_t>(i)] > -inf) wanted.push_back(i);
          }
          std::stable_sort(wanted.begin(), wanted.end(),
                           [&](int32_t a, int32_t b) { return rows[row][static_cast<size_t>(a)] > rows[row][static_cast<size_t>(b)]; });
          wanted.resize(std::min<size_t>(wanted.size(), kBestValues));
          EXPECT_EQ(out.index[row], wanted.empty() ? 0 : wanted[0]) << device.name << ", width " << width << ", row " << row;
          std::sort(wanted.begin(), wanted.end());
          wanted.resize(kBestValues, -1);
          const std::vector<int32_t> got(out.columns + row * kBestValues, out.columns + (row + 1) * kBestValues);
          EXPECT_EQ(got, wanted) << device.name << ", width " << width << ", row " << row;
          for (size_t i = 0; i < kBestValues && got[i] >= 0; ++i) {
            EXPECT_EQ(out.values[row * kBestValues + i], rows[row][static_cast<size_t>(got[i])]);
          }
        }
      }
    }
  }
}

// Against a sum of doubles: one part and many, temperatures from cold to hot, and what is no number or infinite.
TEST(DeviceOps, ARowWeighsWhatItsDistributionSays) {
  const float inf = INFINITY;
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    auto* const asked = reinterpret_cast<WeighedRow*>(*backend.AllocateForHost(sizeof(WeighedRow), "row"));
    auto* const parts = reinterpret_cast<double*>(*backend.AllocateForHost(4 * sizeof(double), "parts"));
    for (const int width : {1, 300, 4096, 13000}) {
      constexpr int kRows = 4;
      Floats1d rows = RandomFloats(static_cast<size_t>(kRows * width), 9, 4.0f);
      const auto at = [&](int row, int column) -> float& { return rows[static_cast<size_t>(row * width + column)]; };
      at(1, width / 2) = std::nanf("");
      at(1, 0) = -inf;
      at(2, width - 1) = at(2, 0) = inf;
      StepTable table(kRows, 1);
      float* const x = NewFloats(backend, rows);
      auto plan = backend.Capture(table, [&](Ops& ops) { ops.Weigh(parts, asked, {x, width, width, Domain::kRows}); });
      ASSERT_TRUE(plan.ok()) << plan.status().message();
      table.rows = table.lanes = 1;  // fewer than the row that is asked for
      for (int row = 0; row < kRows; ++row) {
        for (const float temperature : {0.05f, 0.7f, 1.0f, 20.0f}) {
          float greatest = -inf;
          for (int i = 0; i < width; ++i) greatest = at(row, i) > greatest ? at(row, i) : greatest;
          *asked = {row, temperature, greatest};
          std::fill_n(parts, 4, -1.0);
          ASSERT_TRUE(backend.stream().Replay(**plan).ok());
          ASSERT_TRUE(backend.stream().Synchronize().ok());
          for (int part = 0; part * kWeighedPart < width; ++part) {
            double wanted = 0;
            for (int i = part * kWeighedPart; i < std::min(width, (part + 1) * kWeighedPart); ++i) {
              const float value = at(row, i);
              if (value > -inf) wanted += value == greatest ? 1 : std::exp((double{value} - greatest) / double{temperature});
            }
            // Weights of less than e^-50 count as nothing.
            EXPECT_NEAR(parts[part], wanted, kWeighError * wanted + 1e-20 * width)
                << device.name << ", width " << width << ", row " << row << ", part " << part << ", " << temperature;
          }
        }
      }
    }
  }
}

TEST(DeviceOps, LoadLastIsOneRowALane) {
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    StepTable table(4, 2);
    float* const out = NewFloats(backend, Floats1d(16, 0.0f));
    auto plan = backend.Capture(table, [&](Ops& ops) { ops.LoadLast({out, 8, 8, Domain::kLanes}, {64, 32, ElementType::kF32}); });
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const Floats1d blocks[2] = {RandomFloats(24, 1), RandomFloats(24, 2)};
    table.lanes = 2;
    for (size_t i = 0; i < 2; ++i) table.lane[i].read = reinterpret_cast<const std::byte*>(NewFloats(backend, blocks[i]));
    ASSERT_TRUE(backend.stream().Replay(**plan).ok());
    const Floats1d got = ReadFloats(backend, out, 16);
    for (size_t i = 0; i < 2; ++i) EXPECT_EQ(std::memcmp(got.data() + i * 8, blocks[i].data() + 16, 32), 0);
  }
}

TEST(DeviceOps, LastRowsAreOneRowALane) {
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    StepTable table(8, 3);
    const Floats1d in = RandomFloats(7 * 300, 3);
    float *const from = NewFloats(backend, in), *const to = NewFloats(backend, Floats1d(3 * 300, -1.0f));
    auto plan = backend.Capture(table, [&](Ops& ops) { ops.LastRows({to, 300, 300, Domain::kLanes}, {from, 300, 300, Domain::kRows}); });
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    table.lanes = 3;
    table.rows = 7;
    const int firsts[] = {0, 5, 5}, counts[] = {5, 0, 2};
    for (size_t i = 0; i < 3; ++i) {
      table.lane[i].first_row = firsts[i];
      table.lane[i].rows = counts[i];
    }
    ASSERT_TRUE(backend.stream().Replay(**plan).ok());
    const Floats1d got = ReadFloats(backend, to, 3 * 300);
    EXPECT_EQ(std::memcmp(got.data(), in.data() + 4 * 300, 300 * sizeof(float)), 0) << device.name;
    EXPECT_EQ(got[300], -1.0f) << device.name << ": a lane without rows";
    EXPECT_EQ(std::memcmp(got.data() + 600, in.data() + 6 * 300, 300 * sizeof(float)), 0) << device.name;
  }
}

// More parts than one launch takes, of lanes of which one has no log, go into the rings and come back.
TEST(DeviceOps, LogsKeepRowsAtTheirPositionsAndGiveThemBack) {
  constexpr int kParts = 30, kWidth = 270, kCapacity = 4, kRows = 5;
  constexpr size_t kRow = kParts * kWidth, kAll = size_t{kRows} * kRow;
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    StepTable table(8, 3);
    const Floats1d values = RandomFloats(kAll, 5);
    float* const live = NewFloats(backend, values);
    std::vector<LogPart> parts;
    for (int p = 0; p < kParts; ++p) parts.push_back({{live + p * kWidth, kRow, kWidth, Domain::kRows}, (kParts - 1 - p) * kWidth});
    auto keep = backend.Capture(table, [&](Ops& ops) { ops.KeepLog(parts); });
    auto recall = backend.Capture(table, [&](Ops& ops) { ops.RecallLog(parts); });
    ASSERT_TRUE(keep.ok() && recall.ok()) << keep.status().message() << recall.status().message();
    float* const ring = NewFloats(backend, Floats1d(kCapacity * kRow, -1.0f));
    const int lanes[kRows] = {0, 1, 1, 1, 2}, positions[kRows] = {9, 6, 7, 8, 3};
    table.lanes = 3;
    table.rows = kRows;
    for (size_t r = 0; r < kRows; ++r) {
      table.row_lane[r] = lanes[r];
      table.row_position[r] = positions[r];
    }
    table.lane[1].log = reinterpret_cast<std::byte*>(ring);
    table.lane[1].log_capacity = kCapacity;
    table.lane[1].log_row_bytes = kRow * sizeof(float);
    ASSERT_TRUE(backend.stream().Replay(**keep).ok());
    const Floats1d kept = ReadFloats(backend, ring, kCapacity * kRow);
    for (size_t slot = 0; slot < kCapacity; ++slot) {
      const int row = std::array{3, -1, 1, 2}[slot];  // positions 8, none, 6, 7
      for (size_t i = 0; i < kRow; ++i) {
        const size_t of_row = (kParts - 1 - i / kWidth) * kWidth + i % kWidth;
        ASSERT_EQ(kept[slot * kRow + i], row < 0 ? -1.0f : values[static_cast<size_t>(row) * kRow + of_row]) << device.name << ", " << slot;
      }
    }
    const Floats1d other(kAll, -2.0f);
    ASSERT_TRUE(backend.Copy(live, other.data(), kAll * sizeof(float)).ok());
    ASSERT_TRUE(backend.stream().Replay(**recall).ok());
    const Floats1d back = ReadFloats(backend, live, kAll);
    for (size_t i = 0; i < kAll; ++i) ASSERT_EQ(back[i], lanes[i / kRow] == 1 ? values[i] : -2.0f) << device.name << ", " << i;
  }
}

// A state's bytes are compared, and devices do not agree on those of a NaN.
TEST(DeviceOps, EveryNaNIsAppendedAsTheSameHalf) {
  Job job;
  job.in = 8;
  job.out = 1;
  job.lane_rows = {2};
  const StateRef state{0, 16, ElementType::kF16};
  job.extent_bytes = state.bytes * kExtentRows;
  job.record = [=](Backend&, Ops& ops, Rows in, Rows) { ops.Append(state, in); };
  Floats1d in = RandomFloats(16, 4);
  const uint32_t bits[] = {0x7fc00000u, 0xffc00000u, 0x7fffffffu, 0xff800001u, 0x7fd23456u};
  std::memcpy(in.data() + 3, bits, sizeof(bits));
  for (TestBackend& device : DeviceBackends()) {
    const Outcome outcome = RunJobOn(*device.backend, job, in, OneStep(job.lane_rows));
    for (size_t i = 0; i < in.size(); ++i) {
      uint16_t half;
      std::memcpy(&half, outcome.rows[0].data() + i * sizeof(half), sizeof(half));
      EXPECT_EQ(half, std::isnan(in[i]) ? 0x7e00 : FloatToHalf(in[i])) << device.name << ", " << i;
    }
  }
}

// What is kept as bytes is, to the last of them, what the CPU keeps: scales too small to divide by, numbers that no half holds, and what is no number.
TEST(DeviceOps, BlocksOfBytesAreTheCpus) {
  constexpr int kBlocks = 7, kWidth = kBlocks * kQ8Values, kRows = 5;
  Job job;
  job.in = 2 * kWidth;
  job.out = 1;
  job.lane_rows = {3, 2};
  const StateRef keys{0, kBlocks * 34, ElementType::kQ8_0}, values{AlignUp(keys.bytes * kExtentRows, 64), keys.bytes, ElementType::kQ8_0};
  job.extent_bytes = values.offset + values.bytes * kExtentRows;
  job.record = [=](Backend&, Ops& ops, Rows in, Rows) {
    ops.Append(keys, in.Columns(0, kWidth));
    ops.Append(values, in.Columns(kWidth, kWidth));
  };
  Floats1d in = RandomFloats(kRows * 2 * kWidth, 4);
  const float odd[] = {1e-30f, -1e-38f, 3e38f, INFINITY, std::nanf(""), 0.0f, 1e7f};
  for (int b = 0; b < kBlocks; ++b) {
    for (int i = 0; i < kQ8Values; ++i) in[static_cast<size_t>(b * kQ8Values + i)] *= odd[b];
  }
  // Halves between two bytes, which the order of division and rounding decides.
  for (int i = 0; i < kQ8Values; ++i) in[static_cast<size_t>(kWidth + i)] = i == 0 ? 127.0f : static_cast<float>(i) - 15.5f;
  const Outcome expected = RunJob(job, in, OneStep(job.lane_rows), {.threads = 1});
  for (TestBackend& device : DeviceBackends()) {
    const Outcome got = RunJobOn(*device.backend, job, in, OneStep(job.lane_rows));
    ASSERT_EQ(got.rows.size(), expected.rows.size());
    for (size_t lane = 0; lane < got.rows.size(); ++lane) EXPECT_EQ(got.rows[lane], expected.rows[lane]) << device.name << ", " << lane;
  }
}

TEST(DeviceOps, WhatIsIndependentSharesALaunch) {
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    StepTable table(4, 1);
    float* const x = NewFloats(backend, Floats1d(1024, 0.0f));
    const Rows q{x, 64, 64, Domain::kRows}, k{x + 256, 64, 64, Domain::kRows}, v{x + 512, 64, 64, Domain::kRows},
        out{x + 768, 64, 64, Domain::kRows};
    const StateRef keys{0, 128, ElementType::kF16}, values{8192, 128, ElementType::kF16};
    const RopeSpec rope{32, 1e4, false, nullptr};
    const auto launches = [&](const std::function<void(Ops&)>& record) {
      auto plan = backend.Capture(table, record);
      EXPECT_TRUE(plan.ok()) << plan.status().message();
      return (*plan)->launches();
    };
    const auto turn = [&](Ops& ops, const Rows& rows) { ops.NormRope({rows, 2, 32, 32}, {}, 1e-6f, rope); };
    const size_t one = launches([&](Ops& ops) { turn(ops, q); });
    EXPECT_EQ(launches([&](Ops& ops) { turn(ops, q), turn(ops, k); }), one);
    EXPECT_EQ(launches([&](Ops& ops) { turn(ops, q), turn(ops, q); }), one + 1) << "the same rows, one after the other";
    EXPECT_EQ(launches([&](Ops& ops) { ops.Append(keys, k), ops.Append(values, v); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { ops.Append(keys, k), ops.Append(keys, v); }), 2u);
    const Vector bias{x, 64};
    EXPECT_EQ(launches([&](Ops& ops) { ops.AddBias(q, bias), ops.AddBias(k, bias), ops.AddBias(v, bias); }), 1u);
    EXPECT_EQ(launches([&](Ops& ops) { ops.AddBias(q, bias), ops.AddBias(q, bias); }), 2u);
    // A layer's attention and the product after it: turned, appended, attended, joined and quantised, multiplied.
    const std::vector<std::byte> weights(64 * 68);
    auto matrix = backend.LoadMatrix({"w", TensorType::kQ8_0, 64, 64, weights});
    ASSERT_TRUE(matrix.ok()) << matrix.status().message();
    EXPECT_EQ(launches([&](Ops& ops) {
                turn(ops, q), turn(ops, k);
                ops.Append(keys, k), ops.Append(values, v);
                ops.Attention(out, {q, 2, 32, 32}, keys, values, {}, {.kv_heads = 2});
                ops.MatMul(out, std::array{Product{*matrix, q}});
              }),
              one + 4);
  }
}

TEST(DeviceOps, RefusesWhatItCannotDo) {
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    const std::vector<std::byte> bytes(1024);
    const auto unknown = backend.LoadMatrix({"blk.0.w", TensorType::kQ2_K, 256, 1, std::span(bytes).first(84)});
    EXPECT_EQ(unknown.status().code(), StatusCode::kUnsupported);
    EXPECT_NE(unknown.status().message().find("blk.0.w"), std::string::npos);
    EXPECT_EQ(backend.LoadMatrix({"w", TensorType::kF32, 16, 17, bytes}).status().code(), StatusCode::kCorrupt);
    EXPECT_FALSE(backend.LoadVector({"v", TensorType::kQ8_0, 32, 1, std::span(bytes).first(34)}).ok());
    const auto moon = backend.Allocate(SIZE_MAX / 2, "the moon");
    EXPECT_EQ(moon.status().code(), StatusCode::kExhausted);
    EXPECT_NE(moon.status().message().find("the moon"), std::string::npos);

    StepTable table(4, 1);
    float* const x = NewFloats(backend, Floats1d(1024, 0.0f));
    const Rows rows{x, 16, 16, Domain::kRows};
    const auto error = [&](const std::function<void(Ops&)>& record) {
      auto plan = backend.Capture(table, record);
      EXPECT_FALSE(plan.ok());
      return plan.status().message();
    };
    EXPECT_NE(error([&](Ops& ops) { ops.SwiGlu(rows, rows.Columns(0, 8), rows); }).find("SwiGlu"), std::string::npos);
    EXPECT_NE(error([&](Ops& ops) { ops.Append({0, 12, ElementType::kF32}, rows); }).find("Append"), std::string::npos);
    EXPECT_NE(error([&](Ops& ops) {
                const Rows wide{x, 520, 520, Domain::kRows};
                ops.Attention(wide, {wide, 1, 520, 520}, {0, 1040, ElementType::kF16}, {0, 1040, ElementType::kF16}, {}, {});
              }).find("wider than 512"),
              std::string::npos);
    EXPECT_NE(error([&](Ops& ops) {
                const Rows dims{x, 17, 17, Domain::kRows};
                const Vector channels{x, 16};
                ops.SelectiveScan(rows, rows, rows, dims, dims, {x, 272}, channels, channels, {0, 1088, ElementType::kF32});
              }).find("more than 16 dimensions"),
              std::string::npos);
    auto plan = backend.Capture(table, [&](Ops& ops) { ops.SwiGlu({x, 4, 4}, {x + 16, 4, 4}, {x + 32, 4, 4}); });
    ASSERT_TRUE(plan.ok());
    table.rows = 5;
    EXPECT_EQ(backend.stream().Replay(**plan).code(), StatusCode::kInvalidArgument);
    table.rows = 0;  // a step of nothing is nothing
    EXPECT_TRUE(backend.stream().Replay(**plan).ok());
  }
}

TEST(CudaDevice, NamesAreParsed) {
  EXPECT_EQ(ParseCudaDevice("cuda")->device, 0);
  EXPECT_EQ(ParseCudaDevice("cuda:3")->device, 3);
  for (const char* name : {"cuda:", "cuda:x", "cuda:-1", "cuda:1x", "gpu", "cudax"}) EXPECT_FALSE(ParseCudaDevice(name).ok()) << name;
}

TEST(CudaDevice, WhereThereIsNoneTheErrorSaysWhy) {
  const auto backend = MakeCudaBackend({.device = 1000});
  ASSERT_FALSE(backend.ok());
  EXPECT_EQ(backend.status().code(), StatusCode::kUnsupported);
  EXPECT_FALSE(backend.status().message().empty());
}

}  // namespace
}  // namespace reprise
