// glibc's checked longjmp takes a jump to another stack for one into a frame that has returned, and ends the program. Compilers of some distributions
// ask for it unasked, so it is undone before the first header.
#undef _FORTIFY_SOURCE

#include "backend/cuda/emulator/fibers.h"

#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

namespace reprise::cuda::emulator {

Place place;
std::byte* shared_memory = nullptr;

namespace {

constexpr size_t kStackBytes = size_t{64} << 10;
constexpr int kWarp = 32;

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s\n", what);
  std::abort();
}

struct Barrier {
  int arrived = 0;
  uint64_t generation = 0;
};

struct AsyncCopy {
  std::byte* to;
  int size;
  std::byte bytes[16];
};

struct Fiber {
  std::unique_ptr<std::byte[]> stack;
  ucontext_t context;
  jmp_buf here;
  bool started = false;
  bool begun = false;  // past BeginKernel
  bool done = true;
  // Copies in the order they were asked for, `made` of them made already; and where groups of them end, `waited` of which were waited for. They keep
  // their memory, so that a block that has run before allocates nothing.
  std::vector<AsyncCopy> copies;
  std::vector<size_t> groups;
  size_t made = 0, waited = 0;
};

uint64_t turn = 0;  // of all blocks that were run: decides in which order things happen

// A number that looks like any other, the same in every run of the program.
uint64_t Scramble(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}
// An order of `order`, by `choice`: ascending, descending, or any.
void Arrange(std::vector<int>& order, int count, uint64_t choice) {
  order.resize(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) order[static_cast<size_t>(i)] = i;
  if (choice % 3 == 1) std::reverse(order.begin(), order.end());
  if (choice % 3 != 2) return;
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[Scramble(choice + i) % i]);
}

// A block of threads. It may stand still at BeginKernel while others run.
class Block {
 public:
  void Start(const Work& work, int x, int y, int z);
  // Until every thread stands at BeginKernel, and no further; or to the end.
  void RunToBegin() { Run(/*to_begin=*/true); }
  void RunToEnd() { Run(/*to_begin=*/false); }

  // What the running thread asks for.
  void Enter();
  void Begin();
  void SyncBlock() { Wait(block_, threads_); }
  void SyncWarp() { Wait(warps_[static_cast<size_t>(current_ / kWarp)], std::min(kWarp, threads_ - current_ / kWarp * kWarp)); }
  const std::byte* Exchange(const void* mine, size_t bytes);
  Fiber& fiber() { return fibers_[static_cast<size_t>(current_)]; }

 private:
  bool Stands(int thread, bool to_begin) const {
    const Fiber& fiber = fibers_[static_cast<size_t>(thread)];
    return fiber.done || (to_begin && fiber.begun);
  }
  void Run(bool to_begin);
  // Lets the threads of `order` that do not stand go on once each.
  void Round(const int* order, int count, bool to_begin);
  void Resume(int thread);
  void Yield();
  void Wait(Barrier& barrier, int count);

  Work work_{};
  Place place_;
  std::vector<Fiber> fibers_;
  std::vector<Barrier> warps_;
  std::vector<std::byte> exchange_[2];  // of all threads; the two alternate, so that one barrier an exchange is enough
  std::vector<uint8_t> side_;           // of each thread: which it used last
  std::vector<int> thread_order_, warp_order_, lanes_;
  Barrier block_;
  int threads_ = 0, current_ = 0, left_ = 0;
  bool held_ = false;  // at BeginKernel
  uint64_t progress_ = 0;
  jmp_buf main_;
  std::vector<std::byte> memory_;
  std::byte* shared_ = nullptr;
};
Block* running = nullptr;

void EnterFiber() { running->Enter(); }

