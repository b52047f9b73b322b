#include "decode/sampler.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <string>

namespace reprise {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t Choose(const SamplingNumbers& numbers, std::span<const float> logits, std::span<const int32_t> window = {}, uint64_t seed = 0) {
  SampleWorkspace workspace(static_cast<int>(logits.size()));
  Generator generator{seed, 0};
  const auto token = ChooseToken(numbers, logits, window, generator, workspace);
  EXPECT_TRUE(token.ok()) << token.status().message();
  return token.ok() ? *token : -1;
}

// What sampling.h says, step by step, with nothing clever. The probability of every token.
std::vector<double> NaiveDistribution(const SamplingNumbers& n, std::vector<float> logits, std::vector<int32_t> window) {
  if (n.penalty_window >= 0 && window.size() > static_cast<size_t>(n.penalty_window)) {
    window.erase(window.begin(), window.end() - n.penalty_window);
  }
  std::map<int32_t, int> counts;
  for (const int32_t id : window) ++counts[id];
  for (const auto& [id, count] : counts) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / n.repetition_penalty : logit * n.repetition_penalty;
    logit = logit - static_cast<float>(count) * n.frequency_penalty - n.presence_penalty;
  }
  std::vector<int32_t> ids;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isnan(logits[i]) && logits[i] != -kInfinity) ids.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  std::vector<double> p(logits.size(), 0);
  if (n.temperature == 0) {
    p[static_cast<size_t>(ids[0])] = 1;
    return p;
  }
  const auto normalise = [&] {
    double total = 0;
    for (const int32_t id : ids) total += p[static_cast<size_t>(id)];
    for (const int32_t id : ids) p[static_cast<size_t>(id)] /= total;
  };
  const auto keep = [&](size_t count) {
    for (size_t i = count; i < ids.size(); ++i) p[static_cast<size_t>(ids[i])] = 0;
    ids.resize(std::min(count, ids.size()));
    normalise();
  };
  for (const int32_t id : ids) {
    const double difference = static_cast<double>(logits[static_cast<size_t>(id)]) - logits[static_cast<size_t>(ids[0])];
    p[static_cast<size_t>(id)] = std::exp(difference / static_cast<double>(n.temperature));
  }
  normalise();
  if (n.top_k > 0) keep(static_cast<size_t>(n.top_k));
  if (n.top_p < 1) {
    double sum = 0;
    size_t count = 0;
    do {
      sum += p[static_cast<size_t>(ids[count++])];
    } while (count < ids.size() && sum < static_cast<double>(n.top_p));
    keep(count);
  }
  size_t count = 1;
  while (count < ids.size() && p[static_cast<size_t>(ids[count])] >= static_cast<double>(n.min_p) * p[static_cast<size_t>(ids[0])]) ++count;
  keep(count);
  return p;
}

int32_t NaiveChoice(const std::vector<double>& distribution, double uniform) {
  double sum = 0;
  int32_t last = -1;
  for (size_t i = 0; i < distribution.size(); ++i) {
    if (distribution[i] == 0) continue;
    sum += distribution[i];
    last = static_cast<int32_t>(i);
    if (sum > uniform) break;
  }
  return last;
}

std::vector<float> SomeLogits(size_t count, uint64_t seed, float scale = 4) {
  Generator generator{seed, 0};
  std::vector<float> logits(count);
  for (float& logit : logits) logit = scale * (static_cast<float>(generator.Uniform()) - 0.5f) * 2;
  return logits;
}

void ExpectDistribution(const SamplingNumbers& numbers, const std::vector<float>& logits, const std::vector<int32_t>& window = {}) {
  const std::vector<double> expected = NaiveDistribution(numbers, logits, window);
  SampleWorkspace workspace(static_cast<int>(logits.size()));
  Generator generator{2024, 0};
  constexpr int kDraws = 20000;
  std::vector<int> seen(logits.size());
  for (int i = 0; i < kDraws; ++i) {
    const auto token = ChooseToken(numbers, logits, window, generator, workspace);
    ASSERT_TRUE(token.ok());
    ++seen[static_cast<size_t>(*token)];
  }
  double chi_square = 0;
  int degrees = -1;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == 0) {
      EXPECT_EQ(seen[i], 0) << "token " << i;
      continue;
    }
    const double mean = expected[i] * kDraws;
    chi_square += (seen[i] - mean) * (seen[i] - mean) / mean;
    ++degrees;
  }
  // Wilson and Hilferty's approximation of the value exceeded once in a thousand.
  const double d = std::max(degrees, 1);
  const double limit = d * std::pow(1 - 2 / (9 * d) + 3.09 * std::sqrt(2 / (9 * d)), 3);
  EXPECT_LT(chi_square, limit) << degrees << " degrees of freedom";
}

