// Kernels: the launch functions of one instruction set, and their arguments.
//
// Every argument struct is plain data that lives inside a Launch. Kernels read how many rows and lanes there are from the StepTable when
// they run. `Split` functions say how the work of a launch may be cut; results never depend on it.
#pragma once

#include <cstdint>
#include <span>

#include "backend/cpu/file_table.h"
#include "backend/cpu/launch.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/targets.h"
#include "backend/ops.h"
#include "exec/step_table.h"

namespace reprise {

inline int RowCount(const StepTable& table, const Rows& rows) { return rows.domain == Domain::kRows ? table.rows : table.lanes; }
inline float* RowAt(const Rows& rows, int row) { return rows.data + static_cast<int64_t>(row) * rows.stride; }

// Address of the row of append-only `state` at `position`.
inline std::byte* StateRow(const LaneBinding& lane, const StateRef& state, int position) {
  return lane.extents[position / kExtentRows] + state.offset + static_cast<size_t>(position % kExtentRows) * state.bytes;
}

// Rows of a step are worked on in groups of at most `limit` rows whose activations lie interleaved, so that a kernel reaches all of them
// through one pointer. Groups are as equal as can be: 13 rows are 7 and 6, not 12 and 1.
struct RowGroups {
  int rows, count;
  RowGroups(int rows_in, int limit) : rows(rows_in), count((rows_in + limit - 1) / limit) {}
  int First(int group) const { return static_cast<int>(static_cast<int64_t>(rows) * group / count); }
  int Size(int group) const { return First(group + 1) - First(group); }
  int Of(int row) const { return static_cast<int>(((static_cast<int64_t>(row) + 1) * count - 1) / rows); }
};

// Quantised inputs share a scale in spans of 8 blocks, counted from the start of a row; the last span of a row may be shorter. Each block has
// a step, and stands for its quants times kStepFactors[step] times the span's scale: so the factor, one of few, can be multiplied into the
// weight's scale once for many rows.
inline constexpr int kSpanBlocks = 8;
inline constexpr int kSpanInputs = kSpanBlocks * kQuantBlock;
inline constexpr int kSteps = 8;
// About 2^(-step / 3).
inline constexpr float kStepFactors[kSteps] = {1.0f, 0.79370052f, 0.62996054f, 0.5f, 0.39685026f, 0.31498027f, 0.25f, 0.19842513f};
constexpr int SpansOf(int blocks) { return (blocks + kSpanBlocks - 1) / kSpanBlocks; }

// How the rows of a step meet the experts of a mixture. A row visits each expert that it goes to: visit row * used + rank, the weightiest expert
// having rank 0. For products visits are sorted by expert: those of one expert are a run, and run after run they go in groups.
struct ExpertVisits {
  int count = 0;  // experts
  int used = 0;   // of a row
  // Written in each step.
  int32_t* choice = nullptr;  // [rows][used]: the expert of a visit
  float* weight = nullptr;    // [rows][used]
  int32_t* visit = nullptr;   // [rows x used], sorted
  int32_t* row = nullptr;     // [rows x used]: the row that each of these is of
  int32_t* expert = nullptr;  // [runs]
  int32_t* first = nullptr;   // [runs + 1]: places in `visit`
  int32_t* group = nullptr;   // [groups + 1]: places in `visit`
  int32_t* places = nullptr;  // [count]: where an expert's next visit goes
  int runs = 0, groups = 0;
};

// The input rows of matrix products, laid out for the kernels. A group of R rows starts at its first row's place in each array.
//   floats  [inputs][R]
//   quants  [blocks][8 groups of 4 inputs][R][4] int8
//   scales  [spans][R]
//   steps   [blocks][R]: times 64, the bytes of a line of 16 floats
//   shifts  [blocks][2 halves][R]: -zero * sum of the quants, for each zero that the products need; halves only where a scale covers 16
//   sums    [blocks][R]: factor of the step * sum of the quants, for minima that are halves
//   pairs   [spans][4][R]: for the minima of K types, that sum in eighths, as 16-bit integers: the even block of two in the low half
struct Activations {
  static constexpr int kMostZeros = 5;  // as many as types have
  float* floats = nullptr;
  int8_t* quants = nullptr;
  float* scales = nullptr;
  uint16_t* steps = nullptr;
  float* sums = nullptr;
  int32_t* pairs = nullptr;
  int32_t* shifts[kMostZeros] = {};
  int zeros[kMostZeros] = {};
  bool halves[kMostZeros] = {};
};

// Work on rows whose result is the input of a product, and is made by the launch that arranges that input, while it is in the cache.
struct RowWork {
  UntypedRun run = nullptr;
  const void* args = nullptr;  // owned by the plan
};
struct ArrangeArgs {
  const StepTable* table;
  Rows in;
  Activations to;
  int piece;                             // columns of an item: a multiple of a span and of before_columns, or all of a row
  RowWork before;                        // what makes `in`, if anything
  int before_columns;                    // of one of its items: a row is a whole number of items, or one and a part
  const ExpertVisits* visits = nullptr;  // the rows are arranged for these; null: each once, in its order
  const int32_t* source = nullptr;       // [visits]: which row of `in` stands for a sorted visit
};

struct ProductArgs {
  const PackedMatrix* weight;
  Rows out;
  const int32_t* shifts;  // of this weight's zero; null for 0
  int first_tile;         // among all products of the launch
  bool accumulate;
};
struct MatMulArgs {
  const StepTable* table;
  const ProductArgs* products;  // owned by the plan
  int count;
  int tiles;  // of all products
  int inputs;
  Domain domain;
  double tile_bytes;  // of the mean tile: what a unit costs
  Activations in;
};

// Products with the experts of a mixture: `products` are those of expert 0, and the rows of a weight those of all experts, one after another. A row
// of a result is a visit.
struct ExpertMatMulArgs {
  MatMulArgs matmul;
  const ExpertVisits* visits;
};

inline constexpr int kMostExpertsUsed = 64;
struct RouteArgs {
  const StepTable* table;
  Rows scores;
  const float* score_bias;    // null: none
  const float* choice_bias;   // null: none
  const float* weight_scale;  // null: none
  ExpertVisits* visits;
  bool sigmoid, normed;
  float scale;
};
struct GroupVisitsArgs {
  const StepTable* table;
  Domain domain;
  ExpertVisits* visits;
};
struct ActivateVisitsArgs {
  Rows gate, up;           // [visits]; what is made goes where the gate was, or the up where there is no gate
  const float* gate_bias;  // [count][width]; null: none
  const float* up_bias;    // as well
  const ExpertVisits* visits;
  Activation activation;
};
struct MixVisitsArgs {
  const StepTable* table;
  Rows out;
  const float* parts;  // [visits][out.width]
  const float* bias;   // [count][out.width]; null: none
  const ExpertVisits* visits;
  bool adds;
};

struct RmsNormArgs {
  const StepTable* table;
  Rows out, in;
  const float* weight;
  int width;  // of what is normed by itself: a row is one such group, or several
  float eps;
  bool accumulate;
  float scale;  // of what was accumulated
};
struct GatedRmsNormArgs {
  const StepTable* table;
  Rows out, in, gate;
  const float* weight;
  int width;
  float eps;
};
inline constexpr int kPairColumns = 256;  // of a row: an item of SwiGLU, ReluSquared, Multiply, AddBias, and of experts' activation and sum
struct GluArgs {
  const StepTable* table;
  Rows out, gate, up;
};
struct ReluSquaredArgs {
  const StepTable* table;
  Rows out, in;
};
struct MultiplyArgs {
  const StepTable* table;
  Rows out, a, b;
};
struct AddBiasArgs {
  const StepTable* table;
  Rows rows;
  const float* bias;
};
struct ScaleByPositionArgs {
  const StepTable* table;
  Rows rows;
  Vector factors;
  int every;
};
struct SoftCapArgs {
  const StepTable* table;
  Rows rows;
  float cap;
};
struct SigmoidGateArgs {
  const StepTable* table;
  Rows out, gate;
};

struct RopeTableArgs {
  const StepTable* table;
  float* angles;          // a row: dims / 2 cosines, dims / 2 sines
  const uint64_t* turns;  // dims / 2: turns a position, as a fraction of 2^64
  int dims;
  float magnitude;
};
struct NormRopeArgs {
  const StepTable* table;
  Heads heads;
  const float* weight;  // null: no norm
  const float* angles;
  float eps;
  int dims;
  bool interleaved;
};

struct AppendArgs {
  const StepTable* table;
  Rows in;
  StateRef state;
};

struct AttentionCut;  // attention.h
struct AttentionArgs {
  const StepTable* table;
  const AttentionCut* cut;
  Rows out;
  Heads q, gate;
  StateRef k, v;
  AttentionSpec spec;
  float* scratch;  // one piece a thread
  int64_t scratch_floats;
  float* partials;  // of the split form: [row][head][block] of most, total, sums[q.width]
};

inline constexpr int kMostTaps = 16;
struct ConvArgs {
  const StepTable* table;
  Rows out, in;
  StateRef tail;
  const float* taps;  // [kernel][channels]
  const float* bias;  // [channels]; null: none
  int kernel;         // at most kMostTaps
  bool silu;
};

// States [heads][rows][columns] that are worked on in slices of their columns.
inline constexpr int kStateSlice = 32;  // columns of a slice: of 128 rows, it is 16 KB
struct SliceArgs {
  const StepTable* table;
  StateRef state;
  int heads, rows, columns;
  float* scratch;  // a slice for each thread
};
inline int64_t SliceScratchFloats(const SliceArgs& args) { return int64_t{args.rows} * kStateSlice; }

struct DeltaNetArgs {
  SliceArgs slices;  // [value_heads][key_dim][value_dim]
  Rows out, qkv, alpha, beta;
  const float* a;
  const float* dt;
  Ops::DeltaNetShape shape;
  float* unit_qk;  // [key_heads][rows][2][key_dim]: normalised q and k
  float* gates;    // [rows][2][value_heads]: exp(g) and b
};

struct SsmArgs {
  SliceArgs slices;  // [heads][state_dim][head_dim]
  Rows out, xbc, dt;
  const float* a;
  const float* dt_bias;
  const float* d;
  int groups;
  float* group_bc;  // [groups][rows][2][state_dim]: B and C
  float* gates;     // [rows][2][heads]: exp(a step) and the step
};

struct ScanArgs {
  const StepTable* table;
  Rows out, x, dt, b, c;
  const float* a;
  const float* dt_bias;
  const float* d;
  StateRef state;
};

struct EmbedArgs {
  const StepTable* table;
  Rows out;
  const PackedMatrix* matrix;  // or
  const FileTable* file;
  float scale;
};
struct LastArgs {
  const StepTable* table;
  Rows out, in;
  StateRef last;
};
struct LogArgs {
  const StepTable* table;
  std::span<const LogPart> parts;
  bool recall;
};
struct ArgMaxArgs {
  const StepTable* table;
  Rows in;
  int32_t* index;
};

struct Kernel {
  UntypedRun run = nullptr;
  UntypedSplit split = nullptr;
};

struct KernelTable {
  bool signed_bytes = false;  // the products with PackedForm::kByte take its quants less 128
  Kernel arrange, matmul;
  Kernel group_visits, expert_matmul, mix_visits;
  UntypedRun activate_visits = nullptr;  // runs where its rows are arranged: they are visits, which the step table does not count
  Kernel rms_norm, gated_rms_norm, swiglu, geglu, relu_squared, multiply, add_bias, soft_cap, sigmoid_gate, scale_by_position;
  Kernel norm_rope;
  Kernel attention, combine_attention;
  Kernel conv;
  Kernel delta_inputs, delta_net;
  Kernel ssm_inputs, ssm;
  Kernel scan;
  Kernel argmax;
};

// The kernels that are the same code on every machine (kernels_portable.cc).
Kernel RopeTableKernel();
Kernel AttentionCutKernel();  // attention_cut.cc
Kernel RouteKernel();         // experts.cc
Kernel AppendKernel();
Kernel EmbedKernel();
Kernel PreviousKernel();
Kernel SaveLastKernel();
Kernel LoadLastKernel();
Kernel LastRowsKernel();
Kernel LogKernel();

// Floats of scratch that a thread needs for attention of this shape.
int64_t AttentionScratchFloats(const AttentionArgs& args);

// Each file of kernels adds its own to the table of `target` (a Highway target bit).
void AddArrange(int64_t target, KernelTable& table);
void AddMatMul(int64_t target, ByteDot dot, KernelTable& table);
void AddExperts(int64_t target, KernelTable& table);
void AddNorms(int64_t target, KernelTable& table);
void AddRope(int64_t target, KernelTable& table);
void AddAttention(int64_t target, KernelTable& table);
void AddConv(int64_t target, KernelTable& table);
void AddDeltaNet(int64_t target, KernelTable& table);
void AddSsm(int64_t target, KernelTable& table);
void AddScan(int64_t target, KernelTable& table);

}  // namespace reprise
