// Reading on the store's own thread: what is there when it is over, what joins and what is given up, and what happens meanwhile.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>

#include "store/disk_test_support.h"
#include "store/gated_file_system.h"
#include "store/tiered_store_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

class ReadingTest : public testing::Test {
 protected:
  // A store that has nothing in memory: what was put into it lies in the directory.
  std::shared_ptr<CapsuleStore> Reopen(uint64_t memory_budget = 1 << 30) {
    auto files = FileSystem::Open(directory_.path(), false);
    EXPECT_TRUE(files.ok()) << files.status().message();
    auto store = CapsuleStore::Open({.memory_budget = memory_budget,
                                     .directory = directory_.path(),
                                     .write_delay = 1000,
                                     .files = std::make_shared<GatedFileSystem>(*files, gate_)},
                                    space_);
    EXPECT_TRUE(store.ok()) << store.status().message();
    return *std::move(store);
  }
  uint64_t Keep(const Path& path, std::string_view name_space = "") {
    const auto store = Reopen();
    return Put(*store, space_, path, {.keep = Keep::kRequested}, name_space);
  }
  struct Asked {
    std::promise<void> told;
    std::unique_ptr<CapsuleStore::Reading> reading;
    void Await() { told.get_future().wait(); }
  };
  std::unique_ptr<Asked> Ask(CapsuleStore& store, uint64_t id, std::string_view name_space = "") {
    auto asked = std::make_unique<Asked>();
    asked->reading = store.Read(name_space, id, [told = &asked->told] { told->set_value(); });
    return asked;
  }
  void Damage() {
    for (const auto& file : std::filesystem::directory_iterator(directory_ / "objects")) {
      std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
      bytes.seekp(static_cast<std::streamoff>(file.file_size() / 2));
      bytes.write("damaged!", 8);
    }
  }

  TemporaryDirectory directory_;
  Gate gate_;
  std::shared_ptr<StateSpace> space_ = DigestSpace();
  const Path path_ = Tokens(300);
};

TEST_F(ReadingTest, WhatWasReadAnswersAndCountsAsRead) {
  const uint64_t id = Keep(path_);
  const auto store = Reopen();
  EXPECT_EQ(store->MustRead("", Tokens(300, 1)), 0u);
  ASSERT_EQ(store->MustRead("", path_), id);
  EXPECT_TRUE(store->MustRead("", id));
  gate_.Close();
  auto asked = Ask(*store, id);
  ASSERT_NE(asked->reading, nullptr);
  gate_.AwaitReader();
  EXPECT_FALSE(asked->reading->over());
  Put(*store, space_, Tokens(100, 7), {.keep = Keep::kTurn});  // nobody else waits for the disk
  EXPECT_EQ(store->FindDeepest("", Tokens(100, 7)).tier, Tier::kMemory);
  gate_.Open();
  asked->Await();
  EXPECT_TRUE(asked->reading->over());
  EXPECT_EQ(store->MustRead("", path_), 0u);
  gate_.Close();  // so that a second read would show
  const auto found = store->FindDeepest("", path_);
  EXPECT_EQ(found.tier, Tier::kDisk);
  EXPECT_EQ(found.id, id);
  EXPECT_EQ(WrongIn(found.capsule, path_), "");
  asked.reset();
  EXPECT_EQ(store->FindDeepest("", path_).tier, Tier::kMemory);
  EXPECT_EQ(store->stats().hits_disk, 1u);
  EXPECT_EQ(Ask(*store, id)->reading, nullptr);  // there is nothing to wait for
  gate_.Open();
}

TEST_F(ReadingTest, TwoWhoWaitForOneCapsuleHaveItReadOnce) {
  const uint64_t id = Keep(path_);
  const auto store = Reopen();
  gate_.Close();
  auto first = Ask(*store, id);
  auto second = Ask(*store, id);
  gate_.AwaitReader();
  first.reset();  // the other still waits
  gate_.Open();
  second->Await();
  const int read = gate_.passed();
  Tier tier = Tier::kNone;
  const auto capsule = store->Get("", id, &tier);
  ASSERT_TRUE(capsule.ok());
  EXPECT_EQ(tier, Tier::kDisk);
  EXPECT_EQ(WrongIn(*capsule, path_), "");
  EXPECT_EQ(gate_.passed(), read);
}

