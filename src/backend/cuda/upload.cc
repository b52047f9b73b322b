#include "backend/cuda/upload.h"

#include <algorithm>
#include <cstring>

namespace reprise::cuda {

Result<StepView> Uploads::View(const StepTable& table) {
  Place& place = places_[&table];
  const auto lanes = static_cast<size_t>(table.max_lanes());
  const size_t bytes = RowsAt(table) + static_cast<size_t>(table.max_rows()) * sizeof(RowEntry);
  // A table that is gone may have left its address to another, so what is known is forgotten.
  if (place.known.size() != lanes * kMostExtents || place.memory == nullptr) {
    place = {};
    REPRISE_ASSIGN_OR_RETURN(std::byte * extents, device_.Allocate(lanes * kMostExtents * sizeof(std::byte*), "extent tables"));
    place.extents = reinterpret_cast<std::byte**>(extents);
    place.known.resize(lanes * kMostExtents);
    REPRISE_ASSIGN_OR_RETURN(place.memory, device_.Allocate(bytes, "binding table"));
    const size_t wanted = std::max(bytes, 4 * kPieceBytes);
    if (ring_bytes_ < wanted) {
      REPRISE_RETURN_IF_ERROR(device_.Synchronize());
      for (std::byte*& part : ring_) {
        REPRISE_ASSIGN_OR_RETURN(part, device_.AllocatePinned(wanted, "bindings under way"));
      }
      ring_bytes_ = wanted;
      used_ = 0;
    }
  }
  return StepView{reinterpret_cast<const StepHeader*>(place.memory), reinterpret_cast<const LaneEntry*>(place.memory + LanesAt()),
                  reinterpret_cast<const RowEntry*>(place.memory + RowsAt(table)), place.extents};
}

Result<std::byte*> Uploads::Take(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (used_ + bytes > ring_bytes_) {
    REPRISE_RETURN_IF_ERROR(device_.Mark(part_));
    part_ = (part_ + 1) % kMarks;
    REPRISE_RETURN_IF_ERROR(device_.WaitFor(part_));
    used_ = 0;
  }
  return ring_[part_] + std::exchange(used_, used_ + bytes);
}

Status Uploads::BindExtents(Place& place, size_t lane, std::byte* const* extents, size_t count) {
  std::byte** known = place.known.data() + lane * kMostExtents;
  const auto first = static_cast<size_t>(std::mismatch(extents, extents + count, known).first - extents);
  for (size_t at = first; at < count;) {
    const size_t piece = std::min(count - at, kPieceBytes / sizeof(std::byte*));
    REPRISE_ASSIGN_OR_RETURN(std::byte * pinned, Take(piece * sizeof(std::byte*)));
    std::memcpy(pinned, extents + at, piece * sizeof(std::byte*));
    std::memcpy(known + at, extents + at, piece * sizeof(std::byte*));
    REPRISE_RETURN_IF_ERROR(
        device_.Copy(reinterpret_cast<std::byte*>(place.extents + lane * kMostExtents + at), pinned, piece * sizeof(std::byte*)));
    at += piece;
  }
  return Ok();
}

Status Uploads::Bind(const StepTable& table) {
  const auto found = places_.find(&table);
  if (found == places_.end()) return InvalidArgument("replay: no plan was captured for this table");
  Place& place = found->second;
  const size_t bytes = RowsAt(table) + static_cast<size_t>(table.rows) * sizeof(RowEntry);
  REPRISE_ASSIGN_OR_RETURN(std::byte * pinned, Take(bytes));
  auto* header = reinterpret_cast<StepHeader*>(pinned);
  auto* lanes = reinterpret_cast<LaneEntry*>(pinned + LanesAt());
  auto* rows = reinterpret_cast<RowEntry*>(pinned + RowsAt(table));
  *header = {table.rows, table.lanes, 0, {}};
  for (size_t i = 0; i < static_cast<size_t>(table.lanes); ++i) {
    const LaneBinding& lane = table.lane[i];
    lanes[i] = {lane.read, lane.write, lane.first_row, lane.rows, lane.position, lane.log_capacity, lane.log, lane.log_row_bytes};
    if (lane.rows > 0) header->blocks = std::max(header->blocks, (lane.position + lane.rows - 1) / kAttentionBlock + 1);
  }
  for (size_t i = 0; i < static_cast<size_t>(table.rows); ++i) rows[i] = {table.row_lane[i], table.row_position[i], table.token[i], 0};
  REPRISE_RETURN_IF_ERROR(device_.Copy(place.memory, pinned, bytes));
  for (size_t i = 0; i < static_cast<size_t>(table.lanes); ++i) {
    const LaneBinding& lane = table.lane[i];
    if (lane.extents == nullptr || lane.rows == 0) continue;
    const auto count = static_cast<size_t>(lane.position + lane.rows - 1) / kExtentRows + 1;
    if (count > kMostExtents) return InvalidArgument("replay: a context of more than 2^20 positions");
    REPRISE_RETURN_IF_ERROR(BindExtents(place, i, lane.extents, count));
  }
  return Ok();
}

}  // namespace reprise::cuda
