#include "decode/candidates.h"

#include <algorithm>
#include <limits>

namespace reprise {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr size_t kRun = 64;

bool AnyAbove(const float* run, float bound) {
  // Counted, not asked one by one: a loop without a way out is one that compilers vectorise.
  int32_t above = 0;
  for (size_t i = 0; i < kRun; ++i) above += run[i] > bound ? 1 : 0;
  return above != 0;
}

}  // namespace

int32_t ArgMax(std::span<const float> logits) {
  float best = kNever;
  int32_t id = -1;
  const auto look = [&](size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      if (logits[i] > best) {
        best = logits[i];
        id = static_cast<int32_t>(i);
      }
    }
  };
  size_t at = 0;
  for (; at + kRun <= logits.size(); at += kRun) {
    if (AnyAbove(logits.data() + at, best)) look(at, at + kRun);
  }
  look(at, logits.size());
  return id;
}

size_t AllCandidates(std::span<const float> logits, std::span<uint64_t> out) {
  size_t count = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > kNever) out[count++] = RankKey(logits[i], i);
  }
  return count;
}

size_t BestCandidates(std::span<const float> logits, size_t k, std::span<uint64_t> out) {
  if (k == 0) return 0;
  size_t count = 0;
  float bound = kNever;  // of those kept the least, once there are k: a later logit that only equals it ranks behind
  const auto look = [&](size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      if (!(logits[i] > bound)) continue;
      if (count == k) {
        std::pop_heap(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(k));
        --count;
      }
      out[count++] = RankKey(logits[i], i);
      std::push_heap(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(count));
      if (count == k) bound = logits[IdOf(out[0])];
    }
  };
  size_t at = 0;
  for (; at + kRun <= logits.size(); at += kRun) {
    if (AnyAbove(logits.data() + at, bound)) look(at, at + kRun);
  }
  look(at, logits.size());
  return count;
}

}  // namespace reprise
