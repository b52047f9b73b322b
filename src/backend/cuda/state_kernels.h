// Kernels that read or write the state of lanes: appends, the causal convolution, the delta rule, Mamba-2's recurrence, and a
// lane's last row.
//
// Promise 3: a row of the convolution is one sum over its taps, whatever step its inputs came in. The recurrences run token by token in one
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
    float sum = args.bias ? args.bias[channel] : 0.0f;
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

// The recurrences over matrices: a state [heads][rows][columns], rewritten token by token as S = decay S + k d^T and read as S^T q. A warp has 8
// columns of one head of one lane; 4 neighbouring threads share a column and keep its state in registers through all tokens of the step. Thread
// p of the four has the rows 16 m + 4 p + j: they are read as 16 bytes, and the four are side by side. Sums over the rows go j by j over m, then
// over j, then over p, always in that order.
REPRISE_HD constexpr int StateIndex(int part, int m, int j) { return 16 * m + 4 * part + j; }

template <int kGroups>
struct StateColumn {
  static constexpr int kRows = kGroups * 16;  // those past the state's own are zero
  int rows, stride, part;
  bool real;  // a column past the last is computed as zeros, and not written
  float s[4 * kGroups];

  REPRISE_DEVICE StateColumn(const float* from, int rows_in, int columns, int column)
      : rows(rows_in), stride(columns), part(ThreadId() % 4), real(column < columns) {
    REPRISE_UNROLLED for (int m = 0; m < kGroups; ++m) {
      REPRISE_UNROLLED for (int j = 0; j < 4; ++j) {
        const int i = StateIndex(part, m, j);
        s[m * 4 + j] = real && i < rows ? from[static_cast<int64_t>(i) * stride] : 0.0f;
      }
    }
  }
  REPRISE_DEVICE void Write(float* to) const {
    REPRISE_UNROLLED for (int m = 0; m < kGroups; ++m) {
      REPRISE_UNROLLED for (int j = 0; j < 4; ++j) {
        const int i = StateIndex(part, m, j);
        if (real && i < rows) to[static_cast<int64_t>(i) * stride] = s[m * 4 + j];
      }
    }
  }
  // S^T x over a thread's part of the column, then over the four threads of the column.
  REPRISE_DEVICE float Dot(const float* x) const {
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    REPRISE_UNROLLED for (int m = 0; m < kGroups; ++m) {
      const Words4 w = Load16(x + StateIndex(part, m, 0));
      REPRISE_UNROLLED for (int j = 0; j < 4; ++j) sum[j] = fmaf(FloatOf(w.w[j]), s[m * 4 + j], sum[j]);
    }
    float all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    all = all + ShuffleXor(all, 1);
    return all + ShuffleXor(all, 2);
  }
  REPRISE_DEVICE void Update(float decay, const float* k, float delta) {
    REPRISE_UNROLLED for (int m = 0; m < kGroups; ++m) {
      const Words4 w = Load16(k + StateIndex(part, m, 0));
      REPRISE_UNROLLED for (int j = 0; j < 4; ++j) s[m * 4 + j] = fmaf(FloatOf(w.w[j]), delta, decay * s[m * 4 + j]);
    }
  }
};

// The two vectors that a token brings to all columns of a head, on their way from memory through a warp's registers to its shared memory, which
// holds them for two tokens: this one, and the next.
template <int kGroups>
struct TokenVectors {
  static constexpr int kRows = kGroups * 16, kOwn = (kRows + 31) / 32;
  float q[kOwn] = {}, k[kOwn] = {};

  REPRISE_DEVICE void Load(const float* q_from, const float* k_from, int rows) {
    REPRISE_UNROLLED for (int n = 0; n < kOwn; ++n) {
      const int i = n * 32 + ThreadId();
      q[n] = i < rows ? q_from[i] : 0.0f;
      k[n] = i < rows ? k_from[i] : 0.0f;
    }
  }
  REPRISE_DEVICE static float* Shared(int t) { return reinterpret_cast<float*>(SharedMemory()) + (t % 2) * 2 * kRows; }  // q, then k
  REPRISE_DEVICE void Share(int t) const {
    float* const to = Shared(t);
    REPRISE_UNROLLED for (int n = 0; n < kOwn; ++n) {
      const int i = n * 32 + ThreadId();
      if (i < kRows) {
        to[i] = q[n];
        to[kRows + i] = k[n];
      }
    }
  }
};

