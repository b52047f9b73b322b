// Power is lost after every single operation of a history of puts, removals, evictions, updates, a sweep and a reopening. Whatever the disk may then hold:
// what was acknowledged is listed, what is listed loads bit for bit, nothing is damaged, and what is left over is swept away.
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>

#include "store/disk_test_support.h"
#include "store/simulated_machine.h"

namespace reprise {
namespace {

using namespace testing_support;

// What may and what must be there, whenever the power goes.
struct Oracle {
  struct Life {
    size_t put_begun = 0;
    size_t put_done = SIZE_MAX;
    size_t gone = SIZE_MAX;  // when its removal began
    std::vector<int32_t> tokens;
    std::vector<std::byte> bytes;
  };
  std::map<uint64_t, Life> lives;  // by note.id

  std::string Wrong(DiskTier& tier, const std::shared_ptr<StateSpace>& space, size_t at) const {
    const auto list = tier.List(space->fingerprint());
    if (!list.ok()) return "cannot list: " + list.status().message();
    std::map<uint64_t, const DiskEntry*> listed;
    for (const DiskEntry& entry : *list) {
      listed[entry.note.id] = &entry;
      const auto life = lives.find(entry.note.id);
      if (life == lives.end() || life->second.put_begun > at) return "an entry is listed that was never put";
      if (entry.tokens != life->second.tokens) return "an entry is listed at another place";
      const auto capsule = tier.Load(entry.id, space, Capsule());
      if (!capsule.ok()) return "a listed entry does not load: " + capsule.status().message();
      if (BytesOf(*capsule) != life->second.bytes) return "a listed entry loads as something else";
    }
    for (const auto& [id, life] : lives) {
      if (life.put_done <= at && life.gone > at && !listed.contains(id)) return "entry " + std::to_string(id) + " is lost";
    }
    return "";
  }
};

// A session's history on `disk`.
void Live(SimulatedDisk& disk, const std::shared_ptr<StateSpace>& space, Oracle& oracle) {
  Machine machine(disk);
  uint64_t next = 1;
  std::map<uint64_t, int64_t> ids;
  std::unique_ptr<DiskTier> tier;
  const auto open = [&](uint64_t budget) {
    tier.reset();
    auto opened = machine.Open({.budget = budget});
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    tier = *std::move(opened);
  };
  const auto put = [&](std::vector<int32_t> tokens, DiskNote note) {
    const Capsule capsule = Toy(*space, tokens);
    note.id = next++;
    note.used = static_cast<int64_t>(note.id);  // so that the oldest goes first
    Oracle::Life& life = oracle.lives[note.id];
    life.put_begun = disk.history();
    life.tokens = tokens;
    life.bytes = BytesOf(capsule);
    for (auto& [id, other] : oracle.lives) {
      // Until the call returns any other entry may have been evicted; what stayed is told apart afterwards.
      if (id != note.id && other.gone == SIZE_MAX) other.gone = life.put_begun;
    }
    std::vector<int64_t> evicted;
    const auto id = tier->Put("ns", tokens, capsule, note, evicted);
    ASSERT_TRUE(id.ok()) << id.status().message();
    for (auto& [other_id, other] : oracle.lives) {
      const bool was = ids.contains(other_id) && std::find(evicted.begin(), evicted.end(), ids[other_id]) != evicted.end();
      if (other_id != note.id && other.gone == life.put_begun && !was) other.gone = SIZE_MAX;
      if (was) ids.erase(other_id);
    }
    life.put_done = disk.history();
    ids[note.id] = *id;
  };
  const auto remove = [&](uint64_t id) {
    oracle.lives[id].gone = disk.history();
    ASSERT_TRUE(tier->Remove(ids[id]).ok());
    ids.erase(id);
  };
  open(uint64_t{8} << 20);
  put(TokenPath(70, 1000), {.keep = Keep::kTurn, .metadata = "one"});
  put(TokenPath(100, 1000), {.keep = Keep::kReply});
  put(TokenPath(100, 80, 1), {.keep = Keep::kReply, .name = "kept", .pinned = true});
  put(TokenPath(30, 1000), {.name = "moves"});
  put(TokenPath(140, 100, 2), {.name = "moves"});
  remove(2);
  put(TokenPath(100, 1000), {.keep = Keep::kReply});  // the same place, and the same bytes under the same name
  ASSERT_TRUE(tier->Update(ids[1], {.metadata = "changed", .used = 50, .hits = 2}).ok());
  remove(5);
  remove(1);
  ASSERT_TRUE(tier->CollectGarbage().ok());
  open(uint64_t{8} << 20);
  put(TokenPath(20, 0, 5), {.keep = Keep::kPrompt});
  put({}, {.keep = Keep::kSystem});
  tier.reset();  // which empties the log
  open(uint64_t{8} << 20);
  open(tier->bytes() + 150000);  // room for the index's margin and one or two objects: from here on something has to go
  for (int32_t i = 0; i < 6; ++i) put(TokenPath(40 + i, 0, 10 + i), {.keep = Keep::kStride});
  size_t gone = 0;
  for (const auto& [id, life] : oracle.lives) gone += life.gone != SIZE_MAX ? 1 : 0;
  EXPECT_GT(gone, 4u) << "nothing was evicted";
  tier.reset();
}

// Empty when `disk`, found after a power cut, is as it should be.
std::string Inspect(SimulatedDisk& disk, const std::shared_ptr<StateSpace>& space, const Oracle& oracle, size_t at) {
  Machine machine(disk);
  {
    auto tier = machine.Open();
    if (!tier.ok()) return "cannot be opened: " + tier.status().message();
    if (const auto notices = (*tier)->TakeNotices(); !notices.empty()) return "a notice: " + notices[0];
    std::string wrong = oracle.Wrong(**tier, space, at);
    if (!wrong.empty()) return wrong;
    const auto report = (*tier)->Check();
    if (!report.ok()) return report.status().message();
    if (!report->faults.empty()) return "a fault: " + report->faults[0];
    if (!report->orphans.empty()) return "an orphan was left: " + report->orphans[0];
    for (const auto& [name, inode] : disk.names) {
      if (name.starts_with("tmp/")) return "a temporary file was left";
    }
    // It goes on working, and what it does now survives.
    const auto tokens = TokenPath(66, 60, 9);
    const auto capsule = Toy(*space, tokens);
    const auto id = PutToy(**tier, tokens, capsule, {.id = 1000});
    if (!id.ok()) return "cannot be put to: " + id.status().message();
    const auto loaded = (*tier)->Load(*id, space, Capsule());
    if (!loaded.ok() || BytesOf(*loaded) != BytesOf(capsule)) return "a new entry does not load";
  }
  return "";
}

TEST(Crash, PowerIsLostAfterEveryOperation) {
  SimulatedDisk disk;
  disk.Begin();
  const auto space = NewToySpace();
  Oracle oracle;
  Live(disk, space, oracle);
  ASSERT_FALSE(HasFailure());
  const auto start = std::chrono::steady_clock::now();
  const size_t operations = disk.history();
  using Loss = SimulatedDisk::Loss;
  int images = 0;
  // In an order that covers the whole history however soon time is up.
  std::vector<size_t> order(operations + 1);
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::minstd_rand random(1);
  std::shuffle(order.begin(), order.end(), random);
  for (const size_t at : order) {
    for (const Loss loss : {Loss::kEverythingUnsynced, Loss::kRandom, Loss::kNothing}) {
      if (std::chrono::steady_clock::now() - start > std::chrono::seconds(8)) break;
      auto image = disk.PowerCut(at, loss, static_cast<uint32_t>(at) * 3 + 1);
      const std::string wrong = Inspect(*image, space, oracle, at);
      ASSERT_EQ(wrong, "") << "power lost after operation " << at << " of " << operations << ", loss " << static_cast<int>(loss);
      ++images;
      // Power is lost again while the store recovers.
      if (at % 16 != 0 || loss != Loss::kRandom) continue;
      auto again = disk.PowerCut(at, loss, static_cast<uint32_t>(at) * 3 + 1);
      {
        Machine machine(*again);
        ASSERT_TRUE(machine.Open().ok());
      }
      for (size_t cut = 0; cut <= again->history(); cut += 1 + again->history() / 4) {
        auto second = again->PowerCut(cut, loss, static_cast<uint32_t>(cut + 7));
        ASSERT_EQ(Inspect(*second, space, oracle, at), "") << "power lost after operation " << at << ", and again after " << cut;
        ++images;
      }
    }
  }
  RecordProperty("images", images);
  std::printf("%d images of %zu operations\n", images, operations);
}

// That the test above sees anything: on a disk that does not sync what it says it has synced, it finds a loss.
TEST(Crash, AMissingSyncIsNoticed) {
  const auto space = NewToySpace();
  for (const std::string missing : {"tmp/", "objects/", "index.sqlite-wal"}) {
    SimulatedDisk disk;
    disk.Begin();
    disk.deaf = [&](const std::string& name) { return name.starts_with(missing); };
    Oracle oracle;
    Live(disk, space, oracle);
    ASSERT_FALSE(HasFailure());
    int noticed = 0;
    for (size_t at = 0; at <= disk.history() && noticed == 0; at += 7) {
      for (const SimulatedDisk::Loss loss : {SimulatedDisk::Loss::kEverythingUnsynced, SimulatedDisk::Loss::kRandom}) {
        const auto image = disk.PowerCut(at, loss, static_cast<uint32_t>(at));
        noticed += Inspect(*image, space, oracle, at).empty() ? 0 : 1;
      }
    }
    EXPECT_GT(noticed, 0) << "a missing sync of " << missing;
  }
}

}  // namespace
}  // namespace reprise
