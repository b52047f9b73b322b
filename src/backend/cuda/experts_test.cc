// Mixtures of experts: as the plain definition has them, and the bits that the experts' products have one by one, however many rows there are. On the
// emulator, and on a GPU where there is one.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "backend/cpu/cpu_rig.h"
#include "backend/cuda/cuda_plan.h"
#include "backend/cuda/device_rig.h"
#include "backend/expert_weights.h"
#include "backend/weight_rig.h"
#include "formats/quantize.h"

namespace reprise {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

struct Shape {
  TensorType wide = TensorType::kF32, narrow = TensorType::kF32;  // of gate (and up, but where it has its own), and of down
  int width = 32, inner = 32, outputs = 32, count = 4, used = 2;
  bool sigmoid = false, choice_bias = false;
  float scale = 1.0f;
  TensorType own_up = TensorType::kQ2_K;  // which is no type of the device's
  Activation activation = Activation::kSwiGlu;
  bool biased = false;  // gates, ups, downs and scores
  bool scaled = false;  // the weight of each expert
  bool adds = true;
  bool gated() const { return HasGate(activation); }
  TensorType up() const { return own_up == TensorType::kQ2_K ? wide : own_up; }
};

struct TestMatrix {
  TestMatrix(TensorType type_in, int inputs_in, int outputs_in, uint32_t seed)
      : type(type_in), inputs(inputs_in), outputs(outputs_in), bytes(RandomWeight(type_in, inputs_in, outputs_in, seed)) {
    values.resize(static_cast<size_t>(inputs) * static_cast<size_t>(outputs));
    EXPECT_TRUE(DequantizeRow(type, bytes, values).ok());
  }
  // `count` of its rows from `first` on.
  const Matrix* Load(Backend& backend, int first, int count) const {
    const size_t row = bytes.size() / static_cast<size_t>(outputs);
    return *backend.LoadMatrix(
        {"w", type, inputs, count, std::span(bytes).subspan(static_cast<size_t>(first) * row, static_cast<size_t>(count) * row)});
  }
  const Matrix* Load(Backend& backend) const { return Load(backend, 0, outputs); }
  // Rows [first, first + count) times x, of a magnitude that keeps results near 1.
  std::vector<double> Times(const std::vector<double>& x, int first, int count) const {
    std::vector<double> y(static_cast<size_t>(count));
    for (size_t o = 0; o < y.size(); ++o) {
      const float* w = values.data() + (static_cast<size_t>(first) + o) * x.size();
      for (size_t i = 0; i < x.size(); ++i) y[o] += double{w[i]} * x[i];
    }
    return y;
  }
  TensorType type;
  int inputs, outputs;
  std::vector<std::byte> bytes;
  Floats1d values;
};

struct Mixture {
  explicit Mixture(const Shape& s)
      : shape(s),
        gate(s.wide, s.width, s.count * s.inner, 1),
        up(s.up(), s.width, s.count * s.inner, 2),
        down(s.narrow, s.inner, s.count * s.outputs, 3),
        choice_bias(RandomFloats(static_cast<size_t>(s.count), 4, 0.3f)),
        gate_bias(Bias(s.count * s.inner, 5)),
        up_bias(Bias(s.count * s.inner, 6)),
        down_bias(Bias(s.count * s.outputs, 7)),
        score_bias(Bias(s.count, 8)),
        weight_scale(s.scaled ? RandomFloats(static_cast<size_t>(s.count), 9) : Floats1d(static_cast<size_t>(s.count), 1.0f)) {}
  Experts Load(Backend& backend) const {
    Experts experts;
    if (shape.gated()) experts.gate = gate.Load(backend);
    experts.up = up.Load(backend);
    experts.down = down.Load(backend);
    if (shape.choice_bias) experts.choice_bias = LoadFloats(backend, choice_bias);
    if (shape.biased) {
      if (shape.gated()) experts.gate_bias = LoadFloats(backend, gate_bias);
      experts.up_bias = LoadFloats(backend, up_bias);
      experts.down_bias = LoadFloats(backend, down_bias);
      experts.score_bias = LoadFloats(backend, score_bias);
    }
    if (shape.scaled) experts.weight_scale = LoadFloats(backend, weight_scale);
    experts.adds = shape.adds;
    experts.activation = shape.activation;
    experts.count = shape.count;
    experts.used = shape.used;
    experts.sigmoid = shape.sigmoid;
    experts.scale = shape.scale;
    return experts;
  }
  // Zeros where there are none.
  Floats1d Bias(int count, uint32_t seed) const {
    return shape.biased ? RandomFloats(static_cast<size_t>(count), seed) : Floats1d(static_cast<size_t>(count));
  }
  float Score(const float* scores, int e) const { return scores[e] + score_bias[static_cast<size_t>(e)]; }
  Shape shape;
  TestMatrix gate, up, down;
  Floats1d choice_bias, gate_bias, up_bias, down_bias, score_bias, weight_scale;
};
double Activate(Activation activation, double gate, double up) {
  switch (activation) {
    case Activation::kSwiGlu: return gate / (1 + std::exp(-gate)) * up;
    case Activation::kGeGlu:
      return gate / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (gate + 0.044715 * gate * gate * gate))) * up;
    case Activation::kClampedSwiGlu: {
      const double g = std::min(gate, 7.0);
      return (std::clamp(up, -7.0, 7.0) + 1) * g / (1 + std::exp(-1.702 * g));
    }
    case Activation::kReluSquared: return std::max(up, 0.0) * std::max(up, 0.0);
  }
  return 0;
}

