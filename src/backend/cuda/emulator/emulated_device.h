// A Device that runs the kernels on the host (fibers.h). Its memory is out of the host's reach but while a kernel or a copy runs, so that whoever
// above touches what a GPU would keep to itself is caught at once.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/cuda/device.h"

namespace reprise::cuda {

// With `to_host`, which must outlive it, it adds up the bytes of copies out of its memory into the host's. With `rounded`, which must, it sets that when
// a kernel runs whose results another kind of device rounds otherwise (RoundsInItsOwnWay).
std::unique_ptr<Device> MakeEmulatedDevice(int multiprocessors = 3, uint64_t* to_host = nullptr, bool* rounded = nullptr);

}  // namespace reprise::cuda
