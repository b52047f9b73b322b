// Hostile capsule files (docs/capsule_format.md). Whatever the reader accepts must be written again as the same bytes, whatever it refuses must
// leave the pools as they were, and nothing may read past its input. A mutation step repairs sizes and checksums, so that the fuzzer spends its
// time behind them.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include "capsule/capsule_file_editor.h"
#include "exec/lane.h"
#include "exec/memory.h"
#include "exec/state_space.h"
#include "reprise/capsule.h"

namespace {

using namespace reprise;
using testing_support::CapsuleFile;

void Require(bool condition) {
  if (!condition) std::abort();
}

const std::shared_ptr<StateSpace>& TheSpace() {
  static const std::shared_ptr<StateSpace> space = [] {
    StateLayout layout;
    layout.Recurrent("r", ElementType::kF32, {2, 3});
    layout.Append("k", ElementType::kF16, {3});
    layout.Recurrent("g", ElementType::kI64, {}, Space::kHost);
    layout.Append("t", ElementType::kI32, {}, Space::kHost);
    return *StateSpace::Create(std::move(layout), {.lanes = 1, .capsules = 3, .rows = 256, .max_position = 200},
                               FingerprintBuilder().Add("name", "fuzz").Finish(), std::make_shared<HostMemory>());
  }();
  return space;
}

std::vector<std::byte> Seed(int position) {
  auto lane = *TheSpace()->NewLane();
  if (position > 0) {
    Require(lane->Begin(position).ok());
    std::memset(lane->write(Space::kDevice), position, TheSpace()->layout().block_bytes(Space::kDevice));
    lane->Commit();
  }
  return *Capsule::Take(*lane).Serialize("seed");
}

// A number that is often at an edge.
uint64_t Edge(std::minstd_rand& random, uint64_t near) {
  const uint64_t edges[] = {0,
                            1,
                            near - 1,
                            near + 1,
                            63,
                            64,
                            65,
                            255,
                            257,
                            4097,
                            uint64_t{1} << 31,
                            uint64_t{1} << 32,
                            uint64_t{1} << 40,
                            uint64_t{1} << 63,
                            ~uint64_t{0},
                            ~uint64_t{0} - 63,
                            random()};
  return edges[random() % std::size(edges)];
}

void Mutate(CapsuleFile& file, std::minstd_rand& random) {
  if (file.states.empty()) return;
  CapsuleFile::State& state = file.states[random() % file.states.size()];
  switch (random() % 16) {
    case 0: state.name = std::string(random() % 300, static_cast<char>('a' + random() % 26)); break;
    case 1: state.growth = static_cast<uint32_t>(random() % 3); break;
    case 2: state.space = static_cast<uint32_t>(random() % 3); break;
    case 3: state.type = static_cast<uint32_t>(random() % 6); break;
    case 4: state.shape.resize(random() % 10, 1); break;
    case 5:
      if (!state.shape.empty()) state.shape[random() % state.shape.size()] = static_cast<int64_t>(Edge(random, 3));
      break;
    case 6: state.payload.resize(random() % 600); break;
    case 7: state.payload_bytes_override = Edge(random, state.payload.size()); break;
    case 8: state.name_bytes_override = static_cast<uint32_t>(Edge(random, state.name.size())); break;
    case 9: state.dimensions_override = static_cast<uint32_t>(Edge(random, state.shape.size())); break;
    case 10: file.position = random() % 2 == 0 ? random() % 220 : Edge(random, file.position); break;
    case 11: file.count_override = static_cast<uint32_t>(Edge(random, file.states.size())); break;
    case 12: file.metadata.resize(random() % 70000); break;
    case 13: file.tail.resize(random() % 130); break;
    case 14: std::swap(state, file.states[random() % file.states.size()]); break;
    case 15: {
      // Another position, and rows to go with it: such a file is a good one.
      file.position = random() % 200;
      for (auto& one : file.states) {
        if (one.growth != 1) continue;
        const int index = TheSpace()->layout().Find(one.name);
        if (index >= 0) one.payload.resize(file.position * TheSpace()->layout()[index].bytes);
      }
      break;
    }
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  const auto copy_out = [&](const std::vector<std::byte>& bytes) -> size_t {
    if (bytes.size() > max_size) return size;
    std::memcpy(data, bytes.data(), bytes.size());
    return bytes.size();
  };
  const auto bytes = std::as_bytes(std::span(data, size));
  auto file = CapsuleFile::Split(bytes);
  if (!file.has_value() || random() % 64 == 0) return copy_out(Seed(static_cast<int>(random() % 201)));
  if (random() % 4 == 0) {
    // Raw damage, and then the checksums made right where the shape still admits it.
    size = LLVMFuzzerMutate(data, size, max_size);
    if (random() % 2 == 0) return size;
    file = CapsuleFile::Split(std::as_bytes(std::span(data, size)));
    return file.has_value() ? copy_out(file->Join()) : size;
  }
  for (unsigned i = 0; i <= random() % 3; ++i) Mutate(*file, random);
  return copy_out(file->Join());
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::shared_ptr<StateSpace>& space = TheSpace();
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto before = space->usage();
  auto summary = SummariseCapsule(bytes);
  {
    std::string metadata;
    auto capsule = DeserializeCapsule(bytes, space, &metadata);
    if (!summary.ok()) Require(!capsule.ok());
    if (capsule.ok()) {
      Require(summary->position == capsule->position());
      const auto again = capsule->Serialize(metadata);
      Require(again.ok() && again->size() == bytes.size() && std::memcmp(again->data(), bytes.data(), bytes.size()) == 0);
      auto lane = *space->NewLane();
      Require(capsule->RestoreTo(*lane).ok());
      if (lane->position() < space->max_position()) {
        Require(lane->Begin(1).ok());
        lane->Commit();
      }
    } else {
      Require(!capsule.status().message().empty());
      for (const char c : capsule.status().message()) Require(c >= ' ' && c < 127);
    }
  }
  const auto after = space->usage();
  Require(before.blocks[0] == after.blocks[0] && before.blocks[1] == after.blocks[1] && before.extents == after.extents);
  return 0;
}
