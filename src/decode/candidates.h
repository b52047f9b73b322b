// Candidates: finding the few that count among very many logits, at the speed of reading them.
//
// A vocabulary has a quarter of a million tokens, and one in ten thousand is a candidate. So logits are looked at in runs, and a run in which nothing can
// count is left after one vectorised comparison. What is found is exact, ties included: equal logits rank by id.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace reprise {

// Greater logits have smaller keys, and equal logits rank by id: a strict order, so that every selection has one outcome.
inline uint64_t RankKey(float logit, size_t id) {
  const auto bits = std::bit_cast<uint32_t>(logit + 0.0f);  // + 0 makes -0 and 0 one value
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{~ascending} << 32 | static_cast<uint32_t>(id);
}
inline size_t IdOf(uint64_t key) { return static_cast<uint32_t>(key); }

// The smallest id of the greatest logit, or -1 when none is above minus infinity. NaN is passed over.
int32_t ArgMax(std::span<const float> logits);

// The keys of all logits above minus infinity, by ascending id; returns how many. `out` is as long as `logits`.
size_t AllCandidates(std::span<const float> logits, std::span<uint64_t> out);
// Those of the best k, or of all if they are fewer, in no order.
size_t BestCandidates(std::span<const float> logits, size_t k, std::span<uint64_t> out);

// The best of a row of logits, found where the row lies, so that nobody need copy it: by ascending id, none of them NaN or minus infinity.
// Every other logit of the row ranks behind all of these.
struct BestLogits {
  std::span<const float> logits;
  std::span<const int32_t> ids;
  bool all = false;  // whether the others are all NaN or minus infinity
};

// What a row of logits weighs at the temperature of a choice, the best of it being 1: in parts of `columns` ids each, each to within `error` of itself.
struct RowWeights {
  std::span<const double> parts;
  size_t columns = 0;
  double error = 0;

  double total() const {
    double sum = 0;
    for (const double part : parts) sum += part;
    return sum;
  }
};
// Reads logits of a row that lies elsewhere: [first, first + count), or as far as the row goes. Valid until the next call.
class RowReader {
 public:
  virtual ~RowReader() = default;
  virtual std::span<const float> Read(size_t first, size_t count) = 0;
};

}  // namespace reprise
