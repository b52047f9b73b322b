// What `reprise bench` measures, and who is measured: Reprise itself, or a peer on the same file, in the same run.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "reprise/model.h"
#include "reprise/status.h"

namespace reprise {

// One pass over one prompt. Between the parts another prompt makes the caches and the state dirty.
struct BenchRound {
  double prefill_ms = 0;    // the whole prompt, nothing known of it before
  double ttft_cold_ms = 0;  // the same, up to its first token
  double snapshot_us = 0;
  double decode_ms = 0;         // BenchPlan::decode tokens, greedily
  double rollback_ms = 0;       // BenchPlan::rollback of them taken back
  double restore_us = 0;        // after another prompt
  double ttft_restored_ms = 0;  // that restore, and the first token
  double suffix_ms = 0;         // after a restore: BenchPlan::suffix, and the first token
  double fork_us = 0;           // onto another line, which had another prompt
  // Bytes of state copied: by the verb, and by the first step after it where that copies on write.
  uint64_t snapshot_bytes = 0, restore_bytes = 0, fork_bytes = 0;
};

struct BenchPlan {
  std::vector<int32_t> prompt, suffix, dirt;
  int decode = 0;
  int rollback = 0;  // 2 or more, since the last token chosen is not part of the state yet, and no more than `decode`
};

// Enough for each fork to have been in all the memory that it goes on in: the system gives pages when they are first written.
inline constexpr int kBranchWarmUp = 3;

class BenchContender {
 public:
  virtual ~BenchContender() = default;
  virtual Result<BenchRound> Round(const BenchPlan& plan) = 0;
  // Milliseconds for `steps` tokens of each of `branches` forks of the last round's prompt, sampled with different seeds, as one batch, after
  // kBranchWarmUp tokens that nobody times.
  virtual Result<double> Branches(int branches, int steps) = 0;
};

Result<std::unique_ptr<BenchContender>> MakeReprise(const Model& model, int branches);

struct PeerOptions {
  std::string python;  // that has llama-cpp-python
  std::string script;  // tools/bench_peer.py
  std::string model;
  std::string kv;  // how it keeps keys and values: "f16", "f32", "q8_0", or "" for its own choice
  int threads = 0;
  int context = 0;
  int branches = 0;
};
// llama.cpp in a process of its own, driven over pipes. kNotFound says how to install it.
Result<std::unique_ptr<BenchContender>> StartLlamaCpp(const PeerOptions& options);

}  // namespace reprise