TEST(Sampler, GreedyTakesTheGreatestAndOfEqualsTheFirst) {
  EXPECT_EQ(Choose({}, std::vector<float>{1, 3, 2}), 1);
  EXPECT_EQ(Choose({}, std::vector<float>{1, 3, 3, 3}), 1);
  EXPECT_EQ(Choose({}, std::vector<float>{-0.0f, 0.0f}), 0);
  EXPECT_EQ(Choose({}, std::vector<float>{-kInfinity, -5}), 1);
}

TEST(Sampler, GreedyDrawsNothingAndSamplingDrawsOnce) {
  const std::vector<float> logits = SomeLogits(10, 1);
  SampleWorkspace workspace(10);
  Generator generator{1, 7};
  ASSERT_TRUE(ChooseToken({}, logits, {}, generator, workspace).ok());
  EXPECT_EQ(generator.drawn, 7);
  ASSERT_TRUE(ChooseToken({.temperature = 1, .top_k = 3, .top_p = 0.5f, .min_p = 0.1f}, logits, {}, generator, workspace).ok());
  EXPECT_EQ(generator.drawn, 8);
}

TEST(Sampler, NotANumberIsNeverChosen) {
  for (const float temperature : {0.0f, 1.0f, 1e-30f, 1e30f}) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
      EXPECT_EQ(Choose({.temperature = temperature}, std::vector<float>{kNan, -3, kNan, -kInfinity}, {}, seed), 1);
      EXPECT_EQ(Choose({.temperature = temperature, .top_k = 2, .top_p = 0.9f}, std::vector<float>{kNan, -3, kNan, -kInfinity}, {}, seed),
                1);
    }
  }
}

TEST(Sampler, PlusInfinityIsCertain) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_EQ(Choose({.temperature = 1}, std::vector<float>{5, kInfinity, 9}, {}, seed), 1);
    const int32_t token = Choose({.temperature = 1, .top_p = 0.9f}, std::vector<float>{5, kInfinity, 9, kInfinity}, {}, seed);
    EXPECT_TRUE(token == 1 || token == 3);
  }
}

TEST(Sampler, NoLogitLeftIsAnErrorInOneSentence) {
  for (const float temperature : {0.0f, 1.0f}) {
    SampleWorkspace workspace(2);
    Generator generator;
    const auto token = ChooseToken({.temperature = temperature}, std::vector<float>{kNan, -kInfinity}, {}, generator, workspace);
    ASSERT_FALSE(token.ok());
    EXPECT_EQ(token.status().code(), StatusCode::kInternal);
    EXPECT_EQ(token.status().message(), "no token can be chosen: every logit is NaN or minus infinity");
  }
}

TEST(Sampler, LogitsOfAnotherVocabularyAreRefused) {
  SampleWorkspace workspace(2);
  Generator generator;
  const auto token = ChooseToken({}, std::vector<float>{1, 2, 3}, {}, generator, workspace);
  ASSERT_FALSE(token.ok());
  EXPECT_EQ(token.status().code(), StatusCode::kInvalidArgument);
}

TEST(Sampler, ExtremeTemperatures) {
  const std::vector<float> logits = {1, 1.0001f, 0};
  for (uint64_t seed = 0; seed < 50; ++seed)
    EXPECT_EQ(Choose({.temperature = std::numeric_limits<float>::denorm_min()}, logits, {}, seed), 1);
  ExpectDistribution({.temperature = std::numeric_limits<float>::max()}, logits);  // uniform
}

TEST(Sampler, EachOptionAloneGivesItsDistribution) {
  const std::vector<float> logits = SomeLogits(40, 3);
  const std::vector<int32_t> window = {1, 2, 3, 3, 3, 17, 9, 9, 30, 31, 31, 31, 31};
  ExpectDistribution({.temperature = 1}, logits);
  ExpectDistribution({.temperature = 0.5f}, logits);
  ExpectDistribution({.temperature = 2}, logits);
  ExpectDistribution({.temperature = 1, .top_k = 1}, logits);
  ExpectDistribution({.temperature = 1, .top_k = 7}, logits);
  ExpectDistribution({.temperature = 1, .top_k = 400}, logits);
  ExpectDistribution({.temperature = 1, .top_p = 0}, logits);
  ExpectDistribution({.temperature = 1, .top_p = 0.6f}, logits);
  ExpectDistribution({.temperature = 1, .min_p = 0.05f}, logits);
  ExpectDistribution({.temperature = 1, .min_p = 1}, logits);
  ExpectDistribution({.temperature = 1, .repetition_penalty = 1.5f}, logits, window);
  ExpectDistribution({.temperature = 1, .presence_penalty = 1}, logits, window);
  ExpectDistribution({.temperature = 1, .frequency_penalty = 0.7f}, logits, window);
  ExpectDistribution({.temperature = 1, .frequency_penalty = 0.7f, .penalty_window = 3}, logits, window);
  ExpectDistribution({.temperature = 1, .frequency_penalty = 0.7f, .penalty_window = -1}, logits, window);
}

