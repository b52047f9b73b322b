// For tests alone: a toy execution whose step mixes every state with every row, and a naive model of it that copies everything.
#pragma once

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "exec/lane.h"
#include "exec/state_space.h"

namespace reprise::testing_support {

// Every kind of state in both spaces, with sizes that leave padding.
inline StateLayout MixedLayout() {
  StateLayout layout;
  layout.Recurrent("a.matrix", ElementType::kF32, {3, 5});
  layout.Append("a.keys", ElementType::kF16, {6});
  layout.Recurrent("sampler.generator", ElementType::kI64, {2}, Space::kHost);
  layout.Recurrent("a.tail", ElementType::kBytes, {7});
  layout.Append("a.values", ElementType::kBytes, {5});
  layout.Append("history", ElementType::kI32, {}, Space::kHost);
  layout.Recurrent("stop.matched", ElementType::kBytes, {13}, Space::kHost);
  return layout;
}

inline StateLayout RecurrentLayout() {
  StateLayout layout;
  layout.Recurrent("h", ElementType::kF32, {4});
  return layout;
}

inline StateLayout AppendLayout() {
  StateLayout layout;
  layout.Append("rows", ElementType::kI64, {1});
  return layout;
}

inline StateLayout HostLayout() {
  StateLayout layout;
  layout.Recurrent("world", ElementType::kBytes, {33}, Space::kHost);
  layout.Append("log", ElementType::kBytes, {3}, Space::kHost);
  return layout;
}

inline Fingerprint TestFingerprint(std::string_view name = "toy") { return FingerprintBuilder().Add("name", name).Finish(); }

inline std::shared_ptr<StateSpace> NewSpace(StateLayout layout, StateSpaceOptions options, std::string_view name = "toy") {
  auto space = StateSpace::Create(std::move(layout), options, TestFingerprint(name), std::make_shared<HostMemory>());
  EXPECT_TRUE(space.ok()) << space.status().message();
  for (int i = 0; i < static_cast<int>((*space)->layout().states().size()); ++i) {
    int n = i;
    for (std::byte& b : (*space)->origin(i)) b = static_cast<std::byte>(n += 37);
  }
  return *std::move(space);
}

// Everything that an execution remembers, by value.
struct Model {
  std::vector<std::vector<std::byte>> states;  // recurrent: the whole; append-only: every row
  int32_t position = 0;
  bool operator==(const Model&) const = default;
};

inline Model OriginModel(StateSpace& space) {
  Model model;
  for (int i = 0; i < static_cast<int>(space.layout().states().size()); ++i) {
    const auto origin = space.origin(i);
    model.states.emplace_back(origin.begin(), origin.end());
  }
  return model;
}

inline uint64_t Mix(uint64_t h, const std::byte* bytes, size_t count) { return XXH3_64bits_withSeed(bytes, count, h); }

inline void Expand(uint64_t h, size_t state, std::byte* to, size_t count) {
  h += state * 0x9e3779b97f4a7c15u;
  for (size_t i = 0; i < count; ++i) {
    if (i % 8 == 0) h = XXH3_64bits_withSeed(&h, sizeof(h), i);
    to[i] = static_cast<std::byte>(h >> (i % 8 * 8));
  }
}

inline void StepModel(const StateLayout& layout, Model& model, int rows, uint64_t seed) {
  for (int r = 0; r < rows; ++r) {
    uint64_t h = seed + static_cast<uint64_t>(r);
    for (size_t i = 0; i < model.states.size(); ++i) h = Mix(h, model.states[i].data(), model.states[i].size());
    for (size_t i = 0; i < model.states.size(); ++i) {
      const StateDecl& state = layout[static_cast<int>(i)];
      auto& bytes = model.states[i];
      if (state.growth == Growth::kAppend) bytes.resize(bytes.size() + state.bytes);
      Expand(h, i, bytes.data() + bytes.size() - state.bytes, state.bytes);
    }
    ++model.position;
  }
}

inline void HostStepModel(const StateLayout& layout, Model& model, uint64_t seed) {
  uint64_t h = seed;
  for (const auto& state : model.states) h = Mix(h, state.data(), state.size());
  for (size_t i = 0; i < model.states.size(); ++i) {
    const StateDecl& state = layout[static_cast<int>(i)];
    if (state.growth == Growth::kRecurrent && state.space == Space::kHost) Expand(h, i, model.states[i].data(), state.bytes);
  }
}

// As StepModel and HostStepModel read state, but from a lane: `recurrent` is the block of each space to read.
inline uint64_t MixLane(const Lane& lane, uint64_t h, const std::byte* const recurrent[kSpaces], int32_t position) {
  std::vector<std::byte> gathered;
  for (const StateDecl& state : lane.space().layout().states()) {
    if (state.growth == Growth::kRecurrent) {
      h = Mix(h, recurrent[static_cast<int>(state.space)] + state.offset, state.bytes);
      continue;
    }
    gathered.clear();
    for (int32_t p = 0; p < position; ++p) gathered.insert(gathered.end(), lane.row(state, p), lane.row(state, p) + state.bytes);
    h = Mix(h, gathered.data(), gathered.size());
  }
  return h;
}

// What a begun step may not rely on: the device part of the write block, and the rows that are its to write.
inline void Poison(Lane& lane, int rows) {
  std::memset(lane.write(Space::kDevice), 0xCC, lane.space().layout().block_bytes(Space::kDevice));
  for (const StateDecl& state : lane.space().layout().states()) {
    if (state.growth != Growth::kAppend) continue;
    for (int r = 0; r < rows; ++r) std::memset(lane.row(state, lane.position() + r), 0xCC, state.bytes);
  }
}

// The computation of a step that Begin(rows) has opened.
inline void ComputeStep(Lane& lane, int rows, uint64_t seed) {
  Poison(lane, rows);
  const std::byte* recurrent[kSpaces] = {lane.read(Space::kDevice), lane.read(Space::kHost)};
  for (int r = 0; r < rows; ++r) {
    const int32_t position = lane.position() + r;
    const uint64_t h = MixLane(lane, seed + static_cast<uint64_t>(r), recurrent, position);
    const auto states = lane.space().layout().states();
    for (size_t i = 0; i < states.size(); ++i) {
      std::byte* to = states[i].growth == Growth::kAppend ? lane.row(states[i], position) : lane.write(states[i].space) + states[i].offset;
      Expand(h, i, to, states[i].bytes);
    }
    for (int s = 0; s < kSpaces; ++s) recurrent[s] = lane.write(static_cast<Space>(s));
  }
}

// A tentative step: `rows` are begun and written, of which only the first `kept` are right and are committed.
inline Status TentativeStepLane(Lane& lane, int rows, int kept, uint64_t seed) {
  REPRISE_RETURN_IF_ERROR(lane.Begin(rows));
  Poison(lane, rows);
  ComputeStep(lane, kept, seed);
  lane.Commit(kept);
  return Ok();
}

inline Status StepLane(Lane& lane, int rows, uint64_t seed) {
  REPRISE_RETURN_IF_ERROR(lane.Begin(rows));
  ComputeStep(lane, rows, seed);
  lane.Commit();
  return Ok();
}

inline Status HostStepLane(Lane& lane, uint64_t seed) {
  REPRISE_RETURN_IF_ERROR(lane.BeginHost());
  const std::byte* recurrent[kSpaces] = {lane.read(Space::kDevice), lane.read(Space::kHost)};
  const uint64_t h = MixLane(lane, seed, recurrent, lane.position());
  const auto states = lane.space().layout().states();
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i].growth == Growth::kRecurrent && states[i].space == Space::kHost) {
      Expand(h, i, lane.write(Space::kHost) + states[i].offset, states[i].bytes);
    }
  }
  lane.Commit();
  return Ok();
}

