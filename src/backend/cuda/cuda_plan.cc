#include "backend/cuda/cuda_plan.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/checked.h"

namespace reprise::cuda {

std::vector<int> RowBuckets(int most) {
  std::vector<int> buckets;
  for (int rows : {1, 2, 4, 8, 32, 128, 512, 2048}) {
    if (rows < most) buckets.push_back(rows);
  }
  buckets.push_back(most);
  return buckets;
}

std::vector<int> LaneBuckets(int most) {
  std::vector<int> buckets;
  for (int lanes : {1, 8}) {
    if (lanes < most) buckets.push_back(lanes);
  }
  buckets.push_back(most);
  return buckets;
}

Status CudaPlan::Finish(Device& device) {
  rows_ = RowBuckets(table_.max_rows());
  lanes_ = LaneBuckets(table_.max_lanes());
  for (const int rows : rows_) {
    for (const int lanes : lanes_) {
      REPRISE_ASSIGN_OR_RETURN(auto graph, device.Instantiate(array, {rows, lanes, device.multiprocessors()}));
      graphs_.push_back(std::move(graph));
    }
  }
  return Ok();
}

const Graph& CudaPlan::Find(int rows, int lanes) const {
  size_t row = 0, lane = 0;
  while (rows_[row] < rows) ++row;
  while (lanes_[lane] < lanes) ++lane;
  return *graphs_[row * lanes_.size() + lane];
}

Result<std::byte*> Workspace::Slot(const std::string& name, size_t bytes) {
  auto& slot = slots_[name];
  if (!slot.first || slot.second < bytes) {
    REPRISE_ASSIGN_OR_RETURN(slot.first, device_.Allocate(bytes, "scratch of " + name));
    slot.second = bytes;
  }
  return slot.first;
}

Result<const uint64_t*> Workspace::Turns(const RopeSpec& rope) {
  const auto key = std::make_tuple(rope.dims, rope.base, rope.factors);
  if (const auto it = turns_.find(key); it != turns_.end()) return it->second;
  const auto half = static_cast<size_t>(rope.dims / 2);
  std::vector<float> factors(rope.factors ? half : 0);
  if (rope.factors) {
    REPRISE_RETURN_IF_ERROR(
        device_.Copy(reinterpret_cast<std::byte*>(factors.data()), reinterpret_cast<const std::byte*>(rope.factors), half * sizeof(float)));
    REPRISE_RETURN_IF_ERROR(device_.Synchronize());
  }
  std::vector<uint64_t> turns(half);
  for (size_t i = 0; i < half; ++i) {
    double frequency = std::pow(rope.base, -2.0 * static_cast<double>(i) / rope.dims);
    if (rope.factors) frequency /= static_cast<double>(factors[i]);
    const double turn = frequency / (2.0 * std::numbers::pi);
    if (!std::isfinite(turn)) return InvalidArgument("rope: frequency " + std::to_string(i) + " is not finite");
    const double scaled = std::ldexp(turn - std::floor(turn), 64);
    turns[i] = static_cast<uint64_t>(scaled < 18446744073709551615.0 ? scaled : 0.0);
  }
  REPRISE_ASSIGN_OR_RETURN(std::byte* const memory, device_.Allocate(half * sizeof(uint64_t), "rope frequencies"));
  REPRISE_RETURN_IF_ERROR(device_.Copy(memory, reinterpret_cast<const std::byte*>(turns.data()), half * sizeof(uint64_t)));
  REPRISE_RETURN_IF_ERROR(device_.Synchronize());
  return turns_[key] = reinterpret_cast<const uint64_t*>(memory);
}

}  // namespace reprise::cuda
