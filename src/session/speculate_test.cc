// Speculation must not show: whatever is guessed, the tokens, the text, the boundaries and the state that follows are those of going one by one.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "base/sanitized.h"
#include "reprise/session.h"
#include "session/engine.h"

namespace reprise {
namespace {

constexpr char kModel[] = "models/reprise-austen.gguf";  // its MTP block guesses well, so that every length of burst occurs
constexpr char kPrompt[] = "It was a truth that Elizabeth had never doubted, that her sister was the kindest of women; and";

struct Outcome {
  std::vector<int32_t> ids;
  std::string text;
  Finish finish = Finish::kNone;
  int position = 0;
  SpeculationStats stats;
  bool operator==(const Outcome& other) const {
    return ids == other.ids && text == other.text && finish == other.finish && position == other.position;
  }
};

// The embedded model with keys and values of either type.
class SpeculationTest : public ::testing::TestWithParam<KeyValueType> {
 protected:
  void SetUp() override {
    if (model_ && kv_ == GetParam()) return;
    auto model = Model::Load(kModel, {.threads = 2, .context = kSanitized ? 512 : 2048, .kv = GetParam()});
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_ = *std::move(model);
    kv_ = GetParam();
  }
  static void TearDownTestSuite() { model_.reset(); }

  static Session Prompted(const SamplingOptions& sampling, const Speculation& speculation) {
    auto session = model_->NewSession();
    EXPECT_TRUE(session.ok());
    EXPECT_TRUE(session->Prefill(std::string_view(kPrompt)).ok());
    EXPECT_TRUE(session->SetSampling(sampling).ok());
    EXPECT_TRUE(session->SetSpeculation(speculation).ok());
    return *std::move(session);
  }

  // Stops after `cancel_at` tokens by refusing to go on, if that is at least 0.
  static Outcome Generate(Session& session, int count, int cancel_at = -1) {
    Outcome outcome;
    const auto finish = session.Generate(count, [&](const Token& token) {
      if (token.id >= 0) outcome.ids.push_back(token.id);
      outcome.text += token.text;
      return cancel_at < 0 || static_cast<int>(outcome.ids.size()) < cancel_at;
    });
    EXPECT_TRUE(finish.ok()) << finish.status().message();
    outcome.finish = *finish;
    outcome.position = session.position();
    outcome.stats = session.speculation_stats();
    return outcome;
  }

