#include "backend/cuda/emulator/emulated_device.h"

#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <utility>

#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/best_kernels.h"
#include "backend/cuda/emulator/fibers.h"
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

namespace reprise::cuda {
namespace {

using Run = void (*)(const void* args);

const std::array<Run, kKernels>& Table() {
  static const auto table = [] {
    std::array<Run, kKernels> runs{};
#define REPRISE_ADD(id, Args, ...) runs[static_cast<size_t>(id)] = [](const void* args) { __VA_ARGS__(*static_cast<const Args*>(args)); };
    REPRISE_KERNELS(REPRISE_ADD)
#undef REPRISE_ADD
    return runs;
  }();
  return table;
}

struct EmulatedGraph : Graph {
  std::vector<Launch> launches;  // whose arguments the work points to
  std::vector<emulator::Work> work;
  bool rounds = false;  // whether one of them does
};

class EmulatedDevice : public Device {
 public:
  EmulatedDevice(int multiprocessors, uint64_t* to_host, bool* rounded)
      : multiprocessors_(multiprocessors), to_host_(to_host), rounded_(rounded) {
    void* address = ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address != MAP_FAILED) memory_ = static_cast<std::byte*>(address);
  }
  ~EmulatedDevice() override {
    if (memory_) ::munmap(memory_, kBytes);
    for (std::byte* pinned : pinned_) std::free(pinned);
  }

  std::string description() const override { return "CUDA kernels, emulated on the host"; }
  std::string rounding() const override { return "once"; }
  int multiprocessors() const override { return multiprocessors_; }
  size_t total_bytes() const override { return size_t{8} << 20; }  // so little that attention takes both its forms in tests
  size_t free_bytes() const override { return kBytes - used_; }
  int shared_limit() const override { return 99 << 10; }  // the least of all devices that the kernels are for

  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override {
    if (memory_ == nullptr || bytes > kBytes - used_ - 3 * kPageBytes) return Refuse(bytes, what);
    // It ends where a page does that kernels cannot touch.
    const size_t room = (bytes + 255) / 256 * 256;
    const size_t guard = used_ + (room + kPageBytes - 1) / kPageBytes * kPageBytes;
    guards_.push_back(memory_ + guard);
    used_ = guard + kPageBytes;
    return memory_ + guard - room;
  }
  Result<std::byte*> AllocatePinned(size_t bytes, std::string_view what) override {
    auto* memory = bytes > kBytes ? nullptr : static_cast<std::byte*>(std::aligned_alloc(256, (bytes + 256) / 256 * 256));
    if (memory == nullptr) return Refuse(bytes, what);
    std::memset(memory, 0, bytes);
    pinned_.push_back(memory);
    return memory;
  }
  Status Copy(std::byte* to, const std::byte* from, size_t bytes, Queue queue) override {
    if (queue == Queue::kCopies) {
      waiting_.push_back({to, from, bytes});
      return Ok();
    }
    if (to_host_ && Owns(from) && !Owns(to)) *to_host_ += bytes;
    Open(true);
    std::memcpy(to, from, bytes);
    Open(false);
    return Ok();
  }
  Result<std::unique_ptr<Graph>> Instantiate(std::span<const Launch> launches, const Bucket& bucket) override {
    auto graph = std::make_unique<EmulatedGraph>();
    graph->launches.assign(launches.begin(), launches.end());
    for (const Launch& launch : graph->launches) {
      const Grid grid = launch.grid(launch.args, bucket);
      if (grid.shared > shared_limit()) return Unsupported("a kernel wants " + std::to_string(grid.shared) + " bytes of shared memory");
      const int kernel = grid.kernel >= 0 ? grid.kernel : launch.kernel;
      graph->work.push_back({grid, Table()[static_cast<size_t>(kernel)], launch.args});
      graph->rounds = graph->rounds || RoundsInItsOwnWay(kernel);
    }
    return std::unique_ptr<Graph>(std::move(graph));
  }
  Status Run(const Graph& graph) override {
    const auto& emulated = static_cast<const EmulatedGraph&>(graph);
    Open(true);
    for (std::byte* guard : guards_) ::mprotect(guard, kPageBytes, PROT_NONE);
    emulator::RunLaunches(emulated.work);
    Open(false);
    if (rounded_ && emulated.rounds) *rounded_ = true;
    return Ok();
  }
  Status Mark(int mark, Queue queue) override {
    marks_[static_cast<size_t>(mark)] = queue == Queue::kCopies ? done_ + waiting_.size() : 0;
    return Ok();
  }
  Status WaitFor(int mark) override { return CopyUntil(marks_[static_cast<size_t>(mark)]); }
  Status Follow(Queue queue, int mark) override { return queue == Queue::kSteps ? WaitFor(mark) : Ok(); }
  Status Synchronize(Queue queue) override { return queue == Queue::kCopies ? CopyUntil(done_ + waiting_.size()) : Ok(); }

 private:
  struct Waiting {
    std::byte* to;
    const std::byte* from;
    size_t bytes;
  };
  // Steps run at once; copies beside them when they are waited for and no sooner, so that a wait that is missing shows.
  Status CopyUntil(uint64_t count) {
    for (; done_ < count; ++done_) {
      const Waiting copy = waiting_.front();
      waiting_.pop_front();
      REPRISE_RETURN_IF_ERROR(Copy(copy.to, copy.from, copy.bytes, Queue::kSteps));
    }
    return Ok();
  }
  static constexpr size_t kBytes = size_t{8} << 30;  // of addresses: pages are there when they are touched
  static constexpr size_t kPageBytes = 4096;

  static Status Refuse(size_t bytes, std::string_view what) {
    return Exhausted("no memory for " + std::string(what) + " (" + std::to_string(bytes) + " bytes)");
  }
  bool Owns(const std::byte* at) const { return at >= memory_ && at < memory_ + kBytes; }
  void Open(bool open) { ::mprotect(memory_, kBytes, open ? PROT_READ | PROT_WRITE : PROT_NONE); }

  const int multiprocessors_;
  uint64_t* const to_host_;
  bool* const rounded_;
  std::byte* memory_ = nullptr;
  size_t used_ = 0;
  std::vector<std::byte*> guards_;  // a page after each allocation
  std::vector<std::byte*> pinned_;
  std::deque<Waiting> waiting_;  // in Queue::kCopies
  uint64_t done_ = 0;            // of that queue's copies, in all
  std::array<uint64_t, kMarks> marks_{};
};

}  // namespace

std::unique_ptr<Device> MakeEmulatedDevice(int multiprocessors, uint64_t* to_host, bool* rounded) {
  return std::make_unique<EmulatedDevice>(multiprocessors, to_host, rounded);
}

}  // namespace reprise::cuda
