// The CUDA backend: plans are graphs of kernels over static buffers; what changes from step to step goes to the device as one small copy.
//
// Replaying, copying and switching lanes allocate nothing and capture nothing. Results are bit-identical for every number of lanes and rows a
// step, on every GPU, and on the emulator.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "reprise/status.h"

namespace reprise {

namespace cuda {
class Device;
struct CudaOptions {
  int device = 0;
  // Sets kernels up while the one before still runs (sm_90 and later).
  bool overlap_launches = true;
  // How much of the memory that a multiprocessor has for both its threads to share and its first cache is for the threads, of every kernel; negative:
  // what the driver thinks best for each. A multiprocessor cannot set up a kernel that wants another share than the one that it still runs.
  int shared_percent = -1;
};
Result<std::unique_ptr<Backend>> MakeBackend(std::unique_ptr<Device> device);
}  // namespace cuda

using CudaOptions = cuda::CudaOptions;

// kUnsupported, saying why, where this build has no CUDA or this machine no such GPU.
Result<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options = {});
// One line for each GPU of this machine.
std::vector<std::string> CudaDevices();
// What "cuda" or "cuda:N" asks for.
Result<CudaOptions> ParseCudaDevice(std::string_view name);

}  // namespace reprise
