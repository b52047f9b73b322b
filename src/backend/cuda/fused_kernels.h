// Kernels that do what takes several launches otherwise (fuse.h says when): products of one row with what comes before and after them, and attention's
// beginning. Those of the recurrences are in fused_state_kernels.h.
//
// Promise 3: every element comes of the same operations in the same order as in the single kernels. Norms are summed by 256 threads as in
// RmsNormKernel, however many there are; a segment is summed by AddActivations, or by ShortTotals, and segments in ascending order.
#pragma once

#include "backend/cuda/row_kernels.h"
#include "backend/cuda/short_matmul_kernels.h"
#include "backend/cuda/state_kernels.h"

namespace reprise::cuda {

// ---- Products of one row ----

// What a norm multiplies the elements of a row by, but for its weight.
struct NormFactors {
  int groups, width;
  float of_all;          // where there is one group
  const float* of_each;  // in shared memory
  REPRISE_DEVICE float Of(int i) const { return groups == 1 ? of_all : of_each[i / width]; }
};
// By a block of at least kRowThreads, which reuses its first shared memory only after another SyncBlock.
REPRISE_DEVICE NormFactors FusedNormFactors(const RmsNormArgs& args) {
  constexpr int kWarps = FusedNormShared::kWarps;
  const int width = args.width, groups = args.in.width / width, thread = ThreadId();
  float* const warps = reinterpret_cast<float*>(SharedMemory());
  for (int group = 0; group < groups; ++group) {
    const float* in = args.in.data + group * width;
    float squares = 0.0f;
    if (thread < kRowThreads) {
      for (int i = thread; i < width; i += kRowThreads) squares = fmaf(in[i], in[i], squares);
    }
    squares = WarpSum(squares);
    if (thread % 32 == 0 && thread < kRowThreads) warps[group * kWarps + thread / 32] = squares;
  }
  SyncBlock();
  const auto factor_of = [&](int group) {
    float squares = 0.0f;
    REPRISE_UNROLLED for (int warp = 0; warp < kWarps; ++warp) squares = squares + warps[group * kWarps + warp];
    return 1.0f / sqrtf(squares / static_cast<float>(width) + args.eps);
  };
  if (groups == 1) return {groups, width, factor_of(0), nullptr};
  float* const factors = warps + FusedNormShared::kFactors;
  for (int group = thread; group < groups; group += ThreadCount()) factors[group] = factor_of(group);
  SyncBlock();
  return {groups, width, 1.0f, factors};
}

// The quantised row: in memory as the kernel before left it, or made here by every block of threads for itself, in shared memory. The first block also
// leaves it (and what it comes of) where launches of their own would, for whoever reads it later.
REPRISE_DEVICE QuantRows FusedQuants(const FusedMatMulArgs& args) {
  const QuantRows& kept = args.matmul.quant;
  if (args.input == FusedInput::kMade) return kept;
  const int width = args.matmul.in.width, stride = kept.stride, thread = ThreadId();
  const bool norm = args.input == FusedInput::kNorm, keeps = BlockX() == 0;
  const float* in = norm ? args.norm.in.data : args.matmul.in.data;
  std::byte* shared = SharedMemory();
  QuantRows made;
  made.quants = reinterpret_cast<int8_t*>(shared + FusedShared::Sums());
  made.scales = reinterpret_cast<float*>(shared + FusedShared::Scales(stride));
  made.sums = reinterpret_cast<float*>(shared + FusedShared::ActSums(stride));
  made.stride = stride;

  // A thread's elements and their factors are on their way while the row's squares are summed.
  const int threads = ThreadCount();
  float x[kElementsAtOnce], weight[kElementsAtOnce];
  const auto load = [&](int base) {
    REPRISE_UNROLLED for (int n = 0; n < kElementsAtOnce; ++n) {
      const int i = base + n * threads;
      x[n] = i < width ? in[i] : 0.0f;
      weight[n] = norm && i < width ? args.norm.weight[i] : 1.0f;
    }
  };
  load(thread);
  NormFactors factors{1, width, 1.0f, nullptr};
  if (norm) factors = FusedNormFactors(args.norm);
  for (int base = thread; base / kBlock * kBlock < stride; base += kElementsAtOnce * threads) {
    if (base != thread) load(base);
    REPRISE_UNROLLED for (int n = 0; n < kElementsAtOnce; ++n) {
      const int i = base + n * threads;
      if (norm && i < width) x[n] = x[n] * factors.Of(i) * weight[n];  // past the last they stay zero, with a scale of zero
    }
    Quantised quantised[kElementsAtOnce];
    QuantiseTogether(x, quantised);
    REPRISE_UNROLLED for (int n = 0; n < kElementsAtOnce; ++n) {
      const int i = base + n * threads, block = i / kBlock;
      if (block * kBlock < stride) StoreQuantised(made, 0, block, quantised[n]);
      if (!keeps || block * kBlock >= width) continue;
      StoreQuantised(kept, 0, block, quantised[n]);
      if (norm && i < width) args.norm.out.data[i] = x[n];
    }
  }
  SyncBlock();
  return made;
}

template <Form kForm>
REPRISE_DEVICE const std::byte* FusedItem(const FusedMatMulArgs& args, int tile, int item) {
  TileOfProduct at{item % 2, tile};
  int segment = item / 2;
  if (!args.gated()) {
    at = FindTile<1>(args.matmul, tile);
    segment = item;
  }
  const WeightView& w = args.matmul.product[at.product].weight;
  return w.data + (static_cast<int64_t>(at.tile) * w.segments + segment) * SegmentBytes(kForm);
}

REPRISE_DEVICE float Activated(FusedOutput output, const float totals[2]) {
  if (output == FusedOutput::kSwiGlu) return Silu(totals[0]) * totals[1];
  if (output == FusedOutput::kGeGlu) return Gelu(totals[0]) * totals[1];
  return SquarePositive(totals[0]);
}
// Leaves an output's sums, and what is made of them, which is returned; zero past the last.
REPRISE_DEVICE float StoreFusedSums(const FusedMatMulArgs& args, int tile, int of_tile, const float totals[2]) {
  const TileOfProduct at = args.gated() ? TileOfProduct{0, tile} : FindTile<1>(args.matmul, tile);
  const int output = at.tile * kTileOutputs + of_tile;
  StoreSum(args.matmul.product[at.product], 0, output, totals[0]);
  if (args.gated()) StoreSum(args.matmul.product[1], 0, output, totals[1]);
  if (args.output == FusedOutput::kProducts || output >= args.activated.out.width) return 0.0f;
  const float y = Activated(args.output, totals);
  args.activated.out.data[output] = y;
  return y;
}
// By one warp, a lane an output.
REPRISE_DEVICE void StoreFused(const FusedMatMulArgs& args, int tile, const float totals[2]) {
  const float y = StoreFusedSums(args, tile, ThreadId() % 32, totals);
  if (args.output != FusedOutput::kProducts && args.activated.quant.quants) QuantiseBlock(args.activated.quant, 0, tile, y);
}

template <Form kForm>
REPRISE_KERNEL_OF(kMostFusedWarps * 32, 1, FusedMatMulKernel, FusedMatMulArgs) {
  const int warp = ThreadId() / 32, lane = ThreadId() % 32, warps = ThreadCount() / 32;
  const int items = FusedItems(args), tiles = FusedTiles(args);
  // A warp's next item is on its way while it sums the one before, from tile to tile.
  int next_tile = BlockX(), next_item = warp;
  SegmentWeights<kForm> next;
  const auto load = [&] {
    if (next_tile >= tiles || next_item >= items) return;
    next.Load(FusedItem<kForm>(args, next_tile, next_item));
    next_item += warps;
    if (next_item >= items) {
      next_item = warp;
      next_tile += GridX();
    }
  };
  load();
  if (next_tile < tiles && next_item < items) {
    const std::byte* bytes = FusedItem<kForm>(args, next_tile, next_item);
    for (int line = lane * 128; line < SegmentBytes(kForm); line += 32 * 128) PrefetchToL2(bytes + line);
  }
  if (args.input == FusedInput::kNorm && ThreadId() * 32 < args.matmul.in.width) {
    PrefetchToL2(reinterpret_cast<const std::byte*>(args.norm.weight + ThreadId() * 32));
  }
  BeginKernel();
  if (RowCount(args.matmul.step, args.matmul.in.domain) < 1) return;
  const QuantRows row = FusedQuants(args);
  int side = 0;
  for (int tile = BlockX(); tile < tiles; tile += GridX()) {
    float totals[2] = {0.0f, 0.0f};
    for (int first = 0; first < items; first += kFusedItems) {
      const int end = first + kFusedItems < items ? first + kFusedItems : items;
      float* sums = reinterpret_cast<float*>(SharedMemory()) + side * kFusedItems * kTileOutputs;
      REPRISE_ROLLED for (int item = first + warp; item < end; item += warps) {
        const SegmentWeights<kForm> weights = next;
        load();
        const int segment = args.gated() ? item / 2 : item;
        float sum = 0.0f;
        REPRISE_UNROLLED for (int b = 0; b < kSegmentBlocks; ++b) {
          const int at = segment * kSegmentBlocks + b;
          sum = AddActivations<kForm>(sum, weights.Block(b), row.quants + at * kBlock, row.scales + at, row.sums + at);
        }
        sums[(item - first) * kTileOutputs + lane] = sum;
      }
      // The first warp adds them up while the others go on in the other place, to which it must come before they can be back in this one.
      SyncBlock();
      side ^= 1;
      if (warp != 0) continue;
      if (args.gated()) {
        for (int item = first; item < end; item += 2) {
          totals[0] = totals[0] + sums[(item - first) * kTileOutputs + lane];
          totals[1] = totals[1] + sums[(item - first + 1) * kTileOutputs + lane];
        }
      } else {
        for (int item = first; item < end; ++item) totals[0] = totals[0] + sums[(item - first) * kTileOutputs + lane];
      }
    }
    if (warp == 0) StoreFused(args, tile, totals);
  }
}

// ---- The same of weights of 16-bit floats ----

// The row's floats: where they lie, or normed here by every block of threads for itself, in shared memory; the first block also leaves them where the
// norm would.
REPRISE_DEVICE const float* FusedFloats(const FusedMatMulArgs& args) {
  if (args.input != FusedInput::kNorm) return args.matmul.in.data;
  float* const row = reinterpret_cast<float*>(SharedMemory() + FusedShortShared::kRow);
  const NormFactors factors = FusedNormFactors(args.norm);
  for (int i = ThreadId(); i < args.matmul.in.width; i += ThreadCount()) {
    const float x = args.norm.in.data[i] * factors.Of(i) * args.norm.weight[i];
    row[i] = x;
    if (BlockX() == 0) args.norm.out.data[i] = x;
  }
  SyncBlock();
  return row;
}

template <Form kForm>
REPRISE_KERNEL_OF(kVectorWarps * 32, 2, FusedShortKernel, FusedMatMulArgs) {
  const int thread = ThreadId(), tiles = FusedTiles(args), products = args.gated() ? 2 : 1;
  const auto tile_of = [&](int tile, int product) { return args.gated() ? TileOfProduct{product, tile} : FindTile<1>(args.matmul, tile); };
  for (int p = 0; p < products; ++p) {
    const TileOfProduct at = tile_of(BlockX(), p);
    PrefetchSegment<kForm>(args.matmul.product[at.product].weight, at.tile, thread / 32);
  }
  BeginKernel();
  if (RowCount(args.matmul.step, args.matmul.in.domain) < 1) return;
  const float* const row = FusedFloats(args);
  const bool aligned = reinterpret_cast<uintptr_t>(row) % 16 == 0;
  REPRISE_ROLLED for (int tile = BlockX(); tile < tiles; tile += GridX()) {
    float totals[2] = {0.0f, 0.0f};
    REPRISE_ROLLED for (int p = 0; p < products; ++p) {
      const TileOfProduct at = tile_of(tile, p);
      float total[1];
      ShortTotals<kForm, 1>(
          args.matmul.product[at.product].weight, at.tile, 1, aligned, [&](int) { return row; }, total);
      totals[0] = p == 0 ? total[0] : totals[0];
      totals[1] = total[0];
    }
    if (thread % kShortColumns == 0) StoreFusedSums(args, tile, thread / kShortColumns, totals);
  }
}

// ---- Attention's beginning ----

// The last layer of the grid has the values, the others the heads that are turned, each a warp's; whoever has turned a head of keys appends it.
REPRISE_KERNEL(FusedAppendKernel, FusedAppendArgs) {
  BeginKernel();
  const int row = BlockY(), which = BlockZ(), head = BlockX() * (kHeadThreads / 32) + ThreadId() / 32;
  if (row >= args.turn.step.header->rows) return;
  if (which == args.turn.count) {
    const int i = BlockX() * kHeadThreads + ThreadId();
    if (i < args.append.in[1].width) AppendElement(args.append, 1, row, i);
    return;
  }
  const Heads& heads = args.turn.heads[which];
  if (head >= heads.count) return;
  NormRopeHead(args.turn, which, row, head);
  if (which != args.turn.count - 1) return;
  SyncWarp();
  for (int i = ThreadId() % 32; i < heads.width; i += 32) AppendElement(args.append, 0, row, head * heads.width + i);
}

}  // namespace reprise::cuda
