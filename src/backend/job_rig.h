// For tests: runs a captured plan over the rows of some lanes, cut into steps in a given way, with state blocks and extents of its own, on any
// backend.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"

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
  std::string numerics;                       // of the backend
  std::vector<Floats1d> out;                  // by lane
  std::vector<std::vector<std::byte>> block;  // by lane, after its last step
  std::vector<std::vector<std::byte>> rows;   // by lane: its extents, one after another
};

// Copies of memory of the backend, which the host may not be able to read, there and back.
inline std::vector<std::byte> Read(Backend& backend, const void* from, size_t bytes) {
  std::vector<std::byte> to(bytes);
  EXPECT_TRUE(backend.Copy(to.data(), from, bytes).ok());
  return to;
}
inline Floats1d ReadFloats(Backend& backend, const float* from, size_t count) {
  Floats1d to(count);
  EXPECT_TRUE(backend.Copy(to.data(), from, count * sizeof(float)).ok());
  return to;
}
inline void Write(Backend& backend, void* to, const void* from, size_t bytes) { EXPECT_TRUE(backend.Copy(to, from, bytes).ok()); }
inline void Poison(Backend& backend, void* to, size_t bytes) {  // NaN in every float and half
  const std::vector<std::byte> nan(bytes, std::byte{0xff});
  Write(backend, to, nan.data(), bytes);
}

// `in`: rows of all lanes, one lane after another.
inline Outcome RunJobOn(Backend& backend, const Job& job, const Floats1d& in, const Cut& cut) {
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

  struct LaneState {
    std::byte* block[2];
    std::vector<std::byte*> extents;
    int first_row = 0, position = 0, side = 0, before = 0;  // `before`: positions of the prefix
  };
  std::vector<LaneState> state(static_cast<size_t>(lanes));
  int rows_before = 0;
  Outcome outcome;
  outcome.numerics = backend.numerics();
  for (size_t at = 0; at < state.size(); ++at) {
    for (std::byte*& block : state[at].block) block = *backend.Allocate(job.block_bytes + 64, "block");
    if (!job.first_block.empty() && job.block_bytes > 0) Write(backend, state[at].block[0], job.first_block[at].data(), job.block_bytes);
    state[at].before = job.prefix.empty() ? 0 : job.prefix[at];
    for (int i = 0; i < state[at].before / kExtentRows; ++i) state[at].extents.push_back(state[0].extents[static_cast<size_t>(i)]);
    for (int i = 0; i * kExtentRows < job.lane_rows[at]; ++i) {
      state[at].extents.push_back(*backend.Allocate(job.extent_bytes + 64, "extent"));
      Poison(backend, state[at].extents.back(), job.extent_bytes);
    }
    state[at].first_row = rows_before;
    rows_before += job.lane_rows[at];
    outcome.out.emplace_back(static_cast<size_t>(job.lane_rows[at]) * job.out);
  }

  for (const auto& step : cut) {
    table.rows = table.lanes = 0;
    std::vector<size_t> served;
    Floats1d rows;
    for (size_t at = 0; at < state.size(); ++at) {
      if (step[at] == 0 && !job.idle_lanes) continue;
      LaneState& lane = state[at];
      Poison(backend, lane.block[1 - lane.side], job.block_bytes + 64);
      table.lane[static_cast<size_t>(table.lanes)] = {
          lane.block[lane.side], lane.block[1 - lane.side], lane.extents.data(), table.rows, step[at], lane.before + lane.position};
      for (int i = 0; i < step[at]; ++i) {
        const auto row = static_cast<size_t>(table.rows++);
        table.row_lane[row] = table.lanes;
        table.row_position[row] = lane.before + lane.position + i;
        const size_t source = static_cast<size_t>(lane.first_row + lane.position + i);
        if (!job.tokens.empty()) table.token[row] = job.tokens[source];
        rows.insert(rows.end(), in.begin() + static_cast<long>(source * job.in), in.begin() + static_cast<long>((source + 1) * job.in));
      }
      ++table.lanes;
      served.push_back(at);
    }
    Poison(backend, x, sizeof(float) * job.in * table.max_rows());
    Write(backend, x, rows.data(), rows.size() * sizeof(float));
    Poison(backend, y, sizeof(float) * job.out * table.max_rows());
    const Status status = backend.stream().Replay(**plan);
    EXPECT_TRUE(status.ok()) << status.message();
    const Floats1d out = ReadFloats(backend, y, static_cast<size_t>(table.rows) * job.out);
    size_t row = 0;
    for (const size_t at : served) {
      LaneState& lane = state[at];
      std::memcpy(outcome.out[at].data() + static_cast<size_t>(lane.position) * job.out, out.data() + row * job.out,
                  sizeof(float) * job.out * step[at]);
      row += static_cast<size_t>(step[at]);
      lane.position += step[at];
      lane.side = 1 - lane.side;
    }
  }
  for (const LaneState& lane : state) {
    outcome.block.push_back(Read(backend, lane.block[lane.side], job.block_bytes));
    outcome.rows.emplace_back();
    for (const std::byte* extent : lane.extents) {
      const auto bytes = Read(backend, extent, job.extent_bytes);
      outcome.rows.back().insert(outcome.rows.back().end(), bytes.begin(), bytes.end());
    }
  }
  return outcome;
}

// All NaNs are one: which of two an addition passes on depends on the order in which a compiler wrote its operands.
inline bool SameBits(float a, float b) { return std::memcmp(&a, &b, sizeof(a)) == 0 || (std::isnan(a) && std::isnan(b)); }
inline bool SameBits(const Outcome& a, const Outcome& b) {
  const auto same = [](const Floats1d& x, const Floats1d& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](float p, float q) { return SameBits(p, q); });
  };
  return std::equal(a.out.begin(), a.out.end(), b.out.begin(), b.out.end(), same) && a.block == b.block && a.rows == b.rows;
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
