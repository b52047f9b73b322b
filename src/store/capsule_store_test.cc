// The store in memory: what is found and why not, what is put, named and shared.
#include <gtest/gtest.h>

#include "store/policy.h"
#include "store/tiered_store_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

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

}  // namespace
}  // namespace reprise