TEST_F(ReadingTest, WhatNobodyWaitsForIsGivenUpAndCanBeAskedForAgain) {
  const uint64_t id = Keep(path_);
  Ask(*Reopen(), id)->Await();
  const int whole = gate_.passed();
  const auto store = Reopen();
  gate_.Close();
  auto asked = Ask(*store, id);
  gate_.AwaitReader();
  asked.reset();
  auto again = Ask(*store, id);
  ASSERT_NE(again->reading, nullptr);
  gate_.Open();
  again->Await();
  EXPECT_LT(gate_.passed(), 3 * whole);  // the first was not read to its end
  EXPECT_EQ(WrongIn(store->FindDeepest("", path_).capsule, path_), "");
}

TEST_F(ReadingTest, ItStaysUntilItIsUsedThoughMemoryIsFullOrTooSmall) {
  const uint64_t id = Keep(path_);
  for (const uint64_t capsules : {0, 2}) {
    const auto store = Reopen(std::max<uint64_t>(1, capsules * (BlockBytes(*space_) + 5 * ExtentBytes(*space_))));
    auto asked = Ask(*store, id);
    ASSERT_NE(asked->reading, nullptr);
    asked->Await();
    for (int i = 0; i < 10; ++i) Put(*store, space_, Tokens(200, 10 + i), {.keep = Keep::kRequested});
    while (store->DropOne()) continue;
    EXPECT_LE(store->stats().memory_bytes, store->stats().memory_budget);
    gate_.Close();
    const auto found = store->FindDeepest("", path_);
    gate_.Open();
    EXPECT_EQ(found.tier, Tier::kDisk);
    EXPECT_EQ(WrongIn(found.capsule, path_), "");
  }
}

TEST_F(ReadingTest, DamageIsFoundWhileItIsReadAndIsAMiss) {
  const uint64_t id = Keep(path_);
  const auto store = Reopen();
  gate_.Close();
  auto asked = Ask(*store, id);
  gate_.AwaitReader();
  Damage();
  gate_.Open();
  asked->Await();
  EXPECT_FALSE(store->FindDeepest("", path_).capsule.valid());
  EXPECT_EQ(store->stats().quarantined, 1u);
  EXPECT_FALSE(store->TakeNotices().empty());
  EXPECT_FALSE(store->Get("", id).ok());
}

TEST_F(ReadingTest, WhatIsRemovedWhileItIsWaitedForIsGone) {
  const uint64_t id = Keep(path_);
  const auto store = Reopen();
  auto asked = Ask(*store, id);
  asked->Await();
  ASSERT_TRUE(store->Remove("", id).ok());
  EXPECT_FALSE(store->FindDeepest("", path_).capsule.valid());
  EXPECT_EQ(Ask(*store, id)->reading, nullptr);
}

TEST_F(ReadingTest, AnotherNamespaceHasNothingRead) {
  const uint64_t id = Keep(path_, "mine");
  const auto store = Reopen();
  EXPECT_EQ(store->MustRead("yours", path_), 0u);
  EXPECT_FALSE(store->MustRead("yours", id));
  EXPECT_EQ(Ask(*store, id, "yours")->reading, nullptr);
  EXPECT_NE(Ask(*store, id, "mine")->reading, nullptr);
}

TEST_F(ReadingTest, AStoreThatGoesEndsTheReadAtItsNextPiece) {
  const uint64_t id = Keep(path_);
  auto store = Reopen();
  gate_.Close();
  auto asked = Ask(*store, id);
  gate_.AwaitReader();
  auto gone = std::async(std::launch::async, [&] { store.reset(); });
  gate_.Open();
  gone.wait();
  asked->Await();
  EXPECT_TRUE(asked->reading->over());
  asked.reset();
  EXPECT_EQ(InPools(*space_), 0u);
}

}  // namespace
}  // namespace reprise
