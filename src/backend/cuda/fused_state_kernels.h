// Kernels that do what takes several launches of the recurrences otherwise, for lanes that bring few tokens (fuse.h says when): from the convolution to
// what a product then reads.
//
// Promise 3: every element comes of the same operations in the same order as in the single kernels: Convolved, StateColumn, GatedNormBlock.
#pragma once

#include "backend/cuda/state_kernels.h"

namespace reprise::cuda {

// ---- The delta rule ----

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
