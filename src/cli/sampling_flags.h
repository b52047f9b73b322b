// The flags that say how tokens are chosen. Each maps to one field of SamplingOptions (reprise/sampling.h says what it means).
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "reprise/sampling.h"

namespace reprise {

struct SamplingFlags {
  std::optional<float> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int> top_k, penalty_window;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::optional<Grammar> grammar;

  bool any() const;
  // `base` with what was given.
  SamplingOptions Over(SamplingOptions base) const;
};

void AddSamplingFlags(CLI::App& command, SamplingFlags& flags);

}  // namespace reprise
