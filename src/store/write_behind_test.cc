// To the directory and back, with a tier that fails on request: what is written and when, what is damaged, full or shared.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "store/tiered_store_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

TEST(WriteBehind, WhatIsFlushedIsThereForTheNextProcess) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const Path system = Tokens(300);
  const Path turn = Joined(system, Tokens(300, 1));
  uint64_t id = 0;
  {
    const auto store = NewStore(space, 1 << 30, disk);
    Put(*store, space, system, {.keep = Keep::kSystem});
    EXPECT_EQ(store->stats().entries_on_disk, 0u);  // the delay, which what has a name does not wait for
    id = Put(*store, space, turn, {.keep = Keep::kTurn, .name = "work", .metadata = "a title"});
    ASSERT_TRUE(store->Flush().ok());
    EXPECT_EQ(store->stats().entries_on_disk, 2u);
  }
  const auto store = NewStore(space, 1 << 30, disk);
  EXPECT_EQ(store->stats().entries_in_memory, 0u);
  const auto entry = store->Find("", "work");
  ASSERT_TRUE(entry.ok());
  EXPECT_EQ(entry->id, id);
  EXPECT_EQ(entry->metadata, "a title");
  EXPECT_TRUE(entry->on_disk);
  auto found = store->FindDeepest("", Joined(turn, Tokens(10, 2)));
  EXPECT_EQ(found.tier, Tier::kDisk);
  EXPECT_EQ(found.id, id);
  EXPECT_EQ(WrongIn(found.capsule, turn), "");
  found = store->FindDeepest("", turn);
  EXPECT_EQ(found.tier, Tier::kMemory);  // it has been promoted
  EXPECT_EQ(disk->loads, 1);
  // A model with other weights finds nothing there.
  EXPECT_TRUE(NewStore(DigestSpace(64, 1 << 16, "other weights"), 1 << 30, disk)->List("").empty());
}

TEST(WriteBehind, WritingBehindLeavesOutWhatIsSupersededOrHardlyDeeper) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  Path path = Tokens(400);
  {
    const auto store = NewStore(space, 1 << 30, disk);
    for (int turn = 0; turn < 5; ++turn) {
      path = Joined(path, Tokens(100, turn));
      Put(*store, space, path, {.keep = Keep::kTurn});
      Put(*store, space, Joined(path, Tokens(8, 900)), {.keep = Keep::kPrompt});  // within a few tokens: not kept at all
      path = Joined(path, Tokens(60, 50 + turn));
      Put(*store, space, path, {.keep = Keep::kReply});
    }
    EXPECT_EQ(store->List("").size(), 10u);
  }
  EXPECT_EQ(disk->puts, 2);  // the last question and the last reply: those before are within the line, and less than a stride of it
}

TEST(WriteBehind, AtTheEndTheLastPromptIsWrittenAsItsReplyIs) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const Path prompt = Tokens(200), reply = Joined(prompt, Tokens(150, 2));
  {
    const auto store = NewStore(space, 1 << 30, disk);
    Put(*store, space, prompt, {.keep = Keep::kPrompt});
    Put(*store, space, reply, {.keep = Keep::kReply});
  }
  EXPECT_EQ(disk->puts, 2);
  const auto store = NewStore(space, 1 << 30, disk);
  EXPECT_EQ(store->FindDeepest("", prompt).position, 200);  // asked again
  EXPECT_EQ(store->FindDeepest("", Joined(reply, Tokens(9, 3))).position, 350);
}

TEST(WriteBehind, TheThreadWritesAfterTheDelay) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 1 << 30, disk, /*delay=*/0.02);
  Put(*store, space, Tokens(500), {.keep = Keep::kPrompt});
  for (int i = 0; i < 500 && store->stats().entries_on_disk == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(store->stats().entries_on_disk, 1u);
  EXPECT_GT(store->stats().bytes_written, 0u);
}

void AwaitOnDisk(CapsuleStore& store, uint64_t id) {
  while (!store.Show("", id)->on_disk) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(WriteBehind, TheEndOfATurnWaitsForTheNextOneUnlessALotIsUnwritten) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 1 << 30, disk, /*delay=*/0, /*tip_delay=*/1000);
  Path path = Tokens(300);
  AwaitOnDisk(*store, Put(*store, space, path, {.keep = Keep::kSystem}));
  uint64_t last = 0;
  for (int turn = 0; turn < 10; ++turn) {
    path = Joined(path, Tokens(200, turn));
    last = Put(*store, space, path, {.keep = turn % 2 == 0 ? Keep::kTurn : Keep::kReply});
    if (path.size() >= 300 + policy::kStride) break;
    EXPECT_FALSE(store->Show("", last)->on_disk);
  }
  AwaitOnDisk(*store, last);
  EXPECT_EQ(disk->puts, 2);
  // And when nobody goes on: at the end at the latest.
  path = Joined(path, Tokens(100, 77));
  last = Put(*store, space, path, {.keep = Keep::kReply});
  ASSERT_TRUE(store->Flush().ok());
  EXPECT_TRUE(store->Show("", last)->on_disk);
}

