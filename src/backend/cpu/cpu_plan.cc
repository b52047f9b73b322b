#include "backend/cpu/cpu_plan.h"

#include <algorithm>
#include <array>

namespace reprise {

Result<const float*> ConvTaps::Of(const float* weight, int channels, int kernel) {
  const auto key = std::make_tuple(weight, channels, kernel);
  if (const auto it = taps_.find(key); it != taps_.end()) return it->second;
  REPRISE_ASSIGN_OR_RETURN(std::byte* const memory, backend_.Allocate(sizeof(float) * channels * kernel, "convolution taps"));
  auto* const taps = reinterpret_cast<float*>(memory);
  for (int64_t c = 0; c < channels; ++c) {
    for (int k = 0; k < kernel; ++k) taps[static_cast<int64_t>(k) * channels + c] = weight[c * kernel + k];
  }
  taps_[key] = taps;
  return taps;
}

bool CpuOps::Owns(const Matrix& matrix) const { return dynamic_cast<const PackedMatrix*>(&matrix) != nullptr; }

bool CpuOps::OwnsTable(const Matrix& table) const { return Owns(table) || dynamic_cast<const FileTable*>(&table) != nullptr; }

void CpuOps::RecordEmbed(const Rows& out, const Matrix& table, float scale) {
  Add(EmbedKernel(),
      EmbedArgs{&this->table(), out, dynamic_cast<const PackedMatrix*>(&table), dynamic_cast<const FileTable*>(&table), scale});
}

void CpuOps::RecordRmsNorm(const Rows& out, const Rows& in, const float* weight, int group, float eps, bool accumulate, float scale) {
  AddRowWork(kernels_.rms_norm, RmsNormArgs{&table(), out, in, weight, group, eps, accumulate, scale}, group);
}

CpuOps::Inputs CpuOps::InputsOf(std::span<const Product> products, int64_t rows, int width, int experts) {
  Inputs made;
  Activations& to = made.in;
  bool quantised = false, floats = false, sums = false, pairs = false;
  int zeros = 0;
  std::vector<int> shift_of;  // of each product: which of the zeros, or -1
  for (const Product& product : products) {
    const auto* m = static_cast<const PackedMatrix*>(product.weight);
    const FormTraits traits = TraitsOf(m->form);
    quantised |= traits.quantised();
    floats |= !traits.quantised();
    sums |= traits.has_min && !traits.k_type;
    pairs |= traits.has_min && traits.k_type;
    int shift = -1;
    if (traits.quantised() && !traits.has_min) {
      const bool halves = traits.scale_inputs == 16;
      const int zero = m->zero - (kernels_.signed_bytes && m->form == PackedForm::kByte ? 128 : 0);
      for (shift = 0; shift < zeros && (to.zeros[shift] != zero || to.halves[shift] != halves); ++shift) {
      }
      if (!Check(shift < Activations::kMostZeros, "MatMul", "the products mix too many weight types")) return made;
      if (shift == zeros) {
        to.zeros[zeros] = zero;
        to.halves[zeros++] = halves;
      }
    }
    shift_of.push_back(shift);
    made.products.push_back({m, product.out, nullptr, made.tiles, product.accumulate});
    made.tiles += m->tiles() / experts;
    made.bytes += static_cast<double>(m->total_bytes()) / experts;
  }
  const int64_t blocks = width / kQuantBlock, spans = SpansOf(width / kQuantBlock);
  if (floats) to.floats = Scratch<float>("matmul floats", rows * width);
  if (quantised) {
    to.quants = Scratch<int8_t>("matmul quants", rows * width);
    to.scales = Scratch<float>("matmul scales", rows * spans);
    to.steps = Scratch<uint16_t>("matmul steps", rows * blocks);
    if (sums) to.sums = Scratch<float>("matmul sums", rows * blocks);
    if (pairs) to.pairs = Scratch<int32_t>("matmul pairs", rows * spans * kSpanBlocks / 2);
    for (int i = 0; i < zeros; ++i) to.shifts[i] = Scratch<int32_t>("matmul shifts " + std::to_string(i), rows * blocks * 2);
  }
  for (size_t i = 0; i < made.products.size(); ++i) made.products[i].shifts = shift_of[i] < 0 ? nullptr : to.shifts[shift_of[i]];
  return made;
}

void CpuOps::RecordMatMul(const Rows& in, std::span<const Product> products) {
  const Inputs inputs = InputsOf(products, MostRows(in.domain), in.width, /*experts=*/1);
  if (!error().ok()) return;
  Add(kernels_.arrange, Arranging(in, inputs.in));
  Add(kernels_.matmul, Multiplying(inputs, in));
}

void CpuOps::RecordMixExperts(const Rows& out, const Rows& in, const Rows& scores, const Experts& experts) {
  const int inner = experts.down->inputs;
  if (!Check(inner % kTileColumns == 0 && out.width % kTileColumns == 0, "MixExperts", "an expert is no multiple of 16 wide") ||
      !Check(experts.used <= kMostExpertsUsed, "MixExperts", "a row goes to more than 64 experts")) {
    return;
  }
  const int64_t visits = MostRows(in.domain) * experts.used;
  ExpertVisits& to = plan_.visits.emplace_back();
  to.count = experts.count;
  to.used = experts.used;
  to.choice = Scratch<int32_t>("experts chosen", visits);
  to.weight = Scratch<float>("experts' weights", visits);
  to.visit = Scratch<int32_t>("visits of experts", visits);
  to.row = Scratch<int32_t>("rows of visits", visits);
  to.expert = Scratch<int32_t>("experts of runs", visits);
  to.first = Scratch<int32_t>("runs of visits", visits + 1);
  to.group = Scratch<int32_t>("groups of visits", visits + 1);
  to.places = Scratch<int32_t>("places of experts", experts.count);
  const bool gated = HasGate(experts.activation);
  Rows gate;
  if (gated) gate = {Scratch<float>("experts' gates", visits * inner), inner, inner, in.domain};
  const Rows up{Scratch<float>("experts' ups", visits * inner), inner, inner, in.domain};
  const Rows parts{Scratch<float>("experts' results", visits * out.width), out.width, out.width, in.domain};
  if (!error().ok()) return;
  Add(RouteKernel(), RouteArgs{&table(), scores, experts.score_bias.data, experts.choice_bias.data, experts.weight_scale.data, &to,
                               experts.sigmoid, experts.normed, experts.scale});
  Add(kernels_.group_visits, GroupVisitsArgs{&table(), in.domain, &to});

  std::vector<Product> ahead{{experts.up, up}};
  if (gated) ahead.insert(ahead.begin(), {experts.gate, gate});
  AddExpertMatMul(InputsOf(ahead, visits, in.width, experts.count), in, {}, to, to.row);

  const Launch& between = plan_.row_work.emplace_back(
      MakeLaunch(kernels_.activate_visits, /*split=*/nullptr,
                 ActivateVisitsArgs{gate, up, experts.gate_bias.data, experts.up_bias.data, &to, experts.activation}));
  const std::array back{Product{experts.down, parts}};
  AddExpertMatMul(InputsOf(back, visits, inner, experts.count), gated ? gate : up, {between.run, between.args}, to, to.visit);
  Add(kernels_.mix_visits, MixVisitsArgs{&table(), out, parts.data, experts.down_bias.data, &to, experts.adds});
}

void CpuOps::AddExpertMatMul(const Inputs& inputs, const Rows& in, RowWork before, const ExpertVisits& visits, const int32_t* source) {
  static_assert(kSpanInputs % kPairColumns == 0);
  if (!error().ok()) return;
  Add(kernels_.arrange, ArrangeArgs{&table(), in, inputs.in, kSpanInputs, before, kPairColumns, &visits, source});
  Add(kernels_.expert_matmul, ExpertMatMulArgs{Multiplying(inputs, in), &visits});
}

MatMulArgs CpuOps::Multiplying(const Inputs& inputs, const Rows& in) {
  const auto& kept = plan_.products.emplace_back(inputs.products);
  return {&table(), kept.data(), static_cast<int>(kept.size()), inputs.tiles, in.width, in.domain, inputs.bytes / inputs.tiles, inputs.in};
}

ArrangeArgs CpuOps::Arranging(const Rows& in, const Activations& to) {
  constexpr int kPiece = kSpanInputs;
  ArrangeArgs args{&table(), in, to, kPiece, {}, 0, nullptr, nullptr};
  if (last_made_.data != in.data || last_made_.stride != in.stride || last_made_.width != in.width || last_made_.domain != in.domain ||
      !error().ok()) {
    return args;
  }
  args.before_columns = last_columns_;
  const int several = std::max(1, kPiece / last_columns_) * last_columns_;
  args.piece = several % kSpanInputs == 0 ? several : in.width;
  const Launch& before = plan_.row_work.emplace_back(plan_.array.back());
  plan_.array.pop_back();
  args.before = {before.run, before.args};
  return args;
}

void CpuOps::RecordSwiGlu(const Rows& out, const Rows& gate, const Rows& up) {
  AddRowWork(kernels_.swiglu, GluArgs{&table(), out, gate, up}, kPairColumns);
}

void CpuOps::RecordGeGlu(const Rows& out, const Rows& gate, const Rows& up) {
  AddRowWork(kernels_.geglu, GluArgs{&table(), out, gate, up}, kPairColumns);
}

void CpuOps::RecordReluSquared(const Rows& out, const Rows& in) {
  AddRowWork(kernels_.relu_squared, ReluSquaredArgs{&table(), out, in}, kPairColumns);
}

void CpuOps::RecordSigmoidGate(const Rows& rows, const Rows& gate) {
  AddRowWork(kernels_.sigmoid_gate, SigmoidGateArgs{&table(), rows, gate}, rows.width);
}

void CpuOps::RecordMultiply(const Rows& out, const Rows& a, const Rows& b) {
  AddRowWork(kernels_.multiply, MultiplyArgs{&table(), out, a, b}, kPairColumns);
}

void CpuOps::RecordAddBias(const Rows& rows, const float* bias) { Add(kernels_.add_bias, AddBiasArgs{&table(), rows, bias}); }

void CpuOps::RecordSoftCap(const Rows& rows, float cap) { Add(kernels_.soft_cap, SoftCapArgs{&table(), rows, cap}); }

void CpuOps::RecordRopeTable(float* angles, const uint64_t* turns, const RopeSpec& rope) {
  Add(RopeTableKernel(), RopeTableArgs{&table(), angles, turns, rope.dims, rope.magnitude});
}

void CpuOps::RecordNormRope(const Heads& heads, const float* weight, float eps, const float* angles, const RopeSpec& rope) {
  Add(kernels_.norm_rope, NormRopeArgs{&table(), heads, weight, angles, eps, rope.dims, rope.interleaved});
}

void CpuOps::RecordScaleByPosition(const Rows& rows, const Vector& factors, int every) {
  Add(kernels_.scale_by_position, ScaleByPositionArgs{&table(), rows, factors, every});
}

void CpuOps::RecordAppend(const StateRef& state, const Rows& in) { Add(AppendKernel(), AppendArgs{&table(), in, state}); }

void CpuOps::RecordAttention(const Rows& out, const Heads& q, const StateRef& k, const StateRef& v, const Heads& gate,
                             const AttentionSpec& spec) {
  if (!Check(q.count / spec.kv_heads <= kMostQueries, "Attention", "too many query heads share a key-value head")) return;
  // Split work is for few rows, where partials are small; 8 MB hold 262,144 positions of one row with 8 heads of 256.
  constexpr int64_t kPartialFloats = int64_t{2} << 20;
  const int64_t slots = kPartialFloats / (q.width + 2);
  const AttentionCut* const cut = CutFor({&table(), nullptr, q.count, spec, threads_, slots});
  AttentionArgs args{&table(), cut, out, q, gate, k, v, spec, nullptr, 0, nullptr};
  args.scratch_floats = AttentionScratchFloats(args);
  args.scratch = Scratch<float>("attention", args.scratch_floats * threads_);
  args.partials = Scratch<float>("attention partials", kPartialFloats);
  Add(kernels_.attention, args);
  Add(kernels_.combine_attention, args);
}

const AttentionCut* CpuOps::CutFor(AttentionCutArgs args) {
  for (const auto& [known, cut] : cuts_) {
    if (known.heads == args.heads && known.spec.kv_heads == args.spec.kv_heads && known.spec.first_position == args.spec.first_position &&
        known.spec.window == args.spec.window && known.partial_slots == args.partial_slots) {
      return cut;
    }
  }
  const std::string name = "attention cut " + std::to_string(cuts_.size());
  const int64_t rows = MostRows(Domain::kRows);
  args.cut = Scratch<AttentionCut>(name, 1);
  auto* const members = Scratch<AttentionMember>(name + " members", AttentionCut::MostMembers(rows));
  auto* const spans = Scratch<AttentionSpan>(name + " spans", AttentionCut::MostSpans(rows));
  if (!error().ok()) return nullptr;
  *args.cut = {};
  args.cut->member = members;
  args.cut->span = spans;
  Add(AttentionCutKernel(), args);
  cuts_.emplace_back(args, args.cut);
  return args.cut;
}

void CpuOps::RecordCausalConv(const Rows& out, const Rows& in, const StateRef& tail, const float* weight, const float* bias, int kernel,
                              bool silu) {
  if (!Check(kernel <= kMostTaps, "CausalConv", "there are more than 16 taps")) return;
  const float* const taps = Take(taps_.Of(weight, in.width, kernel));
  Add(kernels_.conv, ConvArgs{&table(), out, in, tail, taps, bias, kernel, silu});
}

void CpuOps::RecordDeltaNet(const Rows& out, const Rows& qkv, const Rows& alpha, const Rows& beta, const float* a, const float* dt,
                            const StateRef& state, const DeltaNetShape& s) {
  DeltaNetArgs args{Slices(state, s.value_heads, s.key_dim, s.value_dim), out, qkv, alpha, beta, a, dt, s, nullptr, nullptr};
  args.unit_qk = Scratch<float>("delta net inputs", MostRows(Domain::kRows) * 2 * s.key_heads * s.key_dim);
  args.gates = Scratch<float>("delta net gates", MostRows(Domain::kRows) * 2 * s.value_heads);
  Add(kernels_.delta_inputs, args);
  Add(kernels_.delta_net, args);
}

void CpuOps::RecordSsm(const Rows& out, const Rows& xbc, const Rows& dt, const float* a, const float* dt_bias, const float* d,
                       const StateRef& state, const SsmShape& s) {
  SsmArgs args{Slices(state, s.heads, s.state_dim, s.head_dim), out, xbc, dt, a, dt_bias, d, s.groups, nullptr, nullptr};
  args.group_bc = Scratch<float>("ssm inputs", MostRows(Domain::kRows) * 2 * s.groups * s.state_dim);
  args.gates = Scratch<float>("ssm gates", MostRows(Domain::kRows) * 2 * s.heads);
  Add(kernels_.ssm_inputs, args);
  Add(kernels_.ssm, args);
}

void CpuOps::RecordSelectiveScan(const Rows& out, const Rows& x, const Rows& dt, const Rows& b, const Rows& c, const float* a,
                                 const float* dt_bias, const float* d, const StateRef& state) {
  Add(kernels_.scan, ScanArgs{&table(), out, x, dt, b, c, a, dt_bias, d, state});
}

SliceArgs CpuOps::Slices(const StateRef& state, int heads, int rows, int columns) {
  SliceArgs args{&table(), state, heads, rows, columns, nullptr};
  args.scratch = Scratch<float>("state slices", SliceScratchFloats(args) * threads_);
  return args;
}

void CpuOps::RecordGatedRmsNorm(const Rows& out, const Rows& in, const Rows& gate, const float* weight, int head, float eps) {
  AddRowWork(kernels_.gated_rms_norm, GatedRmsNormArgs{&table(), out, in, gate, weight, head, eps}, head);
}

void CpuOps::RecordPrevious(const Rows& out, const Rows& in, const StateRef& last) {
  Add(PreviousKernel(), LastArgs{&table(), out, in, last});
}

void CpuOps::RecordSaveLast(const StateRef& last, const Rows& in) { Add(SaveLastKernel(), LastArgs{&table(), {}, in, last}); }

void CpuOps::RecordLoadLast(const Rows& out, const StateRef& last) { Add(LoadLastKernel(), LastArgs{&table(), out, {}, last}); }

void CpuOps::RecordLastRows(const Rows& out, const Rows& in) { Add(LastRowsKernel(), LastArgs{&table(), out, in, {}}); }

void CpuOps::RecordLog(std::span<const LogPart> parts, bool recall) {
  Add(LogKernel(), LogArgs{&table(), plan_.log_parts.emplace_back(parts.begin(), parts.end()), recall});
}

void CpuOps::RecordArgMax(int32_t* index, const Rows& in) { Add(kernels_.argmax, ArgMaxArgs{&table(), in, index}); }

}  // namespace reprise
