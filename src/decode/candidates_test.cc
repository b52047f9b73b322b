#include "decode/candidates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace reprise {
namespace {

std::vector<float> Logits(std::mt19937& random, size_t count, int distinct) {
  const float odd[] = {-0.0f, 0.0f, std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(),
                       std::numeric_limits<float>::infinity()};
  std::vector<float> logits(count);
  for (float& one : logits) {
    one =
        random() % 50 == 0 ? odd[random() % std::size(odd)] : static_cast<float>(static_cast<int>(random() % distinct) - distinct / 2) / 8;
  }
  return logits;
}

// Against the plain definitions, at every length around a run's, with ties, signed zeros, infinities and NaN.
TEST(Candidates, AreThoseOfTheDefinition) {
  std::mt19937 random(1);
  for (size_t count = 0; count < 400; ++count) {
    for (const int distinct : {2, 20, 1 << 20}) {
      const std::vector<float> logits = Logits(random, count, distinct);
      std::vector<uint64_t> all(count);
      all.resize(AllCandidates(logits, all));
      int32_t best = -1;
      std::vector<uint64_t> expected;
      for (size_t i = 0; i < count; ++i) {
        if (!(logits[i] > -std::numeric_limits<float>::infinity())) continue;
        expected.push_back(RankKey(logits[i], i));
        if (best < 0 || logits[i] > logits[static_cast<size_t>(best)]) best = static_cast<int32_t>(i);
      }
      EXPECT_EQ(all, expected);
      EXPECT_EQ(ArgMax(logits), best);
      std::sort(expected.begin(), expected.end());
      for (const size_t k : {size_t{0}, size_t{1}, size_t{7}, size_t{64}, count}) {
        std::vector<uint64_t> kept(std::max(count, k));
        kept.resize(BestCandidates(logits, k, kept));
        std::sort(kept.begin(), kept.end());
        EXPECT_TRUE(std::ranges::equal(kept, std::span(expected).first(std::min(k, expected.size()))))
            << count << " logits, the best " << k;
      }
    }
  }
}

}  // namespace
}  // namespace reprise