void Block::Start(const Work& work, int x, int y, int z) {
  work_ = work;
  threads_ = left_ = work.grid.threads;
  place_.threads = threads_;
  place_.block[0] = x;
  place_.block[1] = y;
  place_.block[2] = z;
  place_.grid[0] = work.grid.x;
  place_.grid[1] = work.grid.y;
  place_.grid[2] = work.grid.z;
  const auto threads = static_cast<size_t>(threads_);
  if (fibers_.size() < threads) fibers_.resize(threads);
  warps_.assign((threads + kWarp - 1) / kWarp, Barrier{});
  side_.assign(threads, 0);
  for (auto& exchange : exchange_) exchange.resize(threads * kExchangeBytes);
  memory_.assign(static_cast<size_t>(work.grid.shared) + 16, std::byte{0xff});  // NaN in every float
  shared_ = memory_.data() + (16 - reinterpret_cast<uintptr_t>(memory_.data()) % 16) % 16;
  block_ = {};
  for (size_t i = 0; i < threads; ++i) {
    Fiber& fiber = fibers_[i];
    fiber.started = fiber.begun = fiber.done = false;
    fiber.copies.clear();
    fiber.groups.clear();
    fiber.made = fiber.waited = 0;
  }
}

void Block::Enter() {
  work_.kernel(work_.args);
  if (!fiber().begun) Fail("a thread returned before BeginKernel");
  fiber().done = true;
  --left_;
  ++progress_;
  _longjmp(main_, 1);
}

void Block::Begin() {
  if (fiber().begun) Fail("a thread came to BeginKernel twice");
  fiber().begun = true;
  ++progress_;
  while (held_) Yield();
}

void Block::Resume(int thread) {
  current_ = thread;
  Fiber& own = fiber();
  place_.thread = thread;
  place = place_;
  shared_memory = shared_;
  running = this;
  if (_setjmp(main_) != 0) return;
  if (own.started) _longjmp(own.here, 1);
  own.started = true;
  if (!own.stack) own.stack.reset(new std::byte[kStackBytes]);
  ::getcontext(&own.context);
  own.context.uc_stack.ss_sp = own.stack.get();
  own.context.uc_stack.ss_size = kStackBytes;
  own.context.uc_link = nullptr;
  ::makecontext(&own.context, EnterFiber, 0);
  ::setcontext(&own.context);
}

void Block::Yield() {
  if (_setjmp(fiber().here) == 0) _longjmp(main_, 1);
}

void Block::Wait(Barrier& barrier, int count) {
  ++progress_;
  const uint64_t mine = barrier.generation;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  while (barrier.generation == mine) Yield();
}

void Block::Round(const int* order, int count, bool to_begin) {
  for (int i = 0; i < count; ++i) {
    if (!Stands(order[i], to_begin)) Resume(order[i]);
  }
}

// Half of the blocks let all threads go on in turns, which keeps warps abreast; in the others a warp goes as far as it can before the next one moves.
void Block::Run(bool to_begin) {
  held_ = to_begin;
  const uint64_t choice = Scramble(++turn);
  const bool warp_by_warp = choice % 2 == 0;
  Arrange(thread_order_, warp_by_warp ? std::min(kWarp, threads_) : threads_, choice / 2);
  Arrange(warp_order_, static_cast<int>(warps_.size()), choice / 8);
  const auto all_stand = [&] {
    if (left_ == 0) return true;
    for (int i = 0; to_begin && i < threads_; ++i) {
      if (!Stands(i, to_begin)) return false;
    }
    return to_begin;
  };
  lanes_.resize(thread_order_.size());
  while (!all_stand()) {
    const uint64_t before = progress_;
    if (warp_by_warp) {
      for (const int warp : warp_order_) {
        int count = 0;
        for (const int lane : thread_order_) {
          if (warp * kWarp + lane < threads_) lanes_[static_cast<size_t>(count++)] = warp * kWarp + lane;
        }
        for (uint64_t last = progress_ - 1; last != progress_;) {
          last = progress_;
          Round(lanes_.data(), count, to_begin);
        }
      }
    } else {
      Round(thread_order_.data(), threads_, to_begin);
    }
    if (progress_ == before && !all_stand()) Fail("threads wait at a barrier that others never reach");
  }
}

