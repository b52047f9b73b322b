// CheckedOps: what every backend asks of a call before it records it, so that a backend's own Ops can take each call as sound.
//
// A call whose shapes do not agree is not recorded: the first such call, or the first that found no memory, is the error of the capture.
#pragma once

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/ops.h"
#include "backend/workspace.h"
#include "exec/step_table.h"
#include "reprise/status.h"

namespace reprise {

class CheckedOps : public Ops {
 public:
  // The first thing that was wrong with the calls so far.
  const Status& error() const { return error_; }

  void Embed(Rows out, const Matrix& table, float scale) final;
  void RmsNorm(Rows out, Rows in, Vector weight, float eps) final;
  using Ops::AddRmsNorm;
  void AddRmsNorm(Rows out, Rows in, Vector weight, float eps, float scale) final;
  void MatMul(Rows in, std::span<const Product> products) final;
  void SwiGlu(Rows out, Rows gate, Rows up) final;
  void GeGlu(Rows out, Rows gate, Rows up) final;
  void ReluSquared(Rows out, Rows in) final;
  void MixExperts(Rows out, Rows in, Rows scores, const Experts& experts) final;
  void SigmoidGate(Rows rows, Rows gate) final;
  void Multiply(Rows out, Rows a, Rows b) final;
  void AddBias(Rows rows, Vector bias) final;
  void SoftCap(Rows rows, float cap) final;
  void NormRope(Heads heads, Vector weight, float eps, const RopeSpec& rope) final;
  void ScaleByPosition(Rows rows, Vector factors, int every) final;
  void Append(StateRef state, Rows in) final;
  void Attention(Rows out, Heads q, StateRef k, StateRef v, Heads gate, const AttentionSpec& spec) final;
  void CausalConv(Rows out, Rows in, StateRef tail, Vector weight, Vector bias, int kernel, bool silu) final;
  void DeltaNet(Rows out, Rows qkv, Rows alpha, Rows beta, Vector a, Vector dt, StateRef state, const DeltaNetShape& shape) final;
  void Ssm(Rows out, Rows xbc, Rows dt, Vector a, Vector dt_bias, Vector d, StateRef state, const SsmShape& shape) final;
  void SelectiveScan(Rows out, Rows x, Rows dt, Rows b, Rows c, Vector a, Vector dt_bias, Vector d, StateRef state) final;
  void GatedRmsNorm(Rows out, Rows in, Rows gate, Vector weight, float eps) final;
  void Previous(Rows out, Rows in, StateRef last) final;
  void SaveLast(StateRef last, Rows in) final;
  void LoadLast(Rows out, StateRef last) final;
  void LastRows(Rows out, Rows in) final;
  void KeepLog(std::span<const LogPart> parts) final { CopyLog("KeepLog", parts, /*recall=*/false); }
  void RecallLog(std::span<const LogPart> parts) final { CopyLog("RecallLog", parts, /*recall=*/true); }
  void ArgMax(int32_t* index, Rows in) final;
  void Best(const BestRows& out, Rows in) final;
  void Weigh(double* parts, const WeighedRow* row, Rows in) final;

 protected:
  CheckedOps(const StepTable& table, Workspace& workspace) : table_(table), workspace_(workspace) {}

  // Whether this backend made `matrix`, and whether it made `table` for Embed.
  virtual bool Owns(const Matrix& matrix) const = 0;
  virtual bool OwnsTable(const Matrix& table) const { return Owns(table); }

