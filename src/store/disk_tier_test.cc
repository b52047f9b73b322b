#include "store/disk_tier.h"

#include <gtest/gtest.h>

#include "store/disk_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

TEST(DiskTier, GivesBackEveryByteInAnotherProcessesWords) {
  const TemporaryDirectory directory;
  const auto space = NewToySpace();
  const auto tokens = TokenPath(150);
  const Capsule capsule = Toy(*space, tokens);
  int64_t id = 0;
  {
    const auto tier = OpenTier(directory.path());
    const auto put =
        PutToy(*tier, tokens, capsule, {.id = 77, .name = "hello", .pinned = true, .metadata = "meta", .created = 5, .used = 6});
    ASSERT_TRUE(put.ok()) << put.status().message();
    id = *put;
  }
  const auto other = NewToySpace();
  const auto tier = OpenTier(directory.path());
  const auto list = tier->List(other->fingerprint());
  ASSERT_TRUE(list.ok()) << list.status().message();
  ASSERT_EQ(list->size(), 1u);
  const DiskEntry& entry = (*list)[0];
  EXPECT_EQ(entry.id, id);
  EXPECT_EQ(entry.tokens, tokens);
  EXPECT_EQ(entry.name_space, "ns");
  EXPECT_EQ(entry.note.id, 77u);
  EXPECT_EQ(entry.note.name, "hello");
  EXPECT_TRUE(entry.note.pinned);
  EXPECT_EQ(entry.note.metadata, "meta");
  EXPECT_EQ(entry.note.created, 5);
  EXPECT_EQ(entry.note.used, 6);
  const auto loaded = tier->Load(id, other, Capsule());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ(BytesOf(*loaded), BytesOf(capsule));
  EXPECT_TRUE(tier->List(TestFingerprint("another"))->empty());
  EXPECT_EQ(tier->Load(id, NewToySpace("another"), Capsule()).status().code(), StatusCode::kMismatch);
}

TEST(DiskTier, WritesEachRowOnce) {
  const TemporaryDirectory directory;
  const auto space = NewToySpace();
  const auto tier = OpenTier(directory.path());
  std::map<int64_t, std::pair<std::vector<int32_t>, std::vector<std::byte>>> put;
  // A line that grows, two branches from its middle, a capsule below what is stored, and the origin.
  uint64_t rows = 0;
  const auto add = [&](const std::vector<int32_t>& tokens, uint64_t new_rows) {
    const Capsule capsule = Toy(*space, tokens);
    const auto id = PutToy(*tier, tokens, capsule, {.keep = Keep::kTurn});
    ASSERT_TRUE(id.ok()) << id.status().message();
    put[*id] = {tokens, BytesOf(capsule)};
    rows += new_rows;
    EXPECT_EQ(tier->rows_written(), rows);
  };
  add(TokenPath(100, 1000), 100);
  add(TokenPath(130, 1000), 30);
  add(TokenPath(200, 110, 1), 90);
  add(TokenPath(200, 110, 2), 90);
  add(TokenPath(70, 1000), 0);
  add(TokenPath(115, 1000), 0);
  add({}, 0);
  add(TokenPath(64, 1000), 0);
  add(TokenPath(300, 200, 3), 170);
  ASSERT_EQ(put.size(), 9u);
  const auto list = tier->List(space->fingerprint());
  ASSERT_TRUE(list.ok()) << list.status().message();
  ASSERT_EQ(list->size(), put.size());
  // Whoever knows some of them is told the same, but for their tokens.
  std::unordered_set<int64_t> known;
  for (const DiskEntry& entry : *list) {
    if (entry.id % 2 == 0) known.insert(entry.id);
  }
  const auto again = tier->ListAgain(space->fingerprint(), known);
  ASSERT_TRUE(again.ok()) << again.status().message();
  ASSERT_EQ(again->size(), list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    EXPECT_EQ((*again)[i].id, (*list)[i].id);
    EXPECT_EQ((*again)[i].bytes, (*list)[i].bytes);
    EXPECT_EQ((*again)[i].note.id, (*list)[i].note.id);
    EXPECT_EQ((*again)[i].tokens, known.contains((*list)[i].id) ? std::vector<int32_t>() : (*list)[i].tokens);
  }
  for (const DiskEntry& entry : *list) {
    EXPECT_EQ(entry.tokens, put[entry.id].first);
    const auto loaded = tier->Load(entry.id, space, Capsule());
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    EXPECT_EQ(BytesOf(*loaded), put[entry.id].second);
    // From every other entry on the same path, above and below.
    for (const DiskEntry& base : *list) {
      const auto shorter = std::min(base.tokens.size(), entry.tokens.size());
      if (!std::equal(base.tokens.begin(), base.tokens.begin() + static_cast<std::ptrdiff_t>(shorter), entry.tokens.begin())) continue;
      const auto base_capsule = tier->Load(base.id, space, Capsule());
      ASSERT_TRUE(base_capsule.ok());
      const auto extents = space->usage().extents;
      const auto on_top = tier->Load(entry.id, space, *base_capsule);
      ASSERT_TRUE(on_top.ok()) << on_top.status().message();
      EXPECT_EQ(BytesOf(*on_top), put[entry.id].second);
      const auto whole = static_cast<int>((entry.tokens.size() + 63) / 64);
      const auto held = base.tokens.size() >= entry.tokens.size() ? whole : static_cast<int>(base.tokens.size() / 64);
      EXPECT_EQ(space->usage().extents - extents, whole - held);
    }
  }
  const auto report = tier->Check();
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->faults.empty()) << report->faults[0];
  EXPECT_TRUE(report->orphans.empty());
  EXPECT_EQ(report->capsules, 9);
}

