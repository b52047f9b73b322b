// The bits behind the name that numerics() gives: one digest over every kernel that computes. It is the same on every instruction set (and
// processor family) of that name. When a change of a kernel changes it, give numerics() a new name and this test the new digest.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "backend/cpu/cpu_rig.h"
#include "base/checked.h"
#include "base/half.h"

namespace reprise {
namespace {

// Multiples of 2^-12 in [-2, 2): made without the C++ library's distributions or any rounding, so the same everywhere.
Floats1d PlainFloats(size_t count, uint64_t seed, float scale = 1.0f) {
  Floats1d x(count);
  for (float& v : x) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    v = static_cast<float>(static_cast<int>(seed >> 50) - 8192) * (scale / 4096.0f);
  }
  return x;
}

// A weight whose blocks are filled with quants, and their scales are small halves.
std::vector<std::byte> PlainWeight(TensorType type, int inputs, int outputs, uint64_t seed) {
  const TensorTypeTraits& traits = TraitsOf(type);
  const Floats1d plain = PlainFloats(static_cast<size_t>(inputs) * static_cast<size_t>(outputs), seed, 0.05f);
  if (type == TensorType::kF32) return BytesOf(plain);
  std::vector<std::byte> bytes(*TensorBytes(type, static_cast<uint64_t>(inputs), static_cast<uint64_t>(outputs)));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 + i / 51);
  const auto half_at = [&](size_t at, uint16_t bits) { std::memcpy(bytes.data() + at, &bits, 2); };
  for (size_t i = 0; traits.block_bytes == 2 && i < plain.size(); ++i) {
    half_at(i * 2, type == TensorType::kF16 ? FloatToHalf(plain[i]) : FloatToBFloat16(plain[i]));
  }
  const bool has_min = type == TensorType::kQ4_1 || type == TensorType::kQ5_1 || type == TensorType::kQ4_K || type == TensorType::kQ5_K;
  for (size_t i = 0; traits.block_elements > 1 && i < bytes.size(); i += traits.block_bytes) {
    if (type == TensorType::kMXFP4) {
      bytes[i] = static_cast<std::byte>(118 + i % 7);
      continue;
    }
    half_at(type == TensorType::kQ6_K ? i + 208 : i, FloatToHalf(plain[i % plain.size()] * 0.05f));
    if (has_min) half_at(i + 2, FloatToHalf(plain[(i + 1) % plain.size()] * 0.05f));
  }
  return bytes;
}

uint64_t Digest(uint64_t digest, std::span<const std::byte> bytes) {
  for (std::byte b : bytes) digest = (digest ^ static_cast<uint64_t>(b)) * 1099511628211u;
  return digest;
}

// Of two lanes' results, and of their states: the first `state_bytes` of a block, and all from `tail_offset` on.
uint64_t DigestOfLanes(const Outcome& outcome, size_t state_bytes, size_t tail_offset) {
  uint64_t digest = 14695981039346656037u;
  for (size_t lane = 0; lane < 2; ++lane) {
    digest = Digest(digest, BytesOf(outcome.out[lane]));
    digest = Digest(digest, std::span(outcome.block[lane]).first(state_bytes));
    digest = Digest(digest, std::span(outcome.block[lane]).subspan(tail_offset));
    for (float x : outcome.out[lane]) {
      if (!std::isfinite(x)) ADD_FAILURE() << "not a number that the test could stand on";
    }
  }
  return digest;
}