  static inline std::optional<Model> model_;
  static inline KeyValueType kv_;
};

std::vector<SamplingOptions> Samplings() {
  SamplingOptions greedy;
  SamplingOptions cool{.temperature = 0.3f, .top_p = 0.9f, .seed = 7};
  SamplingOptions penalised{.temperature = 0.6f, .repetition_penalty = 1.2f, .frequency_penalty = 0.1f, .penalty_window = -1, .seed = 3};
  SamplingOptions stopping{.temperature = 0.3f, .seed = 11, .stop = {" her own", "Mr. "}};
  return {greedy, cool, penalised, stopping};
}

TEST_P(SpeculationTest, ChoosesWhatWouldHaveBeenChosenAnyway) {
  const int count = kSanitized ? 30 : 150;
  for (const SamplingOptions& sampling : Samplings()) {
    Session plain = Prompted(sampling, {});
    const Outcome expected = Generate(plain, count);
    for (const auto source : {Speculation::Source::kAuto, Speculation::Source::kMtp, Speculation::Source::kLookup}) {
      for (const int draft : {1, 4, Speculation::kMostDraft}) {
        for (const bool adapt : {false, true}) {
          Session guessing = Prompted(sampling, {.draft = draft, .source = source, .adapt = adapt});
          const Outcome outcome = Generate(guessing, count);
          EXPECT_EQ(outcome.ids, expected.ids) << "temperature " << sampling.temperature << ", draft " << draft << ", adapt " << adapt;
          EXPECT_TRUE(outcome == expected) << "temperature " << sampling.temperature << ", draft " << draft << ", adapt " << adapt;
        }
      }
    }
  }
}

TEST_P(SpeculationTest, TheDraftBlockIsRightMoreOftenThanChance) {
  Session session = Prompted({}, {.draft = 1, .source = Speculation::Source::kMtp, .adapt = false});
  const Outcome outcome = Generate(session, 200);
  EXPECT_GT(outcome.stats.drafted, 50);
  // Chance is one in 4,096; a block whose state were lost at some boundary falls far below a quarter.
  EXPECT_GT(outcome.stats.accepted * 4, outcome.stats.drafted);
}

TEST_P(SpeculationTest, EveryBoundaryWithinABurstCanBeGoneBackTo) {
  for (const SamplingOptions& sampling : Samplings()) {
    if (!sampling.stop.empty()) continue;
    for (int back = 1; back <= 40; back += kSanitized ? 13 : 3) {
      Session session = Prompted(sampling, {.draft = 6, .adapt = false});
      const Outcome first = Generate(session, 60);
      const uint64_t computed = session.model().engine().work().computed;
      ASSERT_TRUE(session.Rollback(back).ok());
      EXPECT_EQ(session.model().engine().work().computed, computed) << "back " << back;
      const Outcome again = Generate(session, back);
      EXPECT_EQ(again.ids, std::vector<int32_t>(first.ids.end() - back, first.ids.end())) << "back " << back;
    }
  }
}

TEST_P(SpeculationTest, CancellingWithinABurstLeavesWhatWasSeen) {
  Session plain = Prompted({}, {});
  const Outcome expected = Generate(plain, 60);
  for (int cancel_at = 1; cancel_at < 24; cancel_at += kSanitized ? 5 : 1) {
    Session session = Prompted({}, {.draft = 8, .adapt = false});
    Outcome outcome = Generate(session, 60, cancel_at);
    EXPECT_EQ(outcome.finish, Finish::kCancelled);
    ASSERT_EQ(static_cast<int>(outcome.ids.size()), cancel_at);
    const Outcome rest = Generate(session, 60 - cancel_at);
    outcome.ids.insert(outcome.ids.end(), rest.ids.begin(), rest.ids.end());
    EXPECT_EQ(outcome.ids, expected.ids) << "cancelled at " << cancel_at;
  }
}

TEST_P(SpeculationTest, ACapsuleTakenAfterABurstGoesOnTheSame) {
  const SamplingOptions sampling{.temperature = 0.3f, .seed = 5};
  Session session = Prompted(sampling, {.draft = 5, .adapt = false});
  Generate(session, 33);
  const Capsule capsule = session.Snapshot();
  const Outcome guessing = Generate(session, 50);
  ASSERT_TRUE(session.Restore(capsule).ok());
  ASSERT_TRUE(session.SetSpeculation({}).ok());
  const Outcome plain = Generate(session, 50);
  EXPECT_EQ(guessing.ids, plain.ids);
  EXPECT_EQ(guessing.text, plain.text);
}

TEST_P(SpeculationTest, NothingLeaksAndTheContextsEndIsReached) {
  const auto before = model_->engine().space().usage();
  {
    Session session = Prompted({}, {.draft = 9, .adapt = false});
    const int room = model_->info().context - session.position();
    const Outcome outcome = Generate(session, room);
    EXPECT_EQ(static_cast<int>(outcome.ids.size()), room);  // the last one stays pending: no position is left to feed it
    EXPECT_FALSE(session.Generate(2, [](const Token&) { return true; }).ok());
  }
  const auto after = model_->engine().space().usage();
  EXPECT_EQ(before.blocks[0], after.blocks[0]);
  EXPECT_EQ(before.blocks[1], after.blocks[1]);
  EXPECT_EQ(before.extents, after.extents);
}

TEST_P(SpeculationTest, RefusesWhatCannotBe) {
  auto session = model_->NewSession();
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session->SetSpeculation({.draft = -1}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(session->SetSpeculation({.draft = Speculation::kMostDraft + 1}).code(), StatusCode::kInvalidArgument);
}

// Of each architecture: a tentative step of which some rows are committed leaves what a step of those rows alone leaves, to the last bit of every
// recurrent state, and goes on like it.
class TentativeTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TentativeTest, CommittedRowsLeaveTheStatesOfThoseRowsAlone) {
  auto model = Model::Load(std::string("tests/data/goldens/") + GetParam() + ".gguf", {.threads = 2, .context = 128, .lanes = 2});
  ASSERT_TRUE(model.ok()) << model.status().message();
  Engine& engine = model->engine();
  const auto state = [&](const Lane& lane) {
    return std::vector<std::byte>(lane.read(Space::kDevice),
                                  lane.read(Space::kDevice) + engine.space().layout().block_bytes(Space::kDevice));
  };
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 40; ++i) tokens.push_back((i * i * 5 + i * 3) % 288);
  const std::span<const int32_t> all = tokens;
  for (const size_t before : {size_t{0}, size_t{1}, size_t{2}, size_t{19}}) {
    for (size_t kept = 1; kept <= Engine::kMaxTentativeRows; ++kept) {
      auto plain = *engine.space().NewLane(), tentative = *engine.space().NewLane();
      const auto advance = [&](Lane& lane, size_t at, size_t count) {
        const Engine::Feed feed{&lane, all.subspan(at, count)};
        ASSERT_TRUE(engine.Advance(std::span(&feed, 1)).ok());
      };
      if (before > 0) {
        advance(*plain, 0, before);
        advance(*tentative, 0, before);
      }
      advance(*plain, before, kept);
      ASSERT_TRUE(engine.BeginTentative(*tentative, Engine::kMaxTentativeRows).ok());
      ASSERT_TRUE(engine.RunTentative(*tentative, all.subspan(before, Engine::kMaxTentativeRows)).ok());
      ASSERT_TRUE(engine.CommitTentative(*tentative, static_cast<int>(kept)).ok());
      EXPECT_EQ(state(*tentative), state(*plain)) << kept << " rows after " << before;
      advance(*plain, before + kept, 1);
      advance(*tentative, before + kept, 1);
      EXPECT_EQ(state(*tentative), state(*plain)) << kept << " rows after " << before << ", one token on";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TentativeTest,
                         ::testing::Values("qwen35_equal", "qwen35_grouped", "llama_gqa", "qwen2_gqa", "qwen3_gqa", "lfm2_hybrid",
                                           "granite_hybrid", "qwen35_moe", "granite_moe", "qwen3_next", "falcon_h1", "falcon_h1_normed",
                                           "nemotron_dense", "nemotron_moe", "gemma3", "gemma4", "gpt_oss", "jamba", "jamba_moe"),
                         [](const auto& model) { return std::string(model.param); });

TEST(EngineTest, RowLogitsAreThoseOfAStepThatEveryRowWasWantedOf) {
  auto model = Model::Load("tests/data/goldens/llama_gqa.gguf", {.threads = 2, .context = 128, .lanes = 2});
  ASSERT_TRUE(model.ok()) << model.status().message();
  Engine& engine = model->engine();
  const std::vector<int32_t> tokens = {5, 9, 2, 7};
  auto lane = *engine.space().NewLane(), other = *engine.space().NewLane();
  const Engine::Feed feed{lane.get(), tokens}, again{other.get(), tokens};
  ASSERT_TRUE(engine.Advance(std::span(&feed, 1)).ok());
  EXPECT_EQ(engine.ComputeRowLogits().code(), StatusCode::kInvalidArgument);
  Lane* const one = lane.get();
  ASSERT_TRUE(engine.ComputeLogits(std::span(&one, 1)).ok());
  const std::vector<float> boundary(engine.logits(0).begin(), engine.logits(0).end());

  ASSERT_TRUE(engine.Advance(std::span(&again, 1), Engine::Wanted::kEveryRow).ok());
  ASSERT_TRUE(engine.ComputeRowLogits().ok());
  EXPECT_EQ(boundary, std::vector<float>(engine.logits(3).begin(), engine.logits(3).end()));
}

// Looked-up guesses, on a model that repeats itself at times.
TEST(SpeculationOnLfm2Test, ChoosesWhatWouldHaveBeenChosenAnyway) {
  auto model = Model::Load("tests/data/goldens/lfm2_hybrid.gguf", {.threads = 2, .context = 1024, .lanes = 2});
  ASSERT_TRUE(model.ok()) << model.status().message();
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 200; ++i) prompt.push_back((i % 50) * 5);
  int drafted = 0, accepted = 0;
  for (const SamplingOptions& sampling : Samplings()) {
    const auto say = [&](const Speculation& speculation) {
      Session session = *model->NewSession();
      EXPECT_TRUE(session.Prefill(prompt).ok());
      EXPECT_TRUE(session.SetSampling(sampling).ok());
      EXPECT_TRUE(session.SetSpeculation(speculation).ok());
      std::vector<int32_t> ids;
      EXPECT_TRUE(session.Generate(150, [&](const Token& token) { return ids.push_back(token.id), true; }).ok());
      drafted += static_cast<int>(session.speculation_stats().drafted);
      accepted += static_cast<int>(session.speculation_stats().accepted);
      return ids;
    };
    const auto expected = say({});
    EXPECT_EQ(say({.draft = 8, .source = Speculation::Source::kLookup, .adapt = false}), expected)
        << "temperature " << sampling.temperature;
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(drafted, accepted);  // so that bursts were committed in part
}

INSTANTIATE_TEST_SUITE_P(KeysAndValues, SpeculationTest, ::testing::Values(KeyValueType::kF16, KeyValueType::kQ8_0),
                         [](const auto& kv) { return kv.param == KeyValueType::kF16 ? "F16" : "Q8_0"; });

}  // namespace
}  // namespace reprise
