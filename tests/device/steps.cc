// Where the time of a step goes on a device: what a step takes as a whole, and what it takes without the launches of each kernel. What a kernel is
// worth is the difference, since launches overlap and none can be timed by itself. (Without a kernel a step computes nonsense, in much the same time.)
//
//   device_steps [--replays N] [--turns N] [--position N] [--serial] [--shared PERCENT] MODEL DEVICE SHAPE...
//
// A shape is LANESxROWS, as 1x1, 8x1 or 1x1024. One JSON object. --serial: no launch begins before the one before has ended. --shared: of a
// multiprocessor's first memory, that all kernels have for shared memory (CudaOptions).
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/emulator/emulated_device.h"
#include "backend/cuda/kernel_table.h"
#include "models/network.h"

namespace reprise {
namespace {

using cuda::Bucket;
using cuda::Graph;
using cuda::Launch;
using cuda::Queue;
using Clock = std::chrono::steady_clock;

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "device_steps: %s\n", why.c_str());
  std::exit(1);
}
template <class T>
T Must(Result<T> result) {
  if (!result.ok()) Fail(result.status().message());
  return *std::move(result);
}
void Must(const Status& status) {
  if (!status.ok()) Fail(status.message());
}

// "MatMulKernel" of the kernel's number.
std::string KernelName(int id) {
  using namespace cuda;
#define REPRISE_ADD(number, Args, ...) \
  if (id == (number)) return std::string(std::string_view(#__VA_ARGS__).substr(0, std::string_view(#__VA_ARGS__).find('<')));
  REPRISE_KERNELS(REPRISE_ADD)
#undef REPRISE_ADD
  return "?";
}
int KernelOf(const Launch& launch, const Bucket& bucket) {
  const cuda::Grid grid = launch.grid(launch.args, bucket);
  return grid.kernel >= 0 ? grid.kernel : launch.kernel;
}
template <class Args>
Args ArgsOf(const Launch& launch) {
  Args args;
  std::memcpy(static_cast<void*>(&args), launch.args, sizeof(args));
  return args;
}
double WeightBytes(const Launch& launch) {
  const bool fused = launch.kernel >= cuda::kFusedMatMul && launch.kernel < cuda::kFusedMatMul + cuda::kForms;
  if (!fused && launch.kernel != cuda::kMatVec) return 0;
  const auto args = fused ? ArgsOf<cuda::FusedMatMulArgs>(launch).matmul : ArgsOf<cuda::MatMulArgs>(launch);
  double bytes = 0;
  for (int i = 0; i < args.products; ++i) {
    const cuda::WeightView& w = args.product[i].weight;
    bytes += static_cast<double>(w.tiles()) * w.segments * cuda::SegmentBytes(w.form);
  }
  return bytes;
}

struct Kernel {
  std::string name;
  int launches = 0;
  double weight_bytes = 0, ms = 0;
};

// Leaves the launches of one kernel out of the graphs it makes, and keeps an account of those of one bucket.
struct Choice {
  std::string left_out;
  int rows = 0, lanes = 0;  // of that bucket
  std::vector<Kernel> kernels;
};
class ChoosingDevice : public cuda::Device {
 public:
  ChoosingDevice(std::unique_ptr<cuda::Device> device, Choice& choice) : device_(std::move(device)), choice_(choice) {}
  std::string description() const override { return device_->description(); }
  std::string rounding() const override { return device_->rounding(); }
  int multiprocessors() const override { return device_->multiprocessors(); }
  size_t total_bytes() const override { return device_->total_bytes(); }
  size_t free_bytes() const override { return device_->free_bytes(); }
  int shared_limit() const override { return device_->shared_limit(); }
  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override { return device_->Allocate(bytes, what); }
  Result<std::byte*> AllocatePinned(size_t bytes, std::string_view what) override { return device_->AllocatePinned(bytes, what); }
  Status Copy(std::byte* to, const std::byte* from, size_t bytes, Queue queue) override { return device_->Copy(to, from, bytes, queue); }
  Result<std::unique_ptr<Graph>> Instantiate(std::span<const Launch> launches, const Bucket& bucket) override {
    std::vector<Launch> chosen;
    for (const Launch& launch : launches) {
      const std::string name = KernelName(KernelOf(launch, bucket));
      if (name != choice_.left_out) chosen.push_back(launch);
      if (bucket.rows == choice_.rows && bucket.lanes == choice_.lanes && choice_.left_out.empty()) Count(launch, name);
    }
    return device_->Instantiate(chosen, bucket);
  }
  Status Run(const Graph& graph) override { return device_->Run(graph); }
  Status Mark(int mark, Queue queue) override { return device_->Mark(mark, queue); }
  Status WaitFor(int mark) override { return device_->WaitFor(mark); }
  Status Follow(Queue queue, int mark) override { return device_->Follow(queue, mark); }
  Status Synchronize(Queue queue) override { return device_->Synchronize(queue); }
  BackendLimits MeasureLimits() override { return device_->MeasureLimits(); }

 private:
  void Count(const Launch& launch, const std::string& name) {
    auto kernel = std::find_if(choice_.kernels.begin(), choice_.kernels.end(), [&](const Kernel& k) { return k.name == name; });
    if (kernel == choice_.kernels.end()) kernel = choice_.kernels.insert(kernel, Kernel{name});
    ++kernel->launches;
    kernel->weight_bytes += WeightBytes(launch);
  }
  const std::unique_ptr<cuda::Device> device_;
  Choice& choice_;
};

struct Options {
  int replays = 50, turns = 3, position = 2048, shared = -1;
  bool overlap = true;
  std::string model, device;
  std::vector<std::pair<int, int>> shapes;  // lanes, rows
};

class Steps {
 public:
  explicit Steps(const Options& options) : options_(options) {
    auto device = options.device == "emulated" ? cuda::MakeEmulatedDevice() : nullptr;
    if (!device) {
      auto cuda_options = Must(ParseCudaDevice(options.device));
      cuda_options.overlap_launches = options.overlap;
      cuda_options.shared_percent = options.shared;
      device = Must(cuda::OpenDevice(cuda_options));
    }
    file_ = Must(GgufFile::Open(options.model));
    backend_ = Must(cuda::MakeBackend(std::make_unique<ChoosingDevice>(std::move(device), choice_)));
    NetworkOptions network;
    network.max_rows = network.max_lanes = 1;
    for (const auto& [lanes, rows] : options.shapes) {
      network.max_lanes = std::max(network.max_lanes, lanes);
      network.max_rows = std::max(network.max_rows, lanes * rows);
    }
    network_ = Must(Network::Load(*file_, *backend_, layout_, network));
    const auto rows_of = [&](int width, const char* what) {
      return Rows{reinterpret_cast<float*>(
                      Must(backend_->Allocate(sizeof(float) * static_cast<size_t>(network.max_lanes) * static_cast<size_t>(width), what))),
                  width, width, Domain::kLanes};
    };
    logits_ = rows_of(network_->info().vocabulary, "logits");
    last_ = rows_of(network_->info().width, "last rows");
    best_.rows = network.max_lanes;
    const auto values = static_cast<size_t>(network.max_lanes) * kBestValues;
    best_.index =
        reinterpret_cast<int32_t*>(Must(backend_->AllocateForHost(sizeof(int32_t) * static_cast<size_t>(network.max_lanes), "tokens")));
    best_.values = reinterpret_cast<float*>(Must(backend_->AllocateForHost(sizeof(float) * values, "values")));
    best_.columns = reinterpret_cast<int32_t*>(Must(backend_->AllocateForHost(sizeof(int32_t) * values, "columns")));
  }

  void Run() {
    std::printf("{\"device\": \"%s\", \"position\": %d, \"replays\": %d, \"turns\": %d, \"overlap\": %s, \"shared\": %d, \"shapes\": [",
                backend_->description().c_str(), options_.position, options_.replays, options_.turns, options_.overlap ? "true" : "false",
                options_.shared);
    const char* comma = "";
    for (const auto& [lanes, rows] : options_.shapes) {
      Shape(lanes, rows, comma);
      comma = ",";
    }
    std::printf("\n]}\n");
  }

 private:
  using Plans = std::vector<std::unique_ptr<Plan>>;

  void Shape(int lanes, int rows, const char* comma) {
    StepTable table(lanes * rows, lanes), last(lanes, lanes);
    Bind(table, lanes, rows);
    last.TakeLastRows(table);
    choice_ = {"", 0, lanes, {}};
    const Plans whole = Capture(table, last, rows);
    std::vector<Kernel> kernels = choice_.kernels;
    std::vector<Plans> without;
    for (const Kernel& kernel : kernels) {
      choice_.left_out = kernel.name;
      without.push_back(Capture(table, last, rows));
    }
    // In turns, and the least of them: what else the machine does makes times longer, never shorter.
    double step = 1e9;
    std::vector<double> rest(kernels.size(), 1e9);
    for (int turn = 0; turn < options_.turns; ++turn) {
      step = std::min(step, Time(whole));
      for (size_t i = 0; i < kernels.size(); ++i) rest[i] = std::min(rest[i], Time(without[i]));
    }
    int launches = 0;
    for (size_t i = 0; i < kernels.size(); ++i) {
      kernels[i].ms = step - rest[i];
      launches += kernels[i].launches;
    }
    std::sort(kernels.begin(), kernels.end(), [](const Kernel& a, const Kernel& b) { return a.ms > b.ms; });
    std::printf("%s\n{\"lanes\": %d, \"rows\": %d, \"ms\": %.4f, \"launches\": %d, \"kernels\": [", comma, lanes, rows, step, launches);
    comma = "";
    for (const Kernel& kernel : kernels) {
      std::printf("%s\n  {\"name\": \"%s\", \"launches\": %d, \"ms\": %.4f, \"weight_bytes\": %.0f}", comma, kernel.name.c_str(),
                  kernel.launches, kernel.ms, kernel.weight_bytes);
      comma = ",";
    }
    std::printf("]}");
    std::fflush(stdout);
  }

  // A step as an engine makes it: of more rows than lanes, the last block ends with each lane's last row.
  Plans Capture(const StepTable& table, const StepTable& last, int rows) {
    Plans plans;
    choice_.rows = table.max_rows();
    plans.push_back(Must(backend_->Capture(table, [&](Ops& ops) { network_->RecordBody(ops, rows > 1 ? Body::kHistory : Body::kWhole); })));
    choice_.rows = last.max_rows();
    if (rows > 1) plans.push_back(Must(backend_->Capture(last, [&](Ops& ops) { network_->RecordLastRows(ops); })));
    plans.push_back(Must(backend_->Capture(last, [&](Ops& ops) {
      ops.LoadLast(last_, network_->last_hidden());
      network_->RecordHead(ops, logits_, last_);
      ops.Best(best_, logits_);
    })));
    return plans;
  }

  // Of a step that takes long fewer replays are as good, and every kernel is left out of all of them in turn.
  double Time(const Plans& plans) {
    constexpr double kWarmMs = 20, kMs = 100;
    const auto replay = [&](int times) {
      const auto start = Clock::now();
      for (int i = 0; i < times; ++i) {
        for (const auto& plan : plans) Must(backend_->stream().Replay(*plan));
      }
      Must(backend_->stream().Synchronize());
      return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    };
    double each = replay(1);
    if (each < kWarmMs) each = replay(std::min(3, options_.replays)) / std::min(3, options_.replays);
    const int replays = std::clamp(static_cast<int>(kMs / std::max(each, 1e-3)), 1, options_.replays);
    return replay(replays) / replays;
  }

  // Lanes that share every whole extent before the position, and have extents of their own after it.
  void Bind(StepTable& table, int lanes, int rows) {
    const size_t bytes = layout_.extent_bytes(Space::kDevice), block = layout_.block_bytes(Space::kDevice);
    const auto shared = static_cast<size_t>(options_.position / kExtentRows);
    while (shared_.size() < shared) shared_.push_back(Must(backend_->Allocate(bytes, "extent")));
    while (blocks_.size() < 2 * static_cast<size_t>(lanes)) blocks_.push_back(Must(backend_->Allocate(block, "block")));
    extents_.resize(std::max(extents_.size(), static_cast<size_t>(lanes)));
    for (int i = 0; i < lanes; ++i) {
      const auto at = static_cast<size_t>(i);
      auto& list = extents_[at];
      if (list.empty()) list = shared_;
      while (static_cast<int>(list.size()) * kExtentRows < options_.position + rows)
        list.push_back(Must(backend_->Allocate(bytes, "extent")));
      table.lane[at] = {blocks_[2 * at], blocks_[2 * at + 1], list.data(), i * rows, rows, options_.position};
      for (int r = 0; r < rows; ++r) {
        const auto row = static_cast<size_t>(i * rows + r);
        table.row_lane[row] = i;
        table.row_position[row] = options_.position + r;
        table.token[row] = static_cast<int32_t>(row * 7919 % static_cast<size_t>(network_->info().vocabulary));
      }
    }
    table.lanes = lanes;
    table.rows = lanes * rows;
  }

  const Options options_;
  Choice choice_;
  std::optional<GgufFile> file_;
  std::unique_ptr<Backend> backend_;
  StateLayout layout_;
  std::unique_ptr<Network> network_;
  Rows logits_, last_;
  BestRows best_;
  std::vector<std::byte*> shared_, blocks_;
  std::vector<std::vector<std::byte*>> extents_;
};

int Number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1) Fail("'" + std::string(text) + "' is not a number from 1 on");
  return value;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  using namespace reprise;
  Options options;
  std::vector<std::string_view> plain;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--serial") {
      options.overlap = false;
    } else if (int* number = flag == "--replays"    ? &options.replays
                             : flag == "--turns"    ? &options.turns
                             : flag == "--position" ? &options.position
                             : flag == "--shared"   ? &options.shared
                                                    : nullptr;
               number && i + 1 < argc) {
      *number = Number(argv[++i]);
    } else {
      plain.push_back(flag);
    }
  }
  if (plain.size() < 3)
    Fail("usage: device_steps [--replays N] [--turns N] [--position N] [--serial] [--shared PERCENT] MODEL DEVICE LANESxROWS...");
  options.model = plain[0];
  options.device = plain[1];
  for (size_t i = 2; i < plain.size(); ++i) {
    const size_t x = plain[i].find('x');
    if (x == std::string_view::npos) Fail("'" + std::string(plain[i]) + "' is no shape: LANESxROWS");
    options.shapes.emplace_back(Number(plain[i].substr(0, x)), Number(plain[i].substr(x + 1)));
  }
  Steps(options).Run();
}
