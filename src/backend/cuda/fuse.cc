#include "backend/cuda/fuse.h"

#include <cstring>
#include <functional>
#include <initializer_list>
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

bool Same(const Rows& a, const Rows& b) { return a.data == b.data && a.width == b.width && a.domain == b.domain; }

struct Fused {
  Launch launch;
  size_t count;  // of the launches that it stands for
};

// What is made of the results of a product, element by element, whichever kernel does it.
struct Ending {
  FusedOutput kind;
  GluArgs args;
};
std::optional<Ending> EndingAt(std::span<const Launch> launches, size_t i) {
  if (const auto glu = ArgsAt<GluArgs>(launches, i, kSwiGlu)) return Ending{FusedOutput::kSwiGlu, *glu};
  if (const auto glu = ArgsAt<GluArgs>(launches, i, kGeGlu)) return Ending{FusedOutput::kGeGlu, *glu};
  if (const auto square = ArgsAt<ReluSquaredArgs>(launches, i, kReluSquared)) {
    return Ending{FusedOutput::kReluSquared, {square->step, square->out, square->in, square->in, square->quant}};
  }
  return std::nullopt;
}

// Whether a product can begin with the norm.
bool Begins(const RmsNormArgs& norm, const MatMulArgs& matmul) {
  const int groups = norm.in.width / norm.width;
  return norm.quant.quants == matmul.quant.quants && Same(norm.out, matmul.in) && !Overlap(norm.in, norm.out) && !norm.accumulate &&
         (groups == 1 || (norm.weight_step == norm.width && groups <= kMostFusedGroups));
}

// [RmsNorm | Quantise] MatMul [SwiGlu | GeGlu | ReluSquared]; of 16-bit floats a product that has one or the other.
std::optional<Fused> FuseProduct(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  FusedMatMulArgs args{};
  size_t at = i;
  const auto norm = ArgsAt<RmsNormArgs>(launches, i, kRmsNorm);
  const auto quantise = ArgsAt<QuantiseArgs>(launches, i, kQuantise);
  if (norm || quantise) ++at;
  const auto matmul = ArgsAt<MatMulArgs>(launches, at++, kMatVec);
  if (!matmul || bucket.Of(matmul->in.domain) != 1) return std::nullopt;
  args.matmul = *matmul;
  const Form form = args.matmul.product[0].weight.form;
  const bool floats = IsShort(form);
  if (IsFloat(form) && !floats) return std::nullopt;
  if (norm) {
    if (!Begins(*norm, *matmul)) return std::nullopt;
    args.input = FusedInput::kNorm;
    args.norm = *norm;
  } else if (quantise) {
    if (quantise->quant.quants != matmul->quant.quants || !Same(quantise->in, matmul->in)) return std::nullopt;
    args.input = FusedInput::kFloats;
  }
  // Nobody there leaves a row quantised for others, or makes it of what is too wide.
  if (floats && (quantise || (norm && (norm->quant.quants != nullptr || norm->in.width * 4 > FusedShortShared::kMostRow)))) {
    return std::nullopt;
  }
  // What every block of threads reads, and the one block that leaves it behind writes.
  const auto is_read = [&](const Rows& rows) {
    if (args.input == FusedInput::kMade && !floats) return false;  // floats are nobody's then
    return Overlap(rows, args.matmul.in) || (norm && Overlap(rows, norm->in));
  };
  for (int p = 0; p < args.matmul.products; ++p) {
    const ProductView& product = args.matmul.product[p];
    Rows written = product.out;
    written.width = product.weight.outputs;
    if (is_read(written)) return std::nullopt;
  }
  const auto apart = [](const Rows& a, const Rows& b) { return a.data == b.data || !Overlap(a, b); };
  const auto ends = [&](const Ending& ending) {
    const GluArgs& glu = ending.args;
    const bool gated = ending.kind != FusedOutput::kReluSquared;
    if (args.matmul.products != (gated ? 2 : 1) || glu.out.domain != args.matmul.in.domain || is_read(glu.out)) return false;
    if (glu.quant.quants != nullptr && (floats || glu.quant.quants == args.matmul.quant.quants)) return false;
    if (gated && Overlap(glu.gate, glu.up)) return false;
    for (int p = 0; p < args.matmul.products; ++p) {
      const ProductView& product = args.matmul.product[p];
      const Rows& read = p == 0 ? glu.gate : glu.up;
      if (!Same(read, product.out) || glu.out.width != product.weight.outputs || product.accumulate || !apart(glu.out, read)) return false;
    }
    return true;
  };
  const auto ending = EndingAt(launches, at);
  if (ending && ends(*ending)) {
    args.output = ending->kind;
    args.activated = ending->args;
    ++at;
  }
  if (!floats) return Fused{MakeLaunch<FusedMatMulArgs, FusedMatMulGrid>(FusedMatMulId(form), args), at - i};
  if (at - i == 1) return std::nullopt;
  return Fused{MakeLaunch<FusedMatMulArgs, FusedShortGrid>(FusedMatMulId(form), args), at - i};
}

