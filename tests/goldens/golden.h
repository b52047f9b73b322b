// What Hugging Face transformers computed on a tiny model (tools/goldens makes the files), and the comparison with what an engine computes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "session/engine.h"

namespace reprise {

inline constexpr char kGoldens[] = "tests/data/goldens/";

template <class T>
std::vector<T> ReadGolden(const std::string& name) {
  const auto bytes = ReadFile(kGoldens + name, 1 << 24);
  EXPECT_TRUE(bytes.ok()) << bytes.status().message();
  if (!bytes.ok()) return {};
  std::vector<T> values(bytes->size() / sizeof(T));
  std::memcpy(values.data(), bytes->data(), values.size() * sizeof(T));
  return values;
}

struct Golden {
  explicit Golden(const std::string& name)
      : model(kGoldens + name + ".gguf"),
        ids(ReadGolden<int32_t>(name + ".ids.i32")),
        greedy(ReadGolden<int32_t>(name + ".greedy.i32")),
        logits(ReadGolden<float>(name + ".logits.f32")) {}
  std::string model;
  std::vector<int32_t> ids, greedy;
  std::vector<float> logits;  // rows of the vocabulary, of the last of `ids`
};

// The greatest difference; infinity when the sizes differ or one is not a number.
inline double Worst(std::span<const float> expected, std::span<const float> actual) {
  double worst = expected.size() == actual.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(expected.size(), actual.size()); ++i) {
    const double difference = std::fabs(static_cast<double>(expected[i]) - actual[i]);
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}

// The logits of the golden's last tokens, and the first `greedy` tokens that follow. Steps of at most `chunk` rows; the rows whose logits are wanted come in steps that row logits can be had of.
inline void ExpectLogits(Engine& engine, const Golden& golden, int chunk, size_t greedy = SIZE_MAX) {
  auto lane = engine.space().NewLane();
  ASSERT_TRUE(lane.ok());
  const auto vocabulary = static_cast<size_t>(engine.info().vocabulary);
  ASSERT_FALSE(golden.logits.empty());
  ASSERT_FALSE(golden.greedy.empty());
  const size_t first = golden.ids.size() - golden.logits.size() / vocabulary;
  double worst = 0;
  for (size_t at = 0; at < golden.ids.size();) {
    const bool wanted = at >= first;
    const size_t most =
        wanted ? std::min<size_t>(static_cast<size_t>(chunk), Engine::kMaxLogitRows) : std::min(static_cast<size_t>(chunk), first - at);
    const size_t count = std::min(most, golden.ids.size() - at);
    const Engine::Feed feed{lane->get(), std::span<const int32_t>(golden.ids).subspan(at, count)};
    ASSERT_TRUE(engine.Advance(std::span(&feed, 1), wanted ? Engine::Wanted::kEveryRow : Engine::Wanted::kBoundary).ok());
    if (wanted) {
      ASSERT_TRUE(engine.ComputeRowLogits().ok());
      for (size_t row = 0; row < count; ++row) {
        const auto expected = std::span<const float>(golden.logits).subspan((at + row - first) * vocabulary, vocabulary);
        worst = std::max(worst, Worst(expected, engine.logits(static_cast<int>(row))));
      }
    }
    at += count;
  }
  EXPECT_LT(worst, 2e-3) << "in steps of " << chunk;
  for (size_t i = 0; i < std::min(greedy, golden.greedy.size()); ++i) {
    Lane* one = lane->get();
    ASSERT_TRUE(engine.ComputeLogits(std::span(&one, 1)).ok());
    ASSERT_EQ(engine.greedy(0), golden.greedy[i]) << "token " << i << " of the continuation, after steps of " << chunk;
    const Engine::Feed feed{one, std::span<const int32_t>(golden.greedy).subspan(i, 1)};
    ASSERT_TRUE(engine.Advance(std::span(&feed, 1)).ok());
  }
}

}  // namespace reprise
