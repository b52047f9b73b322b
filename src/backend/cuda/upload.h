// Uploads: the binding table on its way to the device.
//
// Before each replay the step's rows and lanes are written into pinned memory and copied to where the kernels look for them: one small
// asynchronous copy. The extents of a lane are copied only from the first entry that changed: a decode step brings none or one, a restore the
// history that differs. Pinned memory goes round in a ring, and a piece of it is not written again before its copy has run.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "backend/cuda/device.h"
#include "exec/step_table.h"

namespace reprise::cuda {

class Uploads {
 public:
  static constexpr int kMarks = 4;  // of the device, from 0

  explicit Uploads(Device& device) : device_(device) {}

  // Where the kernels of plans over `table` find it. Allocates on the first call for a table.
  Result<StepView> View(const StepTable& table);
  // Copies the table's contents there. Allocates nothing.
  Status Bind(const StepTable& table);

 private:
  // A table's place on the device, and what is known to stand there.
  struct Place {
    std::byte* memory = nullptr;  // StepHeader, LaneEntry[max_lanes], RowEntry[max_rows]
    std::byte** extents = nullptr;
    std::vector<std::byte*> known;  // [max_lanes][kMostExtents]
  };
  static size_t LanesAt() { return sizeof(StepHeader); }
  static size_t RowsAt(const StepTable& table) { return LanesAt() + static_cast<size_t>(table.max_lanes()) * sizeof(LaneEntry); }

  Status BindExtents(Place& place, size_t lane, std::byte* const* extents, size_t count);
  // `bytes` of the ring, free to be written.
  Result<std::byte*> Take(size_t bytes);

  static constexpr size_t kPieceBytes = size_t{64} << 10;  // of extents, in one copy

  Device& device_;
  std::map<const StepTable*, Place> places_;
  std::byte* ring_[kMarks] = {};
  size_t ring_bytes_ = 0;  // of each of its parts
  size_t used_ = 0;        // of the present part
  int part_ = 0;
};

}  // namespace reprise::cuda
