// For tests: runs a captured plan over the rows of some lanes, cut into steps in a given way, with state blocks and extents of its own.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace reprise {

using Floats1d = std::vector<float>;

inline Floats1d RandomFloats(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  Floats1d x(count);
  for (float& v : x) v = normal(random);
  return x;
}

inline std::vector<std::byte> BytesOf(const Floats1d& x) {
  std::vector<std::byte> bytes(x.size() * sizeof(float));
  std::memcpy(bytes.data(), x.data(), bytes.size());
  return bytes;
}

// The instruction sets of this machine, best first.
inline std::vector<std::string> Isas() {
  std::vector<std::string> isas;
  for (const char* isa : {"avx512vnni", "avx2", "neon", "portable"}) {
    if (MakeCpuBackend({.threads = 1, .isa = isa}).ok()) isas.emplace_back(isa);
  }
  return isas;
}

// What is computed: rows of `in` floats to rows of `out` floats, for lanes of lane_rows[i] rows in all.
struct Job {
  int in = 1;
  int out = 1;
  std::vector<int> lane_rows{1};
  size_t block_bytes = 0;   // of a state block; blocks start as `first_block` of the lane, or zero
  size_t extent_bytes = 0;  // of an extent
  std::vector<std::vector<std::byte>> first_block;
  std::vector<int> tokens;  // by row of all lanes, one lane after another
  std::function<void(Backend&, Ops&, Rows in, Rows out)> record;
  int max_rows = 0;         // 0: as many as the cut needs
  bool idle_lanes = false;  // lanes that bring no row to a step take part in it all the same
  std::vector<int> prefix;  // by lane, whole extents: it begins at this position, in the extents of lane 0, which must get there first
};

// How lanes share steps: step -> rows of each lane. Rows of a lane must add up to its rows.
using Cut = std::vector<std::vector<int>>;

inline Cut OneStep(const std::vector<int>& lane_rows) { return {lane_rows}; }
inline Cut RowByRow(const std::vector<int>& lane_rows) {
  Cut cut;
  for (size_t lane = 0; lane < lane_rows.size(); ++lane) {
    for (int i = 0; i < lane_rows[lane]; ++i) {
      cut.emplace_back(lane_rows.size(), 0);
      cut.back()[lane] = 1;
    }
  }
  return cut;
}
inline Cut RandomCut(const std::vector<int>& lane_rows, int most, std::mt19937& random) {
  std::vector<int> left = lane_rows;
  Cut cut;
  for (;;) {
    int all = 0;
    std::vector<int> step(left.size());
    for (size_t lane = 0; lane < left.size(); ++lane) {
      if (random() % 4 != 0) step[lane] = std::min(left[lane], static_cast<int>(random() % static_cast<unsigned>(most + 1)));
      left[lane] -= step[lane];
      all += step[lane];
    }
    if (all) cut.push_back(step);
    int rest = 0;
    for (int n : left) rest += n;
    if (!rest) return cut;
  }
}

struct Outcome {
  std::vector<Floats1d> out;                  // by lane
  std::vector<std::vector<std::byte>> block;  // by lane, after its last step
  std::vector<std::vector<std::byte>> rows;   // by lane: its extents, one after another
};

struct AlignedBytes {
  explicit AlignedBytes(size_t bytes) : size(bytes), storage(bytes + 64) {}
  std::byte* data() { return storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64; }
  void Poison() { std::memset(data(), 0xff, size); }  // NaN in every float and half
  size_t size;
  std::vector<std::byte> storage;
};

