// What a logit weighs in its row's distribution: the one arithmetic of the sampler on the host and of what sums up rows on a device.
#pragma once

#include "base/portable_exp.h"

namespace reprise {

// e^-50 of the most likely token's probability: a million such tokens together weigh less than the last bit of the draw.
inline constexpr double kLeastLogWeight = -50;

// exp((logit - greatest) / temperature), 1 for the greatest; `temperature` > 0. Not for NaN or minus infinity.
constexpr double LogitWeight(float logit, float greatest, float temperature) {
  if (logit == greatest) return 1;  // also where both are infinite and their difference is not a number
  const double log_weight = (static_cast<double>(logit) - greatest) / static_cast<double>(temperature);
  return log_weight >= kLeastLogWeight ? PortableExp(log_weight) : 0;
}

}  // namespace reprise
