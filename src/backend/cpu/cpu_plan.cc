#include "backend/cpu/cpu_plan.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace reprise {

Result<std::byte*> Workspace::Slot(const std::string& name, size_t bytes) {
  auto& slot = slots_[name];
  if (!slot.first || slot.second < bytes) {
    REPRISE_ASSIGN_OR_RETURN(slot.first, arena_.Allocate(bytes, "scratch of " + name));
    slot.second = bytes;
  }
  return slot.first;
}

Result<const float*> Workspace::Taps(const float* weight, int channels, int kernel) {
  const auto key = std::make_tuple(weight, channels, kernel);
  if (const auto it = taps_.find(key); it != taps_.end()) return it->second;
  REPRISE_ASSIGN_OR_RETURN(std::byte* const memory, arena_.Allocate(sizeof(float) * channels * kernel, "convolution taps"));
  auto* const taps = reinterpret_cast<float*>(memory);
  for (int c = 0; c < channels; ++c) {
    for (int k = 0; k < kernel; ++k) taps[static_cast<int64_t>(k) * channels + c] = weight[static_cast<int64_t>(c) * kernel + k];
  }
  taps_[key] = taps;
  return taps;
}

Result<const uint64_t*> Workspace::Turns(const RopeSpec& rope) {
  const auto key = std::make_tuple(rope.dims, rope.base, rope.factors);
  if (const auto it = turns_.find(key); it != turns_.end()) return it->second;
  const int half = rope.dims / 2;
  REPRISE_ASSIGN_OR_RETURN(std::byte* const memory, arena_.Allocate(sizeof(uint64_t) * half, "rope frequencies"));
  auto* const turns = reinterpret_cast<uint64_t*>(memory);
  for (int i = 0; i < half; ++i) {
    double frequency = std::pow(rope.base, -2.0 * i / rope.dims);
    if (rope.factors) frequency /= static_cast<double>(rope.factors[i]);
    const double turn = frequency / (2.0 * std::numbers::pi);
    if (!std::isfinite(turn)) return InvalidArgument("rope: frequency " + std::to_string(i) + " is not finite");
    turns[i] = static_cast<uint64_t>(
        std::ldexp(turn - std::floor(turn), 64) < 18446744073709551615.0 ? std::ldexp(turn - std::floor(turn), 64) : 0.0);
  }
  turns_[key] = turns;
  return turns;
}

bool CpuOps::Check(bool condition, const char* op, const char* what) {
  if (!condition && error_.ok()) error_ = InvalidArgument(std::string("capturing ") + op + ": " + what);
  return condition && error_.ok();
}

bool CpuOps::CheckRows(const char* op, const Rows& rows, int width, Domain domain) {
  return Check(rows.data != nullptr, op, "a rows view has no data") && Check(rows.width > 0, op, "a rows view has no columns") &&
         Check(rows.stride >= rows.width, op, "a rows view is wider than its stride") &&
         Check(rows.width == width, op, "widths do not agree") && Check(rows.domain == domain, op, "domains (rows, lanes) do not agree");
}

bool CpuOps::CheckHeads(const char* op, const Heads& heads) {
  return CheckRows(op, heads.rows, heads.rows.width, Domain::kRows) &&
         Check(heads.count > 0 && heads.width > 0, op, "there are no heads") && Check(heads.stride >= heads.width, op, "heads overlap") &&
         Check(int64_t{heads.count - 1} * heads.stride + heads.width <= heads.rows.width, op, "heads do not fit the row");
}

bool CpuOps::CheckLast(const char* op, const StateRef& last, int width) {
  return Check(last.type == ElementType::kF32 && last.bytes == sizeof(float) * static_cast<size_t>(width), op,
               "the state is not one row of float32");
}

template <class T>
T* CpuOps::Scratch(const std::string& name, int64_t count) {
  auto memory = workspace_.Slot(name, static_cast<size_t>(count) * sizeof(T));
  if (!memory.ok()) {
    if (error_.ok()) error_ = memory.status();
    return nullptr;
  }
  return reinterpret_cast<T*>(*memory);
}

void CpuOps::Embed(Rows out, const Matrix& table) {
  const auto* matrix = dynamic_cast<const PackedMatrix*>(&table);
  if (!Check(matrix != nullptr, "Embed", "the matrix belongs to another backend")) return;
  if (!CheckRows("Embed", out, matrix->inputs, Domain::kRows)) return;
  Add(EmbedKernel(), EmbedArgs{&table_, out, matrix});
}

