#include "backend/cpu/team.h"

#include <chrono>
#include <cstdio>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace reprise {
namespace {

constexpr int kUnitBits = 12;
constexpr uint64_t kUnitMask = (uint64_t{1} << kUnitBits) - 1;
constexpr int64_t kMaxUnits = static_cast<int64_t>(kUnitMask);

// Longer than the gap between two launches and than most single units, shorter than anybody would notice as load.
constexpr auto kSpin = std::chrono::microseconds(20);
// Then for as long again the processor is offered to whoever else wants it before the thread goes to sleep.
constexpr auto kYield = std::chrono::microseconds(40);

constexpr uint64_t Pack(uint64_t sequence, int64_t units) {
  return (sequence << (2 * kUnitBits)) | (static_cast<uint64_t>(units) << kUnitBits);
}
constexpr uint64_t SequenceOf(uint64_t state) { return state >> (2 * kUnitBits); }
constexpr int64_t UnitsOf(uint64_t state) { return static_cast<int64_t>((state >> kUnitBits) & kUnitMask); }
constexpr int64_t NextOf(uint64_t state) { return static_cast<int64_t>(state & kUnitMask); }

inline void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)
std::vector<int> AllowedProcessors() {
  std::vector<int> allowed;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &set)) allowed.push_back(i);
    }
  }
  return allowed;
}

// Whole processors of the control group's quota (version 2), or 0 when there is none.
int QuotaProcessors() {
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r");
  if (!file) return 0;
  long long quota = 0, period = 0;
  const int read = std::fscanf(file, "%lld %lld", &quota, &period);
  std::fclose(file);
  if (read != 2 || quota <= 0 || period <= 0) return 0;  // "max 100000"
  return static_cast<int>(std::clamp<long long>((quota + period - 1) / period, 1, 4096));
}
#endif

}  // namespace

int AvailableProcessors() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  if (const auto allowed = AllowedProcessors(); !allowed.empty()) count = static_cast<int>(allowed.size());
  if (const int quota = QuotaProcessors(); quota > 0) count = std::min(count, quota);
#endif
  return std::max(count, 1);
}

Team::Team(int threads, bool pin) : threads_(std::max(threads, 1)) {
  std::vector<int> processors(static_cast<size_t>(threads_), -1);
#if defined(__linux__)
  if (const auto allowed = AllowedProcessors(); pin && !allowed.empty()) {
    for (size_t i = 0; i < processors.size(); ++i) processors[i] = allowed[i % allowed.size()];
  }
#else
  (void)pin;
#endif
  workers_.reserve(static_cast<size_t>(threads_ - 1));
  for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i, p = processors[static_cast<size_t>(i)]] { Work(i, p); });
}

Team::~Team() {
  stop_.store(true, std::memory_order_seq_cst);
  workers_bed_.Wake();
  for (std::thread& worker : workers_) worker.join();
}

void Team::Bed::Wake() {
  call.fetch_add(1, std::memory_order_seq_cst);
  call.notify_all();
}

void Team::Run(std::span<const Launch> launches) {
  if (launches.empty()) return;
  if (threads_ == 1) {
    for (const Launch& launch : launches) {
      const Split split = launch.split(launch.args, 1);
      if (split.items > 0) launch.run(launch.args, 0, split.items, 0);
    }
    return;
  }
  const uint64_t sequence = SequenceOf(state_.load(std::memory_order_relaxed));
  launch_ = launches.data() - 1;  // OpenNext steps to the first
  end_ = launches.data() + launches.size();
  OpenNext(sequence);
  for (;;) {
    if (RunUnit(0)) continue;
    const uint64_t state = state_.load(std::memory_order_acquire);
    if (UnitsOf(state) == 0) return;  // no launch is open: all are done
    if (NextOf(state) >= UnitsOf(state)) AwaitChange(state, caller_bed_);
  }
}

bool Team::RunUnit(int thread) {
  uint64_t state = state_.load(std::memory_order_acquire);
  while (NextOf(state) < UnitsOf(state)) {
    if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire, std::memory_order_acquire)) continue;
    const int64_t units = UnitsOf(state);
    const int64_t unit = NextOf(state);
    launch_->run(launch_->args, items_ * unit / units, items_ * (unit + 1) / units, thread);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(units)) OpenNext(SequenceOf(state));
    return true;
  }
  return false;
}

// Called by the one thread that knows launch `sequence` to be over.
void Team::OpenNext(uint64_t sequence) {
  done_.store(0, std::memory_order_relaxed);
  for (++launch_; launch_ != end_; ++launch_) {
    const Split split = launch_->split(launch_->args, threads_);
    if (split.items <= 0) continue;
    const int64_t units = std::clamp<int64_t>(split.units, 1, std::min(split.items, kMaxUnits));
    items_ = split.items;
    Publish(Pack(sequence + 1, units), units > 1, units > 1);
    return;
  }
  Publish(Pack(sequence + 1, 0), false, true);
}

void Team::Publish(uint64_t state, bool wake_workers, bool wake_caller) {
  state_.store(state, std::memory_order_seq_cst);
  if (wake_workers && workers_bed_.asleep.load(std::memory_order_seq_cst) > 0) workers_bed_.Wake();
  if (wake_caller && caller_bed_.asleep.load(std::memory_order_seq_cst) > 0) caller_bed_.Wake();
}

void Team::AwaitChange(uint64_t seen, Bed& bed) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (state_.load(std::memory_order_acquire) != seen) return;
      Pause();
    }
    const auto waited = Clock::now() - start;
    if (waited > kSpin + kYield) break;
    if (waited > kSpin) std::this_thread::yield();
  }
  const uint32_t call = bed.call.load(std::memory_order_acquire);
  bed.asleep.fetch_add(1, std::memory_order_seq_cst);
  if (state_.load(std::memory_order_seq_cst) == seen && !stop_.load(std::memory_order_seq_cst)) {
    bed.call.wait(call, std::memory_order_acquire);
  }
  bed.asleep.fetch_sub(1, std::memory_order_seq_cst);
}

void Team::Work(int thread, int processor) {
#if defined(__linux__)
  if (processor >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
  }
#else
  (void)processor;
#endif
  while (!stop_.load(std::memory_order_acquire)) {
    if (RunUnit(thread)) continue;
    const uint64_t state = state_.load(std::memory_order_acquire);
    if (NextOf(state) >= UnitsOf(state)) AwaitChange(state, workers_bed_);
  }
}

}  // namespace reprise
