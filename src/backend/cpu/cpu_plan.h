// CpuPlan, what a capture leaves; and CpuOps, which captures: it finds scratch memory for each call and appends launches.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/captured_plan.h"
#include "backend/checked_ops.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/launch.h"
#include "backend/workspace.h"
#include "reprise/status.h"

namespace reprise {

class CpuPlan : public CapturedPlan {
 public:
  CpuPlan(const void* owner, const StepTable& table) : CapturedPlan(owner, table) {}
  size_t launches() const override { return array.size(); }

  std::vector<Launch> array;
  std::deque<std::vector<ProductArgs>> products;  // what MatMul launches point to
  std::deque<Launch> row_work;                    // what their arranging launches run first
  std::deque<ExpertVisits> visits;                // of each mixture of experts
  std::deque<std::vector<LogPart>> log_parts;
};

// The weights of convolutions, [kernel][channels] of what a file holds as [channels][kernel]. Made once for all plans.
class ConvTaps {
 public:
  explicit ConvTaps(Backend& backend) : backend_(backend) {}
  Result<const float*> Of(const float* weight, int channels, int kernel);

 private:
  Backend& backend_;
  std::map<std::tuple<const float*, int, int>, const float*> taps_;
};

class CpuOps : public CheckedOps {
 public:
  CpuOps(CpuPlan& plan, const KernelTable& kernels, Workspace& workspace, ConvTaps& taps, int threads)
      : CheckedOps(plan.table(), workspace), plan_(plan), kernels_(kernels), taps_(taps), threads_(threads) {}

 private:
  bool Owns(const Matrix& matrix) const override;
  bool OwnsTable(const Matrix& table) const override;
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

  template <class Args>
  void Add(const Kernel& kernel, const Args& args) {
    if (error().ok()) plan_.array.push_back(MakeLaunch(kernel.run, kernel.split, args));
    last_made_ = {};
  }
  // The same, remembering that the launch makes rows, in items of `columns`: a product of these rows that comes next takes it in.
  template <class Args>
  void AddRowWork(const Kernel& kernel, const Args& args, int columns) {
    Add(kernel, args);
    last_made_ = args.out;
    last_columns_ = columns;
  }
  // How a state is worked on in slices, with scratch memory for them.
  SliceArgs Slices(const StateRef& state, int heads, int rows, int columns);
  // Memory for the input of products, which share it, and what the products are told.
  struct Inputs {
    Activations in;
    std::vector<ProductArgs> products;
    int tiles = 0;  // of all products; where weights are those of several experts, of one
    double bytes = 0;
  };
  Inputs InputsOf(std::span<const Product> products, int64_t rows, int width, int experts);
  MatMulArgs Multiplying(const Inputs& inputs, const Rows& in);
  // Products of the rows that visit experts: source[i] is the row of `in` of the i-th sorted visit.
  void AddExpertMatMul(const Inputs& inputs, const Rows& in, RowWork before, const ExpertVisits& visits, const int32_t* source);
  // How the input of a product is arranged. Takes the launch that made the input, if that was the last, out of the plan.
  ArrangeArgs Arranging(const Rows& in, const Activations& to);
  // How attention of a shape is cut: made by a launch of its own, before the first attention that needs it.
  const AttentionCut* CutFor(AttentionCutArgs args);

  CpuPlan& plan_;
  const KernelTable& kernels_;
  ConvTaps& taps_;
  const int threads_;
  Rows last_made_;  // what the last launch made, if it works on rows
  int last_columns_ = 0;
  std::vector<std::pair<AttentionCutArgs, const AttentionCut*>> cuts_;  // how this plan cuts attention
};

}  // namespace reprise