// Whether no two of what is written, and nothing of what is read, share memory with what is written.
bool Apart(std::initializer_list<Rows> written, std::initializer_list<Rows> read, const Bucket& bucket) {
  for (const Rows& to : written) {
    for (const Rows& from : read) {
      if (Overlap(to, from, bucket.rows)) return false;
    }
    for (const Rows& other : written) {
      if (&other != &to && Overlap(to, other, bucket.rows)) return false;
    }
  }
  return true;
}

// CausalConv DeltaInputs DeltaNet [GatedRmsNorm]
std::optional<Fused> FuseDelta(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  const auto conv = ArgsAt<ConvArgs>(launches, i, kConv);
  if (!conv || bucket.rows > kFewRows || !ArgsAt<DeltaNetArgs>(launches, i + 1, kDeltaInputs)) return std::nullopt;
  std::optional<DeltaNetArgs> delta;
  int choice = 0;
  for (; choice < kStateChoices && !delta; ++choice) delta = ArgsAt<DeltaNetArgs>(launches, i + 2, kDeltaNet + choice);
  if (!delta) return std::nullopt;
  const Ops::DeltaNetShape& s = delta->shape;
  if (s.value_dim > kMostFusedColumns || s.value_heads < s.key_heads || !Same(conv->out, delta->qkv) ||
      !Apart({conv->out, delta->out}, {conv->in, delta->alpha, delta->beta}, bucket)) {
    return std::nullopt;
  }
  FusedDeltaArgs args{*conv, *delta, {}};
  const auto norm = ArgsAt<GatedRmsNormArgs>(launches, i + 3, kGatedRmsNorm);
  const bool normed = norm && Same(delta->out, norm->in) && Same(norm->out, norm->in) && norm->width == s.value_dim &&
                      Apart({conv->out, norm->out}, {norm->gate}, bucket);
  if (normed) args.norm = *norm;
  return Fused{MakeLaunch<FusedDeltaArgs, FusedDeltaGrid>(kFusedDelta + choice - 1, args), normed ? size_t{4} : size_t{3}};
}

// CausalConv Ssm [SwiGlu]
std::optional<Fused> FuseSsm(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  const auto conv = ArgsAt<ConvArgs>(launches, i, kConv);
  if (!conv || bucket.rows > kFewRows) return std::nullopt;
  std::optional<SsmArgs> ssm;
  int choice = 0;
  for (; choice < kStateChoices && !ssm; ++choice) ssm = ArgsAt<SsmArgs>(launches, i + 1, kSsm + choice);
  if (!ssm || !Same(conv->out, ssm->xbc) || !Apart({conv->out, ssm->out}, {conv->in, ssm->dt}, bucket)) return std::nullopt;
  FusedSsmArgs args{*conv, *ssm, {}};
  const auto gate = ArgsAt<GluArgs>(launches, i + 2, kSwiGlu);
  const bool gated = gate && Same(ssm->out, gate->up) && Same(gate->out, gate->up) && Apart({conv->out, gate->out}, {gate->gate}, bucket) &&
                     (gate->quant.quants == nullptr || ssm->shape.head_dim % kFusedSsmColumns == 0);  // otherwise a block is of two heads
  if (gated) args.gate = *gate;
  return Fused{MakeLaunch<FusedSsmArgs, FusedSsmGrid>(kFusedSsm + choice - 1, args), gated ? size_t{3} : size_t{2}};
}

