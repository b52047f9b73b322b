// DecodeState: everything that choosing and showing tokens remembers from one token to the next, declared once.
//
//   decode.options     the numbers of SamplingOptions
//   decode.biases      what is added to the logits of some tokens
//   decode.grammar     what the text must be: a program (decode/grammar.h)
//   decode.threads     where the text stands within it
//   decode.generator   the seed, and how many numbers were drawn
//   decode.stops       the stop strings
//   decode.held_text   text held back because it may begin a stop string
//   decode.utf8        the first bytes of a character whose last ones are still to come
//   decode.pending     the token that was chosen and not yet fed to the model, or -1
//
// All lie in the host part of the state block, so a capsule taken anywhere (in the middle of a sampled, penalised stream, of a stop string
// or of a character) goes on bit for bit. The context's tokens, which the penalties look at, are the model's state and are passed in.
//
// `host` is the host part of a state block: Lane::read(Space::kHost) where it is const, Lane::write(Space::kHost) within a step otherwise.
// The object itself only knows where each state lies; it is immutable and may be used from any thread. Nothing here allocates, but for
// error messages and for `text` when it needs room.
//
// Bytes restored from a file are hostile until Check() has passed. Before that the results mean nothing, but no call leaves its bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "decode/grammar.h"
#include "decode/sampler.h"
#include "reprise/layout.h"
#include "reprise/sampling.h"
#include "reprise/status.h"

namespace reprise {

class StateSpace;

class DecodeState {
 public:
  // Adds the states to `layout`. The object is good for every StateSpace made of that layout. Where the bytes of tokens are not known, there is
  // nothing that a grammar could say, and it has no states.
  enum class Bytes { kKnown, kUnknown };
  static DecodeState Declare(StateLayout& layout, Bytes of_tokens = Bytes::kKnown);

  // What a new lane starts from: greedy, no stop strings, no token pending. Before the first lane is made.
  void InitialiseOrigin(StateSpace& space) const;

  // Sets the options for the tokens that follow and seeds the generator. Text held back and a partial character are forgotten; Flush first
  // to keep them. A pending token stays. On an error (SamplingOptions::Check) nothing has changed.
  Status Configure(const SamplingOptions& options, std::byte* host) const;
  SamplingOptions Options(const std::byte* host) const;

  // Whether these are bytes that the calls here could have written, for a model of `vocabulary` tokens. kCorrupt names the state at fault.
  Status Check(const std::byte* host, int vocabulary) const;

  // Chooses the next token (reprise/sampling.h) and advances the generator, by one draw unless the choice is greedy. `window` is the
  // context's tokens, newest last; of more than penalty_window the last ones count. kCorrupt when the options in `host` are impossible.
  // With a grammar, `allowed` are the tokens that may follow.
  Result<int32_t> Sample(std::span<const float> logits, std::span<const int32_t> window, std::byte* host, SampleWorkspace& workspace,
                         AllowedTokens allowed = {}) const;
  // The same token from the best of them alone; or nothing, and nothing has changed, where it takes them all (ChooseFromBest).
  Result<std::optional<int32_t>> SampleFromBest(const BestLogits& best, std::span<const int32_t> window, std::byte* host,
                                                SampleWorkspace& workspace, AllowedTokens allowed = {},
                                                const RowWeights& weights = {}) const;
  // And from one part of them (ChooseFromPart).
  Result<std::optional<int32_t>> SampleFromPart(const BestLogits& best, const RowWeights& weights, RowReader& reader,
                                                std::span<const int32_t> window, std::byte* host, AllowedTokens allowed = {}) const;
  // The temperature at which the weights of the row may help these two to decide, or 0.
  float WeighingTemperature(const std::byte* host) const;
  // How many of the last tokens Sample() will look at: 0 without penalties, -1 for all.
  int32_t PenaltyWindow(const std::byte* host) const;

  int32_t pending(const std::byte* host) const;
  void set_pending(std::byte* host, int32_t token) const;

  bool takes_grammar() const { return states_[kGrammar] >= 0; }
  bool has_grammar(const std::byte* host) const;
  GrammarProgram grammar(const std::byte* host) const;
  GrammarThreads threads(const std::byte* host) const;
  // Whether the grammar allows nothing more. Never without one.
  bool IsComplete(const std::byte* host) const;

  // The bytes of one token more, which the grammar takes note of where it allows them. Appends to `text` what is now certain to be shown: whole characters, and nothing of a stop string. Bytes
  // that are no UTF-8 are shown as U+FFFD. Returns true when a stop string is complete: what follows it in `token_bytes` is dropped,
  // nothing is held.
  bool Feed(std::string_view token_bytes, std::byte* host, std::string& text) const;
  // The end of a generation without a stop string: what was held back is shown.
  void Flush(std::byte* host, std::string& text) const;

 private:
  enum Part { kOptions, kBiases, kGrammar, kThreads, kGenerator, kStops, kHeldText, kUtf8, kPending, kParts };

  template <class T>
  T Load(const std::byte* host, Part part) const;
  template <class T>
  void Store(std::byte* host, Part part, const T& value) const;
  template <class T, class Choose>
  Result<T> Chosen(std::byte* host, const Choose& choose) const;

  int states_[kParts] = {};  // -1: not declared
  size_t offsets_[kParts] = {};
};

}  // namespace reprise
