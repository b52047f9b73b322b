// Session: one line of thought on a model. Prompt in, tokens out, and the verbs on everything it remembers.
//
// A session stands at a committed boundary between any two calls: after an error or a cancellation too, at the last boundary it reached. So
// Snapshot works at any time, and what it takes is complete: keys and values, recurrent memories, the sampler's generator, options and stop
// strings, the token chosen but not yet fed, half a character waiting for its other half.
//
//   Prefill(prompt)       make the context this prompt, computing only what neither this session nor the store already holds
//   Next() / Generate()   choose tokens, one boundary each
//   Snapshot()            everything, by reference: microseconds, nothing copied
//   Restore(capsule)      the same, bit for bit; the same tokens follow
//   Fork(capsule, n)      n sessions that go their own ways from there
//   Rollback(n)           as if the last n tokens had not been
//
// Thread-safety: see model.h. Move-only. A session keeps its model alive.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/capsule.h"
#include "reprise/model.h"
#include "reprise/sampling.h"
#include "reprise/status.h"
#include "reprise/store.h"

namespace reprise {

// kComplete: the grammar allows nothing more.
enum class Finish { kNone, kEndOfText, kStopString, kLength, kCancelled, kComplete };
std::string_view FinishName(Finish finish);

struct Token {
  int32_t id = -1;
  std::string_view text;  // what may be shown now, whole characters; valid until the session's next call
  Finish finish = Finish::kNone;
};

struct PrefillReport {
  int reused = 0;    // tokens of the prompt that were already computed
  int computed = 0;  // and those that were not
  double seconds = 0;
  Tier tier = Tier::kNone;     // where the reused ones came from
  int known = 0;               // how many tokens of the prompt lie on a path that session or store has seen
  uint64_t diverged_from = 0;  // the store's entry whose path the prompt left there, or 0
  std::string reason;          // why nothing, or less than `known`, was reused; "" when there is nothing to explain
};

// A position within a prompt that later prompts are likely to share: the end of its system message, of each question.
struct Boundary {
  int position = 0;
  Keep keep = Keep::kTurn;
};

struct PrefillOptions {
  std::function<void(int done, int total)> progress = {};  // after each step, with tokens of the part to be computed
  const std::atomic<bool>* cancel = nullptr;               // looked at between steps; what was computed stays committed
  std::vector<Boundary> boundaries = {};                   // in any order; those that are not within the prompt are passed over
};

// Guessing ahead: tokens that probably follow are drafted cheaply and checked in one step. What is chosen never depends on it: a guess counts only
// where the model, with the same logits and the same draw, chooses that token too, and the rest is undone exactly. So outputs are identical
// with and without, greedy or sampled; only the speed differs.
struct Speculation {
  enum class Source {
    kAuto,    // lookup where the context repeats itself, otherwise the MTP block where there is one
    kMtp,     // the model's own block that foretells the token after next
    kLookup,  // what followed the last occurrence of the latest tokens in the context
  };
  static constexpr int kMostDraft = 15;
  int draft = 0;  // most tokens guessed a step; 0 turns it off
  Source source = Source::kAuto;
  bool adapt = true;  // guess fewer, or none, while that gives more tokens a second; otherwise as many as can be, always
};

struct SpeculationStats {
  int64_t steps = 0;     // that checked guesses
  int64_t drafted = 0;   // tokens guessed
  int64_t accepted = 0;  // guesses that came true
};

class Session {
 public:
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  int position() const;                 // tokens in the context, all of them committed
  std::vector<int32_t> tokens() const;  // a copy of them
  int32_t pending_token() const;        // chosen but not yet fed to the model, or -1

  // Makes the context exactly `prompt`. The deepest boundary on its path that this session still holds (its own position, or a checkpoint) or
  // the store knows is restored, and the rest is computed. Sampling options stay. kCancelled when cancelled: the boundary reached is kept.
  Result<PrefillReport> Prefill(std::span<const int32_t> prompt, const PrefillOptions& options = {});
  Result<PrefillReport> Prefill(std::string_view prompt, const PrefillOptions& options = {});
  // The same in pieces, for whoever has other sessions to serve in between. StartPrefill goes to the deepest boundary and reports what is
  // reused and what is to be computed; each ContinuePrefill computes up to `tokens` more, and says whether the prompt is complete. CancelPrefill
  // stays where it is, which the store keeps; every verb that goes elsewhere, and the end of the session, does that by itself. Choosing a token
  // before the prompt is complete is refused. `progress` and `cancel` are Prefill's alone.
  Result<PrefillReport> StartPrefill(std::span<const int32_t> prompt, const PrefillOptions& options = {});
  Result<bool> ContinuePrefill(int tokens);
  Status CancelPrefill();  // fine when there is none in hand
  bool prefilling() const;

  // Adds to the context. A token chosen but not yet fed is fed first.
  Status Append(std::span<const int32_t> tokens, const PrefillOptions& options = {});

  // How tokens are chosen from here on. Seeds the generator and clears what the stop matcher held.
  Status SetSampling(const SamplingOptions& options);
  SamplingOptions sampling() const;

  // Chooses the next token. The first call after Prefill chooses from logits that are already there; each later one feeds the token before.
  Result<Token> Next();
  // Up to `max_tokens` tokens through `emit`, which stops generation by returning false. Returns why it ended.
  Result<Finish> Generate(int max_tokens, const std::function<bool(const Token&)>& emit);
  // For Generate from here on; Next and NextBatch never guess. Not part of the state, since it changes no result. Counts start anew.
  Status SetSpeculation(const Speculation& speculation);
  SpeculationStats speculation_stats() const;
  // Next() for several sessions of one model, decoded as one batch: weights are read once for all of them. tokens[i] is of sessions[i],
  // which stand there once each. All of them choose or, on an error, none.
  static Status NextBatch(std::span<Session* const> sessions, std::span<Token> tokens);
  // The text still held back (it might have begun a stop string, or half a character), once nothing more will follow.
  Result<std::string_view> FlushText();

  // Puts the present boundary, whole as Snapshot() takes it, into the store, and returns the id that CapsuleStore::Get knows it by; 0 when the
  // budget has no room for it. kUnsupported without a store.
  Result<uint64_t> Save(const CapsuleStore::PutOptions& options = {});
  // A reply ends here, for whatever reason: the store keeps the boundary, so that the next question goes on from it. Nothing without a store. The
  // ends of prompts are kept without being asked for.
  Status EndReply();

  Capsule Snapshot();
  // kMismatch, and nothing changed, for a capsule of another model.
  Status Restore(const Capsule& capsule);
  Result<std::vector<Session>> Fork(const Capsule& capsule, int count) const;
  // To the boundary `count` tokens back, and exactly so: sampler, stop matcher and all. Among tokens that were chosen the recurrences alone run
  // again, from the checkpoint below (mostly less than 32 tokens); text that was appended is computed again. kInvalidArgument when that boundary is
  // out of reach (it names what is in reach): an impossible rollback is refused, never approximated.
  Status Rollback(int count);

  // The capsule as bytes, with the model's name and a digest of its tokens as metadata. Model::ImportCapsule reads them.
  Result<std::vector<std::byte>> Export(const Capsule& capsule) const;

  // Logits of the boundary: vocabulary values, valid until the model's next call.
  Result<std::span<const float>> Logits();
  const Model& model() const;

  Lane& lane() const;  // for Reprise's own programs; a step made past the session is unknown to its checkpoints

 private:
  friend class Model;
  struct State;
  explicit Session(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace reprise
