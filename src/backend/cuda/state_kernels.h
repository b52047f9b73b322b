// Kernels that read or write the state of lanes: appends, the causal convolution, the delta rule, Mamba-2's recurrence, and a
// lane's last row.
//
// Entries of the binding table are copied, not referred to: of what lies in memory a compiler must suppose that any store changes it.
//
// Promise 3: a row of the convolution is one sum over its taps, whatever step its inputs came in. The recurrences run token by token in one
// order; how many tokens a step brings only says how often the loop turns before the state goes to memory.
#pragma once

#include "backend/cuda/row_kernels.h"

namespace reprise::cuda {

// Element `i` of in[which], into its place in the row of its position. Of kQ8_0 the 32 of a block are a warp's.
REPRISE_DEVICE void AppendElement(const AppendArgs& args, int which, int row, int i) {
  const RowEntry entry = args.step.row[row];
  const StateRef& state = args.state[which];
  std::byte* to = StateRow(args.step, entry.lane, state, entry.position);
  const float x = RowAt(args.in[which], row)[i];
  if (state.type == ElementType::kF32) {
    reinterpret_cast<float*>(to)[i] = x;
  } else if (state.type == ElementType::kQ8_0) {
    const KeptScale kept = KeptScaleOfTop(WarpMax(BitsOf(x) & 0x7fffffffu));
    reinterpret_cast<int8_t*>(to)[i] = KeptQuant(x, kept.inverse);
    if (i % kQ8Values == 0) reinterpret_cast<uint16_t*>(to + args.in[which].width)[i / kQ8Values] = kept.scale;
  } else {
    // Devices and hosts make different halves of a NaN, and what is a lane's state is compared by its bytes.
    constexpr uint16_t kNaN = 0x7e00;
    reinterpret_cast<uint16_t*>(to)[i] = x != x ? kNaN : FloatToHalfBits(x);
  }
}
REPRISE_KERNEL(AppendKernel, AppendArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row < args.step.header->rows && i < args.in[BlockZ()].width) AppendElement(args, BlockZ(), row, i);
}

// Input `t` of a lane's rows; before them, the tail that the step before left.
REPRISE_DEVICE float ConvInput(const ConvArgs& args, const LaneEntry& lane, int t, int channel) {
  const int width = args.in.width, history = args.kernel - 1;
  if (t >= 0) return RowAt(args.in, lane.first_row + t)[channel];
  return reinterpret_cast<const float*>(lane.read + args.tail.offset)[static_cast<int64_t>(t + history) * width + channel];
}
REPRISE_DEVICE float Convolved(const ConvArgs& args, const LaneEntry& lane, int t, int channel) {
  float sum = args.bias ? args.bias[channel] : 0.0f;
  for (int k = 0; k < args.kernel; ++k) {
    sum =
        fmaf(ConvInput(args, lane, t - (args.kernel - 1) + k, channel), args.weight[static_cast<int64_t>(channel) * args.kernel + k], sum);
  }
  return args.silu ? Silu(sum) : sum;
}
// The channel's inputs that the next step begins with.
REPRISE_DEVICE void WriteTail(const ConvArgs& args, const LaneEntry& lane, int channel) {
  const int history = args.kernel - 1;
  float* tail = reinterpret_cast<float*>(lane.write + args.tail.offset);
  constexpr int kAtOnce = 4;  // the inputs come from memory together
  for (int first = 0; first < history; first += kAtOnce) {
    float x[kAtOnce] = {};
    REPRISE_UNROLLED for (int n = 0; n < kAtOnce; ++n) {
      if (first + n < history) x[n] = ConvInput(args, lane, lane.rows - history + first + n, channel);
    }
    REPRISE_UNROLLED for (int n = 0; n < kAtOnce; ++n) {
      if (first + n < history) tail[static_cast<int64_t>(first + n) * args.in.width + channel] = x[n];
    }
  }
}
// The first layer of the grid has the rows, the second the lanes, whose new tails it writes.
REPRISE_KERNEL(ConvKernel, ConvArgs) {
  BeginKernel();
  const int channel = BlockX() * kRowThreads + ThreadId();
  if (channel >= args.in.width) return;
  if (BlockZ() == 0) {
    const int row = BlockY();
    if (row >= args.step.header->rows) return;
    const LaneEntry lane = args.step.lane[args.step.row[row].lane];
    const int t = row - lane.first_row;
    if (t >= lane.rows) return;  // a step that was made shorter after its rows were bound
    RowAt(args.out, row)[channel] = Convolved(args, lane, t, channel);
    return;
  }
  if (BlockY() < args.step.header->lanes) WriteTail(args, args.step.lane[BlockY()], channel);
}

