// Ops on rows alone, against plain references in double precision, and bit-equal however the work is cut.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "backend/cpu/cpu_rig.h"

namespace reprise {
namespace {

using Doubles = std::vector<double>;

Vector LoadFloats(Backend& backend, const Floats1d& x) {
  auto vector = backend.LoadVector({"test", TensorType::kF32, static_cast<int64_t>(x.size()), 1, BytesOf(x)});
  EXPECT_TRUE(vector.ok()) << vector.status().message();
  return *vector;
}

Doubles Normed(const float* x, const Floats1d& weight, double eps) {
  double squares = 0;
  for (size_t i = 0; i < weight.size(); ++i) squares += static_cast<double>(x[i]) * x[i];
  Doubles y;
  for (size_t i = 0; i < weight.size(); ++i) y.push_back(x[i] / std::sqrt(squares / static_cast<double>(weight.size()) + eps) * weight[i]);
  return y;
}
double Silu(double x) { return x / (1 + std::exp(-x)); }
double Gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x))); }

class Widths : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(RowOps, Widths, testing::Values(1, 15, 16, 17, 64, 100, 1000));

TEST_P(Widths, RmsNormAlsoInPlace) {
  const int width = GetParam();
  const Floats1d weight = RandomFloats(static_cast<size_t>(width), 1);
  for (bool in_place : {false, true}) {
    Job job;
    job.in = job.out = width;
    job.lane_rows = {9, 3};
    job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
      if (in_place) {
        ops.RmsNorm(in, in, LoadFloats(backend, weight), 1e-5f);
        ops.RmsNorm(out, in, LoadFloats(backend, Floats1d(static_cast<size_t>(width), 1.0f)), 0.0f);
      } else {
        ops.RmsNorm(out, in, LoadFloats(backend, weight), 1e-5f);
      }
    };
    const Floats1d in = RandomFloats(12 * static_cast<size_t>(width), 2, 3.0f);
    for (const Outcome& outcome : RunEveryWay(job, in, 3)) {
      for (size_t lane = 0; lane < 2; ++lane) {
        Doubles wanted;
        for (int row = 0; row < job.lane_rows[lane]; ++row) {
          Doubles y = Normed(&in[(lane * 9 + static_cast<size_t>(row)) * static_cast<size_t>(width)], weight, 1e-5);
          if (in_place) y = Normed(Floats1d(y.begin(), y.end()).data(), Floats1d(static_cast<size_t>(width), 1.0f), 0.0);
          wanted.insert(wanted.end(), y.begin(), y.end());
        }
        ExpectNear(outcome.out[lane], wanted, 1e-5);
      }
    }
  }
}

TEST_P(Widths, AddRmsNorm) {
  const int width = GetParam();
  const Floats1d weight = RandomFloats(static_cast<size_t>(width), 1);
  Job job;
  job.in = 2 * width;
  job.out = width;
  job.lane_rows = {4, 2};
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.Multiply(out, in.Columns(width, width), in.Columns(width, width));
    ops.AddRmsNorm(out, in.Columns(0, width), LoadFloats(backend, weight), 1e-5f);
  };
  const Floats1d in = RandomFloats(6 * static_cast<size_t>(job.in), 2, 3.0f);
  for (const Outcome& outcome : RunEveryWay(job, in, 3)) {
    Doubles wanted;
    for (int row = 0; row < 4; ++row) {
      const float* const x = &in[static_cast<size_t>(row * job.in)];
      Doubles y = Normed(x, weight, 1e-5);
      for (int i = 0; i < width; ++i) y[static_cast<size_t>(i)] += static_cast<double>(x[width + i]) * x[width + i];
      wanted.insert(wanted.end(), y.begin(), y.end());
    }
    ExpectNear(outcome.out[0], wanted, 1e-5);
  }
}

// Each group of columns by itself, and what is added to scaled.
TEST_P(Widths, NormsOfGroups) {
  const int width = GetParam();
  constexpr int kGroups = 3;
  const Floats1d weight = RandomFloats(static_cast<size_t>(width), 1);
  Job job;
  job.in = job.out = kGroups * width;
  job.lane_rows = {4, 2};
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const Vector shared = LoadFloats(backend, weight);
    ops.RmsNorm(out, in, shared, 1e-5f);
    ops.AddRmsNorm(out, in, shared, 1e-5f, 0.375f);
  };
  const Floats1d in = RandomFloats(6 * static_cast<size_t>(job.in), 2, 3.0f);
  for (const Outcome& outcome : RunEveryWay(job, in, 3)) {
    Doubles wanted;
    for (int group = 0; group < 4 * kGroups; ++group) {
      for (const double y : Normed(&in[static_cast<size_t>(group * width)], weight, 1e-5)) wanted.push_back(0.75 * y);
    }
    ExpectNear(outcome.out[0], wanted, 1e-5);
  }
}

