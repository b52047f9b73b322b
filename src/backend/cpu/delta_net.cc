// The gated delta rule, token by token, on slices of the states' columns (state_slices-inl.h).
//
// The pass over the slice that makes the update also forms S^T q, and S^T k of the token that follows.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/delta_net.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <cmath>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"
#include "backend/cpu/state_slices-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// q and k of a row, for one key head. Rows of a head follow one another, as a unit reads them.
float* UnitQk(const DeltaNetArgs& args, int head, int row) {
  return args.unit_qk + (static_cast<int64_t>(head) * args.slices.table->rows + row) * 2 * args.slices.rows;
}

// q and k of a row, normalised by head.
void UnitHead(const DeltaNetArgs& args, int head, int row) {
  const int key_dim = args.slices.rows;
  for (int part = 0; part < 2; ++part) {
    const float* const in = RowAt(args.qkv, row) + (part * args.shape.key_heads + head) * key_dim;
    float* const out = UnitQk(args, head, row) + part * key_dim;
    Floats squares = Zeros();
    for (int i = 0; i < key_dim; i += 16) {
      const Floats x = LoadFirst(in + i, key_dim - i);
      squares = MulAdd(x, x, squares);
    }
    float factor = 1.0f / std::sqrt(Sum(squares) + 1e-6f);
    if (part == 0) factor *= 1.0f / std::sqrt(static_cast<float>(key_dim));
    for (int i = 0; i < key_dim; i += 16) {
      StoreFirst(Mul(LoadFirst(in + i, key_dim - i), Set(factor)), out + i, key_dim - i);
    }
  }
}

// The two gates of each value head of a row.
void Gates(const DeltaNetArgs& args, int row) {
  const int heads = args.slices.heads;
  const float* alpha = RowAt(args.alpha, row);
  const float* beta = RowAt(args.beta, row);
  float* gates = args.gates + static_cast<int64_t>(row) * 2 * heads;
  for (int i = 0; i < heads; i += 16) {
    const int count = heads - i;
    const Floats step = Softplus(Add(LoadFirst(alpha + i, count), LoadFirst(args.dt + i, count)));
    StoreFirst(Exp(Mul(LoadFirst(args.a + i, count), step)), gates + i, count);
    StoreFirst(Sigmoid(LoadFirst(beta + i, count)), gates + heads + i, count);
  }
}

// An item is a row of a key head; after the heads' come the rows' gates.
Split SplitDeltaInputs(const DeltaNetArgs& args) {
  const int64_t rows = args.slices.table->rows;
  return EvenSplit((args.shape.key_heads + 1) * rows, 0.2 * args.slices.rows, 4000, rows * std::max(1, kBlockColumns / args.slices.rows));
}
void DeltaInputs(const DeltaNetArgs& args, int64_t first, int64_t last, int) {
  const int rows = args.slices.table->rows;
  for (int64_t item = first; item < last; ++item) {
    const auto head = static_cast<int>(item / rows), row = static_cast<int>(item % rows);
    if (head < args.shape.key_heads) {
      UnitHead(args, head, row);
    } else {
      Gates(args, row);
    }
  }
}

Split SplitDeltaNet(const DeltaNetArgs& args) { return SplitSlices(args.slices); }

void DeltaNet(const DeltaNetArgs& args, int64_t first_item, int64_t last_item, int thread) {
  const int heads = args.slices.heads, key_dim = args.slices.rows;
  const Rows values = args.qkv.Columns(2 * args.shape.key_heads * key_dim, heads * args.slices.columns);
  Floats seen[kSliceVectors];  // S^T k before a token
  WalkSlices(args.slices, values, args.out, first_item, last_item, thread, [&](const SliceToken& token) HWY_ATTR {
    const float* const gates = args.gates + static_cast<int64_t>(token.row) * 2 * heads;
    const float* const q = UnitQk(args, args.shape.KeyHead(token.head), token.row);
    const float *const k = q + key_dim, *const next_k = q + 3 * key_dim;
    const SliceUpdate update{k, q, next_k, gates[token.head]};
    if (token.begins) ReadSlice(token, key_dim, k, seen);
    const Floats write = Set(gates[heads + token.head]), decay = Set(update.decay);
    Floats delta[kSliceVectors], read[kSliceVectors];
    REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) { delta[c] = Mul(write, Sub(Load(token.in + c * 16), Mul(decay, seen[c]))); }
    if (!token.ends) {
      UpdateSlice<true, false, 1>(token, key_dim, update, delta, read, seen);
    } else if (token.stream) {
      UpdateSlice<false, true, 1>(token, key_dim, update, delta, read, seen);
    } else {
      UpdateSlice<false, false, 1>(token, key_dim, update, delta, read, seen);
    }
    REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) Store(read[c], token.out + c * 16);
  });
}

void AddDeltaNet(KernelTable& table) {
  table.delta_inputs = {RunUntyped<DeltaNetArgs, DeltaInputs>, SplitUntyped<DeltaNetArgs, SplitDeltaInputs>};
  table.delta_net = {RunUntyped<DeltaNetArgs, DeltaNet>, SplitUntyped<DeltaNetArgs, SplitDeltaNet>};
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddDeltaNet(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddDeltaNet(table)) }
}  // namespace reprise
#endif
