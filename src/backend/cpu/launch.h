// Launch: one kernel call of a captured plan, as flat data: a function, how its work is cut, and its arguments inline.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace reprise {

// A launch's work is `items` independent pieces, claimed in units of about `unit` of them. They are dealt to the threads `block` by block in
// turn (0: one block for each thread). None of the three may change a result.
struct Split {
  int64_t items = 0;
  int64_t unit = 1;
  int64_t block = 0;
};

// A split dealt to some threads: a block-cyclic distribution, in which item i is in the share of thread i / block % threads, always.
struct Deal {
  int64_t items = 0;
  int64_t block = 1;
  int64_t unit = 1;  // no more than a block

  Deal(int64_t items_in, int64_t block_in, int64_t unit_in) : items(items_in), block(block_in), unit(unit_in) {}
  Deal(const Split& split, int threads) : items(split.items) {
    const int64_t wanted = std::clamp<int64_t>(split.unit, 1, items), share = (items + threads - 1) / threads;
    if (wanted == items) {
      block = items;
    } else {
      block = split.block ? std::clamp(split.block, wanted, std::max(wanted, share)) : share;
    }
    const int64_t units = (block + wanted - 1) / wanted;
    unit = (block + units - 1) / units;
  }

  struct Range {
    int64_t first, last;
    bool empty() const { return first >= last; }
  };
  // The items of the n-th unit of a share, none if it has no such unit.
  Range Unit(int share, int64_t n, int threads) const {
    const int64_t units = (block + unit - 1) / unit, begin = (share + n / units * threads) * block, first = begin + n % units * unit;
    return {first, std::min({first + unit, begin + block, items})};
  }
};

// Columns of a block, wherever the items of many rows are columns: then the thread that writes a column mostly is the one that reads it in the
// next launch, and finds it in its own caches.
inline constexpr int kBlockColumns = 512;

struct Launch {
  static constexpr size_t kArgBytes = 232;

  void (*run)(const void* args, int64_t first, int64_t last, int thread) = nullptr;
  Split (*split)(const void* args) = nullptr;
  alignas(8) std::byte args[kArgBytes];
};

template <class Args>
using RunFunction = void (*)(const Args&, int64_t first, int64_t last, int thread);

// The kernels take their arguments typed; the launch calls them through a pointer to the untyped form.
template <class Args, RunFunction<Args> kRun>
void RunUntyped(const void* args, int64_t first, int64_t last, int thread) {
  kRun(*static_cast<const Args*>(args), first, last, thread);
}
template <class Args, Split (*kSplit)(const Args&)>
Split SplitUntyped(const void* args) {
  return kSplit(*static_cast<const Args*>(args));
}

using UntypedRun = void (*)(const void* args, int64_t first, int64_t last, int thread);
using UntypedSplit = Split (*)(const void* args);

template <class Args>
Launch MakeLaunch(UntypedRun run, UntypedSplit split, const Args& args) {
  static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) <= Launch::kArgBytes && alignof(Args) <= 8);
  Launch launch;
  launch.run = run;
  launch.split = split;
  std::memcpy(launch.args, &args, sizeof(Args));
  return launch;
}

// Units of about `unit` nanoseconds, for `items` pieces of about `nanoseconds` each: large enough to hide the cost of claiming one (some tens of
// nanoseconds), small enough that a thread that was put to sleep by the system in the middle of one holds up little.
inline Split EvenSplit(int64_t items, double nanoseconds, double unit = 4000, int64_t block = 0) {
  return {items, std::max<int64_t>(1, static_cast<int64_t>(unit / std::max(nanoseconds, 1e-3))), block};
}

}  // namespace reprise
