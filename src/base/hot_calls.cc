#include "base/hot_calls.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>
#include <string_view>

namespace reprise {
namespace {

// Constant-initialised: the first calls come before any constructor has run.
constinit std::atomic<int64_t> allocations{0};
constinit std::atomic<int64_t> driver_allocations{0};
constinit std::atomic<int64_t> locks{0};
constinit thread_local int in_driver = 0;
constinit std::atomic<bool> counts_allocations{false};
constinit std::atomic<bool> counts_locks{false};

// The number after `name` in the kernel's "name: number" lines.
std::optional<int64_t> NumberOf(std::string_view text, std::string_view name) {
  const size_t at = text.find(name);
  if (at == std::string_view::npos) return std::nullopt;
  int64_t number = 0;
  const char* const begin = text.data() + at + name.size();
  if (std::from_chars(begin, text.data() + text.size(), number).ec != std::errc()) return std::nullopt;
  return number;
}

}  // namespace

bool CountsAllocations() { return counts_allocations.load(std::memory_order_relaxed); }
int64_t AllocationCount() { return allocations.load(std::memory_order_relaxed); }
bool CountsLocks() { return counts_locks.load(std::memory_order_relaxed); }
int64_t LockCount() { return locks.load(std::memory_order_relaxed); }

std::optional<int64_t> FileCallCount() {
  static const int file = open("/proc/self/io", O_RDONLY | O_CLOEXEC);
  static int64_t own = 0;  // the kernel counts this read after it has told
  std::array<char, 512> text{};
  const ssize_t size = file < 0 ? -1 : pread(file, text.data(), text.size(), 0);
  if (size <= 0) return std::nullopt;
  const std::string_view told(text.data(), static_cast<size_t>(size));
  const auto reads = NumberOf(told, "syscr: "), writes = NumberOf(told, "syscw: ");
  if (!reads || !writes) return std::nullopt;
  return *reads + *writes - own++;
}

InDriver::InDriver() { ++in_driver; }
InDriver::~InDriver() { --in_driver; }
int64_t DriverAllocationCount() { return driver_allocations.load(std::memory_order_relaxed); }

void CountOneAllocation() { (in_driver > 0 ? driver_allocations : allocations).fetch_add(1, std::memory_order_relaxed); }
void CountOneLock() {
  if (in_driver == 0) locks.fetch_add(1, std::memory_order_relaxed);
}
void SetCountsAllocations() { counts_allocations.store(true, std::memory_order_relaxed); }
void SetCountsLocks() { counts_locks.store(true, std::memory_order_relaxed); }

}  // namespace reprise