TEST(WriteBehind, WithinALineBlocksAreFewAndWhereLinesPartTheyAreNot) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  Path path;
  {
    const auto store = NewStore(space, 1 << 30, disk);
    for (int turn = 0; turn < 20; ++turn) {
      path = Joined(path, Tokens(300, turn));
      Put(*store, space, path, {.keep = Keep::kTurn});
      if (turn == 8) Put(*store, space, Joined(path, Tokens(300, 99)), {.keep = Keep::kTurn});
    }
  }
  std::vector<size_t> positions;
  for (const auto& [id, one] : disk->entries) positions.push_back(one.entry.tokens.size());
  std::sort(positions.begin(), positions.end());
  EXPECT_EQ(positions,
            (std::vector<size_t>{1200, 2400, 2700, 3000, 3900, 5100, 6000}));  // 2,700: where they part; 3,000 and 6,000: their ends
}

TEST(WriteBehind, MemoryDropsWhatIsWrittenBeforeWhatWouldBeLost) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 3 * (BlockBytes(*space) + 8 * ExtentBytes(*space)), disk, /*delay=*/0, /*tip_delay=*/1000);
  const uint64_t written = Put(*store, space, Tokens(512, 1), {.keep = Keep::kSystem});  // worth most, being longest
  AwaitOnDisk(*store, written);
  std::vector<uint64_t> waiting;
  for (int i = 2; i < 4; ++i) waiting.push_back(Put(*store, space, Tokens(260, i), {.keep = Keep::kReply}));
  for (const uint64_t id : waiting) EXPECT_FALSE(store->Show("", id)->on_disk);
  ASSERT_NE(Put(*store, space, Tokens(260, 4), {.keep = Keep::kReply}), 0u);
  EXPECT_FALSE(store->Show("", written)->in_memory);
  for (const uint64_t id : waiting) AwaitOnDisk(*store, id);
}

TEST(WriteBehind, WhatIsPinnedOrNamedIsWrittenAtOnce) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 1 << 30, disk, /*delay=*/1000);
  const uint64_t pinned = Put(*store, space, Tokens(40, 1), {.keep = Keep::kTurn});
  const uint64_t named = Put(*store, space, Tokens(40, 2), {.keep = Keep::kTurn});
  ASSERT_TRUE(store->Pin("", pinned, true).ok());
  ASSERT_TRUE(store->Name("", named, "work").ok());
  AwaitOnDisk(*store, pinned);
  AwaitOnDisk(*store, named);
}

TEST(WriteBehind, WhatIsPinnedAndFindsNoRoomIsAnErrorThatNamesIt) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 1 << 30, disk, /*delay=*/1000);
  disk->put_fails = Exhausted("the directory is full");
  const uint64_t id = Put(*store, space, Tokens(300), {.name = "work", .pinned = true});
  const Status status = store->Flush();
  EXPECT_EQ(status.code(), StatusCode::kExhausted);
  for (const std::string& part : {std::to_string(id), std::string("'work'"), std::string("unpin"), std::string("the directory is full")}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
  const auto notices = store->TakeNotices();
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_EQ(notices[0], status.message());
  disk->put_fails = Ok();
  EXPECT_TRUE(store->Flush().ok());
  EXPECT_TRUE(store->Show("", id)->on_disk);
}

TEST(WriteBehind, WhatLeavesMemoryIsStillOnDiskAndTheOtherWayRound) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 1 << 30, disk);
  const uint64_t id = Put(*store, space, Tokens(300), {.keep = Keep::kPrompt});
  ASSERT_TRUE(store->Flush().ok());
  ASSERT_TRUE(store->DropOne());
  EXPECT_EQ(store->stats().memory_bytes, 0u);
  EXPECT_EQ(store->FindDeepest("", Tokens(300)).tier, Tier::kDisk);
  EXPECT_EQ(InPools(*space), store->stats().memory_bytes);
  ASSERT_TRUE(store->Remove("", id).ok());
  EXPECT_TRUE(disk->entries.empty());
  EXPECT_FALSE(store->FindDeepest("", Tokens(300)).capsule.valid());
}

