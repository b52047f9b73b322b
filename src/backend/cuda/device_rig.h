// For tests: the jobs of cpu_rig.h on a backend whose memory the host does not read.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_rig.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/emulator/emulated_device.h"

namespace reprise {

// The backends beside the CPU's that this machine can test: the CUDA kernels on the emulator, and on a GPU where there is one.
struct TestBackend {
  std::string name;
  std::unique_ptr<Backend> backend;
  bool fast = false;
};
std::vector<TestBackend> DeviceBackends();

// Copies of memory of the backend, there and back.
inline std::vector<std::byte> Read(Backend& backend, const void* from, size_t bytes) {
  std::vector<std::byte> to(bytes);
  EXPECT_TRUE(backend.stream().Copy(to.data(), static_cast<const std::byte*>(from), bytes).ok());
  EXPECT_TRUE(backend.stream().Synchronize().ok());
  return to;
}
inline Floats1d ReadFloats(Backend& backend, const float* from, size_t count) {
  Floats1d to(count);
  const auto bytes = Read(backend, from, count * sizeof(float));
  std::memcpy(to.data(), bytes.data(), bytes.size());
  return to;
}
inline void Write(Backend& backend, void* to, const void* from, size_t bytes) {
  EXPECT_TRUE(backend.stream().Copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes).ok());
  EXPECT_TRUE(backend.stream().Synchronize().ok());
}
inline void Poison(Backend& backend, void* to, size_t bytes) {
  const std::vector<std::byte> nan(bytes, std::byte{0xff});
  Write(backend, to, nan.data(), bytes);
}

// As RunJob, on `backend`.
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
    int first_row = 0, position = 0, side = 0;
  };
  std::vector<LaneState> state(static_cast<size_t>(lanes));
  int rows_before = 0;
  Outcome outcome;
  for (size_t at = 0; at < state.size(); ++at) {
    for (std::byte*& block : state[at].block) block = *backend.Allocate(job.block_bytes + 64, "block");
    if (!job.first_block.empty() && job.block_bytes > 0) Write(backend, state[at].block[0], job.first_block[at].data(), job.block_bytes);
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
          lane.block[lane.side], lane.block[1 - lane.side], lane.extents.data(), table.rows, step[at], lane.position};
      for (int i = 0; i < step[at]; ++i) {
        const auto row = static_cast<size_t>(table.rows++);
        table.row_lane[row] = table.lanes;
        table.row_position[row] = lane.position + i;
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

}  // namespace reprise
