// The state space recurrence of Mamba-2, token by token, on slices of the states' columns (state_slices-inl.h): a column is one of a head's
// inputs x, a row one of the state's dimensions, which B writes and C reads.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/ssm.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <cstring>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"
#include "backend/cpu/state_slices-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// B and C of a row, for one group. Rows of a group follow one another, as a unit reads them.
float* GroupBc(const SsmArgs& args, int group, int row) {
  return args.group_bc + (static_cast<int64_t>(group) * args.slices.table->rows + row) * 2 * args.slices.rows;
}

// Per row: B and C by group, and of each head what a step keeps of its state and how long the step is.
Split SplitSsmInputs(const SsmArgs& args) {
  const SliceArgs& s = args.slices;
  return EvenSplit(s.table->rows, 2.0 * args.groups * s.rows * 0.05 + s.heads * 2);
}
void SsmInputs(const SsmArgs& args, int64_t first, int64_t last, int) {
  const int heads = args.slices.heads, state_dim = args.slices.rows;
  for (int row = static_cast<int>(first); row < last; ++row) {
    const float* b = RowAt(args.xbc, row) + heads * args.slices.columns;
    const float* c = b + args.groups * state_dim;
    for (int group = 0; group < args.groups; ++group, b += state_dim, c += state_dim) {
      float* const to = GroupBc(args, group, row);
      std::memcpy(to, b, sizeof(float) * state_dim);
      std::memcpy(to + state_dim, c, sizeof(float) * state_dim);
    }
    const float* dt = RowAt(args.dt, row);
    float* gates = args.gates + static_cast<int64_t>(row) * 2 * heads;
    for (int i = 0; i < heads; i += 16) {
      const int count = heads - i;
      const Floats step = Softplus(Add(LoadFirst(dt + i, count), LoadFirst(args.dt_bias + i, count)));
      StoreFirst(Exp(Mul(LoadFirst(args.a + i, count), step)), gates + i, count);
      StoreFirst(step, gates + heads + i, count);
    }
  }
}

Split SplitSsm(const SsmArgs& args) { return SplitSlices(args.slices); }

void Ssm(const SsmArgs& args, int64_t first_item, int64_t last_item, int thread) {
  const int heads = args.slices.heads, state_dim = args.slices.rows, heads_of_group = heads / args.groups;
  const Rows x = args.xbc.Columns(0, heads * args.slices.columns);
  WalkSlices(args.slices, x, args.out, first_item, last_item, thread, [&](const SliceToken& token) HWY_ATTR {
    const float* const gates = args.gates + static_cast<int64_t>(token.row) * 2 * heads;
    const float* const b = GroupBc(args, token.head / heads_of_group, token.row);
    const SliceUpdate update{b, b + state_dim, nullptr, gates[token.head]};
    const Floats step = Set(gates[heads + token.head]), skip = Set(args.d[token.head]);
    Floats in[kSliceVectors], delta[kSliceVectors], read[kSliceVectors];
    REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) {
      in[c] = Load(token.in + c * 16);
      delta[c] = Mul(step, in[c]);
    }
    if (token.stream) {
      UpdateSlice<false, true, 0>(token, state_dim, update, delta, read, nullptr);
    } else {
      UpdateSlice<false, false, 0>(token, state_dim, update, delta, read, nullptr);
    }
    REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) Store(MulAdd(skip, in[c], read[c]), token.out + c * 16);
  });
}

void AddSsm(KernelTable& table) {
  table.ssm_inputs = {RunUntyped<SsmArgs, SsmInputs>, SplitUntyped<SsmArgs, SplitSsmInputs>};
  table.ssm = {RunUntyped<SsmArgs, Ssm>, SplitUntyped<SsmArgs, SplitSsm>};
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddSsm(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddSsm(table)) }
}  // namespace reprise
#endif
