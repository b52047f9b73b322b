// For tests alone: a directory, toy executions whose state is a function of their tokens, and what a tier must give back for them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "exec/lane.h"
#include "exec/state_test_support.h"
#include "store/disk_tier.h"

namespace reprise::testing_support {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    // In memory where that is to be had: what a sync costs is no part of these tests, and what it is worth is simulated.
    const std::filesystem::path shared = "/dev/shm";
    const bool in_memory = ::access(shared.c_str(), W_OK) == 0;
    std::string path = ((in_memory ? shared : std::filesystem::temp_directory_path()) / "reprise_store.XXXXXX").string();
    EXPECT_NE(::mkdtemp(path.data()), nullptr);
    path_ = path;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

inline std::shared_ptr<StateSpace> NewToySpace(std::string_view name = "toy") {
  return NewSpace(MixedLayout(), {.lanes = 2, .capsules = 40, .rows = 64 * 200, .max_position = 2000}, name);
}

// `count` tokens: those of `path`, which differ between paths from `branch` on.
inline std::vector<int32_t> TokenPath(int32_t count, int32_t branch = 0, int32_t path = 0) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(i < branch ? i % 97 : (i * 7 + path * 131) % 1000);
  return tokens;
}

// The state after exactly `tokens`: a step a token, since a row depends on all before it.
inline Capsule Toy(StateSpace& space, const std::vector<int32_t>& tokens) {
  auto lane = space.NewLane();
  EXPECT_TRUE(lane.ok()) << lane.status().message();
  for (const int32_t token : tokens) EXPECT_TRUE(StepLane(**lane, 1, static_cast<uint64_t>(token) + 1).ok());
  return Capsule::Take(**lane);
}

inline std::vector<std::byte> BytesOf(const Capsule& capsule) {
  auto bytes = capsule.Serialize();
  EXPECT_TRUE(bytes.ok()) << bytes.status().message();
  return bytes.ok() ? *std::move(bytes) : std::vector<std::byte>();
}

inline std::unique_ptr<DiskTier> OpenTier(const std::string& directory, const DiskOptions& options = {}) {
  auto files = FileSystem::Open(directory, options.read_only);
  EXPECT_TRUE(files.ok()) << files.status().message();
  if (!files.ok()) return nullptr;
  auto tier = DiskTier::Open(*files, options);
  EXPECT_TRUE(tier.ok()) << tier.status().message();
  return tier.ok() ? *std::move(tier) : nullptr;
}

inline Result<int64_t> PutToy(DiskTier& tier, const std::vector<int32_t>& tokens, const Capsule& capsule, const DiskNote& note = {},
                              std::string_view name_space = "ns") {
  std::vector<int64_t> evicted;
  return tier.Put(name_space, tokens, capsule, note, evicted);
}

}  // namespace reprise::testing_support
