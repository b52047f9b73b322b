// Kernels that do what takes several launches otherwise (fuse.h says when).
//
// Promise 3: every element comes of the same operations in the same order as in the single kernels. Norms are summed by 256 threads as in
// RmsNormKernel, however many there are; a segment is summed by AddActivations, and segments in ascending order; the recurrence is StateColumn's.
#pragma once

#include "backend/cuda/matmul_kernels.h"
#include "backend/cuda/row_kernels.h"
#include "backend/cuda/state_kernels.h"

namespace reprise::cuda {

// ---- Products of one row ----

// The quantised row: in memory as the kernel before left it, or made here by every block of threads for itself, in shared memory. The first block also
// leaves it (and what it comes of) where launches of their own would, for whoever reads it later.
REPRISE_DEVICE QuantRows FusedQuants(const FusedMatMulArgs& args) {
  const QuantRows& kept = args.matmul.quant;
  if (args.input == FusedInput::kQuantised) return kept;
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
  float factor = 1.0f;
  if (norm) {
    float* warps = reinterpret_cast<float*>(shared);
    float squares = 0.0f;
    if (thread < kRowThreads) {
      for (int i = thread; i < width; i += kRowThreads) squares = fmaf(in[i], in[i], squares);
    }
    squares = WarpSum(squares);
    if (thread % 32 == 0) warps[thread / 32] = squares;
    SyncBlock();
    squares = 0.0f;
    REPRISE_UNROLLED for (int warp = 0; warp < kRowThreads / 32; ++warp) squares = squares + warps[warp];
    factor = 1.0f / sqrtf(squares / static_cast<float>(width) + args.norm.eps);
  }
  for (int base = thread; base / kBlock * kBlock < stride; base += kElementsAtOnce * threads) {
    if (base != thread) load(base);
    REPRISE_UNROLLED for (int n = 0; n < kElementsAtOnce; ++n) {
      if (norm && base + n * threads < width) x[n] = x[n] * factor * weight[n];  // past the last they stay zero, with a scale of zero
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
  if (!args.gated) {
    at = FindTile<1>(args.matmul, tile);
    segment = item;
  }
  const WeightView& w = args.matmul.product[at.product].weight;
  return w.data + (static_cast<int64_t>(at.tile) * w.segments + segment) * SegmentBytes(kForm);
}

// By one warp, a lane an output.
REPRISE_DEVICE void StoreFused(const FusedMatMulArgs& args, int tile, const float totals[2]) {
  const int lane = ThreadId() % 32;
  if (!args.gated) {
    const TileOfProduct at = FindTile<1>(args.matmul, tile);
    StoreSum(args.matmul.product[at.product], 0, at.tile * kTileOutputs + lane, totals[0]);
    return;
  }
  const int output = tile * kTileOutputs + lane;
  float y = 0.0f;
  REPRISE_UNROLLED for (int i = 0; i < 2; ++i) StoreSum(args.matmul.product[i], 0, output, totals[i]);
  if (output < args.swiglu.out.width) {
    y = Silu(totals[0]) * totals[1];
    args.swiglu.out.data[output] = y;
  }
  if (args.swiglu.quant.quants) QuantiseBlock(args.swiglu.quant, 0, tile, y);
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
        const int segment = args.gated ? item / 2 : item;
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
      if (args.gated) {
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

// ---- The delta rule of few rows ----

// A block of threads has a head of a lane, and four threads a column of its state. Tokens come one after another, from the convolution to the norm.
// Queries and keys are of a key head that several heads may share: each makes them for itself, and the first of them leaves them, and their tail, in
// memory.
template <int kRows>
REPRISE_KERNEL_OF(kMostFusedColumns * 4, 1, FusedDeltaKernel, FusedDeltaArgs) {
  const StepView& step = args.delta.step;
  const ConvArgs& conv = args.conv;
  const Ops::DeltaNetShape& s = args.delta.shape;
  const int head = BlockX(), key_head = s.KeyHead(head), keys = s.key_heads * s.key_dim, channels = 2 * s.key_dim + s.value_dim;
  const int warp = ThreadId() / 32, column = ThreadId() / 4;
  const LaneEntry lane = step.lane[BlockZ()];
  const bool live = BlockZ() < step.header->lanes;
  const int64_t at = static_cast<int64_t>(head) * s.key_dim * s.value_dim + column;
  const auto channel_of = [&](int i) {  // of the head's queries, keys and values
    if (i < s.key_dim) return key_head * s.key_dim + i;
    if (i < 2 * s.key_dim) return keys + key_head * s.key_dim + i - s.key_dim;
    return 2 * keys + head * s.value_dim + i - 2 * s.key_dim;
  };
  const auto keeps = [&](int i) { return head == s.ValueHead(key_head, 0) || i >= 2 * s.key_dim; };
  StateColumn<kRows, 4> state(reinterpret_cast<const float*>(lane.read + args.delta.state.offset) + at, s.key_dim, s.value_dim,
                              live ? column : s.value_dim);
  for (int i = ThreadId(); i < channels; i += ThreadCount()) {
    PrefetchToL2(reinterpret_cast<const std::byte*>(conv.weight + static_cast<int64_t>(channel_of(i)) * conv.kernel));
  }
  BeginKernel();
  if (!live) return;

  float* const convolved = reinterpret_cast<float*>(SharedMemory());
  float* const q = convolved + FusedDeltaShared::Unit(s);
  float* const k = q + kRows;
  float* const product = convolved + FusedDeltaShared::Product(s);
  float* const read = convolved + FusedDeltaShared::Out(s);
  const auto write_tails = [&](int first, int threads) {
    for (int i = first; i < channels; i += threads) {
      if (keeps(i)) WriteTail(conv, lane, channel_of(i));
    }
  };
  for (int t = 0; t < lane.rows; ++t) {
    const int row = lane.first_row + t;
    for (int i = ThreadId(); i < channels; i += ThreadCount()) {
      const int channel = channel_of(i);
      convolved[i] = Convolved(conv, lane, t, channel);
      if (keeps(i)) RowAt(conv.out, row)[channel] = convolved[i];
    }
    SyncBlock();
    // What the first warp does the others wait for: meanwhile they leave the tails.
    if (t == 0 && warp > 0) write_tails(ThreadId() - 32, ThreadCount() - 32);
    if (warp == 0) {
      const float kq = DeltaUnits(convolved, convolved + s.key_dim, q, k, s.key_dim, kRows);
      if (ThreadId() == 0) *product = kq;
    }
    const float v = state.real ? convolved[2 * s.key_dim + column] : 0.0f;
    DeltaGates gates = GatesOf(args.delta, row, head, 0.0f);
    SyncBlock();
    gates.kq = *product;
    const float y = DeltaStep(state, q, k, v, gates);
    if (state.real && state.part == 0) read[column] = y;
    SyncBlock();
    if (warp * 32 < s.value_dim) {
      GatedNormBlock(args.norm, read, NormFactor(read, s.value_dim, args.norm.eps), row, head * s.value_dim, warp * 32);
    }
  }
  state.Write(reinterpret_cast<float*>(lane.write + args.delta.state.offset) + at);
  if (lane.rows == 0 || ThreadCount() == 32) write_tails(ThreadId(), ThreadCount());
}

}  // namespace reprise::cuda
