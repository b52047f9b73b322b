// For tests of what becomes one launch in steps of few rows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "backend/cpu/cpu_rig.h"
#include "backend/cuda/cuda_plan.h"

namespace reprise {

// Every way of cutting `job`, one row at a time among them, gives the same bits on each device (RunOnDevices); here also that they are near the CPU's.
inline void CheckFused(const Job& job, uint32_t seed, double tolerance) {
  int rows = 0;
  for (int n : job.lane_rows) rows += n;
  const auto outcomes = RunEveryWay(job, RandomFloats(static_cast<size_t>(rows) * static_cast<size_t>(job.in), seed), seed);
  const Outcome& wanted = outcomes.front();
  for (const Outcome& got : outcomes) {
    for (size_t lane = 0; lane < wanted.out.size(); ++lane) {
      double top = 0, apart = 0;
      for (size_t i = 0; i < wanted.out[lane].size(); ++i) {
        top = std::max(top, std::abs(double{wanted.out[lane][i]}));
        apart = std::max(apart, std::abs(double{wanted.out[lane][i]} - double{got.out[lane][i]}));
      }
      EXPECT_LE(apart, tolerance * top) << got.numerics;
    }
  }
}

// How many launches a step has that `record` makes of some rows.
class LaunchCounter {
 public:
  static constexpr int kWidth = 128, kMost = 16;  // a row; rows of a step
  explicit LaunchCounter(Backend& backend)
      : backend_(backend), x_(reinterpret_cast<float*>(*backend.Allocate(size_t{6} * kMost * kWidth * sizeof(float), "rows"))) {}

  Rows rows(int n) const { return Rows{x_ + n * kMost * kWidth, kWidth, kWidth, Domain::kRows}; }  // n: 0 to 5
  // Of a step of so many rows; `of_many`: how many fewer than recorded those of many rows are.
  size_t operator()(const std::function<void(Ops&)>& record, int step_rows = 1, size_t of_many = 0) {
    auto plan = backend_.Capture(table_, record);
    EXPECT_TRUE(plan.ok()) << plan.status().message();
    const auto& captured = static_cast<const cuda::CudaPlan&>(**plan);
    EXPECT_EQ(captured.launches(kMost, 1) + of_many, captured.launches());
    return captured.launches(step_rows, 1);
  }

 private:
  Backend& backend_;
  StepTable table_{kMost, 2};
  float* const x_;
};

}  // namespace reprise
