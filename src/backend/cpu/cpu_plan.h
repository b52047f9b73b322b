// CpuPlan, what a capture leaves; and CpuOps, which captures: it checks each call's shapes, finds scratch memory and appends launches.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/launch.h"
#include "backend/cpu/memory.h"
#include "reprise/status.h"

namespace reprise {

class CpuPlan : public Plan {
 public:
  CpuPlan(const void* owner, const StepTable& table) : owner_(owner), table_(&table) {}
  size_t launches() const override { return array.size(); }
  const void* owner() const { return owner_; }
  const StepTable& table() const { return *table_; }

  std::vector<Launch> array;
  std::deque<std::vector<ProductArgs>> products;  // what MatMul launches point to

 private:
  const void* owner_;
  const StepTable* table_;
};

// Memory that captures share: plans of one backend never run at the same time, so a slot serves every plan that is not larger than it.
class Workspace {
 public:
  explicit Workspace(Arena& arena) : arena_(arena) {}

  // At least `bytes` of memory for the purpose `name`. A larger wish later gets new memory; older plans keep theirs.
  Result<std::byte*> Slot(const std::string& name, size_t bytes);
  // [kernel][channels] of weights that a file holds as [channels][kernel].
  Result<const float*> Taps(const float* weight, int channels, int kernel);
  // dims / 2 frequencies, as 2^-64 turns a position.
  Result<const uint64_t*> Turns(const RopeSpec& rope);

 private:
  Arena& arena_;
  std::map<std::string, std::pair<std::byte*, size_t>> slots_;
  std::map<std::tuple<const float*, int, int>, const float*> taps_;
  std::map<std::tuple<int, double, const float*>, const uint64_t*> turns_;
};

class CpuOps : public Ops {
 public:
  CpuOps(CpuPlan& plan, const KernelTable& kernels, Workspace& workspace, int threads)
      : plan_(plan), table_(plan.table()), kernels_(kernels), workspace_(workspace), threads_(threads) {}

  // The first thing that was wrong with the calls so far.
  const Status& error() const { return error_; }

  void Embed(Rows out, const Matrix& table) override;
  void RmsNorm(Rows out, Rows in, Vector weight, float eps) override;
  void MatMul(Rows in, std::span<const Product> products) override;
  void SwiGlu(Rows out, Rows gate, Rows up) override;
  void NormRope(Heads heads, Vector weight, float eps, const RopeSpec& rope) override;
  void Append(StateRef state, Rows in) override;
  void Attention(Rows out, Heads q, StateRef k, StateRef v, int kv_heads, float scale, Heads gate, int first_position) override;
  void CausalConv(Rows out, Rows in, StateRef tail, Vector weight, int kernel, bool silu) override;
  void DeltaNet(Rows out, Rows qkv, Rows alpha, Rows beta, Vector a, Vector dt, StateRef state, const DeltaNetShape& shape) override;
  void GatedRmsNorm(Rows out, Rows in, Rows gate, Vector weight, float eps) override;
  void Previous(Rows out, Rows in, StateRef last) override;
  void SaveLast(StateRef last, Rows in) override;
  void LoadLast(Rows out, StateRef last) override;
  void ArgMax(int32_t* index, Rows in) override;

 private:
  template <class Args>
  void Add(const Kernel& kernel, const Args& args) {
    if (error_.ok()) plan_.array.push_back(MakeLaunch(kernel.run, kernel.split, args));
  }
  // False, remembering "op: what" as the error, when `condition` does not hold.
  bool Check(bool condition, const char* op, const char* what);
  bool CheckRows(const char* op, const Rows& rows, int width, Domain domain);
  bool CheckHeads(const char* op, const Heads& heads);
  bool CheckLast(const char* op, const StateRef& last, int width);
  // How attention of a shape is cut: made by a launch of its own, before the first attention that needs it.
  const AttentionCut* CutFor(AttentionCutArgs args);
  // Memory of a slot, or null with the error remembered.
  template <class T>
  T* Scratch(const std::string& name, int64_t count);
  int64_t MostRows(Domain domain) const { return domain == Domain::kRows ? table_.max_rows() : table_.max_lanes(); }

  CpuPlan& plan_;
  const StepTable& table_;
  const KernelTable& kernels_;
  Workspace& workspace_;
  const int threads_;
  Status error_;
  std::vector<std::pair<std::tuple<int, double, const float*>, const float*>> angles_;  // rope tables that this plan computes
  std::vector<std::pair<AttentionCutArgs, const AttentionCut*>> cuts_;                  // and how it cuts attention
};

}  // namespace reprise