// ---- The recurrences over matrices ----
//
// A state [heads][rows][columns], rewritten token by token as S = decay S + k d^T and read as S^T q. A few neighbouring threads share a column and keep
// it in registers through all tokens of the step. Its rows are of eight parts: part p has the rows 32 m + 4 p + j, which are read as 16 bytes, parts
// side by side. A sum over the rows goes j by j over m, then over j, then over the parts in pairs, pairs of pairs and halves: the same however many
// threads, eight or four, have the parts.

inline constexpr int kStateParts = 8;
REPRISE_HD constexpr int StateIndex(int part, int m, int j) { return 4 * kStateParts * m + 4 * part + j; }

// kRows: of the state, or more; those past its own are zero.
template <int kRows, int kThreads>
struct StateColumn {
  static constexpr int kParts = kStateParts / kThreads, kRuns = kRows / (4 * kStateParts), kOwn = 4 * kParts * kRuns;
  int rows, stride, part;  // part: the first of the thread's
  bool real;               // a column past the last is computed, and not written
  float s[kOwn];           // [part][run][4]

  // `from`, `to`: the first row of the column.
  REPRISE_DEVICE StateColumn(const float* from, int rows_in, int columns, int column)
      : rows(rows_in), stride(columns), part(ThreadId() % kThreads * kParts), real(column < columns) {
    REPRISE_UNROLLED for (int n = 0; n < kOwn; ++n) s[n] = 0.0f;
    EachOwnRow([&](int n, int at) { s[n] = from[at]; });
  }
  REPRISE_DEVICE void Write(float* to) const {
    EachOwnRow([&](int n, int at) { to[at] = s[n]; });
  }
  // S^T x, in every thread of the column.
  REPRISE_DEVICE float Dot(const float* x) const {
    float of_part[kParts];
    REPRISE_UNROLLED for (int p = 0; p < kParts; ++p) {
      float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      REPRISE_UNROLLED for (int m = 0; m < kRuns; ++m) {
        const Words4 w = Load16(x + StateIndex(part + p, m, 0));
        REPRISE_UNROLLED for (int j = 0; j < 4; ++j) sum[j] = fmaf(FloatOf(w.w[j]), s[(p * kRuns + m) * 4 + j], sum[j]);
      }
      of_part[p] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
    float all = of_part[0];
    if constexpr (kParts == 2) all = all + of_part[1];
    REPRISE_UNROLLED for (int mask = 1; mask < kThreads; mask *= 2) all = all + ShuffleXor(all, mask);
    return all;
  }
  REPRISE_DEVICE void Update(float decay, const float* k, float delta) {
    REPRISE_UNROLLED for (int p = 0; p < kParts; ++p) {
      REPRISE_UNROLLED for (int m = 0; m < kRuns; ++m) {
        const Words4 w = Load16(k + StateIndex(part + p, m, 0));
        REPRISE_UNROLLED for (int j = 0; j < 4; ++j) {
          float& own = s[(p * kRuns + m) * 4 + j];
          own = fmaf(FloatOf(w.w[j]), delta, decay * own);
        }
      }
    }
  }

 private:
  // take(n, at): that s[n] lies `at` floats after the column's first row.
  template <class Take>
  REPRISE_DEVICE void EachOwnRow(const Take& take) const {
    static_assert(kParts <= 2);
    if (!real) return;
    const int first = StateIndex(part, 0, 0) * stride;
    const auto distance = [](int n) { return StateIndex(n / 4 / kRuns, n / 4 % kRuns, n % 4); };
    if (rows == kRows) {  // the usual case: a row more costs an addition and no question
      REPRISE_UNROLLED for (int n = 0; n < kOwn; ++n) take(n, first + distance(n) * stride);
    } else {
      REPRISE_UNROLLED for (int n = 0; n < kOwn; ++n) {
        if (StateIndex(part, 0, 0) + distance(n) < rows) take(n, first + distance(n) * stride);
      }
    }
  }
};

// ---- The delta rule ----

// q and k of a head at unit length, q divided by the root of the width as well, and their product; by a warp. `padded` floats each, of which those past
// `width` are zero.
REPRISE_DEVICE float DeltaUnits(const float* q_in, const float* k_in, float* q, float* k, int width, int padded) {
  const float q_factor = 1.0f / sqrtf(HeadSquares(q_in, width) + 1e-6f) * (1.0f / sqrtf(static_cast<float>(width)));
  const float k_factor = 1.0f / sqrtf(HeadSquares(k_in, width) + 1e-6f);
  float product = 0.0f;
  for (int i = ThreadId() % 32; i < padded; i += 32) {
    q[i] = i < width ? q_in[i] * q_factor : 0.0f;
    k[i] = i < width ? k_in[i] * k_factor : 0.0f;
    product = fmaf(q[i], k[i], product);
  }
  return WarpSum(product);
}
REPRISE_DEVICE DeltaGates GatesOf(const DeltaNetArgs& args, int row, int head, float kq) {
  return {Exp(args.a[head] * Softplus(RowAt(args.alpha, row)[head] + args.dt[head])), Sigmoid(RowAt(args.beta, row)[head]), kq, 0.0f};
}
// A token: delta = strength (v - decay S^T k), S = decay S + k delta^T, and S^T q after it, which is decay S^T q + (k q) delta before it: so both of a
// token's sums over the rows are on their way at once.
template <class Column>
REPRISE_DEVICE float DeltaStep(Column& state, const float* q, const float* k, float v, const DeltaGates& gates) {
  const float seen = state.Dot(k), had = state.Dot(q);
  const float delta = gates.strength * (v - gates.decay * seen);
  state.Update(gates.decay, k, delta);
  return fmaf(gates.kq, delta, gates.decay * had);
}

// A warp has a key head of a row, and the gates of the value heads that share it.
REPRISE_KERNEL(DeltaInputsKernel, DeltaNetArgs) {
  BeginKernel();
  const int row = BlockY(), key_head = BlockX() * (kHeadThreads / 32) + ThreadId() / 32;
  const Ops::DeltaNetShape& s = args.shape;
  if (row >= args.step.header->rows || key_head >= s.key_heads) return;
  const float* q_in = RowAt(args.qkv, row) + static_cast<int64_t>(key_head) * s.key_dim;
  const int padded = StateRows(s.key_dim);
  float* q = args.unit_qk + DeltaUnitAt(s, padded, row, key_head);
  const float kq = DeltaUnits(q_in, q_in + s.key_heads * s.key_dim, q, q + padded, s.key_dim, padded);
  for (int i = ThreadId() % 32;; i += 32) {
    const int head = s.ValueHead(key_head, i);
    if (head >= s.value_heads || s.KeyHead(head) != key_head) break;
    args.gates[static_cast<int64_t>(row) * s.value_heads + head] = GatesOf(args, row, head, kq);
  }
}

// A block of threads has 16 columns of a head of a lane. What tokens bring, eight of them at a time, is on its way to shared memory while the eight
// before are computed.
template <int kRows>
REPRISE_KERNEL_OF(kDeltaColumns* kStateParts, 4, DeltaNetKernel, DeltaNetArgs) {
  using Token = DeltaToken<kRows>;
  const Ops::DeltaNetShape& s = args.shape;
  const int head = BlockY(), key_head = s.KeyHead(head), columns = BlockX() * kDeltaColumns;
  const int column = columns + ThreadId() / kStateParts;
  const LaneEntry lane = args.step.lane[BlockZ()];
  const bool live = BlockZ() < args.step.header->lanes;
  const int64_t at = static_cast<int64_t>(head) * s.key_dim * s.value_dim + column;
  StateColumn<kRows, kStateParts> state(reinterpret_cast<const float*>(lane.read + args.state.offset) + at, s.key_dim, s.value_dim,
                                        live ? column : s.value_dim);
  BeginKernel();
  if (!live) return;

  auto* const tokens = reinterpret_cast<Token*>(SharedMemory());  // [2][kDeltaTokens]
  const auto fetch = [&](int first) {
    Token* const to = tokens + first / kDeltaTokens % 2 * kDeltaTokens;
    for (int i = ThreadId(); i < kDeltaTokens * Token::kPieces; i += kDeltaColumns * kStateParts) {
      const int t = i / Token::kPieces, piece = i % Token::kPieces;
      if (first + t >= lane.rows) break;
      const int row = lane.first_row + first + t;
      const void* from = piece < Token::kPieces - 1
                             ? static_cast<const void*>(args.unit_qk + DeltaUnitAt(s, kRows, row, key_head) + piece * 4)
                             : static_cast<const void*>(args.gates + static_cast<int64_t>(row) * s.value_heads + head);
      CopyAsync16(reinterpret_cast<std::byte*>(to + t) + piece * 16, static_cast<const std::byte*>(from));
    }
    static_assert(kDeltaTokens * kDeltaColumns == kDeltaColumns * kStateParts, "a thread brings a value");
    const int t = ThreadId() / kDeltaColumns, own = ThreadId() % kDeltaColumns;
    if (first + t < lane.rows && columns + own < s.value_dim) {
      const float* v = RowAt(args.qkv, lane.first_row + first + t) + 2 * s.key_heads * s.key_dim + head * s.value_dim + columns;
      CopyAsync4(reinterpret_cast<std::byte*>(to[t].v + own), reinterpret_cast<const std::byte*>(v + own));
    }
    CommitCopies();
  };
  if (lane.rows > 0) fetch(0);
  float* out = RowAt(args.out, lane.first_row) + head * s.value_dim + column;
  for (int first = 0; first < lane.rows; first += kDeltaTokens) {
    WaitCopies<0>();
    SyncBlock();  // the eight are there for all, and everybody has left the place of the next
    fetch(first + kDeltaTokens);
    const Token* token = tokens + first / kDeltaTokens % 2 * kDeltaTokens;
    const int count = lane.rows - first < kDeltaTokens ? lane.rows - first : kDeltaTokens;
    REPRISE_ROLLED for (int t = 0; t < count; ++t, ++token, out += args.out.stride) {
      const float y = DeltaStep(state, token->q, token->k, token->v[ThreadId() / kStateParts], token->gates);
      if (state.real && state.part == 0) *out = y;
    }
  }
  WaitCopies<0>();
  state.Write(reinterpret_cast<float*>(lane.write + args.state.offset) + at);
}

// ---- Mamba-2 ----

inline constexpr int kSsmThreads = 4;  // of a column

// The two vectors that a token brings to all columns of a head, on their way from memory through a warp's registers to its shared memory, which
// holds them for two tokens: this one, and the next.
template <int kRows>
struct TokenVectors {
  static constexpr int kOwn = (kRows + 31) / 32;
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
      to[i] = q[n];
      to[kRows + i] = k[n];
    }
  }
};

