// How many tokens to guess ahead: the number that has lately given the most tokens a second.
//
// A guess costs time whether it comes true or not, and how much of either depends on the model, the machine, the text and the temperature. So
// nothing of it is assumed: every depth from none to the most allowed has the mean of what its last steps took and gave, the best is used, and
// one step in kTryEvery goes to another, since texts change: to one beside the best, or twice as far. Steps that do not pay are then few enough
// that guessing costs some hundredths at worst.
#pragma once

#include <array>

namespace reprise {

class DraftDepth {
 public:
  static constexpr int kMost = 15;
  static constexpr int kTryEvery = 24;

  // From `most` (0 to kMost) downwards; 0 never guesses.
  explicit DraftDepth(int most) : most_(most), best_(most) {}

  // Tokens to guess in the next step.
  int Next() const;
  // What a step that guessed `depth` tokens gave, the one it chose itself included, and took. A step may have found fewer guesses than it was to
  // make. Times of no use (0 or less) are passed over.
  void Record(int depth, int tokens, double seconds);

 private:
  struct Mean {
    double tokens = 0;
    double seconds = 0;
    int steps = 0;
    double rate() const { return tokens / seconds; }
  };
  void ChooseTrial();

  int most_;
  int best_;
  int trial_ = 0;  // what is tried when it is time to
  int trials_ = 0;
  int since_ = 0;  // steps since the last trial
  std::array<Mean, kMost + 1> means_{};
};

}  // namespace reprise
