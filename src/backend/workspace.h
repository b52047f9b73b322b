// Workspace: memory that the plans of one backend share, and tables worked out once from weights.
//
// Plans of one backend never run at the same time, so a slot serves every plan that is not larger than it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "backend/backend.h"
#include "backend/ops.h"
#include "reprise/status.h"

namespace reprise {

class Workspace {
 public:
  explicit Workspace(Backend& backend) : backend_(backend) {}

  // At least `bytes` of memory for the purpose `name`. A larger wish later gets new memory; older plans keep theirs.
  Result<std::byte*> Slot(const std::string& name, size_t bytes);
  // dims / 2 frequencies, as 2^-64 turns a position.
  Result<const uint64_t*> Turns(const RopeSpec& rope);

 private:
  Backend& backend_;
  std::map<std::string, std::pair<std::byte*, size_t>> slots_;
  std::map<std::tuple<int, double, const float*>, const uint64_t*> turns_;
};

}  // namespace reprise
