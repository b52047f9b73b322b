// The GPU through the CUDA runtime: memory, one stream, graphs. The one file that nvcc compiles, with every kernel in it.
#include <cuda_runtime.h>

#include <array>
#include <chrono>
#include <mutex>

#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/best_kernels.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/expert_kernels.h"
#include "backend/cuda/fused_kernels.h"
#include "backend/cuda/fused_state_kernels.h"
#include "backend/cuda/half_attention_kernels.h"
#include "backend/cuda/kernel_table.h"
#include "backend/cuda/matmul_kernels.h"
#include "backend/cuda/row_kernels.h"
#include "backend/cuda/scan_kernels.h"
#include "backend/cuda/short_matmul_kernels.h"
#include "backend/cuda/state_kernels.h"
#include "base/hot_calls.h"

namespace reprise::cuda {
namespace {

// Where the error of a call belongs, and what CUDA says of it.
Status Error(cudaError_t error, const std::string& what) {
  (void)cudaGetLastError();  // an error that is no fault of the device is not found again by a later call
  const std::string message = what + ": " + cudaGetErrorString(error);
  return error == cudaErrorMemoryAllocation ? Exhausted(message) : IoError(message);
}
#define REPRISE_CUDA_RETURN(call, what)                    \
  do {                                                     \
    const cudaError_t error_ = [&] {                       \
      const InDriver in_driver;                            \
      return (call);                                       \
    }();                                                   \
    if (error_ != cudaSuccess) return Error(error_, what); \
  } while (false)

// What measures the device: reads of memory that is in no cache, and products of bytes on the tensor cores.
__global__ void ReadMemory(const uint4* from, size_t count, uint32_t* out) {
  uint32_t seen = 0;
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count; i += size_t{gridDim.x} * blockDim.x) {
    const uint4 v = __ldg(from + i);
    seen ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (seen == 0x12345678u) *out = seen;
}
constexpr int kTileTurns = 4096, kTileChains = 8;
__global__ void MultiplyBytes(int* out) {
  int sums[kTileChains][4] = {};
  const uint32_t a[4] = {threadIdx.x, threadIdx.x + 1, threadIdx.x + 2, threadIdx.x + 3}, b[2] = {threadIdx.x * 3, threadIdx.x * 5};
  for (int i = 0; i < kTileTurns; ++i) {
#pragma unroll
    for (int c = 0; c < kTileChains; ++c) {
      asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                   : "+r"(sums[c][0]), "+r"(sums[c][1]), "+r"(sums[c][2]), "+r"(sums[c][3])
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }
  int all = 0;
  for (auto& sum : sums) all ^= sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
  if (all == 0x12345678) *out = all;
}

const std::array<const void*, kKernels>& Table() {
  static const auto table = [] {
    std::array<const void*, kKernels> kernels{};
#define REPRISE_ADD(id, Args, ...) \
  kernels[static_cast<size_t>(id)] = reinterpret_cast<const void*>(static_cast<void (*)(const Args)>(&__VA_ARGS__));
    REPRISE_KERNELS(REPRISE_ADD)
#undef REPRISE_ADD
    return kernels;
  }();
  return table;
}

struct CudaGraph : Graph {
  ~CudaGraph() override {
    if (executable) cudaGraphExecDestroy(executable);
  }
  cudaGraphExec_t executable = nullptr;
};

class CudaDevice : public Device {
 public:
  CudaDevice(const CudaOptions& options, const cudaDeviceProp& properties) : options_(options), properties_(properties) {}
  ~CudaDevice() override {
    for (cudaStream_t stream : {stream_, copies_}) {
      if (stream) cudaStreamSynchronize(stream);
    }
    for (void* memory : device_memory_) cudaFree(memory);
    for (void* memory : pinned_memory_) cudaFreeHost(memory);
    for (cudaEvent_t event : marks_) {
      if (event) cudaEventDestroy(event);
    }
    for (cudaStream_t stream : {stream_, copies_}) {
      if (stream) cudaStreamDestroy(stream);
    }
  }

  Status Open() {
    REPRISE_CUDA_RETURN(cudaSetDevice(options_.device), "cuda:" + std::to_string(options_.device));
    for (cudaStream_t* stream : {&stream_, &copies_}) {
      REPRISE_CUDA_RETURN(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "a stream of the device");
    }
    for (cudaEvent_t& event : marks_) REPRISE_CUDA_RETURN(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
    for (int id = 0; id < kKernels; ++id) {
      if (Table()[static_cast<size_t>(id)] == nullptr) continue;  // a number that no kernel has: of forms that need fewer
      const void* const kernel = Table()[static_cast<size_t>(id)];
      cudaFuncAttributes attributes;  // loads the kernel: nothing is to be loaded while a graph is captured
      REPRISE_CUDA_RETURN(cudaFuncGetAttributes(&attributes, kernel), "this build has no kernels for " + description());
      // All that a block may have, once: a graph must not find less than it was made with because a later one needed less.
      const int most = shared_limit() - static_cast<int>(attributes.sharedSizeBytes);
      REPRISE_CUDA_RETURN(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), "shared memory");
      if (options_.shared_percent >= 0) {
        REPRISE_CUDA_RETURN(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, options_.shared_percent),
                            "a share of " + std::to_string(options_.shared_percent) + " % for shared memory");
      }
    }
    return Ok();
  }

  std::string rounding() const override { return "sm_" + std::to_string(properties_.major) + std::to_string(properties_.minor); }
  std::string description() const override {
    return std::string("CUDA, ") + properties_.name + ", " + rounding() + ", " + std::to_string(properties_.multiProcessorCount) +
           " multiprocessors";
  }
  int multiprocessors() const override { return properties_.multiProcessorCount; }
  size_t total_bytes() const override { return properties_.totalGlobalMem; }
  size_t free_bytes() const override {
    size_t left = 0, all = 0;
    return cudaMemGetInfo(&left, &all) == cudaSuccess ? left : 0;
  }
  int shared_limit() const override { return static_cast<int>(properties_.sharedMemPerBlockOptin); }

  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override {
    REPRISE_RETURN_IF_ERROR(Use());
    void* memory = nullptr;
    size_t left = 0, all = 0;
    if (const cudaError_t error = cudaMalloc(&memory, bytes ? bytes : 1); error != cudaSuccess) {
      cudaGetLastError();
      cudaMemGetInfo(&left, &all);
      return Exhausted("no memory on " + description() + " for " + std::string(what) + " (" + std::to_string(bytes) + " bytes; " +
                       std::to_string(left) + " of " + std::to_string(all) + " are free): " + cudaGetErrorString(error));
    }
    device_memory_.push_back(memory);
    REPRISE_CUDA_RETURN(cudaMemsetAsync(memory, 0, bytes, stream_), "clearing " + std::string(what));
    return static_cast<std::byte*>(memory);
  }
  Result<std::byte*> AllocatePinned(size_t bytes, std::string_view what) override {
    REPRISE_RETURN_IF_ERROR(Use());
    void* memory = nullptr;
    REPRISE_CUDA_RETURN(cudaHostAlloc(&memory, bytes ? bytes : 1, cudaHostAllocPortable | cudaHostAllocMapped),
                        "no pinned memory for " + std::string(what) + " (" + std::to_string(bytes) + " bytes)");
    pinned_memory_.push_back(memory);
    std::memset(memory, 0, bytes);
    return static_cast<std::byte*>(memory);
  }

  Status Copy(std::byte* to, const std::byte* from, size_t bytes, Queue queue) override {
    REPRISE_RETURN_IF_ERROR(Use());
    REPRISE_CUDA_RETURN(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, Of(queue)), "copying " + std::to_string(bytes) + " bytes");
    return Ok();
  }