// `in`: rows of all lanes, one lane after another.
inline Outcome RunJob(const Job& job, const Floats1d& in, const Cut& cut, const CpuOptions& options) {
  auto made = MakeCpuBackend(options);
  EXPECT_TRUE(made.ok()) << made.status().message();
  Backend& backend = **made;
  const int lanes = static_cast<int>(job.lane_rows.size());
  int most = 1;
  for (const auto& step : cut) {
    int rows = 0;
    for (int n : step) rows += n;
    most = std::max(most, rows);
  }
  StepTable table(std::max(most, job.max_rows), lanes);
  float* const x = reinterpret_cast<float*>(*backend.Allocate(sizeof(float) * job.in * table.max_rows(), "in"));
  float* const y = reinterpret_cast<float*>(*backend.Allocate(sizeof(float) * job.out * table.max_rows(), "out"));
  auto plan = backend.Capture(table, [&](Ops& ops) {
    job.record(backend, ops, {x, job.in, job.in, Domain::kRows}, {y, job.out, job.out, Domain::kRows});
  });
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  if (!plan.ok()) return {};

  std::vector<AlignedBytes> blocks[2];
  std::vector<std::vector<AlignedBytes>> extents(static_cast<size_t>(lanes));
  std::vector<std::vector<std::byte*>> extent_list(static_cast<size_t>(lanes));
  std::vector<int> first_row(static_cast<size_t>(lanes)), position(static_cast<size_t>(lanes)), side(static_cast<size_t>(lanes)),
      base(static_cast<size_t>(lanes));
  int rows_before = 0;
  Outcome outcome;
  for (int lane = 0; lane < lanes; ++lane) {
    const auto at = static_cast<size_t>(lane);
    for (auto& two : blocks) {
      two.emplace_back(job.block_bytes + 64);
      std::memset(two.back().data(), 0, two.back().size);
    }
    if (!job.first_block.empty()) std::memcpy(blocks[0][at].data(), job.first_block[at].data(), job.block_bytes);
    const int prefix = job.prefix.empty() ? 0 : job.prefix[at];
    for (int i = 0; i < prefix / kExtentRows; ++i) extent_list[at].push_back(extent_list[0][static_cast<size_t>(i)]);
    for (int i = 0; i * kExtentRows < job.lane_rows[at]; ++i) {
      extents[at].emplace_back(job.extent_bytes + 64);
      extents[at].back().Poison();
      extent_list[at].push_back(extents[at].back().data());
    }
    base[at] = prefix;
    first_row[at] = rows_before;
    rows_before += job.lane_rows[at];
    outcome.out.emplace_back(static_cast<size_t>(job.lane_rows[at]) * job.out);
  }

  for (const auto& step : cut) {
    table.rows = table.lanes = 0;
    std::vector<int> served;
    for (int lane = 0; lane < lanes; ++lane) {
      const auto at = static_cast<size_t>(lane);
      if (step[at] == 0 && !job.idle_lanes) continue;
      LaneBinding& binding = table.lane[static_cast<size_t>(table.lanes)];
      blocks[1 - side[at]][at].Poison();
      binding.read = blocks[side[at]][at].data();
      binding.write = blocks[1 - side[at]][at].data();
      binding.extents = extent_list[at].data();
      binding.first_row = table.rows;
      binding.rows = step[at];
      binding.position = base[at] + position[at];
      for (int i = 0; i < step[at]; ++i) {
        const auto row = static_cast<size_t>(table.rows++);
        table.row_lane[row] = table.lanes;
        table.row_position[row] = base[at] + position[at] + i;
        const size_t source = static_cast<size_t>(first_row[at] + position[at] + i);
        if (!job.tokens.empty()) table.token[row] = job.tokens[source];
        std::memcpy(x + row * job.in, in.data() + source * job.in, sizeof(float) * job.in);
      }
      ++table.lanes;
      served.push_back(lane);
    }
    std::memset(y, 0xff, sizeof(float) * job.out * table.rows);
    const Status status = backend.stream().Replay(**plan);
    EXPECT_TRUE(status.ok()) << status.message();
    int row = 0;
    for (int lane : served) {
      const auto at = static_cast<size_t>(lane);
      std::memcpy(outcome.out[at].data() + static_cast<size_t>(position[at]) * job.out, y + static_cast<size_t>(row) * job.out,
                  sizeof(float) * job.out * step[at]);
      row += step[at];
      position[at] += step[at];
      side[at] = 1 - side[at];
    }
  }
  for (int lane = 0; lane < lanes; ++lane) {
    const auto at = static_cast<size_t>(lane);
    std::byte* block = blocks[side[at]][at].data();
    outcome.block.emplace_back(block, block + job.block_bytes);
    outcome.rows.emplace_back();
    for (std::byte* extent : extent_list[at]) outcome.rows.back().insert(outcome.rows.back().end(), extent, extent + job.extent_bytes);
  }
  return outcome;
}

