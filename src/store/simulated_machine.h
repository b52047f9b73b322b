// For tests alone: a machine with a simulated disk, on which a tier runs.
#pragma once

#include <memory>

#include "store/disk_tier.h"
#include "store/simulated_vfs.h"

namespace reprise::testing_support {

class Machine {
 public:
  explicit Machine(SimulatedDisk& disk) : vfs_(disk), files_(std::make_shared<SimulatedFileSystem>(disk, vfs_.name())) {}
  Result<std::unique_ptr<DiskTier>> Open(const DiskOptions& options = {}) { return DiskTier::Open(files_, options); }

 private:
  SimulatedVfs vfs_;
  std::shared_ptr<SimulatedFileSystem> files_;
};

}  // namespace reprise::testing_support