bool Quantises(TensorType type) { return type != TensorType::kF32 && type != TensorType::kF16 && type != TensorType::kBF16; }

// What weights of blocks meet.
std::vector<double> Met(TensorType type, std::vector<double> x) {
  if (!Quantises(type)) return x;
  for (size_t block = 0; block < x.size(); block += 32) {
    float top = 0;
    for (size_t i = block; i < block + 32; ++i) top = std::max(top, std::abs(static_cast<float>(x[i])));
    for (size_t i = block; i < block + 32 && top > 0; ++i)
      x[i] = std::rint(static_cast<float>(x[i]) * (127.0f / top)) * double{top / 127.0f};
  }
  return x;
}

struct Choice {
  int expert;
  double weight;
};
// By the definition in ops.h, with the C library's exponential.
std::vector<Choice> Choose(const Mixture& m, const float* scores) {
  const Shape& s = m.shape;
  const auto score = [&](int e) { return double{m.Score(scores, e)}; };
  const auto p = [&](int e) { return s.sigmoid ? 1 / (1 + std::exp(-score(e))) : std::exp(score(e)); };
  const auto key = [&](int e) {
    return s.sigmoid ? p(e) + (s.choice_bias ? double{m.choice_bias[static_cast<size_t>(e)]} : 0.0) : score(e);
  };
  std::vector<int> order(static_cast<size_t>(s.count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return std::isnan(key(b)) ? !std::isnan(key(a)) : key(a) > key(b); });
  std::vector<Choice> choices;
  double sum = 0, greatest = s.sigmoid ? 0.0 : score(order[0]);
  for (int rank = 0; rank < s.used; ++rank) {
    const int e = order[static_cast<size_t>(rank)];
    choices.push_back({e, s.sigmoid ? p(e) : std::exp(score(e) - greatest)});
    sum += choices.back().weight;
  }
  for (Choice& choice : choices) choice.weight *= double{s.scale} / sum * double{m.weight_scale[static_cast<size_t>(choice.expert)]};
  return choices;
}

// `in`: a row and its scores; what is added to is the row's beginning.
std::vector<double> Wanted(const Mixture& m, const float* in) {
  const Shape& s = m.shape;
  const std::vector<double> x(in, in + s.width);
  std::vector<double> out(in, in + s.outputs);
  for (double& y : out) y *= s.adds ? y / (1 + std::exp(-y)) : 0.0;
  for (const Choice& choice : Choose(m, in + s.width)) {
    const auto gate = m.gate.Times(Met(s.wide, x), choice.expert * s.inner, s.inner);
    const auto up = m.up.Times(Met(s.up(), x), choice.expert * s.inner, s.inner);
    std::vector<double> hidden(gate.size());
    for (size_t i = 0; i < gate.size(); ++i) {
      const size_t at = static_cast<size_t>(choice.expert * s.inner) + i;
      hidden[i] = Activate(s.activation, gate[i] + m.gate_bias[at], up[i] + m.up_bias[at]);
    }
    const auto made = m.down.Times(Met(s.narrow, hidden), choice.expert * s.outputs, s.outputs);
    for (size_t o = 0; o < made.size(); ++o) {
      out[o] += choice.weight * (made[o] + m.down_bias[static_cast<size_t>(choice.expert * s.outputs) + o]);
    }
  }
  return out;
}

Job JobOf(const Mixture& m, int rows) {
  const Shape& s = m.shape;
  Job job;
  job.in = s.width + s.count;
  job.out = s.outputs;
  job.lane_rows = {rows};
  job.record = [&m](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Rows start = in.Columns(0, m.shape.outputs);
    ops.SwiGlu(out, start, start);  // something to add to
    ops.MixExperts(out, in.Columns(0, m.shape.width), in.Columns(m.shape.width, m.shape.count), m.Load(backend));
  };
  return job;
}
Floats1d InputOf(const Mixture& m, int rows, uint32_t seed) {
  return RandomFloats(static_cast<size_t>(rows) * static_cast<size_t>(m.shape.width + m.shape.count), seed);
}

