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

// Names the order and rounding of every operation that the kernels decide; change it whenever a kernel's results change.
constexpr char kNumerics[] = "cuda4";

// One of the device's queues. A point of it that another stream may wait for is a mark of the device; the latest few are kept, and whoever asks
// for one that is no longer kept waits for the next, which is later.
class CudaStream : public Stream {
 public:
  static constexpr int kMarks = 8;

  // `first_mark` and the ones after it are this stream's.
  CudaStream(const void* owner, Device& device, Uploads& uploads, Queue queue, int first_mark)
      : owner_(owner), device_(device), uploads_(uploads), queue_(queue), first_mark_(first_mark) {}
  // The stream whose events this one may wait for beside its own.
  void Meet(CudaStream& other) { other_ = &other; }

  Status Replay(const Plan& plan) override {
    if (queue_ != Queue::kSteps) return InvalidArgument("replay: this stream is for copies alone");
    const auto* cuda_plan = dynamic_cast<const CudaPlan*>(&plan);
    REPRISE_RETURN_IF_ERROR(CapturedPlan::CheckReplay(cuda_plan, owner_));
    const StepTable& table = cuda_plan->table();
    REPRISE_RETURN_IF_ERROR(uploads_.Bind(table));
    ++sequence_;
    return device_.Run(cuda_plan->Find(table.rows, table.lanes));
  }
  Status Copy(std::byte* to, const std::byte* from, size_t bytes) override {
    ++sequence_;
    return bytes ? device_.Copy(to, from, bytes, queue_) : Ok();
  }
  Event Record() override {
    (void)MarkHere();  // whoever waits marks again, and sees the error
    return {this, sequence_};
  }
  Status Wait(const Event& event) override {
    if (event.stream == nullptr || event.stream == this) return Ok();
    if (other_ == nullptr || event.stream != other_) return InvalidArgument("wait: the event belongs to another device's stream");
    REPRISE_ASSIGN_OR_RETURN(const int mark, other_->MarkAfter(event.sequence));
    return device_.Follow(queue_, mark);
  }
  Status Synchronize() override { return device_.Synchronize(queue_); }

 private:
  Status MarkHere() {
    if (marked_ > 0 && at_[(marked_ - 1) % kMarks] == sequence_) return Ok();
    REPRISE_RETURN_IF_ERROR(device_.Mark(first_mark_ + static_cast<int>(marked_ % kMarks), queue_));
    at_[marked_++ % kMarks] = sequence_;
    return Ok();
  }
  // The first mark kept that everything up to `sequence` is before.
  Result<int> MarkAfter(uint64_t sequence) {
    for (uint64_t i = marked_ - std::min<uint64_t>(marked_, kMarks); i < marked_; ++i) {
      if (at_[i % kMarks] >= sequence) return first_mark_ + static_cast<int>(i % kMarks);
    }
    REPRISE_RETURN_IF_ERROR(MarkHere());
    return first_mark_ + static_cast<int>((marked_ - 1) % kMarks);
  }

  const void* owner_;
  Device& device_;
  Uploads& uploads_;
  const Queue queue_;
  const int first_mark_;
  CudaStream* other_ = nullptr;
  uint64_t sequence_ = 0;
  uint64_t at_[kMarks] = {};  // [i % kMarks]: the sequence at the i-th mark
  uint64_t marked_ = 0;
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<Device> device)
      : device_(std::move(device)),
        workspace_(*this),
        uploads_(*device_),
        stream_(this, *device_, uploads_, Queue::kSteps, kStreamMarks),
        copies_(this, *device_, uploads_, Queue::kCopies, kStreamMarks + CudaStream::kMarks) {
    stream_.Meet(copies_);
    copies_.Meet(stream_);
  }
  ~CudaBackend() override {
    (void)device_->Synchronize(Queue::kCopies);
    (void)device_->Synchronize();
  }

  std::string_view name() const override { return "cuda"; }
  std::string description() const override { return device_->description(); }
  std::string numerics() const override { return std::string(kNumerics) + "-" + device_->rounding(); }
  int threads() const override { return 1; }
  size_t free_memory() const override { return device_->free_bytes(); }
  BackendLimits MeasureLimits() override { return device_->MeasureLimits(); }

  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override { return device_->Allocate(bytes, what); }
  Result<std::byte*> AllocateForHost(size_t bytes, std::string_view what) override { return device_->AllocatePinned(bytes, what); }

  Status CheckLoad(const WeightSource& source) const override { return PackedWeight::Plan(source).status(); }
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

  bool finds_best() const override { return true; }
  Stream& stream() override { return stream_; }
  Stream* copies() override { return &copies_; }

 private:
  static constexpr size_t kPieceBytes = size_t{16} << 20;
  static constexpr int kStagingMark = Uploads::kMarks;  // and the one after it
  static constexpr int kStreamMarks = kStagingMark + 2;
  static_assert(kStreamMarks + 2 * CudaStream::kMarks <= Device::kMarks);

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
  CudaStream stream_, copies_;
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
