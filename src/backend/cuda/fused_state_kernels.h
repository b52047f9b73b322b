// Kernels that do what takes several launches of the recurrences otherwise, for lanes that bring few tokens (fuse.h says when): from the convolution to
// what a product then reads.
//
// Promise 3: every element comes of the same operations in the same order as in the single kernels: Convolved, StateColumn, GatedNormBlock, ScanChannel.
#pragma once

#include "backend/cuda/scan_kernels.h"
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
  const bool normed = args.norm.weight != nullptr;
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
    float* const to = normed ? read : RowAt(args.delta.out, row) + head * s.value_dim;
    if (state.real && state.part == 0) to[column] = y;
    SyncBlock();
    if (normed && warp * 32 < s.value_dim) {
      GatedNormBlock(args.norm, read, NormFactor(read, s.value_dim, args.norm.eps), row, head * s.value_dim, warp * 32);
    }
  }
  state.Write(reinterpret_cast<float*>(lane.write + args.delta.state.offset) + at);
  if (lane.rows == 0 || ThreadCount() == 32) write_tails(ThreadId(), ThreadCount());
}

// ---- Mamba-2 ----

// A block of threads has some columns of a head of a lane, four threads each. Tokens come one after another, from the convolution to the gate. B and C
// are of a group that several heads share: each block makes them for itself, and the group's first leaves them, and their tail, in memory.
template <int kRows>
REPRISE_KERNEL_OF(kFusedSsmColumns* kSsmThreads, 2, FusedSsmKernel, FusedSsmArgs) {
  static_assert(kFusedSsmColumns == 32, "a warp gates the columns");
  const ConvArgs& conv = args.conv;
  const SsmArgs& ssm = args.ssm;
  const Ops::SsmShape& s = ssm.shape;
  const int head = BlockY(), group = head / (s.heads / s.groups), inner = s.heads * s.head_dim, warp = ThreadId() / 32;
  const int first = BlockX() * kFusedSsmColumns, column = first + ThreadId() / kSsmThreads;
  const int own = s.head_dim - first < kFusedSsmColumns ? s.head_dim - first : kFusedSsmColumns, channels = own + 2 * s.state_dim;
  const LaneEntry lane = ssm.step.lane[BlockZ()];
  const bool gates = args.gate.out.data != nullptr, live = BlockZ() < ssm.step.header->lanes,
             leads = BlockX() == 0 && head % (s.heads / s.groups) == 0;
  const int64_t at = static_cast<int64_t>(head) * s.state_dim * s.head_dim + column;
  const auto channel_of = [&](int i) {  // of the block's columns, and of its group's B and C
    if (i < own) return head * s.head_dim + first + i;
    i -= own;
    return inner + (i < s.state_dim ? group * s.state_dim + i : (s.groups + group - 1) * s.state_dim + i);
  };
  const auto keeps = [&](int i) { return leads || i < own; };
  StateColumn<kRows, kSsmThreads> state(reinterpret_cast<const float*>(lane.read + ssm.state.offset) + at, s.state_dim, s.head_dim,
                                        live ? column : s.head_dim);
  for (int i = ThreadId(); i < channels; i += ThreadCount()) {
    PrefetchToL2(reinterpret_cast<const std::byte*>(conv.weight + static_cast<int64_t>(channel_of(i)) * conv.kernel));
  }
  BeginKernel();
  if (!live) return;

  float* const c = reinterpret_cast<float*>(SharedMemory());
  float* const b = c + kRows;
  float* const x = c + FusedSsmShared::X(kRows);
  float* const read = c + FusedSsmShared::Out(kRows);
  const auto place_of = [&](int i) {  // of its convolution
    if (i < own) return x + i;
    i -= own;
    return i < s.state_dim ? b + i : c + i - s.state_dim;
  };
  for (int i = s.state_dim + ThreadId(); i < kRows; i += ThreadCount()) b[i] = c[i] = 0.0f;
  const float a = ssm.a[head], bias = ssm.dt_bias[head], skip = ssm.d[head];
  for (int t = 0; t < lane.rows; ++t) {
    const int row = lane.first_row + t, of_lane = ThreadId() % 32;
    for (int i = ThreadId(); i < channels; i += ThreadCount()) {
      const int channel = channel_of(i);
      const float y = Convolved(conv, lane, t, channel);
      *place_of(i) = y;
      if (keeps(i)) RowAt(conv.out, row)[channel] = y;
    }
    const float step = Softplus(RowAt(ssm.dt, row)[head] + bias), decay = Exp(a * step);
    const float gate = gates && warp == 0 && of_lane < own ? RowAt(args.gate.gate, row)[head * s.head_dim + first + of_lane] : 0.0f;
    SyncBlock();
    const float in = state.real ? x[column - first] : 0.0f;
    state.Update(decay, b, step * in);
    const float y = fmaf(skip, in, state.Dot(c));
    float* const to = gates ? read : RowAt(ssm.out, row) + head * s.head_dim + first;
    if (state.real && state.part == 0) to[column - first] = y;
    SyncBlock();
    if (!gates || warp != 0) continue;
    float gated = 0.0f;
    if (of_lane < own) {
      gated = Silu(gate) * read[of_lane];
      RowAt(args.gate.out, row)[head * s.head_dim + first + of_lane] = gated;
    }
    if (args.gate.quant.quants)
      QuantiseBlock(args.gate.quant, row, (head * s.head_dim + first) / kBlock, gated);  // heads are whole blocks then
  }
  state.Write(reinterpret_cast<float*>(lane.write + ssm.state.offset) + at);
  for (int i = ThreadId(); i < channels; i += ThreadCount()) {
    if (keeps(i)) WriteTail(conv, lane, channel_of(i));
  }
}

