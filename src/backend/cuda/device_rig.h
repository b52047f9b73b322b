// For tests: the backends of devices, for the jobs of job_rig.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/emulator/emulated_device.h"
#include "backend/job_rig.h"

namespace reprise {

// The backends beside the CPU's that this machine can test: the CUDA kernels on the emulator, and on a GPU where there is one.
struct TestBackend {
  std::string name;
  std::unique_ptr<Backend> backend;
  bool fast = false;
};
std::vector<TestBackend> DeviceBackends();

}  // namespace reprise