// The last factor serves all positions beyond.
TEST_P(Widths, ScaleByPosition) {
  const int width = GetParam();
  constexpr int kEvery = 3;
  const Floats1d factors = {1.0f, 0.5f, 3.0f, -1.25f};
  Job job;
  job.in = 2 * width;
  job.out = width;
  job.lane_rows = {17, 4};
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    ops.Multiply(out, in.Columns(0, width), in.Columns(width, width));
    ops.ScaleByPosition(out, LoadFloats(backend, factors), kEvery);
  };
  const Floats1d in = RandomFloats(21 * static_cast<size_t>(job.in), 4);
  for (const Outcome& outcome : RunEveryWay(job, in, 5)) {
    for (int row = 0; row < 21; ++row) {
      const int lane = row / 17, position = row % 17;
      const float* const x = &in[static_cast<size_t>(row * job.in)];
      for (int i = 0; i < width; ++i) {
        const float wanted = x[i] * x[width + i] * factors[static_cast<size_t>(std::min(position / kEvery, 3))];
        ASSERT_EQ(outcome.out[static_cast<size_t>(lane)][static_cast<size_t>(position * width + i)], wanted) << row << " " << i;
      }
    }
  }
}

TEST_P(Widths, SoftCap) {
  const int width = GetParam();
  Job job;
  job.in = 2 * width;
  job.out = width;
  job.lane_rows = {5};
  job.record = [&](Backend&, Ops& ops, Rows in, Rows out) {
    ops.Multiply(out, in.Columns(0, width), in.Columns(width, width));
    ops.SoftCap(out, 30.0f);
  };
  Floats1d in = RandomFloats(5 * static_cast<size_t>(job.in), 4, 8.0f);
  in[0] = in[static_cast<size_t>(width)] = 1e18f;
  for (const Outcome& outcome : RunEveryWay(job, in, 5)) {
    Doubles wanted;
    for (int row = 0; row < 5; ++row) {
      const float* const x = &in[static_cast<size_t>(row * job.in)];
      for (int i = 0; i < width; ++i) wanted.push_back(30.0 * std::tanh(static_cast<double>(x[i]) * x[width + i] / 30.0));
    }
    ExpectNear(outcome.out[0], wanted, 5e-6);
  }
}

TEST_P(Widths, GeGlu) {
  const int width = GetParam();
  Job job;
  job.in = 2 * width;
  job.out = width;
  job.lane_rows = {5};
  job.record = [&](Backend&, Ops& ops, Rows in, Rows out) { ops.GeGlu(out, in.Columns(0, width), in.Columns(width, width)); };
  const Floats1d in = RandomFloats(5 * 2 * static_cast<size_t>(width), 4, 2.0f);
  for (const Outcome& outcome : RunEveryWay(job, in, 5)) {
    Doubles wanted;
    for (int row = 0; row < 5; ++row) {
      const float* x = &in[static_cast<size_t>(row) * 2 * static_cast<size_t>(width)];
      for (int i = 0; i < width; ++i) wanted.push_back(Gelu(x[i]) * x[width + i]);
    }
    ExpectNear(outcome.out[0], wanted, 2e-6);
  }
}

TEST_P(Widths, SwiGlu) {
  const int width = GetParam();
  Job job;
  job.in = 2 * width;
  job.out = width;
  job.lane_rows = {5};
  job.record = [&](Backend&, Ops& ops, Rows in, Rows out) { ops.SwiGlu(out, in.Columns(0, width), in.Columns(width, width)); };
  Floats1d in = RandomFloats(5 * 2 * static_cast<size_t>(width), 4, 20.0f);
  for (const Outcome& outcome : RunEveryWay(job, in, 5)) {
    Doubles wanted;
    for (int row = 0; row < 5; ++row) {
      for (int i = 0; i < width; ++i) {
        const float* x = &in[static_cast<size_t>(row) * 2 * static_cast<size_t>(width)];
        wanted.push_back(Silu(x[i]) * x[width + i]);
      }
    }
    ExpectNear(outcome.out[0], wanted, 2e-6);
  }
}

