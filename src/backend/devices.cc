#include "backend/devices.h"

#include <map>
#include <utility>

#include "backend/cuda/cuda_backend.h"

namespace reprise {
namespace {

std::map<std::string, BackendMaker, std::less<>>& Added() {
  static std::map<std::string, BackendMaker, std::less<>> added;
  return added;
}

}  // namespace

Result<std::unique_ptr<Backend>> MakeDeviceBackend(std::string_view device, const CpuOptions& cpu) {
  if (device.empty() || device == "cpu") return MakeCpuBackend(cpu);
  if (const auto added = Added().find(device); added != Added().end()) return added->second();
  REPRISE_ASSIGN_OR_RETURN(const CudaOptions cuda, ParseCudaDevice(device));
  return MakeCudaBackend(cuda);
}

std::vector<std::string> ListedDevices() { return CudaDevices(); }

void AddDevice(std::string name, BackendMaker maker) { Added()[std::move(name)] = std::move(maker); }

}  // namespace reprise