void CpuOps::RmsNorm(Rows out, Rows in, Vector weight, float eps) {
  if (!CheckRows("RmsNorm", in, in.width, in.domain) || !CheckRows("RmsNorm", out, in.width, in.domain)) return;
  if (!Check(weight.data && weight.size == in.width, "RmsNorm", "the weight is not one row")) return;
  Add(kernels_.rms_norm, RmsNormArgs{&table_, out, in, weight.data, eps});
}

void CpuOps::MatMul(Rows in, std::span<const Product> products) {
  if (!CheckRows("MatMul", in, in.width, in.domain) || !Check(!products.empty(), "MatMul", "there is no product")) return;
  Activations to;
  std::vector<ProductArgs> list;
  bool quantised = false, floats = false, sums = false;
  int zeros = 0, tiles = 0;
  double bytes = 0;
  std::vector<int> shift_of;  // of each product: which of the zeros, or -1
  for (const Product& product : products) {
    const auto* m = dynamic_cast<const PackedMatrix*>(product.weight);
    if (!Check(m != nullptr, "MatMul", "a matrix is missing or belongs to another backend")) return;
    if (!Check(m->inputs == in.width, "MatMul", "a matrix has other inputs than the row has columns")) return;
    if (!CheckRows("MatMul", product.out, m->outputs, in.domain)) return;
    const FormTraits traits = TraitsOf(m->form);
    quantised |= traits.quantised();
    floats |= !traits.quantised();
    sums |= traits.has_min;
    int shift = -1;
    if (traits.quantised() && !traits.has_min) {
      const bool halves = traits.scale_inputs == 16;
      const int zero = m->zero - (kernels_.signed_bytes && m->form == PackedForm::kByte ? 128 : 0);
      for (shift = 0; shift < zeros && (to.zeros[shift] != zero || to.halves[shift] != halves); ++shift) {
      }
      if (!Check(shift < Activations::kMostZeros, "MatMul", "the products mix too many weight types")) return;
      if (shift == zeros) {
        to.zeros[zeros] = zero;
        to.halves[zeros++] = halves;
      }
    }
    shift_of.push_back(shift);
    list.push_back({m, product.out, nullptr, tiles, product.accumulate});
    tiles += m->tiles();
    bytes += static_cast<double>(m->total_bytes());
  }
  const int64_t rows = MostRows(in.domain), width = in.width, blocks = width / kQuantBlock;
  if (floats) to.floats = Scratch<float>("matmul floats", rows * width);
  if (quantised) {
    to.quants = Scratch<int8_t>("matmul quants", rows * width);
    to.scales = Scratch<float>("matmul scales", rows * blocks);
    if (sums) to.sums = Scratch<float>("matmul sums", rows * blocks);
    for (int i = 0; i < zeros; ++i) to.shifts[i] = Scratch<int32_t>("matmul shifts " + std::to_string(i), rows * blocks * 2);
  }
  if (!error_.ok()) return;
  for (size_t i = 0; i < list.size(); ++i) list[i].shifts = shift_of[i] < 0 ? nullptr : to.shifts[shift_of[i]];
  Add(kernels_.arrange, ArrangeArgs{&table_, in, to});
  plan_.products.push_back(std::move(list));
  const auto& kept = plan_.products.back();
  Add(kernels_.matmul, MatMulArgs{&table_, kept.data(), static_cast<int>(kept.size()), tiles, in.width, in.domain, bytes / tiles, to});
}

void CpuOps::SwiGlu(Rows out, Rows gate, Rows up) {
  if (!CheckRows("SwiGlu", out, out.width, out.domain) || !CheckRows("SwiGlu", gate, out.width, out.domain) ||
      !CheckRows("SwiGlu", up, out.width, out.domain)) {
    return;
  }
  Add(kernels_.swiglu, SwiGluArgs{&table_, out, gate, up});
}

void CpuOps::NormRope(Heads heads, Vector weight, float eps, const RopeSpec& rope) {
  if (!CheckHeads("NormRope", heads)) return;
  if (!Check(rope.dims >= 0 && rope.dims % 2 == 0 && rope.dims <= heads.width, "NormRope", "dims must be even and within the head")) return;
  if (!Check(!weight.data || weight.size == heads.width, "NormRope", "the weight is not one head")) return;
  const float* angles = nullptr;
  if (rope.dims > 0) {
    const auto key = std::make_tuple(rope.dims, rope.base, rope.factors);
    for (const auto& [known, table] : angles_) {
      if (known == key) angles = table;
    }
    if (!angles) {
      auto turns = workspace_.Turns(rope);
      if (!turns.ok()) {
        if (error_.ok()) error_ = turns.status();
        return;
      }
      float* const table = Scratch<float>("rope angles " + std::to_string(angles_.size()), MostRows(Domain::kRows) * rope.dims);
      if (!table) return;
      Add(RopeTableKernel(), RopeTableArgs{&table_, table, *turns, rope.dims});
      angles_.emplace_back(key, table);
      angles = table;
    }
  }
  Add(kernels_.norm_rope, NormRopeArgs{&table_, heads, weight.data, angles, eps, rope.dims, rope.interleaved});
}