TEST(Sampler, AllOptionsTogetherGiveTheirDistribution) {
  ExpectDistribution({.temperature = 0.8f,
                      .top_k = 20,
                      .top_p = 0.9f,
                      .min_p = 0.02f,
                      .repetition_penalty = 1.2f,
                      .presence_penalty = 0.3f,
                      .frequency_penalty = 0.2f,
                      .penalty_window = 5},
                     SomeLogits(40, 5), {4, 4, 4, 8, 15, 16, 23, 38, 38, -1, 40, 1 << 30});
}

TEST(Sampler, TiesAtTheCutGoToTheSmallerId) {
  const std::vector<float> logits = {0, 1, 1, 1, 1, 0};
  std::map<int32_t, int> seen;
  for (uint64_t seed = 0; seed < 200; ++seed) ++seen[Choose({.temperature = 1, .top_k = 2}, logits, {}, seed)];
  EXPECT_EQ(seen.size(), 2);
  EXPECT_GT(seen[1], 0);
  EXPECT_GT(seen[2], 0);
}

// Options that remove nothing change nothing, to the last bit of every sum.
TEST(Sampler, AnOptionThatRemovesNothingChangesNothing) {
  const std::vector<float> logits = SomeLogits(500, 9);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const int32_t plain = Choose({.temperature = 1}, logits, {}, seed);
    EXPECT_EQ(Choose({.temperature = 1, .top_k = 500}, logits, {}, seed), plain);
    EXPECT_EQ(Choose({.temperature = 1, .top_p = 0.99999994f, .min_p = 1e-9f}, logits, {}, seed), plain);
  }
}

TEST(Sampler, WorkspaceCarriesNothingOver) {
  const std::vector<float> first = SomeLogits(300, 1);
  const std::vector<float> second = SomeLogits(300, 2);
  const std::vector<int32_t> window = {5, 5, 299, 0, 7};
  const SamplingNumbers numbers{.temperature = 1, .top_k = 50, .top_p = 0.9f, .min_p = 0.01f, .frequency_penalty = 1};
  SampleWorkspace used(300);
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Generator generator{seed, 0};
    ASSERT_TRUE(ChooseToken(numbers, first, window, generator, used).ok());
    Generator again{seed, 0};
    EXPECT_EQ(*ChooseToken(numbers, second, window, again, used), Choose(numbers, second, window, seed));
  }
}

// Pinned choices: a machine, compiler or library on which these differ breaks every saved capsule of a sampled stream.
TEST(Sampler, PinnedStream) {
  const std::vector<float> logits = SomeLogits(1000, 77);
  SampleWorkspace workspace(1000);
  Generator generator{42, 0};
  std::vector<int32_t> tokens;
  tokens.reserve(8);
  for (int i = 0; i < 8; ++i) {
    tokens.push_back(*ChooseToken({.temperature = 0.7f, .top_k = 200, .top_p = 0.95f, .min_p = 0.01f, .presence_penalty = 0.5f}, logits,
                                  tokens, generator, workspace));
  }
  EXPECT_EQ(tokens, (std::vector<int32_t>{615, 995, 788, 701, 310, 309, 233, 349}));
}

