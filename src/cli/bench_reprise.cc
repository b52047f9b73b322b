// Reprise as a contender of its own benchmark, through the calls that users have.
#include <algorithm>
#include <chrono>
#include <utility>

#include "cli/bench_contender.h"
#include "exec/lane.h"
#include "reprise/session.h"
#include "session/engine.h"

namespace reprise {
namespace {

double Since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

class Reprise : public BenchContender {
 public:
  explicit Reprise(const Model& model) : model_(model) {}

  Status Open(int lines) {
    for (int i = 0; i < lines; ++i) {
      REPRISE_ASSIGN_OR_RETURN(Session session, model_.NewSession());
      sessions_.push_back(std::move(session));
    }
    origin_ = sessions_[0].Snapshot();
    return Ok();
  }

  Result<BenchRound> Round(const BenchPlan& plan) override {
    BenchRound round;
    Session& main = sessions_[0];
    REPRISE_RETURN_IF_ERROR(main.Restore(origin_));
    auto start = std::chrono::steady_clock::now();
    REPRISE_RETURN_IF_ERROR(main.Append(plan.prompt));
    REPRISE_RETURN_IF_ERROR(Settle());
    round.prefill_ms = Since(start);

    uint64_t copied = main.lane().copied_rows();
    start = std::chrono::steady_clock::now();
    capsule_ = main.Snapshot();
    round.snapshot_us = Since(start) * 1000;

    start = std::chrono::steady_clock::now();
    REPRISE_RETURN_IF_ERROR(main.Next().status());
    round.ttft_cold_ms = round.prefill_ms + Since(start);
    start = std::chrono::steady_clock::now();
    for (int i = 0; i < plan.decode; ++i) REPRISE_RETURN_IF_ERROR(main.Next().status());
    round.decode_ms = Since(start);
    round.snapshot_bytes = CopiedSince(main, copied);

    REPRISE_RETURN_IF_ERROR(Settle());
    start = std::chrono::steady_clock::now();
    REPRISE_RETURN_IF_ERROR(main.Rollback(plan.rollback));
    REPRISE_RETURN_IF_ERROR(Settle());
    round.rollback_ms = Since(start);

    REPRISE_RETURN_IF_ERROR(Dirty(main, plan));
    copied = main.lane().copied_rows();
    start = std::chrono::steady_clock::now();
    REPRISE_RETURN_IF_ERROR(main.Restore(capsule_));
    round.restore_us = Since(start) * 1000;
    REPRISE_RETURN_IF_ERROR(main.Next().status());
    round.ttft_restored_ms = Since(start);
    REPRISE_RETURN_IF_ERROR(main.Next().status());
    round.restore_bytes = CopiedSince(main, copied);

    REPRISE_RETURN_IF_ERROR(Dirty(main, plan));
    REPRISE_RETURN_IF_ERROR(main.Restore(capsule_));
    start = std::chrono::steady_clock::now();
    REPRISE_RETURN_IF_ERROR(main.Append(plan.suffix));
    REPRISE_RETURN_IF_ERROR(main.Next().status());
    round.suffix_ms = Since(start);

    Session& fork = sessions_[1];
    REPRISE_RETURN_IF_ERROR(Dirty(fork, plan));
    copied = fork.lane().copied_rows();
    start = std::chrono::steady_clock::now();
    REPRISE_RETURN_IF_ERROR(fork.Restore(capsule_));
    round.fork_us = Since(start) * 1000;
    REPRISE_RETURN_IF_ERROR(fork.Next().status());
    REPRISE_RETURN_IF_ERROR(fork.Next().status());
    round.fork_bytes = CopiedSince(fork, copied);
    return round;
  }

  Result<double> Branches(int branches, int steps) override {
    std::vector<Session*> batch;
    for (int i = 0; i < branches; ++i) {
      Session& session = sessions_[static_cast<size_t>(i)];
      REPRISE_RETURN_IF_ERROR(session.Restore(capsule_));
      REPRISE_RETURN_IF_ERROR(session.SetSampling({.temperature = 0.8f, .top_k = 40, .seed = static_cast<uint64_t>(i) + 1}));
      batch.push_back(&session);
    }
    std::vector<Token> tokens(batch.size());
    for (int i = 0; i < kBranchWarmUp; ++i) REPRISE_RETURN_IF_ERROR(Session::NextBatch(batch, tokens));
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i) REPRISE_RETURN_IF_ERROR(Session::NextBatch(batch, tokens));
    return Since(start);
  }

 private:
  Status Dirty(Session& session, const BenchPlan& plan) {
    REPRISE_RETURN_IF_ERROR(session.Restore(origin_));
    REPRISE_RETURN_IF_ERROR(session.Append(plan.dirt));
    return Settle();
  }
  // Until the device has done what it was given: no time is told before, or starts to run.
  Status Settle() const { return model_.engine().backend().stream().Synchronize(); }
  uint64_t CopiedSince(const Session& session, uint64_t rows) const {
    return (session.lane().copied_rows() - rows) * model_.layout().row_bytes();
  }

  Model model_;
  std::vector<Session> sessions_;
  Capsule origin_;
  Capsule capsule_;
};

}  // namespace

Result<std::unique_ptr<BenchContender>> MakeReprise(const Model& model, int branches) {
  auto contender = std::make_unique<Reprise>(model);
  REPRISE_RETURN_IF_ERROR(contender->Open(std::max(branches, 2)));
  return std::unique_ptr<BenchContender>(std::move(contender));
}

}  // namespace reprise