  // Each call as above, checked.
  virtual void RecordEmbed(const Rows& out, const Matrix& table, float scale) = 0;
  // Of groups of `group` columns each; (out + the norm) * scale where it accumulates.
  virtual void RecordRmsNorm(const Rows& out, const Rows& in, const float* weight, int group, float eps, bool accumulate, float scale) = 0;
  virtual void RecordMatMul(const Rows& in, std::span<const Product> products) = 0;
  virtual void RecordSwiGlu(const Rows& out, const Rows& gate, const Rows& up) = 0;
  virtual void RecordGeGlu(const Rows& out, const Rows& gate, const Rows& up) = 0;
  virtual void RecordReluSquared(const Rows& out, const Rows& in) = 0;
  virtual void RecordMixExperts(const Rows& out, const Rows& in, const Rows& scores, const Experts& experts) = 0;
  virtual void RecordSigmoidGate(const Rows& rows, const Rows& gate) = 0;
  virtual void RecordMultiply(const Rows& out, const Rows& a, const Rows& b) = 0;
  virtual void RecordAddBias(const Rows& rows, const float* bias) = 0;
  virtual void RecordSoftCap(const Rows& rows, float cap) = 0;
  // angles[row][dims] = the cosines, then the sines, of `turns` at the row's position, times the magnitude. Recorded once a plan, before the first call that reads it.
  virtual void RecordRopeTable(float* angles, const uint64_t* turns, const RopeSpec& rope) = 0;
  virtual void RecordNormRope(const Heads& heads, const float* weight, float eps, const float* angles, const RopeSpec& rope) = 0;
  virtual void RecordScaleByPosition(const Rows& rows, const Vector& factors, int every) = 0;
  virtual void RecordAppend(const StateRef& state, const Rows& in) = 0;
  virtual void RecordAttention(const Rows& out, const Heads& q, const StateRef& k, const StateRef& v, const Heads& gate,
                               const AttentionSpec& spec) = 0;
  virtual void RecordCausalConv(const Rows& out, const Rows& in, const StateRef& tail, const float* weight, const float* bias, int kernel,
                                bool silu) = 0;
  virtual void RecordDeltaNet(const Rows& out, const Rows& qkv, const Rows& alpha, const Rows& beta, const float* a, const float* dt,
                              const StateRef& state, const DeltaNetShape& shape) = 0;
  virtual void RecordSsm(const Rows& out, const Rows& xbc, const Rows& dt, const float* a, const float* dt_bias, const float* d,
                         const StateRef& state, const SsmShape& shape) = 0;
  virtual void RecordSelectiveScan(const Rows& out, const Rows& x, const Rows& dt, const Rows& b, const Rows& c, const float* a,
                                   const float* dt_bias, const float* d, const StateRef& state) = 0;
  virtual void RecordGatedRmsNorm(const Rows& out, const Rows& in, const Rows& gate, const float* weight, int head, float eps) = 0;
  virtual void RecordPrevious(const Rows& out, const Rows& in, const StateRef& last) = 0;
  virtual void RecordSaveLast(const StateRef& last, const Rows& in) = 0;
  virtual void RecordLoadLast(const Rows& out, const StateRef& last) = 0;
  virtual void RecordLastRows(const Rows& out, const Rows& in) = 0;
  // KeepLog, or RecallLog.
  virtual void RecordLog(std::span<const LogPart> parts, bool recall) = 0;
  virtual void RecordArgMax(int32_t* index, const Rows& in) = 0;
  virtual void RecordBest(const BestRows& out, const Rows& in);                    // refused, unless the backend finds_best()
  virtual void RecordWeigh(double* parts, const WeighedRow* row, const Rows& in);  // as well

  // For what a backend alone demands. False, remembering "op: what" as the error, when `condition` does not hold.
  bool Check(bool condition, const char* op, const char* what);
  // The value, or T() with the error remembered.
  template <class T>
  T Take(Result<T> result) {
    if (result.ok()) return *result;
    if (error_.ok()) error_ = result.status();
    return T();
  }
  // Memory of a slot of the workspace, or null with the error remembered.
  template <class T>
  T* Scratch(const std::string& name, int64_t count) {
    return reinterpret_cast<T*>(Take(workspace_.Slot(name, static_cast<size_t>(count) * sizeof(T))));
  }
  int64_t MostRows(Domain domain) const { return domain == Domain::kRows ? table_.max_rows() : table_.max_lanes(); }
  const StepTable& table() const { return table_; }

 private:
  bool CheckRows(const char* op, const Rows& rows, int width, Domain domain);
  bool CheckHeads(const char* op, const Heads& heads);
  bool CheckState(const char* op, const StateRef& state, int64_t floats, const char* what);
  void CopyLog(const char* op, std::span<const LogPart> parts, bool recall);
  // The table of angles of `rope`, or null with the error remembered.
  const float* Angles(const RopeSpec& rope);

  const StepTable& table_;
  Workspace& workspace_;
  Status error_;
  std::vector<std::pair<RopeSpec, const float*>> angles_;  // that this plan computes
};

}  // namespace reprise