inline Model ReadLane(const Lane& lane) {
  Model model;
  model.position = lane.position();
  for (const StateDecl& state : lane.space().layout().states()) {
    auto& bytes = model.states.emplace_back();
    if (state.growth == Growth::kRecurrent) {
      bytes.assign(lane.read(state.space) + state.offset, lane.read(state.space) + state.offset + state.bytes);
      continue;
    }
    for (int32_t p = 0; p < lane.position(); ++p) bytes.insert(bytes.end(), lane.row(state, p), lane.row(state, p) + state.bytes);
  }
  return model;
}

// Every block and extent that `held` (lanes, capsules and the origin, each once) reaches, with how many holds it should have. Says what is
// not as it should be; empty when the pools account for every hold.
inline std::string Unaccounted(StateSpace& space, const std::vector<const HeldState*>& held) {
  std::map<const StateBlock*, int> blocks[kSpaces];
  std::map<const Extent*, int> extents;
  for (const HeldState* one : held) {
    for (int s = 0; s < kSpaces; ++s) ++blocks[s][one->block[s].get()];
    const Extent* extent = one->tip.get();
    while (extent != nullptr && ++extents[extent] == 1) extent = extent->previous;
  }
  std::string wrong;
  const auto usage = space.usage();
  for (int s = 0; s < kSpaces; ++s) {
    if (usage.blocks[s] != static_cast<int>(blocks[s].size())) {
      wrong += "blocks in use " + std::to_string(usage.blocks[s]) + ", reachable " + std::to_string(blocks[s].size()) + "; ";
    }
    for (const auto& [block, holds] : blocks[s]) {
      if (block->holders.load() != holds)
        wrong += "a block has " + std::to_string(block->holders.load()) + " holders, not " + std::to_string(holds) + "; ";
    }
  }
  if (usage.extents != static_cast<int>(extents.size())) {
    wrong += "extents in use " + std::to_string(usage.extents) + ", reachable " + std::to_string(extents.size()) + "; ";
  }
  for (const auto& [extent, holds] : extents) {
    if (extent->holders.load() != holds)
      wrong += "an extent has " + std::to_string(extent->holders.load()) + " holders, not " + std::to_string(holds) + "; ";
  }
  return wrong;
}

inline bool SameUsage(const StateSpace::Usage& a, const StateSpace::Usage& b) {
  return a.blocks[0] == b.blocks[0] && a.blocks[1] == b.blocks[1] && a.extents == b.extents && a.bytes == b.bytes;
}

}  // namespace reprise::testing_support
