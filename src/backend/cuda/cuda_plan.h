// How a model's operations become a CudaPlan: CudaOps appends the launches of each call; the plan holds them as graphs, one for each bucket of
// step shapes.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/captured_plan.h"
#include "backend/checked_ops.h"
#include "backend/cuda/device.h"
#include "backend/cuda/kernel_table.h"
#include "exec/step_table.h"

namespace reprise::cuda {

// The step shapes that graphs are made for: a step is served by the smallest bucket that holds it. Up to 8 rows a bucket has kernels of its own
// for each power of two; above, a block that has no rows to compute leaves at once.
std::vector<int> RowBuckets(int most);
std::vector<int> LaneBuckets(int most);

class CudaPlan : public CapturedPlan {
 public:
  CudaPlan(const void* owner, const StepTable& table) : CapturedPlan(owner, table) {}
  size_t launches() const override { return array.size(); }

  // Instantiates the graphs from `array`.
  Status Finish(Device& device);
  // The graph of the smallest bucket with so many rows and lanes, and how many launches it has: `array`, or fewer (fuse.h).
  const Graph& Find(int rows, int lanes) const { return *Of(rows, lanes).graph; }
  size_t launches(int rows, int lanes) const { return Of(rows, lanes).launches; }

  std::vector<Launch> array;

 private:
  struct Bucketed {
    std::unique_ptr<Graph> graph;
    size_t launches;
  };
  const Bucketed& Of(int rows, int lanes) const;

  std::vector<int> rows_, lanes_;
  std::vector<Bucketed> graphs_;  // [rows][lanes]
};

class CudaOps : public CheckedOps {
 public:
  CudaOps(CudaPlan& plan, const StepView& step, Workspace& workspace, Device& device)
      : CheckedOps(plan.table(), workspace), plan_(plan), step_(step), device_(device) {}

 private:
  bool Owns(const Matrix& matrix) const override;
  void RecordEmbed(const Rows& out, const Matrix& table, float scale) override;
  void RecordRmsNorm(const Rows& out, const Rows& in, const float* weight, int group, float eps, bool accumulate, float scale) override;
  void RecordMatMul(const Rows& in, std::span<const Product> products) override;
  void RecordSwiGlu(const Rows& out, const Rows& gate, const Rows& up) override;
  void RecordGeGlu(const Rows& out, const Rows& gate, const Rows& up) override;
  void RecordReluSquared(const Rows& out, const Rows& in) override;
  void RecordMixExperts(const Rows& out, const Rows& in, const Rows& scores, const Experts& experts) override;
  void RecordSigmoidGate(const Rows& rows, const Rows& gate) override;
  void RecordMultiply(const Rows& out, const Rows& a, const Rows& b) override;
  void RecordAddBias(const Rows& rows, const float* bias) override;
  void RecordSoftCap(const Rows& rows, float cap) override;
  void RecordRopeTable(float* angles, const uint64_t* turns, const RopeSpec& rope) override;
  void RecordNormRope(const Heads& heads, const float* weight, float eps, const float* angles, const RopeSpec& rope) override;
  void RecordScaleByPosition(const Rows& rows, const Vector& factors, int every) override;
  void RecordAppend(const StateRef& state, const Rows& in) override;
  void RecordAttention(const Rows& out, const Heads& q, const StateRef& k, const StateRef& v, const Heads& gate,
                       const AttentionSpec& spec) override;
  void RecordCausalConv(const Rows& out, const Rows& in, const StateRef& tail, const float* weight, const float* bias, int kernel,
                        bool silu) override;
  void RecordDeltaNet(const Rows& out, const Rows& qkv, const Rows& alpha, const Rows& beta, const float* a, const float* dt,
                      const StateRef& state, const DeltaNetShape& shape) override;
  void RecordSsm(const Rows& out, const Rows& xbc, const Rows& dt, const float* a, const float* dt_bias, const float* d,
                 const StateRef& state, const SsmShape& shape) override;
  void RecordSelectiveScan(const Rows& out, const Rows& x, const Rows& dt, const Rows& b, const Rows& c, const float* a,
                           const float* dt_bias, const float* d, const StateRef& state) override;
  void RecordGatedRmsNorm(const Rows& out, const Rows& in, const Rows& gate, const float* weight, int head, float eps) override;
  void RecordPrevious(const Rows& out, const Rows& in, const StateRef& last) override;
  void RecordSaveLast(const StateRef& last, const Rows& in) override;
  void RecordLoadLast(const Rows& out, const StateRef& last) override;
  void RecordLastRows(const Rows& out, const Rows& in) override;
  void RecordLog(std::span<const LogPart> parts, bool recall) override;
  void RecordArgMax(int32_t* index, const Rows& in) override;
  void RecordBest(const BestRows& out, const Rows& in) override;
  void RecordWeigh(double* parts, const WeighedRow* row, const Rows& in) override;

  template <class Args, Grid (*kGrid)(const Args&, const Bucket&)>
  void Add(int kernel, const Args& args) {
    if (error().ok()) plan_.array.push_back(MakeLaunch<Args, kGrid>(kernel, args));
  }
  // If the launch just recorded is one of `kernel`, lets `share` add to its arguments; whether it did.
  template <class Args, class Share>
  bool ShareLast(int kernel, Share&& share) {
    if (!error().ok() || plan_.array.empty() || plan_.array.back().kernel != kernel) return false;
    Args args;
    std::memcpy(static_cast<void*>(&args), plan_.array.back().args, sizeof(args));
    if (!share(args)) return false;
    std::memcpy(plan_.array.back().args, &args, sizeof(args));
    return true;
  }
  // Room for `rows` rows of so many inputs, quantised, that calls of the same `use` share.
  QuantRows NewQuants(const std::string& use, int inputs, int64_t rows);
  // Where `in` lies quantised: by the launch just recorded, if it computed `in`, or by one of its own.
  QuantRows Quantised(const Rows& in);

  CudaPlan& plan_;
  const StepView step_;
  Device& device_;
};

}  // namespace reprise::cuda