// Each element is one rounded product, so every backend has the same.
TEST_P(Widths, ReluSquaredAlsoInPlace) {
  const int width = GetParam();
  for (const bool in_place : {false, true}) {
    Job job;
    job.in = job.out = width;
    job.lane_rows = {9, 3};
    job.record = [&](Backend&, Ops& ops, Rows in, Rows out) {
      ops.ReluSquared(in_place ? in : out, in);
      if (in_place) ops.ReluSquared(out, in);
    };
    Floats1d in = RandomFloats(12 * static_cast<size_t>(width), 4, 20.0f);
    const float odd[] = {
        std::nanf(""), -0.0f, 1e30f, -1e30f, 1e-30f, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
    std::copy_n(odd, std::min(std::size(odd), in.size()), in.begin());
    const auto wanted = [&](float x) { return x > 0 ? x * x : 0.0f; };
    for (const Outcome& outcome : RunEveryWay(job, in, 8)) {
      for (size_t lane = 0; lane < 2; ++lane) {
        for (size_t i = 0; i < outcome.out[lane].size(); ++i) {
          const float once = wanted(in[lane * 9 * static_cast<size_t>(width) + i]);
          ASSERT_EQ(outcome.out[lane][i], in_place ? wanted(once) : once) << "lane " << lane << ", " << i;
        }
      }
    }
  }
}

// Each element is one rounded product, so every backend has the same; in place in either input.
TEST_P(Widths, MultiplyAlsoInPlace) {
  const int width = GetParam();
  for (const int place : {0, 1, 2}) {
    Job job;
    job.in = 2 * width;
    job.out = width;
    job.lane_rows = {9, 3};
    job.record = [&](Backend&, Ops& ops, Rows in, Rows out) {
      const Rows a = in.Columns(0, width), b = in.Columns(width, width);
      if (place == 0) return ops.Multiply(out, a, b);
      const Rows product = place == 1 ? a : b, other = place == 1 ? b : a;
      ops.Multiply(product, a, b);
      ops.Multiply(out, product, other);
    };
    const Floats1d in = RandomFloats(12 * 2 * static_cast<size_t>(width), 7, 20.0f);
    for (const Outcome& outcome : RunEveryWay(job, in, 8)) {
      for (size_t lane = 0; lane < 2; ++lane) {
        for (int row = 0; row < job.lane_rows[lane]; ++row) {
          const float* x = &in[(lane * 9 + static_cast<size_t>(row)) * 2 * static_cast<size_t>(width)];
          for (int i = 0; i < width; ++i) {
            const float a = x[i], b = x[width + i];
            const float wanted = place == 0 ? a * b : a * b * (place == 1 ? b : a);
            ASSERT_EQ(outcome.out[lane][static_cast<size_t>(row * width + i)], wanted) << place << ", row " << row << ", column " << i;
          }
        }
      }
    }
  }
}

// Three neighbours, as queries, keys and values are; and the same rows twice.
TEST_P(Widths, AddBias) {
  const int width = GetParam();
  const Floats1d bias = RandomFloats(3 * static_cast<size_t>(width), 3);
  Job job;
  job.in = job.out = 3 * width;
  job.lane_rows = {9, 3};
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const auto part = [&](int i) {
      return LoadFloats(backend, Floats1d(bias.begin() + static_cast<long>(i) * width, bias.begin() + static_cast<long>(i + 1) * width));
    };
    ops.Multiply(out, in, in);
    for (const int i : {0, 1, 2, 1}) ops.AddBias(out.Columns(i * width, width), part(i));
  };
  const Floats1d in = RandomFloats(12 * 3 * static_cast<size_t>(width), 7, 20.0f);
  for (const Outcome& outcome : RunEveryWay(job, in, 8)) {
    for (size_t lane = 0; lane < 2; ++lane) {
      for (int i = 0; i < job.lane_rows[lane] * job.out; ++i) {
        const float x = in[lane * 9 * static_cast<size_t>(job.out) + static_cast<size_t>(i)];
        const float b = bias[static_cast<size_t>(i % job.out)], once = x * x + b;
        ASSERT_EQ(outcome.out[lane][static_cast<size_t>(i)], i % job.out / width == 1 ? once + b : once) << "lane " << lane << ", " << i;
      }
    }
  }
}