uint64_t DigestOfEveryKernel(const std::string& isa, ElementType kv) {
  constexpr int kWidth = 96, kRows = 300;
  const Ops::DeltaNetShape shape{2, 16, 2, 32};
  const size_t state_bytes = sizeof(float) * 2 * 16 * 32;
  const size_t kv_bytes = kv == ElementType::kQ8_0 ? 34 : 32 * ElementSize(kv);
  const StateRef k{0, kv_bytes, kv}, v{64 * kExtentRows, kv_bytes, kv};
  const StateRef tail{AlignUp(state_bytes, 64), sizeof(float) * 3 * kWidth, ElementType::kF32};
  Job job;
  job.in = kWidth;
  job.out = 6 * kWidth;
  job.lane_rows = {kRows, 3};
  job.extent_bytes = v.offset + v.bytes * kExtentRows;
  job.block_bytes = tail.offset + tail.bytes;

  const TensorType types[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ8_0,
                              TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_1};
  std::vector<std::vector<std::byte>> weights;
  for (TensorType type : types) weights.push_back(PlainWeight(type, kWidth, kWidth, weights.size() + 10));
  const Floats1d norm = PlainFloats(kWidth, 3), head_norm = PlainFloats(32, 4), taps = PlainFloats(kWidth * 4, 5);
  const Floats1d a = {-0.5f, -1.25f}, dt = {0.25f, -0.75f};
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const auto vector = [&](const Floats1d& x) {
      return *backend.LoadVector({"v", TensorType::kF32, static_cast<int64_t>(x.size()), 1, BytesOf(x)});
    };
    const auto piece = [&](int i) { return out.Columns(i * kWidth, kWidth); };
    ops.RmsNorm(piece(0), in, vector(norm), 1e-6f);
    bool first = true;
    for (size_t i = 0; i < weights.size(); ++i) {
      const Product product{*backend.LoadMatrix({"w", types[i], kWidth, kWidth, weights[i]}), piece(1), !first};
      ops.MatMul(piece(0), {&product, 1});
      first = false;
    }
    ops.NormRope({piece(1), 3, 32, 32}, vector(head_norm), 1e-6f, {32});
    ops.Append(k, piece(1).Columns(0, 32));
    ops.Append(v, piece(1).Columns(32, 32));
    ops.Attention(piece(2), {piece(1), 3, 32, 32}, k, v, {in, 3, 32, 32}, {.scale = 0.25f});
    ops.CausalConv(piece(3), piece(2), tail, vector(taps), {}, 4, true);
    ops.SwiGlu(piece(4), piece(3), piece(1));
    ops.GatedRmsNorm(piece(4), piece(4), in, vector(head_norm), 1e-6f);
    // q and k of 2 heads of 16 each, v of 2 x 32: 128 columns, from the third piece on.
    ops.DeltaNet(out.Columns(5 * kWidth, 64), out.Columns(2 * kWidth, 128), in.Columns(0, 2), in.Columns(2, 2), vector(a), vector(dt),
                 {0, state_bytes, ElementType::kF32}, shape);
    ops.RmsNorm(out.Columns(5 * kWidth + 64, 32), in.Columns(0, 32), vector(head_norm), 1e-6f);
  };
  const Outcome outcome = RunJob(job, PlainFloats((kRows + 3) * kWidth, 1), OneStep(job.lane_rows), {.threads = 2, .isa = isa});
  return DigestOfLanes(outcome, state_bytes, tail.offset);
}

// Products of the types that the digest above leaves out, some of whose blocks are longer than its rows.
uint64_t DigestOfProducts(const std::string& isa, const std::vector<TensorType>& types) {
  constexpr int kInputs = 512, kOutputs = 24;
  Job job;
  job.in = kInputs;
  job.out = static_cast<int>(types.size()) * kOutputs;
  job.lane_rows = {15};
  std::vector<std::vector<std::byte>> weights;
  for (TensorType type : types) weights.push_back(PlainWeight(type, kInputs, kOutputs, weights.size() + 20));
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    for (size_t i = 0; i < weights.size(); ++i) {
      const Product product{*backend.LoadMatrix({"w", types[i], kInputs, kOutputs, weights[i]}),
                            out.Columns(static_cast<int>(i) * kOutputs, kOutputs)};
      ops.MatMul(in, {&product, 1});
    }
  };
  Floats1d in = PlainFloats(15 * kInputs, 2);
  for (size_t i = 0; i < in.size(); ++i) in[i] /= static_cast<float>(1 + i / 32 % 7);  // blocks of several steps
  const Outcome outcome = RunJob(job, in, OneStep(job.lane_rows), {.threads = 2, .isa = isa});
  for (float x : outcome.out[0]) {
    if (!std::isfinite(x)) ADD_FAILURE() << "not a number that the test could stand on";
  }
  return Digest(14695981039346656037u, BytesOf(outcome.out[0]));
}