// |got - wanted| <= tolerance * the row's greatest value; or both are NaN.
void ExpectRow(const float* got, const std::vector<double>& wanted, double tolerance, const std::string& what) {
  double top = 0;
  for (const double y : wanted) top = std::max(top, std::abs(y));
  for (size_t i = 0; i < wanted.size(); ++i) {
    const bool near = std::isnan(wanted[i]) ? std::isnan(got[i]) : std::abs(double{got[i]} - wanted[i]) <= tolerance * top;
    ASSERT_TRUE(near) << what << ", column " << i << ": " << got[i] << ", wanted " << wanted[i] << " of " << top;
  }
}
void ExpectRows(const Mixture& m, const Floats1d& in, const Floats1d& got, double tolerance, const std::string& what) {
  const auto row_in = static_cast<size_t>(m.shape.width + m.shape.count), row_out = static_cast<size_t>(m.shape.outputs);
  for (size_t row = 0; row * row_in < in.size(); ++row) {
    ExpectRow(got.data() + row * row_out, Wanted(m, in.data() + row * row_in), tolerance, what + ", row " + std::to_string(row));
  }
}

Shape Ungated(Shape shape) {
  shape.activation = Activation::kReluSquared;
  return shape;
}
Shape Clamped(Shape shape) {
  shape.activation = Activation::kClampedSwiGlu;
  return shape;
}
Shape Bent(Shape shape) {
  shape.activation = Activation::kGeGlu;
  return shape;
}
Shape ScaledAlone(Shape shape) {
  shape.scaled = true;
  shape.adds = false;
  return shape;
}
Shape Biased(Shape shape) {
  shape.biased = true;
  return shape;
}

class MixExperts : public testing::TestWithParam<Shape> {};
using enum TensorType;
INSTANTIATE_TEST_SUITE_P(
    Forms, MixExperts,
    testing::Values(Shape{kQ8_0, kQ8_0, 608, 32, 64, 5, 2},    // fewer tiles than a block of a run has; of one row more warps
                    Shape{kQ4_0, kQ8_0, 160, 160, 160, 7, 3},  // last segments and last groups of tiles that are not whole
                    Shape{kQ4_K, kQ6_K, 256, 256, 64, 4, 2},   // as files mix them
                    Shape{kQ6_K, kQ4_K, 256, 512, 32, 4, 3},   // one tile of outputs, of many segments
                    Shape{kQ5_K, kQ5_1, 512, 64, 96, 16, 4},   // short runs
                    Shape{kQ5_0, kQ4_1, 128, 96, 128, 3, 3},   // every expert
                    Shape{kQ4_1, kQ5_K, 4224, 256, 32, 2, 2},  // sums of more than one window
                    Shape{kQ5_1, kBF16, 64, 128, 64, 4, 2},    // quantised, then not
                    Shape{kF16, kQ4_0, 68, 64, 64, 4, 2},      // and the other way round
                    Shape{kBF16, kBF16, 132, 160, 64, 5, 3},   // rows that begin on no 16 bytes
                    Shape{kF16, kF16, 640, 64, 160, 8, 1},     // one expert a row
                    Shape{kQ8_0, kQ8_0, 160, 96, 64, 5, 2, false, false, 1.0f, kQ4_0},  // gates and ups that are not alike
                    Shape{kBF16, kF16, 128, 64, 64, 5, 2, false, false, 1.0f, kQ4_1},   // and not quantised alike
                    Shape{kQ4_0, kF32, 64, 64, 64, 5, 2, false, false, 1.0f, kF32},     // and met otherwise in steps of many rows
                    Shape{kF32, kF32, 70, 64, 64, 6, 2},                                // a segment that is not whole
                    Shape{kMXFP4, kMXFP4, 160, 96, 160, 5, 2}, Shape{kMXFP4, kQ8_0, 256, 64, 64, 5, 2, false, false, 1.0f, kQ4_0},
                    Ungated(Shape{kQ8_0, kQ8_0, 160, 96, 64, 5, 2}), Ungated(Shape{kQ4_K, kQ6_K, 256, 256, 64, 4, 2}),
                    Ungated(Shape{kBF16, kF16, 132, 160, 64, 5, 3}), Ungated(Shape{kF32, kQ4_0, 64, 64, 64, 5, 2}),
                    Clamped(Shape{kMXFP4, kMXFP4, 160, 96, 64, 5, 2}), Clamped(Shape{kF32, kF32, 70, 64, 64, 6, 2}),
                    Biased(Clamped(Shape{kMXFP4, kMXFP4, 160, 96, 160, 7, 3})), Biased(Clamped(Shape{kBF16, kF32, 64, 64, 64, 5, 2})),
                    Biased(Clamped(Shape{kMXFP4, kQ8_0, 128, 64, 64, 5, 2, false, false, 1.0f, kQ4_0})),  // each product alone
                    Biased(Shape{kQ8_0, kQ8_0, 160, 96, 64, 5, 2}), Biased(Shape{kF16, kQ4_0, 68, 64, 64, 4, 2}),
                    Biased(Shape{kBF16, kBF16, 128, 64, 64, 5, 2}), Biased(Ungated(Shape{kQ8_0, kMXFP4, 160, 96, 64, 5, 2})),
                    Biased(Ungated(Shape{kF32, kF32, 64, 64, 64, 5, 2})), Bent(Shape{kQ8_0, kQ8_0, 160, 96, 64, 5, 2}),
                    Biased(Bent(Shape{kBF16, kF16, 128, 64, 64, 5, 2})), ScaledAlone(Bent(Shape{kQ8_0, kQ8_0, 160, 96, 64, 5, 2})),
                    ScaledAlone(Biased(Shape{kF32, kF32, 64, 64, 64, 5, 2}))),
    [](const auto& info) {
      return std::string(TensorTypeName(info.param.wide)) + "_" + std::string(TensorTypeName(info.param.narrow)) + "_" +
             std::to_string(info.index);
    });

