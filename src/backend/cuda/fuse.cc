#include "backend/cuda/fuse.h"

#include <cstring>
#include <functional>
#include <optional>

#include "backend/cuda/grids.h"

namespace reprise::cuda {
namespace {

// The arguments of launch `i`, if it is there and one of `kernel`.
template <class Args>
std::optional<Args> ArgsAt(std::span<const Launch> launches, size_t i, int kernel) {
  if (i >= launches.size() || launches[i].kernel != kernel) return std::nullopt;
  Args args;
  std::memcpy(static_cast<void*>(&args), launches[i].args, sizeof(args));
  return args;
}

// Whether some of the first `count` rows of one and of the other share memory.
bool Overlap(const Rows& a, const Rows& b, int count = 1) {
  if (a.data == nullptr || b.data == nullptr) return false;
  const std::less<const float*> before;
  const auto last = [&](const Rows& rows) { return rows.data + static_cast<int64_t>(count - 1) * rows.stride; };
  if (!before(a.data, last(b) + b.width) || !before(b.data, last(a) + a.width)) return false;
  if (a.stride != b.stride || count == 1) return true;
  // Columns of the same rows, or of rows as far apart, may lie in turns.
  const int64_t stride = a.stride, from_a_to_b = ((b.data - a.data) % stride + stride) % stride;
  return from_a_to_b < a.width || from_a_to_b + b.width > stride;
}
bool Same(const Rows& a, const Rows& b) { return a.data == b.data && a.width == b.width && a.domain == b.domain; }

struct Fused {
  Launch launch;
  size_t count;  // of the launches that it stands for
};

// [RmsNorm | Quantise] MatMul [SwiGlu]
std::optional<Fused> FuseProduct(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  FusedMatMulArgs args{};
  size_t at = i;
  const auto norm = ArgsAt<RmsNormArgs>(launches, i, kRmsNorm);
  const auto quantise = ArgsAt<QuantiseArgs>(launches, i, kQuantise);
  if (norm || quantise) ++at;
  const auto matmul = ArgsAt<MatMulArgs>(launches, at++, kMatVec);
  if (!matmul || IsFloat(matmul->product[0].weight.form) || bucket.Of(matmul->in.domain) != 1) return std::nullopt;
  args.matmul = *matmul;
  if (norm) {
    if (norm->quant.quants != matmul->quant.quants || !Same(norm->out, matmul->in) || Overlap(norm->in, norm->out) || norm->accumulate ||
        norm->width != norm->in.width) {
      return std::nullopt;
    }
    args.input = FusedInput::kNorm;
    args.norm = *norm;
  } else if (quantise) {
    if (quantise->quant.quants != matmul->quant.quants || !Same(quantise->in, matmul->in)) return std::nullopt;
    args.input = FusedInput::kFloats;
  }
  // What every block of threads reads, and the one block that leaves it behind writes.
  const auto is_read = [&](const Rows& rows) {
    if (args.input == FusedInput::kQuantised) return false;  // floats are nobody's then
    return Overlap(rows, args.matmul.in) || (norm && Overlap(rows, norm->in));
  };
  for (int p = 0; p < args.matmul.products; ++p) {
    const ProductView& product = args.matmul.product[p];
    Rows written = product.out;
    written.width = product.weight.outputs;
    if (is_read(written)) return std::nullopt;
  }
  const auto swiglu = ArgsAt<GluArgs>(launches, at, kSwiGlu);
  const auto apart = [](const Rows& a, const Rows& b) { return a.data == b.data || !Overlap(a, b); };
  if (swiglu && args.matmul.products == 2 && Same(swiglu->gate, args.matmul.product[0].out) &&
      Same(swiglu->up, args.matmul.product[1].out) && swiglu->out.width == args.matmul.product[0].weight.outputs &&
      swiglu->out.width == args.matmul.product[1].weight.outputs && swiglu->out.domain == args.matmul.in.domain &&
      !args.matmul.product[0].accumulate && !args.matmul.product[1].accumulate && !Overlap(swiglu->gate, swiglu->up) &&
      apart(swiglu->out, swiglu->gate) && apart(swiglu->out, swiglu->up) && !is_read(swiglu->out) &&
      swiglu->quant.quants != args.matmul.quant.quants) {
    args.gated = true;
    args.swiglu = *swiglu;
    ++at;
  }
  return Fused{MakeLaunch<FusedMatMulArgs, FusedMatMulGrid>(FusedMatMulId(args.matmul.product[0].weight.form), args), at - i};
}

// CausalConv DeltaInputs DeltaNet GatedRmsNorm
std::optional<Fused> FuseDelta(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  const auto conv = ArgsAt<ConvArgs>(launches, i, kConv);
  if (!conv || bucket.rows > kFewRows || !ArgsAt<DeltaNetArgs>(launches, i + 1, kDeltaInputs)) return std::nullopt;
  std::optional<DeltaNetArgs> delta;
  int choice = 0;
  for (; choice < kStateChoices && !delta; ++choice) delta = ArgsAt<DeltaNetArgs>(launches, i + 2, kDeltaNet + choice);
  const auto norm = ArgsAt<GatedRmsNormArgs>(launches, i + 3, kGatedRmsNorm);
  if (!delta || !norm) return std::nullopt;
  const Ops::DeltaNetShape& s = delta->shape;
  if (s.value_dim > kMostFusedColumns || s.value_heads < s.key_heads || !Same(conv->out, delta->qkv) || !Same(delta->out, norm->in) ||
      norm->out.data != norm->in.data || norm->width != s.value_dim) {
    return std::nullopt;
  }
  for (const Rows& written : {conv->out, norm->out}) {
    for (const Rows& read : {conv->in, delta->alpha, delta->beta, norm->gate}) {
      if (Overlap(written, read, bucket.rows)) return std::nullopt;
    }
  }
  if (Overlap(conv->out, norm->out, bucket.rows)) return std::nullopt;
  return Fused{MakeLaunch<FusedDeltaArgs, FusedDeltaGrid>(kFusedDelta + choice - 1, {*conv, *delta, *norm}), 4};
}

// NormRope Append
std::optional<Fused> FuseAppend(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  const auto turn = ArgsAt<NormRopeArgs>(launches, i, kNormRope);
  const auto append = ArgsAt<AppendArgs>(launches, i + 1, kAppend);
  if (!turn || !append || append->count != 2) return std::nullopt;
  const Heads& keys = turn->heads[turn->count - 1];
  if (keys.rows.data != append->in[0].data || keys.stride != keys.width || keys.count * keys.width != append->in[0].width ||
      keys.rows.stride != append->in[0].stride) {
    return std::nullopt;
  }
  for (int h = 0; h < turn->count; ++h) {
    if (Overlap(turn->heads[h].rows, append->in[1], bucket.rows)) return std::nullopt;
    if (h != turn->count - 1 && Overlap(turn->heads[h].rows, append->in[0], bucket.rows)) return std::nullopt;
  }
  return Fused{MakeLaunch<FusedAppendArgs, FusedAppendGrid>(kFusedAppend, {*turn, *append}), 2};
}

}  // namespace

std::vector<Launch> Fuse(std::span<const Launch> launches, const Bucket& bucket) {
  std::vector<Launch> fused;
  for (size_t i = 0; i < launches.size();) {
    auto one = FuseProduct(launches, i, bucket);
    if (!one) one = FuseDelta(launches, i, bucket);
    if (!one) one = FuseAppend(launches, i, bucket);
    fused.push_back(one ? one->launch : launches[i]);
    i += one ? one->count : 1;
  }
  return fused;
}

}  // namespace reprise::cuda
