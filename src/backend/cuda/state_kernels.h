// Kernels that read or write the state of lanes: appends, the causal convolution, the delta rule, and a lane's last row.
//
// Promise 3: a row of the convolution is one sum over its taps, whatever step its inputs came in. The delta rule runs token by token in one
// order; how many tokens a step brings only says how often the loop turns before the state goes to memory.
#pragma once

#include "backend/cuda/row_kernels.h"

namespace reprise::cuda {

REPRISE_KERNEL(AppendKernel, AppendArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  const Rows& in = args.in[BlockZ()];
  const StateRef& state = args.state[BlockZ()];
  if (row >= args.step.header->rows || i >= in.width) return;
  const RowEntry& entry = args.step.row[row];
  std::byte* to = StateRow(args.step, entry.lane, state, entry.position);
  const float x = RowAt(in, row)[i];
  if (state.type == ElementType::kF32) {
    reinterpret_cast<float*>(to)[i] = x;
  } else {
    reinterpret_cast<uint16_t*>(to)[i] = FloatToHalfBits(x);
  }
}

// Input `t` of a lane's rows; before them, the tail that the step before left.
REPRISE_DEVICE float ConvInput(const ConvArgs& args, const LaneEntry& lane, int t, int channel) {
  const int width = args.in.width, history = args.kernel - 1;
  if (t >= 0) return RowAt(args.in, lane.first_row + t)[channel];
  return reinterpret_cast<const float*>(lane.read + args.tail.offset)[static_cast<int64_t>(t + history) * width + channel];
}
// The first layer of the grid has the rows, the second the lanes, whose new tails it writes.
REPRISE_KERNEL(ConvKernel, ConvArgs) {
  BeginKernel();
  const int channel = BlockX() * kRowThreads + ThreadId();
  if (channel >= args.in.width) return;
  const int history = args.kernel - 1;
  if (BlockZ() == 0) {
    const int row = BlockY();
    if (row >= args.step.header->rows) return;
    const LaneEntry& lane = args.step.lane[args.step.row[row].lane];
    const int t = row - lane.first_row;
    if (t >= lane.rows) return;  // a step that was made shorter after its rows were bound
    float sum = 0.0f;
    for (int k = 0; k < args.kernel; ++k) {
      sum = fmaf(ConvInput(args, lane, t - history + k, channel), args.weight[static_cast<int64_t>(channel) * args.kernel + k], sum);
    }
    RowAt(args.out, row)[channel] = args.silu ? Silu(sum) : sum;
    return;
  }
  const int index = BlockY();
  if (index >= args.step.header->lanes) return;
  const LaneEntry& lane = args.step.lane[index];
  float* tail = reinterpret_cast<float*>(lane.write + args.tail.offset);
  for (int k = 0; k < history; ++k) {
    tail[static_cast<int64_t>(k) * args.in.width + channel] = ConvInput(args, lane, lane.rows - history + k, channel);
  }
}

// q and k normalised by head, a warp a head, and the two gates of each value head.
REPRISE_KERNEL(DeltaInputsKernel, DeltaNetArgs) {
  BeginKernel();
  const int row = BlockX();
  if (row >= args.step.header->rows) return;
  const Ops::DeltaNetShape& s = args.shape;
  const int warp = ThreadId() / 32, lane = ThreadId() % 32, keys = s.key_heads * s.key_dim;
  const float q_scale = 1.0f / sqrtf(static_cast<float>(s.key_dim));
  for (int head = warp; head < 2 * s.key_heads; head += kRowThreads / 32) {
    const float* in = RowAt(args.qkv, row) + static_cast<int64_t>(head) * s.key_dim;
    float* out = args.unit_qk + static_cast<int64_t>(row) * 2 * keys + static_cast<int64_t>(head) * s.key_dim;
    float factor = 1.0f / sqrtf(HeadSquares(in, s.key_dim) + 1e-6f);
    if (head < s.key_heads) factor = factor * q_scale;
    for (int i = lane; i < s.key_dim; i += 32) out[i] = in[i] * factor;
  }
  float* gates = args.gates + static_cast<int64_t>(row) * 2 * s.value_heads;
  for (int h = ThreadId(); h < s.value_heads; h += kRowThreads) {
    gates[h] = Exp(args.a[h] * Softplus(RowAt(args.alpha, row)[h] + args.dt[h]));
    gates[s.value_heads + h] = Sigmoid(RowAt(args.beta, row)[h]);
  }
}

// A warp has 8 columns of one head of one lane; 4 neighbouring threads share a column and keep its state in registers through all tokens of the
// step. Thread p of the four has the key indices 16 m + 4 p + j: they are read as 16 bytes, and the four are side by side. Sums over the key
// index go j by j over m, then over j, then over p, always in that order.
REPRISE_HD constexpr int DeltaIndex(int part, int m, int j) { return 16 * m + 4 * part + j; }

// S^T x over a thread's part of a column, then over the four threads of the column.
template <int kGroups>
REPRISE_DEVICE float DeltaDot(const float* state, const float* x, int part) {
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  REPRISE_UNROLLED for (int m = 0; m < kGroups; ++m) {
    const Words4 w = Load16(x + DeltaIndex(part, m, 0));
    REPRISE_UNROLLED for (int j = 0; j < 4; ++j) sum[j] = fmaf(FloatOf(w.w[j]), state[m * 4 + j], sum[j]);
  }
  float all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  all = all + ShuffleXor(all, 1);
  return all + ShuffleXor(all, 2);
}

template <int kGroups>
REPRISE_DEVICE void DeltaNetRun(const DeltaNetArgs& args) {
  const LaneEntry& lane = args.step.lane[BlockZ()];
  const Ops::DeltaNetShape& s = args.shape;
  const int head = BlockY(), thread = ThreadId(), part = thread % 4;
  const int column = BlockX() * kDeltaColumns + thread / 4;
  const bool real = column < s.value_dim;
  const int keys = s.key_heads * s.key_dim, padded = kGroups * 16;
  const int64_t at = static_cast<int64_t>(head) * s.key_dim * s.value_dim + column;
  const float* read = reinterpret_cast<const float*>(lane.read + args.state.offset) + at;
  float* write = reinterpret_cast<float*>(lane.write + args.state.offset) + at;
  float* shared = reinterpret_cast<float*>(SharedMemory());  // [2][q, k][padded]: this token's, and the next one's

  // What a token brings is loaded while the one before it is computed: q and k of the head (zero past its width), v and the two gates.
  constexpr int kOwn = (kGroups * 16 + 31) / 32;
  float next_q[kOwn] = {}, next_k[kOwn] = {}, next_v = 0.0f, next_decay = 0.0f, next_strength = 0.0f;
  const auto load = [&](int t) {
    const int row = lane.first_row + t;
    const float* q = args.unit_qk + static_cast<int64_t>(row) * 2 * keys + head % s.key_heads * s.key_dim;
    REPRISE_UNROLLED for (int n = 0; n < kOwn; ++n) {
      const int i = n * 32 + thread;
      next_q[n] = i < s.key_dim ? q[i] : 0.0f;
      next_k[n] = i < s.key_dim ? q[keys + i] : 0.0f;
    }
    next_v = real ? RowAt(args.qkv, row)[2 * keys + head * s.value_dim + column] : 0.0f;
    const float* gates = args.gates + static_cast<int64_t>(row) * 2 * s.value_heads;
    next_decay = gates[head];
    next_strength = gates[s.value_heads + head];
  };
  const auto share = [&](int t) {
    float* to = shared + (t % 2) * 2 * padded;
    REPRISE_UNROLLED for (int n = 0; n < kOwn; ++n) {
      const int i = n * 32 + thread;
      if (i < padded) {
        to[i] = next_q[n];
        to[padded + i] = next_k[n];
      }
    }
  };
  float state[4 * kGroups];
  REPRISE_UNROLLED for (int m = 0; m < kGroups; ++m) {
    REPRISE_UNROLLED for (int j = 0; j < 4; ++j) {
      const int i = DeltaIndex(part, m, j);
      state[m * 4 + j] = real && i < s.key_dim ? read[static_cast<int64_t>(i) * s.value_dim] : 0.0f;
    }
  }
  if (lane.rows > 0) {
    load(0);
    share(0);
  }
  SyncWarp();
  for (int t = 0; t < lane.rows; ++t) {
    const float* q = shared + (t % 2) * 2 * padded;
    const float* k = q + padded;
    const float v = next_v, decay = next_decay, strength = next_strength;
    if (t + 1 < lane.rows) load(t + 1);
    const float seen = DeltaDot<kGroups>(state, k, part);
    const float delta = strength * (v - decay * seen);
    REPRISE_UNROLLED for (int m = 0; m < kGroups; ++m) {
      const Words4 w = Load16(k + DeltaIndex(part, m, 0));
      REPRISE_UNROLLED for (int j = 0; j < 4; ++j) state[m * 4 + j] = fmaf(FloatOf(w.w[j]), delta, decay * state[m * 4 + j]);
    }
    const float out = DeltaDot<kGroups>(state, q, part);
    if (real && part == 0) RowAt(args.out, lane.first_row + t)[head * s.value_dim + column] = out;
    if (t + 1 < lane.rows) share(t + 1);  // into the buffer that the token before this one left
    SyncWarp();
  }
  REPRISE_UNROLLED for (int m = 0; m < kGroups; ++m) {
    REPRISE_UNROLLED for (int j = 0; j < 4; ++j) {
      const int i = DeltaIndex(part, m, j);
      if (real && i < s.key_dim) write[static_cast<int64_t>(i) * s.value_dim] = state[m * 4 + j];
    }
  }
}
template <int kGroups>
REPRISE_KERNEL_OF(32, 8, DeltaNetKernel, DeltaNetArgs) {
  BeginKernel();
  if (BlockZ() >= args.step.header->lanes) return;
  DeltaNetRun<kGroups>(args);
}

REPRISE_KERNEL(PreviousKernel, LastArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= args.step.header->rows || i >= args.out.width) return;
  const LaneEntry& lane = args.step.lane[args.step.row[row].lane];
  const float* from = row == lane.first_row ? reinterpret_cast<const float*>(lane.read + args.last.offset) : RowAt(args.in, row - 1);
  RowAt(args.out, row)[i] = from[i];
}
REPRISE_KERNEL(SaveLastKernel, LastArgs) {
  BeginKernel();
  const int index = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (index >= args.step.header->lanes || i >= args.in.width) return;
  const LaneEntry& lane = args.step.lane[index];
  const int row = args.in.domain == Domain::kLanes ? index : lane.first_row + lane.rows - 1;
  const float* from = lane.rows > 0 ? RowAt(args.in, row) : reinterpret_cast<const float*>(lane.read + args.last.offset);
  reinterpret_cast<float*>(lane.write + args.last.offset)[i] = from[i];
}
REPRISE_KERNEL(LoadLastKernel, LastArgs) {
  BeginKernel();
  const int index = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (index >= args.step.header->lanes || i >= args.out.width) return;
  RowAt(args.out, index)[i] = reinterpret_cast<const float*>(args.step.lane[index].read + args.last.offset)[i];
}

}  // namespace reprise::cuda
