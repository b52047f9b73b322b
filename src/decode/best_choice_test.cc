// ChooseFromBest: from the best of a row it chooses what the whole row would, or it says that it cannot.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <random>

#include "decode/sampler.h"

namespace reprise {
namespace {

constexpr size_t kBest = 128;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The best of a row by the plain definition.
struct Best {
  Best(std::span<const float> row, size_t most) {
    for (size_t i = 0; i < row.size(); ++i) {
      if (row[i] > -kInfinity) ids.push_back(static_cast<int32_t>(i));
    }
    std::stable_sort(ids.begin(), ids.end(),
                     [&](int32_t a, int32_t b) { return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)]; });
    all = ids.size() < most;
    ids.resize(std::min(ids.size(), most));
    std::sort(ids.begin(), ids.end());
    for (const int32_t id : ids) logits.push_back(row[static_cast<size_t>(id)]);
  }
  BestLogits view() const { return {logits, ids, all}; }
  std::vector<int32_t> ids;
  std::vector<float> logits;
  bool all;
};

// What the row weighs, in parts of `columns` by the plain definition, wrong by `share` of what they may be wrong by.
constexpr double kError = 1e-5;
std::vector<double> PartWeights(std::span<const float> row, float temperature, size_t columns, double share) {
  float greatest = -kInfinity;
  for (const float x : row) greatest = x > greatest ? x : greatest;
  std::vector<double> parts((row.size() + columns - 1) / columns);
  for (size_t i = 0; i < row.size(); ++i) {
    if (!(row[i] > -kInfinity)) continue;
    const double weight = row[i] == greatest ? 1 : std::exp((static_cast<double>(row[i]) - greatest) / static_cast<double>(temperature));
    parts[i / columns] += weight * (1 + share * kError);
  }
  return parts;
}

// Whether the best decide; where they do, that it is as the whole row would.
bool Decided(const SamplingNumbers& numbers, std::span<const float> row, std::span<const int32_t> window = {},
             const SamplingOptions& biased = {}, size_t most = kBest, std::optional<double> mass_share = {}) {
  const TokenBiases biases = TokenBiases::Of(biased);
  SampleWorkspace workspace(static_cast<int>(row.size()));
  const Best best(row, most);
  bool decided = false;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    Generator whole{seed, 5}, few{seed, 5};
    const auto expected = ChooseToken(numbers, row, window, whole, workspace, biases);
    std::vector<double> parts;
    if (mass_share && numbers.temperature > 0) parts = PartWeights(row, numbers.temperature, 64, *mass_share);
    const auto got = ChooseFromBest(numbers, best.view(), window, few, workspace, biases, {}, {parts, 64, kError});
    EXPECT_EQ(got.status().code(), got.ok() ? StatusCode::kOk : expected.status().code());
    if (!got.ok()) continue;
    decided = got->has_value();
    if (decided) {
      EXPECT_EQ(**got, *expected);
    }
    EXPECT_EQ(few.drawn, decided ? whole.drawn : 5u);
  }
  return decided;
}

std::vector<float> Row(size_t count, uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> row(count);
  for (float& x : row) x = normal(random);
  return row;
}

// The tokens that a penalty hurts most: those that would be chosen.
std::vector<int32_t> Window(std::span<const float> row, size_t count) {
  const Best best(row, count);
  return best.ids;
}

TEST(ChooseFromBest, DecidesWhatIsUsual) {
  const auto row = Row(5000, 1, 3);
  const auto window = Window(row, 64);
  EXPECT_TRUE(Decided({}, row)) << "greedy";
  EXPECT_TRUE(Decided({.repetition_penalty = 1.3f, .presence_penalty = 9}, row, window)) << "greedy, all of the window taken away";
  const SamplingNumbers usual{.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f};
  EXPECT_TRUE(Decided(usual, row));
  SamplingNumbers penalised = usual;
  penalised.repetition_penalty = 1.1f, penalised.presence_penalty = 50, penalised.frequency_penalty = 1;
  EXPECT_TRUE(Decided(penalised, row, window)) << "a window that takes 64 of the best away";
  EXPECT_TRUE(Decided(usual, row, {}, {.bias = {{window[0], 5.0f}, {window[1], -100.0f}, {window[2], -100.0f}}}));
}