// Steps of 70 rows, of few, and of some between, as graphs are made for them.
TEST_P(MixExperts, IsTheDefinitionAndTheSameBitsForAnyNumberOfRows) {
  const Mixture m(GetParam());
  constexpr int kRows = 70;
  const Job job = JobOf(m, kRows);
  const Floats1d in = InputOf(m, kRows, 5);
  for (TestBackend& device : DeviceBackends()) {
    const Outcome whole = RunJobOn(*device.backend, job, in, OneStep(job.lane_rows));
    ExpectRows(m, in, whole.out[0], Quantises(m.shape.wide) || Quantises(m.shape.up()) || Quantises(m.shape.narrow) ? 2e-3 : 4e-6,
               device.name);
    for (const Cut& cut : {RowByRow(job.lane_rows), Cut{{3}, {8}, {9}, {1}, {32}, {17}}, Cut{{64}, {6}}}) {
      EXPECT_TRUE(SameBits(RunJobOn(*device.backend, job, in, cut), whole)) << device.name << ", first of " << cut[0][0];
    }
    // Graphs of more rows than a step has.
    Job roomy = job;
    roomy.max_rows = 70;
    EXPECT_TRUE(SameBits(RunJobOn(*device.backend, roomy, in, {{1}, {10}, {2}, {33}, {24}}), whole)) << device.name;
  }
}

// An expert's rows have the bits that MatMul and SwiGlu give them, and are added up in the order of the choice.
TEST_P(MixExperts, ExpertsHaveTheBitsOfProducts) {
  const Mixture m(GetParam());
  const Shape& s = m.shape;
  if (s.activation == Activation::kClampedSwiGlu) return;  // there is no op of it alone
  constexpr int kRows = 11;
  const Floats1d in = InputOf(m, kRows, 6);
  const Job mixed = JobOf(m, kRows);
  Job dense = mixed;  // every expert of every row, and what is added to
  dense.out = s.outputs * (s.count + 1) + 2 * s.inner;
  dense.record = [&](Backend& backend, Ops& ops, Rows x, Rows out) {
    const Rows start = x.Columns(0, s.outputs), row = x.Columns(0, s.width);
    ops.SwiGlu(out.Columns(s.count * s.outputs, s.outputs), start, start);
    const Rows gate = out.Columns((s.count + 1) * s.outputs, s.inner), up = out.Columns((s.count + 1) * s.outputs + s.inner, s.inner);
    for (int e = 0; e < s.count; ++e) {
      const auto add_bias = [&](const Rows& rows, const Floats1d& all) {
        if (s.biased) ops.AddBias(rows, LoadFloats(backend, {all.begin() + e * rows.width, all.begin() + (e + 1) * rows.width}));
      };
      const Product of_up{m.up.Load(backend, e * s.inner, s.inner), up};
      if (s.gated()) {
        ops.MatMul(row, std::array{Product{m.gate.Load(backend, e * s.inner, s.inner), gate}, of_up});
        add_bias(gate, m.gate_bias);
        add_bias(up, m.up_bias);
        s.activation == Activation::kGeGlu ? ops.GeGlu(gate, gate, up) : ops.SwiGlu(gate, gate, up);
      } else {
        ops.MatMul(row, {&of_up, 1});
        add_bias(up, m.up_bias);
        ops.ReluSquared(gate, up);
      }
      const Rows made = out.Columns(e * s.outputs, s.outputs);
      ops.MatMul(gate, std::array{Product{m.down.Load(backend, e * s.outputs, s.outputs), made}});
      add_bias(made, m.down_bias);
    }
  };
  for (TestBackend& device : DeviceBackends()) {
    const Outcome got = RunJobOn(*device.backend, mixed, in, OneStep(mixed.lane_rows));
    const Outcome parts = RunJobOn(*device.backend, dense, in, RowByRow(mixed.lane_rows));
    for (int row = 0; row < kRows; ++row) {
      const float* scores = in.data() + row * mixed.in + s.width;
      const float* made = parts.out[0].data() + static_cast<size_t>(row) * static_cast<size_t>(dense.out);
      const std::vector<Choice> choices = Choose(m, scores);
      double sum = 0;
      const auto share = [&](const Choice& choice) {
        return ExpertShare(m.Score(scores, choice.expert), m.Score(scores, choices[0].expert));
      };
      for (const Choice& choice : choices) sum += share(choice);
      for (int o = 0; o < s.outputs; ++o) {
        float wanted = s.adds ? made[s.count * s.outputs + o] : 0.0f;
        for (const Choice& choice : choices) {
          const float weight = static_cast<float>(share(choice) / sum) * m.weight_scale[static_cast<size_t>(choice.expert)];
          wanted = std::fma(weight, made[choice.expert * s.outputs + o], wanted);
        }
        ASSERT_TRUE(SameBits(got.out[0][static_cast<size_t>(row * s.outputs + o)], wanted))
            << device.name << ", row " << row << ", column " << o;
      }
    }
  }
}