const std::byte* Block::Exchange(const void* mine, size_t bytes) {
  const auto me = static_cast<size_t>(current_);
  uint8_t& side = side_[me];
  side ^= 1;
  std::byte* all = exchange_[side].data();
  std::memcpy(all + me * kExchangeBytes, mine, bytes);
  SyncWarp();
  return all + me / kWarp * kWarp * kExchangeBytes;
}

// Of a launch, the block whose threads come to BeginKernel early: always the same, so that what has run before allocates nothing.
int64_t EarlyBlock(const Grid& grid, size_t launch) {
  return static_cast<int64_t>(Scramble(launch) % static_cast<uint64_t>(int64_t{grid.x} * grid.y * grid.z));
}

}  // namespace

void SyncBlock() { running->SyncBlock(); }
void SyncWarp() { running->SyncWarp(); }
void Begin() { running->Begin(); }
const std::byte* Exchange(const void* mine, size_t bytes) { return running->Exchange(mine, bytes); }

void CheckPlace(const void* at, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(at) % bytes != 0) Fail("words are read together that do not lie on a multiple of their size");
}

void CopyAsync(std::byte* to, const std::byte* from, int bytes) {
  CheckPlace(to, static_cast<size_t>(bytes));
  CheckPlace(from, static_cast<size_t>(bytes));
  AsyncCopy copy;
  copy.to = to;
  copy.size = bytes;
  std::memcpy(copy.bytes, from, static_cast<size_t>(bytes));
  running->fiber().copies.push_back(copy);
}
void CommitCopies() {
  Fiber& fiber = running->fiber();
  fiber.groups.push_back(fiber.copies.size());
}
void WaitCopies(int pending) {
  Fiber& fiber = running->fiber();
  for (; fiber.groups.size() - fiber.waited > static_cast<size_t>(pending); ++fiber.waited) {
    for (; fiber.made < fiber.groups[fiber.waited]; ++fiber.made) {
      const AsyncCopy& copy = fiber.copies[fiber.made];
      std::memcpy(copy.to, copy.bytes, static_cast<size_t>(copy.size));
    }
  }
}

void RunLaunches(std::span<const Work> launches) {
  // One of them runs, and of the next few a block each stands at BeginKernel: as a device may set up several kernels that wait for one another.
  static Block plain, early[kLaunchesAhead + 1];
  static std::vector<int> xs, ys, zs;
  int64_t early_block[kLaunchesAhead + 1] = {};
  for (size_t i = 0, started = 1; i < launches.size(); ++i) {
    for (; started < launches.size() && started <= i + kLaunchesAhead; ++started) {
      const Work& work = launches[started];
      const size_t side = started % (kLaunchesAhead + 1);
      const int64_t block = early_block[side] = EarlyBlock(work.grid, started);
      early[side].Start(work, static_cast<int>(block % work.grid.x), static_cast<int>(block / work.grid.x % work.grid.y),
                        static_cast<int>(block / work.grid.x / work.grid.y));
      early[side].RunToBegin();
    }
    const Work& work = launches[i];
    const size_t side = i % (kLaunchesAhead + 1);
    const uint64_t choice = Scramble(turn);
    Arrange(xs, work.grid.x, choice);
    Arrange(ys, work.grid.y, choice / 4);
    Arrange(zs, work.grid.z, choice / 16);
    for (const int z : zs) {
      for (const int y : ys) {
        for (const int x : xs) {
          if (i > 0 && early_block[side] == (int64_t{z} * work.grid.y + y) * work.grid.x + x) {
            early[side].RunToEnd();
          } else {
            plain.Start(work, x, y, z);
            plain.RunToEnd();
          }
        }
      }
    }
  }
}

}  // namespace reprise::cuda::emulator