inline bool SameBits(const Outcome& a, const Outcome& b) {
  if (a.out.size() != b.out.size()) return false;
  for (size_t i = 0; i < a.out.size(); ++i) {
    if (a.out[i].size() != b.out[i].size() || std::memcmp(a.out[i].data(), b.out[i].data(), a.out[i].size() * sizeof(float)) != 0)
      return false;
  }
  return a.block == b.block && a.rows == b.rows;
}

// The same on the backends of devices, for the outcomes of their numerics (backend/cuda/device_rig_test.cc).
std::vector<Outcome> RunOnDevices(const Job& job, const Floats1d& in, uint32_t seed, int most_chunk);

// Runs `job` in one step on one thread, and demands the same bits of every other way to cut it: row by row, at random, each lane alone, on
// several threads, and on every instruction set that claims the same numerics. Returns the first outcome of each numerics.
inline std::vector<Outcome> RunEveryWay(const Job& job, const Floats1d& in, uint32_t seed, int most_chunk = 7) {
  std::mt19937 random(seed);
  std::vector<Outcome> outcomes;
  std::vector<std::string> numerics;
  for (const std::string& isa : Isas()) {
    const std::string mine = (*MakeCpuBackend({.threads = 1, .isa = isa}))->numerics();
    const Outcome plain = RunJob(job, in, OneStep(job.lane_rows), {.threads = 1, .isa = isa});
    const Outcome* expected = &plain;
    for (size_t i = 0; i < numerics.size(); ++i) {
      if (numerics[i] == mine) expected = &outcomes[i];
    }
    EXPECT_TRUE(SameBits(plain, *expected)) << isa << " differs from another instruction set of " << mine;
    EXPECT_TRUE(SameBits(RunJob(job, in, RowByRow(job.lane_rows), {.threads = 2, .isa = isa}), *expected)) << isa << ": row by row";
    for (int threads = 1; threads <= 4; ++threads) {
      EXPECT_TRUE(SameBits(RunJob(job, in, RandomCut(job.lane_rows, most_chunk, random), {.threads = threads, .isa = isa}), *expected))
          << isa << ": cut at random, " << threads << " threads";
    }
    EXPECT_TRUE(SameBits(RunJob(job, in, OneStep(job.lane_rows), {.threads = 3, .isa = isa}), *expected)) << isa << ": 3 threads";
    Job idle = job;
    idle.idle_lanes = true;
    EXPECT_TRUE(SameBits(RunJob(idle, in, RandomCut(job.lane_rows, most_chunk, random), {.threads = 2, .isa = isa}), *expected))
        << isa << ": lanes without rows";
    if (expected == &plain) {
      outcomes.push_back(plain);
      numerics.push_back(mine);
    }
  }
  for (Outcome& outcome : RunOnDevices(job, in, seed, most_chunk)) outcomes.push_back(std::move(outcome));
  return outcomes;
}

// |got - wanted| <= tolerance * (1 + |wanted|), element by element.
inline void ExpectNear(const Floats1d& got, const std::vector<double>& wanted, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  int reported = 0;
  for (size_t i = 0; i < got.size() && reported < 5; ++i) {
    if (!(std::abs(got[i] - wanted[i]) <= tolerance * (1.0 + std::abs(wanted[i])))) {
      ADD_FAILURE() << "element " << i << ": " << got[i] << ", wanted " << wanted[i];
      ++reported;
    }
  }
}

}  // namespace reprise
