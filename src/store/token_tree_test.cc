// The tree of token paths alone.
#include "store/token_tree.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "store/stored.h"
#include "store/tiered_store_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

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

}  // namespace
}  // namespace reprise