// Many experts, ties, what is no number: rows by turns. One row and many.
void CheckChoices(Shape s, const std::vector<std::function<float(int)>>& rows) {
  const Mixture m(s);
  constexpr int kRows = 12;
  Floats1d in = InputOf(m, kRows, 7);
  for (size_t row = 0; row < kRows; ++row) {
    for (int e = 0; e < s.count; ++e) {
      in[row * static_cast<size_t>(s.width + s.count) + static_cast<size_t>(s.width + e)] = rows[row % rows.size()](e);
    }
  }
  const Job job = JobOf(m, kRows);
  for (TestBackend& device : DeviceBackends()) {
    const Outcome whole = RunJobOn(*device.backend, job, in, OneStep(job.lane_rows));
    ExpectRows(m, in, whole.out[0], 1e-5, device.name + ", " + std::to_string(s.used) + " of " + std::to_string(s.count));
    EXPECT_TRUE(SameBits(RunJobOn(*device.backend, job, in, RowByRow(job.lane_rows)), whole)) << device.name;
  }
}

TEST(MixExpertsChoice, OfEqualOnesTheFirstAndANaNLast) {
  const std::vector<std::function<float(int)>> rows = {
      [](int) { return 0.5f; },                                                                     // all the same
      [](int e) { return e % 3 == 1 ? 1.0f : -1.0f; },                                              // hardly any different
      [](int e) { return e % 2 ? 0.0f : -0.0f; },                                                   // the same, whatever their sign
      [](int e) { return e % 4 ? kNaN : static_cast<float>(e) * 0.01f; },                           // few numbers
      [](int e) { return e == 0 ? kNaN : static_cast<float>(-e) * 0.1f; },                          // a NaN that is first
      [](int e) { return e % 5 == 2 ? static_cast<float>(e) * -0.01f : -kInfinity; },               // minus infinity is more than NaN
      [](int e) { return e == 1 ? 2000.0f : static_cast<float>(e % 7) * -1000.0f; },                // weights of nothing
      [](int e) { return e == 30 || e == 2 ? 80.0f : 3.0f + static_cast<float>(e % 11) * 1e-6f; },  // different in their last bits
  };
  for (const auto& [count, used] : {std::pair{3, 1}, std::pair{32, 4}, std::pair{33, 8}, std::pair{100, 20}, std::pair{512, 32}}) {
    Shape s;
    s.count = count;
    s.used = used;
    CheckChoices(s, rows);
    s.sigmoid = true;
    s.scale = 2.5f;
    CheckChoices(s, rows);
  }
  Shape all;
  all.count = all.used = 32;
  CheckChoices(all, {rows[0], rows[1], rows[4]});  // of row 4 a NaN is chosen, last
}