void CpuOps::Append(StateRef state, Rows in) {
  if (!CheckRows("Append", in, in.width, Domain::kRows)) return;
  if (!Check(state.type == ElementType::kF32 || state.type == ElementType::kF16, "Append", "the state is neither float32 nor float16"))
    return;
  if (!Check(state.bytes == ElementSize(state.type) * static_cast<size_t>(in.width), "Append", "the row is not as wide as the state"))
    return;
  Add(AppendKernel(), AppendArgs{&table_, in, state});
}

void CpuOps::Attention(Rows out, Heads q, StateRef k, StateRef v, int kv_heads, float scale, Heads gate, int first_position) {
  if (!CheckHeads("Attention", q) || !CheckRows("Attention", out, q.count * q.width, Domain::kRows)) return;
  if (!Check(kv_heads > 0 && q.count % kv_heads == 0, "Attention", "query heads are no multiple of key-value heads") ||
      !Check(q.count / kv_heads <= kMostQueries, "Attention", "too many query heads share a key-value head") ||
      !Check(first_position >= 0, "Attention", "the first position is negative") ||
      !Check(k.type == v.type && (k.type == ElementType::kF32 || k.type == ElementType::kF16), "Attention",
             "keys and values are not both float32 or both float16")) {
    return;
  }
  const size_t row_bytes = ElementSize(k.type) * static_cast<size_t>(kv_heads) * static_cast<size_t>(q.width);
  if (!Check(k.bytes == row_bytes && v.bytes == row_bytes, "Attention", "a state's row is not kv_heads x head width")) return;
  if (gate.count) {
    if (!CheckHeads("Attention", gate) ||
        !Check(gate.count == q.count && gate.width == q.width, "Attention", "the gate has other heads than the query")) {
      return;
    }
  }
  // Split work is for few rows, where partials are small; 8 MB hold 262,144 positions of one row with 8 heads of 256.
  constexpr int64_t kPartialFloats = int64_t{2} << 20;
  const int64_t slots = kPartialFloats / (q.width + 2);
  const AttentionCut* const cut = CutFor({&table_, nullptr, q.count, kv_heads, first_position, threads_, slots});
  AttentionArgs args{&table_, cut, out, q, gate, k, v, scale, kv_heads, first_position, nullptr, 0, nullptr};
  args.scratch_floats = AttentionScratchFloats(args);
  args.scratch = Scratch<float>("attention", args.scratch_floats * threads_);
  args.partials = Scratch<float>("attention partials", kPartialFloats);
  Add(kernels_.attention, args);
  Add(kernels_.combine_attention, args);
}

const AttentionCut* CpuOps::CutFor(AttentionCutArgs args) {
  for (const auto& [known, cut] : cuts_) {
    if (known.heads == args.heads && known.kv_heads == args.kv_heads && known.first_position == args.first_position &&
        known.partial_slots == args.partial_slots) {
      return cut;
    }
  }
  const std::string name = "attention cut " + std::to_string(cuts_.size());
  const int64_t rows = MostRows(Domain::kRows);
  args.cut = Scratch<AttentionCut>(name, 1);
  auto* const members = Scratch<AttentionMember>(name + " members", AttentionCut::MostMembers(rows));
  auto* const spans = Scratch<AttentionSpan>(name + " spans", AttentionCut::MostSpans(rows));
  if (!error_.ok()) return nullptr;
  *args.cut = {};
  args.cut->member = members;
  args.cut->span = spans;
  Add(AttentionCutKernel(), args);
  cuts_.emplace_back(args, args.cut);
  return args.cut;
}

