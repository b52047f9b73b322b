// Launch: one kernel call of a captured plan, as flat data: a function, how its work is cut, and its arguments inline.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace reprise {

// A launch's work is `items` independent pieces, handed out in `units` runs of consecutive items. Neither number may change a result.
struct Split {
  int64_t items = 0;
  int64_t units = 1;
};

struct Launch {
  static constexpr size_t kArgBytes = 232;

  void (*run)(const void* args, int64_t first, int64_t last, int thread) = nullptr;
  Split (*split)(const void* args, int threads) = nullptr;
  alignas(8) std::byte args[kArgBytes];
};

template <class Args>
using RunFunction = void (*)(const Args&, int64_t first, int64_t last, int thread);

// The kernels take their arguments typed; the launch calls them through a pointer to the untyped form.
template <class Args, RunFunction<Args> kRun>
void RunUntyped(const void* args, int64_t first, int64_t last, int thread) {
  kRun(*static_cast<const Args*>(args), first, last, thread);
}
template <class Args, Split (*kSplit)(const Args&, int)>
Split SplitUntyped(const void* args, int threads) {
  return kSplit(*static_cast<const Args*>(args), threads);
}

using UntypedRun = void (*)(const void* args, int64_t first, int64_t last, int thread);
using UntypedSplit = Split (*)(const void* args, int threads);

template <class Args>
Launch MakeLaunch(UntypedRun run, UntypedSplit split, const Args& args) {
  static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) <= Launch::kArgBytes && alignof(Args) <= 8);
  Launch launch;
  launch.run = run;
  launch.split = split;
  std::memcpy(launch.args, &args, sizeof(Args));
  return launch;
}

// Units of about `unit` nanoseconds, for `items` pieces of about `nanoseconds` each: large enough to hide the cost of claiming one (about 100
// ns), small enough that a thread that was put to sleep by the system in the middle of one holds up little.
inline Split EvenSplit(int64_t items, double nanoseconds, int threads, double unit = 4000) {
  if (threads == 1) return {items, 1};
  const double total = static_cast<double>(items) * nanoseconds;
  const auto wanted = static_cast<int64_t>(total / unit);
  return {items, std::clamp<int64_t>(wanted, 1, std::min<int64_t>(items, int64_t{64} * threads))};
}

}  // namespace reprise
