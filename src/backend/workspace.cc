#include "backend/workspace.h"

#include <cmath>
#include <numbers>
#include <vector>

namespace reprise {

Result<std::byte*> Workspace::Slot(const std::string& name, size_t bytes) {
  auto& [memory, size] = slots_[name];
  if (!memory || size < bytes) {
    REPRISE_ASSIGN_OR_RETURN(memory, backend_.Allocate(bytes, "scratch of " + name));
    size = bytes;
  }
  return memory;
}

Result<const uint64_t*> Workspace::Turns(const RopeSpec& rope) {
  const auto key = std::make_tuple(rope.dims, rope.base, rope.factors);
  if (const auto known = turns_.find(key); known != turns_.end()) return known->second;
  const auto half = static_cast<size_t>(rope.dims / 2);
  std::vector<float> factors(half, 1.0f);
  if (rope.factors) REPRISE_RETURN_IF_ERROR(backend_.Copy(factors.data(), rope.factors, half * sizeof(float)));
  std::vector<uint64_t> turns(half);
  for (size_t i = 0; i < half; ++i) {
    const double frequency = std::pow(rope.base, -2.0 * static_cast<double>(i) / rope.dims) / static_cast<double>(factors[i]);
    const double turn = frequency / (2.0 * std::numbers::pi);
    if (!std::isfinite(turn)) return InvalidArgument("rope: frequency " + std::to_string(i) + " is not finite");
    const double scaled = std::ldexp(turn - std::floor(turn), 64);
    turns[i] = static_cast<uint64_t>(scaled < 18446744073709551615.0 ? scaled : 0.0);
  }
  REPRISE_ASSIGN_OR_RETURN(std::byte* const memory, backend_.Allocate(half * sizeof(uint64_t), "rope frequencies"));
  REPRISE_RETURN_IF_ERROR(backend_.Copy(memory, turns.data(), half * sizeof(uint64_t)));
  return turns_[key] = reinterpret_cast<const uint64_t*>(memory);
}

}  // namespace reprise
