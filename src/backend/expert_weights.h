// How much a router trusts an expert: arithmetic that every backend shares, in doubles, so that all of them weigh alike.
#pragma once

#include "base/portable_exp.h"

namespace reprise {

// e^x for x <= 0, nothing where that is less than e^-700; a NaN stays one.
constexpr double ExpertExp(double x) { return x < -700.0 ? 0.0 : x <= 0.0 ? PortableExp(x) : x - x == 0.0 ? 1.0 : x - x; }

// The probability of an expert of this score, by itself.
constexpr double ExpertSigmoid(float score) {
  const double x = score, e = ExpertExp(x < 0.0 ? x : -x);
  return x < 0.0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
}
// A share of the softmax over some experts, of which `greatest` is the greatest score.
constexpr double ExpertShare(float score, float greatest) { return ExpertExp(static_cast<double>(score) - static_cast<double>(greatest)); }

}  // namespace reprise
