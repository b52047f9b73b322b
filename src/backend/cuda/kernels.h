// Kernels: their arguments, how a plan names them, and how their work is cut into blocks of threads.
//
// A captured plan is a list of Launches: a kernel, its arguments as flat data, and a function that says how many blocks a step of a given shape
// takes. What changes from step to step is read by the kernels from device memory (StepView), so a graph over them never changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "backend/cuda/packed_weight.h"
#include "backend/ops.h"

namespace reprise::cuda {

// ---- The binding table, as the device sees it ----

struct StepHeader {
  int32_t rows, lanes;
  int32_t blocks;  // attention blocks of the longest lane, counted from position 0
  int32_t unused[5];
};
struct LaneEntry {
  const std::byte* read;
  std::byte* write;
  int32_t first_row, rows, position;
  int32_t log_capacity;
  std::byte* log;  // of the lane's ReplayLog; null: none
  uint64_t log_row_bytes;
};
struct RowEntry {
  int32_t lane, position, token, unused;
};
struct StepView {  // fixed addresses of device memory; their contents are written before each replay
  const StepHeader* header;
  const LaneEntry* lane;
  const RowEntry* row;
  std::byte* const* extents;  // [max_lanes][kMostExtents]
};
inline constexpr int kMostExtents = (1 << 20) / kExtentRows;  // of a lane: contexts of up to 2^20 positions

REPRISE_HD int RowCount(const StepView& step, Domain domain) { return domain == Domain::kRows ? step.header->rows : step.header->lanes; }
REPRISE_HD float* RowAt(const Rows& rows, int row) { return rows.data + static_cast<int64_t>(row) * rows.stride; }
REPRISE_HD std::byte* StateRow(const StepView& step, int lane, const StateRef& state, int position) {
  return step.extents[static_cast<int64_t>(lane) * kMostExtents + position / kExtentRows] + state.offset +
         static_cast<size_t>(position % kExtentRows) * state.bytes;
}

// ---- Arguments ----

// Rows quantised for matrix products. Columns past the inputs, up to a whole segment, are zero with a scale of zero.
struct QuantRows {
  int8_t* quants = nullptr;  // [rows][stride]; null where nothing is to be quantised
  float* scales = nullptr;   // [rows][stride / 32]
  float* sums = nullptr;     // [rows][stride / 32]: scale * sum of the quants
  int32_t stride = 0;
};

struct EmbedArgs {
  StepView step;
  Rows out;
  WeightView weight;
  float scale;
};
struct RmsNormArgs {
  StepView step;
  Rows out, in;
  const float* weight;
  int32_t width;        // of what is normed by itself: a row is one such group, or several
  int32_t weight_step;  // from the weight of one group to that of the next: `width`, or 0 where they share one
  float eps;
  bool accumulate;
  float scale;  // of what was accumulated
  QuantRows quant;
};
struct GatedRmsNormArgs {
  StepView step;
  Rows out, in, gate;
  const float* weight;
  int32_t width;
  float eps;
  QuantRows quant;
};
struct GluArgs {
  StepView step;
  Rows out, gate, up;
  QuantRows quant;
};
struct ReluSquaredArgs {
  StepView step;
  Rows out, in;
  QuantRows quant;
};
struct MultiplyArgs {
  StepView step;
  Rows out, a, b;
  QuantRows quant;
};
struct ScaleByPositionArgs {
  StepView step;
  Rows rows;
  const float* factors;
  int32_t count, every;
};
struct SoftCapArgs {
  StepView step;
  Rows rows;
  float cap;
};
struct QuantiseArgs {
  StepView step;
  Rows in;
  QuantRows quant;
};

struct ProductView {
  WeightView weight;
  Rows out;
  bool accumulate;
};
struct MatMulArgs {
  static constexpr int kMostProducts = 6;
  StepView step;
  Rows in;  // what float forms read
  QuantRows quant;
  int32_t products;
  ProductView product[kMostProducts];
};

// The biases of a layer's queries, keys and values are added by one launch: what is independent and of one kind shares a launch, as products do,
// since each launch costs microseconds.
struct AddBiasArgs {
  static constexpr int kMost = 3;
  StepView step;
  int32_t count;
  Rows rows[kMost];
  const float* bias[kMost];
};
struct RopeTableArgs {
  StepView step;
  float* angles;          // a row: dims / 2 cosines, dims / 2 sines
  const uint64_t* turns;  // dims / 2: turns a position, as a fraction of 2^64
  int32_t dims;
  float magnitude;
};
// Queries and keys are turned by one launch, keys and values appended by another.
inline constexpr int kMostShared = 2;
struct NormRopeArgs {
  StepView step;
  const float* angles;  // null: no rotation
  float eps;
  int32_t dims;
  bool interleaved;
  int32_t count;
  Heads heads[kMostShared];
  const float* weight[kMostShared];  // null: no norm
};
struct AppendArgs {
  StepView step;
  int32_t count;
  Rows in[kMostShared];
  StateRef state[kMostShared];
};
// How keys and values lie where the tensor cores meet them: as halves, or as bytes under scales (ElementType::kQ8_0). Loose: their rows and heads do not
// all begin where several numbers are read at once.
enum class KeyForm : int { kHalves, kLooseHalves, kBytes, kLooseBytes };
struct AttentionArgs {
  StepView step;
  Rows out;
  Heads q, gate;
  StateRef k, v;
  AttentionSpec spec;
  float* partials;  // [row][head][block] of most, total, sums[q.width]
  int64_t partial_slots;
  QuantRows quant;  // of out, which the join makes where a head is whole blocks
};
struct ConvArgs {
  StepView step;
  Rows out, in;
  StateRef tail;
  const float* weight;  // [channels][kernel]
  const float* bias;    // [channels]; null: none
  int32_t kernel;
  bool silu;
};
// What a token brings to a value head beside its vectors: exp(g), b, and the product of its normalised q and k.
struct alignas(16) DeltaGates {
  float decay, strength, kq, unused;
};
struct DeltaNetArgs {
  StepView step;
  Rows out, qkv, alpha, beta;
  const float* a;
  const float* dt;
  StateRef state;
  Ops::DeltaNetShape shape;
  float* unit_qk;     // [rows][key_heads][2][StateRows(key_dim)]: q and k, normalised, and zeros (grids.h)
  DeltaGates* gates;  // [rows][value_heads]
};
struct SsmArgs {
  StepView step;
  Rows out, xbc, dt;
  const float* a;
  const float* dt_bias;
  const float* d;
  StateRef state;
  Ops::SsmShape shape;
};
struct ScanArgs {
  StepView step;
  Rows out, x, dt, b, c;
  const float* a;
  const float* dt_bias;
  const float* d;
  StateRef state;
};
// A mixture of experts. A visit is a row and one of the experts that it goes to: visit v is of row v / used, whose (v % used)-th choice it is.
inline constexpr int kMostUsed = 32;  // a lane of a warp each
inline constexpr int kMostExperts = 1024;
// Visits of one expert that are computed together: order[first], ..., order[first + count - 1].
struct alignas(16) ExpertRun {
  static constexpr int kMost = 64;
  int32_t expert, first, count, unused;
};
struct ExpertsArgs {
  StepView step;
  Rows out, in, scores;
  WeightView gate, up, down;                     // of all experts; where they have no gate, `gate` and its bias are what `up` would be
  const float *gate_bias, *up_bias, *down_bias;  // null: none
  const float *score_bias, *choice_bias;         // as well
  const float* weight_scale;                     // as well
  int32_t count, used;
  Activation activation;
  bool sigmoid, normed, adds;
  float scale;
  int32_t inner;           // columns between the products: those of a visit
  int32_t* chosen;         // [visits]: the expert
  float* weights;          // [visits]
  QuantRows quant;         // of in, where gate and up are quantised
  Rows hidden;             // [visits][inner], where down is of floats
  QuantRows hidden_quant;  // of [visits][inner], where it is quantised
  // Where gate and up are not of one form, a launch each makes [visits][inner] of one of them: of `gate`, to `alone`. Null where they go together.
  float *gates, *ups, *alone;
  REPRISE_HD bool gated() const { return HasGate(activation); }
  REPRISE_HD bool pairs() const { return gated() && alone == nullptr; }  // whether one launch makes the products of gate and of up
  // Of steps of many rows: visits by expert, and what down makes of each.
  int32_t* order;
  int32_t* run_count;
  ExpertRun* runs;
  float* values;  // [visits][out.width]
};
struct SigmoidGateArgs {
  StepView step;
  Rows rows, gate;
};
struct LastArgs {
  StepView step;
  Rows out, in;
  StateRef last;
};
struct LogArgs {
  static constexpr int kMost = 24;  // parts
  StepView step;
  int32_t count;
  bool recall;
  LogPart parts[kMost];
};
struct ArgMaxArgs {
  static constexpr int kParts = 64;
  StepView step;
  Rows in;
  int32_t* index;
  float* best;     // [rows][kParts]
  int32_t* where;  // [rows][kParts]
};
struct BestArgs {
  static constexpr int kPart = 4096;  // columns: of a vocabulary of 248,320, 61 parts
  StepView step;
  Rows in;
  BestRows out;
  float* part_values;     // [rows][parts][kBestValues]; minus infinity after the last
  int32_t* part_columns;  // ascending
  REPRISE_HD int parts() const { return (in.width + kPart - 1) / kPart; }
};
struct WeighArgs {
  Rows in;
  const WeighedRow* row;
  double* parts;
};

// ---- What several launches become (fuse.h) ----

// A product of one row. It may begin with what makes its input, which every block of threads then does for itself, and end with what is made of its
// results, element by element.
enum class FusedInput : int32_t {
  kMade,    // as the product reads it already
  kFloats,  // matmul.in, to be quantised
  kNorm,    // what `norm` makes
};
enum class FusedOutput : int32_t { kProducts, kSwiGlu, kGeGlu, kReluSquared };
struct FusedMatMulArgs {
  MatMulArgs matmul;
  FusedInput input;
  FusedOutput output;
  RmsNormArgs norm;   // where input is kNorm
  GluArgs activated;  // where output is not kProducts: of matmul.product[0] and, where it is gated, [1]
  REPRISE_HD bool gated() const { return output == FusedOutput::kSwiGlu || output == FusedOutput::kGeGlu; }
};
// The convolution, delta rule and norm of a lane's few tokens, head by head. Without a norm (its weight is null) what is read stays as it is, as where a
// recurrence runs again for the state alone.
struct FusedDeltaArgs {
  ConvArgs conv;
  DeltaNetArgs delta;
  GatedRmsNormArgs norm;
};
// The convolution, Mamba-2's recurrence and its gate of a lane's few tokens, some columns of a head at a time. Without a gate (its rows are null) as well.
struct FusedSsmArgs {
  ConvArgs conv;
  SsmArgs ssm;
  GluArgs gate;
};
// A product, the convolution of it, and a product of that, of a lane's few tokens, channel by channel.
struct FusedShortConvArgs {
  MultiplyArgs before;
  ConvArgs conv;
  MultiplyArgs after;
};
// The selective scan and its gate of a lane's few tokens.
struct FusedScanArgs {
  ScanArgs scan;
  GluArgs gate;
};
// Norms that have nothing to do with one another.
struct RmsNormsArgs {
  static constexpr int kMost = 3;  // Jamba's, of B, C and the steps
  int32_t count;
  RmsNormArgs norm[kMost];
};
// Queries and keys normed and turned, keys and values appended. append.in[0] is turn.heads[turn.count - 1], head by head.
struct FusedAppendArgs {
  NormRopeArgs turn;
  AppendArgs append;
};

// ---- Launches ----

struct Grid {
  int x = 1, y = 1, z = 1;
  int threads = 32;
  int shared = 0;   // bytes
  int kernel = -1;  // where the shape decides which kernel serves it best; otherwise the launch's own
};
// The most that one graph serves: rows and lanes of a step, on a device of so many multiprocessors.
struct Bucket {
  int rows = 1, lanes = 1, multiprocessors = 1;
  int Of(Domain domain) const { return domain == Domain::kRows ? rows : lanes; }
};

struct Launch {
  static constexpr size_t kArgBytes = 1024;
  using GridOf = Grid (*)(const void* args, const Bucket& bucket);
  int kernel = 0;  // a KernelId (kernel_table.h)
  GridOf grid = nullptr;
  size_t bytes = 0;
  alignas(16) std::byte args[kArgBytes];
};

template <class Args, Grid (*kGrid)(const Args&, const Bucket&)>
Grid UntypedGrid(const void* args, const Bucket& bucket) {
  return kGrid(*static_cast<const Args*>(args), bucket);
}

template <class Args, Grid (*kGrid)(const Args&, const Bucket&)>
Launch MakeLaunch(int kernel, const Args& args) {
  static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) <= Launch::kArgBytes && alignof(Args) <= 16);
  Launch launch;
  launch.kernel = kernel;
  launch.grid = UntypedGrid<Args, kGrid>;
  launch.bytes = sizeof(Args);
  std::memcpy(launch.args, &args, sizeof(Args));
  return launch;
}

inline int CeilDiv(int a, int b) { return (a + b - 1) / b; }

}  // namespace reprise::cuda