// The recurrence of Mamba-2 after a convolution with a bias, which the digest above leaves out.
uint64_t DigestOfSsm(const std::string& isa) {
  constexpr Ops::SsmShape kShape{4, 40, 2, 24};
  constexpr int kInner = kShape.heads * kShape.head_dim, kChannels = kInner + 2 * kShape.groups * kShape.state_dim, kRows = 20;
  const size_t state_bytes = sizeof(float) * kInner * kShape.state_dim;
  const StateRef tail{AlignUp(state_bytes, 64), sizeof(float) * 3 * kChannels, ElementType::kF32};
  Job job;
  job.in = kChannels + kShape.heads;
  job.out = kChannels + kInner;
  job.lane_rows = {kRows, 3};
  job.block_bytes = tail.offset + tail.bytes;
  const Floats1d taps = PlainFloats(4 * kChannels, 6), bias = PlainFloats(kChannels, 7), skip = PlainFloats(kShape.heads, 8);
  const Floats1d a = {-0.5f, -1.25f, -0.1f, -2.0f}, dt = {0.25f, -0.75f, 0.5f, -1.0f};
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const auto vector = [&](const Floats1d& x) {
      return *backend.LoadVector({"v", TensorType::kF32, static_cast<int64_t>(x.size()), 1, BytesOf(x)});
    };
    const Rows xbc = out.Columns(0, kChannels);
    ops.CausalConv(xbc, in.Columns(0, kChannels), tail, vector(taps), vector(bias), 4, true);
    ops.Ssm(out.Columns(kChannels, kInner), xbc, in.Columns(kChannels, kShape.heads), vector(a), vector(dt), vector(skip),
            {0, state_bytes, ElementType::kF32}, kShape);
  };
  const Outcome outcome = RunJob(job, PlainFloats((kRows + 3) * job.in, 3), OneStep(job.lane_rows), {.threads = 2, .isa = isa});
  return DigestOfLanes(outcome, state_bytes, tail.offset);
}

// The scan of Mamba-1, likewise.
uint64_t DigestOfScan(const std::string& isa) {
  constexpr int kChannels = 80, kStates = 16, kRows = 20;
  const StateRef state{0, sizeof(float) * kChannels * kStates, ElementType::kF32};
  Job job;
  job.in = 2 * kChannels + 2 * kStates;
  job.out = kChannels;
  job.lane_rows = {kRows, 3};
  job.block_bytes = state.bytes;
  Floats1d a = PlainFloats(kChannels * kStates, 6);
  for (float& x : a) x = -std::abs(x);
  const Floats1d dt = PlainFloats(kChannels, 7), skip = PlainFloats(kChannels, 8);
  job.record = [&](Backend& backend, Ops& ops, Rows in, Rows out) {
    const auto vector = [&](const Floats1d& x) {
      return *backend.LoadVector({"v", TensorType::kF32, static_cast<int64_t>(x.size()), 1, BytesOf(x)});
    };
    ops.SelectiveScan(out, in.Columns(0, kChannels), in.Columns(kChannels, kChannels), in.Columns(2 * kChannels, kStates),
                      in.Columns(2 * kChannels + kStates, kStates), vector(a), vector(dt), vector(skip), state);
  };
  const Outcome outcome = RunJob(job, PlainFloats((kRows + 3) * job.in, 3), OneStep(job.lane_rows), {.threads = 2, .isa = isa});
  return DigestOfLanes(outcome, state.bytes, state.bytes);
}

// tools/arm_tests.sh reads from the names of these tests what a processor is given.
class Numerics : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Of, Numerics, testing::ValuesIn(CpuInstructionSets()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST_P(Numerics, TheNameStandsForTheseBits) {
  const auto backend = *MakeCpuBackend({.threads = 1, .isa = GetParam()});
  EXPECT_EQ(backend->description(), "CPU, " + GetParam() + ", 1 thread");
  const uint64_t digest = DigestOfEveryKernel(GetParam(), ElementType::kF16),
                 products = DigestOfProducts(GetParam(), {TensorType::kQ5_0, TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K}),
                 of_mxfp4 = DigestOfProducts(GetParam(), {TensorType::kMXFP4});
  const uint64_t of_bytes = DigestOfEveryKernel(GetParam(), ElementType::kQ8_0),
                 of_floats = DigestOfEveryKernel(GetParam(), ElementType::kF32), of_ssm = DigestOfSsm(GetParam()),
                 of_scan = DigestOfScan(GetParam());
  if (backend->numerics() == "cpu3-fma") {
    EXPECT_EQ(digest, 4743501391829704504u);
    EXPECT_EQ(products, 17537462646554051208u);
    EXPECT_EQ(of_mxfp4, 2510684815606656085u);
    EXPECT_EQ(of_bytes, 4748578712754370497u);
    EXPECT_EQ(of_floats, 9835826487041389461u);
    EXPECT_EQ(of_ssm, 11453153153439860030u);
    EXPECT_EQ(of_scan, 13308102981827257456u);
  } else {
    EXPECT_EQ(backend->numerics(), "cpu3-nofma");
    EXPECT_EQ(digest, 10590585245517557585u);
    EXPECT_EQ(products, 3992222628386444152u);
    EXPECT_EQ(of_mxfp4, 13541244126932719814u);
    EXPECT_EQ(of_bytes, 8188151296574687567u);
    EXPECT_EQ(of_floats, 616907605140351358u);
    EXPECT_EQ(of_ssm, 382358684822631149u);
    EXPECT_EQ(of_scan, 6426525968642251013u);
  }
}

}  // namespace
}  // namespace reprise
