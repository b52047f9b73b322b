// Ops: the kernels that a model is written in, as seen while a plan is captured.
//
// Each call appends launches to the plan under capture; nothing runs yet. Activations are rows of float32 in static buffers. How many rows a
// launch processes is read from the StepTable at replay: the step's rows, or one row a lane.
//
// Promise 3 binds every implementation: a row's result depends only on that row's inputs and its lane's state, bit for bit. It does not
// depend on how many rows or lanes share the step, on how a prompt was cut into steps, or on the number of threads. So an output element is
// computed by one thread in one fixed reduction order: a matrix product sums over its inputs in one order for 1 row and for 1,000;
// activations are quantised a row at a time; attention makes one partial (max, sum, accumulator) for each absolute block of
// kAttentionBlock positions and combines blocks in order; the recurrences run token by token.
//
// Output rows must not alias input rows unless a call says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "reprise/layout.h"

namespace reprise {

inline constexpr int kAttentionBlock = 256;  // positions of one attention partial

enum class Domain { kRows, kLanes };  // one row for each row of the step, or one for each of its lanes

// A view of `width` consecutive floats in each row of a static buffer.
struct Rows {
  float* data = nullptr;
  int stride = 0;  // floats from one row to the next
  int width = 0;
  Domain domain = Domain::kRows;

  Rows Columns(int first, int count) const { return {data + first, stride, count, domain}; }
};

// `count` heads of `width` floats in each row, head h starting at column h * stride of `rows`.
struct Heads {
  Rows rows;
  int count = 0;
  int width = 0;
  int stride = 0;
};

// A weight matrix [outputs x inputs] in the backend's own packing. Made by Backend::LoadMatrix and owned by the backend.
class Matrix {
 public:
  virtual ~Matrix() = default;
  int outputs = 0;
  int inputs = 0;
};

// A parameter vector or small tensor of float32, in memory of the backend, owned by the backend.
struct Vector {
  const float* data = nullptr;
  int64_t size = 0;
};

// A recurrent or append-only state, by its place in the layout (see StateDecl).
struct StateRef {
  size_t offset = 0;
  size_t bytes = 0;
  ElementType type = ElementType::kF32;
};

struct Product {
  const Matrix* weight = nullptr;
  Rows out;                 // weight->outputs wide
  bool accumulate = false;  // out += W x instead of out = W x (the residual stream)
};

// What a feed-forward network makes of its gate and its up, element by element.
enum class Activation : uint8_t {
  kSwiGlu,         // silu(gate) * up
  kGeGlu,          // gelu(gate) * up, as Ops::GeGlu has it
  kClampedSwiGlu,  // (u + 1) * g * sigmoid(kGateSlope * g), where g = min(gate, kClamp), and u is up clamped to [-kClamp, kClamp]
  kReluSquared,    // up^2 where up > 0, otherwise 0 (of a NaN, too); there is no gate
};
constexpr bool HasGate(Activation activation) { return activation != Activation::kReluSquared; }
inline constexpr float kClamp = 7.0f, kGateSlope = 1.702f;

// The experts of a mixture, and how a router's scores choose among them. A vector without data: none.
struct Experts {
  // [count x inner, inputs]: the rows of one expert after those of another; null where the activation has no gate.
  const Matrix* gate = nullptr;
  const Matrix* up = nullptr;    // [count x inner, inputs]
  const Matrix* down = nullptr;  // [count x outputs, inner]
  Vector gate_bias, up_bias;     // [count x inner]: added to what these make, before anything else is done with it
  Vector down_bias;              // [count x outputs]
  Vector score_bias;             // [count]: added to the scores
  Vector choice_bias;            // [count]: added to the probabilities for the choice alone, which weigh as they are
  Activation activation = Activation::kSwiGlu;
  int count = 0;
  int used = 0;          // of a row
  bool sigmoid = false;  // probabilities are sigmoids of the scores, not their softmax
  bool normed = true;    // the weights of the chosen are shares of the sum of their probabilities; otherwise these as they are
  float scale = 1.0f;    // of the weights
  Vector weight_scale;   // [count]: of the weight of each
  bool adds = true;      // to what is there; otherwise that is overwritten
};

// Rotary position embedding over the first `dims` values of a head.
struct RopeSpec {
  int dims = 0;
  double base = 10000.0;
  bool interleaved = false;        // rotate (0,1), (2,3) ... (Llama GGUF) instead of (i, i + dims / 2) (NEOX)
  const float* factors = nullptr;  // dims / 2 divisors of the frequencies, by which scaled positions are told; backend memory, may be null
  float magnitude = 1.0f;          // of what is rotated, as YaRN has it

