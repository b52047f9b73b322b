#include "backend/captured_plan.h"

#include <string>

namespace reprise {

Status CapturedPlan::CheckReplay(const CapturedPlan* plan, const void* owner) {
  if (!plan || plan->owner_ != owner) return InvalidArgument("replay: the plan belongs to another backend");
  const StepTable& table = plan->table_;
  if (table.rows >= 0 && table.rows <= table.max_rows() && table.lanes >= 0 && table.lanes <= table.max_lanes()) return Ok();
  return InvalidArgument("replay: a step of " + std::to_string(table.rows) + " rows and " + std::to_string(table.lanes) +
                         " lanes, where the plan serves " + std::to_string(table.max_rows()) + " and " + std::to_string(table.max_lanes()));
}

}  // namespace reprise