  Result<std::unique_ptr<Graph>> Instantiate(std::span<const Launch> launches, const Bucket& bucket) override {
    REPRISE_RETURN_IF_ERROR(Use());
    auto graph = std::make_unique<CudaGraph>();
    cudaGraph_t captured = nullptr;
    REPRISE_CUDA_RETURN(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "capturing a plan");
    const Status status = [&]() -> Status {
      for (const Launch& launch : launches) REPRISE_RETURN_IF_ERROR(Capture(launch, bucket, /*first=*/&launch == launches.data()));
      return Ok();
    }();
    const cudaError_t error = cudaStreamEndCapture(stream_, &captured);  // ends it in any case
    REPRISE_RETURN_IF_ERROR(status);
    if (error != cudaSuccess) return Error(error, "capturing a plan");
    const cudaError_t made = cudaGraphInstantiate(&graph->executable, captured, 0);
    cudaGraphDestroy(captured);
    if (made != cudaSuccess) return Error(made, "instantiating a plan of " + std::to_string(launches.size()) + " launches");
    REPRISE_CUDA_RETURN(cudaGraphUpload(graph->executable, stream_), "uploading a plan");
    return std::unique_ptr<Graph>(std::move(graph));
  }

  Status Run(const Graph& graph) override {
    REPRISE_RETURN_IF_ERROR(Use());
    REPRISE_CUDA_RETURN(cudaGraphLaunch(static_cast<const CudaGraph&>(graph).executable, stream_), "running a plan");
    return Ok();
  }

  Status Mark(int mark, Queue queue) override {
    REPRISE_RETURN_IF_ERROR(Use());
    REPRISE_CUDA_RETURN(cudaEventRecord(marks_[mark], Of(queue)), "marking a point of the stream");
    return Ok();
  }
  Status Follow(Queue queue, int mark) override {
    REPRISE_RETURN_IF_ERROR(Use());
    REPRISE_CUDA_RETURN(cudaStreamWaitEvent(Of(queue), marks_[mark], 0), "letting one stream follow another");
    return Ok();
  }
  Status WaitFor(int mark) override {
    REPRISE_CUDA_RETURN(cudaEventSynchronize(marks_[mark]), "waiting for the device");
    return Ok();
  }
  Status Synchronize(Queue queue) override {
    REPRISE_CUDA_RETURN(cudaStreamSynchronize(Of(queue)), "waiting for the device");
    return Ok();
  }

