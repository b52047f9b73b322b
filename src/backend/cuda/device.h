// Device: what the backend asks of a GPU. There are two: one through the CUDA runtime (cuda_device.cu), and the emulator (emulator/), on which the
// tests run everything above this interface, and the kernels below it, where there is no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "reprise/status.h"

namespace reprise::cuda {

// Launches for the steps of one bucket, instantiated: running it allocates nothing.
class Graph {
 public:
  virtual ~Graph() = default;
};

// Two queues of work, each in its order: graphs and copies in one, and beside it one of copies alone, for what no step waits for. Used by one
// thread at a time. Memory lives as long as the device.
enum class Queue { kSteps, kCopies };
class Device {
 public:
  virtual ~Device() = default;

  virtual std::string description() const = 0;  // "NVIDIA H100 80GB HBM3 (sm_90, 132 multiprocessors)"
  virtual std::string rounding() const = 0;     // names how its tensor cores round sums of products of halves: "sm_90"
  virtual int multiprocessors() const = 0;
  virtual size_t total_bytes() const = 0;
  virtual size_t free_bytes() const = 0;
  virtual int shared_limit() const = 0;  // bytes of shared memory that a block may have

  // Zeroed memory of the device, that the host must not touch; and zeroed memory of the host that the device reaches at the same address.
  virtual Result<std::byte*> Allocate(size_t bytes, std::string_view what) = 0;
  virtual Result<std::byte*> AllocatePinned(size_t bytes, std::string_view what) = 0;

  // Copies go between memory of any kind. Graphs run in Queue::kSteps.
  virtual Status Copy(std::byte* to, const std::byte* from, size_t bytes, Queue queue = Queue::kSteps) = 0;
  virtual Result<std::unique_ptr<Graph>> Instantiate(std::span<const Launch> launches, const Bucket& bucket) = 0;
  virtual Status Run(const Graph& graph) = 0;

  // A point after all work so far of a queue, of which at most kMarks are kept; a mark may be passed again, and one never passed is past.
  static constexpr int kMarks = 24;
  virtual Status Mark(int mark, Queue queue = Queue::kSteps) = 0;
  virtual Status WaitFor(int mark) = 0;              // the host waits
  virtual Status Follow(Queue queue, int mark) = 0;  // later work of the queue waits
  virtual Status Synchronize(Queue queue = Queue::kSteps) = 0;

  virtual BackendLimits MeasureLimits() { return {}; }
};

struct CudaOptions;
// The GPU of that number, or why it cannot be had.
Result<std::unique_ptr<Device>> OpenDevice(const CudaOptions& options);
// One line for each GPU of this machine; empty where there is none, or no driver, or this build has no CUDA.
std::vector<std::string> ListDevices();
// Whether this build has CUDA at all.
bool HasCuda();

}  // namespace reprise::cuda
