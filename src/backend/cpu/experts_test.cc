// Mixtures of experts: their result is that of the chosen experts, one by one, whatever rows share a step.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "backend/cpu/cpu_rig.h"
#include "backend/weight_rig.h"

namespace reprise {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Mixture {
  TensorType type = TensorType::kF32;
  int width = 256, inner = 256, count = 6, used = 3;
  Activation activation = Activation::kSwiGlu;
  bool biased = false;  // gates, ups, downs and scores
  bool sigmoid = false, normed = true;
  float scale = 1.0f;
  Floats1d choice_bias;
  Floats1d weight_scale;
  bool adds = true;
  std::vector<int> lane_rows{27, 1, 2};

  int rows() const { return std::accumulate(lane_rows.begin(), lane_rows.end(), 0); }
  std::vector<std::byte> Weights(int which) const {  // gate, up, down of all experts
    const int inputs = which == 2 ? inner : width, outputs = which == 2 ? width : inner;
    return RandomWeight(type, inputs, outputs * count, 100 + static_cast<uint32_t>(which));
  }
  bool gated() const { return HasGate(activation); }
  Floats1d Bias(int which) const {  // of all experts
    return RandomFloats(static_cast<size_t>(which == 2 ? width : inner) * static_cast<size_t>(count), 200 + static_cast<uint32_t>(which));
  }
  Floats1d ScoreBias() const { return biased ? RandomFloats(static_cast<size_t>(count), 210) : Floats1d(static_cast<size_t>(count)); }
};

// A row of input is [x | what is added to | ones | scores].
int InputWidth(const Mixture& m) { return 3 * m.width + m.count; }
Floats1d Inputs(const Mixture& m, const Floats1d& scores) {
  const auto width = static_cast<size_t>(m.width), count = static_cast<size_t>(m.count);
  const Floats1d x = RandomFloats(static_cast<size_t>(m.rows()) * width * 2, 7);
  Floats1d in;
  for (size_t row = 0; row < static_cast<size_t>(m.rows()); ++row) {
    const auto at = x.begin() + static_cast<long>(row * width * 2), at_scores = scores.begin() + static_cast<long>(row * count);
    in.insert(in.end(), at, at + m.width * 2);
    in.insert(in.end(), width, 1.0f);
    in.insert(in.end(), at_scores, at_scores + m.count);
  }
  return in;
}
Floats1d RandomScores(const Mixture& m) { return RandomFloats(static_cast<size_t>(m.rows() * m.count), 11, 2.0f); }

Rows NewRows(Backend& backend, int width) {
  return {reinterpret_cast<float*>(*backend.Allocate(sizeof(float) * static_cast<size_t>(width) * 256, "test")), width, width,
          Domain::kRows};
}

Job MixtureJob(const Mixture& m) {
  Job job;
  job.in = InputWidth(m);
  job.out = m.width;
  job.lane_rows = m.lane_rows;
  job.record = [m](Backend& backend, Ops& ops, Rows in, Rows out) {
    Experts experts;
    const auto load = [&](int which) {
      const int inputs = which == 2 ? m.inner : m.width, outputs = which == 2 ? m.width : m.inner;
      return *backend.LoadMatrix({"experts", m.type, inputs, int64_t{outputs} * m.count, m.Weights(which)});
    };
    if (m.gated()) experts.gate = load(0);
    experts.up = load(1);
    experts.down = load(2);
    experts.count = m.count;
    experts.used = m.used;
    experts.sigmoid = m.sigmoid;
    experts.normed = m.normed;
    experts.scale = m.scale;
    experts.activation = m.activation;
    experts.adds = m.adds;
    if (!m.weight_scale.empty()) experts.weight_scale = LoadFloats(backend, m.weight_scale);
    if (!m.choice_bias.empty()) experts.choice_bias = LoadFloats(backend, m.choice_bias);
    if (m.biased) {
      if (m.gated()) experts.gate_bias = LoadFloats(backend, m.Bias(0), m.count);
      experts.up_bias = LoadFloats(backend, m.Bias(1), m.count);
      experts.down_bias = LoadFloats(backend, m.Bias(2), m.count);
      experts.score_bias = LoadFloats(backend, m.ScoreBias());
    }
    ops.Multiply(out, in.Columns(m.width, m.width), in.Columns(2 * m.width, m.width));
    ops.MixExperts(out, in.Columns(0, m.width), in.Columns(3 * m.width, m.count), experts);
  };
  return job;
}

// What every expert makes of every row, by the ops that dense networks are made of.
Job ExpertsJob(const Mixture& m) {
  Job job;
  job.in = InputWidth(m);
  job.out = m.width * m.count;
  job.lane_rows = m.lane_rows;
  job.record = [m](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Rows gate = NewRows(backend, m.inner), up = NewRows(backend, m.inner);
    for (int e = 0; e < m.count; ++e) {
      const auto load = [&](int which) {
        const int inputs = which == 2 ? m.inner : m.width, outputs = which == 2 ? m.width : m.inner;
        const auto all = m.Weights(which);
        const size_t bytes = all.size() / static_cast<size_t>(m.count);
        return *backend.LoadMatrix({"expert", m.type, inputs, outputs, std::span(all).subspan(bytes * static_cast<size_t>(e), bytes)});
      };
      const auto add_bias = [&](int which, Rows rows) {
        if (!m.biased) return;
        const Floats1d all = m.Bias(which);
        ops.AddBias(rows, LoadFloats(backend, {all.begin() + e * rows.width, all.begin() + (e + 1) * rows.width}));
      };
      if (m.gated()) {
        ops.MatMul(in.Columns(0, m.width), std::array{Product{load(0), gate}, Product{load(1), up}});
        add_bias(0, gate);
        add_bias(1, up);
        m.activation == Activation::kGeGlu ? ops.GeGlu(gate, gate, up) : ops.SwiGlu(gate, gate, up);
      } else {
        ops.MatMul(in.Columns(0, m.width), std::array{Product{load(1), up}});
        add_bias(1, up);
        ops.ReluSquared(gate, up);
      }
      ops.MatMul(gate, std::array{Product{load(2), out.Columns(e * m.width, m.width)}});
      add_bias(2, out.Columns(e * m.width, m.width));
    }
  };
  return job;
}

// The experts of a row and their weights, from the greatest on, as ops.h says it.
std::vector<std::pair<size_t, double>> Choice(const Mixture& m, const float* scores) {
  std::vector<double> p, merit;
  const Floats1d score_bias = m.ScoreBias();
  for (int e = 0; e < m.count; ++e) {
    const double score = scores[e] + score_bias[static_cast<size_t>(e)];
    p.push_back(m.sigmoid ? 1.0 / (1.0 + std::exp(-score)) : std::exp(score));
    const double bias = m.choice_bias.empty() ? 0.0 : static_cast<double>(m.choice_bias[static_cast<size_t>(e)]);
    merit.push_back(std::isnan(score) ? -std::numeric_limits<double>::infinity() : p.back() + bias);
  }
  std::vector<size_t> order(static_cast<size_t>(m.count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return merit[a] > merit[b]; });
  const double of_all = m.sigmoid ? 1.0 : std::accumulate(p.begin(), p.end(), 0.0);
  order.resize(static_cast<size_t>(m.used));
  double sum = 0;
  for (const size_t e : order) sum += p[e];
  if (!m.normed) sum = of_all;
  std::vector<std::pair<size_t, double>> choice;
  for (const size_t e : order) {
    const double scale = m.weight_scale.empty() ? 1.0 : static_cast<double>(m.weight_scale[e]);
    choice.emplace_back(e, static_cast<double>(m.scale) * p[e] / sum * scale);
  }
  return choice;
}

void ExpectTheChosenOnesSum(const Mixture& m, const Floats1d& scores) {
  const Floats1d in = Inputs(m, scores);
  const auto mixed = RunEveryWay(MixtureJob(m), in, 3, /*most_chunk=*/40);
  const auto apart = RunEveryWay(ExpertsJob(m), in, 4);
  ASSERT_EQ(mixed.size(), apart.size());
  const auto width = static_cast<size_t>(m.width), stride = static_cast<size_t>(InputWidth(m));
  for (size_t i = 0; i < mixed.size(); ++i) {
    SCOPED_TRACE(mixed[i].numerics);
    size_t row = 0;
    for (size_t lane = 0; lane < m.lane_rows.size(); ++lane) {
      for (size_t r = 0; r < static_cast<size_t>(m.lane_rows[lane]); ++r, ++row) {
        const auto choice = Choice(m, scores.data() + row * static_cast<size_t>(m.count));
        for (size_t c = 0; c < width; ++c) {
          double wanted = m.adds ? in[row * stride + width + c] : 0.0f, magnitude = std::abs(wanted);
          for (const auto& [expert, weight] : choice) {
            const double term = weight * apart[i].out[lane][(r * static_cast<size_t>(m.count) + expert) * width + c];
            wanted += term;
            magnitude += std::abs(term);
          }
          const float got = mixed[i].out[lane][r * width + c];
          if (std::isnan(wanted)) {
            ASSERT_TRUE(std::isnan(got)) << "row " << row << ", column " << c;
          } else {
            ASSERT_NEAR(got, wanted, 1e-6 * magnitude) << "row " << row << ", column " << c;
          }
        }
      }
    }
  }
}

class ExpertsOfType : public testing::TestWithParam<TensorType> {};
INSTANTIATE_TEST_SUITE_P(Weights, ExpertsOfType,
                         testing::Values(TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0, TensorType::kQ4_0,
                                         TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ4_K, TensorType::kQ5_K,
                                         TensorType::kQ6_K, TensorType::kMXFP4),
                         [](const auto& info) { return std::string(TensorTypeName(info.param)); });

TEST_P(ExpertsOfType, TheChosenOnesSum) {
  Mixture m;
  m.type = GetParam();
  for (const Activation activation : {Activation::kSwiGlu, Activation::kGeGlu, Activation::kReluSquared}) {
    m.activation = activation;
    m.biased = activation == Activation::kSwiGlu;  // the other way round below
    ExpectTheChosenOnesSum(m, RandomScores(m));
  }
}

// By the definition in ops.h, in doubles. Of 64 inputs, one gate or up in eight is beyond 7.
TEST(Experts, TheClampedActivation) {
  Mixture m;
  m.width = m.inner = 64;
  m.activation = Activation::kClampedSwiGlu;
  m.lane_rows = {17, 2};
  std::vector<Floats1d> weights;
  for (int which = 0; which < 3; ++which) {
    const auto bytes = m.Weights(which);
    weights.emplace_back(bytes.size() / sizeof(float));
    std::memcpy(weights.back().data(), bytes.data(), bytes.size());
  }
  const Floats1d biases[] = {m.Bias(0), m.Bias(1), m.Bias(2)};
  for (const bool biased : {false, true}) {
    m.biased = biased;
    const Floats1d scores = RandomScores(m), in = Inputs(m, scores);
    const auto width = static_cast<size_t>(m.width), stride = static_cast<size_t>(InputWidth(m));
    int clamped[3] = {};
    std::vector<std::vector<double>> wanted;
    for (size_t row = 0; row < static_cast<size_t>(m.rows()); ++row) {
      const float* const x = in.data() + row * stride;
      std::vector<double> sum(x + width, x + 2 * width);
      for (const auto& [expert, weight] : Choice(m, scores.data() + row * static_cast<size_t>(m.count))) {
        const auto times = [&](int which, const std::vector<double>& from) {
          std::vector<double> to(width);
          for (size_t o = 0; o < width; ++o) {
            const size_t at = expert * width + o;
            if (m.biased) to[o] = biases[which][at];
            for (size_t i = 0; i < width; ++i) to[o] += double{weights[static_cast<size_t>(which)][at * width + i]} * from[i];
          }
          return to;
        };
        const std::vector<double> from(x, x + width), gate = times(0, from), up = times(1, from);
        std::vector<double> hidden(width);
        for (size_t i = 0; i < width; ++i) {
          clamped[0] += gate[i] > 7;
          clamped[1] += up[i] > 7;
          clamped[2] += up[i] < -7;
          const double g = std::min(gate[i], 7.0), u = std::clamp(up[i], -7.0, 7.0);
          hidden[i] = (u + 1) * g / (1 + std::exp(-1.702 * g));
        }
        const std::vector<double> made = times(2, hidden);
        for (size_t o = 0; o < width; ++o) sum[o] += weight * made[o];
      }
      wanted.push_back(sum);
    }
    for (const int count : clamped) EXPECT_GT(count, 50);
    for (const Outcome& outcome : RunEveryWay(MixtureJob(m), in, 3)) {
      size_t row = 0;
      for (const Floats1d& lane : outcome.out) {
        for (size_t r = 0; r < lane.size() / width; ++r, ++row) {
          for (size_t c = 0; c < width; ++c) ASSERT_NEAR(lane[r * width + c], wanted[row][c], 2e-4) << outcome.numerics << ", row " << row;
        }
      }
    }
  }
}

// What is clamped is no cover for what is broken.
TEST(Experts, ANaNPassesTheClamps) {
  Mixture m;
  m.width = m.inner = 64;
  m.activation = Activation::kClampedSwiGlu;
  m.lane_rows = {5};
  Floats1d in = Inputs(m, RandomScores(m));
  const auto width = static_cast<size_t>(m.width);
  in[2 * static_cast<size_t>(InputWidth(m)) + 7] = kNaN;
  for (const std::string& isa : CpuInstructionSets()) {
    const Outcome outcome = RunJob(MixtureJob(m), in, OneStep(m.lane_rows), {.threads = 1, .isa = isa});
    for (size_t i = 0; i < 5 * width; ++i) ASSERT_EQ(std::isnan(outcome.out[0][i]), i / width == 2) << isa << ", row " << i / width;
  }
}

TEST(Experts, OddWidthsAndManyOfThem) {
  Mixture m;
  m.type = TensorType::kQ8_0;
  m.width = 96;
  m.inner = 352;
  m.count = 21;
  m.used = 5;
  m.lane_rows = {19, 2};
  ExpectTheChosenOnesSum(m, RandomScores(m));
}

TEST(Experts, AllRowsOnOneExpert) {
  Mixture m;
  m.type = TensorType::kQ4_0;
  m.used = 1;
  m.lane_rows = {130, 90};
  Floats1d scores = RandomScores(m);
  for (size_t row = 0; row < static_cast<size_t>(m.rows()); ++row) scores[row * 6 + 4] = 50.0f;
  ExpectTheChosenOnesSum(m, scores);
}

TEST(Experts, AllExpertsOfEachRow) {
  Mixture m;
  m.used = m.count;
  m.width = 64;
  m.inner = 32;
  ExpectTheChosenOnesSum(m, RandomScores(m));
  m.activation = Activation::kReluSquared;
  m.biased = true;
  ExpectTheChosenOnesSum(m, RandomScores(m));
}

TEST(Experts, SigmoidsWithABiasOfTheChoiceAndAScale) {
  Mixture m;
  m.width = 64;
  m.inner = 64;
  m.count = 16;
  m.used = 4;
  m.sigmoid = true;
  m.scale = 2.5f;
  ExpectTheChosenOnesSum(m, RandomScores(m));
  m.choice_bias = RandomFloats(16, 5, 0.5f);
  ExpectTheChosenOnesSum(m, RandomScores(m));
}

TEST(Experts, WeightsThatAreProbabilities) {
  Mixture m;
  m.width = 64;
  m.inner = 32;
  m.normed = false;
  m.scale = 1.5f;
  for (const int count : {6, 40}) {
    m.count = count;
    for (const bool sigmoid : {false, true}) {
      m.sigmoid = sigmoid;
      ExpectTheChosenOnesSum(m, RandomScores(m));
    }
  }
}

TEST(Experts, ScalesOfTheWeightsAndNothingToAddTo) {
  Mixture m;
  m.width = 64;
  m.inner = 64;
  m.weight_scale = RandomFloats(static_cast<size_t>(m.count), 9);
  ExpectTheChosenOnesSum(m, RandomScores(m));
  m.adds = false;
  ExpectTheChosenOnesSum(m, RandomScores(m));
}

TEST(Experts, OfEqualScoresTheFirst) {
  Mixture m;
  m.width = 64;
  m.inner = 32;
  m.count = 40;
  m.used = 7;
  Floats1d scores = RandomScores(m);
  for (float& score : scores) score = std::floor(score / 2);
  ExpectTheChosenOnesSum(m, scores);
}

TEST(Experts, BrokenScoresAreChosenLastAndStayVisible) {
  Mixture m;
  m.width = 64;
  m.inner = 32;
  m.lane_rows = {12};
  Floats1d scores = RandomScores(m);
  for (size_t row = 0; row < 12; ++row) {
    for (size_t e = 0; e < row % 6; ++e) scores[row * 6 + e] = kNaN;  // from three on, some must be chosen
  }
  ExpectTheChosenOnesSum(m, scores);
}

TEST(Experts, ScoresFarApart) {
  Mixture m;
  m.width = 64;
  m.inner = 32;
  Floats1d scores = RandomScores(m);
  for (float& score : scores) score *= 400.0f;
  for (const bool sigmoid : {false, true}) {
    m.sigmoid = sigmoid;
    if (sigmoid) {  // where sigmoids vanish, their shares of nothing are nothing
      for (float& score : scores) score = std::max(score, -100.0f);
    }
    const Floats1d in = Inputs(m, scores);
    for (const Outcome& outcome : RunEveryWay(MixtureJob(m), in, 3)) {
      for (const Floats1d& lane : outcome.out) {
        for (const float x : lane) ASSERT_TRUE(std::isfinite(x));
      }
    }
  }
}

TEST(Experts, ARowTimesASigmoid) {
  Job job;
  job.in = 71;
  job.out = 70;
  job.lane_rows = {9, 1};
  job.record = [](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Vector nothing = LoadFloats(backend, Floats1d(70));
    ops.RmsNorm(out, in.Columns(0, 70), LoadFloats(backend, Floats1d(70, 1.0f)), 1.0f);
    ops.AddBias(out, nothing);
    ops.SigmoidGate(out, in.Columns(70, 1));
  };
  const Floats1d in = RandomFloats(710, 3, 2.0f);
  for (const Outcome& outcome : RunEveryWay(job, in, 9)) {
    size_t row = 0;
    for (const Floats1d& lane : outcome.out) {
      for (size_t r = 0; r < lane.size() / 70; ++r, ++row) {
        double squares = 0;
        for (size_t c = 0; c < 70; ++c) squares += double{in[row * 71 + c]} * in[row * 71 + c];
        const double factor = 1.0 / std::sqrt(squares / 70 + 1.0) / (1.0 + std::exp(-double{in[row * 71 + 70]}));
        for (size_t c = 0; c < 70; ++c) ASSERT_NEAR(lane[r * 70 + c], factor * in[row * 71 + c], 1e-6 * (1 + std::abs(in[row * 71 + c])));
      }
    }
  }
}

TEST(Experts, CallsThatDoNotAgreeAreRefused) {
  const auto capture = [](const std::function<void(Experts&, int&)>& spoil) {
    auto backend = *MakeCpuBackend({.threads = 1});
    Mixture m;
    m.width = m.inner = 64;
    Experts experts;
    experts.gate = *backend->LoadMatrix({"gate", m.type, 64, 64 * 6, m.Weights(0)});
    experts.up = *backend->LoadMatrix({"up", m.type, 64, 64 * 6, m.Weights(1)});
    experts.down = *backend->LoadMatrix({"down", m.type, 64, 64 * 6, m.Weights(2)});
    experts.count = 6;
    experts.used = 2;
    int scores = 6;
    spoil(experts, scores);
    StepTable table(4, 1);
    const Rows in = NewRows(*backend, 64), out = NewRows(*backend, 64), router = NewRows(*backend, scores);
    return backend->Capture(table, [&](Ops& ops) { ops.MixExperts(out, in, router, experts); }).status();
  };
  const auto refused = [&](const std::function<void(Experts&, int&)>& spoil, const std::string& why) {
    const Status status = capture(spoil);
    EXPECT_FALSE(status.ok()) << why;
    EXPECT_NE(status.message().find(why), std::string::npos) << status.message();
  };
  EXPECT_TRUE(capture([](Experts&, int&) {}).ok());
  refused([](Experts& e, int&) { e.used = 7; }, "more experts are used than there are");
  refused([](Experts& e, int&) { e.used = 0; }, "more experts are used than there are");
  refused([](Experts&, int& scores) { scores = 5; }, "widths do not agree");
  refused([](Experts& e, int&) { e.gate = nullptr; }, "a matrix is missing");
  refused([](Experts& e, int&) { e.activation = Activation::kReluSquared; }, "the activation has no gate");
  const auto ungate = [](Experts& e) {
    e.gate = nullptr;
    e.activation = Activation::kReluSquared;
  };
  EXPECT_TRUE(capture([&](Experts& e, int&) { ungate(e); }).ok());
  refused([](Experts& e, int&) { e.up = nullptr; }, "a matrix is missing");
  refused([](Experts& e, int&) { e.gate = e.up = nullptr; }, "a matrix is missing");
  refused([](Experts& e, int& scores) { e.count = scores = 3; }, "do not agree");
  const Floats1d bias(64 * 6);
  refused([&](Experts& e, int&) { e.choice_bias = {bias.data(), 6}; }, "the bias of the choice is not one value an expert");
  const Vector whole{bias.data(), 64 * 6}, part{bias.data(), 64};
  EXPECT_TRUE(capture([&](Experts& e, int&) { e.gate_bias = e.up_bias = e.down_bias = whole; }).ok());
  for (Vector Experts::*const one : {&Experts::gate_bias, &Experts::up_bias, &Experts::down_bias}) {
    refused([&](Experts& e, int&) { e.*one = part; }, "a bias is not one value for each of an expert's results");
  }
  refused([&](Experts& e, int&) { e.score_bias = part; }, "the bias of the scores is not one value an expert");
  EXPECT_TRUE(capture([&](Experts& e, int&) { e.score_bias = {bias.data(), 6}; }).ok());
  refused(
      [&](Experts& e, int&) {
        ungate(e);
        e.gate_bias = whole;
      },
      "the activation has no gate");
}

}  // namespace
}  // namespace reprise