RC_GTEST_PROP(Sampler, ChoosesAsTheNaiveReference, ()) {
  const int vocabulary = *rc::gen::inRange(1, 400);
  // Coarse logits, so that ties are common.
  const auto coarse = *rc::gen::container<std::vector<int>>(static_cast<size_t>(vocabulary), rc::gen::inRange(-40, 40));
  std::vector<float> logits(coarse.size());
  std::transform(coarse.begin(), coarse.end(), logits.begin(), [](int q) { return static_cast<float>(q) * 0.25f; });
  if (*rc::gen::inRange(0, 4) == 0) logits[logits.size() / 2] = kNan;
  if (*rc::gen::inRange(0, 4) == 0) logits[logits.size() / 3] = -kInfinity;
  RC_PRE(std::any_of(logits.begin(), logits.end(), [](float logit) { return logit > -kInfinity; }));
  const auto window = *rc::gen::container<std::vector<int32_t>>(rc::gen::inRange<int32_t>(-2, vocabulary + 2));
  SamplingNumbers numbers;
  numbers.temperature = *rc::gen::element(0.0f, 0.3f, 0.7f, 1.0f, 1.9f);
  numbers.top_k = *rc::gen::element(0, 1, 2, 5, 40, 1000);
  numbers.top_p = *rc::gen::element(1.0f, 0.99f, 0.8f, 0.31f, 0.0f);
  numbers.min_p = *rc::gen::element(0.0f, 0.013f, 0.21f, 0.9f);
  numbers.repetition_penalty = *rc::gen::element(1.0f, 1.1f, 0.8f);
  numbers.presence_penalty = *rc::gen::element(0.0f, 0.5f, -0.5f);
  numbers.frequency_penalty = *rc::gen::element(0.0f, 0.3f, -0.2f);
  numbers.penalty_window = *rc::gen::element(-1, 0, 3, 64);
  RC_ASSERT(numbers.Fault() == nullptr);
  const uint64_t seed = *rc::gen::arbitrary<uint64_t>();
  const auto distribution = NaiveDistribution(numbers, logits, window);
  Generator generator{seed, 0};
  RC_ASSERT(Choose(numbers, logits, window, seed) == NaiveChoice(distribution, generator.Uniform()));
}

TEST(SamplingOptions, DefaultsAndRecommendationsPass) {
  EXPECT_TRUE(SamplingOptions().Check().ok());
  EXPECT_TRUE((SamplingOptions{.temperature = 0.6f, .top_k = 20, .top_p = 0.95f, .stop = {"</s>", "\n\n"}}).Check().ok());
}

TEST(SamplingOptions, EachImpossibleValueIsNamed) {
  const struct {
    SamplingOptions options;
    std::string_view named;
  } cases[] = {
      {{.temperature = -1}, "temperature"},
      {{.temperature = kNan}, "temperature"},
      {{.temperature = kInfinity}, "temperature"},
      {{.top_k = -1}, "top_k"},
      {{.top_p = 1.01f}, "top_p"},
      {{.top_p = -0.01f}, "top_p"},
      {{.top_p = kNan}, "top_p"},
      {{.min_p = 2}, "min_p"},
      {{.repetition_penalty = 0}, "repetition_penalty"},
      {{.repetition_penalty = kInfinity}, "repetition_penalty"},
      {{.presence_penalty = kNan}, "presence_penalty"},
      {{.frequency_penalty = -kInfinity}, "frequency_penalty"},
      {{.penalty_window = -2}, "penalty_window"},
      {{.stop = {""}}, "empty"},
      {{.stop = {"\xE2\x82"}}, "UTF-8"},
      {{.stop = std::vector<std::string>(17, "x")}, "at most 16"},
      {{.stop = {std::string(1000, 'a'), std::string(25, 'b')}}, "at most 1024"},
  };
  for (const auto& c : cases) {
    const Status status = c.options.Check();
    ASSERT_FALSE(status.ok()) << c.named;
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(c.named), std::string::npos) << status.message();
  }
  EXPECT_TRUE((SamplingOptions{.stop = {std::string(1000, 'a'), std::string(24, 'b')}}).Check().ok());
}

TEST(Sampler, ABiasIsAddedToItsTokenAlone) {
  const std::vector<float> logits = {1, 2, 3, 0};
  SampleWorkspace workspace(4);
  Generator generator;
  SamplingOptions options;
  const auto choose = [&] { return *ChooseToken({}, logits, {}, generator, workspace, TokenBiases::Of(options)); };
  EXPECT_EQ(choose(), 2);
  options.bias = {{0, 2.5f}};
  EXPECT_EQ(choose(), 0);
  options.bias = {{1, -100}, {2, -100}, {3, 0.5f}, {900, 100}};  // an id that no logit has is passed over
  EXPECT_EQ(choose(), 0);
  // After the penalties, and together with them.
  options.bias = {{2, 1.5f}};
  const std::vector<int32_t> window = {2};
  EXPECT_EQ(*ChooseToken({.presence_penalty = 2}, logits, window, generator, workspace, TokenBiases::Of(options)), 2);
}

TEST(Sampler, ImpossibleBiasesAreNamed) {
  SamplingOptions options;
  options.bias = {{3, 1}, {3, 2}};
  EXPECT_NE(options.Check().message().find("ascending"), std::string::npos);
  options.bias = {{-1, 1}};
  EXPECT_FALSE(options.Check().ok());
  options.bias = {{1, kNan}};
  EXPECT_NE(options.Check().message().find("finite"), std::string::npos);
  options.bias.assign(SamplingOptions::kMaxBiases + 1, {1, 1.0f});
  EXPECT_NE(options.Check().message().find("300"), std::string::npos);
}

}  // namespace
}  // namespace reprise