  bool SameAngles(const RopeSpec& other) const {
    return dims == other.dims && base == other.base && factors == other.factors && magnitude == other.magnitude;
  }
};

// What attention sees of a lane's history, and how it weighs it.
struct AttentionSpec {
  int kv_heads = 1;
  float scale = 1.0f;
  int first_position = 0;  // nothing before it is seen
  int window = 0;          // how many positions a row sees, its own the last of them; 0: all
  Vector sinks;            // [query heads] scores of a position of no value that every row sees as well; without data: none

  // The first position that a row at `position` sees.
  constexpr int First(int position) const {
    const int first = window > 0 ? position - window + 1 : 0;
    return first > first_position ? first : first_position;
  }
};

// Where the best of each row are written, in memory that the host reads: kBestValues values a row, with their columns.
inline constexpr int kBestValues = 128;  // a top-k of 40 is among them though a penalty takes 64 others away, and they are one kilobyte
struct BestRows {
  int32_t* index = nullptr;
  float* values = nullptr;
  int32_t* columns = nullptr;
  int rows = 0;  // that there is room for, which no step exceeds
};

// Columns of rows, and from which on of a row of a ReplayLog, as floats, they are kept there.
struct LogPart {
  Rows rows;
  int64_t column = 0;
};

// Which row is to be weighed as a distribution, in memory that the host writes and the backend reads.
struct WeighedRow {
  int32_t row = 0;
  float temperature = 1;
  float greatest = 0;  // of its values
};
inline constexpr int kWeighedPart = 4096;     // columns
inline constexpr double kWeighError = 1e-11;  // of a part's weight: what the order of its sum may do

class Ops {
 public:
  virtual ~Ops() = default;

  // out[r] = row `token[r]` of `table` (a matrix or a table of the backend), as float32, times `scale`. A token outside it is the caller's error: the
  // engine checks before a step.
  virtual void Embed(Rows out, const Matrix& table, float scale) = 0;

  // out[r] = in[r] / sqrt(mean(in[r]^2) + eps) * weight, each consecutive weight.size values of a row by themselves. `out` may be `in`.
  virtual void RmsNorm(Rows out, Rows in, Vector weight, float eps) = 0;
  // out[r] = (out[r] + the same) * scale. `out` is not `in`.
  virtual void AddRmsNorm(Rows out, Rows in, Vector weight, float eps, float scale) = 0;
  void AddRmsNorm(Rows out, Rows in, Vector weight, float eps) { AddRmsNorm(out, in, weight, eps, 1.0f); }

  // For each product p: p.out[r] (+)= p.weight * in[r]. The products share their input, so that it is quantised once and one launch serves
  // them all.
  virtual void MatMul(Rows in, std::span<const Product> products) = 0;

  // out[r] = silu(gate[r]) * up[r]. `out` may be `gate` or `up`.
  virtual void SwiGlu(Rows out, Rows gate, Rows up) = 0;

  // out[r] = gelu(gate[r]) * up[r], with gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). `out` may be `gate` or `up`.
  virtual void GeGlu(Rows out, Rows gate, Rows up) = 0;

  // out[r] = in[r]^2 where in[r] > 0, otherwise 0 (of a NaN, too), element by element. `out` may be `in`.
  virtual void ReluSquared(Rows out, Rows in) = 0;

