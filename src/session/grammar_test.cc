// Generations within a grammar: what is written is of it, however it was chosen, and where it stands within it is part of every capsule.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "reprise/session.h"

namespace reprise {
namespace {

using Json = nlohmann::json;

constexpr char kModel[] = "models/reprise-austen.gguf";
constexpr char kPrompt[] = "What Elizabeth wrote of the visit:";
constexpr char kSchema[] =
    R"({"type":"object","properties":{"name":{"enum":["Jane","Jane Bennet","Elizabeth"]},"mood":{"type":"string","maxLength":30},
    "age":{"type":"integer","minimum":15,"maximum":99},"letters":{"type":"array","items":{"type":"string","maxLength":12},"maxItems":3},
    "married":{"type":"boolean"}},"required":["name","mood","age","letters","married"],"additionalProperties":false})";
constexpr int kMost = 300;

class SessionGrammarTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = Model::Load(kModel, {.threads = 2, .context = 1024, .lanes = 4, .capsules = 32});
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_ = *std::move(model);
  }
  static void TearDownTestSuite() { model_.reset(); }

  static SamplingOptions Options(uint64_t seed = 0, float temperature = 0) {
    return {.temperature = temperature, .seed = seed, .grammar = *Grammar::JsonSchema(kSchema)};
  }
  static Session Prompted(const SamplingOptions& options) {
    Session session = *model_->NewSession();
    EXPECT_TRUE(session.Prefill(std::string_view(kPrompt)).ok());
    EXPECT_TRUE(session.SetSampling(options).ok());
    return session;
  }
  struct Written {
    std::vector<int32_t> tokens;
    std::string text;
    Finish finish = Finish::kNone;
    bool operator==(const Written&) const = default;
  };
  static Written Write(Session& session, int most = kMost) {
    Written written;
    const auto finish = session.Generate(most, [&](const Token& token) {
      if (token.id >= 0) written.tokens.push_back(token.id);
      written.text += token.text;
      return true;
    });
    EXPECT_TRUE(finish.ok()) << finish.status().message();
    written.finish = *finish;
    return written;
  }
  static void ExpectWhole(const Written& written) {
    EXPECT_EQ(written.finish, Finish::kComplete) << written.text;
    const Json json = Json::parse(written.text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << written.text;
    EXPECT_TRUE(json["name"] == "Jane" || json["name"] == "Jane Bennet" || json["name"] == "Elizabeth") << written.text;
    EXPECT_TRUE(json["age"].is_number_integer() && json["age"] >= 15 && json["age"] <= 99) << written.text;
    EXPECT_TRUE(json["letters"].is_array() && json["letters"].size() <= 3 && json["married"].is_boolean()) << written.text;
  }

  static inline std::optional<Model> model_;
};

TEST_F(SessionGrammarTest, WritesWhatTheSchemaDescribes) {
  Session greedy = Prompted(Options());
  ExpectWhole(Write(greedy));
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    Session sampled = Prompted(Options(seed, seed % 2 == 0 ? 1.0f : 2.5f));
    ExpectWhole(Write(sampled));
  }
  // Without a grammar the same prompt goes on as prose.
  Session prose = Prompted({});
  EXPECT_FALSE(Json::accept(Write(prose, 60).text));
}

// Any token may be the last before a snapshot: what follows a restore, here or from bytes in another model, is what would have followed.
TEST_F(SessionGrammarTest, CapsulesHoldWhereTheTextStands) {
  Session session = Prompted(Options(7, 1.5f));
  Session whole_session = Prompted(Options(7, 1.5f));
  const Written whole = Write(whole_session);
  ExpectWhole(whole);
  const Model elsewhere = *Model::Load(kModel, {.threads = 1, .context = 1024, .lanes = 2, .capsules = 8});
  std::string before;
  for (size_t i = 0; i + 1 < whole.tokens.size(); ++i) {
    const auto token = session.Next();
    ASSERT_TRUE(token.ok());
    ASSERT_EQ(token->id, whole.tokens[i]);
    before += token->text;
    if (i % 9 != 4) continue;
    const Capsule here = session.Snapshot();
    Session again = *model_->NewSession();
    ASSERT_TRUE(again.Restore(here).ok());
    EXPECT_EQ(before + Write(again).text, whole.text);
    Session far = *elsewhere.NewSession();
    ASSERT_TRUE(far.Restore(*elsewhere.ImportCapsule(*here.Serialize())).ok());
    EXPECT_EQ(before + Write(far).text, whole.text);
  }
}

TEST_F(SessionGrammarTest, SpeculationAndBranchesDoNotShow) {
  for (const uint64_t seed : {0, 3}) {
    Session one = Prompted(Options(seed, seed == 0 ? 0 : 1.0f));
    const Written expected = Write(one);
    for (const auto source : {Speculation::Source::kLookup, Speculation::Source::kMtp}) {
      Session session = Prompted(Options(seed, seed == 0 ? 0 : 1.0f));
      ASSERT_TRUE(session.SetSpeculation({.draft = 4, .source = source, .adapt = false}).ok());
      EXPECT_EQ(Write(session), expected);
    }
  }
  // Forks from the middle, as one batch: each is whole by itself.
  Session parent = Prompted(Options(11, 1.0f));
  std::string begun;
  for (int i = 0; i < 12; ++i) begun += (*parent.Next()).text;
  auto forks = parent.Fork(parent.Snapshot(), 3);
  ASSERT_TRUE(forks.ok()) << forks.status().message();
  for (Session& fork : *forks) {
    Written rest = Write(fork);
    rest.text = begun + rest.text;
    ExpectWhole(rest);
  }
}

TEST_F(SessionGrammarTest, RollbackGoesBackWithinTheText) {
  Session session = Prompted(Options());
  const Written whole = Write(session);
  ASSERT_TRUE(session.Rollback(10).ok());
  const Written again = Write(session);
  EXPECT_EQ(again.finish, Finish::kComplete);
  ASSERT_GE(whole.tokens.size(), 10u);
  EXPECT_EQ(again.tokens, std::vector<int32_t>(whole.tokens.end() - 10, whole.tokens.end()));
}

// More grammars at once than are remembered: each session still keeps to its own.
TEST_F(SessionGrammarTest, ManyGrammarsTakeTurns) {
  constexpr int kGrammars = 6;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < kGrammars; ++i) {
      const std::string name = "p" + std::to_string(i);
      Session session = Prompted(
          {.grammar = *Grammar::JsonSchema(R"({"properties":{")" + name + R"(":{"type":"boolean"}},"required":[")" + name + R"("]})")});
      const Json json = Json::parse(Write(session).text, nullptr, false);
      ASSERT_TRUE(json.is_object() && json[name].is_boolean()) << name;
    }
  }
}

}  // namespace
}  // namespace reprise