TEST(GatedUnits, ExtremeGates) {
  for (const bool gelu : {false, true}) {
    const Floats1d gates = {-1e30f, -200.0f, -100.0f, -88.0f, -87.0f, 0.0f, -0.0f, 87.0f, 88.8f, 1e30f, 1e-40f, std::nanf("")};
    Job job;
    job.in = 24;
    job.out = 12;
    job.record = [&](Backend&, Ops& ops, Rows in, Rows out) {
      gelu ? ops.GeGlu(out, in.Columns(0, 12), in.Columns(12, 12)) : ops.SwiGlu(out, in.Columns(0, 12), in.Columns(12, 12));
    };
    Floats1d in = gates;
    in.resize(24, 1.0f);
    for (const Outcome& outcome : RunEveryWay(job, in, 6)) {
      for (size_t i = 0; i < 11; ++i) {
        const double wanted = gates[i] < -700 ? 0.0 : gelu ? Gelu(gates[i]) : Silu(gates[i]);
        EXPECT_NEAR(outcome.out[0][i], wanted, 1e-6 * (1 + std::abs(wanted))) << gates[i];
      }
      EXPECT_TRUE(std::isnan(outcome.out[0][11]));
    }
  }
}

TEST(GatedRmsNorm, HeadsInPlace) {
  for (int width : {16, 20, 128}) {
    const int heads = 3;
    const Floats1d weight = RandomFloats(static_cast<size_t>(width), 1);
    Job job;
    job.in = 2 * heads * width;
    job.out = heads * width;
    job.lane_rows = {4, 7};
    job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
      ops.GatedRmsNorm(in.Columns(0, heads * width), in.Columns(0, heads * width), in.Columns(heads * width, heads * width),
                       LoadFloats(backend, weight), 1e-6f);
      ops.RmsNorm(out, in.Columns(0, heads * width), LoadFloats(backend, Floats1d(static_cast<size_t>(heads * width), 1.0f)), 1.0f);
    };
    const Floats1d in = RandomFloats(11 * static_cast<size_t>(job.in), 2);
    for (const Outcome& outcome : RunEveryWay(job, in, 8)) {
      Doubles wanted;
      for (int row = 0; row < 4; ++row) {
        const float* x = &in[static_cast<size_t>(row * job.in)];
        Doubles y;
        for (int h = 0; h < heads; ++h) {
          Doubles head = Normed(x + h * width, weight, 1e-6);
          for (int i = 0; i < width; ++i) head[static_cast<size_t>(i)] *= Silu(x[heads * width + h * width + i]);
          y.insert(y.end(), head.begin(), head.end());
        }
        y = Normed(Floats1d(y.begin(), y.end()).data(), Floats1d(y.size(), 1.0f), 1.0);
        wanted.insert(wanted.end(), y.begin(), y.end());
      }
      ExpectNear(outcome.out[0], wanted, 1e-5);
    }
  }
}

