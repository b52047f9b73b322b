#include <algorithm>
#include <cmath>
#include <string>

#include "base/utf8.h"
#include "decode/sampler.h"
#include "reprise/sampling.h"

namespace reprise {

SamplingNumbers SamplingNumbers::Of(const SamplingOptions& options) {
  return {
      options.temperature,       options.top_k,         options.top_p, options.min_p, options.repetition_penalty, options.presence_penalty,
      options.frequency_penalty, options.penalty_window};
}

void SamplingNumbers::CopyTo(SamplingOptions& options) const {
  options.temperature = temperature;
  options.top_k = top_k;
  options.top_p = top_p;
  options.min_p = min_p;
  options.repetition_penalty = repetition_penalty;
  options.presence_penalty = presence_penalty;
  options.frequency_penalty = frequency_penalty;
  options.penalty_window = penalty_window;
}

// Every test is written so that NaN fails it.
const char* SamplingNumbers::Fault() const {
  if (!(temperature >= 0 && std::isfinite(temperature))) return "temperature must be a number from 0 (greedy) up";
  if (!(top_k >= 0)) return "top_k must be a count from 0 (off) up";
  if (!(top_p >= 0 && top_p <= 1)) return "top_p must be a number from 0 to 1 (off)";
  if (!(min_p >= 0 && min_p <= 1)) return "min_p must be a number from 0 (off) to 1";
  if (!(repetition_penalty > 0 && std::isfinite(repetition_penalty))) return "repetition_penalty must be a number above 0; 1 is off";
  if (!std::isfinite(presence_penalty)) return "presence_penalty must be a finite number; 0 is off";
  if (!std::isfinite(frequency_penalty)) return "frequency_penalty must be a finite number; 0 is off";
  if (!(penalty_window >= -1)) return "penalty_window must be a count from 0 up, or -1 for the whole context";
  return nullptr;
}

int32_t SamplingNumbers::Window() const {
  return repetition_penalty == 1 && presence_penalty == 0 && frequency_penalty == 0 ? 0 : penalty_window;
}

TokenBiases TokenBiases::Of(const SamplingOptions& options) {
  TokenBiases biases;
  for (const auto& [token, bias] : options.bias) {
    if (biases.count < SamplingOptions::kMaxBiases) biases.entries[biases.count++] = {token, bias};
  }
  return biases;
}

void TokenBiases::CopyTo(SamplingOptions& options) const {
  options.bias.clear();
  for (uint32_t i = 0; i < std::min<uint32_t>(count, SamplingOptions::kMaxBiases); ++i) {
    options.bias.emplace_back(entries[i].token, entries[i].bias);
  }
}

const char* TokenBiases::Fault() const {
  if (count > SamplingOptions::kMaxBiases) return "at most 300 tokens can have a bias";
  for (uint32_t i = 0; i < SamplingOptions::kMaxBiases; ++i) {
    if (i >= count && !(entries[i] == Entry())) return "there are bytes after the last bias";
    if (i >= count) continue;
    if (!std::isfinite(entries[i].bias)) return "a bias must be a finite number";
    if (entries[i].token < 0 || (i > 0 && entries[i].token <= entries[i - 1].token))
      return "biases must be of ascending token ids from 0 up";
  }
  return nullptr;
}

Status SamplingOptions::Check() const {
  if (const char* fault = SamplingNumbers::Of(*this).Fault()) return InvalidArgument(fault);
  if (bias.size() > kMaxBiases) return InvalidArgument("at most 300 tokens can have a bias, not " + std::to_string(bias.size()));
  if (const char* fault = TokenBiases::Of(*this).Fault()) return InvalidArgument(fault);
  if (stop.size() > kMaxStops)
    return InvalidArgument("at most " + std::to_string(kMaxStops) + " stop strings, not " + std::to_string(stop.size()));
  size_t bytes = 0;
  for (const std::string& text : stop) {
    if (text.empty()) return InvalidArgument("a stop string must not be empty");
    if (!IsUtf8(text)) return InvalidArgument("a stop string must be UTF-8");
    bytes += text.size();
  }
  if (bytes > kMaxStopBytes) {
    return InvalidArgument("the stop strings take " + std::to_string(bytes) + " bytes together; at most " + std::to_string(kMaxStopBytes) +
                           " fit");
  }
  return Ok();
}

}  // namespace reprise
