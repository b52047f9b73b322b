// For tests alone: a TieredStore on digest executions, and what it costs.
#pragma once

#include <memory>
#include <utility>

#include "store/capsule_store.h"
#include "store/store_test_support.h"

namespace reprise::testing_support {

inline Path Tokens(int count, int seed = 0) {
  Path path;
  for (int i = 0; i < count; ++i) path.push_back(static_cast<int32_t>((int64_t{seed} * 1000003 + i * 7 + i * i) % 50000));
  return path;
}
inline Path Joined(Path a, const Path& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline std::shared_ptr<CapsuleStore> NewStore(const std::shared_ptr<StateSpace>& space, uint64_t budget = 1 << 30,
                                              std::shared_ptr<FakeDisk::Shared> disk = nullptr, double delay = 1000, double tip_delay = 0) {
  auto store = TieredStore::Make({.memory_budget = budget, .directory = disk ? "fake" : "", .write_delay = delay, .tip_delay = tip_delay},
                                 space, disk ? std::make_unique<FakeDisk>(disk) : nullptr);
  EXPECT_TRUE(store.ok()) << store.status().message();
  return *std::move(store);
}

inline uint64_t Put(CapsuleStore& store, const std::shared_ptr<StateSpace>& space, const Path& path, CapsuleStore::PutOptions options,
                    std::string_view name_space = "") {
  const auto found = store.FindDeepest(name_space, path);
  auto id = store.Put(name_space, path, CapsuleAt(space, path, found.capsule), options);
  EXPECT_TRUE(id.ok()) << id.status().message();
  return *id;
}

// Bytes of the pools that are in use by nobody but the store.
inline uint64_t InPools(StateSpace& space) {
  auto lane = space.NewLane();  // whatever a lane holds, it is the origin
  return space.usage().bytes - space.layout().block_bytes(Space::kDevice) - space.layout().block_bytes(Space::kHost);
}

inline uint64_t BlockBytes(const StateSpace& space) {
  return space.layout().block_bytes(Space::kDevice) + space.layout().block_bytes(Space::kHost);
}
inline uint64_t ExtentBytes(const StateSpace& space) {
  return space.layout().extent_bytes(Space::kDevice) + space.layout().extent_bytes(Space::kHost);
}

}  // namespace reprise::testing_support
