#include "backend/cuda/cuda_plan.h"

#include "backend/cuda/fuse.h"

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
  rows_ = RowBuckets(table().max_rows());
  lanes_ = LaneBuckets(table().max_lanes());
  for (const int rows : rows_) {
    for (const int lanes : lanes_) {
      const Bucket bucket{rows, lanes, device.multiprocessors()};
      std::vector<Launch> launches = Fuse(array, bucket);
      std::erase_if(launches, [&](const Launch& launch) { return launch.grid(launch.args, bucket).x == 0; });
      REPRISE_ASSIGN_OR_RETURN(auto graph, device.Instantiate(launches, bucket));
      graphs_.push_back({std::move(graph), launches.size()});
    }
  }
  return Ok();
}

const CudaPlan::Bucketed& CudaPlan::Of(int rows, int lanes) const {
  size_t row = 0, lane = 0;
  while (rows_[row] < rows) ++row;
  while (lanes_[lane] < lanes) ++lane;
  return graphs_[row * lanes_.size() + lane];
}

}  // namespace reprise::cuda
