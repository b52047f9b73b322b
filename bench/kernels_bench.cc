// Micro-benchmarks of the CPU kernels: multiply-adds and bytes a second of matrix products, and microseconds of the other ops and of a
// launch.
//
// One product is replayed over as many copies of the weight as exceed the caches, so that single rows read memory as a model's decode does.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace reprise {
namespace {

int g_threads = 0;  // --threads=N

constexpr size_t kBeyondCaches = size_t{256} << 20;

std::unique_ptr<Backend> MakeBackend(benchmark::State& state, const CpuOptions& options) {
  CpuOptions chosen = options;
  if (!chosen.threads) chosen.threads = g_threads;
  auto backend = MakeCpuBackend(chosen);
  if (!backend.ok()) {
    state.SkipWithError(backend.status().message().c_str());
    return nullptr;
  }
  return *std::move(backend);
}

void FillStep(StepTable& table, int rows) {
  table.rows = rows;
  table.lanes = 1;
  table.lane[0].rows = rows;
  for (int i = 0; i < rows; ++i) {
    table.row_lane[static_cast<size_t>(i)] = 0;
    table.row_position[static_cast<size_t>(i)] = table.lane[0].position + i;
  }
}

Rows Buffer(Backend& backend, int rows, int width) {
  auto* data = reinterpret_cast<float*>(*backend.Allocate(sizeof(float) * rows * width, "rows"));
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  for (int64_t i = 0; i < int64_t{rows} * width; ++i) data[i] = uniform(random);
  return {data, width, width, Domain::kRows};
}

// A valid block of every type can be all zero bytes but for its scales, which do not matter to the time either. Those of MXFP4 do: of a zero
// exponent they would be subnormal, so it is one that weights have.
std::vector<std::byte> WeightBytes(TensorType type, int inputs, int outputs) {
  return std::vector<std::byte>(*TensorBytes(type, static_cast<uint64_t>(inputs), static_cast<uint64_t>(outputs)),
                                type == TensorType::kMXFP4 ? std::byte{120} : std::byte{0});
}

// With `cached`, one weight again and again: the kernel without the memory.
void MatMul(benchmark::State& state, TensorType type, int inputs, int outputs, CpuOptions options, bool cached) {
  const int rows = static_cast<int>(state.range(0));
  auto backend = MakeBackend(state, options);
  if (!backend) return;
  const auto bytes = WeightBytes(type, inputs, outputs);
  const size_t copies = cached ? 1 : rows > 8 ? 4 : std::max<size_t>(1, kBeyondCaches / bytes.size());
  const Rows in = Buffer(*backend, rows, inputs), out = Buffer(*backend, rows, outputs);
  StepTable table(rows, 1);
  FillStep(table, rows);
  auto plan = backend->Capture(table, [&](Ops& ops) {
    for (size_t i = 0; i < copies; ++i) {
      const Product product{*backend->LoadMatrix({"w", type, inputs, outputs, bytes}), out};
      ops.MatMul(in, {&product, 1});
    }
  });
  for (auto _ : state) {
    if (!backend->stream().Replay(**plan).ok()) state.SkipWithError("replay");
  }
  const double steps = static_cast<double>(state.iterations()) * static_cast<double>(copies);
  state.counters["GMAC/s"] = benchmark::Counter(steps * rows * inputs * outputs * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(steps * static_cast<double>(bytes.size()) * 1e-9, benchmark::Counter::kIsRate);
  state.SetLabel(backend->description());
}

void Launches(benchmark::State& state) {
  auto backend = MakeBackend(state, {});
  if (!backend) return;
  const int width = static_cast<int>(state.range(0));
  const Rows in = Buffer(*backend, 64, width), out = Buffer(*backend, 64, width);
  StepTable table(64, 1);
  FillStep(table, static_cast<int>(state.range(1)));
  constexpr int kLaunches = 500;
  auto plan = backend->Capture(table, [&](Ops& ops) {
    for (int i = 0; i < kLaunches; ++i) ops.SwiGlu(out, in, in);
  });
  for (auto _ : state) {
    if (!backend->stream().Replay(**plan).ok()) state.SkipWithError("replay");
  }
  state.counters["us/launch"] = benchmark::Counter(static_cast<double>(state.iterations()) * kLaunches * 1e-6,
                                                   benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// rows after `history` positions, 8 heads on 2 of 256 in half precision, as in a 0.8B hybrid model's attention layer.
void Attention(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0)), history = static_cast<int>(state.range(1));
  constexpr int kHeads = 8, kKvHeads = 2, kWidth = 256;
  auto backend = MakeBackend(state, {});
  if (!backend) return;
  const StateRef k{0, 2 * kKvHeads * kWidth, ElementType::kF16}, v{k.bytes * kExtentRows, k.bytes, ElementType::kF16};
  std::vector<std::byte*> extents;
  const size_t extent_bytes = 2 * k.bytes * kExtentRows;
  const int count = (history + rows) / kExtentRows + 1;
  std::byte* const slab = *backend->Allocate(extent_bytes * static_cast<size_t>(count), "extents");
  for (int i = 0; i < count; ++i) extents.push_back(slab + extent_bytes * static_cast<size_t>(i));
  StepTable table(rows, 1);
  table.lane[0].extents = extents.data();
  table.lane[0].position = history;
  FillStep(table, rows);
  const Rows q = Buffer(*backend, rows, kHeads * kWidth), out = Buffer(*backend, rows, kHeads * kWidth);
  auto plan = backend->Capture(table, [&](Ops& ops) {
    ops.Attention(out, {q, kHeads, kWidth, kWidth}, k, v, {}, {.kv_heads = kKvHeads, .scale = 0.06f});
  });
  for (auto _ : state) {
    if (!backend->stream().Replay(**plan).ok()) state.SkipWithError("replay");
  }
  double pairs = 0;
  for (int i = 0; i < rows; ++i) pairs += history + i + 1;
  state.counters["GMAC/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * pairs * kHeads * kWidth * 2 * 1e-9, benchmark::Counter::kIsRate);
}

// One layer of 16 heads of 128 x 128.
void DeltaNet(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  constexpr Ops::DeltaNetShape kShape{16, 128, 16, 128};
  auto backend = MakeBackend(state, {});
  if (!backend) return;
  const size_t bytes = 16 * 128 * 128 * sizeof(float);
  StepTable table(rows, 1);
  FillStep(table, rows);
  table.lane[0].read = *backend->Allocate(bytes, "state");
  table.lane[0].write = *backend->Allocate(bytes, "state");
  const Rows in = Buffer(*backend, rows, 3 * 2048), gates = Buffer(*backend, rows, 16), out = Buffer(*backend, rows, 2048);
  auto plan = backend->Capture(table, [&](Ops& ops) {
    ops.DeltaNet(out, in, gates, gates, {gates.data, 16}, {gates.data, 16}, {0, bytes, ElementType::kF32}, kShape);
  });
  for (auto _ : state) {
    if (!backend->stream().Replay(**plan).ok()) state.SkipWithError("replay");
  }
  state.counters["us/token"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * rows * 1e-6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// One layer of Granite 4.0-H 350M: 48 heads of 32, and 128 dimensions of state.
void Ssm(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  constexpr Ops::SsmShape kShape{48, 32, 1, 128};
  auto backend = MakeBackend(state, {});
  if (!backend) return;
  const size_t bytes = 48 * 32 * 128 * sizeof(float);
  StepTable table(rows, 1);
  FillStep(table, rows);
  table.lane[0].read = *backend->Allocate(bytes, "state");
  table.lane[0].write = *backend->Allocate(bytes, "state");
  const Rows in = Buffer(*backend, rows, 48 * 32 + 2 * 128), dt = Buffer(*backend, rows, 48), out = Buffer(*backend, rows, 48 * 32);
  const Vector heads{dt.data, 48};
  auto plan = backend->Capture(table, [&](Ops& ops) { ops.Ssm(out, in, dt, heads, heads, heads, {0, bytes, ElementType::kF32}, kShape); });
  for (auto _ : state) {
    if (!backend->stream().Replay(**plan).ok()) state.SkipWithError("replay");
  }
  state.counters["us/token"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * rows * 1e-6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// One layer of Jamba Reasoning 3B: 5,120 channels of 16 dimensions.
void SelectiveScan(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  constexpr int kChannels = 5120, kStates = 16;
  auto backend = MakeBackend(state, {});
  if (!backend) return;
  const size_t bytes = kChannels * kStates * sizeof(float);
  StepTable table(rows, 1);
  FillStep(table, rows);
  table.lane[0].read = *backend->Allocate(bytes, "state");
  table.lane[0].write = *backend->Allocate(bytes, "state");
  const Rows x = Buffer(*backend, rows, kChannels), dt = Buffer(*backend, rows, kChannels), out = Buffer(*backend, rows, kChannels);
  const Rows bc = Buffer(*backend, rows, 2 * kStates), rates = Buffer(*backend, 1, kChannels * kStates);
  const Vector channels{dt.data, kChannels};
  auto plan = backend->Capture(table, [&](Ops& ops) {
    ops.SelectiveScan(out, x, dt, bc.Columns(0, kStates), bc.Columns(kStates, kStates), {rates.data, kChannels * kStates}, channels,
                      channels, {0, bytes, ElementType::kF32});
  });
  for (auto _ : state) {
    if (!backend->stream().Replay(**plan).ok()) state.SkipWithError("replay");
  }
  state.counters["us/token"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * rows * 1e-6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void LoadMatrix(benchmark::State& state, TensorType type) {
  constexpr int kInputs = 1024, kOutputs = 65536;
  const auto bytes = WeightBytes(type, kInputs, kOutputs);
  for (auto _ : state) {
    state.PauseTiming();
    auto backend = MakeBackend(state, {});
    state.ResumeTiming();
    benchmark::DoNotOptimize(backend->LoadMatrix({"w", type, kInputs, kOutputs, bytes}).ok());
    state.PauseTiming();
    backend.reset();
    state.ResumeTiming();
  }
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(bytes.size()) * 1e-9, benchmark::Counter::kIsRate);
}

void Register() {
  const auto rows = [](benchmark::internal::Benchmark* b) {
    for (int n : {1, 2, 8, 64, 256}) b->Arg(n);
    b->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (TensorType type : {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K,
                          TensorType::kMXFP4, TensorType::kF16}) {
    const std::string name(TensorTypeName(type));
    rows(benchmark::RegisterBenchmark(("MatMul/" + name + "/3584x1024").c_str(), MatMul, type, 1024, 3584, CpuOptions{}, false));
    rows(benchmark::RegisterBenchmark(("MatMul/" + name + "/1024x3584").c_str(), MatMul, type, 3584, 1024, CpuOptions{}, false));
    rows(benchmark::RegisterBenchmark(("Cached/" + name + "/768x1024/2threads").c_str(), MatMul, type, 1024, 768, CpuOptions{.threads = 2},
                                      true));
    for (const std::string& isa : CpuInstructionSets()) {
      rows(benchmark::RegisterBenchmark(("Cached/" + name + "/384x1024/" + isa).c_str(), MatMul, type, 1024, 384,
                                        CpuOptions{.threads = 1, .isa = isa}, true));
    }
  }
  rows(benchmark::RegisterBenchmark("MatMul/Q8_0/248320x1024", MatMul, TensorType::kQ8_0, 1024, 248320, CpuOptions{}, false));
  rows(benchmark::RegisterBenchmark("MatMul/Q8_0/3584x1024/1thread", MatMul, TensorType::kQ8_0, 1024, 3584, CpuOptions{.threads = 1},
                                    false));
  rows(benchmark::RegisterBenchmark("MatMul/Q8_0/3584x1024/avx2", MatMul, TensorType::kQ8_0, 1024, 3584, CpuOptions{.isa = "avx2"}, false));
  benchmark::RegisterBenchmark("Launch", Launches)->Args({64, 1})->Args({4096, 8})->UseRealTime();
  benchmark::RegisterBenchmark("Attention", Attention)
      ->ArgsProduct({{1, 64, 512}, {512, 8192}})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
  benchmark::RegisterBenchmark("DeltaNet", DeltaNet)->Arg(1)->Arg(64)->UseRealTime()->Unit(benchmark::kMicrosecond);
  benchmark::RegisterBenchmark("Ssm", Ssm)->Arg(1)->Arg(64)->UseRealTime()->Unit(benchmark::kMicrosecond);
  benchmark::RegisterBenchmark("SelectiveScan", SelectiveScan)->Arg(1)->Arg(64)->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (TensorType type : {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_K, TensorType::kF16}) {
    benchmark::RegisterBenchmark(("Load/" + std::string(TensorTypeName(type))).c_str(), LoadMatrix, type)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  reprise::Register();
  benchmark::Initialize(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--threads=", 10) == 0) reprise::g_threads = std::atoi(argv[i] + 10);
  }
  benchmark::RunSpecifiedBenchmarks();
}
