// Kernels on rows alone: embedding, norms, products of two rows, quantisation, rotary positions, the position of the greatest value.
//
// Promise 3: a block (or a warp) of fixed size has one row, or one head of one row, and knows of no other. Sums go over the threads in one
// order that depends on nothing but the width.
#pragma once

#include "backend/cuda/language.h"

namespace reprise::cuda {

REPRISE_KERNEL(EmbedKernel, EmbedArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= args.step.header->rows || i >= args.out.width) return;
  RowAt(args.out, row)[i] = Unpack(args.weight, args.step.row[row].token, i) * args.scale;
}

// An element of a block of 32, quantised; the block's scale and sum are every lane's.
struct Quantised {
  int8_t quant;
  float scale, sum;
};
// Element ThreadId() % 32 of each of some blocks; every lane of the warp calls. What a block waits for the others wait for meanwhile.
template <int kCount>
REPRISE_DEVICE void QuantiseTogether(const float (&x)[kCount], Quantised (&to)[kCount]) {
  uint32_t top[kCount];
  int sum[kCount];
  REPRISE_UNROLLED for (int n = 0; n < kCount; ++n) top[n] = BitsOf(x[n]) & 0x7fffffffu;
  REPRISE_UNROLLED for (int mask = 16; mask > 0; mask /= 2) {
    REPRISE_UNROLLED for (int n = 0; n < kCount; ++n) top[n] = Greater(top[n], ShuffleXor(top[n], mask));
  }
  REPRISE_UNROLLED for (int n = 0; n < kCount; ++n) {
    const QuantScale scale = ScaleOfTop(top[n]);
    sum[n] = Quantise(x[n], scale.inverse);
    to[n] = {static_cast<int8_t>(sum[n]), scale.scale, 0.0f};
  }
  REPRISE_UNROLLED for (int mask = 16; mask > 0; mask /= 2) {
    REPRISE_UNROLLED for (int n = 0; n < kCount; ++n) sum[n] = sum[n] + ShuffleXor(sum[n], mask);
  }
  REPRISE_UNROLLED for (int n = 0; n < kCount; ++n) to[n].sum = to[n].scale * static_cast<float>(sum[n]);
}
REPRISE_DEVICE void StoreQuantised(const QuantRows& to, int row, int block, const Quantised& x) {
  const int lane = ThreadId() % 32;
  to.quants[static_cast<int64_t>(row) * to.stride + block * kBlock + lane] = x.quant;
  if (lane == 0) {
    const int64_t at = static_cast<int64_t>(row) * (to.stride / kBlock) + block;
    to.scales[at] = x.scale;
    to.sums[at] = x.sum;
  }
}
REPRISE_DEVICE void QuantiseBlock(const QuantRows& to, int row, int block, float x) {
  const float one[1] = {x};
  Quantised made[1];
  QuantiseTogether(one, made);
  StoreQuantised(to, row, block, made[0]);
}
// How many elements of a row a thread takes at a time: what it waits for, loads and sums over the warp, it waits for together.
inline constexpr int kElementsAtOnce = 4;

// By a block of kRowThreads.
REPRISE_DEVICE void NormGroup(const RmsNormArgs& args, int row, int group) {
  const int width = args.width, at = group * width;
  if (row >= RowCount(args.step, args.in.domain)) return;
  const float* in = RowAt(args.in, row) + at;
  float* out = RowAt(args.out, row) + at;
  const float* weight = args.weight + group * args.weight_step;
  float squares = 0.0f;
  for (int i = ThreadId(); i < width; i += kRowThreads) squares = fmaf(in[i], in[i], squares);
  squares = BlockSum(squares, reinterpret_cast<float*>(SharedMemory()));
  const float factor = 1.0f / sqrtf(squares / static_cast<float>(width) + args.eps);
  for (int base = ThreadId(); base / 32 * 32 < width; base += kElementsAtOnce * kRowThreads) {
    float y[kElementsAtOnce];
    REPRISE_UNROLLED for (int n = 0; n < kElementsAtOnce; ++n) {
      const int i = base + n * kRowThreads;
      y[n] = i < width ? in[i] * factor * weight[i] : 0.0f;
      if (args.accumulate && i < width) y[n] = (out[i] + y[n]) * args.scale;
    }
    REPRISE_UNROLLED for (int n = 0; n < kElementsAtOnce; ++n) {
      if (base + n * kRowThreads < width) out[base + n * kRowThreads] = y[n];
    }
    if (args.quant.quants == nullptr) continue;
    Quantised made[kElementsAtOnce];
    QuantiseTogether(y, made);
    REPRISE_UNROLLED for (int n = 0; n < kElementsAtOnce; ++n) {
      const int i = base + n * kRowThreads;
      if (i / 32 * 32 < width) StoreQuantised(args.quant, row, (at + i) / kBlock, made[n]);  // of several groups each is whole blocks
    }
  }
}
REPRISE_KERNEL(RmsNormKernel, RmsNormArgs) {
  BeginKernel();
  NormGroup(args, BlockX(), BlockY());
}
REPRISE_KERNEL(RmsNormsKernel, RmsNormsArgs) {
  BeginKernel();
  const RmsNormArgs& norm = args.norm[BlockZ()];
  if (BlockY() < norm.in.width / norm.width) NormGroup(norm, BlockX(), BlockY());
}