TEST(MixExpertsChoice, ABiasChoosesAndDoesNotWeigh) {
  for (const auto& [count, used] : {std::pair{8, 2}, std::pair{200, 8}}) {
    Shape s;
    s.count = count;
    s.used = used;
    s.sigmoid = s.choice_bias = true;
    s.scale = 0.7f;
    CheckChoices(s, {[](int) { return 0.0f; }, [](int e) { return static_cast<float>(e * 7 % 13) * 0.2f - 1.0f; },
                     [](int e) { return e % 3 ? kNaN : 0.1f * static_cast<float>(e % 5); }});
  }
}

// Runs are cut after 64 visits: all rows go to one expert, or to two in turns, and nobody to the others.
TEST(MixExpertsRuns, ExpertsThatAllMeetOrNobody) {
  for (const TensorType type : {kQ8_0, kQ4_0, kBF16, kF32}) {
    Shape s{type, type, 64, 64, 64, 9, 1};
    const Mixture m(s);
    constexpr int kRows = 150;
    Floats1d in = InputOf(m, kRows, 8);
    const auto score = [&](int row, int e) -> float& { return in[static_cast<size_t>(row * (s.width + s.count) + s.width + e)]; };
    for (int row = 0; row < kRows; ++row) {
      for (int e = 0; e < s.count; ++e) score(row, e) = 0;
      score(row, row == 77 ? 0 : row % 20 == 3 ? 8 : 5) = 1;
    }
    const Job job = JobOf(m, kRows);
    for (TestBackend& device : DeviceBackends()) {
      const Outcome whole = RunJobOn(*device.backend, job, in, OneStep(job.lane_rows));
      ExpectRows(m, in, whole.out[0], Quantises(type) ? 2e-3 : 4e-6, device.name);
      EXPECT_TRUE(SameBits(RunJobOn(*device.backend, job, in, {{130}, {1}, {19}}), whole)) << device.name;
    }
  }
}

// A layer, as models have them: the norm is the router's and the experts', and what they make is normed again and multiplied.
TEST(MixExpertsLayer, NoLaunchIsTakenIntoAnother) {
  for (const TensorType router : {kF32, kQ8_0}) {
    Shape s{kQ8_0, kQ4_0, 64, 32, 64, 8, 3};
    const Mixture m(s);
    const TestMatrix route(router, s.width, s.count, 11), next(kQ8_0, s.outputs, 40, 12), shared(kQ8_0, s.width, 32, 13);
    const Floats1d norm = RandomFloats(64, 14);
    Job job;
    job.in = s.width;
    job.out = s.width + s.count + s.outputs + 64 + 40 + 64 + 2;
    job.lane_rows = {13, 4};
    job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
      int at = 0;
      const auto take = [&](int width) { return out.Columns(std::exchange(at, at + width), width); };
      const Rows normed = take(s.width), scores = take(s.count), sum = take(s.outputs), again = take(64), last = take(40), gate = take(32),
                 up = take(32), one = take(1), other = take(1);
      ops.RmsNorm(normed, in, LoadFloats(backend, norm), 1e-6f);
      ops.MatMul(normed, std::array{Product{route.Load(backend), scores}});
      ops.SwiGlu(sum, in, in);
      ops.MixExperts(sum, normed, scores, m.Load(backend));
      ops.MatMul(normed, std::array{Product{shared.Load(backend), gate}, Product{shared.Load(backend), up}});
      ops.SwiGlu(gate, gate, up);
      ops.SwiGlu(one, scores.Columns(0, 1), scores.Columns(1, 1));
      ops.SigmoidGate(gate, one);
      ops.MixExperts(sum, normed, scores, m.Load(backend));
      ops.RmsNorm(again, sum, LoadFloats(backend, norm), 1e-6f);
      ops.MatMul(again, std::array{Product{next.Load(backend), last}});
      ops.SwiGlu(other, one, one);
    };
    const Floats1d in = RandomFloats(static_cast<size_t>(17 * s.width), 15);
    for (const Outcome& outcome : RunOnDevices(job, in, 16, 5)) EXPECT_EQ(outcome.out.size(), 2u);  // every way to cut it
  }
}

