#include "models/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace reprise {
namespace {

// Of each pair, by how much YaRN divides its frequency.
std::vector<float> YarnFactors(Loader& loader, int dims, double base, double factor, bool whole_numbers) {
  const double context = loader.Int("rope.scaling.original_context_length", 1, INT32_MAX, loader.Int("context_length", 1, INT32_MAX, 4096));
  // The pair that turns so often within the context.
  const auto pair_of = [&](double turns) { return dims * std::log(context / (turns * 2 * std::numbers::pi)) / (2 * std::log(base)); };
  double low = pair_of(loader.Float("rope.scaling.yarn_beta_fast", 32.0)), high = pair_of(loader.Float("rope.scaling.yarn_beta_slow", 1.0));
  if (whole_numbers) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1.0);
  if (low == high) high += 0.001;
  std::vector<float> factors;
  for (int i = 0; i < dims / 2; ++i) {
    const double scaled = std::clamp((i - low) / (high - low), 0.0, 1.0);
    factors.push_back(static_cast<float>(1.0 / (scaled / factor + 1.0 - scaled)));
  }
  return factors;
}

}  // namespace

RopeSpec ReadRope(Loader& loader, int dims, const RopeReading& reading) {
  RopeSpec rope;
  rope.dims = dims;
  rope.base = loader.Float("rope.freq_base", reading.base);
  loader.Require(rope.base > 1.0 && rope.base <= 1e12, "rope.freq_base is not between 1 and 10^12");
  const std::string type = loader.Text("rope.scaling.type", "none");
  if (type == "none" || !loader.ok()) return rope;

  loader.Require(type == "linear" || type == "yarn", "rope.scaling.type is '" + type + "', neither none, linear nor yarn");
  const double factor = loader.Float("rope.scaling.factor", 1.0), magnitude = loader.Float("rope.scaling.attn_factor", 1.0);
  loader.Require(factor >= 1.0 && factor <= 1e4, "rope.scaling.factor is not between 1 and 10,000");
  loader.Require(magnitude > 0.0 && magnitude <= 1e4, "rope.scaling.attn_factor is not between 0 and 10,000");
  const double log_multiplier = loader.Float("rope.scaling.yarn_log_multiplier", 0.0);
  loader.Require(log_multiplier >= 0.0 && log_multiplier <= 1e4, "rope.scaling.yarn_log_multiplier is not between 0 and 10,000");
  for (const char* key : {"rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"}) {
    loader.Require(loader.Float(key, 1.0) == 1.0, std::string("a ") + key + " other than 1 is not supported");
  }
  for (const char* key : {"rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"}) {
    const double turns = loader.Float(key, 1.0);
    loader.Require(turns > 0.0 && turns <= 1e6, std::string(key) + " is not between 0 and 1,000,000");
  }
  if (!loader.ok()) return rope;
  const bool yarn = type == "yarn";
  // Some models take the magnitude of YaRN back, in part or whole.
  const double tenth = yarn ? 0.1 * std::log(factor) : 0.0;
  rope.magnitude = static_cast<float>(magnitude * (1.0 + tenth) / (1.0 + log_multiplier * tenth));
  std::vector<float> factors(static_cast<size_t>(dims / 2), static_cast<float>(factor));
  if (yarn) factors = YarnFactors(loader, dims, rope.base, factor, reading.whole_numbers);
  rope.factors = loader.NewVector(factors).data;
  return rope;
}

RopeSpec ReadWindowRope(Loader& loader, int dims) {
  const RopeSpec rope{.dims = dims, .base = loader.Float("rope.freq_base_swa", 10000.0)};
  loader.Require(rope.base > 1.0 && rope.base <= 1e12, "rope.freq_base_swa is not between 1 and 10^12");
  return rope;
}

void TakeDivisors(Loader& loader, RopeSpec& rope) {
  constexpr char kDivisors[] = "rope_freqs.weight";
  if (!loader.Has(kDivisors)) return;
  loader.Require(rope.factors == nullptr, "rotary positions are scaled by rope.scaling and by rope_freqs.weight");
  rope.factors = loader.LoadVector(kDivisors, rope.dims / 2).data;
}

}  // namespace reprise