TEST(DiskTier, KeepsOneAutomaticEntryAtAPlaceAndEveryRequestedOne) {
  const TemporaryDirectory directory;
  const auto space = NewToySpace();
  const auto tier = OpenTier(directory.path());
  const auto tokens = TokenPath(90);
  const Capsule capsule = Toy(*space, tokens);
  const auto first = PutToy(*tier, tokens, capsule, {.keep = Keep::kReply});
  const auto again = PutToy(*tier, tokens, capsule, {.keep = Keep::kPrompt});
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(*first, *again);
  EXPECT_NE(*PutToy(*tier, tokens, capsule), *first);
  EXPECT_NE(*PutToy(*tier, tokens, capsule, {.keep = Keep::kReply}, "other"), *first);
  EXPECT_EQ(tier->List(space->fingerprint())->size(), 3u);
}

TEST(DiskTier, RemovesWhatNothingNeeds) {
  const TemporaryDirectory directory;
  const auto space = NewToySpace();
  const auto tier = OpenTier(directory.path());
  const auto long_id = PutToy(*tier, TokenPath(300), Toy(*space, TokenPath(300)));
  const auto short_id = PutToy(*tier, TokenPath(100), Toy(*space, TokenPath(100)));
  ASSERT_TRUE(long_id.ok() && short_id.ok());
  EXPECT_EQ(tier->Check()->objects, 3);
  ASSERT_TRUE(tier->Remove(*long_id).ok());
  EXPECT_EQ(tier->Remove(*long_id).code(), StatusCode::kNotFound);
  EXPECT_EQ(tier->Load(*long_id, space, Capsule()).status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(tier->Load(*short_id, space, Capsule()).ok());
  ASSERT_TRUE(tier->Remove(*short_id).ok());
  const auto report = tier->Check();
  EXPECT_EQ(report->objects, 0);
  EXPECT_TRUE(report->orphans.empty());
  EXPECT_TRUE(std::filesystem::is_empty(directory / "objects"));
}

TEST(DiskTier, ANameMovesToItsNewestHolder) {
  const TemporaryDirectory directory;
  const auto space = NewToySpace();
  const auto tier = OpenTier(directory.path());
  const auto a = PutToy(*tier, TokenPath(10), Toy(*space, TokenPath(10)), {.name = "x"});
  const auto b = PutToy(*tier, TokenPath(20), Toy(*space, TokenPath(20)), {.name = "x"});
  const auto other = PutToy(*tier, TokenPath(20), Toy(*space, TokenPath(20)), {.name = "x"}, "other");
  ASSERT_TRUE(a.ok() && b.ok() && other.ok());
  const auto name_of = [&](int64_t id) {
    const auto list = tier->List(space->fingerprint());
    for (const DiskEntry& entry : *list) {
      if (entry.id == id) return entry.note.name;
    }
    return std::string("gone");
  };
  EXPECT_EQ(name_of(*a), "");
  EXPECT_EQ(name_of(*b), "x");
  EXPECT_EQ(name_of(*other), "x");
  ASSERT_TRUE(tier->Update(*a, {.name = "x", .metadata = "new", .used = 9, .hits = 3}).ok());
  EXPECT_EQ(name_of(*a), "x");
  EXPECT_EQ(name_of(*b), "");
}

}  // namespace
}  // namespace reprise