struct RopeCase {
  int heads, width, dims, first_column, stride;
  bool norm, interleaved, factors;
  float magnitude = 1.0f;
};
void CheckRope(const RopeCase& c) {
  const Floats1d weight = RandomFloats(static_cast<size_t>(c.width), 1);
  Floats1d factors = RandomFloats(static_cast<size_t>(c.dims / 2), 3);
  for (float& f : factors) f = 1.0f + std::abs(f);
  Job job;
  job.in = job.out = c.first_column + c.heads * c.stride;
  job.lane_rows = {30, 4};
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const RopeSpec rope{c.dims, 10000.0, c.interleaved, c.factors ? LoadFloats(backend, factors).data : nullptr, c.magnitude};
    const Rows heads = in.Columns(c.first_column, c.heads * c.stride);
    ops.NormRope({heads, c.heads, c.width, c.stride}, c.norm ? LoadFloats(backend, weight) : Vector{}, 1e-6f, rope);
    ops.RmsNorm(out, in, LoadFloats(backend, Floats1d(static_cast<size_t>(job.in), 1.0f)), 1.0f);
  };
  const Floats1d in = RandomFloats(34 * static_cast<size_t>(job.in), 2);
  for (const Outcome& outcome : RunEveryWay(job, in, 8)) {
    Doubles wanted;
    for (int row = 0; row < 30; ++row) {
      Floats1d x(&in[static_cast<size_t>(row * job.in)], &in[static_cast<size_t>(row * job.in)] + job.in);
      for (int h = 0; h < c.heads; ++h) {
        float* const head = &x[static_cast<size_t>(c.first_column + h * c.stride)];
        Doubles y = c.norm ? Normed(head, weight, 1e-6) : Doubles(head, head + c.width);
        for (int i = 0; i < c.dims / 2; ++i) {
          const double angle = row * std::pow(10000.0, -2.0 * i / c.dims) / (c.factors ? factors[static_cast<size_t>(i)] : 1.0);
          double& a = y[static_cast<size_t>(c.interleaved ? 2 * i : i)];
          double& b = y[static_cast<size_t>(c.interleaved ? 2 * i + 1 : i + c.dims / 2)];
          const double cosine = c.magnitude * std::cos(angle), sine = c.magnitude * std::sin(angle);
          const double turned = a * cosine - b * sine;
          b = b * cosine + a * sine;
          a = turned;
        }
        for (int i = 0; i < c.width; ++i) head[i] = static_cast<float>(y[static_cast<size_t>(i)]);
      }
      const Doubles y = Normed(x.data(), Floats1d(x.size(), 1.0f), 1.0);
      wanted.insert(wanted.end(), y.begin(), y.end());
    }
    ExpectNear(outcome.out[0], wanted, 1e-5);
  }
}
TEST(NormRope, QuarterOfANormedHead) { CheckRope({4, 256, 64, 0, 512, true, false, false}); }
TEST(NormRope, WholeInterleavedHead) { CheckRope({3, 64, 64, 8, 64, false, true, false}); }
TEST(NormRope, FactorsAndOddWidths) { CheckRope({2, 20, 12, 3, 25, true, false, true}); }
TEST(NormRope, MagnitudeOfWhatIsTurned) { CheckRope({2, 32, 24, 0, 32, true, false, true, 1.3f}); }
TEST(NormRope, WideHead) { CheckRope({2, 512, 512, 0, 512, true, false, true}); }
TEST(NormRope, NormAlone) { CheckRope({2, 32, 0, 0, 32, true, false, false}); }

TEST(NormRope, AnglesStayExactAtFarPositions) {
  auto backend = *MakeCpuBackend({.threads = 1});
  StepTable table(1, 1);
  auto* x = reinterpret_cast<float*>(*backend->Allocate(64 * sizeof(float), "x"));
  auto plan = backend->Capture(table, [&](Ops& ops) {
    ops.NormRope({{x, 64, 64, Domain::kRows}, 1, 64, 64}, {}, 0.0f, {64, 1e7, false, nullptr});
  });
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  for (int position : {0, 1, 1000, 262143, 2000000000}) {
    for (int i = 0; i < 64; ++i) x[i] = i < 32 ? 1.0f : 0.0f;
    table.rows = table.lanes = 1;
    table.row_position[0] = position;
    ASSERT_TRUE(backend->stream().Replay(**plan).ok());
    for (int i = 0; i < 32; ++i) {
      const long double angle = position * std::pow(1e7L, -2.0L * i / 64);
      EXPECT_NEAR(x[i], static_cast<double>(std::cos(angle)), 1e-6) << position << " " << i;
      EXPECT_NEAR(x[32 + i], static_cast<double>(std::sin(angle)), 1e-6) << position << " " << i;
    }
  }
}

TEST(ArgMax, FirstOfTheGreatestAndNeverANaN) {
  const float nan = std::nanf(""), inf = INFINITY;
  for (const std::string& isa : CpuInstructionSets()) {
    auto backend = *MakeCpuBackend({.threads = 2, .isa = isa});
    for (int width : {1, 16, 17, 37}) {
      StepTable table(8, 1);
      auto* x = reinterpret_cast<float*>(*backend->Allocate(8 * 64 * sizeof(float), "x"));
      int32_t index[8];
      auto plan = backend->Capture(table, [&](Ops& ops) { ops.ArgMax(index, {x, 64, width, Domain::kRows}); });
      ASSERT_TRUE(plan.ok());
      const auto fill = [&](int row, float v) { std::fill_n(x + row * 64, width, v); };
      fill(0, nan);
      fill(1, -inf);
      fill(2, -3.0f);
      x[2 * 64 + width - 1] = -2.0f;
      fill(3, nan);
      x[3 * 64 + width - 1] = -inf;
      fill(4, 7.0f);
      fill(5, inf);
      x[5 * 64] = nan;
      fill(6, -5.0f);
      x[6 * 64 + width / 2] = 0.0f;
      x[6 * 64 + width - 1] = 0.0f;
      fill(7, -0.0f);
      x[7 * 64 + width - 1] = 0.0f;
      table.rows = 8;
      table.lanes = 1;
      ASSERT_TRUE(backend->stream().Replay(**plan).ok());
      const int last = width - 1;
      const int wanted[8] = {0, 0, last, last, 0, width > 1 ? 1 : 0, width / 2, 0};
      for (int row = 0; row < 8; ++row) EXPECT_EQ(index[row], wanted[row]) << isa << " width " << width << " row " << row;
    }
  }
}

