// For tests of the forms that a file may have: a model of tensors that stand here, and what it computes of a few tokens.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "exec/step_table.h"
#include "formats/gguf_writer.h"
#include "models/network.h"

namespace reprise {

struct TestTensor {
  std::vector<uint64_t> dims;
  std::vector<float> values;
};
using TestTensors = std::map<std::string, TestTensor>;

inline void AddRandom(TestTensors& tensors, std::mt19937& random, const std::string& name, std::vector<uint64_t> dims) {
  std::normal_distribution<float> normal(0.0f, 0.3f);
  size_t elements = 1;
  for (const uint64_t dim : dims) elements *= dim;
  TestTensor& tensor = tensors[name];
  tensor.dims = std::move(dims);
  for (size_t i = 0; i < elements; ++i) tensor.values.push_back(normal(random));
}
inline uint64_t Elements(const TestTensors& tensors) {
  uint64_t elements = 0;
  for (const auto& [name, tensor] : tensors) elements += tensor.values.size();
  return elements;
}

// The hidden rows of nine tokens; `out` holds the metadata. `info`: of the network, where it is asked for.
inline std::vector<float> HiddenRows(GgufWriter out, const TestTensors& tensors, NetworkInfo* info = nullptr) {
  const std::string path = testing::TempDir() + "reprise_hidden_rows_test.gguf";
  for (const auto& [name, tensor] : tensors) out.Tensor(name, TensorType::kF32, tensor.dims);
  auto stream = out.WriteTo(path);
  EXPECT_TRUE(stream.ok()) << stream.status().message();
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(stream->Append(std::as_bytes(std::span(tensor.values))).ok());
  EXPECT_TRUE(stream->Finish().ok());

  constexpr int kRows = 9;
  const auto file = *GgufFile::Open(path);
  std::filesystem::remove(path);
  const auto backend = *MakeCpuBackend({.threads = 2});
  StateLayout layout;
  const auto network = Network::Load(file, *backend, layout, {.max_rows = kRows, .max_lanes = 1, .kv_type = ElementType::kF32});
  EXPECT_TRUE(network.ok()) << network.status().message();
  if (!network.ok()) return {};
  EXPECT_EQ((*network)->info().parameters, Elements(tensors));
  if (info) *info = (*network)->info();
  StepTable table(kRows, 1);
  const auto plan = *backend->Capture(table, [&](Ops& ops) { (*network)->RecordBody(ops, Body::kWhole); });
  std::byte* const read = *backend->Allocate(layout.block_bytes(Space::kDevice), "read");
  std::byte* const write = *backend->Allocate(layout.block_bytes(Space::kDevice), "write");
  std::byte* extent = *backend->Allocate(layout.extent_bytes(Space::kDevice), "extent");
  table.rows = kRows;
  table.lanes = 1;
  table.lane[0] = {read, write, &extent, 0, kRows, 0};
  const int vocabulary = (*network)->info().vocabulary;
  for (int r = 0; r < kRows; ++r) {
    table.row_lane[static_cast<size_t>(r)] = 0;
    table.row_position[static_cast<size_t>(r)] = r;
    table.token[static_cast<size_t>(r)] = r * 7 % vocabulary;
  }
  EXPECT_TRUE(backend->stream().Replay(*plan).ok());
  const Rows hidden = (*network)->hidden();
  return {hidden.data, hidden.data + kRows * hidden.stride};
}

}  // namespace reprise
