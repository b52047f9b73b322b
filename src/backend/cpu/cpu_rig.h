// For tests: the jobs of job_rig.h on the CPU backend, in every way that must give the same bits.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/job_rig.h"

namespace reprise {

inline Outcome RunJob(const Job& job, const Floats1d& in, const Cut& cut, const CpuOptions& options) {
  auto backend = MakeCpuBackend(options);
  EXPECT_TRUE(backend.ok()) << backend.status().message();
  return RunJobOn(**backend, job, in, cut);
}

// The same on the backends of devices, for the outcomes of their numerics (backend/cuda/device_rig_test.cc).
std::vector<Outcome> RunOnDevices(const Job& job, const Floats1d& in, uint32_t seed, int most_chunk);

// Runs `job` in one step on one thread, and demands the same bits of every other way to cut it: row by row, at random, each lane alone, on
// several threads, and on every instruction set that claims the same numerics. Returns the first outcome of each numerics.
inline std::vector<Outcome> RunEveryWay(const Job& job, const Floats1d& in, uint32_t seed, int most_chunk = 7) {
  std::mt19937 random(seed);
  std::vector<Outcome> outcomes;
  std::vector<std::string> numerics;
  for (const std::string& isa : CpuInstructionSets()) {
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

}  // namespace reprise
