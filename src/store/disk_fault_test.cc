// The Nth call to the disk fails, for N = 1, 2, 3 ... until no fault fires: input and output errors, no space, writes that end half way; once, or from then on.
// An error is an error and nothing else: what is listed is right, during the trouble and after it, and when the disk works again so does the store.
#include <gtest/gtest.h>

#include <map>

#include "store/disk_test_support.h"
#include "store/simulated_machine.h"

namespace reprise {
namespace {

using namespace testing_support;

struct Toys {
  std::shared_ptr<StateSpace> space = NewToySpace();
  std::map<uint64_t, std::pair<std::vector<int32_t>, Capsule>> capsules;  // by note.id
  std::map<uint64_t, std::vector<std::byte>> bytes;

  Toys() {
    Add(1, TokenPath(70, 1000));
    Add(2, TokenPath(100, 1000));
    Add(3, TokenPath(90, 80, 1));
    Add(4, {});
    Add(5, TokenPath(130, 1000));
  }
  void Add(uint64_t id, std::vector<int32_t> tokens) {
    const Capsule capsule = Toy(*space, tokens);
    bytes[id] = BytesOf(capsule);
    capsules[id] = {std::move(tokens), capsule};
  }
};

// The entries that are listed, by note.id; what is wrong with them goes to `wrong`. Errors are fine while the disk fails.
std::map<uint64_t, int64_t> Look(DiskTier& tier, const Toys& toys, std::string& wrong, bool errors_are_fine) {
  std::map<uint64_t, int64_t> listed;
  const auto list = tier.List(toys.space->fingerprint());
  if (!list.ok()) {
    if (!errors_are_fine) wrong += "cannot list: " + list.status().message() + "; ";
    return listed;
  }
  for (const DiskEntry& entry : *list) {
    const auto toy = toys.capsules.find(entry.note.id);
    if (toy == toys.capsules.end() || toy->second.first != entry.tokens) {
      wrong += "an entry is listed that nobody put; ";
      continue;
    }
    listed[entry.note.id] = entry.id;
    const auto loaded = tier.Load(entry.id, toys.space, Capsule());
    if (loaded.ok() && BytesOf(*loaded) != toys.bytes.at(entry.note.id)) wrong += "an entry loads as something else; ";
    if (!loaded.ok() && (!errors_are_fine || loaded.status().code() == StatusCode::kCorrupt)) wrong += loaded.status().message() + "; ";
  }
  return listed;
}

struct Fate {
  Fault fault;
  bool lasting;
};

// One life of a store with a fault at the `n`th call. False when no fault fired.
bool LiveThrough(const Toys& toys, Fate fate, int n, std::string& wrong) {
  SimulatedDisk disk;
  Machine machine(disk);
  std::map<uint64_t, int64_t> acknowledged;
  {
    auto tier = machine.Open();
    if (!tier.ok()) {
      wrong = tier.status().message();
      return true;
    }
    for (const uint64_t id : {1u, 2u}) {
      const auto& [tokens, capsule] = toys.capsules.at(id);
      acknowledged[id] = *PutToy(**tier, tokens, capsule, {.id = id});
    }
  }
  int calls = 0;
  bool fired = false;
  disk.fault = [&](const char*, bool writes) {
    if (fate.fault != Fault::kIo && !writes) return Fault::kNone;
    ++calls;
    const bool fails = fate.lasting ? calls >= n : calls == n;
    fired |= fails;
    return fails ? fate.fault : Fault::kNone;
  };
  const auto check = [&](const Status& status, std::string_view what) {
    if (!status.ok() && !fired) wrong += std::string(what) + " failed without a fault: " + status.message() + "; ";
    if (status.code() == StatusCode::kCorrupt || status.code() == StatusCode::kInternal)
      wrong += std::string(what) + ": " + status.message() + "; ";
  };
  std::optional<uint64_t> maybe_gone;
  auto tier = machine.Open();
  check(tier.status(), "opening");
  if (tier.ok()) {
    for (const uint64_t id : {3u, 4u}) {
      const auto& [tokens, capsule] = toys.capsules.at(id);
      const auto put = PutToy(**tier, tokens, capsule, {.id = id, .name = id == 4 ? "origin" : ""});
      check(put.status(), "a put");
      if (put.ok()) acknowledged[id] = *put;
    }
    const Status removed = (*tier)->Remove(acknowledged[1]);
    check(removed, "a removal");
    maybe_gone = 1;
    if (removed.ok()) acknowledged.erase(1);
    check((*tier)->Update(acknowledged[2], {.metadata = "changed"}), "an update");
    (void)Look(**tier, toys, wrong, true);
    const auto report = (*tier)->Check();
    check(report.status(), "a check");
    const auto swept = (*tier)->CollectGarbage();
    check(swept.status(), "a sweep");
    const auto& [tokens, capsule] = toys.capsules.at(5);
    const auto put = PutToy(**tier, tokens, capsule, {.id = 5});
    check(put.status(), "a put");
    if (put.ok()) acknowledged[5] = *put;
    (void)Look(**tier, toys, wrong, true);
  }
  // The trouble is over; first for the store that lived through it, then for one that finds what it left.
  disk.fault = [](const char*, bool) { return Fault::kNone; };
  const auto settle = [&](DiskTier& living) {
    const auto listed = Look(living, toys, wrong, false);
    for (const auto& [id, index_id] : acknowledged) {
      if (!listed.contains(id) && id != maybe_gone) wrong += "entry " + std::to_string(id) + " was acknowledged and is lost; ";
    }
    const auto& [tokens, capsule] = toys.capsules.at(5);
    const auto put = PutToy(living, tokens, capsule, {.id = 5, .keep = Keep::kReply});
    if (!put.ok()) wrong += "cannot be put to afterwards: " + put.status().message() + "; ";
    const auto swept = living.CollectGarbage();
    if (!swept.ok()) wrong += "cannot be swept afterwards: " + swept.status().message() + "; ";
    const auto report = living.Check();
    if (!report.ok() || !report->faults.empty() || !report->orphans.empty()) wrong += "is not clean afterwards; ";
  };
  if (tier.ok()) settle(**tier);
  if (tier.ok()) tier->reset();
  auto again = machine.Open();
  if (!again.ok()) {
    wrong += "cannot be opened afterwards: " + again.status().message() + "; ";
  } else {
    settle(**again);
  }
  return fired;
}

TEST(DiskFault, EveryCallFailsInTurn) {
  const Toys toys;
  const Fate fates[] = {
      {Fault::kIo, false}, {Fault::kIo, true}, {Fault::kNoSpace, false}, {Fault::kNoSpace, true}, {Fault::kShortWrite, false}};
  for (const Fate& fate : fates) {
    int n = 1;
    for (;; ++n) {
      std::string wrong;
      const bool fired = LiveThrough(toys, fate, n, wrong);
      ASSERT_EQ(wrong, "") << "fault " << static_cast<int>(fate.fault) << (fate.lasting ? ", lasting," : "") << " at call " << n;
      if (!fired) break;
    }
    std::printf("%d faults of kind %d%s\n", n - 1, static_cast<int>(fate.fault), fate.lasting ? ", lasting" : "");
    EXPECT_GT(n, 20);
  }
}

TEST(DiskFault, AFullDiskIsAnErrorAndNothingElse) {
  const Toys toys;
  SimulatedDisk disk;
  Machine machine(disk);
  auto tier = machine.Open();
  ASSERT_TRUE(tier.ok());
  ASSERT_TRUE(PutToy(**tier, toys.capsules.at(2).first, toys.capsules.at(2).second, {.id = 2}).ok());
  disk.bytes_limit = disk.UsedBytes() + 3000;
  const auto put = PutToy(**tier, toys.capsules.at(3).first, toys.capsules.at(3).second, {.id = 3});
  EXPECT_EQ(put.status().code(), StatusCode::kExhausted);
  std::string wrong;
  EXPECT_EQ(Look(**tier, toys, wrong, false).size(), 1u);
  EXPECT_EQ(wrong, "");
  disk.bytes_limit = ~uint64_t{0};
  EXPECT_TRUE(PutToy(**tier, toys.capsules.at(3).first, toys.capsules.at(3).second, {.id = 3}).ok());
}

}  // namespace
}  // namespace reprise