// SelectiveScan SwiGlu
std::optional<Fused> FuseScan(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  const auto scan = ArgsAt<ScanArgs>(launches, i, kScan);
  const auto gate = ArgsAt<GluArgs>(launches, i + 1, kSwiGlu);
  if (!scan || !gate || bucket.rows > kFewRows || !Same(scan->out, gate->up) || !Same(gate->out, gate->up) || gate->out.width % 32 != 0) {
    return std::nullopt;
  }
  if (!Apart({gate->out}, {scan->x, scan->dt, scan->b, scan->c, gate->gate}, bucket)) return std::nullopt;
  return Fused{MakeLaunch<FusedScanArgs, FusedScanGrid>(kFusedScan, {*scan, *gate}), 2};
}

// Multiply CausalConv Multiply
std::optional<Fused> FuseShortConv(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  const auto before = ArgsAt<MultiplyArgs>(launches, i, kMultiply), after = ArgsAt<MultiplyArgs>(launches, i + 2, kMultiply);
  const auto conv = ArgsAt<ConvArgs>(launches, i + 1, kConv);
  if (!before || !conv || !after || bucket.rows > kFewRows || before->quant.quants != nullptr || !Same(before->out, conv->in) ||
      !Same(conv->out, after->b) || !Same(after->out, after->b)) {
    return std::nullopt;
  }
  if (!Apart({before->out, after->out}, {before->a, before->b, after->a}, bucket)) return std::nullopt;
  return Fused{MakeLaunch<FusedShortConvArgs, FusedShortConvGrid>(kFusedShortConv, {*before, *conv, *after}), 3};
}

// RmsNorm RmsNorm [RmsNorm], but for what a product begins with.
std::optional<Fused> FuseNorms(std::span<const Launch> launches, size_t i, const Bucket& bucket) {
  RmsNormsArgs args{};
  for (; args.count < RmsNormsArgs::kMost; ++args.count) {
    const size_t at = i + static_cast<size_t>(args.count);
    const auto norm = ArgsAt<RmsNormArgs>(launches, at, kRmsNorm);
    if (!norm || FuseProduct(launches, at, bucket)) break;
    bool apart = true;
    for (int n = 0; n < args.count; ++n) {
      const RmsNormArgs& other = args.norm[n];
      const int rows = bucket.Of(norm->in.domain);
      apart = apart && norm->in.domain == other.in.domain && !Overlap(norm->out, other.out, rows) && !Overlap(norm->out, other.in, rows) &&
              !Overlap(norm->in, other.out, rows) && (norm->quant.quants == nullptr || norm->quant.quants != other.quant.quants);
    }
    if (!apart) break;
    args.norm[args.count] = *norm;
  }
  if (args.count < 2) return std::nullopt;
  return Fused{MakeLaunch<RmsNormsArgs, RmsNormsGrid>(kRmsNorms, args), static_cast<size_t>(args.count)};
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

bool Overlap(const Rows& a, const Rows& b, int count) {
  if (a.data == nullptr || b.data == nullptr) return false;
  const std::less<const float*> before;
  const auto last = [&](const Rows& rows) { return rows.data + static_cast<int64_t>(count - 1) * rows.stride; };
  if (!before(a.data, last(b) + b.width) || !before(b.data, last(a) + a.width)) return false;
  if (a.stride != b.stride || count == 1) return true;
  // Columns of the same rows, or of rows as far apart, may lie in turns.
  const int64_t stride = a.stride, from_a_to_b = ((b.data - a.data) % stride + stride) % stride;
  return from_a_to_b < a.width || from_a_to_b + b.width > stride;
}

std::vector<Launch> Fuse(std::span<const Launch> launches, const Bucket& bucket) {
  std::vector<Launch> fused;
  for (size_t i = 0; i < launches.size();) {
    auto one = FuseProduct(launches, i, bucket);
    if (!one) one = FuseDelta(launches, i, bucket);
    if (!one) one = FuseSsm(launches, i, bucket);
    if (!one) one = FuseScan(launches, i, bucket);
    if (!one) one = FuseShortConv(launches, i, bucket);
    if (!one) one = FuseNorms(launches, i, bucket);
    if (!one) one = FuseAppend(launches, i, bucket);
    fused.push_back(one ? one->launch : launches[i]);
    i += one ? one->count : 1;
  }
  return fused;
}

}  // namespace reprise::cuda
