// StepTable: the small binding table through which captured kernels find the state of the lanes they serve.
//
// A plan is captured once, over fixed addresses. What changes from step to step (which lanes, which rows, where their state lies) is in this
// table, which itself has a fixed address. Switching a lane's state therefore never touches a plan.
//
// One step serves `lanes` lanes with `rows` rows in all. Lane i owns the consecutive rows [lane[i].first_row, lane[i].first_row +
// lane[i].rows); row r of the step is position row_position[r] of lane row_lane[r]. Lanes may bring different numbers of rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace reprise {

struct LaneBinding {
  const std::byte* read = nullptr;      // device part of the state block before the step; never written
  std::byte* write = nullptr;           // device part of the block after the step; a kernel must write each state it owns in full
  std::byte* const* extents = nullptr;  // device part of extent e holds rows [e * kExtentRows, (e + 1) * kExtentRows)
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t position = 0;  // of the lane's first row; rows [0, position) of its extents are history
  // Of the lane's ReplayLog; without rows: none.
  std::byte* log = nullptr;
  int32_t log_capacity = 0;
  size_t log_row_bytes = 0;
};

struct StepTable {
  StepTable(int max_rows, int max_lanes)
      : lane(static_cast<size_t>(max_lanes)),
        row_lane(static_cast<size_t>(max_rows)),
        row_position(static_cast<size_t>(max_rows)),
        token(static_cast<size_t>(max_rows)) {}
  StepTable(const StepTable&) = delete;
  StepTable& operator=(const StepTable&) = delete;

  // Becomes the step of one row a lane that has the last row of each lane of `step`, none of which is without rows. `token` stays as it is.
  void TakeLastRows(const StepTable& step);

  int max_rows() const { return static_cast<int>(token.size()); }
  int max_lanes() const { return static_cast<int>(lane.size()); }

  int32_t rows = 0;
  int32_t lanes = 0;
  std::vector<LaneBinding> lane;  // sized once; kernels hold its address
  std::vector<int32_t> row_lane;
  std::vector<int32_t> row_position;
  std::vector<int32_t> token;
};

inline void StepTable::TakeLastRows(const StepTable& step) {
  rows = lanes = step.lanes;
  for (int32_t i = 0; i < lanes; ++i) {
    const auto at = static_cast<size_t>(i);
    lane[at] = step.lane[at];
    lane[at].first_row = row_lane[at] = i;
    lane[at].rows = 1;
    lane[at].position = row_position[at] = step.lane[at].position + step.lane[at].rows - 1;
  }
}

}  // namespace reprise