TEST(ChooseFromBest, DecidesWhereTheRestWeighsTooLittle) {
  auto row = Row(5000, 2, 1);
  row[4321] = 60;
  EXPECT_TRUE(Decided({.temperature = 1}, row)) << "nothing at all";
  EXPECT_TRUE(Decided({.temperature = 1, .top_p = 0.9f}, row)) << "nothing at all";
  EXPECT_FALSE(Decided({.temperature = 1.5f}, row)) << "very little";
  row[4321] = 8;
  EXPECT_TRUE(Decided({.temperature = 1, .min_p = 0.05f}, row)) << "less than min_p asks";
  EXPECT_FALSE(Decided({.temperature = 1, .min_p = 1e-9f}, row));
  EXPECT_FALSE(Decided({.temperature = 1, .top_p = 0.9f, .min_p = 0.05f}, row)) << "top_p takes the sum of all";
}

TEST(ChooseFromBest, DecidesEverythingWhereTheyAreAll) {
  const auto row = Row(100, 3, 1);
  EXPECT_TRUE(Decided({.temperature = 2, .repetition_penalty = 0.5f}, row, Window(row, 100), {.bias = {{1, 7.0f}}}));
  EXPECT_TRUE(Decided({.temperature = 2, .top_k = 1000, .top_p = 0.9f}, row));
  const std::vector<float> none(100, -kInfinity);
  Decided({}, none);  // both fail
}

TEST(ChooseFromBest, AsksForTheRowWhereAnotherTokenMightCount) {
  const auto row = Row(5000, 4, 3);
  const auto unknown = static_cast<int32_t>(std::min_element(row.begin(), row.end()) - row.begin());
  const std::vector<int32_t> window = {unknown};
  const SamplingNumbers usual{.temperature = 1, .top_k = 40};
  EXPECT_FALSE(Decided({.temperature = 1}, row)) << "the whole distribution";
  EXPECT_FALSE(Decided({.temperature = 1, .top_k = 129}, row));
  EXPECT_FALSE(Decided({}, row, {}, {.bias = {{unknown, 1.0f}}})) << "a bias that raises it";
  EXPECT_TRUE(Decided(usual, row, {}, {.bias = {{unknown, -1.0f}}})) << "a bias that does not";
  for (const SamplingNumbers& raising :
       {SamplingNumbers{.repetition_penalty = 0.9f}, SamplingNumbers{.presence_penalty = -1}, SamplingNumbers{.frequency_penalty = -1}}) {
    EXPECT_FALSE(Decided(raising, row, window));
  }
  // A penalty that takes so many away that fewer than top_k are known to be before the rest.
  const auto best = Window(row, 100);
  EXPECT_FALSE(Decided({.temperature = 1, .top_k = 40, .presence_penalty = 50, .penalty_window = -1}, row, best));
}

TEST(ChooseFromBest, DecidesByTheMassOfTheRow) {
  const SamplingNumbers usual{.temperature = 0.5f, .top_p = 0.9f}, wide{.temperature = 3, .top_p = 0.9f};
  SamplingNumbers penalised = usual, many = usual;
  penalised.presence_penalty = 1;
  many.top_k = 1000;
  int decided = 0;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const auto row = Row(5000, seed, 3);
    EXPECT_FALSE(Decided(usual, row)) << "without it";
    decided += Decided(usual, row, {}, {}, kBest, 0.5) ? 1 : 0;
    decided += Decided(penalised, row, Window(row, 20), {}, kBest, -0.5) ? 1 : 0;
    EXPECT_FALSE(Decided(wide, row, {}, {}, kBest, 0)) << "more tokens are left than are known";
  }
  EXPECT_GT(decided, 36) << "of 40";
  // What the others weigh is nothing, or all but nothing, so that none of what is unknown of it matters.
  auto row = Row(5000, 30, 1);
  row[7] = 14, row[8] = 13.5f;
  EXPECT_TRUE(Decided(many, row, {}, {}, kBest, 0));
  const auto unknown = static_cast<int32_t>(std::min_element(row.begin(), row.end()) - row.begin());
  EXPECT_TRUE(Decided(usual, row, {}, {.bias = {{unknown, -5.0f}}}, kBest, 0));
  EXPECT_FALSE(Decided(usual, row, {}, {.bias = {{unknown, 5.0f}}}, kBest, 0));
}

