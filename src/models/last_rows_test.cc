// A body of kHistory and the step of the last rows that follows it leave what a whole body leaves, and compute less.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "exec/step_table.h"
#include "models/network.h"
#include "models/synth.h"

namespace reprise {
namespace {

struct Shape {
  const char* name;
  bool mtp;
};

class LastRows : public testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Synthesize({GetParam().name, TensorType::kQ8_0, GetParam().mtp}, path_).ok());
    file_ = *GgufFile::Open(path_);
    network_ = *Network::Load(*file_, *backend_, layout_, {.max_rows = kMostRows, .max_lanes = kLanes});
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::unique_ptr<Plan> Capture(const StepTable& table, Body body) {
    return *backend_->Capture(table, [&](Ops& ops) { network_->RecordBody(ops, body); });
  }

  static constexpr int kLanes = 3, kMostRows = 40;
  const std::string path_ = testing::TempDir() + "reprise_last_rows_test.gguf";
  std::unique_ptr<Backend> backend_ = *MakeCpuBackend({.threads = 2});
  std::optional<GgufFile> file_;
  StateLayout layout_;
  std::unique_ptr<Network> network_;
};

// What three lanes hold: blocks in turns, and an extent each.
struct Lanes {
  std::vector<std::byte> blocks[2], rows;
  std::vector<std::byte*> extents;
  int position = 0;

  Lanes(const StateLayout& layout, int lanes) {
    for (auto& block : blocks) block.resize(layout.block_bytes(Space::kDevice) * static_cast<size_t>(lanes) + 64);
    rows.resize(layout.extent_bytes(Space::kDevice) * static_cast<size_t>(lanes) + 64);
    for (int i = 0; i < lanes; ++i) extents.push_back(Aligned(rows) + layout.extent_bytes(Space::kDevice) * static_cast<size_t>(i));
  }
  static std::byte* Aligned(std::vector<std::byte>& bytes) {
    return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
  }

  void Bind(StepTable& table, const StateLayout& layout, const std::vector<int>& lane_rows) {
    table.rows = 0;
    table.lanes = static_cast<int32_t>(lane_rows.size());
    std::swap(blocks[0], blocks[1]);
    for (size_t i = 0; i < lane_rows.size(); ++i) {
      const size_t at = layout.block_bytes(Space::kDevice) * i;
      table.lane[i] = {Aligned(blocks[0]) + at, Aligned(blocks[1]) + at, &extents[i], table.rows, lane_rows[i], position};
      for (int r = 0; r < lane_rows[i]; ++r, ++table.rows) {
        const auto row = static_cast<size_t>(table.rows);
        table.row_lane[row] = static_cast<int32_t>(i);
        table.row_position[row] = position + r;
        table.token[row] = static_cast<int32_t>((row * 37 + static_cast<size_t>(position) * 11) % 512);
      }
    }
  }
};

TEST_P(LastRows, LeaveWhatAWholeBodyLeaves) {
  StepTable table(kMostRows, kLanes), last(kLanes, kLanes);
  const auto whole = Capture(table, Body::kWhole), history = Capture(table, Body::kHistory);
  const auto rest = *backend_->Capture(last, [&](Ops& ops) { network_->RecordLastRows(ops); });
  EXPECT_LT(history->launches(), whole->launches());
  EXPECT_EQ(rest->launches() == 0, GetParam().mtp);  // which reads every hidden row

  Lanes a(layout_, kLanes), b(layout_, kLanes);
  const std::pair<int, std::vector<int>> steps[] = {{0, {17, 1, 9}}, {20, {2, 20, 3}}, {40, {1, 1, 1}}, {41, {5, 2, 20}}};
  for (const auto& [position, lane_rows] : steps) {
    a.position = b.position = position;  // of all lanes; rows between a lane's last and the next step's first stay zero
    a.Bind(table, layout_, lane_rows);
    ASSERT_TRUE(backend_->stream().Replay(*whole).ok());
    b.Bind(table, layout_, lane_rows);
    ASSERT_TRUE(backend_->stream().Replay(*history).ok());
    last.TakeLastRows(table);
    ASSERT_TRUE(backend_->stream().Replay(*rest).ok());
    const size_t block_bytes = layout_.block_bytes(Space::kDevice) * kLanes;
    EXPECT_EQ(std::memcmp(Lanes::Aligned(a.blocks[1]), Lanes::Aligned(b.blocks[1]), block_bytes), 0) << "after " << position;
    EXPECT_EQ(std::memcmp(Lanes::Aligned(a.rows), Lanes::Aligned(b.rows), layout_.extent_bytes(Space::kDevice) * kLanes), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, LastRows,
                         testing::Values(Shape{"tiny", false}, Shape{"tiny", true}, Shape{"tiny-llama", false}, Shape{"tiny-qwen2", false},
                                         Shape{"tiny-qwen3", false}, Shape{"tiny-lfm2", false}, Shape{"tiny-granite", false},
                                         Shape{"tiny-gemma3", false}, Shape{"tiny-gemma4", false}, Shape{"tiny-qwen35moe", false},
                                         Shape{"tiny-qwen35moe", true}, Shape{"tiny-lfm2moe", false}, Shape{"tiny-qwen3next", false},
                                         Shape{"tiny-qwen3next", true}, Shape{"tiny-falcon-h1", false}, Shape{"tiny-nemotron", false},
                                         Shape{"tiny-nemotron-moe", false}, Shape{"tiny-jamba", false}),
                         [](const auto& shape) {
                           std::string name = shape.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + (shape.param.mtp ? "_mtp" : "");
                         });

}  // namespace
}  // namespace reprise
