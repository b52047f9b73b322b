// Plan: a captured list of kernel launches over static buffers. Captured once a ShapeKey, replayed for every step of that shape.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace reprise {

// What a plan was captured for. `want` says which outputs the plan computes; its meaning belongs to whoever captured it.
// Plans read the actual rows and lanes from the StepTable; `rows` and `lanes` are the most that the plan can serve.
struct ShapeKey {
  int32_t rows = 0;
  int32_t lanes = 0;
  uint32_t want = 0;
  auto operator<=>(const ShapeKey&) const = default;
};

// Owned by whoever captured it, and replayed by the backend that made it. Immutable after capture: replaying allocates nothing, looks
// nothing up, and rebinds nothing.
class Plan {
 public:
  virtual ~Plan() = default;
  virtual size_t launches() const = 0;
};

}  // namespace reprise
