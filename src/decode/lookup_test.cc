#include "decode/lookup.h"

#include <gtest/gtest.h>

#include <vector>

namespace reprise {
namespace {

std::vector<int32_t> Draft(std::vector<int32_t> context, size_t most) {
  std::vector<int32_t> out(most);
  out.resize(static_cast<size_t>(DraftByLookup(context, out)));
  return out;
}

TEST(DraftByLookup, GivesWhatFollowedTheLastOccurrence) {
  EXPECT_EQ(Draft({1, 2, 3, 4, 9, 1, 2}, 3), (std::vector<int32_t>{3, 4, 9}));
  EXPECT_EQ(Draft({1, 2, 3, 1, 2, 7, 1, 2}, 1), (std::vector<int32_t>{7}));  // the more recent of two equally long matches
}

TEST(DraftByLookup, PrefersTheLongerMatch) { EXPECT_EQ(Draft({5, 1, 2, 3, 1, 2, 7, 5, 1, 2}, 1), (std::vector<int32_t>{3})); }

TEST(DraftByLookup, RunsOverItsOwnEnd) { EXPECT_EQ(Draft({8, 8, 8, 8, 8}, 2), (std::vector<int32_t>{8})); }

TEST(DraftByLookup, GivesNothingWithoutAMatch) {
  EXPECT_TRUE(Draft({}, 4).empty());
  EXPECT_TRUE(Draft({1}, 4).empty());
  EXPECT_TRUE(Draft({1, 2, 3, 4}, 4).empty());
  EXPECT_TRUE(Draft({2, 1, 3, 1}, 4).empty());  // one token in common is no match
  EXPECT_TRUE(Draft({1, 2, 1, 2}, 0).empty());
}

}  // namespace
}  // namespace reprise
