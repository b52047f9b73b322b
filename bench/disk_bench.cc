// What the disk tier costs and gives, on a state of the size of a hybrid of 0.8B parameters at 2,048 positions (18 MiB of recurrent state, 12 KiB a row):
// reading it back with every checksum verified, writing it, and the bytes written for each new token.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "exec/lane.h"
#include "exec/memory.h"
#include "store/disk_tier.h"

namespace reprise {
namespace {

constexpr int kPosition = 2048;

std::shared_ptr<StateSpace> Space() {
  static const std::shared_ptr<StateSpace> space = [] {
    StateLayout layout;
    for (int i = 0; i < 18; ++i) {
      layout.Recurrent("blk." + std::to_string(i) + ".memory", ElementType::kF32, {16, 128, 128});
      layout.Recurrent("blk." + std::to_string(i) + ".tail", ElementType::kF32, {3, 6144});
    }
    for (int i = 0; i < 6; ++i) {
      layout.Append("blk." + std::to_string(i) + ".keys", ElementType::kF16, {512});
      layout.Append("blk." + std::to_string(i) + ".values", ElementType::kF16, {512});
    }
    layout.Append("history", ElementType::kI32, {}, Space::kHost);
    layout.Recurrent("sampler", ElementType::kBytes, {3000}, Space::kHost);
    const Fingerprint fingerprint = FingerprintBuilder().Add("name", "bench").Finish();
    return *StateSpace::Create(std::move(layout), {.lanes = 1, .capsules = 8, .rows = 4 * kPosition, .max_position = 2 * kPosition},
                               fingerprint, std::make_shared<HostMemory>());
  }();
  return space;
}

// A line of `count` capsules at 2,048 positions and `apart` more each, each with a state of its own.
std::vector<Capsule> Line(int count, int apart) {
  auto lane = *Space()->NewLane();
  std::vector<Capsule> capsules;
  uint64_t word = 1;
  for (int i = 0; i < count; ++i) {
    const int rows = i == 0 ? kPosition : apart;
    (void)lane->Begin(rows);
    const auto fill = [&](std::byte* to, size_t bytes) {
      for (size_t at = 0; at + 8 <= bytes; at += 8) {
        word = word * 6364136223846793005u + 1442695040888963407u;
        std::memcpy(to + at, &word, 8);
      }
    };
    fill(lane->write(Space::kDevice), Space()->layout().block_bytes(Space::kDevice));
    for (const StateDecl& state : Space()->layout().states()) {
      if (state.growth != Growth::kAppend) continue;
      for (int r = 0; r < rows; ++r) fill(lane->row(state, lane->position() + r), state.bytes);
    }
    lane->Commit();
    capsules.push_back(Capsule::Take(*lane));
  }
  return capsules;
}

std::vector<int32_t> Tokens(int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(i * 7919 % 50000));
  return tokens;
}

class Directory {
 public:
  explicit Directory(bool in_memory) {
    path_ = (in_memory ? "/dev/shm/reprise_bench." : (std::filesystem::temp_directory_path() / "reprise_bench.").string()) +
            std::to_string(::getpid());
    std::filesystem::remove_all(path_);
    tier = *DiskTier::Open(*FileSystem::Open(path_, false), {});
  }
  ~Directory() {
    tier.reset();
    std::filesystem::remove_all(path_);
  }
  std::unique_ptr<DiskTier> tier;

 private:
  std::string path_;
};

size_t Bytes(const Capsule& capsule) { return capsule.recurrent_bytes() + capsule.row_bytes(); }

void BM_Load(benchmark::State& state) {
  Directory directory(false);
  const auto capsules = Line(1, 0);
  std::vector<int64_t> evicted;
  const auto id = directory.tier->Put("ns", Tokens(kPosition), capsules[0], {}, evicted);
  for (auto _ : state) {
    auto loaded = directory.tier->Load(*id, Space(), Capsule());
    if (!loaded.ok()) state.SkipWithError(loaded.status().message().c_str());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(Bytes(capsules[0])));
}
BENCHMARK(BM_Load)->Unit(benchmark::kMillisecond);

// Only the block: the rows are those of a capsule in memory.
void BM_LoadOnBase(benchmark::State& state) {
  Directory directory(false);
  const auto capsules = Line(1, 0);
  std::vector<int64_t> evicted;
  const auto id = directory.tier->Put("ns", Tokens(kPosition), capsules[0], {}, evicted);
  for (auto _ : state) {
    auto loaded = directory.tier->Load(*id, Space(), capsules[0]);
    if (!loaded.ok()) state.SkipWithError(loaded.status().message().c_str());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(capsules[0].recurrent_bytes()));
}
BENCHMARK(BM_LoadOnBase)->Unit(benchmark::kMillisecond);

void BM_Copy(benchmark::State& state) {
  const size_t bytes = size_t{45} << 20;
  std::vector<std::byte> from(bytes, std::byte{1});
  std::vector<std::byte> to(bytes);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::DoNotOptimize(to.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes));
}
BENCHMARK(BM_Copy)->Unit(benchmark::kMillisecond);

// A conversation of turns of 64 tokens: what reaches the disk for each.
void BM_PutTurn(benchmark::State& state) {
  const auto capsules = Line(6, 64);
  uint64_t row_object_bytes = 0;
  uint64_t rows = 0;
  for (auto _ : state) {
    Directory directory(false);
    std::vector<int64_t> evicted;
    (void)directory.tier->Put("ns", Tokens(capsules[0].position()), capsules[0], {}, evicted);
    const uint64_t before = directory.tier->bytes_written();
    const uint64_t rows_before = directory.tier->rows_written();
    for (size_t i = 1; i < capsules.size(); ++i) (void)directory.tier->Put("ns", Tokens(capsules[i].position()), capsules[i], {}, evicted);
    rows = directory.tier->rows_written() - rows_before;
    row_object_bytes = directory.tier->bytes_written() - before - (capsules.size() - 1) * capsules[0].recurrent_bytes();
  }
  state.counters["bytes_a_token"] = static_cast<double>(row_object_bytes) / static_cast<double>(rows);
  state.counters["row_bytes"] = static_cast<double>(Space()->layout().row_bytes());
  state.counters["block_bytes"] = static_cast<double>(capsules[0].recurrent_bytes());
}
BENCHMARK(BM_PutTurn)->Unit(benchmark::kMillisecond)->Iterations(3);

}  // namespace
}  // namespace reprise

BENCHMARK_MAIN();
