#include "backend/checked_ops.h"

namespace reprise {

bool CheckedOps::Check(bool condition, const char* op, const char* what) {
  if (!condition && error_.ok()) error_ = InvalidArgument(std::string("capturing ") + op + ": " + what);
  return condition && error_.ok();
}

bool CheckedOps::CheckRows(const char* op, const Rows& rows, int width, Domain domain) {
  return Check(rows.data != nullptr, op, "a rows view has no data") && Check(rows.width > 0, op, "a rows view has no columns") &&
         Check(rows.stride >= rows.width, op, "a rows view is wider than its stride") &&
         Check(rows.width == width, op, "widths do not agree") && Check(rows.domain == domain, op, "domains (rows, lanes) do not agree");
}

bool CheckedOps::CheckHeads(const char* op, const Heads& heads) {
  return CheckRows(op, heads.rows, heads.rows.width, Domain::kRows) &&
         Check(heads.count > 0 && heads.width > 0, op, "there are no heads") && Check(heads.stride >= heads.width, op, "heads overlap") &&
         Check(int64_t{heads.count - 1} * heads.stride + heads.width <= heads.rows.width, op, "heads do not fit the row");
}

bool CheckedOps::CheckState(const char* op, const StateRef& state, int64_t floats, const char* what) {
  return Check(state.type == ElementType::kF32 && state.bytes == sizeof(float) * static_cast<size_t>(floats), op, what);
}

void CheckedOps::Embed(Rows out, const Matrix& table, float scale) {
  if (Check(OwnsTable(table), "Embed", "the matrix belongs to another backend") && CheckRows("Embed", out, table.inputs, Domain::kRows)) {
    RecordEmbed(out, table, scale);
  }
}

void CheckedOps::RmsNorm(Rows out, Rows in, Vector weight, float eps) {
  if (CheckRows("RmsNorm", in, in.width, in.domain) && CheckRows("RmsNorm", out, in.width, in.domain) &&
      Check(weight.data && weight.size > 0 && in.width % weight.size == 0, "RmsNorm", "the weight is no part of a row")) {
    RecordRmsNorm(out, in, weight.data, static_cast<int>(weight.size), eps, /*accumulate=*/false, 1.0f);
  }
}

void CheckedOps::AddRmsNorm(Rows out, Rows in, Vector weight, float eps, float scale) {
  if (CheckRows("AddRmsNorm", in, in.width, in.domain) && CheckRows("AddRmsNorm", out, in.width, in.domain) &&
      Check(out.data != in.data, "AddRmsNorm", "rows are added to themselves") &&
      Check(weight.data && weight.size > 0 && in.width % weight.size == 0, "AddRmsNorm", "the weight is no part of a row")) {
    RecordRmsNorm(out, in, weight.data, static_cast<int>(weight.size), eps, /*accumulate=*/true, scale);
  }
}

void CheckedOps::MatMul(Rows in, std::span<const Product> products) {
  if (!CheckRows("MatMul", in, in.width, in.domain) || !Check(!products.empty(), "MatMul", "there is no product")) return;
  for (const Product& product : products) {
    if (!Check(product.weight && Owns(*product.weight), "MatMul", "a matrix is missing or belongs to another backend") ||
        !Check(product.weight->inputs == in.width, "MatMul", "a matrix has other inputs than the row has columns") ||
        !CheckRows("MatMul", product.out, product.weight->outputs, in.domain)) {
      return;
    }
  }
  RecordMatMul(in, products);
}

void CheckedOps::SwiGlu(Rows out, Rows gate, Rows up) {
  if (CheckRows("SwiGlu", out, out.width, out.domain) && CheckRows("SwiGlu", gate, out.width, out.domain) &&
      CheckRows("SwiGlu", up, out.width, out.domain)) {
    RecordSwiGlu(out, gate, up);
  }
}

void CheckedOps::GeGlu(Rows out, Rows gate, Rows up) {
  if (CheckRows("GeGlu", out, out.width, out.domain) && CheckRows("GeGlu", gate, out.width, out.domain) &&
      CheckRows("GeGlu", up, out.width, out.domain)) {
    RecordGeGlu(out, gate, up);
  }
}

void CheckedOps::ReluSquared(Rows out, Rows in) {
  if (CheckRows("ReluSquared", in, in.width, in.domain) && CheckRows("ReluSquared", out, in.width, in.domain)) RecordReluSquared(out, in);
}

void CheckedOps::MixExperts(Rows out, Rows in, Rows scores, const Experts& experts) {
  const char* const op = "MixExperts";
  const auto is_bias_of = [](const Vector& bias, const Matrix& matrix) { return !bias.data || bias.size == matrix.outputs; };
  if (!Check(experts.count > 0 && experts.used > 0 && experts.used <= experts.count, op, "more experts are used than there are, or none") ||
      !CheckRows(op, in, in.width, in.domain) || !CheckRows(op, out, out.width, in.domain) ||
      !CheckRows(op, scores, experts.count, in.domain) ||
      !Check(!experts.choice_bias.data || (experts.sigmoid && experts.choice_bias.size == experts.count), op,
             "the bias of the choice is not one value an expert, or the probabilities are no sigmoids") ||
      !Check(!experts.score_bias.data || experts.score_bias.size == experts.count, op,
             "the bias of the scores is not one value an expert") ||
      !Check(!experts.weight_scale.data || experts.weight_scale.size == experts.count, op,
             "the scale of the weights is not one value an expert") ||
      !Check(HasGate(experts.activation) || (!experts.gate && !experts.gate_bias.data), op,
             "the activation has no gate, but the experts do")) {
    return;
  }
  const Matrix* const gate = HasGate(experts.activation) ? experts.gate : experts.up;
  for (const Matrix* matrix : {gate, experts.up, experts.down}) {
    if (!Check(matrix && Owns(*matrix), op, "a matrix is missing or belongs to another backend")) return;
  }
  if (Check(gate->inputs == in.width && experts.up->inputs == in.width, op, "an expert has other inputs than the row has columns") &&
      Check(gate->outputs == int64_t{experts.count} * experts.down->inputs && experts.up->outputs == gate->outputs, op,
            "the experts' gates, ups and downs do not agree") &&
      Check(
          is_bias_of(experts.gate_bias, *gate) && is_bias_of(experts.up_bias, *experts.up) && is_bias_of(experts.down_bias, *experts.down),
          op, "a bias is not one value for each of an expert's results") &&
      Check(experts.down->outputs == int64_t{experts.count} * out.width, op, "the experts' results are not as wide as the row")) {
    RecordMixExperts(out, in, scores, experts);
  }
}

void CheckedOps::SigmoidGate(Rows rows, Rows gate) {
  if (CheckRows("SigmoidGate", rows, rows.width, rows.domain) && CheckRows("SigmoidGate", gate, 1, rows.domain)) {
    RecordSigmoidGate(rows, gate);
  }
}

void CheckedOps::Multiply(Rows out, Rows a, Rows b) {
  if (CheckRows("Multiply", out, out.width, out.domain) && CheckRows("Multiply", a, out.width, out.domain) &&
      CheckRows("Multiply", b, out.width, out.domain)) {
    RecordMultiply(out, a, b);
  }
}

void CheckedOps::AddBias(Rows rows, Vector bias) {
  if (CheckRows("AddBias", rows, rows.width, rows.domain) &&
      Check(bias.data && bias.size == rows.width, "AddBias", "the bias is not one row")) {
    RecordAddBias(rows, bias.data);
  }
}

void CheckedOps::SoftCap(Rows rows, float cap) {
  if (CheckRows("SoftCap", rows, rows.width, rows.domain) && Check(cap > 0.0f, "SoftCap", "the cap is not above zero")) {
    RecordSoftCap(rows, cap);
  }
}

void CheckedOps::NormRope(Heads heads, Vector weight, float eps, const RopeSpec& rope) {
  if (!CheckHeads("NormRope", heads) ||
      !Check(rope.dims >= 0 && rope.dims % 2 == 0 && rope.dims <= heads.width, "NormRope", "dims must be even and within the head") ||
      !Check(!weight.data || weight.size == heads.width, "NormRope", "the weight is not one head")) {
    return;
  }
  const float* const angles = rope.dims > 0 ? Angles(rope) : nullptr;
  if (error_.ok()) RecordNormRope(heads, weight.data, eps, angles, rope);
}

const float* CheckedOps::Angles(const RopeSpec& rope) {
  for (const auto& [known, angles] : angles_) {
    if (known.SameAngles(rope)) return angles;
  }
  const uint64_t* const turns = Take(workspace_.Turns(rope));
  float* const angles = Scratch<float>("rope angles " + std::to_string(angles_.size()), MostRows(Domain::kRows) * rope.dims);
  if (!error_.ok()) return nullptr;
  RecordRopeTable(angles, turns, rope);
  angles_.emplace_back(rope, angles);
  return angles;
}

// Element types of rows that Append writes and Attention reads.
static bool HoldsNumbers(ElementType type) { return type == ElementType::kF32 || type == ElementType::kF16 || type == ElementType::kQ8_0; }
static bool IsRowOf(const StateRef& state, int numbers) {
  const int of_element = state.type == ElementType::kQ8_0 ? kQ8Values : 1;
  return numbers % of_element == 0 && state.bytes == ElementSize(state.type) * static_cast<size_t>(numbers / of_element);
}

void CheckedOps::ScaleByPosition(Rows rows, Vector factors, int every) {
  if (CheckRows("ScaleByPosition", rows, rows.width, Domain::kRows) &&
      Check(factors.data && factors.size > 0 && every > 0, "ScaleByPosition", "there are no factors")) {
    RecordScaleByPosition(rows, factors, every);
  }
}

void CheckedOps::Append(StateRef state, Rows in) {
  if (CheckRows("Append", in, in.width, Domain::kRows) &&
      Check(HoldsNumbers(state.type), "Append", "the state is neither float32, float16 nor Q8_0") &&
      Check(IsRowOf(state, in.width), "Append", "the row is not as wide as the state")) {
    RecordAppend(state, in);
  }
}

void CheckedOps::Attention(Rows out, Heads q, StateRef k, StateRef v, Heads gate, const AttentionSpec& spec) {
  if (!CheckHeads("Attention", q) || !CheckRows("Attention", out, q.count * q.width, Domain::kRows) ||
      !Check(spec.kv_heads > 0 && q.count % spec.kv_heads == 0, "Attention", "query heads are no multiple of key-value heads") ||
      !Check(spec.first_position >= 0 && spec.window >= 0, "Attention", "the first position or the window is negative") ||
      !Check(!spec.sinks.data || spec.sinks.size == q.count, "Attention", "the sinks are not one score a query head") ||
      !Check(k.type == v.type && HoldsNumbers(k.type), "Attention", "keys and values are not both float32, both float16 or both Q8_0") ||
      !Check(k.type != ElementType::kQ8_0 || q.width % kQ8Values == 0, "Attention", "a head of Q8_0 is no whole number of blocks") ||
      !Check(IsRowOf(k, spec.kv_heads * q.width) && IsRowOf(v, spec.kv_heads * q.width), "Attention",
             "a state's row is not kv_heads x head width")) {
    return;
  }
  if (gate.count && (!CheckHeads("Attention", gate) ||
                     !Check(gate.count == q.count && gate.width == q.width, "Attention", "the gate has other heads than the query"))) {
    return;
  }
  RecordAttention(out, q, k, v, gate, spec);
}

void CheckedOps::CausalConv(Rows out, Rows in, StateRef tail, Vector weight, Vector bias, int kernel, bool silu) {
  if (CheckRows("CausalConv", in, in.width, Domain::kRows) && CheckRows("CausalConv", out, in.width, Domain::kRows) &&
      Check(kernel >= 1 && weight.data && weight.size == int64_t{kernel} * in.width, "CausalConv", "the weight is not channels x kernel") &&
      Check(!bias.data || bias.size == in.width, "CausalConv", "the bias is not one value a channel") &&
      CheckState("CausalConv", tail, int64_t{kernel - 1} * in.width, "the tail is not float32 (kernel - 1) x channels")) {
    RecordCausalConv(out, in, tail, weight.data, bias.data, kernel, silu);
  }
}

void CheckedOps::DeltaNet(Rows out, Rows qkv, Rows alpha, Rows beta, Vector a, Vector dt, StateRef state, const DeltaNetShape& shape) {
  const DeltaNetShape& s = shape;
  if (Check(s.key_heads > 0 && s.key_dim > 0 && s.value_heads > 0 && s.value_dim > 0, "DeltaNet", "the shape has a zero") &&
      Check(!s.neighbours || s.value_heads % s.key_heads == 0, "DeltaNet", "value heads are no multiple of key heads") &&
      CheckRows("DeltaNet", qkv, 2 * s.key_heads * s.key_dim + s.value_heads * s.value_dim, Domain::kRows) &&
      CheckRows("DeltaNet", out, s.value_heads * s.value_dim, Domain::kRows) &&
      CheckRows("DeltaNet", alpha, s.value_heads, Domain::kRows) && CheckRows("DeltaNet", beta, s.value_heads, Domain::kRows) &&
      Check(a.data && a.size == s.value_heads && dt.data && dt.size == s.value_heads, "DeltaNet", "a or dt is not one value a head") &&
      CheckState("DeltaNet", state, int64_t{s.value_heads} * s.key_dim * s.value_dim,
                 "the state is not float32 value_heads x key_dim x value_dim")) {
    RecordDeltaNet(out, qkv, alpha, beta, a.data, dt.data, state, shape);
  }
}

void CheckedOps::Ssm(Rows out, Rows xbc, Rows dt, Vector a, Vector dt_bias, Vector d, StateRef state, const SsmShape& shape) {
  const SsmShape& s = shape;
  const auto one_a_head = [&](const Vector& vector) { return vector.data && vector.size == s.heads; };
  if (Check(s.heads > 0 && s.head_dim > 0 && s.groups > 0 && s.state_dim > 0, "Ssm", "the shape has a zero") &&
      Check(s.heads % s.groups == 0, "Ssm", "heads are no multiple of groups") &&
      CheckRows("Ssm", xbc, s.heads * s.head_dim + 2 * s.groups * s.state_dim, Domain::kRows) &&
      CheckRows("Ssm", out, s.heads * s.head_dim, Domain::kRows) && CheckRows("Ssm", dt, s.heads, Domain::kRows) &&
      Check(one_a_head(a) && one_a_head(dt_bias) && one_a_head(d), "Ssm", "a, dt_bias or d is not one value a head") &&
      CheckState("Ssm", state, int64_t{s.heads} * s.state_dim * s.head_dim, "the state is not float32 heads x state_dim x head_dim")) {
    RecordSsm(out, xbc, dt, a.data, dt_bias.data, d.data, state, shape);
  }
}

void CheckedOps::SelectiveScan(Rows out, Rows x, Rows dt, Rows b, Rows c, Vector a, Vector dt_bias, Vector d, StateRef state) {
  const char* const op = "SelectiveScan";
  const int64_t states = int64_t{x.width} * b.width;
  if (CheckRows(op, x, x.width, Domain::kRows) && CheckRows(op, out, x.width, Domain::kRows) && CheckRows(op, dt, x.width, Domain::kRows) &&
      CheckRows(op, b, b.width, Domain::kRows) && CheckRows(op, c, b.width, Domain::kRows) &&
      Check(x.width % kScanChannels == 0, op, "the channels are no multiple of 16") &&
      Check(a.data && a.size == states, op, "a is not one value for each channel and dimension of the state") &&
      Check(dt_bias.data && dt_bias.size == x.width && d.data && d.size == x.width, op, "dt_bias or d is not one value a channel") &&
      CheckState(op, state, states, "the state is not float32 channels x state_dim")) {
    RecordSelectiveScan(out, x, dt, b, c, a.data, dt_bias.data, d.data, state);
  }
}

void CheckedOps::GatedRmsNorm(Rows out, Rows in, Rows gate, Vector weight, float eps) {
  if (CheckRows("GatedRmsNorm", in, in.width, in.domain) && CheckRows("GatedRmsNorm", out, in.width, in.domain) &&
      CheckRows("GatedRmsNorm", gate, in.width, in.domain) &&
      Check(weight.data && weight.size > 0 && in.width % weight.size == 0, "GatedRmsNorm", "the row is not whole heads of the weight")) {
    RecordGatedRmsNorm(out, in, gate, weight.data, static_cast<int>(weight.size), eps);
  }
}

constexpr char kNotOneRow[] = "the state is not one row of float32";

void CheckedOps::Previous(Rows out, Rows in, StateRef last) {
  if (CheckRows("Previous", in, in.width, Domain::kRows) && CheckRows("Previous", out, in.width, Domain::kRows) &&
      CheckState("Previous", last, in.width, kNotOneRow)) {
    RecordPrevious(out, in, last);
  }
}

void CheckedOps::SaveLast(StateRef last, Rows in) {
  if (CheckRows("SaveLast", in, in.width, in.domain) && CheckState("SaveLast", last, in.width, kNotOneRow)) RecordSaveLast(last, in);
}

void CheckedOps::LoadLast(Rows out, StateRef last) {
  if (CheckRows("LoadLast", out, out.width, Domain::kLanes) && CheckState("LoadLast", last, out.width, kNotOneRow)) {
    RecordLoadLast(out, last);
  }
}

void CheckedOps::LastRows(Rows out, Rows in) {
  if (CheckRows("LastRows", in, in.width, Domain::kRows) && CheckRows("LastRows", out, in.width, Domain::kLanes)) RecordLastRows(out, in);
}

void CheckedOps::CopyLog(const char* op, std::span<const LogPart> parts, bool recall) {
  for (const LogPart& part : parts) {
    if (!CheckRows(op, part.rows, part.rows.width, Domain::kRows) || !Check(part.column >= 0, op, "a part lies before the log's rows"))
      return;
  }
  if (Check(!parts.empty(), op, "there is nothing to keep")) RecordLog(parts, recall);
}

void CheckedOps::ArgMax(int32_t* index, Rows in) {
  if (CheckRows("ArgMax", in, in.width, in.domain) && Check(index != nullptr, "ArgMax", "there is nowhere to write the index")) {
    RecordArgMax(index, in);
  }
}

void CheckedOps::Best(const BestRows& out, Rows in) {
  if (CheckRows("Best", in, in.width, in.domain) &&
      Check(out.index && out.values && out.columns && out.rows > 0, "Best", "there is nowhere to write them")) {
    RecordBest(out, in);
  }
}

void CheckedOps::Weigh(double* parts, const WeighedRow* row, Rows in) {
  if (CheckRows("Weigh", in, in.width, in.domain) && Check(parts && row, "Weigh", "the row's name or the place of the sums is missing")) {
    RecordWeigh(parts, row, in);
  }
}

void CheckedOps::RecordWeigh(double*, const WeighedRow*, const Rows&) {
  Check(false, "Weigh", "this backend's logits are read where they lie");
}

void CheckedOps::RecordBest(const BestRows&, const Rows&) { Check(false, "Best", "this backend's logits are read where they lie"); }

}  // namespace reprise
