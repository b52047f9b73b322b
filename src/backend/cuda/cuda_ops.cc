#include <algorithm>

#include "backend/cuda/cuda_plan.h"
#include "backend/cuda/grids.h"

namespace reprise::cuda {

bool CudaOps::Check(bool condition, const char* op, const char* what) {
  if (!condition && error_.ok()) error_ = InvalidArgument(std::string("capturing ") + op + ": " + what);
  return condition && error_.ok();
}

bool CudaOps::CheckRows(const char* op, const Rows& rows, int width, Domain domain) {
  return Check(rows.data != nullptr, op, "a rows view has no data") && Check(rows.width > 0, op, "a rows view has no columns") &&
         Check(rows.stride >= rows.width, op, "a rows view is wider than its stride") &&
         Check(rows.width == width, op, "widths do not agree") && Check(rows.domain == domain, op, "domains (rows, lanes) do not agree");
}

bool CudaOps::CheckHeads(const char* op, const Heads& heads) {
  return CheckRows(op, heads.rows, heads.rows.width, Domain::kRows) &&
         Check(heads.count > 0 && heads.width > 0, op, "there are no heads") && Check(heads.stride >= heads.width, op, "heads overlap") &&
         Check(int64_t{heads.count - 1} * heads.stride + heads.width <= heads.rows.width, op, "heads do not fit the row");
}

bool CudaOps::CheckLast(const char* op, const StateRef& last, int width) {
  return Check(last.type == ElementType::kF32 && last.bytes == sizeof(float) * static_cast<size_t>(width), op,
               "the state is not one row of float32");
}

template <class T>
T* CudaOps::Scratch(const std::string& name, int64_t count) {
  auto memory = workspace_.Slot(name, static_cast<size_t>(count) * sizeof(T));
  if (!memory.ok()) {
    if (error_.ok()) error_ = memory.status();
    return nullptr;
  }
  return reinterpret_cast<T*>(*memory);
}

void CudaOps::Embed(Rows out, const Matrix& table) {
  const auto* matrix = dynamic_cast<const PackedWeight*>(&table);
  if (!Check(matrix != nullptr, "Embed", "the matrix belongs to another backend")) return;
  if (!CheckRows("Embed", out, matrix->inputs, Domain::kRows)) return;
  Add<EmbedArgs, EmbedGrid>(kEmbed, {step_, out, matrix->view});
}

void CudaOps::RmsNorm(Rows out, Rows in, Vector weight, float eps) {
  if (!CheckRows("RmsNorm", in, in.width, in.domain) || !CheckRows("RmsNorm", out, in.width, in.domain)) return;
  if (!Check(weight.data && weight.size == in.width, "RmsNorm", "the weight is not one row")) return;
  Add<RmsNormArgs, RmsNormGrid>(kRmsNorm, {step_, out, in, weight.data, eps, {}});
}

// The kernel that made the rows quantises them in passing where it can: they are in its registers then.
QuantRows CudaOps::Quantised(Rows in) {
  const int stride = CeilDiv(in.width, kSegment) * kSegment;
  const int64_t rows = CeilDiv(static_cast<int>(MostRows(in.domain)), kMmaRows) * int64_t{kMmaRows};
  // By the number of inputs, since what lies past them must stay zero.
  const std::string inputs = std::to_string(in.width) + " inputs' ";
  QuantRows quant;
  quant.quants = Scratch<int8_t>(inputs + "quants", rows * stride);
  quant.scales = Scratch<float>(inputs + "scales", rows * (stride / kBlock));
  quant.sums = Scratch<float>(inputs + "sums", rows * (stride / kBlock));
  quant.stride = stride;
  if (!error_.ok()) return {};
  const auto fuse = [&]<class Args>(Args*) {
    Args args;
    std::memcpy(static_cast<void*>(&args), plan_.array.back().args, sizeof(args));
    if (args.out.data != in.data || args.out.width != in.width || args.out.stride != in.stride || args.out.domain != in.domain)
      return false;
    if constexpr (std::is_same_v<Args, GatedRmsNormArgs>) {
      if (args.width % kBlock != 0) return false;
    }
    args.quant = quant;
    std::memcpy(plan_.array.back().args, &args, sizeof(args));
    return true;
  };
  if (!plan_.array.empty()) {
    const int kernel = plan_.array.back().kernel;
    if (kernel == kRmsNorm && fuse(static_cast<RmsNormArgs*>(nullptr))) return quant;
    if (kernel == kSwiGlu && fuse(static_cast<SwiGluArgs*>(nullptr))) return quant;
    if (kernel == kGatedRmsNorm && fuse(static_cast<GatedRmsNormArgs*>(nullptr))) return quant;
  }
  Add<QuantiseArgs, QuantiseGrid>(kQuantise, {step_, in, quant});
  return quant;
}

void CudaOps::MatMul(Rows in, std::span<const Product> products) {
  if (!CheckRows("MatMul", in, in.width, in.domain) || !Check(!products.empty(), "MatMul", "there is no product")) return;
  bool quantised = false;
  for (const Product& product : products) {
    const auto* m = dynamic_cast<const PackedWeight*>(product.weight);
    if (!Check(m != nullptr, "MatMul", "a matrix is missing or belongs to another backend")) return;
    if (!Check(m->inputs == in.width, "MatMul", "a matrix has other inputs than the row has columns")) return;
    if (!CheckRows("MatMul", product.out, m->outputs, in.domain)) return;
    quantised = quantised || !IsFloat(m->view.form);
  }
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

void CudaOps::SwiGlu(Rows out, Rows gate, Rows up) {
  if (!CheckRows("SwiGlu", out, out.width, out.domain) || !CheckRows("SwiGlu", gate, out.width, out.domain) ||
      !CheckRows("SwiGlu", up, out.width, out.domain)) {
    return;
  }
  Add<SwiGluArgs, SwiGluGrid>(kSwiGlu, {step_, out, gate, up, {}});
}

void CudaOps::NormRope(Heads heads, Vector weight, float eps, const RopeSpec& rope) {
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
      Add<RopeTableArgs, RopeTableGrid>(kRopeTable, {step_, table, *turns, rope.dims});
      angles_.emplace_back(key, table);
      angles = table;
    }
  }
  Add<NormRopeArgs, NormRopeGrid>(kNormRope, {step_, heads, weight.data, angles, eps, rope.dims, rope.interleaved});
}

