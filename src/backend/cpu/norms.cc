// Row-wise kernels over floats: RMS norms, what two rows make element by element, and the position of the greatest value.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/norms.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

void NormRow(float* out, const float* in, const float* weight, int width, float eps, bool accumulate = false, float scale = 1.0f) {
  Floats squares = Zeros();
  for (int i = 0; i < width; i += 16) {
    const Floats x = LoadFirst(in + i, width - i);
    squares = MulAdd(x, x, squares);
  }
  const Floats factor = Set(1.0f / std::sqrt(Sum(squares) / static_cast<float>(width) + eps));
  for (int i = 0; i < width; i += 16) {
    const Floats y = Mul(Mul(LoadFirst(in + i, width - i), factor), LoadFirst(weight + i, width - i));
    StoreFirst(accumulate ? Mul(Add(LoadFirst(out + i, width - i), y), Set(scale)) : y, out + i, width - i);
  }
}

Split SplitRmsNorm(const RmsNormArgs& args) {
  return EvenSplit(RowCount(*args.table, args.in) * int64_t{args.in.width / args.width}, args.width * 0.1);
}
void RmsNorm(const RmsNormArgs& args, int64_t first, int64_t last, int) {
  const int groups = args.in.width / args.width;
  for (int64_t item = first; item < last; ++item) {
    const int row = static_cast<int>(item / groups);
    const int64_t at = item % groups * args.width;
    NormRow(RowAt(args.out, row) + at, RowAt(args.in, row) + at, args.weight, args.width, args.eps, args.accumulate, args.scale);
  }
}

Split SplitGated(const GatedRmsNormArgs& args) {
  return EvenSplit(RowCount(*args.table, args.in) * int64_t{args.in.width / args.width}, args.width * 0.3);
}
void GatedRmsNorm(const GatedRmsNormArgs& args, int64_t first, int64_t last, int) {
  const int heads = args.in.width / args.width;
  for (int64_t item = first; item < last; ++item) {
    const int row = static_cast<int>(item / heads);
    const int64_t at = item % heads * args.width;
    float* out = RowAt(args.out, row) + at;
    const float* gate = RowAt(args.gate, row) + at;
    NormRow(out, RowAt(args.in, row) + at, args.weight, args.width, args.eps);
    for (int i = 0; i < args.width; i += 16) {
      const int count = args.width - i;
      StoreFirst(Mul(LoadFirst(out + i, count), Silu(LoadFirst(gate + i, count))), out + i, count);
    }
  }
}

// Items are runs of kPairColumns columns of a row of `out`: `element` makes 16 of them from those of `a` and of `b`, whose rows lie `b_stride`
// apart (0: all are one).
Split SplitPairs(const StepTable& table, const Rows& out, double nanoseconds) {
  const int64_t pieces = (out.width + kPairColumns - 1) / kPairColumns;
  return EvenSplit(RowCount(table, out) * pieces, kPairColumns * nanoseconds);
}
template <class Element>
HWY_INLINE void RunPairs(const Rows& out, const Rows& a, const float* b, int64_t b_stride, int64_t first, int64_t last,
                         const Element& element) {
  const int64_t pieces = (out.width + kPairColumns - 1) / kPairColumns;
  for (int64_t item = first; item < last; ++item) {
    const int row = static_cast<int>(item / pieces), from = static_cast<int>(item % pieces) * kPairColumns;
    const int to = std::min(from + kPairColumns, out.width);
    float* y = RowAt(out, row);
    const float* x = RowAt(a, row);
    const float* z = b + row * b_stride;
    for (int i = from; i < to; i += 16) StoreFirst(element(LoadFirst(x + i, to - i), LoadFirst(z + i, to - i)), y + i, to - i);
  }
}

Split SplitGlu(const GluArgs& args) { return SplitPairs(*args.table, args.out, 0.3); }
void SwiGlu(const GluArgs& args, int64_t first, int64_t last, int) {
  RunPairs(args.out, args.gate, args.up.data, args.up.stride, first, last,
           [](Floats gate, Floats up) HWY_ATTR { return Mul(Silu(gate), up); });
}
void GeGlu(const GluArgs& args, int64_t first, int64_t last, int) {
  RunPairs(args.out, args.gate, args.up.data, args.up.stride, first, last,
           [](Floats gate, Floats up) HWY_ATTR { return Mul(Gelu(gate), up); });
}

Split SplitReluSquared(const ReluSquaredArgs& args) { return SplitPairs(*args.table, args.out, 0.1); }
void ReluSquared(const ReluSquaredArgs& args, int64_t first, int64_t last, int) {
  RunPairs(args.out, args.in, args.in.data, args.in.stride, first, last, [](Floats x, Floats) HWY_ATTR { return SquarePositive(x); });
}

Split SplitMultiply(const MultiplyArgs& args) { return SplitPairs(*args.table, args.out, 0.1); }
void Multiply(const MultiplyArgs& args, int64_t first, int64_t last, int) {
  RunPairs(args.out, args.a, args.b.data, args.b.stride, first, last, [](Floats a, Floats b) HWY_ATTR { return Mul(a, b); });
}