// Rows of lanes, which may be more than those of the step.
TEST(MixExpertsLanes, ARowALane) {
  const Mixture m(Shape{kQ8_0, kQ8_0, 64, 32, 64, 8, 3});
  constexpr int kLanes = 12;
  const int row_in = m.shape.width + m.shape.count;
  const Floats1d in = InputOf(m, kLanes, 17);
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    StepTable table(2, kLanes);
    const auto bytes = in.size() * sizeof(float);
    auto* const x = reinterpret_cast<float*>(*backend.Allocate(bytes, "in"));
    auto* const y = reinterpret_cast<float*>(*backend.Allocate(kLanes * 64 * sizeof(float), "out"));
    Write(backend, x, in.data(), bytes);
    auto plan = backend.Capture(table, [&](Ops& ops) {
      const Rows from{x, row_in, m.shape.width, Domain::kLanes}, to{y, 64, 64, Domain::kLanes};
      ops.SwiGlu(to, from, from);
      ops.MixExperts(to, from, {x + m.shape.width, row_in, m.shape.count, Domain::kLanes}, m.Load(backend));
    });
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    for (const int lanes : {1, 7, kLanes}) {
      Poison(backend, y, kLanes * 64 * sizeof(float));
      table.lanes = lanes;
      table.rows = 0;
      ASSERT_TRUE(backend.stream().Replay(**plan).ok());
      const Floats1d got = ReadFloats(backend, y, kLanes * 64);
      const Floats1d first(in.begin(), in.begin() + lanes * row_in);
      ExpectRows(m, first, got, 2e-3, device.name);
      for (size_t i = static_cast<size_t>(lanes) * 64; i < got.size(); ++i) ASSERT_TRUE(std::isnan(got[i])) << "a lane that is not there";
    }
  }
}

TEST(MixExpertsPlan, LaunchesAndRefusals) {
  for (TestBackend& device : DeviceBackends()) {
    Backend& backend = *device.backend;
    StepTable table(16, 1);
    auto* const x = reinterpret_cast<float*>(*backend.Allocate(size_t{3} * 16 * 2048 * sizeof(float), "rows"));
    const auto capture = [&](const Shape& s) {
      const Mixture m(s);
      const Experts experts = m.Load(backend);
      const auto rows = [&](int n, int width) { return Rows{x + n * 16 * 2048, 2048, width, Domain::kRows}; };
      return backend.Capture(table, [&](Ops& ops) { ops.MixExperts(rows(0, s.outputs), rows(1, s.width), rows(2, s.count), experts); });
    };
    const auto launches = [&](TensorType wide, TensorType narrow, int rows, bool gated = true) {
      auto plan = capture(gated ? Shape{wide, narrow} : Ungated({wide, narrow}));
      EXPECT_TRUE(plan.ok()) << plan.status().message();
      return static_cast<const cuda::CudaPlan&>(**plan).launches(rows, 1);
    };
    for (const TensorType type : {kQ8_0, kBF16}) {
      for (const int few : {1, 8}) EXPECT_EQ(launches(type, type, few), 3u);
      EXPECT_EQ(launches(type, type, 9), 5u);
      EXPECT_EQ(launches(type, type, 1, /*gated=*/false), 3u);
      EXPECT_EQ(launches(type, type, 9, /*gated=*/false), 5u);
    }
    EXPECT_EQ(launches(kF32, kF32, 9), 3u);
    EXPECT_EQ(launches(kQ8_0, kF32, 9), 4u) << "runs of the first half alone";
    const auto error = [&](const Shape& s) {
      const auto plan = capture(s);
      EXPECT_FALSE(plan.ok());
      return plan.status().message();
    };
    EXPECT_NE(error({kF32, kF32, 32, 48}).find("multiple of 32"), std::string::npos);
    EXPECT_NE(error({kF32, kF32, 32, 32, 40}).find("multiple of 32"), std::string::npos);
    EXPECT_NE(error({kF32, kF32, 32, 32, 32, 40, 33}).find("more than 32 experts"), std::string::npos);
    EXPECT_NE(error({kF32, kF32, 32, 32, 32, 1025}).find("more than 1024"), std::string::npos);
  }
}

// Of the two products the first quantises the rows in passing, the second anew.
TEST(ReluSquared, SquaresWhatIsPositiveAndIsMultiplied) {
  constexpr int kWidth = 352, kRows = 11, kOutputs = 40;
  const TestMatrix weight(kQ8_0, kWidth, kOutputs, 18);
  Job job;
  job.in = kWidth;
  job.out = kWidth + 2 * kOutputs;
  job.lane_rows = {kRows};
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Rows made = out.Columns(0, kWidth), first = out.Columns(kWidth, kOutputs), again = out.Columns(kWidth + kOutputs, kOutputs);
    ops.ReluSquared(made, in);
    ops.MatMul(made, std::array{Product{weight.Load(backend), first}});
    ops.MatMul(made, std::array{Product{weight.Load(backend), again}});
  };
  Floats1d in = RandomFloats(static_cast<size_t>(kRows * kWidth), 19, 3.0f);
  const float odd[] = {-0.0f, kNaN, -kInfinity, 1e-30f, -1e30f};
  std::copy(std::begin(odd), std::end(odd), in.begin());
  for (const Outcome& outcome : RunOnDevices(job, in, 20, 5)) {
    for (int row = 0; row < kRows; ++row) {
      const float *x = in.data() + row * kWidth, *y = outcome.out[0].data() + static_cast<ptrdiff_t>(row) * job.out;
      for (int i = 0; i < kWidth; ++i) ASSERT_EQ(y[i], x[i] > 0 ? x[i] * x[i] : 0.0f) << row << " " << i;
      std::vector<double> squares(y, y + kWidth);
      ExpectRow(y + kWidth, weight.Times(Met(kQ8_0, squares), 0, kOutputs), 1e-5, "row " + std::to_string(row));
      for (int o = 0; o < kOutputs; ++o) ASSERT_TRUE(SameBits(y[kWidth + o], y[kWidth + kOutputs + o])) << row << " " << o;
    }
  }
}