REPRISE_KERNEL(QuantiseKernel, QuantiseArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= RowCount(args.step, args.in.domain) || i / 32 * 32 >= args.in.width) return;
  QuantiseBlock(args.quant, row, i / kBlock, RowAt(args.in, row)[i]);  // a quantised width is whole blocks
}

// A thread makes one element of `args.out` from two rows; a warp quantises the block of them where that is asked for.
template <class Args, class Element>
REPRISE_DEVICE void MakeElements(const Args& args, const Element& element) {
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= RowCount(args.step, args.out.domain) || i / 32 * 32 >= args.out.width) return;
  float y = 0.0f;
  if (i < args.out.width) {
    y = element(row, i);
    RowAt(args.out, row)[i] = y;
  }
  if (args.quant.quants) QuantiseBlock(args.quant, row, i / kBlock, y);
}
REPRISE_KERNEL(SwiGluKernel, GluArgs) {
  BeginKernel();
  MakeElements(args, [&](int row, int i) { return Silu(RowAt(args.gate, row)[i]) * RowAt(args.up, row)[i]; });
}
REPRISE_KERNEL(GeGluKernel, GluArgs) {
  BeginKernel();
  MakeElements(args, [&](int row, int i) { return Gelu(RowAt(args.gate, row)[i]) * RowAt(args.up, row)[i]; });
}
REPRISE_DEVICE float SquarePositive(float x) { return x > 0.0f ? x * x : 0.0f; }
REPRISE_KERNEL(ReluSquaredKernel, ReluSquaredArgs) {
  BeginKernel();
  MakeElements(args, [&](int row, int i) { return SquarePositive(RowAt(args.in, row)[i]); });
}
REPRISE_KERNEL(MultiplyKernel, MultiplyArgs) {
  BeginKernel();
  MakeElements(args, [&](int row, int i) { return RowAt(args.a, row)[i] * RowAt(args.b, row)[i]; });
}

REPRISE_KERNEL(ScaleByPositionKernel, ScaleByPositionArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= args.step.header->rows || i >= args.rows.width) return;
  const int at = args.step.row[row].position / args.every;
  float* x = RowAt(args.rows, row) + i;
  *x = *x * args.factors[at < args.count ? at : args.count - 1];
}

REPRISE_KERNEL(SoftCapKernel, SoftCapArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= RowCount(args.step, args.rows.domain) || i >= args.rows.width) return;
  float* x = RowAt(args.rows, row) + i;
  *x = args.cap - 2.0f * args.cap / (1.0f + Exp(*x * (2.0f / args.cap)));  // cap tanh(x / cap)
}

REPRISE_KERNEL(SigmoidGateKernel, SigmoidGateArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= RowCount(args.step, args.rows.domain) || i >= args.rows.width) return;
  float* x = RowAt(args.rows, row) + i;
  *x = *x * Sigmoid(*RowAt(args.gate, row));
}

REPRISE_KERNEL(AddBiasKernel, AddBiasArgs) {
  BeginKernel();
  const Rows& rows = args.rows[BlockZ()];
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId();
  if (row >= RowCount(args.step, rows.domain) || i >= rows.width) return;
  RowAt(rows, row)[i] = RowAt(rows, row)[i] + args.bias[BlockZ()][i];
}

// Sum of squares of a head, over a warp: lane l takes elements l, l + 32, ...
REPRISE_DEVICE float HeadSquares(const float* x, int width) {
  float squares = 0.0f;
  for (int i = ThreadId() % 32; i < width; i += 32) squares = fmaf(x[i], x[i], squares);
  return WarpSum(squares);
}

REPRISE_DEVICE float NormFactor(const float* head, int width, float eps) {
  return 1.0f / sqrtf(HeadSquares(head, width) / static_cast<float>(width) + eps);
}
// 32 columns, from `base` on, of the head of `row` that begins at column `at` and whose values are `in`; by a warp.
REPRISE_DEVICE void GatedNormBlock(const GatedRmsNormArgs& args, const float* in, float factor, int row, int at, int base) {
  const int i = base + ThreadId() % 32;
  float y = 0.0f;
  if (i < args.width) {
    y = in[i] * factor * args.weight[i] * Silu(RowAt(args.gate, row)[at + i]);
    RowAt(args.out, row)[at + i] = y;
  }
  if (args.quant.quants) QuantiseBlock(args.quant, row, (at + base) / kBlock, y);  // then the width is whole blocks
}
// A warp has a head.
REPRISE_KERNEL(GatedRmsNormKernel, GatedRmsNormArgs) {
  BeginKernel();
  const int row = BlockY(), head = BlockX() * (kHeadThreads / 32) + ThreadId() / 32;
  if (row >= RowCount(args.step, args.in.domain) || head >= args.in.width / args.width) return;
  const int at = head * args.width;
  const float* in = RowAt(args.in, row) + at;
  const float factor = NormFactor(in, args.width, args.eps);
  for (int base = 0; base < args.width; base += 32) GatedNormBlock(args, in, factor, row, at, base);
}