TEST(ChooseFromBest, IsNeverAnotherChoice) {
  std::mt19937 random(5);
  const auto any = [&](auto... of) {
    const float list[] = {static_cast<float>(of)...};
    return list[random() % sizeof...(of)];
  };
  int decided = 0, by_mass = 0;
  constexpr int kRounds = 20000;
  for (int round = 0; round < kRounds; ++round) {
    auto row = Row(1 + random() % 300, random(), any(0.5, 4, 30));
    if (round % 2 == 0) {
      for (float& x : row) x = std::round(x);  // ties
    }
    for (int i = 0; i < 3; ++i) row[random() % row.size()] = any(-kInfinity, kInfinity, NAN, 0.0, -0.0, 3);
    std::vector<int32_t> window(random() % 70);
    for (int32_t& id : window) id = static_cast<int32_t>(random() % (row.size() + 4)) - 2;
    SamplingNumbers numbers;
    numbers.temperature = any(0, 0.2, 0.8, 1, 3);
    numbers.top_k = static_cast<int32_t>(any(0, 1, 5, 20, 500));
    numbers.top_p = any(1, 0.95, 0.4, 0);
    numbers.min_p = any(0, 0.02, 0.3, 1);
    numbers.repetition_penalty = any(1, 1, 1.1, 0.9);
    numbers.presence_penalty = any(0, 0, 0.7, -0.5);
    numbers.frequency_penalty = any(0, 0, 0.3, -0.1);
    numbers.penalty_window = static_cast<int32_t>(any(-1, 0, 8, 64));
    SamplingOptions biased;
    for (int32_t id = 0; id < 300; id += 1 + static_cast<int32_t>(random() % 200)) biased.bias.emplace_back(id, any(-100, -1, 0.5, 5));
    const SamplingOptions& biases = random() % 3 == 0 ? biased : SamplingOptions();
    const size_t most = 16 + random() % 64;
    const bool alone = Decided(numbers, row, window, biases, most);
    const bool weighed = Decided(numbers, row, window, biases, most, any(-1, 0, 1));
    EXPECT_LE(alone, weighed);
    decided += alone ? 1 : 0;
    by_mass += weighed && !alone ? 1 : 0;
  }
  EXPECT_GT(by_mass, kRounds / 100);
  EXPECT_GT(decided, kRounds / 4);
  EXPECT_LT(decided, kRounds);
}

// Few tokens, of which half are known and the best may be taken down: where it matters how much the others weigh, and who ranks before them.
TEST(ChooseFromBest, IsNeverAnotherChoiceByTheMass) {
  std::mt19937 random(6);
  const auto any = [&](auto... of) {
    const float list[] = {static_cast<float>(of)...};
    return list[random() % sizeof...(of)];
  };
  int decided = 0;
  constexpr int kRounds = 60000;
  for (int round = 0; round < kRounds; ++round) {
    const auto row = Row(20 + random() % 30, random(), any(0.5, 1, 2));
    const Best best(row, 3 + random() % 6);
    std::vector<int32_t> window;
    for (const int32_t id : best.ids) {
      if (random() % 2 == 0) window.push_back(id);
    }
    if (random() % 4 == 0) window.push_back(static_cast<int32_t>(random() % row.size()));
    SamplingNumbers numbers{.temperature = any(0.3, 0.7, 1.5), .top_k = static_cast<int32_t>(any(0, 0, 12, 25))};
    numbers.top_p = static_cast<float>(random() % 1000) / 1000;
    numbers.presence_penalty = any(0, 0.5, 1, 4);
    decided += Decided(numbers, row, window, {}, 8 + random() % 10, any(-1, 1)) ? 1 : 0;
  }
  EXPECT_GT(decided, kRounds / 10);
}

