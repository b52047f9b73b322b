// glibc's checked longjmp takes a jump to another stack for one into a frame that has returned, and ends the program. Compilers of some distributions
// ask for it unasked, so it is undone before the first header.
#undef _FORTIFY_SOURCE

#include "backend/cuda/emulator/fibers.h"

#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace reprise::cuda::emulator {

Place place;
std::byte* shared_memory = nullptr;

namespace {

constexpr size_t kStackBytes = size_t{64} << 10;
constexpr int kWarp = 32;

struct Barrier {
  int arrived = 0;
  uint64_t generation = 0;
};

struct Copy {
  std::byte* to;
  int size;
  std::byte bytes[16];
};

struct Fiber {
  std::unique_ptr<std::byte[]> stack;
  ucontext_t context;
  jmp_buf here;
  bool started = false;
  bool done = true;
  // Copies in the order they were asked for, `made` of them made already; and where groups of them end, `waited` of which were waited for. They keep
  // their memory, so that a block that has run before allocates nothing.
  std::vector<Copy> copies;
  std::vector<size_t> groups;
  size_t made = 0, waited = 0;
};

struct Scheduler {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  std::vector<std::byte> exchange[2];  // of all threads; the two alternate, so that one barrier an exchange is enough
  std::vector<uint8_t> side;           // of each thread: which it used last
  Barrier block;
  int threads = 0;
  int current = 0;
  uint64_t progress = 0;
  uint64_t turn = 0;
  jmp_buf main;
  ucontext_t main_context;
  std::vector<std::byte> shared;
  void (*kernel)(const void*) = nullptr;
  const void* args = nullptr;
};
Scheduler s;

void Enter() {
  s.kernel(s.args);
  s.fibers[static_cast<size_t>(s.current)].done = true;
  ++s.progress;
  _longjmp(s.main, 1);
}

void Resume(int thread) {
  Fiber& fiber = s.fibers[static_cast<size_t>(thread)];
  s.current = thread;
  place.thread = thread;
  if (_setjmp(s.main) != 0) return;
  if (fiber.started) _longjmp(fiber.here, 1);
  fiber.started = true;
  if (!fiber.stack) fiber.stack.reset(new std::byte[kStackBytes]);
  ::getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  ::makecontext(&fiber.context, Enter, 0);
  ::setcontext(&fiber.context);
}

void Yield() {
  const int me = s.current;
  if (_setjmp(s.fibers[static_cast<size_t>(me)].here) == 0) _longjmp(s.main, 1);
}

void Wait(Barrier& barrier, int count) {
  ++s.progress;
  const uint64_t mine = barrier.generation;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  while (barrier.generation == mine) Yield();
}

void RunBlock(const Grid& grid) {
  s.shared.assign(static_cast<size_t>(grid.shared) + 16, std::byte{0xff});  // NaN in every float
  shared_memory = s.shared.data() + (16 - reinterpret_cast<uintptr_t>(s.shared.data()) % 16) % 16;
  s.block = {};
  for (Barrier& warp : s.warps) warp = {};
  for (int i = 0; i < s.threads; ++i) {
    Fiber& fiber = s.fibers[static_cast<size_t>(i)];
    fiber.started = fiber.done = false;
    fiber.copies.clear();
    fiber.groups.clear();
    fiber.made = fiber.waited = 0;
  }
  const bool backwards = ++s.turn % 2 == 0;
  for (int left = s.threads; left > 0;) {
    const uint64_t before = s.progress;
    for (int i = 0; i < s.threads; ++i) {
      const int thread = backwards ? s.threads - 1 - i : i;
      if (s.fibers[static_cast<size_t>(thread)].done) continue;
      Resume(thread);
      if (s.fibers[static_cast<size_t>(thread)].done) --left;
    }
    if (s.progress == before) {
      std::fprintf(stderr, "emulated kernel: threads wait at a barrier that others never reach\n");
      std::abort();
    }
  }
}

}  // namespace

void SyncBlock() { Wait(s.block, s.threads); }
void SyncWarp() { Wait(s.warps[static_cast<size_t>(s.current / kWarp)], kWarp); }

const std::byte* Exchange(const void* mine, size_t bytes) {
  const auto me = static_cast<size_t>(s.current);
  uint8_t& side = s.side[me];
  side ^= 1;
  std::byte* all = s.exchange[side].data();
  std::memcpy(all + me * kExchangeBytes, mine, bytes);
  SyncWarp();
  return all + me / kWarp * kWarp * kExchangeBytes;
}

void CopyAsync(std::byte* to, const std::byte* from, int bytes) {
  if (reinterpret_cast<uintptr_t>(to) % static_cast<uintptr_t>(bytes) != 0 ||
      reinterpret_cast<uintptr_t>(from) % static_cast<uintptr_t>(bytes) != 0) {
    std::fprintf(stderr, "emulated kernel: a copy of %d bytes that does not lie on a multiple of as many\n", bytes);
    std::abort();
  }
  Copy copy;
  copy.to = to;
  copy.size = bytes;
  std::memcpy(copy.bytes, from, static_cast<size_t>(bytes));
  s.fibers[static_cast<size_t>(s.current)].copies.push_back(copy);
}
void CommitCopies() {
  Fiber& fiber = s.fibers[static_cast<size_t>(s.current)];
  fiber.groups.push_back(fiber.copies.size());
}
void WaitCopies(int pending) {
  Fiber& fiber = s.fibers[static_cast<size_t>(s.current)];
  for (; fiber.groups.size() - fiber.waited > static_cast<size_t>(pending); ++fiber.waited) {
    for (; fiber.made < fiber.groups[fiber.waited]; ++fiber.made) {
      const Copy& copy = fiber.copies[fiber.made];
      std::memcpy(copy.to, copy.bytes, static_cast<size_t>(copy.size));
    }
  }
}

void RunGrid(const Grid& grid, void (*kernel)(const void* args), const void* args) {
  s.threads = grid.threads;
  if (static_cast<int>(s.fibers.size()) < s.threads) s.fibers.resize(static_cast<size_t>(s.threads));
  s.warps.resize(static_cast<size_t>((s.threads + kWarp - 1) / kWarp));
  s.side.assign(static_cast<size_t>(s.threads), 0);
  for (auto& exchange : s.exchange) exchange.resize(static_cast<size_t>(s.threads) * kExchangeBytes);
  s.kernel = kernel;
  s.args = args;
  place.threads = grid.threads;
  place.grid[0] = grid.x;
  place.grid[1] = grid.y;
  place.grid[2] = grid.z;
  for (int z = 0; z < grid.z; ++z) {
    for (int y = 0; y < grid.y; ++y) {
      for (int x = 0; x < grid.x; ++x) {
        place.block[0] = x;
        place.block[1] = y;
        place.block[2] = z;
        RunBlock(grid);
      }
    }
  }
}

}  // namespace reprise::cuda::emulator
