#include "decode/draft_depth.h"

#include <algorithm>

namespace reprise {
namespace {

constexpr int kFirstSteps = 3;       // at a depth before it is compared with others
constexpr double kWeight = 1.0 / 8;  // of the latest step in a mean
constexpr double kLongest = 3;       // times the mean: a longer step tells of the machine, not of the depth

}  // namespace

int DraftDepth::Next() const {
  // What the best is worth is known first, and what none is.
  if (means_[static_cast<size_t>(best_)].steps < kFirstSteps) return best_;
  if (means_[0].steps < kFirstSteps) return 0;
  return since_ >= kTryEvery ? trial_ : best_;
}

void DraftDepth::ChooseTrial() {
  since_ = 0;
  switch (trials_++ % 3) {
    case 0: trial_ = std::min(most_, best_ + 1); break;
    case 1: trial_ = std::min(most_, 2 * best_ + 2); break;
    default: trial_ = std::max(0, best_ - 1);
  }
}

void DraftDepth::Record(int depth, int tokens, double seconds) {
  if (!(seconds > 0) || depth < 0 || depth > most_) return;
  // A trial that found nothing to guess has tried nothing, and one whose guesses all came true goes on, deeper and deeper.
  if (++since_ > kTryEvery && (depth > 0 || trial_ == 0)) {
    if (depth > best_ && tokens == depth + 1) {
      trial_ = std::min(most_, 2 * depth);
    } else {
      ChooseTrial();
    }
  }
  Mean& mean = means_[static_cast<size_t>(depth)];
  ++mean.steps;
  // The plain mean of the first steps, then one that forgets.
  const double weight = std::max(kWeight, 1.0 / mean.steps);
  const double taken = mean.steps > 1 ? std::min(seconds, kLongest * mean.seconds) : seconds;
  mean.seconds += weight * (taken - mean.seconds);
  mean.tokens += weight * (tokens - mean.tokens);
  for (int other = 0; other <= most_; ++other) {
    const Mean& one = means_[static_cast<size_t>(other)];
    if (one.steps >= kFirstSteps && means_[static_cast<size_t>(best_)].steps >= kFirstSteps &&
        one.rate() > means_[static_cast<size_t>(best_)].rate()) {
      best_ = other;
    }
  }
}

}  // namespace reprise
