// One choice: the next token from logits, options and the recent context (reprise/sampling.h says what each option does, and in which
// order).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "decode/candidates.h"
#include "decode/generator.h"
#include "reprise/sampling.h"
#include "reprise/status.h"

namespace reprise {

// SamplingOptions without what is neither a number nor changed by the choice. A POD, so that it can be a state.
struct SamplingNumbers {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  int32_t penalty_window = 64;

  static SamplingNumbers Of(const SamplingOptions& options);
  void CopyTo(SamplingOptions& options) const;
  // Null, or what is wrong with them: a literal, so that a check on the hot path allocates nothing.
  const char* Fault() const;
  // How many of the context's last tokens matter: 0 when no penalty is on, -1 for all of them.
  int32_t Window() const;
  bool operator==(const SamplingNumbers&) const = default;
};

// What is added to the logits of some tokens. A POD, so that it can be a state; entries past `count` are zero.
struct TokenBiases {
  struct Entry {
    int32_t token = 0;
    float bias = 0;
    bool operator==(const Entry&) const = default;
  };
  uint32_t count = 0;
  Entry entries[SamplingOptions::kMaxBiases] = {};

  static TokenBiases Of(const SamplingOptions& options);
  void CopyTo(SamplingOptions& options) const;
  const char* Fault() const;  // as of SamplingNumbers
};

// The tokens that may be chosen, of all that the workspace is for: bit t % 64 of word t / 64 is token t's. Empty: all of them.
using AllowedTokens = std::span<const uint64_t>;

// Scratch memory for one choice at a time over one vocabulary, 20 bytes a token. Holds nothing between choices.
class SampleWorkspace {
 public:
  explicit SampleWorkspace(int vocabulary);
  int vocabulary() const { return static_cast<int>(logits_.size()); }

 private:
  friend class Sampler;
  std::vector<float> logits_;     // after the penalties
  std::vector<int32_t> counts_;   // of each token in the window; all zero between choices
  std::vector<uint64_t> ranked_;  // candidates, as keys whose ascending order is their rank
  std::vector<double> weights_;   // of the candidates by id: proportional to their probability
};

// The next token. `window` is the context's tokens, newest last; only its last penalty_window count, and ids out of range are passed over.
// Takes exactly one number from the generator, or none when the choice is greedy. `numbers` and `biases` must have no Fault(). Allocates nothing
// unless it fails: kInvalidArgument when the logits are not of the workspace's vocabulary, kInternal when none that is allowed is above minus
// infinity.
Result<int32_t> ChooseToken(const SamplingNumbers& numbers, std::span<const float> logits, std::span<const int32_t> window,
                            Generator& generator, SampleWorkspace& workspace, const TokenBiases& biases = TokenBiases(),
                            AllowedTokens allowed = {});

// The same choice from the best of the row alone; or nothing, and no number taken, where the row's other tokens might make a difference. They make
// none where top_k leaves only tokens that are known, penalties and biases included; nor where whatever they weigh is less than min_p asks (without
// top_p) or nothing at all; nor, where `weights` of the row are given, if top_p leaves the same known ones whatever the others weigh
// within what is known of it. Penalties and biases that lower a token's logit never bring it back; one that raises an unknown token's asks for the row.
Result<std::optional<int32_t>> ChooseFromBest(const SamplingNumbers& numbers, const BestLogits& best, std::span<const int32_t> window,
                                              Generator& generator, SampleWorkspace& workspace, const TokenBiases& biases = TokenBiases(),
                                              AllowedTokens allowed = {}, const RowWeights& weights = {});

// The same choice from the weights of the row and the logits of one part of it; or nothing, and no number taken. It is for a draw from the whole
// distribution: a temperature, and nothing that takes tokens away or changes their logits. `best` gives the greatest logit.
Result<std::optional<int32_t>> ChooseFromPart(const SamplingNumbers& numbers, const BestLogits& best, const RowWeights& weights,
                                              RowReader& reader, std::span<const int32_t> window, Generator& generator,
                                              const TokenBiases& biases = TokenBiases(), AllowedTokens allowed = {});

// The temperature at which the weights of the row may help either to decide, or 0 where they cannot.
float WeighingTemperature(const SamplingNumbers& numbers);

}  // namespace reprise
