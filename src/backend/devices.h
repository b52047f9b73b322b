// Backends by the name of their device.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "reprise/status.h"

namespace reprise {

// "cpu" (or nothing), with the options given; "cuda" or "cuda:N". The error says what is missing.
Result<std::unique_ptr<Backend>> MakeDeviceBackend(std::string_view device, const CpuOptions& cpu);

// One line for each device of this machine beside its processors.
std::vector<std::string> ListedDevices();

// Makes a device known under a further name, as tests do with the emulator. Not while other threads make backends.
using BackendMaker = std::function<Result<std::unique_ptr<Backend>>()>;
void AddDevice(std::string name, BackendMaker maker);

}  // namespace reprise