TEST(Capture, NamesWhatIsWrong) {
  auto backend = *MakeCpuBackend({.threads = 1});
  StepTable table(4, 1);
  float x[64];
  const auto error = [&](const std::function<void(Ops&)>& record) {
    auto plan = backend->Capture(table, record);
    EXPECT_FALSE(plan.ok());
    return plan.status().message();
  };
  const Rows rows{x, 16, 16, Domain::kRows};
  EXPECT_NE(error([&](Ops& ops) { ops.SwiGlu(rows, rows.Columns(0, 8), rows); }).find("SwiGlu"), std::string::npos);
  EXPECT_NE(error([&](Ops& ops) { ops.RmsNorm(rows, rows, {}, 1e-6f); }).find("weight"), std::string::npos);
  EXPECT_NE(error([&](Ops& ops) { ops.Append({0, 12, ElementType::kF32}, rows); }).find("Append"), std::string::npos);
  EXPECT_NE(error([&](Ops& ops) {
              ops.Attention(rows, {rows, 3, 4, 4}, {0, 32, ElementType::kF16}, {0, 32, ElementType::kF16}, {}, {.kv_heads = 2});
            }).find("Attention"),
            std::string::npos);
  EXPECT_NE(error([&](Ops& ops) { ops.Append({0, 17, ElementType::kQ8_0}, rows); }).find("Append"), std::string::npos);
  EXPECT_NE(error([&](Ops& ops) {
              ops.Attention(rows, {rows, 1, 16, 16}, {0, 34, ElementType::kQ8_0}, {0, 34, ElementType::kQ8_0}, {}, {});
            }).find("no whole number of blocks"),
            std::string::npos);
}

TEST(MakeCpuBackend, RefusesUnknownSettings) {
  EXPECT_EQ(MakeCpuBackend({.threads = -1}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeCpuBackend({.isa = "mmx"}).status().code(), StatusCode::kUnsupported);
  EXPECT_GE((*MakeCpuBackend())->threads(), 1);
}

TEST(MakeCpuBackend, TakesTheBestInstructionSet) {
  EXPECT_NE((*MakeCpuBackend())->description().find(" " + CpuInstructionSets().front() + ","), std::string::npos);
}

TEST(Replay, RefusesStepsThatThePlanCannotServe) {
  auto backend = *MakeCpuBackend({.threads = 1});
  auto other = *MakeCpuBackend({.threads = 1});
  StepTable table(4, 1);
  float x[64];
  auto plan = backend->Capture(table, [&](Ops& ops) { ops.SwiGlu({x, 4, 4}, {x + 16, 4, 4}, {x + 32, 4, 4}); });
  ASSERT_TRUE(plan.ok());
  table.rows = 5;
  EXPECT_EQ(backend->stream().Replay(**plan).code(), StatusCode::kInvalidArgument);
  table.rows = 1;
  EXPECT_EQ(other->stream().Replay(**plan).code(), StatusCode::kInvalidArgument);
  table.rows = 0;  // a step of nothing is nothing
  EXPECT_TRUE(backend->stream().Replay(**plan).ok());
}

TEST(Allocate, IsZeroedAndAligned) {
  auto backend = *MakeCpuBackend({.threads = 1});
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{1000}, size_t{300} << 10, size_t{5} << 20}) {
    auto memory = backend->Allocate(bytes, "test");
    ASSERT_TRUE(memory.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(*memory) % 64, 0u);
    for (size_t i = 0; i < bytes; i += 997) EXPECT_EQ((*memory)[i], std::byte{0});
  }
  const auto refused = backend->Allocate(SIZE_MAX - 5, "the moon");
  EXPECT_EQ(refused.status().code(), StatusCode::kExhausted);
  EXPECT_NE(refused.status().message().find("the moon"), std::string::npos);
}

}  // namespace
}  // namespace reprise
