// Engine: one loaded model and the machinery that steps its lanes. What sessions, `eval`, `verify` and the benchmarks are made of.
//
// The state of a lane is one layout: the network's, the token history, and the decoder's. A step feeds tokens to any number of lanes at once
// and commits all of them or none. Logits are computed from the hidden row in each lane's committed state, so the logits of a boundary can be
// had at any time, after a restore or a fork too, with the same bits.
//
// Used by one thread at a time. After Load nothing allocates, but for error messages and what a grammar needs when it is first met.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "decode/decode_state.h"
#include "decode/grammar_masks.h"
#include "exec/lane.h"
#include "exec/state_space.h"
#include "formats/gguf.h"
#include "models/network.h"
#include "reprise/model.h"
#include "session/checkpoints.h"
#include "text/tokenizer.h"

namespace reprise {

class Engine : public std::enable_shared_from_this<Engine> {
 public:
  static Result<std::shared_ptr<Engine>> Load(const std::string& path, const ModelOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Most rows of one Advance; most rows whose logits RowLogits computes at once.
  int max_rows() const { return table_->max_rows(); }
  int max_lanes() const { return table_->max_lanes(); }
  static constexpr int kMaxLogitRows = 32;

  // The tokens that each lane is to see next. A lane stands in at most one Feed of an Advance.
  struct Feed {
    Lane* lane;
    std::span<const int32_t> tokens;
  };
  // What is asked of the rows of an Advance: each lane's boundary alone, which takes less work of the last block, or every row, for
  // ComputeRowLogits and ComputeDraftLogits. The states are the same bits.
  enum class Wanted { kBoundary, kEveryRow };
  // Computes every row and commits every lane, or changes nothing: a token outside the vocabulary, a full context or pool, too many rows.
  Status Advance(std::span<const Feed> feeds, Wanted wanted = Wanted::kBoundary);

  // A tentative step of one lane: rows computed first and committed in part, as speculation needs. BeginTentative makes room for up to `rows`
  // (at most kMaxTentativeRows); between it and CommitTentative or AbortTentative no other call but these and ComputeRowLogits is made.
  static constexpr int kMaxTentativeRows = Network::kReplayRows;
  Status BeginTentative(Lane& lane, int rows);
  // What the MTP block takes for the token after `token`, which would stand at row `row` of the step. Rows are asked for from 0 upwards.
  Result<int32_t> GuessNext(Lane& lane, int row, int32_t token);
  Status RunTentative(Lane& lane, std::span<const int32_t> tokens);
  // Commits the first `rows` >= 1 of the rows run: the recurrences alone are replayed for them, to the same bits as a step of only those rows.
  Status CommitTentative(Lane& lane, int rows);
  void AbortTentative(Lane& lane);

  // Takes `lane` back to position `to` of its history, which its ReplayLog reaches from `base`: the recurrences alone run again, to the same bits. Of
  // `base`, an earlier boundary whose tokens are this history's, the blocks are used; the rows are the lane's own. kExhausted, and nothing changed,
  // when there is no block to write.
  Status GoBack(Lane& lane, HeldState base, int32_t to);
  static bool Reaches(const Lane& lane, const HeldState& base, int32_t to) {
    return base.position == to || lane.log().Holds(base.position, to);
  }

  // Rows since Load: that the network computed, and of which the recurrences alone ran again.
  struct Work {
    uint64_t computed = 0, replayed = 0;
  };
  const Work& work() const { return work_; }

  // The logits at each lane's boundary: entry i is lane i's. Valid until the next call. kInvalidArgument for a lane at position 0.
  Status ComputeLogits(std::span<Lane* const> lanes);
  std::span<const float> logits(int i) const;  // from a device of memory of its own, copied by this call
  // The best of them, which such a device leaves for the host with each step; nothing (and not `all`) where logits() costs nothing.
  BestLogits best(int i) const;
  // What entry i's row weighs at `temperature`, which such a device adds up for it, best(i) being given; and some of its logits, copied by this call.
  Result<RowWeights> Weigh(int i, float temperature);
  std::span<const float> logits(int i, size_t first, size_t count) const;
  int32_t greedy(int i) const { return greedy_[static_cast<size_t>(i)]; }  // the most likely token of the same entry

  // The logits after each row of the Advance of kEveryRow, or the RunTentative, just made, which had at most kMaxLogitRows rows, in the same
  // entries.
  Status ComputeRowLogits();
  // What the MTP block, which sees one hidden row less, foretells at each of those rows. Only with info().has_draft.
  Status ComputeDraftLogits();

  // Copies of committed tokens [first, first + out.size()) of a lane's history.
  void CopyTokens(const HeldState& held, int first, std::span<int32_t> out) const;

  const ModelInfo& info() const { return info_; }
  const ModelOptions& options() const { return options_; }  // as given to Load, without what it calls back
  const NetworkInfo& network() const { return network_->info(); }
  const DecodeState& decode() const { return decode_; }
  int history() const { return history_; }  // the append-only state of token ids
  StateSpace& space() const { return *space_; }
  std::shared_ptr<StateSpace> shared_space() const { return space_; }
  CapsuleStore* store() const { return store_.get(); }  // null without one
  SampleWorkspace& workspace() { return *workspace_; }
  // Which tokens may follow by the grammar in a host state: all (an empty span) where there is none. Valid until the next call. What several grammars
  // allow is remembered, of the latest few. kUnsupported or kNotFound without a tokenizer.
  Result<AllowedTokens> Allowed(const std::byte* host);
  // What the first Allowed would have to do otherwise.
  Status PrepareGrammar();
  // A buffer for context tokens: as long as the longest context.
  std::span<int32_t> token_scratch() { return token_scratch_; }
  const GgufFile& file() const { return *file_; }
  Backend& backend() const { return *backend_; }

  // The file's tokenizer, or why there is none.
  Result<const Tokenizer*> tokenizer() const;
  const Tokenizer* tokenizer_or_null() const { return tokenizer_ ? &*tokenizer_ : nullptr; }  // allocates nothing

  // Checkpoints of live sessions are dropped, oldest first, when a pool is empty; then what the store can best do without.
  void Register(Checkpoints* checkpoints);
  void Unregister(Checkpoints* checkpoints);
  std::span<Checkpoints* const> checkpoints() const { return checkpoints_; }  // of the live sessions

 private:
  Engine() = default;
  Status Declare(const ModelOptions& options);
  Status MakeSpace(const ModelOptions& options);
  void MakeRoomForStore(const StoreOptions& options, size_t room, StateSpaceOptions& space);
  void MakeRoomForSpill(size_t budget, StateSpaceOptions& space);
  Status CapturePlans();
  Status CheckFeeds(std::span<const Feed> feeds) const;
  void Bind(std::span<const Feed> feeds);
  bool IsLogged(Wanted wanted) const;  // the step that is bound
  Status ReplayBody(Wanted wanted);
  bool DropCheckpoint();
  // Replays, and waits until what the plan leaves for the host is there.
  Status ReplayForHost(const Plan& plan);

  ModelInfo info_;
  ModelOptions options_;
  std::optional<GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  StateLayout layout_;  // while it is declared; then moved into the space
  std::unique_ptr<Network> network_;
  DecodeState decode_;
  int history_ = -1;  // the append-only state of token ids
  std::shared_ptr<StateSpace> space_;
  std::optional<Tokenizer> tokenizer_;
  Status tokenizer_status_;

  std::shared_ptr<CapsuleStore> store_;
  size_t store_budget_ = 0;
  std::optional<StepTable> table_;
  std::optional<StepTable> last_table_;  // of steps of each lane's last row
  std::unique_ptr<Plan> body_;
  std::unique_ptr<Plan> history_body_;
  std::unique_ptr<Plan> last_rows_;
  std::unique_ptr<Plan> logged_body_;
  std::unique_ptr<Plan> replay_;
  std::unique_ptr<Plan> recall_;
  std::unique_ptr<Plan> first_guess_;
  std::unique_ptr<Plan> next_guess_;
  std::unique_ptr<Plan> lane_head_;
  std::unique_ptr<Plan> row_head_;
  std::unique_ptr<Plan> draft_head_;
  Rows lane_hidden_;
  Rows logits_;
  float* host_logits_ = nullptr;  // the same where the host reads the backend's memory; otherwise a copy, made by whoever asks
  int32_t* greedy_ = nullptr;
  WeighedRow* weighed_ = nullptr;  // whose weights `weigh_` leaves in `part_weights_`
  std::span<double> part_weights_;
  std::unique_ptr<Plan> weigh_;
  BestRows best_;          // of the same entries, where the backend finds them; then its index is greedy_
  int rows_advanced_ = 0;  // whose hidden rows are there
  Work work_;

  static constexpr size_t kMostGrammars = 4;
  std::optional<TokenTrie> trie_;
  std::vector<std::unique_ptr<GrammarMasks>> masks_;  // the latest used first

  std::optional<SampleWorkspace> workspace_;
  std::vector<int32_t> token_scratch_;
  std::vector<Checkpoints*> checkpoints_;
};

}  // namespace reprise
