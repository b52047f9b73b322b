// How a model's operations become a CudaPlan: CudaOps checks each call and appends launches; the plan holds them as graphs, one for each bucket of
// step shapes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/kernel_table.h"
#include "exec/plan.h"
#include "exec/step_table.h"

namespace reprise::cuda {

// The step shapes that graphs are made for: a step is served by the smallest bucket that holds it. Up to 8 rows a bucket has kernels of its own
// for each power of two; above, a block that has no rows to compute leaves at once.
std::vector<int> RowBuckets(int most);
std::vector<int> LaneBuckets(int most);

class CudaPlan : public Plan {
 public:
  CudaPlan(const void* owner, const StepTable& table) : owner_(owner), table_(table) {}
  size_t launches() const override { return array.size(); }
  const void* owner() const { return owner_; }
  const StepTable& table() const { return table_; }

  // Instantiates the graphs from `array`.
  Status Finish(Device& device);
  // The graph of the smallest bucket with so many rows and lanes.
  const Graph& Find(int rows, int lanes) const;

  std::vector<Launch> array;

 private:
  const void* owner_;
  const StepTable& table_;
  std::vector<int> rows_, lanes_;
  std::vector<std::unique_ptr<Graph>> graphs_;  // [rows][lanes]
};

// Memory that plans of one backend share: only one replays at a time. And tables worked out once from weights.
class Workspace {
 public:
  explicit Workspace(Device& device) : device_(device) {}
  // At least `bytes` for the purpose `name`. A larger wish later gets new memory; older plans keep theirs.
  Result<std::byte*> Slot(const std::string& name, size_t bytes);
  // dims / 2 frequencies, as 2^-64 turns a position.
  Result<const uint64_t*> Turns(const RopeSpec& rope);

 private:
  Device& device_;
  std::map<std::string, std::pair<std::byte*, size_t>> slots_;
  std::map<std::tuple<int, double, const float*>, const uint64_t*> turns_;
};

class CudaOps : public Ops {
 public:
  CudaOps(CudaPlan& plan, const StepView& step, Workspace& workspace, Device& device)
      : plan_(plan), table_(plan.table()), step_(step), workspace_(workspace), device_(device) {}

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
  template <class Args, Grid (*kGrid)(const Args&, const Bucket&)>
  void Add(int kernel, const Args& args) {
    if (error_.ok()) plan_.array.push_back(MakeLaunch<Args, kGrid>(kernel, args));
  }
  // False, remembering "op: what" as the error, when `condition` does not hold.
  bool Check(bool condition, const char* op, const char* what);
  bool CheckRows(const char* op, const Rows& rows, int width, Domain domain);
  bool CheckHeads(const char* op, const Heads& heads);
  bool CheckLast(const char* op, const StateRef& last, int width);
  // Memory of a slot, or null with the error remembered.
  template <class T>
  T* Scratch(const std::string& name, int64_t count);
  int64_t MostRows(Domain domain) const { return domain == Domain::kRows ? table_.max_rows() : table_.max_lanes(); }
  // Where `in` lies quantised: by the launch just recorded, if it computed `in`, or by one of its own.
  QuantRows Quantised(Rows in);

  CudaPlan& plan_;
  const StepTable& table_;
  const StepView step_;
  Workspace& workspace_;
  Device& device_;
  Status error_;
  std::vector<std::pair<std::tuple<int, double, const float*>, const float*>> angles_;  // rope tables that this plan computes
};

}  // namespace reprise::cuda
