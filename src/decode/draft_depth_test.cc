#include "decode/draft_depth.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace reprise {
namespace {

// A machine and a text: a step costs `step` and `guess` for each guess, and each guess comes true with `chance` if those before it did.
struct World {
  double step = 1, guess = 0.1, chance = 0.8;
  double found = 1;  // how often there is anything to guess
  std::mt19937_64 random{7};

  // Tokens a second that `depth` reaches over `steps` steps.
  double Play(DraftDepth& depth, int steps, int* guesses = nullptr) {
    double seconds = 0;
    int all = 0;
    for (int i = 0; i < steps; ++i) {
      const int asked = std::uniform_real_distribution<>()(random) < found ? depth.Next() : 0;
      int tokens = 1;
      while (tokens <= asked && std::uniform_real_distribution<>()(random) < chance) ++tokens;
      const double taken = (step + guess * asked) * std::uniform_real_distribution<>(0.9, 1.3)(random);
      depth.Record(asked, tokens, taken);
      seconds += taken;
      all += tokens;
      if (guesses) *guesses += asked;
    }
    return all / seconds;
  }
};

TEST(DraftDepth, GuessesWhereGuessesComeTrue) {
  DraftDepth depth(8);
  World world;
  const double rate = world.Play(depth, 2000);
  DraftDepth none(0);
  EXPECT_GT(rate, 2 * World(world).Play(none, 2000));
}

TEST(DraftDepth, CostsLittleWhereTheyDoNot) {
  for (const double guess : {0.2, 0.35, 0.5}) {
    DraftDepth depth(8), none(0);
    World world{.guess = guess, .chance = 0.05};
    World same = world;
    world.Play(depth, 100);  // the first steps are dearer, and few
    const double rate = world.Play(depth, 3000);
    EXPECT_GT(rate, 0.95 * same.Play(none, 3000)) << guess;
  }
}

TEST(DraftDepth, FindsTheDepthBetween) {
  // Each further guess is worth less: with these, two to four are best.
  DraftDepth depth(15);
  World world{.guess = 0.25, .chance = 0.7};
  world.Play(depth, 2000);
  int guesses = 0;
  world.Play(depth, 1000, &guesses);
  EXPECT_GT(guesses, 1000);
  EXPECT_LT(guesses, 5500);
}

TEST(DraftDepth, FollowsATextThatChanges) {
  DraftDepth depth(6);
  World dull{.guess = 0.5, .chance = 0.0};
  World easy{.guess = 0.1, .chance = 0.95};
  dull.Play(depth, 500);
  easy.Play(depth, 1500);
  int guesses = 0;
  easy.Play(depth, 200, &guesses);
  EXPECT_GT(guesses, 600) << "it goes up again";
  dull.Play(depth, 1500);
  guesses = 0;
  dull.Play(depth, 200, &guesses);
  EXPECT_LT(guesses, 40) << "and down";
}

TEST(DraftDepth, GuessesThatAreSeldomFoundAreStillTried) {
  DraftDepth depth(4);
  World dull{.chance = 0.0, .found = 0.05};
  World easy{.chance = 0.95, .found = 0.3};
  dull.Play(depth, 1000);
  easy.Play(depth, 1500);
  int guesses = 0;
  easy.Play(depth, 1000, &guesses);
  EXPECT_GT(guesses, 800) << "of some 1,200 that there were";
}

TEST(DraftDepth, PassesOverTimesOfNoUse) {
  DraftDepth depth(3);
  for (const double seconds : {0.0, -1.0, std::nan("")}) depth.Record(3, 4, seconds);
  depth.Record(9, 1, 1.0);
  depth.Record(-1, 1, 1.0);
  EXPECT_EQ(depth.Next(), 3);
}

TEST(DraftDepth, NoneIsNone) {
  DraftDepth depth(0);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(depth.Next(), 0);
    depth.Record(0, 1, 1.0);
  }
}

}  // namespace
}  // namespace reprise
