#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <deque>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "backend/cuda/cuda_plan.h"
#include "backend/cuda/upload.h"

namespace reprise {
namespace cuda {
namespace {

// Names the order and rounding of every operation; change it whenever a kernel's results change.
constexpr char kNumerics[] = "cuda1";

class CudaStream : public Stream {
 public:
  CudaStream(const void* owner, Device& device, Uploads& uploads) : owner_(owner), device_(device), uploads_(uploads) {}

  Status Replay(const Plan& plan) override {
    const auto* cuda_plan = dynamic_cast<const CudaPlan*>(&plan);
    REPRISE_RETURN_IF_ERROR(CapturedPlan::CheckReplay(cuda_plan, owner_));
    const StepTable& table = cuda_plan->table();
    REPRISE_RETURN_IF_ERROR(uploads_.Bind(table));
    ++sequence_;
    return device_.Run(cuda_plan->Find(table.rows, table.lanes));
  }
  Status Copy(std::byte* to, const std::byte* from, size_t bytes) override {
    ++sequence_;
    return bytes ? device_.Copy(to, from, bytes) : Ok();
  }
  Event Record() override { return {this, sequence_}; }
  // There is one stream, and it does things in order.
  Status Wait(const Event& event) override {
    return event.stream == nullptr || event.stream == this ? Ok() : InvalidArgument("wait: the event belongs to another stream");
  }
  Status Synchronize() override { return device_.Synchronize(); }

 private:
  const void* owner_;
  Device& device_;
  Uploads& uploads_;
  uint64_t sequence_ = 0;
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<Device> device)
      : device_(std::move(device)), workspace_(*this), uploads_(*device_), stream_(this, *device_, uploads_) {}
  ~CudaBackend() override { (void)device_->Synchronize(); }

  std::string_view name() const override { return "cuda"; }
  std::string description() const override { return device_->description(); }
  std::string numerics() const override { return kNumerics; }
  int threads() const override { return 1; }
  size_t free_memory() const override { return device_->free_bytes(); }
  BackendLimits MeasureLimits() override { return device_->MeasureLimits(); }

  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override { return device_->Allocate(bytes, what); }
  Result<std::byte*> AllocateForHost(size_t bytes, std::string_view what) override { return device_->AllocatePinned(bytes, what); }

  Result<const Matrix*> LoadMatrix(const WeightSource& source) override {
    REPRISE_ASSIGN_OR_RETURN(PackedWeight planned, PackedWeight::Plan(source));
    REPRISE_ASSIGN_OR_RETURN(std::byte * memory, device_->Allocate(planned.total_bytes(), "weight " + std::string(source.name)));
    planned.view.data = memory;
    // Packed a few megabytes at a time, on all processors, and copied while the next piece is packed.
    const size_t tile_bytes = planned.tile_bytes();
    const int tiles = planned.view.tiles(), piece_tiles = static_cast<int>(std::max<size_t>(1, kPieceBytes / tile_bytes));
    for (int first = 0; first < tiles; first += piece_tiles) {
      const int count = std::min(piece_tiles, tiles - first);
      REPRISE_ASSIGN_OR_RETURN(std::byte * staging, Staging(static_cast<size_t>(piece_tiles) * tile_bytes));
      const auto pack = [&](int from, int to) {
        for (int i = from; i < to; ++i) planned.PackTile(source.data.data(), first + i, staging + static_cast<size_t>(i) * tile_bytes);
      };
      const int workers = std::clamp(static_cast<int>(static_cast<size_t>(count) * tile_bytes >> 18), 1, processors_);
      std::vector<std::thread> team;
      for (int i = 1; i < workers; ++i) team.emplace_back(pack, count * i / workers, count * (i + 1) / workers);
      pack(0, count / workers);
      for (std::thread& thread : team) thread.join();
      REPRISE_RETURN_IF_ERROR(
          device_->Copy(memory + static_cast<size_t>(first) * tile_bytes, staging, static_cast<size_t>(count) * tile_bytes));
      REPRISE_RETURN_IF_ERROR(device_->Mark(kStagingMark + side_));
    }
    weights_.push_back(std::move(planned));
    return &weights_.back();
  }

  Result<std::unique_ptr<Plan>> Capture(const StepTable& table, const std::function<void(Ops&)>& record) override {
    REPRISE_ASSIGN_OR_RETURN(const StepView step, uploads_.View(table));
    auto plan = std::make_unique<CudaPlan>(this, table);
    CudaOps ops(*plan, step, workspace_, *device_);
    record(ops);
    if (!ops.error().ok()) return ops.error();
    REPRISE_RETURN_IF_ERROR(plan->Finish(*device_));
    return std::unique_ptr<Plan>(std::move(plan));
  }

  Stream& stream() override { return stream_; }

 private:
  static constexpr size_t kPieceBytes = size_t{16} << 20;
  static constexpr int kStagingMark = Uploads::kMarks;  // and the one after it
  static_assert(kStagingMark + 2 <= Device::kMarks);

  // The pinned buffer whose last copy is longer ago, once that copy is done.
  Result<std::byte*> Staging(size_t bytes) {
    side_ ^= 1;
    auto& [memory, size] = staging_[side_];
    REPRISE_RETURN_IF_ERROR(device_->WaitFor(kStagingMark + side_));
    if (size < bytes) {
      REPRISE_ASSIGN_OR_RETURN(memory, device_->AllocatePinned(bytes, "packing weights"));
      size = bytes;
    }
    return memory;
  }

  std::unique_ptr<Device> device_;
  Workspace workspace_;
  Uploads uploads_;
  const int processors_ = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::pair<std::byte*, size_t> staging_[2] = {};
  int side_ = 0;
  std::deque<PackedWeight> weights_;
  CudaStream stream_;
};

}  // namespace

Result<std::unique_ptr<Backend>> MakeBackend(std::unique_ptr<Device> device) {
  return std::unique_ptr<Backend>(std::make_unique<CudaBackend>(std::move(device)));
}

#if !defined(REPRISE_CUDA)
Result<std::unique_ptr<Device>> OpenDevice(const CudaOptions&) {
  return Unsupported("this build has no CUDA backend: there was no nvcc when it was configured");
}
std::vector<std::string> ListDevices() { return {}; }
bool HasCuda() { return false; }
#endif

}  // namespace cuda

Result<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(auto device, cuda::OpenDevice(options));
  return cuda::MakeBackend(std::move(device));
}

std::vector<std::string> CudaDevices() { return cuda::ListDevices(); }

Result<CudaOptions> ParseCudaDevice(std::string_view name) {
  CudaOptions options;
  std::string_view number = name;
  if (number.starts_with("cuda:")) {
    number.remove_prefix(5);
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), options.device);
    if (error == std::errc() && end == number.data() + number.size() && options.device >= 0) return options;
  } else if (number == "cuda") {
    return options;
  }
  return InvalidArgument("the device '" + std::string(name) + "' is unknown; there are cpu, cuda and cuda:N");
}

}  // namespace reprise
