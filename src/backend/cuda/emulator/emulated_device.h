// A Device that runs the kernels on the host (fibers.h). Its memory is out of the host's reach but while a kernel or a copy runs, so that whoever
// above touches what a GPU would keep to itself is caught at once.
#pragma once

#include <memory>

#include "backend/cuda/device.h"

namespace reprise::cuda {

std::unique_ptr<Device> MakeEmulatedDevice(int multiprocessors = 3);

}  // namespace reprise::cuda
