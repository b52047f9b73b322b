// The selective scan of Mamba-1: a few neighbouring threads share a channel, and keep its states in registers through all tokens of the step.
//
// Promise 3: tokens come one by one, and a sum over the states goes thread by thread in one order, whatever step a token came in.
#pragma once

#include "backend/cuda/row_kernels.h"

namespace reprise::cuda {

// What a token brings to a thread: its channel's, and the values of its own states; on its way while the token before is computed.
struct ScanToken {
  float x, dt, b[kScanOwn], c[kScanOwn];
};

// A channel's tokens, by the threads that share it. Thread `part` of a channel has the states kScanThreads n + part. Each of them
// calls leave(t, y) with what token t makes.
template <class Leave>
REPRISE_DEVICE void ScanChannel(const ScanArgs& args, const LaneEntry& lane, int channel, const Leave& leave) {
  const int states = args.b.width, part = ThreadId() % kScanThreads, in_piece = channel % Ops::kScanChannels;
  const int64_t piece = static_cast<int64_t>(channel - in_piece) * states + in_piece;
  const float* before = reinterpret_cast<const float*>(lane.read + args.state.offset) + piece;
  float* after = reinterpret_cast<float*>(lane.write + args.state.offset) + piece;
  const auto state_of = [&](int n) { return kScanThreads * n + part; };
  const auto own = [&](const float* from, int n) { return state_of(n) < states ? from[state_of(n) * Ops::kScanChannels] : 0.0f; };

  float s[kScanOwn], a[kScanOwn];
  REPRISE_UNROLLED for (int n = 0; n < kScanOwn; ++n) {
    s[n] = own(before, n);
    a[n] = own(args.a + piece, n);
  }
  const float bias = args.dt_bias[channel], skip = args.d[channel];
  ScanToken next{};
  const auto load = [&](int t) {
    const int row = lane.first_row + t;
    next.x = RowAt(args.x, row)[channel];
    next.dt = RowAt(args.dt, row)[channel];
    REPRISE_UNROLLED for (int n = 0; n < kScanOwn; ++n) {
      const bool real = state_of(n) < states;
      next.b[n] = real ? RowAt(args.b, row)[state_of(n)] : 0.0f;
      next.c[n] = real ? RowAt(args.c, row)[state_of(n)] : 0.0f;
    }
  };
  if (lane.rows > 0) load(0);
  for (int t = 0; t < lane.rows; ++t) {
    const ScanToken token = next;
    if (t + 1 < lane.rows) load(t + 1);
    const float step = Softplus(token.dt + bias), added = step * token.x;
    float sum = 0.0f;
    REPRISE_UNROLLED for (int n = 0; n < kScanOwn; ++n) {
      s[n] = fmaf(token.b[n], added, Exp(a[n] * step) * s[n]);
      sum = fmaf(token.c[n], s[n], sum);
    }
    REPRISE_UNROLLED for (int mask = 1; mask < kScanThreads; mask *= 2) sum = sum + ShuffleXor(sum, mask);
    leave(t, fmaf(skip, token.x, sum));
  }
  REPRISE_UNROLLED for (int n = 0; n < kScanOwn; ++n) {
    if (state_of(n) < states) after[state_of(n) * Ops::kScanChannels] = s[n];
  }
}

// A block of threads has the channels of one piece of the state.
REPRISE_KERNEL_OF(Ops::kScanChannels* kScanThreads, 8, ScanKernel, ScanArgs) {
  BeginKernel();
  if (BlockY() >= args.step.header->lanes) return;
  const LaneEntry lane = args.step.lane[BlockY()];
  const int channel = BlockX() * Ops::kScanChannels + ThreadId() / kScanThreads;
  ScanChannel(args, lane, channel, [&](int t, float y) {
    if (ThreadId() % kScanThreads == 0) RowAt(args.out, lane.first_row + t)[channel] = y;
  });
}

}  // namespace reprise::cuda
