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

// Element ThreadId() % 32 of a block of 32 of `row`; every lane of the warp calls.
REPRISE_DEVICE void QuantiseBlock(const QuantRows& to, int row, int block, float x) {
  const uint32_t top = WarpMax(BitsOf(x) & 0x7fffffffu);
  const QuantScale scale = ScaleOfTop(top);
  const int q = Quantise(x, scale.inverse);
  const int sum = WarpSum(q);
  const int lane = ThreadId() % 32;
  to.quants[static_cast<int64_t>(row) * to.stride + block * kBlock + lane] = static_cast<int8_t>(q);
  if (lane == 0) {
    const int64_t at = static_cast<int64_t>(row) * (to.stride / kBlock) + block;
    to.scales[at] = scale.scale;
    to.sums[at] = scale.scale * static_cast<float>(sum);
  }
}

REPRISE_KERNEL(RmsNormKernel, RmsNormArgs) {
  BeginKernel();
  const int row = BlockX(), width = args.in.width;
  if (row >= RowCount(args.step, args.in.domain)) return;
  const float* in = RowAt(args.in, row);
  float* out = RowAt(args.out, row);
  float squares = 0.0f;
  for (int i = ThreadId(); i < width; i += kRowThreads) squares = fmaf(in[i], in[i], squares);
  squares = BlockSum(squares, reinterpret_cast<float*>(SharedMemory()));
  const float factor = 1.0f / sqrtf(squares / static_cast<float>(width) + args.eps);
  for (int base = 0; base < width; base += kRowThreads) {
    const int i = base + ThreadId();
    float y = 0.0f;
    if (i < width) {
      y = in[i] * factor * args.weight[i];
      out[i] = y;
    }
    if (args.quant.quants && i / 32 * 32 < width) QuantiseBlock(args.quant, row, i / kBlock, y);
  }
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
REPRISE_KERNEL(SwiGluKernel, SwiGluArgs) {
  BeginKernel();
  MakeElements(args, [&](int row, int i) { return Silu(RowAt(args.gate, row)[i]) * RowAt(args.up, row)[i]; });
}
REPRISE_KERNEL(MultiplyKernel, MultiplyArgs) {
  BeginKernel();
  MakeElements(args, [&](int row, int i) { return RowAt(args.a, row)[i] * RowAt(args.b, row)[i]; });
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
