// CapturedPlan: what a plan of any backend knows of its capture.
#pragma once

#include "exec/plan.h"
#include "exec/step_table.h"
#include "reprise/status.h"

namespace reprise {

class CapturedPlan : public Plan {
 public:
  const StepTable& table() const { return table_; }

  // Whether `owner` captured `plan` (null: no plan of its kind), and the step that its table holds is one that it serves.
  static Status CheckReplay(const CapturedPlan* plan, const void* owner);

 protected:
  CapturedPlan(const void* owner, const StepTable& table) : owner_(owner), table_(table) {}

 private:
  const void* owner_;
  const StepTable& table_;
};

}  // namespace reprise