// What is normed in groups is quantised in passing for the product that follows, and by itself for the second one.
TEST(RmsNorm, OfGroupsAndScaled) {
  for (const int group : {32, 96, 300}) {
    constexpr int kGroups = 3, kRows = 7, kOutputs = 32;
    const int width = kGroups * group;
    const TensorType type = width % 32 == 0 ? kQ8_0 : kF32;
    const TestMatrix matrix(type, width, kOutputs, 21);
    const Floats1d weight = RandomFloats(static_cast<size_t>(group), 22);
    Job job;
    job.in = width;
    job.out = width + 2 * kOutputs;
    job.lane_rows = {kRows};
    job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
      const Rows made = out.Columns(0, width), first = out.Columns(width, kOutputs), again = out.Columns(width + kOutputs, kOutputs);
      ops.RmsNorm(made, in, LoadFloats(backend, weight), 1e-5f);
      ops.AddRmsNorm(made, in, LoadFloats(backend, weight), 1e-5f, 0.375f);
      ops.MatMul(made, std::array{Product{matrix.Load(backend), first}});
      ops.MatMul(made, std::array{Product{matrix.Load(backend), again}});
    };
    const Floats1d in = RandomFloats(static_cast<size_t>(kRows * width), 23, 3.0f);
    for (const Outcome& outcome : RunOnDevices(job, in, 24, 3)) {
      for (int row = 0; row < kRows; ++row) {
        const float *x = in.data() + row * width, *y = outcome.out[0].data() + static_cast<ptrdiff_t>(row) * job.out;
        for (int i = 0; i < width; ++i) {
          const float* const of = x + i / group * group;
          double squares = 0;
          for (int c = 0; c < group; ++c) squares += double{of[c]} * double{of[c]};
          const double wanted = 0.75 * x[i] * weight[static_cast<size_t>(i % group)] / std::sqrt(squares / group + 1e-5);
          ASSERT_NEAR(y[i], wanted, 1e-5) << group << ", row " << row << ", column " << i;
        }
        const std::vector<double> normed(y, y + width);
        ExpectRow(y + width, matrix.Times(Met(type, normed), 0, kOutputs), 1e-5, "row " + std::to_string(row));
        for (int o = 0; o < kOutputs; ++o) ASSERT_TRUE(SameBits(y[width + o], y[width + kOutputs + o])) << row << " " << o;
      }
    }
  }
}

TEST(SigmoidGate, MultipliesARowByOneNumber) {
  constexpr int kWidth = 300, kRows = 11;
  Job job;
  job.in = kWidth + 3;
  job.out = kWidth + 2;
  job.lane_rows = {kRows};
  job.record = [&](Backend&, Ops& ops, Rows in, Rows out) {
    const Rows x = in.Columns(0, kWidth + 2);
    ops.SwiGlu(out, x, x);
    ops.SigmoidGate(out.Columns(1, kWidth), in.Columns(kWidth + 2, 1));
  };
  Floats1d in = RandomFloats(static_cast<size_t>(kRows * job.in), 18, 2.0f);
  const float gates[] = {0.0f, -0.0f, 100.0f, -100.0f, kNaN, kInfinity, -kInfinity};
  for (size_t row = 0; row < 7; ++row) in[row * static_cast<size_t>(job.in) + kWidth + 2] = gates[row];
  for (const Outcome& outcome : RunOnDevices(job, in, 19, 4)) {
    for (int row = 0; row < kRows; ++row) {
      const float* x = in.data() + row * job.in;
      for (int i = 0; i < kWidth + 2; ++i) {
        double wanted = double{x[i]} * double{x[i]} / (1 + std::exp(-double{x[i]}));
        if (i >= 1 && i <= kWidth) wanted /= 1 + std::exp(-double{x[kWidth + 2]});
        const float got = outcome.out[0][static_cast<size_t>(row * job.out + i)];
        if (std::isnan(wanted)) {
          EXPECT_TRUE(std::isnan(got)) << row << " " << i;
        } else {
          EXPECT_NEAR(got, wanted, 1e-6 * (1 + std::abs(wanted))) << row << " " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace reprise
