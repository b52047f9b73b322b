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

// Longer than the gap between two launches and than most single units, shorter than anybody would notice as load.
constexpr auto kSpin = std::chrono::microseconds(20);
// Then for as long again the processor is offered to whoever else wants it before the thread goes to sleep.
constexpr auto kYield = std::chrono::microseconds(40);

constexpr int kClaimBits = 24;
constexpr uint64_t kClaimMask = (uint64_t{1} << kClaimBits) - 1;
constexpr uint64_t kNumberMask = ~uint64_t{0} >> kClaimBits;
constexpr int64_t kMostClaims = int64_t{1} << 20;  // of one share, and so far from the bits' end
constexpr uint64_t NumberOf(uint64_t state) { return state >> 1; }
constexpr bool IsOpen(uint64_t state) { return (state & 1) != 0; }

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

Team::Team(int threads, bool pin) : threads_(std::max(threads, 1)), shares_(static_cast<size_t>(threads_)) {
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
      const Split split = launch.split(launch.args);
      if (split.items > 0) launch.run(launch.args, 0, split.items, 0);
    }
    return;
  }
  const uint64_t number = NumberOf(state_.load(std::memory_order_relaxed));
  tables_[number % 2].launch.store(launches.data() - 1, std::memory_order_relaxed);  // OpenNext steps to the first
  end_ = launches.data() + launches.size();
  OpenNext(number, 0);
  for (;;) {
    const uint64_t state = state_.load(std::memory_order_acquire);
    if (!IsOpen(state)) return;  // all are done
    TakePart(state, 0);
    AwaitChange(state, caller_bed_);
  }
}

// Works on the launch that `state` says is open until no share of it has anything left.
void Team::TakePart(uint64_t state, int thread) {
  const uint64_t number = NumberOf(state);
  const Table& table = tables_[number % 2];
  const Launch* const launch = table.launch.load(std::memory_order_acquire);
  const int64_t items = table.items.load(std::memory_order_acquire), block = table.block.load(std::memory_order_acquire);
  const Deal deal(items, block, table.unit.load(std::memory_order_acquire));
  int64_t finished = 0;
  for (int i = 0; i < threads_; ++i) {
    const int owner = (thread + i) % threads_;
    std::atomic<uint64_t>& claimed = shares_[static_cast<size_t>(owner)].claimed;
    uint64_t seen = claimed.load(std::memory_order_acquire);
    for (;;) {
      // Also tells that what was read of the table is this launch's: it changes only after the next launch was opened. If the share then has a
      // unit that nobody holds, the launch cannot end before the claim fails.
      if (state_.load(std::memory_order_acquire) != state) return;
      const uint64_t claims = seen >> kClaimBits == (number & kNumberMask) ? seen & kClaimMask : 0;
      const Deal::Range range = deal.Unit(owner, static_cast<int64_t>(claims), threads_);
      if (range.empty()) break;
      const uint64_t next = (number << kClaimBits) + claims + 1;
      if (!claimed.compare_exchange_weak(seen, next, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      launch->run(launch->args, range.first, range.last, thread);
      finished += range.last - range.first;
      seen = claimed.load(std::memory_order_acquire);
    }
  }
  if (finished > 0 && done_.fetch_add(finished, std::memory_order_acq_rel) + finished == items) OpenNext(number, thread);
}

// Called by the one thread that knows launch `number` to be over. What is too little to share it does itself, before anybody else hears of it.
void Team::OpenNext(uint64_t number, int thread) {
  done_.store(0, std::memory_order_relaxed);
  for (const Launch* launch = tables_[number % 2].launch.load(std::memory_order_relaxed) + 1; launch != end_; ++launch) {
    const Split split = launch->split(launch->args);
    if (split.items <= 0) continue;
    const Deal deal({split.items, std::max(split.unit, split.items / kMostClaims + 1), split.block}, threads_);
    if (deal.unit == deal.items) {
      launch->run(launch->args, 0, deal.items, thread);
      continue;
    }
    Table& table = tables_[(number + 1) % 2];
    table.launch.store(launch, std::memory_order_release);
    table.items.store(deal.items, std::memory_order_release);
    table.block.store(deal.block, std::memory_order_release);
    table.unit.store(deal.unit, std::memory_order_release);
    Publish((number + 1) << 1 | 1);
    return;
  }
  Publish((number + 1) << 1);
}

void Team::Publish(uint64_t state) {
  state_.store(state, std::memory_order_seq_cst);
  if (IsOpen(state) && workers_bed_.asleep.load(std::memory_order_seq_cst) > 0) workers_bed_.Wake();
  if (caller_bed_.asleep.load(std::memory_order_seq_cst) > 0) caller_bed_.Wake();
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
    const uint64_t state = state_.load(std::memory_order_acquire);
    if (IsOpen(state)) TakePart(state, thread);
    AwaitChange(state, workers_bed_);
  }
}

}  // namespace reprise
