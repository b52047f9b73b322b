// The store in memory: what is found, what it costs, what goes first; and random operations against a naive model.
#include "store/capsule_store.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "store/policy.h"
#include "store/store_test_support.h"

namespace reprise {
namespace {

using testing_support::CapsuleAt;
using testing_support::DigestSpace;
using testing_support::FakeDisk;
using testing_support::Path;
using testing_support::WrongIn;

Path Tokens(int count, int seed = 0) {
  Path path;
  for (int i = 0; i < count; ++i) path.push_back((i * 7 + seed * 1000003 + i * i) % 50000);
  return path;
}
Path Joined(Path a, const Path& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::shared_ptr<CapsuleStore> NewStore(const std::shared_ptr<StateSpace>& space, uint64_t budget = 1 << 30,
                                       std::shared_ptr<FakeDisk::Shared> disk = nullptr, double delay = 1000) {
  auto store = TieredStore::Make({.memory_budget = budget, .directory = disk ? "fake" : "", .write_delay = delay}, space,
                                 disk ? std::make_unique<FakeDisk>(disk) : nullptr);
  EXPECT_TRUE(store.ok()) << store.status().message();
  return *std::move(store);
}

uint64_t Put(CapsuleStore& store, const std::shared_ptr<StateSpace>& space, const Path& path, CapsuleStore::PutOptions options,
             std::string_view name_space = "") {
  const auto found = store.FindDeepest(name_space, path);
  auto id = store.Put(name_space, path, CapsuleAt(space, path, found.capsule), options);
  EXPECT_TRUE(id.ok()) << id.status().message();
  return *id;
}

// Bytes of the pools that are in use by nobody but the store.
uint64_t InPools(StateSpace& space) {
  auto lane = space.NewLane();  // whatever a lane holds, it is the origin
  return space.usage().bytes - space.layout().block_bytes(Space::kDevice) - space.layout().block_bytes(Space::kHost);
}

uint64_t BlockBytes(const StateSpace& space) {
  return space.layout().block_bytes(Space::kDevice) + space.layout().block_bytes(Space::kHost);
}
uint64_t ExtentBytes(const StateSpace& space) {
  return space.layout().extent_bytes(Space::kDevice) + space.layout().extent_bytes(Space::kHost);
}

TEST(CapsuleStoreTest, TheDeepestCapsuleOnThePathAnswersAtItsExactPosition) {
  const auto space = DigestSpace();
  const auto store = NewStore(space);
  const Path system = Tokens(100);
  const Path one = Joined(system, Tokens(77, 1));
  const Path two = Joined(one, Tokens(31, 2));
  const uint64_t a = Put(*store, space, system, {.keep = Keep::kSystem});
  const uint64_t b = Put(*store, space, one, {.keep = Keep::kPrompt});
  const uint64_t c = Put(*store, space, two, {.keep = Keep::kReply});
  struct Case {
    Path prompt;
    int32_t position, known;
    uint64_t id, left;
  };
  const Case cases[] = {
      {Joined(two, Tokens(9, 3)), 208, 208, c, 0},                                    // goes on
      {two, 208, 208, c, 0},                                                          // the same again
      {Path(two.begin(), two.begin() + 200), 177, 200, b, 0},                         // shorter
      {Joined(one, Tokens(40, 4)), 177, 177, b, c},                                   // leaves at a capsule
      {Joined(Path(two.begin(), two.begin() + 190), Tokens(40, 5)), 177, 190, b, c},  // leaves between two
      {Joined(Path(one.begin(), one.begin() + 99), Tokens(40, 6)), 0, 99, 0, a},      // leaves before the first
      {Tokens(40, 7), 0, 0, 0, a},
  };
  for (const Case& test : cases) {
    const auto found = store->FindDeepest("", test.prompt);
    EXPECT_EQ(found.position, test.position);
    EXPECT_EQ(found.known, test.known);
    EXPECT_EQ(found.id, test.id);
    EXPECT_EQ(found.diverged_from, test.left);
    EXPECT_EQ(found.tier, test.position > 0 ? Tier::kMemory : Tier::kNone);
    EXPECT_EQ(found.reason.empty(), found.known - found.position <= policy::kNear && found.known > 0) << found.reason;
    if (test.position > 0) {
      EXPECT_EQ(WrongIn(found.capsule, test.prompt), "");
    }
  }
  // The caller has as much already.
  EXPECT_FALSE(store->FindDeepest("", two, 208).capsule.valid());
  EXPECT_EQ(store->FindDeepest("", two, 207).id, c);
  // Entries are as they were, and in the order of their paths.
  const auto list = store->List("");
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[2].parent, b);
  EXPECT_EQ(list[1].parent, a);
  EXPECT_EQ(*store->Tokens("", c), two);
}

TEST(CapsuleStoreTest, NamespacesDoNotSeeEachOther) {
  const auto space = DigestSpace();
  const auto store = NewStore(space);
  const uint64_t id = Put(*store, space, Tokens(100), {.keep = Keep::kPrompt, .name = "mine"}, "alice");
  const auto found = store->FindDeepest("bob", Tokens(120));
  EXPECT_FALSE(found.capsule.valid());
  EXPECT_EQ(found.known, 0);
  EXPECT_TRUE(store->List("bob").empty());
  for (const Status& status : {store->Get("bob", id).status(), store->Show("bob", id).status(), store->Tokens("bob", id).status(),
                               store->Find("bob", "mine").status(), store->Pin("bob", id, true), store->Name("bob", id, "x"),
                               store->Remove("bob", id), store->Get("", id).status()}) {
    EXPECT_EQ(status.code(), StatusCode::kNotFound) << status.message();
  }
  EXPECT_EQ(store->Find("alice", "mine")->id, id);
}

TEST(CapsuleStoreTest, WrongPutsAreRefusedAndNothingChanges) {
  const auto space = DigestSpace();
  const auto other = DigestSpace(16, 4096, "other model");
  const auto store = NewStore(space);
  const Path path = Tokens(50);
  const Capsule capsule = CapsuleAt(space, path);
  const auto put = [&](const Path& tokens, const Capsule& given, const CapsuleStore::PutOptions& options = {}) {
    return store->Put("", tokens, given, options).status().code();
  };
  EXPECT_EQ(put(path, Capsule()), StatusCode::kInvalidArgument);
  EXPECT_EQ(put(path, CapsuleAt(other, path)), StatusCode::kMismatch);
  EXPECT_EQ(put(Tokens(49), capsule), StatusCode::kInvalidArgument);
  EXPECT_EQ(put({}, CapsuleAt(space, {})), StatusCode::kInvalidArgument);  // an empty lane
  EXPECT_EQ(put(path, capsule, {.metadata = std::string(Capsule::kMaxMetadata + 1, 'x')}), StatusCode::kInvalidArgument);
  EXPECT_EQ(put(path, capsule, {.name = std::string(CapsuleStore::kMaxName + 1, 'x')}), StatusCode::kInvalidArgument);
  EXPECT_TRUE(store->List("").empty());
  EXPECT_EQ(store->stats().memory_bytes, 0u);
}

TEST(CapsuleStoreTest, SharedRowsCostOnceAndAnAutomaticEntryIsNotDoubled) {
  const auto space = DigestSpace();
  const auto store = NewStore(space);
  const Path base = Tokens(640);
  const uint64_t first = Put(*store, space, base, {.keep = Keep::kPrompt});
  EXPECT_EQ(store->stats().memory_bytes, BlockBytes(*space) + 10 * ExtentBytes(*space));
  EXPECT_EQ(Put(*store, space, base, {.keep = Keep::kTurn}), first);
  EXPECT_EQ(store->Show("", first)->keep, Keep::kTurn);
  for (int i = 1; i <= 4; ++i) Put(*store, space, Joined(base, Tokens(64, i)), {.keep = Keep::kPrompt});
  EXPECT_EQ(store->stats().memory_bytes, 5 * BlockBytes(*space) + 14 * ExtentBytes(*space));
  EXPECT_EQ(store->stats().memory_bytes, InPools(*space));
  // A requested one stands beside it, and shares everything.
  const auto found = store->FindDeepest("", base);
  const auto asked = store->Put("", base, found.capsule, {.name = "base"});
  ASSERT_TRUE(asked.ok());
  EXPECT_NE(*asked, first);
  EXPECT_EQ(store->stats().memory_bytes, InPools(*space));
  ASSERT_TRUE(store->Remove("", first).ok());
  EXPECT_EQ(store->FindDeepest("", base).id, *asked);
  EXPECT_EQ(store->Remove("", first).code(), StatusCode::kNotFound);
}

TEST(CapsuleStoreTest, ANameMovesAndIsTakenAway) {
  const auto space = DigestSpace();
  const auto store = NewStore(space);
  const uint64_t a = Put(*store, space, Tokens(50), {.name = "here"});
  const uint64_t b = Put(*store, space, Tokens(90), {.name = "here", .metadata = "{}"});
  EXPECT_EQ(store->Find("", "here")->id, b);
  EXPECT_EQ(store->Show("", a)->name, "");
  ASSERT_TRUE(store->Name("", a, "here").ok());
  EXPECT_EQ(store->Find("", "here")->id, a);
  EXPECT_EQ(store->Show("", b)->name, "");
  ASSERT_TRUE(store->Name("", a, "").ok());
  EXPECT_EQ(store->Find("", "here").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store->Find("", "").status().code(), StatusCode::kNotFound);
}

TEST(CapsuleStoreTest, TheBudgetIsHeldBeforeInsertionAndWhatMustStayStays) {
  const auto space = DigestSpace();
  const uint64_t each = BlockBytes(*space) + ExtentBytes(*space);
  const auto store = NewStore(space, 8 * each);
  const uint64_t pinned = Put(*store, space, Tokens(50, 1000), {.pinned = true});
  const uint64_t named = Put(*store, space, Tokens(50, 1001), {.name = "kept"});
  for (int i = 0; i < 100; ++i) {
    EXPECT_NE(Put(*store, space, Tokens(60, i), {.keep = Keep::kPrompt}), 0u);
    EXPECT_LE(store->stats().memory_bytes, 8 * each);
    EXPECT_EQ(store->stats().memory_bytes, InPools(*space));
  }
  EXPECT_TRUE(store->Get("", pinned).ok());
  EXPECT_TRUE(store->Get("", named).ok());
  EXPECT_EQ(store->stats().evicted_memory, 94u);
  // What can never fit is less reuse, and costs nobody anything.
  EXPECT_EQ(Put(*store, space, Tokens(100 * 64, 2000), {.keep = Keep::kPrompt}), 0u);
  EXPECT_EQ(Put(*store, space, Tokens(50 * 64, 2000), {.keep = Keep::kPrompt}), 0u);  // with the pinned ones, that is
  EXPECT_EQ(store->stats().entries_in_memory, 8u);
  // Nor what would have to push out the pinned.
  std::vector<uint64_t> pins;
  for (int i = 0; i < 6; ++i) pins.push_back(Put(*store, space, Tokens(60, 3000 + i), {.pinned = true}));
  EXPECT_EQ(Put(*store, space, Tokens(60, 4000), {.keep = Keep::kPrompt}), 0u);
  EXPECT_EQ(Put(*store, space, Tokens(60, 4000), {.pinned = true}), 0u);
  for (const uint64_t id : pins) EXPECT_TRUE(store->Get("", id).ok());
  ASSERT_TRUE(store->Pin("", pins[0], false).ok());
  EXPECT_NE(Put(*store, space, Tokens(60, 4000), {.keep = Keep::kPrompt}), 0u);
}

// The prompt in hand keeps what it began from, for as long as it is in hand.
TEST(CapsuleStoreTest, WhatAPromptInHandBeganFromIsNotEvicted) {
  const auto space = DigestSpace();
  const auto store = NewStore(space, 4 * (BlockBytes(*space) + ExtentBytes(*space)));
  const uint64_t id = Put(*store, space, Tokens(50), {.keep = Keep::kPrompt});
  auto found = store->FindDeepest("", Tokens(60));
  ASSERT_EQ(found.id, id);
  for (int i = 1; i < 40; ++i) Put(*store, space, Tokens(50, i), {.keep = Keep::kPrompt});
  EXPECT_TRUE(store->Show("", id).ok());
  EXPECT_TRUE(store->DropOne());
  EXPECT_TRUE(store->DropOne());
  EXPECT_TRUE(store->DropOne());
  EXPECT_FALSE(store->DropOne());
  found = {};
  EXPECT_TRUE(store->DropOne());
  EXPECT_EQ(store->stats().memory_bytes, 0u);
}

// A main line of six turns, and then hundreds of requests that come once: some of their own, some on the main line's system message, some
// from its full context. The main line goes on from its tip.
TEST(CapsuleStoreTest, ABurstOfSideRequestsDoesNotPushOutTheMainLine) {
  const auto space = DigestSpace();
  const auto store = NewStore(space, 40 * (BlockBytes(*space) + 2 * ExtentBytes(*space)));
  Path main = Tokens(200);
  Put(*store, space, main, {.keep = Keep::kSystem});
  for (int turn = 1; turn <= 6; ++turn) {
    main = Joined(main, Tokens(80, turn));
    Put(*store, space, main, {.keep = Keep::kPrompt});
    main = Joined(main, Tokens(50, 100 + turn));
    Put(*store, space, main, {.keep = Keep::kReply});
  }
  for (int i = 0; i < 300; ++i) {
    const Path side = i % 3 == 0   ? Tokens(120, 1000 + i)
                      : i % 3 == 1 ? Joined(Tokens(200), Tokens(90, 2000 + i))
                                   : Joined(main, Tokens(70, 3000 + i));
    Put(*store, space, side, {.keep = Keep::kPrompt});
    Put(*store, space, Joined(side, Tokens(40, 4000 + i)), {.keep = Keep::kReply});
  }
  EXPECT_GT(store->stats().evicted_memory, 300u);
  EXPECT_EQ(store->FindDeepest("", Joined(main, Tokens(50, 7))).position, static_cast<int32_t>(main.size()));
  // Without other prompts from its full context, too.
  const auto lone = NewStore(space, 40 * (BlockBytes(*space) + 2 * ExtentBytes(*space)));
  main = Tokens(200);
  for (int turn = 1; turn <= 6; ++turn) {
    main = Joined(main, Tokens(130, turn));
    Put(*lone, space, main, {.keep = Keep::kReply});
  }
  for (int i = 0; i < 300; ++i)
    Put(*lone, space, i % 2 == 0 ? Tokens(120, 1000 + i) : Joined(Tokens(200), Tokens(90, i)), {.keep = Keep::kPrompt});
  EXPECT_GT(lone->stats().evicted_memory, 200u);
  EXPECT_EQ(lone->FindDeepest("", Joined(main, Tokens(50, 7))).position, static_cast<int32_t>(main.size()));
}

// When memory is short, a boundary that saves much goes after one that saves little.
TEST(CapsuleStoreTest, WhatSavesMostAByteStaysLongest) {
  const auto space = DigestSpace();
  const auto store = NewStore(space);
  Put(*store, space, Tokens(2000, 1), {.keep = Keep::kPrompt});
  const Path near = Joined(Tokens(2000, 1), Tokens(20, 2));
  Put(*store, space, near, {.keep = Keep::kReply});
  Put(*store, space, Tokens(500, 3), {.keep = Keep::kPrompt});
  const auto kept = [&](const Path& path) { return store->FindDeepest("", path, static_cast<int32_t>(path.size()) - 1).capsule.valid(); };
  ASSERT_TRUE(store->DropOne());
  EXPECT_FALSE(kept(near));
  ASSERT_TRUE(store->DropOne());
  EXPECT_TRUE(kept(Tokens(500, 3)) || kept(Tokens(2000, 1)));
}

TEST(CapsuleStoreTest, StridesThinOutBehindTheTip) {
  const auto space = DigestSpace();
  const auto store = NewStore(space);
  const Path path = Tokens(32 * policy::kStride);
  Capsule capsule;
  for (int i = 1; i <= 32; ++i) {
    const Path to(path.begin(), path.begin() + static_cast<ptrdiff_t>(i) * policy::kStride);
    capsule = CapsuleAt(space, to, capsule);
    ASSERT_TRUE(store->Put("", to, capsule, {.keep = Keep::kStride}).ok());
  }
  const auto list = store->List("");
  EXPECT_LE(list.size(), 16u);
  EXPECT_GE(list.size(), 6u);
  // Going back by d costs at most about d / 2, and one stride.
  int32_t below = 0;
  for (const StoreEntry& entry : list) {
    const int32_t d = 32 * policy::kStride - below;
    EXPECT_LE(entry.position - below, std::max(policy::kStride, d / 2) + policy::kStride) << entry.position;
    below = entry.position;
  }
  EXPECT_EQ(below, 32 * policy::kStride);
  EXPECT_EQ(store->stats().memory_bytes, list.size() * BlockBytes(*space) + 512 * ExtentBytes(*space));
}

// A point where prompts part is known the first time it is passed, whether or not anything is kept there.
TEST(CapsuleStoreTest, ThePointOfDivergenceIsKnownTheFirstTime) {
  const auto space = DigestSpace();
  const auto store = NewStore(space);
  const Path shared = Tokens(300);
  Put(*store, space, Joined(shared, Tokens(100, 1)), {.keep = Keep::kPrompt});
  auto found = store->FindDeepest("", Joined(shared, Tokens(100, 2)));
  EXPECT_EQ(found.known, 300);
  EXPECT_EQ(found.position, 0);
  EXPECT_NE(found.reason, "");
  Put(*store, space, shared, {.keep = Keep::kDivergence});
  EXPECT_EQ(store->FindDeepest("", Joined(shared, Tokens(100, 3))).position, 300);
  // Also when all that was kept on the path has gone.
  while (store->DropOne()) continue;
  found = store->FindDeepest("", Joined(shared, Tokens(100, 4)));
  EXPECT_EQ(found.known, 300);
  EXPECT_FALSE(found.capsule.valid());
}

TEST(TokenTreeTest, BarePathsAreBounded) {
  TokenTree tree(10000);
  for (int i = 0; i < 1000; ++i) {
    tree.Insert(Joined(Tokens(50 + i % 7), Tokens(100, i)));
    ASSERT_LE(tree.bare_tokens(), 10000u);
  }
  EXPECT_EQ(tree.Find(Joined(Tokens(50 + 999 % 7), Tokens(100, 999))).length, 150 + 999 % 7);  // the newest is there
  EXPECT_LT(tree.Find(Joined(Tokens(50), Tokens(100, 0))).length, 150);                        // the oldest is not
}

TEST(TokenTreeTest, ALineOfManyTurnsIsAsDeepAsItMustBe) {
  TokenTree tree;
  std::vector<std::unique_ptr<Stored>> entries;
  Path path;
  for (int i = 0; i < 4000; ++i) {
    path.push_back(i % 100);
    entries.push_back(std::make_unique<Stored>());
    tree.Keep(entries.back()->node = tree.Insert(path), entries.back().get());
  }
  EXPECT_EQ(tree.Find(path).length, 4000);
  EXPECT_EQ(TokenTree::PathOf(entries.back()->node), path);
  for (const auto& entry : entries) tree.Drop(entry->node, entry.get());
  EXPECT_EQ(tree.bare_tokens(), 4000u);
  EXPECT_EQ(tree.Find(path).node->depth, 4000);  // one edge again
}

// ---- the directory ----

TEST(CapsuleStoreTest, WhatIsFlushedIsThereForTheNextProcess) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const Path system = Tokens(300);
  const Path turn = Joined(system, Tokens(300, 1));
  uint64_t id = 0;
  {
    const auto store = NewStore(space, 1 << 30, disk);
    Put(*store, space, system, {.keep = Keep::kSystem});
    id = Put(*store, space, turn, {.keep = Keep::kTurn, .name = "work", .metadata = "a title"});
    EXPECT_EQ(store->stats().entries_on_disk, 0u);  // the delay
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

TEST(CapsuleStoreTest, WritingBehindLeavesOutWhatIsSupersededOrHardlyDeeper) {
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
  EXPECT_EQ(disk->puts, 6);  // five questions, the last reply; the replies before it are superseded
}

TEST(CapsuleStoreTest, TheThreadWritesAfterTheDelay) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 1 << 30, disk, /*delay=*/0.02);
  Put(*store, space, Tokens(500), {.keep = Keep::kPrompt});
  for (int i = 0; i < 500 && store->stats().entries_on_disk == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(store->stats().entries_on_disk, 1u);
  EXPECT_GT(store->stats().bytes_written, 0u);
}

TEST(CapsuleStoreTest, WhatLeavesMemoryIsStillOnDiskAndTheOtherWayRound) {
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

TEST(CapsuleStoreTest, ADamagedFileIsToldOnceAndTheNextBestAnswers) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const Path deep = Joined(Tokens(300), Tokens(300, 1));
  {
    const auto store = NewStore(space, 1 << 30, disk);
    Put(*store, space, Tokens(300), {.keep = Keep::kTurn});
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

TEST(CapsuleStoreTest, AFullDiskIsANoticeAndLessReuse) {
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

TEST(CapsuleStoreTest, WhatWasAskedForIsWrittenThoughThereIsNoRoomForTheRest) {
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

TEST(CapsuleStoreTest, AReadOnlyDirectoryIsReadAndNotWritten) {
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

TEST(CapsuleStoreTest, TwoProcessesShareADirectory) {
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

// One thread uses the model; others look, pin, remove, flush and make room meanwhile, and the store's own thread writes.
TEST(CapsuleStoreTest, OtherThreadsMayLookAndChangeMeanwhile) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 20 * (BlockBytes(*space) + 4 * ExtentBytes(*space)), disk, /*delay=*/0.001);
  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (int n = 0; n < 3; ++n) {
    others.emplace_back([&, n] {
      for (int i = n; !stop.load(); ++i) {
        const auto list = store->List("");
        if (list.empty()) continue;
        const uint64_t id = list[static_cast<size_t>(i) % list.size()].id;
        if (i % 7 == 0) (void)store->Pin("", id, i % 2 == 0);
        if (i % 11 == 0) (void)store->Remove("", id);
        if (i % 13 == 0) (void)store->Name("", id, "name");
        if (i % 29 == 0) (void)store->Flush();
        if (i % 31 == 0) (void)store->DropOne();
        (void)store->Tokens("", id);
        (void)store->TakeNotices();
        EXPECT_LE(store->stats().memory_bytes, store->stats().memory_budget);
      }
    });
  }
  for (int i = 0; i < 300; ++i) {
    const Path path = Joined(Tokens(100, i % 5), Tokens(150, i));
    const auto found = store->FindDeepest("", path);
    if (found.capsule.valid()) {
      EXPECT_EQ(WrongIn(found.capsule, path), "");
    }
    EXPECT_TRUE(store->Put("", path, CapsuleAt(space, path, found.capsule), {.keep = i % 2 == 0 ? Keep::kTurn : Keep::kReply}).ok());
  }
  stop = true;
  for (std::thread& other : others) other.join();
}

// ---- random operations against a naive model ----

struct Op {
  enum Kind { kPut, kExtend, kFind, kGet, kPin, kName, kRemove, kDrop, kHoldOn, kLetGo, kFlush, kKinds };
  Kind kind;
  unsigned a, b;
};
void showValue(const Op& op, std::ostream& os) { os << "op " << op.kind << '(' << op.a << ", " << op.b << ')'; }

class Naive {
 public:
  explicit Naive(bool with_disk) : space_(DigestSpace(512, 1 << 18)), disk_(with_disk ? std::make_shared<FakeDisk::Shared>() : nullptr) {
    budget_ = 24 * (BlockBytes(*space_) + 3 * ExtentBytes(*space_));
    store_ = NewStore(space_, budget_, disk_);
  }

  void Do(const Op& op) {
    const auto entries = store_->List("");
    switch (op.kind) {
      case Op::kPut: Add(Random(op), op); break;
      case Op::kExtend:
        if (!entries.empty())
          Add(Joined(*store_->Tokens("", entries[op.a % entries.size()].id),
                     Tokens(1 + static_cast<int>(op.b % 90), static_cast<int>(op.b % 3))),
              op);
        break;
      case Op::kFind: Check(Random(op)); break;
      case Op::kGet:
        if (!entries.empty()) {
          const StoreEntry& entry = entries[op.a % entries.size()];
          const auto capsule = store_->Get("", entry.id);
          RC_ASSERT(capsule.ok());
          RC_ASSERT(WrongIn(*capsule, *store_->Tokens("", entry.id)) == "");
          RC_ASSERT(capsule->position() == entry.position);
        }
        break;
      case Op::kPin:
        if (!entries.empty()) {
          const uint64_t id = entries[op.a % entries.size()].id;
          const bool pin = pinned_.size() < 4 && op.b % 2 == 0;
          RC_ASSERT(store_->Pin("", id, pin).ok());
          pin ? (void)pinned_.insert(id) : (void)pinned_.erase(id);
        }
        break;
      case Op::kName:
        if (!entries.empty()) RC_ASSERT(store_->Name("", entries[op.a % entries.size()].id, op.b % 2 == 0 ? "one" : "two").ok());
        break;
      case Op::kRemove:
        if (!entries.empty()) {
          const uint64_t id = entries[op.a % entries.size()].id;
          RC_ASSERT(store_->Remove("", id).ok());
          pinned_.erase(id);
          ++removed_;
        }
        break;
      case Op::kDrop: store_->DropOne(); break;
      case Op::kHoldOn: {
        auto found = store_->FindDeepest("", Random(op));
        if (found.capsule.valid()) held_.push_back({found.id, std::move(found.hold)});
        break;
      }
      case Op::kLetGo:
        if (!held_.empty()) held_.erase(held_.begin());
        break;
      case Op::kFlush: RC_ASSERT(store_->Flush().ok()); break;
      case Op::kKinds: break;
    }
    Invariants();
  }

 private:
  static Path Random(const Op& op) {
    return Joined(Tokens(40 + static_cast<int>(op.a % 3) * 64), Tokens(1 + static_cast<int>(op.b % 200), static_cast<int>(op.a % 7)));
  }

  void Add(const Path& path, const Op& op) {
    if (path.size() > 1500) return;
    static constexpr Keep kKeeps[] = {Keep::kRequested, Keep::kSystem, Keep::kTurn,      Keep::kPrompt,
                                      Keep::kReply,     Keep::kStop,   Keep::kDivergence};
    const Keep keep = kKeeps[op.b % 7];
    const size_t before = store_->List("").size();
    const auto evicted = Gone();
    const auto found = store_->FindDeepest("", path);
    const auto id = store_->Put("", path, CapsuleAt(space_, path, found.capsule), {.keep = keep});
    RC_ASSERT(id.ok());
    paths_.push_back(path);
    const size_t after = store_->List("").size();
    if (*id != 0) RC_ASSERT(store_->Show("", *id).ok());
    if (disk_ == nullptr) RC_ASSERT(after + (Gone() - evicted) == before || after + (Gone() - evicted) == before + 1);
  }

  uint64_t Gone() const { return store_->stats().evicted_memory; }

  void Check(const Path& prompt) {
    int32_t deepest = 0;
    for (const StoreEntry& entry : store_->List("")) {
      const Path path = *store_->Tokens("", entry.id);
      if (path.size() <= prompt.size() && std::equal(path.begin(), path.end(), prompt.begin())) deepest = std::max(deepest, entry.position);
    }
    size_t known = 0;
    for (const Path& path : paths_) {
      const auto [mine, other] = std::mismatch(path.begin(), path.end(), prompt.begin(), prompt.end());
      known = std::max(known, static_cast<size_t>(mine - path.begin()));
    }
    const auto found = store_->FindDeepest("", prompt);
    RC_ASSERT(found.position == deepest);
    RC_ASSERT(found.known == static_cast<int32_t>(known));
    if (deepest > 0) RC_ASSERT(WrongIn(found.capsule, prompt) == "");
  }

  void Invariants() {
    const auto stats = store_->stats();
    RC_ASSERT(stats.memory_bytes <= budget_);
    RC_ASSERT(stats.memory_bytes == InPools(*space_));
    uint64_t in_memory = 0;
    for (const StoreEntry& entry : store_->List("")) in_memory += entry.in_memory ? 1 : 0;
    RC_ASSERT(stats.entries_in_memory == in_memory);
    for (const uint64_t id : pinned_) RC_ASSERT(store_->Show("", id).ok());
    for (const auto& [id, hold] : held_) {
      const auto shown = store_->Show("", id);
      if (shown.ok()) RC_ASSERT(shown->in_memory || shown->on_disk);
    }
  }

  std::shared_ptr<StateSpace> space_;
  std::shared_ptr<FakeDisk::Shared> disk_;
  std::shared_ptr<CapsuleStore> store_;
  uint64_t budget_;
  std::vector<Path> paths_;
  std::set<uint64_t> pinned_;
  std::vector<std::pair<uint64_t, std::shared_ptr<const void>>> held_;
  int removed_ = 0;
};

rc::Gen<Op> GenOp() {
  const auto kind = rc::gen::weightedElement<Op::Kind>({{8, Op::kPut},
                                                        {8, Op::kExtend},
                                                        {6, Op::kFind},
                                                        {3, Op::kGet},
                                                        {1, Op::kPin},
                                                        {1, Op::kName},
                                                        {2, Op::kRemove},
                                                        {2, Op::kDrop},
                                                        {1, Op::kHoldOn},
                                                        {2, Op::kLetGo},
                                                        {1, Op::kFlush}});
  return rc::gen::apply(
      [](Op::Kind k, unsigned a, unsigned b) {
        return Op{k, a, b};
      },
      kind, rc::gen::resize(1000, rc::gen::inRange(0u, 1000u)), rc::gen::resize(1000, rc::gen::inRange(0u, 1000u)));
}

TEST(CapsuleStoreProperty, RandomOperationsAgainstANaiveModel) {
  for (const bool with_disk : {false, true}) {
    EXPECT_TRUE(rc::check(with_disk ? "memory and disk" : "memory", [with_disk] {
      Naive naive(with_disk);
      for (const Op& op : *rc::gen::resize(150, rc::gen::container<std::vector<Op>>(GenOp()))) naive.Do(op);
    }));
  }
}

}  // namespace
}  // namespace reprise
