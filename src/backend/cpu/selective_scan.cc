// The selective scan of Mamba-1, token by token. Channels never meet, so a unit of work is a run of channels of one lane.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/selective_scan.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <cstring>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Channels of an item: rows lie far apart, so it takes lines that follow one another from each; of 16 dimensions, their states and rates are 8 KB,
// which stay in the L1 cache through all of a lane's rows.
constexpr int kChannels = 64;
static_assert(kChannels % Ops::kScanChannels == 0 && Ops::kScanChannels == 16, "a vector has the channels of a piece");

int64_t ScanPieces(const ScanArgs& args) { return (args.x.width + kChannels - 1) / kChannels; }

Split SplitScan(const ScanArgs& args) {
  const int lanes = args.table->lanes;
  if (lanes == 0) return {};
  const double rows = static_cast<double>(args.table->rows) / lanes;
  return EvenSplit(ScanPieces(args) * lanes, rows * kChannels * args.b.width * 0.3 + 50, /*unit=*/4000,
                   /*block=*/rows >= 16 ? kBlockColumns / kChannels : 0);
}

void Scan(const ScanArgs& args, int64_t first, int64_t last, int) {
  const int states = args.b.width;
  const int64_t pieces = ScanPieces(args);
  for (int64_t item = first; item < last; ++item) {
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(item / pieces)];
    const int from = static_cast<int>(item % pieces) * kChannels, to = std::min(from + kChannels, args.x.width);
    const float* before = reinterpret_cast<const float*>(lane.read + args.state.offset);
    float* const after = reinterpret_cast<float*>(lane.write + args.state.offset);
    if (lane.rows == 0) {
      const int64_t begin = int64_t{from} * states;
      std::memcpy(after + begin, before + begin, sizeof(float) * static_cast<size_t>((to - from) * states));
    }
    for (int t = 0; t < lane.rows; ++t, before = after) {
      const int row = lane.first_row + t;
      // The next row is on another page, where the machine's own guesses do not reach.
      const int next = std::min(t + 1, lane.rows - 1) + lane.first_row;
      const float *const b = RowAt(args.b, row), *const c = RowAt(args.c, row);
      for (int channel = from; channel < to; channel += 16) {
        FetchFar(RowAt(args.x, next) + channel);
        FetchFar(RowAt(args.dt, next) + channel);
        FetchToWrite(RowAt(args.out, next) + channel);
        const Floats x = Load(RowAt(args.x, row) + channel);
        const Floats step = Softplus(Add(Load(RowAt(args.dt, row) + channel), Load(args.dt_bias + channel)));
        const Floats added = Mul(step, x);
        Floats sum = Mul(Load(args.d + channel), x);
        const int64_t piece = int64_t{channel} * states;
        for (int n = 0; n < states; ++n) {
          const int64_t at = piece + n * 16;
          const Floats kept = Mul(Exp(Mul(Load(args.a + at), step)), Load(before + at));
          const Floats s = MulAdd(Set(b[n]), added, kept);
          Store(s, after + at);
          sum = MulAdd(Set(c[n]), s, sum);
        }
        Store(sum, RowAt(args.out, row) + channel);
      }
    }
  }
}

void AddScan(KernelTable& table) { table.scan = {RunUntyped<ScanArgs, Scan>, SplitUntyped<ScanArgs, SplitScan>}; }

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddScan(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddScan(table)) }
}  // namespace reprise
#endif