void CudaOps::Append(StateRef state, Rows in) {
  if (!CheckRows("Append", in, in.width, Domain::kRows)) return;
  if (!Check(state.type == ElementType::kF32 || state.type == ElementType::kF16, "Append", "the state is neither float32 nor float16"))
    return;
  if (!Check(state.bytes == ElementSize(state.type) * static_cast<size_t>(in.width), "Append", "the row is not as wide as the state"))
    return;
  Add<AppendArgs, AppendGrid>(kAppend, {step_, in, state});
}

void CudaOps::Attention(Rows out, Heads q, StateRef k, StateRef v, int kv_heads, float scale, Heads gate, int first_position) {
  if (!CheckHeads("Attention", q) || !CheckRows("Attention", out, q.count * q.width, Domain::kRows)) return;
  if (!Check(kv_heads > 0 && q.count % kv_heads == 0, "Attention", "query heads are no multiple of key-value heads") ||
      !Check(q.count / kv_heads <= kMostQueries, "Attention", "more than 16 query heads share a key-value head") ||
      !Check(q.width <= kMostHeadWidth, "Attention", "a head is wider than 256") ||
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
  AttentionArgs args{step_, out, q, gate, k, v, scale, kv_heads, first_position, nullptr, 0};
  // A share of the device: half a gigabyte of 80 holds 256 rows of 8 heads over 16,384 positions. Where it is too small, units go whole.
  const auto bytes = static_cast<int64_t>(std::clamp<size_t>(device_.total_bytes() / 128, size_t{64} << 10, size_t{512} << 20));
  args.partial_slots = bytes / static_cast<int64_t>(sizeof(float)) / (q.width + 2);
  args.partials = Scratch<float>("attention partials", bytes / static_cast<int64_t>(sizeof(float)));
  Add<AttentionArgs, AttentionGrid>(kAttention, args);
  Add<AttentionArgs, JoinGrid>(kJoin, args);
}

void CudaOps::CausalConv(Rows out, Rows in, StateRef tail, Vector weight, int kernel, bool silu) {
  if (!CheckRows("CausalConv", in, in.width, Domain::kRows) || !CheckRows("CausalConv", out, in.width, Domain::kRows)) return;
  if (!Check(kernel >= 1 && weight.data && weight.size == int64_t{kernel} * in.width, "CausalConv",
             "the weight is not channels x kernel") ||
      !Check(
          tail.type == ElementType::kF32 && tail.bytes == sizeof(float) * static_cast<size_t>(kernel - 1) * static_cast<size_t>(in.width),
          "CausalConv", "the tail is not float32 (kernel - 1) x channels")) {
    return;
  }
  Add<ConvArgs, ConvGrid>(kConv, {step_, out, in, tail, weight.data, kernel, silu});
}

void CudaOps::DeltaNet(Rows out, Rows qkv, Rows alpha, Rows beta, Vector a, Vector dt, StateRef state, const DeltaNetShape& shape) {
  const DeltaNetShape& s = shape;
  if (!Check(s.key_heads > 0 && s.key_dim > 0 && s.value_heads > 0 && s.value_dim > 0, "DeltaNet", "the shape has a zero")) return;
  if (!Check(s.key_dim <= kMostKeyDim, "DeltaNet", "a key is wider than 256")) return;
  if (!CheckRows("DeltaNet", qkv, 2 * s.key_heads * s.key_dim + s.value_heads * s.value_dim, Domain::kRows) ||
      !CheckRows("DeltaNet", out, s.value_heads * s.value_dim, Domain::kRows) ||
      !CheckRows("DeltaNet", alpha, s.value_heads, Domain::kRows) || !CheckRows("DeltaNet", beta, s.value_heads, Domain::kRows) ||
      !Check(a.data && a.size == s.value_heads && dt.data && dt.size == s.value_heads, "DeltaNet", "a or dt is not one value a head") ||
      !Check(state.type == ElementType::kF32 && state.bytes == sizeof(float) * static_cast<size_t>(s.value_heads) *
                                                                   static_cast<size_t>(s.key_dim) * static_cast<size_t>(s.value_dim),
             "DeltaNet", "the state is not float32 value_heads x key_dim x value_dim")) {
    return;
  }
  DeltaNetArgs args{step_, out, qkv, alpha, beta, a.data, dt.data, state, s, nullptr, nullptr};
  args.unit_qk = Scratch<float>("delta net inputs", MostRows(Domain::kRows) * 2 * s.key_heads * s.key_dim);
  args.gates = Scratch<float>("delta net gates", MostRows(Domain::kRows) * 2 * s.value_heads);
  int choice = 0;
  while (DeltaGroups(s.key_dim) > 1 << choice) ++choice;
  Add<DeltaNetArgs, DeltaInputsGrid>(kDeltaInputs, args);
  Add<DeltaNetArgs, DeltaNetGrid>(kDeltaNet + choice, args);
}

void CudaOps::GatedRmsNorm(Rows out, Rows in, Rows gate, Vector weight, float eps) {
  if (!CheckRows("GatedRmsNorm", in, in.width, in.domain) || !CheckRows("GatedRmsNorm", out, in.width, in.domain) ||
      !CheckRows("GatedRmsNorm", gate, in.width, in.domain) ||
      !Check(weight.data && weight.size > 0 && in.width % weight.size == 0, "GatedRmsNorm", "the row is not whole heads of the weight")) {
    return;
  }
  Add<GatedRmsNormArgs, GatedRmsNormGrid>(kGatedRmsNorm, {step_, out, in, gate, weight.data, static_cast<int>(weight.size), eps, {}});
}

void CudaOps::Previous(Rows out, Rows in, StateRef last) {
  if (!CheckRows("Previous", in, in.width, Domain::kRows) || !CheckRows("Previous", out, in.width, Domain::kRows)) return;
  if (!CheckLast("Previous", last, in.width)) return;
  Add<LastArgs, PreviousGrid>(kPrevious, {step_, out, in, last});
}

void CudaOps::SaveLast(StateRef last, Rows in) {
  if (!CheckRows("SaveLast", in, in.width, in.domain) || !CheckLast("SaveLast", last, in.width)) return;
  Add<LastArgs, SaveLastGrid>(kSaveLast, {step_, {}, in, last});
}

void CudaOps::LoadLast(Rows out, StateRef last) {
  if (!CheckRows("LoadLast", out, out.width, Domain::kLanes) || !CheckLast("LoadLast", last, out.width)) return;
  Add<LastArgs, LoadLastGrid>(kLoadLast, {step_, out, {}, last});
}

void CudaOps::ArgMax(int32_t* index, Rows in) {
  if (!CheckRows("ArgMax", in, in.width, in.domain) || !Check(index != nullptr, "ArgMax", "there is nowhere to write the index")) return;
  ArgMaxArgs args{step_, in, index, nullptr, nullptr};
  args.best = Scratch<float>("greatest values", MostRows(in.domain) * ArgMaxArgs::kParts);
  args.where = Scratch<int32_t>("their places", MostRows(in.domain) * ArgMaxArgs::kParts);
  Add<ArgMaxArgs, ArgMaxPartGrid>(kArgMaxPart, args);
  Add<ArgMaxArgs, ArgMaxGrid>(kArgMax, args);
}

}  // namespace reprise::cuda
