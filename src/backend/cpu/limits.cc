// Two loops that do one thing each: read memory that is in no cache, and multiply bytes that are in registers.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/limits.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include "backend/cpu/limits.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/dot-inl.h"
#include "backend/cpu/memory.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// As many sums as it takes to hide the latency of one product.
inline constexpr int kChains = 12;

template <class Dot>
HWY_INLINE int32_t MultiplyBytes(const uint8_t* weights, const int8_t* acts, int64_t products) {
  Ints sums[kChains];
  REPRISE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = SetInts(i);
  const auto words = Dot::Words::Load(weights);
  for (int64_t k = 0; k < products; k += kChains) DotRows<Dot, /*kWide=*/false, kChains, 0>(words, acts, sums);
  hn::Vec<TagI> total = hn::Zero(kTagI);
  REPRISE_UNROLL for (int i = 0; i < kChains; ++i) { REPRISE_PARTS total = hn::Add(total, sums[i].v[p]); }
  return hn::GetLane(total);
}

int32_t ReadMemory(const std::byte* from, size_t bytes) {
  const auto* words = reinterpret_cast<const int32_t*>(from);
  const auto count = static_cast<int64_t>(bytes / sizeof(int32_t));
  hn::Vec<TagI> sums[4] = {hn::Zero(kTagI), hn::Zero(kTagI), hn::Zero(kTagI), hn::Zero(kTagI)};
  for (int64_t i = 0; i + 4 * kPartLanes <= count; i += 4 * kPartLanes) {
    __builtin_prefetch(words + i + 1024, 0, 2);  // 4 KiB ahead, as a kernel that knows its next address does too
    REPRISE_UNROLL for (int j = 0; j < 4; ++j) sums[j] = hn::Add(sums[j], hn::LoadU(kTagI, words + i + j * kPartLanes));
  }
  return hn::GetLane(hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3])));
}

void FindLoops(ByteDot dot, LimitLoops& loops) {
  WithDot(dot, [&loops]<class Dot>() { loops = {Dot::template Kernel<MultiplyBytes<Dot>>, ReadMemory}; });
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
namespace {

constexpr size_t kReadBytes = size_t{256} << 20;  // in all: far more than any cache of a machine that this runs on
constexpr int64_t kProducts = int64_t{12} << 22;
constexpr int kTries = 7;

// Seconds that `work(thread)` takes on all threads at once: the best of a few tries, since whoever else runs only ever makes it longer.
template <class Work>
double BestSeconds(int threads, const Work& work) {
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back([&work, thread] { work(thread); });
    work(0);
    for (std::thread& other : others) other.join();
    const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i == 0 || taken < best) best = taken;
  }
  return best;
}

}  // namespace

BackendLimits MeasureCpuLimits(int64_t target, ByteDot dot, int threads) {
  LimitLoops loops;
  REPRISE_DISPATCH(target, FindLoops(dot, loops))
  if (loops.multiply == nullptr) return {};
  const size_t share = kReadBytes / static_cast<size_t>(threads) / 64 * 64;
  Arena arena;  // as the weights have it, in huge pages: small ones cost a third of the speed
  const auto allocated = arena.Allocate(share * static_cast<size_t>(threads), "a benchmark");
  if (!allocated.ok()) return {};
  const std::span<std::byte> memory(*allocated, share * static_cast<size_t>(threads));
  std::fill(memory.begin(), memory.end(), std::byte{1});
  std::vector<uint32_t> kept(static_cast<size_t>(threads) * 16);  // a cache line each; sums that nobody reads, and that may wrap
  BackendLimits limits;
  limits.read_bytes_per_second = static_cast<double>(memory.size()) / BestSeconds(threads, [&](int thread) {
                                   kept[static_cast<size_t>(thread) * 16] +=
                                       static_cast<uint32_t>(loops.read(memory.data() + share * static_cast<size_t>(thread), share));
                                 });
  alignas(64) uint8_t weights[64];
  alignas(64) int8_t acts[64];
  std::memset(weights, 3, sizeof(weights));
  std::memset(acts, 5, sizeof(acts));
  limits.byte_macs_per_second = 64.0 * kProducts * threads / BestSeconds(threads, [&](int thread) {
                                  kept[static_cast<size_t>(thread) * 16] += static_cast<uint32_t>(loops.multiply(weights, acts, kProducts));
                                });
  return limits;
}

}  // namespace reprise
#endif