Split SplitAddBias(const AddBiasArgs& args) { return SplitPairs(*args.table, args.rows, 0.1); }
void AddBias(const AddBiasArgs& args, int64_t first, int64_t last, int) {
  RunPairs(args.rows, args.rows, args.bias, 0, first, last, [](Floats x, Floats bias) HWY_ATTR { return Add(x, bias); });
}

Split SplitSoftCap(const SoftCapArgs& args) { return SplitPairs(*args.table, args.rows, 0.3); }
void SoftCap(const SoftCapArgs& args, int64_t first, int64_t last, int) {
  const float cap = args.cap, twice = 2.0f * cap, bend = 2.0f / cap;
  RunPairs(args.rows, args.rows, args.rows.data, args.rows.stride, first, last, [=](Floats x, Floats) HWY_ATTR {
    return Sub(Set(cap), Div(Set(twice), Add(Set(1.0f), Exp(Mul(x, Set(bend))))));  // cap tanh(x / cap)
  });
}

Split SplitSigmoidGate(const SigmoidGateArgs& args) { return EvenSplit(RowCount(*args.table, args.out), args.out.width * 0.1); }
void SigmoidGate(const SigmoidGateArgs& args, int64_t first, int64_t last, int) {
  for (int row = static_cast<int>(first); row < last; ++row) {
    float* const x = RowAt(args.out, row);
    const Floats factor = Sigmoid(Set(*RowAt(args.gate, row)));
    for (int i = 0; i < args.out.width; i += 16) {
      const int count = args.out.width - i;
      StoreFirst(Mul(LoadFirst(x + i, count), factor), x + i, count);
    }
  }
}

Split SplitScaleByPosition(const ScaleByPositionArgs& args) { return EvenSplit(args.table->rows, args.rows.width * 0.1); }
void ScaleByPosition(const ScaleByPositionArgs& args, int64_t first, int64_t last, int) {
  for (int row = static_cast<int>(first); row < last; ++row) {
    float* const x = RowAt(args.rows, row);
    const int64_t at = args.table->row_position[static_cast<size_t>(row)] / args.every;
    const Floats factor = Set(args.factors.data[std::min(at, args.factors.size - 1)]);
    for (int i = 0; i < args.rows.width; i += 16) {
      const int count = args.rows.width - i;
      StoreFirst(Mul(LoadFirst(x + i, count), factor), x + i, count);
    }
  }
}

Split SplitArgMax(const ArgMaxArgs& args) { return EvenSplit(RowCount(*args.table, args.in), args.in.width * 0.05); }
void ArgMax(const ArgMaxArgs& args, int64_t first, int64_t last, int) {
  const Floats lowest = Set(-std::numeric_limits<float>::infinity());
  for (int row = static_cast<int>(first); row < last; ++row) {
    const float* in = RowAt(args.in, row);
    const int width = args.in.width;
    const auto numbers = [&](Floats x) HWY_ATTR {  // NaN becomes -infinity
      REPRISE_PARTS x.v[p] = hn::IfThenElse(hn::Eq(x.v[p], x.v[p]), x.v[p], lowest.v[p]);
      return x;
    };
    Floats top = lowest;
    int i = 0;
    for (; i + 16 <= width; i += 16) top = Max(top, numbers(Load(in + i)));
    float greatest = MaxLane(top);
    for (; i < width; ++i) greatest = in[i] > greatest ? in[i] : greatest;
    int index = 0;
    while (index < width && !(in[index] == greatest)) ++index;
    args.index[row] = index < width ? index : 0;
  }
}

void AddNorms(KernelTable& table) {
  table.rms_norm = {RunUntyped<RmsNormArgs, RmsNorm>, SplitUntyped<RmsNormArgs, SplitRmsNorm>};
  table.gated_rms_norm = {RunUntyped<GatedRmsNormArgs, GatedRmsNorm>, SplitUntyped<GatedRmsNormArgs, SplitGated>};
  table.swiglu = {RunUntyped<GluArgs, SwiGlu>, SplitUntyped<GluArgs, SplitGlu>};
  table.geglu = {RunUntyped<GluArgs, GeGlu>, SplitUntyped<GluArgs, SplitGlu>};
  table.relu_squared = {RunUntyped<ReluSquaredArgs, ReluSquared>, SplitUntyped<ReluSquaredArgs, SplitReluSquared>};
  table.multiply = {RunUntyped<MultiplyArgs, Multiply>, SplitUntyped<MultiplyArgs, SplitMultiply>};
  table.add_bias = {RunUntyped<AddBiasArgs, AddBias>, SplitUntyped<AddBiasArgs, SplitAddBias>};
  table.soft_cap = {RunUntyped<SoftCapArgs, SoftCap>, SplitUntyped<SoftCapArgs, SplitSoftCap>};
  table.sigmoid_gate = {RunUntyped<SigmoidGateArgs, SigmoidGate>, SplitUntyped<SigmoidGateArgs, SplitSigmoidGate>};
  table.scale_by_position = {RunUntyped<ScaleByPositionArgs, ScaleByPosition>, SplitUntyped<ScaleByPositionArgs, SplitScaleByPosition>};
  table.argmax = {RunUntyped<ArgMaxArgs, ArgMax>, SplitUntyped<ArgMaxArgs, SplitArgMax>};
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddNorms(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddNorms(table)) }
}  // namespace reprise
#endif