  // out[r] += (or =) what the experts that row r goes to make of in[r], each as much as the router trusts it: with s = scores[r] + score_bias and
  // p = softmax(s) or sigmoid(s), the `used` experts e at which p + choice_bias is greatest (of equal ones the first; a NaN counts as the least), from
  // the greatest on,
  //   w[e] = scale * p[e] / (the sum of p of the chosen, in that order; or 1 where they are not normed), times weight_scale[e]
  //   h[e] = activation(gate[e] in[r] + gate_bias[e], up[e] in[r] + up_bias[e]);  out[r] += w[e] * (down[e] h[e] + down_bias[e]).
  // A bias of the choice goes with sigmoids alone. scores: experts.count wide. `out` is neither `in` nor `scores`.
  virtual void MixExperts(Rows out, Rows in, Rows scores, const Experts& experts) = 0;

  // In place: rows[r] *= sigmoid(gate[r]), one number a row.
  virtual void SigmoidGate(Rows rows, Rows gate) = 0;

  // out[r] = a[r] * b[r], element by element. `out` may be `a` or `b`.
  virtual void Multiply(Rows out, Rows a, Rows b) = 0;

  // In place: rows[r] += bias, element by element.
  virtual void AddBias(Rows rows, Vector bias) = 0;

  // In place: rows[r] = cap * tanh(rows[r] / cap), element by element, for a cap above zero.
  virtual void SoftCap(Rows rows, float cap) = 0;

  // In place: each head, RMS-normalised over its width by `weight` when weight.data is set, then rotated by its row's position.
  virtual void NormRope(Heads heads, Vector weight, float eps, const RopeSpec& rope) = 0;

  // In place: rows[r] *= factors[position / every], of the row's position; the last of them where there are no more.
  virtual void ScaleByPosition(Rows rows, Vector factors, int every) = 0;

  // Appends in[r] as the row of `state` at row_position[r], in the state's element type (kF32, kF16 or kQ8_0).
  virtual void Append(StateRef state, Rows in) = 0;

  // Causal softmax attention of q against rows [spec.First(position), position] of the append-only states k and v. A row of k and of v is
  // kv_heads x head width; query head h reads kv head h / (q.count / kv_heads). out: q.count x q.width, heads consecutive.
  // Heads of kQ8_0 are whole blocks wide; a query then meets keys as int8 under one float32 scale for each of its blocks.
  // With gate.count > 0, each output head is multiplied by sigmoid of the gate's head. A row before first_position gives zeros.
  virtual void Attention(Rows out, Heads q, StateRef k, StateRef v, Heads gate, const AttentionSpec& spec) = 0;

  // Depthwise causal convolution over in.width channels. `tail` is float32 [kernel - 1][channels], oldest first: the inputs before the
  // lane's first row are read from it, and the last kernel - 1 inputs are written. weight: [channels][kernel], the last tap meets the
  // current row; bias: [channels], or without data. out = silu(bias + convolution) when `silu`.
  virtual void CausalConv(Rows out, Rows in, StateRef tail, Vector weight, Vector bias, int kernel, bool silu) = 0;

  // The gated delta rule, token by token. Inputs of a row: qkv = [q: key_heads x key_dim | k: key_heads x key_dim | v: value_heads x
  // value_dim]; alpha, beta: value_heads each (before softplus and sigmoid). Value heads share key heads in turns, or neighbours share one.
  // `state` is float32 [value_heads][key_dim][value_dim]. q and k are l2-normalised (eps 1e-6 inside the root), q scaled by key_dim^-1/2;
  //   b = sigmoid(beta); g = exp(a * softplus(alpha + dt)); S = g S; d = b (v - S^T k); S = S + k d^T; out = S^T q.
  // out: value_heads x value_dim.
  struct DeltaNetShape {
    int key_heads, key_dim, value_heads, value_dim;
    bool neighbours = false;  // value_heads is a multiple of key_heads then
    constexpr int KeyHead(int value_head) const { return neighbours ? value_head / (value_heads / key_heads) : value_head % key_heads; }
    // The value heads of a key head, by number from 0 on; past the last it is no value head of that key head, or none at all.
    constexpr int ValueHead(int key_head, int number) const {
      return neighbours ? key_head * (value_heads / key_heads) + number : key_head + number * key_heads;
    }
  };
  virtual void DeltaNet(Rows out, Rows qkv, Rows alpha, Rows beta, Vector a, Vector dt, StateRef state, const DeltaNetShape& shape) = 0;