TEST(WriteBehind, ADamagedFileIsToldOnceAndTheNextBestAnswers) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const Path deep = Joined(Tokens(300), Tokens(300, 1));
  {
    const auto store = NewStore(space, 1 << 30, disk);
    Put(*store, space, Tokens(300), {.keep = Keep::kSystem});
    Put(*store, space, deep, {.keep = Keep::kTurn});
  }
  for (const auto& [id, one] : disk->entries) {
    if (one.entry.tokens.size() == 600) disk->damaged.insert(id);
  }
  const auto store = NewStore(space, 1 << 30, disk);
  const auto found = store->FindDeepest("", deep);
  EXPECT_EQ(found.position, 300);
  EXPECT_EQ(found.tier, Tier::kDisk);
  EXPECT_EQ(found.known, 600);
  EXPECT_NE(found.reason.find("checksum"), std::string::npos) << found.reason;
  EXPECT_EQ(store->stats().quarantined, 1u);
  EXPECT_EQ(store->TakeNotices().size(), 1u);
  EXPECT_EQ(store->FindDeepest("", deep).position, 300);
  EXPECT_TRUE(store->TakeNotices().empty());
}

TEST(WriteBehind, AFullDiskIsANoticeAndLessReuse) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 1 << 30, disk);
  disk->put_fails = Exhausted("no space left on the device");
  Put(*store, space, Tokens(300), {.keep = Keep::kTurn});
  EXPECT_TRUE(store->Flush().ok());
  Put(*store, space, Tokens(300, 1), {.keep = Keep::kTurn});
  EXPECT_TRUE(store->Flush().ok());
  const auto notices = store->TakeNotices();
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("no space left"), std::string::npos);
  EXPECT_EQ(store->FindDeepest("", Tokens(300)).tier, Tier::kMemory);
  disk->put_fails = Ok();
  EXPECT_TRUE(store->Flush().ok());
  EXPECT_EQ(store->stats().entries_on_disk, 2u);
}

TEST(WriteBehind, WhatWasAskedForIsWrittenThoughThereIsNoRoomForTheRest) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  disk->only_requested = true;
  const auto space = DigestSpace();
  {
    const auto store = NewStore(space, 1 << 30, disk);
    for (int i = 0; i < 4; ++i) Put(*store, space, Tokens(300, i), {.keep = Keep::kTurn});
    Put(*store, space, Tokens(900, 9), {.pinned = true});
  }
  ASSERT_EQ(disk->entries.size(), 1u);
  EXPECT_TRUE(disk->entries.begin()->second.entry.note.pinned);
}

TEST(WriteBehind, AReadOnlyDirectoryIsReadAndNotWritten) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const uint64_t id = [&] { return Put(*NewStore(space, 1 << 30, disk), space, Tokens(300), {.keep = Keep::kTurn}); }();
  disk->read_only = true;
  const auto store = NewStore(space, 1 << 30, disk);
  EXPECT_EQ(store->TakeNotices().size(), 1u);
  EXPECT_EQ(store->FindDeepest("", Tokens(300)).tier, Tier::kDisk);
  Put(*store, space, Tokens(300, 1), {.keep = Keep::kTurn});
  EXPECT_TRUE(store->Flush().ok());
  EXPECT_EQ(disk->puts, 1);
  EXPECT_EQ(store->Remove("", id).code(), StatusCode::kIo);
}

TEST(WriteBehind, TwoProcessesShareADirectory) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto other_space = DigestSpace();
  const auto a = NewStore(space, 1 << 30, disk);
  const auto b = NewStore(other_space, 1 << 30, disk);
  const uint64_t id = Put(*a, space, Tokens(300), {.name = "shared"});
  ASSERT_TRUE(a->Flush().ok());
  EXPECT_EQ(b->Find("", "shared")->id, id);
  EXPECT_EQ(b->FindDeepest("", Tokens(310)).tier, Tier::kDisk);
  ASSERT_TRUE(b->Name("", id, "renamed").ok());
  EXPECT_EQ(a->Find("", "renamed")->id, id);
  ASSERT_TRUE(b->Remove("", id).ok());
  EXPECT_EQ(a->List("").size(), 1u);  // in memory, and on disk no more
  EXPECT_FALSE(a->List("")[0].on_disk);
}

}  // namespace
}  // namespace reprise