// B writes the state and C reads it. Each thread makes its head's two gates by itself, which spares a launch.
template <int kRows>
REPRISE_KERNEL_OF(32, 8, SsmKernel, SsmArgs) {
  BeginKernel();
  if (BlockZ() >= args.step.header->lanes) return;
  const LaneEntry lane = args.step.lane[BlockZ()];
  const Ops::SsmShape& s = args.shape;
  const int head = BlockY(), column = BlockX() * kSsmColumns + ThreadId() / kSsmThreads, inner = s.heads * s.head_dim;
  const int group = head / (s.heads / s.groups);
  const int64_t at = static_cast<int64_t>(head) * s.state_dim * s.head_dim + column;
  StateColumn<kRows, kSsmThreads> state(reinterpret_cast<const float*>(lane.read + args.state.offset) + at, s.state_dim, s.head_dim,
                                        column);

  const float a = args.a[head], bias = args.dt_bias[head], skip = args.d[head];
  TokenVectors<kRows> next;
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
    const float* b = c + kRows;
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
  const LaneEntry lane = args.step.lane[args.step.row[row].lane];
  const float* from = row == lane.first_row ? reinterpret_cast<const float*>(lane.read + args.last.offset) : RowAt(args.in, row - 1);
  RowAt(args.out, row)[i] = from[i];
}
REPRISE_KERNEL(SaveLastKernel, LastArgs) {
  BeginKernel();
  const int index = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (index >= args.step.header->lanes || i >= args.in.width) return;
  const LaneEntry lane = args.step.lane[index];
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
  const LaneEntry lane = args.step.lane[index];
  if (lane.rows > 0) RowAt(args.out, index)[i] = RowAt(args.in, lane.first_row + lane.rows - 1)[i];
}
REPRISE_KERNEL(LogKernel, LogArgs) {
  BeginKernel();
  const LogPart& part = args.parts[BlockZ()];
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= args.step.header->rows || i >= part.rows.width) return;
  const RowEntry entry = args.step.row[row];
  const LaneEntry lane = args.step.lane[entry.lane];
  if (lane.log == nullptr) return;
  float* kept = reinterpret_cast<float*>(lane.log + entry.position % lane.log_capacity * lane.log_row_bytes) + part.column;
  float* live = RowAt(part.rows, row);
  if (args.recall) {
    live[i] = kept[i];
  } else {
    kept[i] = live[i];
  }
}

}  // namespace reprise::cuda
