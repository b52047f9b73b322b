// Kernels that find the best of a row: of each part of it, and then of what the parts found.
//
// Promise 3: which values are the best is decided by comparing and counting integers alone, and that has one outcome in whatever order the threads
// come: values go by RankOf, equal ones by their column. A block has one part of one row, and knows of no other.
//
// The least rank that still counts is found digit by digit: values are counted by the first 11 bits of their ranks, and of those that share the
// digit in which the last wanted one lies, by the next. So the ranks are read five times, from shared memory where there is room, and nothing is sorted.
#pragma once

#include "backend/cuda/language.h"
#include "backend/cuda/row_kernels.h"
#include "base/logit_weight.h"

namespace reprise::cuda {

// Greater values have smaller ranks; kNoRank is of what is never among the best, NaN and minus infinity. -0 and 0 are equal.
inline constexpr uint32_t kNoRank = 0xff800000u;
REPRISE_HD uint32_t RankOf(float x) {
  if (!(x > FloatOf(0xff800000u))) return kNoRank;
  const uint32_t bits = BitsOf(x + 0.0f);
  return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

// The sum of `x` over the threads before this one, and over all. The next call must come after a SyncBlock.
REPRISE_DEVICE uint32_t SumBefore(uint32_t x, uint32_t* warps, uint32_t& total) {
  const int lane = ThreadId() % 32, warp = ThreadId() / 32;
  uint32_t before = 0;
  REPRISE_UNROLLED for (int mask = 1; mask < 32; mask *= 2) {
    const uint32_t other = ShuffleXor(x, mask);
    if (lane & mask) before += other;
    x += other;
  }
  if (lane == 0) warps[warp] = x;
  SyncBlock();
  total = 0;
  for (int i = 0; i < kRowThreads / 32; ++i) {
    if (i < warp) before += warps[i];
    total += warps[i];
  }
  return before;
}

// Every rank below `rank` is among the best, and the first `ties` that equal it.
struct BestCut {
  uint32_t rank, ties;
};
template <class RankAt>
REPRISE_DEVICE BestCut FindBestCut(const RankAt& rank_at, int count, BestShared& shared) {
  constexpr int kShifts[3] = {21, 10, 0}, kBits[3] = {11, 11, 10}, kEach = BestShared::kBins / kRowThreads;
  uint32_t known = 0, wanted = kBestValues;
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = kShifts[pass], bits = kBits[pass];
    for (int i = ThreadId(); i < BestShared::kBins; i += kRowThreads) shared.bins[i] = 0;
    SyncBlock();
    for (int i = ThreadId(); i < count; i += kRowThreads) {
      const uint32_t rank = rank_at(i);
      if (rank < kNoRank && static_cast<uint64_t>(rank) >> (shift + bits) == known) {
        AddShared(shared.bins + (rank >> shift & ((1u << bits) - 1)), 1);
      }
    }
    SyncBlock();
    const uint32_t* mine = shared.bins + ThreadId() * kEach;
    uint32_t sum = 0, total;
    for (int i = 0; i < kEach; ++i) sum += mine[i];
    uint32_t before = SumBefore(sum, shared.warps, total);
    if (total < wanted) return {kNoRank, 0};  // all that can be chosen, in the first pass
    if (before < wanted && wanted <= before + sum) {
      int digit = 0;
      while (before + mine[digit] < wanted) before += mine[digit++];
      shared.digit = static_cast<uint32_t>(ThreadId() * kEach + digit);
      shared.wanted = wanted - before;
    }
    SyncBlock();
    known = known << bits | shared.digit;
    wanted = shared.wanted;
  }
  return {known, wanted};
}

// shared.best = the places of the best among [0, count), ascending; returns how many.
template <class RankAt>
REPRISE_DEVICE int SelectAmong(const RankAt& rank_at, int count, BestShared& shared) {
  const BestCut cut = FindBestCut(rank_at, count, shared);
  SyncBlock();
  const int each = (count + kRowThreads - 1) / kRowThreads | 1;  // odd: threads that read side by side meet in no bank
  const int first = ThreadId() * each, end = first + each < count ? first + each : count;
  uint32_t below = 0, ties = 0;
  for (int i = first; i < end; ++i) {
    const uint32_t rank = rank_at(i);
    below += rank < cut.rank ? 1 : 0;
    ties += rank == cut.rank && ties < cut.ties ? 1 : 0;
  }
  uint32_t total;
  const uint32_t before = SumBefore(below | ties << 16, shared.warps, total);  // neither sum reaches 2^16
  const auto limit = [&](uint32_t x) { return x < cut.ties ? x : cut.ties; };
  uint32_t left = cut.ties - limit(before >> 16);
  uint32_t to = (before & 0xffffu) + limit(before >> 16);
  for (int i = first; i < end; ++i) {
    const uint32_t rank = rank_at(i);
    const bool tie = rank == cut.rank && left > 0;
    if (tie) --left;
    if (tie || rank < cut.rank) shared.best[to++] = i;
  }
  SyncBlock();
  return static_cast<int>((total & 0xffffu) + limit(total >> 16));
}

template <class RankAt>
REPRISE_DEVICE int SelectBest(const RankAt& rank_at, int count, BestShared& shared) {
  if (count > BestShared::kMostRanks) return SelectAmong(rank_at, count, shared);
  auto* const ranks = reinterpret_cast<uint32_t*>(SharedMemory() + sizeof(BestShared));
  constexpr int kAtOnce = 8;
  for (int first = ThreadId(); first < count; first += kAtOnce * kRowThreads) {
    uint32_t next[kAtOnce];
    REPRISE_UNROLLED for (int n = 0; n < kAtOnce; ++n) next[n] = first + n * kRowThreads < count ? rank_at(first + n * kRowThreads) : 0;
    REPRISE_UNROLLED for (int n = 0; n < kAtOnce; ++n) {
      if (first + n * kRowThreads < count) ranks[first + n * kRowThreads] = next[n];
    }
  }
  SyncBlock();
  return SelectAmong([&](int i) { return ranks[i]; }, count, shared);
}

REPRISE_KERNEL(BestPartKernel, BestArgs) {
  BeginKernel();
  const int row = BlockY(), part = BlockX(), first = part * BestArgs::kPart;
  if (row >= RowCount(args.step, args.in.domain)) return;
  const float* in = RowAt(args.in, row) + first;
  const int left = args.in.width - first;
  auto& shared = *reinterpret_cast<BestShared*>(SharedMemory());
  const int found = SelectBest([&](int i) { return RankOf(in[i]); }, left < BestArgs::kPart ? left : BestArgs::kPart, shared);
  const int i = ThreadId();
  if (i >= kBestValues) return;
  const int64_t at = (static_cast<int64_t>(row) * args.parts() + part) * kBestValues + i;
  args.part_values[at] = i < found ? in[shared.best[i]] : FloatOf(kNoRank);
  args.part_columns[at] = i < found ? first + shared.best[i] : -1;
}

REPRISE_KERNEL(BestKernel, BestArgs) {
  BeginKernel();
  const int row = BlockX(), count = args.parts() * kBestValues;
  if (row >= RowCount(args.step, args.in.domain)) return;
  const float* values = args.part_values + static_cast<int64_t>(row) * count;
  const int32_t* columns = args.part_columns + static_cast<int64_t>(row) * count;
  auto& shared = *reinterpret_cast<BestShared*>(SharedMemory());
  const int found = SelectBest([&](int i) { return RankOf(values[i]); }, count, shared);  // parts lie in the order of their columns
  const int i = ThreadId();
  if (i < kBestValues) {
    args.out.values[row * kBestValues + i] = i < found ? values[shared.best[i]] : FloatOf(kNoRank);
    args.out.columns[row * kBestValues + i] = i < found ? columns[shared.best[i]] : -1;
  }
  if (i >= 32) return;
  Best best{0.0f, -1};
  for (int at = i; at < found; at += 32) {
    const Best here{values[shared.best[at]], columns[shared.best[at]]};
    if (Better(here, best)) best = here;
  }
  best = WarpBest(best);
  if (i == 0) args.out.index[row] = best.index < 0 ? 0 : best.index;
}

// What a part of one row weighs, by a block of threads. It decides what the host may conclude, and no bits of any state.
REPRISE_KERNEL(WeighKernel, WeighArgs) {
  BeginKernel();
  const WeighedRow row = *args.row;
  const float* in = RowAt(args.in, row.row);
  const int first = BlockX() * kWeighedPart, end = first + kWeighedPart < args.in.width ? first + kWeighedPart : args.in.width;
  double sum = 0;
  for (int i = first + ThreadId(); i < end; i += kRowThreads) {
    const float x = in[i];
    if (x > FloatOf(0xff800000u)) sum = sum + LogitWeight(x, row.greatest, row.temperature);
  }
  auto* shared = reinterpret_cast<double*>(SharedMemory());
  sum = WarpSum(sum);
  if (ThreadId() % 32 == 0) shared[ThreadId() / 32] = sum;
  SyncBlock();
  if (ThreadId() != 0) return;
  for (int warp = 1; warp < kRowThreads / 32; ++warp) sum = sum + shared[warp];
  args.parts[BlockX()] = sum;
}

}  // namespace reprise::cuda
