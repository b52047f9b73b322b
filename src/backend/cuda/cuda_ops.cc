#include <algorithm>

#include "backend/cuda/cuda_plan.h"
#include "backend/cuda/fuse.h"
#include "backend/cuda/grids.h"

namespace reprise::cuda {

bool CudaOps::Owns(const Matrix& matrix) const { return dynamic_cast<const PackedWeight*>(&matrix) != nullptr; }

void CudaOps::RecordEmbed(const Rows& out, const Matrix& table, float scale) {
  Add<EmbedArgs, EmbedGrid>(kEmbed, {step_, out, static_cast<const PackedWeight&>(table).view, scale});
}

void CudaOps::RecordRmsNorm(const Rows& out, const Rows& in, const float* weight, int group, float eps, bool accumulate, float scale) {
  // Groups of a row that lie side by side, as their weights do, share a launch: in place, or where they go to other rows.
  const bool shared = !accumulate && in.width == group && ShareLast<RmsNormArgs>(kRmsNorm, [&](RmsNormArgs& args) {
    const auto goes_on = [](const Rows& from, const Rows& to) {
      return from.data + from.width == to.data && from.stride == to.stride && from.domain == to.domain;
    };
    RmsNormArgs both = args;
    both.weight_step = group;
    both.in.width += group;
    both.out.width = both.in.width;
    const bool in_place = args.in.data == args.out.data && args.in.stride == args.out.stride;
    if (!goes_on(args.in, in) || !goes_on(args.out, out) || args.width != group || args.weight + args.in.width != weight ||
        (args.in.width != group && args.weight_step != group) || args.accumulate || args.eps != eps || args.quant.quants != nullptr ||
        !(in_place || !Overlap(both.in, both.out, static_cast<int>(MostRows(in.domain))))) {
      return false;
    }
    args = both;
    return true;
  });
  if (!shared) Add<RmsNormArgs, RmsNormGrid>(kRmsNorm, {step_, out, in, weight, group, 0, eps, accumulate, scale, {}});
}

QuantRows CudaOps::NewQuants(const std::string& use, int inputs, int64_t rows) {
  const int stride = CeilDiv(inputs, kSegment) * kSegment;
  rows = (rows + kMmaRows - 1) / kMmaRows * kMmaRows;
  // By the number of inputs, since what lies past them must stay zero.
  const std::string name = std::to_string(inputs) + " inputs' " + use;
  QuantRows quant;
  quant.quants = Scratch<int8_t>(name + "quants", rows * stride);
  quant.scales = Scratch<float>(name + "scales", rows * (stride / kBlock));
  quant.sums = Scratch<float>(name + "sums", rows * (stride / kBlock));
  quant.stride = stride;
  return error().ok() ? quant : QuantRows{};
}

// The kernel that made the rows quantises them in passing where it can: they are in its registers then.
QuantRows CudaOps::Quantised(const Rows& in) {
  const QuantRows quant = NewQuants("", in.width, MostRows(in.domain));
  if (!error().ok()) return {};
  const auto makes = [&](const auto& args) {
    return args.out.data == in.data && args.out.width == in.width && args.out.stride == in.stride && args.out.domain == in.domain;
  };
  const bool made =
      ShareLast<RmsNormArgs>(kRmsNorm,
                             [&](RmsNormArgs& args) {
                               return makes(args) && (args.width == in.width || args.width % kBlock == 0) && (args.quant = quant, true);
                             }) ||
      ShareLast<GluArgs>(kSwiGlu, [&](GluArgs& args) { return makes(args) && (args.quant = quant, true); }) ||
      ShareLast<GluArgs>(kGeGlu, [&](GluArgs& args) { return makes(args) && (args.quant = quant, true); }) ||
      ShareLast<ReluSquaredArgs>(kReluSquared, [&](ReluSquaredArgs& args) { return makes(args) && (args.quant = quant, true); }) ||
      ShareLast<MultiplyArgs>(kMultiply, [&](MultiplyArgs& args) { return makes(args) && (args.quant = quant, true); }) ||
      ShareLast<GatedRmsNormArgs>(
          kGatedRmsNorm, [&](GatedRmsNormArgs& args) { return makes(args) && args.width % kBlock == 0 && (args.quant = quant, true); }) ||
      ShareLast<AttentionArgs>(
          kJoin, [&](AttentionArgs& args) { return makes(args) && args.q.width % kBlock == 0 && (args.quant = quant, true); });
  if (made) return quant;
  Add<QuantiseArgs, QuantiseGrid>(kQuantise, {step_, in, quant});
  return quant;
}

void CudaOps::RecordMatMul(const Rows& in, std::span<const Product> products) {
  const bool quantised = std::any_of(products.begin(), products.end(), [](const Product& product) {
    return !IsFloat(static_cast<const PackedWeight*>(product.weight)->view.form);
  });
  const QuantRows quant = quantised ? Quantised(in) : QuantRows{};
  // Products of one form share a launch.
  std::vector<bool> done(products.size());
  for (size_t first = 0; first < products.size(); ++first) {
    if (done[first]) continue;
    MatMulArgs args{};
    args.step = step_;
    args.in = in;
    args.quant = quant;
    const Form form = static_cast<const PackedWeight*>(products[first].weight)->view.form;
    for (size_t i = first; i < products.size() && args.products < MatMulArgs::kMostProducts; ++i) {
      const auto& weight = static_cast<const PackedWeight*>(products[i].weight)->view;
      if (done[i] || weight.form != form) continue;
      args.product[args.products++] = {weight, products[i].out, products[i].accumulate};
      done[i] = true;
    }
    Add<MatMulArgs, ProductGrid>(kMatVec, args);
  }
}

void CudaOps::RecordSwiGlu(const Rows& out, const Rows& gate, const Rows& up) {
  Add<GluArgs, GluGrid>(kSwiGlu, {step_, out, gate, up, {}});
}

void CudaOps::RecordGeGlu(const Rows& out, const Rows& gate, const Rows& up) { Add<GluArgs, GluGrid>(kGeGlu, {step_, out, gate, up, {}}); }

void CudaOps::RecordReluSquared(const Rows& out, const Rows& in) {
  Add<ReluSquaredArgs, ReluSquaredGrid>(kReluSquared, {step_, out, in, {}});
}

void CudaOps::RecordMixExperts(const Rows& out, const Rows& in, const Rows& scores, const Experts& experts) {
  const char* const op = "MixExperts";
  const auto view = [](const Matrix* matrix) { return static_cast<const PackedWeight*>(matrix)->view; };
  ExpertsArgs args{};
  args.step = step_;
  args.out = out;
  args.in = in;
  args.scores = scores;
  args.activation = experts.activation;
  args.gate = view(args.gated() ? experts.gate : experts.up);
  args.up = view(experts.up);
  args.down = view(experts.down);
  args.gate_bias = args.gated() ? experts.gate_bias.data : experts.up_bias.data;
  args.up_bias = args.gated() ? experts.up_bias.data : nullptr;
  args.down_bias = experts.down_bias.data;
  args.score_bias = experts.score_bias.data;
  args.choice_bias = experts.choice_bias.data;
  args.weight_scale = experts.weight_scale.data;
  args.adds = experts.adds;
  args.count = experts.count;
  args.used = experts.used;
  args.sigmoid = experts.sigmoid;
  args.normed = experts.normed;
  args.scale = experts.scale;
  args.inner = args.down.inputs;
  if (!Check(args.used <= kMostUsed && args.count <= kMostExperts, op, "a row goes to more than 32 experts, or there are more than 1024") ||
      !Check(args.inner % kTileOutputs == 0 && out.width % kTileOutputs == 0, op, "an expert's results are no multiple of 32")) {
    return;
  }
  const int64_t rows = MostRows(in.domain), visits = rows * args.used;
  if (!Check(visits <= INT32_MAX / kTileOutputs, op, "a step has too many rows")) return;
  args.chosen = Scratch<int32_t>("chosen experts", visits);
  args.weights = Scratch<float>("weights of experts", visits);
  if (!IsFloat(args.gate.form) || !IsFloat(args.up.form)) args.quant = NewQuants("", in.width, rows);
  if (IsFloat(args.down.form)) {
    args.hidden = {Scratch<float>("experts' hidden rows", visits * args.inner), args.inner, args.inner, in.domain};
  } else {
    args.hidden_quant = NewQuants("experts' ", args.inner, visits);
  }
  const auto in_runs = [&](const WeightView& weight) { return InRuns(weight.form, static_cast<int>(rows)); };
  if (in_runs(args.gate) || in_runs(args.up) || in_runs(args.down)) {
    args.order = Scratch<int32_t>("visits of experts", visits);
    args.run_count = Scratch<int32_t>("runs of visits, counted", 1);
    args.runs = Scratch<ExpertRun>("runs of visits", MostRuns(static_cast<int>(visits), args.count));
  }
  if (in_runs(args.down)) args.values = Scratch<float>("what experts made", visits * out.width);
  Add<ExpertsArgs, RouteExpertsGrid>(kRouteExperts, args);
  Add<ExpertsArgs, GroupExpertsGrid>(kGroupExperts, args);
  if (args.gate.form == args.up.form) {
    Add<ExpertsArgs, ExpertGateUpGrid>(ExpertGateUpId(args.gate.form), args);
  } else {
    args.gates = Scratch<float>("experts' gates", visits * args.inner);
    args.ups = Scratch<float>("experts' ups", visits * args.inner);
    for (const bool up : {false, true}) {
      ExpertsArgs half = args;
      half.gate = up ? args.up : args.gate;
      half.alone = up ? args.ups : args.gates;
      Add<ExpertsArgs, ExpertGateUpGrid>(ExpertGateUpId(half.gate.form), half);
    }
    Add<ExpertsArgs, ExpertActivateGrid>(kExpertActivate, args);
  }
  Add<ExpertsArgs, ExpertDownGrid>(ExpertDownId(args.down.form), args);
  Add<ExpertsArgs, JoinExpertsGrid>(kJoinExperts, args);
}

void CudaOps::RecordSigmoidGate(const Rows& rows, const Rows& gate) {
  Add<SigmoidGateArgs, SigmoidGateGrid>(kSigmoidGate, {step_, rows, gate});
}

void CudaOps::RecordMultiply(const Rows& out, const Rows& a, const Rows& b) {
  Add<MultiplyArgs, MultiplyGrid>(kMultiply, {step_, out, a, b, {}});
}

void CudaOps::RecordAddBias(const Rows& rows, const float* bias) {
  const bool shared = ShareLast<AddBiasArgs>(kAddBias, [&](AddBiasArgs& args) {
    if (args.count == AddBiasArgs::kMost) return false;
    for (int i = 0; i < args.count; ++i) {
      if (args.rows[i].data == rows.data) return false;
    }
    args.rows[args.count] = rows;
    args.bias[args.count++] = bias;
    return true;
  });
  if (!shared) Add<AddBiasArgs, AddBiasGrid>(kAddBias, {step_, 1, {rows}, {bias}});
}

void CudaOps::RecordSoftCap(const Rows& rows, float cap) { Add<SoftCapArgs, SoftCapGrid>(kSoftCap, {step_, rows, cap}); }

void CudaOps::RecordRopeTable(float* angles, const uint64_t* turns, const RopeSpec& rope) {
  Add<RopeTableArgs, RopeTableGrid>(kRopeTable, {step_, angles, turns, rope.dims, rope.magnitude});
}

void CudaOps::RecordNormRope(const Heads& heads, const float* weight, float eps, const float* angles, const RopeSpec& rope) {
  const bool shared = ShareLast<NormRopeArgs>(kNormRope, [&](NormRopeArgs& args) {
    if (args.count == kMostShared || args.heads[0].rows.data == heads.rows.data || args.angles != angles || args.eps != eps ||
        args.dims != rope.dims || args.interleaved != rope.interleaved) {
      return false;
    }
    args.heads[args.count] = heads;
    args.weight[args.count++] = weight;
    return true;
  });
  if (!shared) Add<NormRopeArgs, NormRopeGrid>(kNormRope, {step_, angles, eps, rope.dims, rope.interleaved, 1, {heads}, {weight}});
}

void CudaOps::RecordScaleByPosition(const Rows& rows, const Vector& factors, int every) {
  Add<ScaleByPositionArgs, ScaleByPositionGrid>(kScaleByPosition, {step_, rows, factors.data, static_cast<int32_t>(factors.size), every});
}

void CudaOps::RecordAppend(const StateRef& state, const Rows& in) {
  const bool shared = ShareLast<AppendArgs>(kAppend, [&](AppendArgs& args) {
    if (args.count == kMostShared || args.state[0].offset == state.offset) return false;
    args.in[args.count] = in;
    args.state[args.count++] = state;
    return true;
  });
  if (!shared) Add<AppendArgs, AppendGrid>(kAppend, {step_, 1, {in}, {state}});
}

void CudaOps::RecordAttention(const Rows& out, const Heads& q, const StateRef& k, const StateRef& v, const Heads& gate,
                              const AttentionSpec& spec) {
  if (!Check(q.count / spec.kv_heads <= kMostQueries, "Attention", "more than 16 query heads share a key-value head") ||
      !Check(q.width <= kMostHeadWidth, "Attention", "a head is wider than 512")) {
    return;
  }
  AttentionArgs args{step_, out, q, gate, k, v, spec, nullptr, 0, {}};
  // A share of the device: half a gigabyte of 80 holds 256 rows of 8 heads over 16,384 positions. Where it is too small, units go whole.
  const auto bytes = static_cast<int64_t>(std::clamp<size_t>(device_.total_bytes() / 128, size_t{64} << 10, size_t{512} << 20));
  args.partial_slots = bytes / static_cast<int64_t>(sizeof(float)) / (q.width + 2);
  args.partials = Scratch<float>("attention partials", bytes / static_cast<int64_t>(sizeof(float)));
  Add<AttentionArgs, AttentionGrid>(kAttention, args);
  Add<AttentionArgs, JoinGrid>(kJoin, args);
}

void CudaOps::RecordCausalConv(const Rows& out, const Rows& in, const StateRef& tail, const float* weight, const float* bias, int kernel,
                               bool silu) {
  Add<ConvArgs, ConvGrid>(kConv, {step_, out, in, tail, weight, bias, kernel, silu});
}

void CudaOps::RecordDeltaNet(const Rows& out, const Rows& qkv, const Rows& alpha, const Rows& beta, const float* a, const float* dt,
                             const StateRef& state, const DeltaNetShape& s) {
  if (!Check(s.key_dim <= kMostStateRows, "DeltaNet", "a key is wider than 256")) return;
  DeltaNetArgs args{step_, out, qkv, alpha, beta, a, dt, state, s, nullptr, nullptr};
  args.unit_qk = Scratch<float>("delta net inputs", DeltaUnitAt(s, StateRows(s.key_dim), static_cast<int>(MostRows(Domain::kRows)), 0));
  args.gates = Scratch<DeltaGates>("delta net gates", MostRows(Domain::kRows) * s.value_heads);
  Add<DeltaNetArgs, DeltaInputsGrid>(kDeltaInputs, args);
  Add<DeltaNetArgs, DeltaNetGrid>(kDeltaNet + StateChoice(s.key_dim), args);
}

void CudaOps::RecordSsm(const Rows& out, const Rows& xbc, const Rows& dt, const float* a, const float* dt_bias, const float* d,
                        const StateRef& state, const SsmShape& s) {
  if (!Check(s.state_dim <= kMostStateRows, "Ssm", "the state has more than 256 dimensions")) return;
  Add<SsmArgs, SsmGrid>(kSsm + StateChoice(s.state_dim), {step_, out, xbc, dt, a, dt_bias, d, state, s});
}

void CudaOps::RecordSelectiveScan(const Rows& out, const Rows& x, const Rows& dt, const Rows& b, const Rows& c, const float* a,
                                  const float* dt_bias, const float* d, const StateRef& state) {
  if (!Check(b.width <= kMostScanStates, "SelectiveScan", "the state has more than 16 dimensions")) return;
  Add<ScanArgs, ScanGrid>(kScan, {step_, out, x, dt, b, c, a, dt_bias, d, state});
}

void CudaOps::RecordGatedRmsNorm(const Rows& out, const Rows& in, const Rows& gate, const float* weight, int head, float eps) {
  Add<GatedRmsNormArgs, GatedRmsNormGrid>(kGatedRmsNorm, {step_, out, in, gate, weight, head, eps, {}});
}

void CudaOps::RecordPrevious(const Rows& out, const Rows& in, const StateRef& last) {
  Add<LastArgs, PreviousGrid>(kPrevious, {step_, out, in, last});
}

void CudaOps::RecordSaveLast(const StateRef& last, const Rows& in) { Add<LastArgs, SaveLastGrid>(kSaveLast, {step_, {}, in, last}); }

void CudaOps::RecordLoadLast(const Rows& out, const StateRef& last) { Add<LastArgs, LoadLastGrid>(kLoadLast, {step_, out, {}, last}); }

void CudaOps::RecordLastRows(const Rows& out, const Rows& in) { Add<LastArgs, LoadLastGrid>(kLastRows, {step_, out, in, {}}); }

void CudaOps::RecordLog(std::span<const LogPart> parts, bool recall) {
  while (!parts.empty()) {
    const size_t count = std::min<size_t>(parts.size(), LogArgs::kMost);
    LogArgs args{step_, static_cast<int32_t>(count), recall, {}};
    std::copy_n(parts.begin(), count, args.parts);
    Add<LogArgs, LogGrid>(kLog, args);
    parts = parts.subspan(count);
  }
}

void CudaOps::RecordArgMax(int32_t* index, const Rows& in) {
  ArgMaxArgs args{step_, in, index, nullptr, nullptr};
  args.best = Scratch<float>("greatest values", MostRows(in.domain) * ArgMaxArgs::kParts);
  args.where = Scratch<int32_t>("their places", MostRows(in.domain) * ArgMaxArgs::kParts);
  Add<ArgMaxArgs, ArgMaxPartGrid>(kArgMaxPart, args);
  Add<ArgMaxArgs, ArgMaxGrid>(kArgMax, args);
}

void CudaOps::RecordBest(const BestRows& out, const Rows& in) {
  BestArgs args{step_, in, out, nullptr, nullptr};
  args.part_values = Scratch<float>("the best of parts", int64_t{out.rows} * args.parts() * kBestValues);
  args.part_columns = Scratch<int32_t>("columns of the best of parts", int64_t{out.rows} * args.parts() * kBestValues);
  Add<BestArgs, BestPartGrid>(kBestPart, args);
  Add<BestArgs, BestGrid>(kBest, args);
}

void CudaOps::RecordWeigh(double* parts, const WeighedRow* row, const Rows& in) { Add<WeighArgs, WeighGrid>(kWeigh, {in, row, parts}); }

}  // namespace reprise::cuda
