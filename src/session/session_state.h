// Session::State: what a session is made of. Shared by the files that implement its verbs (session.cc), its reading of prompts (prefill.cc) and
// its choosing (generate.cc, speculate.cc).
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "decode/draft_depth.h"
#include "reprise/session.h"
#include "session/engine.h"
#include "store/policy.h"

namespace reprise {

// A checkpoint on the way through a long prefill: going back into it costs at most this many tokens.
inline constexpr int kPrefillStride = policy::kStride;

inline constexpr int kHost = static_cast<int>(Space::kHost);
inline constexpr int kDevice = static_cast<int>(Space::kDevice);

// Longer than any burst of tokens; a longer one costs an allocation.
inline constexpr size_t kTextReserve = 4096;

// A prompt in hand: what is still to be computed, and where capsules are taken on the way.
struct PrefillPlan {
  std::vector<int32_t> prompt;
  std::vector<Boundary> cuts;  // ascending; those from `next` on are still ahead
  size_t next = 0;
  int last_kept = 0;
  std::shared_ptr<const void> hold;  // on the store's entry that it began from
};

struct Session::State {
  State(Model handle, std::unique_ptr<Lane> live, std::string of)
      : model(std::move(handle)), lane(std::move(live)), name_space(std::move(of)) {
    text.reserve(kTextReserve);
    engine().Register(&checkpoints);
    MarkHere();
  }
  ~State() {
    (void)CancelPrefill();
    engine().Unregister(&checkpoints);
  }

  Engine& engine() const { return model.engine(); }
  const DecodeState& decode() const { return engine().decode(); }
  const std::byte* host() const { return lane->read(Space::kHost); }
  int32_t pending() const { return decode().pending(host()); }

  // A boundary is marked as it is before a token is chosen there, which is what going back to it means.
  void MarkHere() {
    if (pending() >= 0) return;
    checkpoints.Mark(lane->position(), lane->position(), lane->Hold().block[kHost]);
    checkpoints.Refresh(lane->Hold());
  }
  void KeepHere() { checkpoints.Keep(lane->Hold()); }

  bool OnPath(const HeldState& held, std::span<const int32_t> tokens) const {
    if (held.position > static_cast<int>(tokens.size())) return false;
    const auto scratch = engine().token_scratch().first(static_cast<size_t>(held.position));
    engine().CopyTokens(held, 0, scratch);
    return std::equal(scratch.begin(), scratch.end(), tokens.begin());
  }
  HeldState DeepestOnPath(std::span<const int32_t> tokens) const;
  // A host step that only changes what `change` does.
  template <class F>
  Status ChangeHost(F change) {
    REPRISE_RETURN_IF_ERROR(lane->BeginHost());
    Status status = change(lane->write(Space::kHost));
    if (status.ok()) {
      lane->Commit();
    } else {
      lane->Abort();
    }
    return status;
  }
  // One step; its boundaries are marked.
  Status Feed(std::span<const int32_t> tokens);
  Status FeedTokens(std::span<const int32_t> tokens, const PrefillOptions& options);
  Result<PrefillReport> StartPrefill(std::span<const int32_t> prompt, std::vector<Boundary> boundaries);
  Result<bool> ContinuePrefill(int tokens);
  Status CancelPrefill();
  // The present boundary, into the store. 0 when there is none, or it has no room.
  Result<uint64_t> Save(const CapsuleStore::PutOptions& options);
  Status FeedPending();
  Status FeedAgain(HeldState base, std::span<const int32_t> tokens);
  // The next token, from the engine's logits `entry`, into the open step's host block, after the committed tokens and then `ahead`; what may be shown
  // of it is added to `text`.
  Status Choose(int entry, std::span<const int32_t> ahead, Token& token);
  // A step on the pending token and on tokens guessed to follow it. See Speculation in reprise/session.h.
  Status Speculate(int most);
  Result<int> GuessAfter(std::span<int32_t> tokens, int most);

  struct BurstToken {
    int32_t id;
    size_t text_begin, text_end;  // within `text`
    Finish finish;
  };

  Model model;  // first: everything below lives in its memory
  std::unique_ptr<Lane> lane;
  std::string name_space;
  Checkpoints checkpoints;
  std::optional<PrefillPlan> plan;
  std::string text;
  Speculation speculation;
  SpeculationStats stats;
  DraftDepth depth{0};
  std::array<BurstToken, Engine::kMaxTentativeRows> burst;  // what the last Speculate chose, in order
  int burst_size = 0;
  int burst_guessed = 0;  // tokens that were guessed for it
};

}  // namespace reprise