struct PartOf : RowReader {
  explicit PartOf(std::span<const float> row_in) : row(row_in) {}
  std::span<const float> Read(size_t first, size_t count) override {
    ++reads;
    return row.subspan(first, std::min(count, row.size() - first));
  }
  std::span<const float> row;
  int reads = 0;
};

// A draw from the whole distribution: the whole row's choice, or none, from one part; and seldom none, where the weights are as good as a device's.
TEST(ChooseFromPart, IsTheRowsChoiceFromOnePart) {
  std::mt19937 random(8);
  int decided = 0, coarse = 0;
  constexpr int kRounds = 8000;
  for (int round = 0; round < kRounds; ++round) {
    auto row = Row(1 + random() % 2000, random(), round % 3 == 0 ? 0.1f : 3.0f);
    for (int i = 0; i < 3; ++i) row[random() % row.size()] = std::array{-kInfinity, std::nanf(""), 0.0f}[random() % 3];
    const SamplingNumbers numbers{.temperature = round % 2 == 0 ? 1.0f : 0.4f};
    const Best best(row, kBest);
    SampleWorkspace workspace(static_cast<int>(row.size()));
    for (const double error : {kError, 1e-11}) {
      constexpr size_t kColumns = 8;
      auto parts = PartWeights(row, numbers.temperature, kColumns, 0);
      for (double& part : parts) part *= error == kError ? 1 + (random() % 2 == 0 ? kError : -kError) : 1;
      Generator whole{random(), 5}, few = whole;
      PartOf reader(row);
      const auto expected = ChooseToken(numbers, row, {}, whole, workspace);
      const auto got = ChooseFromPart(numbers, best.view(), {parts, kColumns, error}, reader, {}, few);
      ASSERT_TRUE(got.ok());
      EXPECT_LE(reader.reads, 1);
      if (got->has_value()) {
        EXPECT_EQ(**got, *expected);
      }
      EXPECT_EQ(few.drawn, got->has_value() ? whole.drawn : 5u);
      (error == kError ? coarse : decided) += got->has_value() ? 1 : 0;
    }
  }
  EXPECT_GT(decided, kRounds * 99 / 100);
  EXPECT_GT(coarse, kRounds / 2);
  EXPECT_LT(coarse, decided);
}

TEST(ChooseFromPart, AsksForTheRowWhereTokensAreTakenAwayOrChanged) {
  const auto row = Row(500, 3, 2);
  const Best best(row, kBest);
  const auto parts = PartWeights(row, 1, 64, 0);
  const RowWeights weights{parts, 64, 1e-11};
  const std::vector<int32_t> window = {3};
  const std::vector<uint64_t> all(8, ~uint64_t{0});
  const auto decides = [&](const SamplingNumbers& numbers, std::span<const int32_t> context = {}, const SamplingOptions& biased = {},
                           AllowedTokens allowed = {}) {
    Generator generator{1, 0};
    PartOf reader(row);
    return ChooseFromPart(numbers, best.view(), weights, reader, context, generator, TokenBiases::Of(biased), allowed)->has_value();
  };
  EXPECT_TRUE(decides({.temperature = 1}));
  EXPECT_TRUE(decides({.temperature = 1}, window)) << "a context that nothing is made of";
  EXPECT_FALSE(decides({}));
  EXPECT_FALSE(decides({.temperature = 1, .top_k = 200}));
  EXPECT_FALSE(decides({.temperature = 1, .top_p = 0.9f}));
  EXPECT_FALSE(decides({.temperature = 1, .min_p = 0.01f}));
  EXPECT_FALSE(decides({.temperature = 1, .presence_penalty = 1}, window));
  EXPECT_FALSE(decides({.temperature = 1}, {}, {.bias = {{1, 1.0f}}}));
  EXPECT_FALSE(decides({.temperature = 1}, {}, {}, all));
}

}  // namespace
}  // namespace reprise