  // The state space recurrence of Mamba-2, token by token. Inputs of a row: xbc = [x: heads x head_dim | B: groups x state_dim |
  // C: groups x state_dim]; dt: heads (before softplus). Head h uses group h / (heads / groups).
  // `state` is float32 [heads][state_dim][head_dim].
  //   step = softplus(dt + dt_bias); S = exp(a * step) S + B (step x)^T; out = S^T C + d x.
  // out: heads x head_dim.
  struct SsmShape {
    int heads, head_dim, groups, state_dim;
  };
  virtual void Ssm(Rows out, Rows xbc, Rows dt, Vector a, Vector dt_bias, Vector d, StateRef state, const SsmShape& shape) = 0;

  // The selective scan of Mamba-1 (Gu and Dao, arXiv:2312.00752), token by token, each channel by itself. Inputs of a row: x and dt (before
  // softplus), a value a channel; b and c, a value for each of the state's dimensions.
  //   step = softplus(dt + dt_bias); S[n] = exp(a[n] * step) S[n] + b[n] step x; out = the sum of S[n] c[n] + d x.
  // `a` and the state, which is float32, are [channels / kScanChannels][state_dim][kScanChannels]: what neighbouring channels have is in one
  // piece, and lies as vectors read it. out, x, dt: channels, a multiple of kScanChannels; b, c: state_dim.
  static constexpr int kScanChannels = 16;
  virtual void SelectiveScan(Rows out, Rows x, Rows dt, Rows b, Rows c, Vector a, Vector dt_bias, Vector d, StateRef state) = 0;

  // out = RmsNorm over each consecutive head of weight.size values, times weight, times silu(gate). `out` may be `in`.
  virtual void GatedRmsNorm(Rows out, Rows in, Rows gate, Vector weight, float eps) = 0;

  // out[r] = in[r - 1] within a lane; a lane's first row gets the recurrent state `last` (float32, out.width) of its read block.
  virtual void Previous(Rows out, Rows in, StateRef last) = 0;
  // The recurrent state `last` of each lane's write block = the lane's last row of `in`.
  virtual void SaveLast(StateRef last, Rows in) = 0;
  // out[lane] = the recurrent state `last` of the lane's read block. out.domain is kLanes.
  virtual void LoadLast(Rows out, StateRef last) = 0;
  // out[lane] = the lane's last row of `in`; a lane without rows leaves its row as it is. out.domain is kLanes, in.domain kRows.
  virtual void LastRows(Rows out, Rows in) = 0;

  // The row of each lane's ReplayLog at its position = the row's columns of `parts`; nothing of a lane without a log. `parts` lie within the log's
  // rows, and have as many rows as any step that runs this.
  virtual void KeepLog(std::span<const LogPart> parts) = 0;
  // The reverse: `parts` as they were when the log kept them. A lane without a log leaves its rows as they are.
  virtual void RecallLog(std::span<const LogPart> parts) = 0;

  // index[r] = the smallest column at which in[r] is greatest (a NaN is never the greatest; all NaN gives 0).
  virtual void ArgMax(int32_t* index, Rows in) = 0;

  // The greatest values of each row, by ascending column; of equal ones those of smaller columns; NaN and minus infinity never. Where there are
  // fewer than kBestValues, the columns after the last are -1. out.index[r] is the smallest column of the greatest, or 0 where there is none.
  // Only of a backend that finds_best().
  virtual void Best(const BestRows& out, Rows in) = 0;
  // parts[p] = the sum of the weights (base/logit_weight.h) of the row's columns from p * kWeighedPart on, without NaN and minus infinity; of the row that
  // `row` names when the step runs, whatever rows the step has. `parts`: memory that the host reads. Only of a backend that finds_best().
  virtual void Weigh(double* parts, const WeighedRow* row, Rows in) = 0;
};

}  // namespace reprise