REPRISE_KERNEL(RopeTableKernel, RopeTableArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * 32 + ThreadId(), half = args.dims / 2;
  if (row >= args.step.header->rows || i >= half) return;
  float* cosine = args.angles + static_cast<int64_t>(row) * args.dims;
  CosSin(static_cast<uint64_t>(args.step.row[row].position) * args.turns[i], cosine + i, cosine + half + i);
  cosine[i] *= args.magnitude;
  cosine[half + i] *= args.magnitude;
}

// A head of heads[which], normed and turned in place; by a warp. The rotation rounds each product and the difference by itself.
REPRISE_DEVICE void NormRopeHead(const NormRopeArgs& args, int which, int row, int head) {
  const Heads& heads = args.heads[which];
  const float* weight = args.weight[which];
  const int lane = ThreadId() % 32, width = heads.width, half = args.dims / 2;
  float* x = RowAt(heads.rows, row) + static_cast<int64_t>(head) * heads.stride;
  if (weight) {
    const float factor = NormFactor(x, width, args.eps);
    for (int i = lane; i < width; i += 32) x[i] = x[i] * factor * weight[i];
    SyncWarp();
  }
  const float* cosine = args.angles + static_cast<int64_t>(row) * args.dims;
  const float* sine = cosine + half;
  for (int i = lane; i < half; i += 32) {
    float* first = x + (args.interleaved ? 2 * i : i);
    float* second = args.interleaved ? first + 1 : first + half;
    const float a = *first, b = *second;
    *first = a * cosine[i] - b * sine[i];
    *second = b * cosine[i] + a * sine[i];
  }
}
REPRISE_KERNEL(NormRopeKernel, NormRopeArgs) {
  BeginKernel();
  const int row = BlockY(), head = BlockX() * (kHeadThreads / 32) + ThreadId() / 32;
  if (row >= args.step.header->rows || head >= args.heads[BlockZ()].count) return;
  NormRopeHead(args, BlockZ(), row, head);
}

// The greatest value and the smallest column it stands at; a NaN is no candidate. Comparing commutes, so the order does not matter.
struct Best {
  float value;
  int32_t index;
};
REPRISE_HD bool Better(const Best& a, const Best& b) {  // a before b; index -1: none
  if (a.index < 0 || b.index < 0) return b.index < 0 && a.index >= 0;
  return a.value > b.value || (a.value == b.value && a.index < b.index);
}
REPRISE_DEVICE Best WarpBest(Best best) {
  REPRISE_UNROLLED for (int mask = 16; mask > 0; mask /= 2) {
    const Best other{ShuffleXor(best.value, mask), ShuffleXor(best.index, mask)};
    if (Better(other, best)) best = other;
  }
  return best;
}
REPRISE_KERNEL(ArgMaxPartKernel, ArgMaxArgs) {
  BeginKernel();
  const int row = BlockY(), part = BlockX();
  if (row >= RowCount(args.step, args.in.domain)) return;
  const float* in = RowAt(args.in, row);
  Best best{0.0f, -1};
  for (int i = part * kRowThreads + ThreadId(); i < args.in.width; i += ArgMaxArgs::kParts * kRowThreads) {
    const Best here{in[i], in[i] == in[i] ? i : -1};
    if (Better(here, best)) best = here;
  }
  best = WarpBest(best);
  auto* shared = reinterpret_cast<Best*>(SharedMemory());
  if (ThreadId() % 32 == 0) shared[ThreadId() / 32] = best;
  SyncBlock();
  if (ThreadId() != 0) return;
  for (int warp = 1; warp < kRowThreads / 32; ++warp) {
    if (Better(shared[warp], best)) best = shared[warp];
  }
  args.best[row * ArgMaxArgs::kParts + part] = best.value;
  args.where[row * ArgMaxArgs::kParts + part] = best.index;
}
REPRISE_KERNEL(ArgMaxKernel, ArgMaxArgs) {
  BeginKernel();
  const int row = BlockX();
  if (row >= RowCount(args.step, args.in.domain)) return;
  Best best{0.0f, -1};
  for (int part = ThreadId(); part < ArgMaxArgs::kParts; part += 32) {
    const Best here{args.best[row * ArgMaxArgs::kParts + part], args.where[row * ArgMaxArgs::kParts + part]};
    if (Better(here, best)) best = here;
  }
  best = WarpBest(best);
  if (ThreadId() == 0) args.index[row] = best.index < 0 ? 0 : best.index;
}

}  // namespace reprise::cuda
