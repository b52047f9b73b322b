// Depthwise causal convolution. A unit is a run of channels of one lane.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/conv.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Channels of an item. Rows lie far apart, so an item takes lines that follow one another from each: the window of rows and the taps of 256
// channels are a quarter of an L1 cache.
constexpr int kChannels = 256;

Split SplitConv(const ConvArgs& args) {
  const int64_t pieces = (args.in.width + kChannels - 1) / kChannels;
  const int lanes = args.table->lanes;
  if (lanes == 0) return {};
  return EvenSplit(pieces * lanes, (double{1} * args.table->rows / lanes + 2) * kChannels * 0.3, /*unit=*/4000,
                   /*block=*/kBlockColumns / kChannels);
}

// Channels [from, to) of a row: `window` has the inputs that the taps meet, oldest first. What it does not know at compile time (kKernel 0) it
// takes from the arguments.
template <int kKernel>
HWY_INLINE void ConvRow(const ConvArgs& args, const float* const* window, int from, int to, float* out, const float* next_in,
                        const float* next_out) {
  const int kernel = kKernel ? kKernel : args.kernel;
  const float *const taps = args.taps, *const bias = args.bias;
  const int64_t width = args.in.width;
  const bool silu = args.silu;
  for (int c = from; c < to; c += 16) {
    const int count = to - c;
    FetchFar(next_in + c);
    FetchToWrite(next_out + c);
    Floats sum = bias ? LoadFirst(bias + c, count) : Zeros();
    for (int k = 0; k < kernel; ++k) sum = MulAdd(LoadFirst(window[k] + c, count), LoadFirst(taps + k * width + c, count), sum);
    StoreFirst(silu ? Silu(sum) : sum, out + c, count);
  }
}

void Conv(const ConvArgs& args, int64_t first, int64_t last, int) {
  const int width = args.in.width, history = args.kernel - 1;
  const int64_t pieces = (width + kChannels - 1) / kChannels;
  for (int64_t item = first; item < last; ++item) {
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(item / pieces)];
    const int from = static_cast<int>(item % pieces) * kChannels, to = std::min(from + kChannels, width);
    const float* tail = reinterpret_cast<const float*>(lane.read + args.tail.offset);
    float* next_tail = reinterpret_cast<float*>(lane.write + args.tail.offset);
    // Input `t` of the lane's rows; before them, the tail.
    const auto input = [&](int t) { return t < 0 ? tail + static_cast<int64_t>(t + history) * width : RowAt(args.in, lane.first_row + t); };
    for (int t = 0; t < lane.rows; ++t) {
      float* out = RowAt(args.out, lane.first_row + t);
      // The next row is on another page, where the machine's own guesses do not reach.
      const int next = std::min(t + 1, lane.rows - 1);
      const float* const next_in = input(next);
      const float* const next_out = RowAt(args.out, lane.first_row + next);
      const float* window[kMostTaps];
      for (int k = 0; k < args.kernel; ++k) window[k] = input(t - history + k);
      switch (args.kernel) {
        case 3: ConvRow<3>(args, window, from, to, out, next_in, next_out); break;
        case 4: ConvRow<4>(args, window, from, to, out, next_in, next_out); break;
        default: ConvRow<0>(args, window, from, to, out, next_in, next_out);
      }
    }
    for (int k = 0; k < history; ++k) {
      std::memcpy(next_tail + static_cast<int64_t>(k) * width + from, input(lane.rows - history + k) + from,
                  static_cast<size_t>(to - from) * sizeof(float));
    }
  }
}

void AddConv(KernelTable& table) { table.conv = {RunUntyped<ConvArgs, Conv>, SplitUntyped<ConvArgs, SplitConv>}; }

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddConv(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddConv(table)) }
}  // namespace reprise
#endif
