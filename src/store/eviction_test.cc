// Room in memory: the budget is held, and what goes first is worth least.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "store/policy.h"
#include "store/tiered_store_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

TEST(Eviction, TheBudgetIsHeldBeforeInsertionAndWhatMustStayStays) {
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
TEST(Eviction, WhatAPromptInHandBeganFromIsNotEvicted) {
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
TEST(Eviction, ABurstOfSideRequestsDoesNotPushOutTheMainLine) {
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
TEST(Eviction, WhatSavesMostAByteStaysLongest) {
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

TEST(Eviction, StridesThinOutBehindTheTip) {
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

}  // namespace
}  // namespace reprise