void CpuOps::CausalConv(Rows out, Rows in, StateRef tail, Vector weight, int kernel, bool silu) {
  if (!CheckRows("CausalConv", in, in.width, Domain::kRows) || !CheckRows("CausalConv", out, in.width, Domain::kRows)) return;
  if (!Check(kernel >= 1 && weight.data && weight.size == int64_t{kernel} * in.width, "CausalConv",
             "the weight is not channels x kernel") ||
      !Check(
          tail.type == ElementType::kF32 && tail.bytes == sizeof(float) * static_cast<size_t>(kernel - 1) * static_cast<size_t>(in.width),
          "CausalConv", "the tail is not float32 (kernel - 1) x channels")) {
    return;
  }
  auto taps = workspace_.Taps(weight.data, in.width, kernel);
  if (!taps.ok()) {
    if (error_.ok()) error_ = taps.status();
    return;
  }
  Add(kernels_.conv, ConvArgs{&table_, out, in, tail, *taps, kernel, silu});
}

void CpuOps::DeltaNet(Rows out, Rows qkv, Rows alpha, Rows beta, Vector a, Vector dt, StateRef state, const DeltaNetShape& shape) {
  const DeltaNetShape& s = shape;
  if (!Check(s.key_heads > 0 && s.key_dim > 0 && s.value_heads > 0 && s.value_dim > 0, "DeltaNet", "the shape has a zero")) return;
  if (!CheckRows("DeltaNet", qkv, 2 * s.key_heads * s.key_dim + s.value_heads * s.value_dim, Domain::kRows) ||
      !CheckRows("DeltaNet", out, s.value_heads * s.value_dim, Domain::kRows) ||
      !CheckRows("DeltaNet", alpha, s.value_heads, Domain::kRows) || !CheckRows("DeltaNet", beta, s.value_heads, Domain::kRows) ||
      !Check(a.data && a.size == s.value_heads && dt.data && dt.size == s.value_heads, "DeltaNet", "a or dt is not one value a head") ||
      !Check(state.type == ElementType::kF32 && state.bytes == sizeof(float) * static_cast<size_t>(s.value_heads) *
                                                                   static_cast<size_t>(s.key_dim) * static_cast<size_t>(s.value_dim),
             "DeltaNet", "the state is not float32 value_heads x key_dim x value_dim")) {
    return;
  }
  DeltaNetArgs args{&table_, out, qkv, alpha, beta, a.data, dt.data, state, s, nullptr, nullptr, nullptr, 0};
  args.unit_qk = Scratch<float>("delta net inputs", MostRows(Domain::kRows) * 2 * s.key_heads * s.key_dim);
  args.gates = Scratch<float>("delta net gates", MostRows(Domain::kRows) * 2 * s.value_heads);
  args.scratch_floats = DeltaNetScratchFloats(args);
  args.scratch = Scratch<float>("delta net state", args.scratch_floats * threads_);
  Add(kernels_.delta_inputs, args);
  Add(kernels_.delta_net, args);
}

void CpuOps::GatedRmsNorm(Rows out, Rows in, Rows gate, Vector weight, float eps) {
  if (!CheckRows("GatedRmsNorm", in, in.width, in.domain) || !CheckRows("GatedRmsNorm", out, in.width, in.domain) ||
      !CheckRows("GatedRmsNorm", gate, in.width, in.domain) ||
      !Check(weight.data && weight.size > 0 && in.width % weight.size == 0, "GatedRmsNorm", "the row is not whole heads of the weight")) {
    return;
  }
  Add(kernels_.gated_rms_norm, GatedRmsNormArgs{&table_, out, in, gate, weight.data, static_cast<int>(weight.size), eps});
}

void CpuOps::Previous(Rows out, Rows in, StateRef last) {
  if (!CheckRows("Previous", in, in.width, Domain::kRows) || !CheckRows("Previous", out, in.width, Domain::kRows)) return;
  if (!CheckLast("Previous", last, in.width)) return;
  Add(PreviousKernel(), LastArgs{&table_, out, in, last});
}

void CpuOps::SaveLast(StateRef last, Rows in) {
  if (!CheckRows("SaveLast", in, in.width, in.domain) || !CheckLast("SaveLast", last, in.width)) return;
  Add(SaveLastKernel(), LastArgs{&table_, {}, in, last});
}

void CpuOps::LoadLast(Rows out, StateRef last) {
  if (!CheckRows("LoadLast", out, out.width, Domain::kLanes) || !CheckLast("LoadLast", last, out.width)) return;
  Add(LoadLastKernel(), LastArgs{&table_, out, {}, last});
}

void CpuOps::ArgMax(int32_t* index, Rows in) {
  if (!CheckRows("ArgMax", in, in.width, in.domain) || !Check(index != nullptr, "ArgMax", "there is nowhere to write the index")) return;
  Add(kernels_.argmax, ArgMaxArgs{&table_, in, index});
}

}  // namespace reprise