// ---- Mamba-1 ----

// A block of threads has 32 channels of a lane. While its first warp gates what a token made, the others are at the next.
REPRISE_KERNEL_OF(32 * kScanThreads, 4, FusedScanKernel, FusedScanArgs) {
  BeginKernel();
  if (BlockY() >= args.scan.step.header->lanes) return;
  const LaneEntry lane = args.scan.step.lane[BlockY()];
  const int in_block = ThreadId() / kScanThreads, of_lane = ThreadId() % 32, first = BlockX() * 32;
  float* const made = reinterpret_cast<float*>(SharedMemory());  // [2][32]
  ScanChannel(args.scan, lane, first + in_block, [&](int t, float y) {
    float* const of_token = made + t % 2 * 32;
    if (ThreadId() % kScanThreads == 0) of_token[in_block] = y;
    SyncBlock();
    if (ThreadId() >= 32) return;
    const int row = lane.first_row + t, channel = first + of_lane;
    const float gated = Silu(RowAt(args.gate.gate, row)[channel]) * of_token[of_lane];
    RowAt(args.gate.out, row)[channel] = gated;
    if (args.gate.quant.quants) QuantiseBlock(args.gate.quant, row, BlockX(), gated);
  });
}

// ---- Short convolutions between two products ----

// A thread has a channel of a lane, and reads of its rows what it wrote itself.
REPRISE_KERNEL(FusedShortConvKernel, FusedShortConvArgs) {
  BeginKernel();
  const ConvArgs& conv = args.conv;
  const int channel = BlockX() * kRowThreads + ThreadId();
  if (BlockY() >= conv.step.header->lanes || channel / 32 * 32 >= conv.in.width) return;
  const LaneEntry lane = conv.step.lane[BlockY()];
  const bool real = channel < conv.in.width;
  for (int row = lane.first_row; real && row < lane.first_row + lane.rows; ++row) {
    RowAt(args.before.out, row)[channel] = RowAt(args.before.a, row)[channel] * RowAt(args.before.b, row)[channel];
  }
  for (int t = 0; t < lane.rows; ++t) {
    const int row = lane.first_row + t;
    float y = 0.0f;
    if (real) {
      y = RowAt(args.after.a, row)[channel] * Convolved(conv, lane, t, channel);
      RowAt(args.after.out, row)[channel] = y;
    }
    if (args.after.quant.quants) QuantiseBlock(args.after.quant, row, channel / kBlock, y);
  }
  if (real) WriteTail(conv, lane, channel);
}

}  // namespace reprise::cuda