  BackendLimits MeasureLimits() override {
    BackendLimits limits;
    constexpr size_t kBytes = size_t{1} << 30;
    void* memory = nullptr;
    if (cudaMalloc(&memory, kBytes) != cudaSuccess) {
      cudaGetLastError();
      return limits;
    }
    cudaMemsetAsync(memory, 1, kBytes, stream_);
    const int blocks = multiprocessors() * 8;
    const auto best_of = [&](auto&& launch) {
      double best = 1e9;
      for (int i = 0; i < 7; ++i) {
        cudaStreamSynchronize(stream_);
        const auto start = std::chrono::steady_clock::now();
        launch();
        cudaStreamSynchronize(stream_);
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
      return best;
    };
    limits.read_bytes_per_second =
        kBytes / best_of([&] {
          ReadMemory<<<blocks, 512, 0, stream_>>>(static_cast<const uint4*>(memory), kBytes / 16, static_cast<uint32_t*>(memory));
        });
    const double macs = static_cast<double>(blocks) * (256 / 32) * kTileTurns * kTileChains * 16 * 8 * 32;
    limits.byte_macs_per_second = macs / best_of([&] { MultiplyBytes<<<blocks, 256, 0, stream_>>>(static_cast<int*>(memory)); });
    cudaFree(memory);
    return limits;
  }

 private:
  cudaStream_t Of(Queue queue) const { return queue == Queue::kSteps ? stream_ : copies_; }
  // The device is chosen a thread, and a model may be used on another thread than it was loaded on.
  Status Use() const {
    REPRISE_CUDA_RETURN(cudaSetDevice(options_.device), description());
    return Ok();
  }
  Status Capture(const Launch& launch, const Bucket& bucket, bool first) {
    const Grid grid = launch.grid(launch.args, bucket);
    const void* kernel = Table()[static_cast<size_t>(grid.kernel >= 0 ? grid.kernel : launch.kernel)];
    if (grid.shared > shared_limit()) {
      return Unsupported(description() + " gives a block " + std::to_string(shared_limit()) + " bytes of shared memory; a kernel wants " +
                         std::to_string(grid.shared));
    }
    cudaLaunchAttribute overlap;
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
    config.blockDim = dim3(static_cast<unsigned>(grid.threads));
    config.dynamicSmemBytes = static_cast<size_t>(grid.shared);
    config.stream = stream_;
    config.attrs = &overlap;
    // The first kernel of a graph follows the copy of the bindings, which no kernel announces.
    config.numAttrs = options_.overlap_launches && !first && properties_.major >= 9 ? 1 : 0;
    void* args[] = {const_cast<std::byte*>(launch.args)};
    REPRISE_CUDA_RETURN(cudaLaunchKernelExC(&config, kernel, args), "capturing a kernel");
    return Ok();
  }

  const CudaOptions options_;
  const cudaDeviceProp properties_;
  cudaStream_t stream_ = nullptr, copies_ = nullptr;
  std::array<cudaEvent_t, kMarks> marks_{};
  std::vector<void*> device_memory_, pinned_memory_;
};

// How many GPUs there are, or why none can be had.
Result<int> CountDevices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();
    return Unsupported(std::string("this machine has no GPU that CUDA can use") + (error != cudaSuccess && error != cudaErrorNoDevice
                                                                                       ? std::string(": ") + cudaGetErrorString(error)
                                                                                       : std::string()));
  }
  return count;
}

}  // namespace

bool HasCuda() { return true; }

Result<std::unique_ptr<Device>> OpenDevice(const CudaOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const int count, CountDevices());
  if (options.device < 0 || options.device >= count) {
    return Unsupported("there is no cuda:" + std::to_string(options.device) + "; this machine's last is cuda:" + std::to_string(count - 1));
  }
  cudaDeviceProp properties;
  REPRISE_CUDA_RETURN(cudaGetDeviceProperties(&properties, options.device), "cuda:" + std::to_string(options.device));
  if (properties.major < 8) {
    return Unsupported(std::string(properties.name) + " is of compute capability " + std::to_string(properties.major) + "." +
                       std::to_string(properties.minor) + "; the CUDA backend needs 8.0");
  }
  auto device = std::make_unique<CudaDevice>(options, properties);
  REPRISE_RETURN_IF_ERROR(device->Open());
  return std::unique_ptr<Device>(std::move(device));
}

std::vector<std::string> ListDevices() {
  std::vector<std::string> lines;
  const auto count = CountDevices();
  for (int i = 0; count.ok() && i < *count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    lines.push_back("cuda:" + std::to_string(i) + ": " + properties.name + ", sm_" + std::to_string(properties.major) +
                    std::to_string(properties.minor) + ", " + std::to_string(properties.multiProcessorCount) + " multiprocessors, " +
                    std::to_string(properties.totalGlobalMem >> 20) + " MiB");
  }
  return lines;
}

}  // namespace reprise::cuda
