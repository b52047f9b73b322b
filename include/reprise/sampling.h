// SamplingOptions: how the next token is chosen from the logits, and what ends a generation.
//
// The steps, in order: the grammar, penalties, biases, temperature, top_k, top_p, min_p, draw. It is the order of the frameworks that model cards take their
// recommended settings from; llama.cpp applies the temperature last, so that below a temperature of 1 the
// same top_p keeps fewer tokens here.
//
// The choice depends on the logits, the options, the context's tokens and the generator's state alone: neither on the machine nor on the C
// library. Equal logits are ranked by the smaller token id. A logit that is NaN is never chosen.
//
// A value; copy it freely.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "reprise/grammar.h"
#include "reprise/status.h"

namespace reprise {

struct SamplingOptions {
  float temperature = 0;               // 0: greedy, the most likely token; top_k, top_p, min_p and seed then mean nothing
  int top_k = 0;                       // keep the k most likely tokens; 0 keeps all
  float top_p = 1;                     // of those, keep the fewest whose probabilities reach top_p together; at least one
  float min_p = 0;                     // of those, keep the ones at least min_p times as likely as the most likely
  float repetition_penalty = 1;        // a logit of a token in the window is divided by it when positive, multiplied by it otherwise
  float presence_penalty = 0;          // taken once from the logit of each token in the window
  float frequency_penalty = 0;         // taken from it as often as the token occurs in the window
  int penalty_window = 64;             // the last tokens of the context, prompt included, that penalties look at; -1: all of them
  uint64_t seed = 0;                   // the same seed draws the same tokens
  std::vector<std::string> stop = {};  // text that ends the generation and is not shown; UTF-8, not empty
  std::vector<std::pair<int32_t, float>> bias = {};  // added to the logit of each token named, once each; ascending ids, finite numbers
  Grammar grammar = {};                              // what the text must be; from its beginning wherever options are set

  static constexpr size_t kMaxBiases = 300;  // as many as OpenAI's interface takes
  static constexpr size_t kMaxStops = 16;
  static constexpr size_t kMaxStopBytes = 1024;  // of all stop strings together

  // kInvalidArgument names the first option that can never work, and the values that can.
  Status Check() const;

  bool operator==(const SamplingOptions&) const = default;
};

}  // namespace reprise
