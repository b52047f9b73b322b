// Every test of cpu_rig.h's RunEveryWay holds for the CUDA kernels too: on the emulator everywhere, and on a GPU where there is one.
#include "backend/cuda/device_rig.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "backend/cpu/cpu_rig.h"

namespace reprise {
namespace {
bool rounded = false;  // whether the emulator ran what each kind of device rounds in its own way
}

std::vector<TestBackend> DeviceBackends() {
  std::vector<TestBackend> backends;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which do not know the stacks of the emulator's fibers
  backends.push_back({"cuda kernels, emulated", *cuda::MakeBackend(cuda::MakeEmulatedDevice(3, nullptr, &rounded)), false});
#endif
  for (const bool overlap : {true, false}) {
    auto gpu = MakeCudaBackend({.overlap_launches = overlap});
    if (gpu.ok()) {
      backends.push_back({overlap ? "cuda" : "cuda without overlap", *std::move(gpu), true});
    } else if (static bool told = false; !told) {
      std::fprintf(stderr, "NOT TESTED ON A GPU: %s\n", gpu.status().message().c_str());
      told = true;
    }
  }
  return backends;
}

// Equal bits; or, where the tensor cores multiplied 16-bit floats, equal bits of state and outputs as near as two ways of rounding are.
bool AgreeAcross(const Outcome& a, const Outcome& b) {
  if (!rounded) return SameBits(a, b);
  if (a.block != b.block || a.rows != b.rows || a.out.size() != b.out.size()) return false;
  for (size_t lane = 0; lane < a.out.size(); ++lane) {
    for (size_t i = 0; i < a.out[lane].size(); ++i) {
      const float x = a.out[lane][i], y = b.out[lane][i];
      if (std::isfinite(x) && std::isfinite(y) ? std::abs(x - y) > 1e-4f * (1 + std::abs(x)) : std::isnan(x) != std::isnan(y)) return false;
    }
  }
  return true;
}

// The outcome of each device; where their numerics are the same, so are the bits. The emulator is slow, so it shows fewer cuts.
std::vector<Outcome> RunOnDevices(const Job& job, const Floats1d& in, uint32_t seed, int most_chunk) {
  std::vector<Outcome> outcomes;
  std::vector<std::string> numerics;
  std::mt19937 random(seed);
  rounded = false;
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    const Outcome plain = RunJobOn(backend, job, in, OneStep(job.lane_rows));
    if (!outcomes.empty()) {
      EXPECT_TRUE(AgreeAcross(plain, outcomes.front())) << device.name << " differs from the emulator";
    }
    const auto same = std::find(numerics.begin(), numerics.end(), backend.numerics());
    const Outcome expected = same == numerics.end() ? plain : outcomes[static_cast<size_t>(same - numerics.begin())];
    EXPECT_TRUE(SameBits(plain, expected)) << device.name << " differs from its like";
    if (same == numerics.end()) {
      outcomes.push_back(plain);
      numerics.push_back(backend.numerics());
    }
    int rows = 0;
    for (int n : job.lane_rows) rows += n;
    if (device.fast || rows <= 40) {
      EXPECT_TRUE(SameBits(RunJobOn(backend, job, in, RowByRow(job.lane_rows)), expected)) << device.name << ": row by row";
    }
    for (int i = 0; i < (device.fast ? 4 : 1); ++i) {
      EXPECT_TRUE(SameBits(RunJobOn(backend, job, in, RandomCut(job.lane_rows, most_chunk, random)), expected))
          << device.name << ": cut at random";
    }
    Job idle = job;
    idle.idle_lanes = true;
    EXPECT_TRUE(SameBits(RunJobOn(backend, idle, in, RandomCut(job.lane_rows, most_chunk, random)), expected))
        << device.name << ": lanes without rows";
  }
  return outcomes;
}

}  // namespace reprise