template <int kGroups>
REPRISE_KERNEL_OF(32, 8, DeltaNetKernel, DeltaNetArgs) {
  BeginKernel();
  if (BlockZ() >= args.step.header->lanes) return;
  const LaneEntry& lane = args.step.lane[BlockZ()];
  const Ops::DeltaNetShape& s = args.shape;
  const int head = BlockY(), column = BlockX() * kStateColumns + ThreadId() / 4, keys = s.key_heads * s.key_dim;
  const int64_t at = static_cast<int64_t>(head) * s.key_dim * s.value_dim + column;
  StateColumn<kGroups> state(reinterpret_cast<const float*>(lane.read + args.state.offset) + at, s.key_dim, s.value_dim, column);

  // What a token brings is loaded while the one before it is computed.
  TokenVectors<kGroups> next;
  float next_v = 0.0f, next_decay = 0.0f, next_strength = 0.0f;
  const auto load = [&](int t) {
    const int row = lane.first_row + t;
    const float* q = args.unit_qk + static_cast<int64_t>(row) * 2 * keys + head % s.key_heads * s.key_dim;
    next.Load(q, q + keys, s.key_dim);
    next_v = state.real ? RowAt(args.qkv, row)[2 * keys + head * s.value_dim + column] : 0.0f;
    const float* gates = args.gates + static_cast<int64_t>(row) * 2 * s.value_heads;
    next_decay = gates[head];
    next_strength = gates[s.value_heads + head];
  };
  if (lane.rows > 0) {
    load(0);
    next.Share(0);
  }
  SyncWarp();
  for (int t = 0; t < lane.rows; ++t) {
    const float* q = next.Shared(t);
    const float* k = q + state.kRows;
    const float v = next_v, decay = next_decay, strength = next_strength;
    if (t + 1 < lane.rows) load(t + 1);
    const float seen = state.Dot(k);
    state.Update(decay, k, strength * (v - decay * seen));
    const float out = state.Dot(q);
    if (state.real && state.part == 0) RowAt(args.out, lane.first_row + t)[head * s.value_dim + column] = out;
    if (t + 1 < lane.rows) next.Share(t + 1);  // where the token before this one was
    SyncWarp();
  }
  state.Write(reinterpret_cast<float*>(lane.write + args.state.offset) + at);
}

// B writes the state and C reads it. Each thread makes its head's two gates by itself, which spares a launch.
template <int kGroups>
REPRISE_KERNEL_OF(32, 8, SsmKernel, SsmArgs) {
  BeginKernel();
  if (BlockZ() >= args.step.header->lanes) return;
  const LaneEntry& lane = args.step.lane[BlockZ()];
  const Ops::SsmShape& s = args.shape;
  const int head = BlockY(), column = BlockX() * kStateColumns + ThreadId() / 4, inner = s.heads * s.head_dim;
  const int group = head / (s.heads / s.groups);
  const int64_t at = static_cast<int64_t>(head) * s.state_dim * s.head_dim + column;
  StateColumn<kGroups> state(reinterpret_cast<const float*>(lane.read + args.state.offset) + at, s.state_dim, s.head_dim, column);

  const float a = args.a[head], bias = args.dt_bias[head], skip = args.d[head];
  TokenVectors<kGroups> next;
  float next_x = 0.0f, next_dt = 0.0f;
  const auto load = [&](int t) {
    const int row = lane.first_row + t;
    const float* xbc = RowAt(args.xbc, row);
    const float* b = xbc + inner + group * s.state_dim;
    next.Load(b + s.groups * s.state_dim, b, s.state_dim);
    next_x = state.real ? xbc[head * s.head_dim + column] : 0.0f;
    next_dt = RowAt(args.dt, row)[head];
  };
  if (lane.rows > 0) {
    load(0);
    next.Share(0);
  }
  SyncWarp();
  for (int t = 0; t < lane.rows; ++t) {
    const float* c = next.Shared(t);
    const float* b = c + state.kRows;
    const float x = next_x, step = Softplus(next_dt + bias);
    if (t + 1 < lane.rows) load(t + 1);
    state.Update(Exp(a * step), b, step * x);
    const float out = fmaf(skip, x, state.Dot(c));
    if (state.real && state.part == 0) RowAt(args.out, lane.first_row + t)[head * s.head_dim + column] = out;
    if (t + 1 < lane.rows) next.Share(t + 1);
    SyncWarp();
  }
  state.Write(reinterpret_cast<float*>(lane.write + args.state.offset) + at);
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
REPRISE_KERNEL(LastRowsKernel, LastArgs) {
  BeginKernel();
  const int index = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (index >= args.step.header->lanes || i >= args.out.width) return;
  const LaneEntry& lane = args.step.lane[index];
  if (lane.rows > 0) RowAt(args.out, index)[i] = RowAt(args.in, lane.first_row + lane.rows - 1)[i];
}

}  // namespace reprise::cuda
