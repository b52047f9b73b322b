// Sessions: what an error leaves behind, what a prefill reuses, how far and how exactly a session goes back, and what moves elsewhere.
#include "reprise/session.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "session/engine.h"

namespace reprise {
namespace {

constexpr char kTiny[] = "tests/data/goldens/qwen35_equal.gguf";
constexpr char kOtherModel[] = "tests/data/goldens/llama_gqa.gguf";
constexpr char kEmbedded[] = "models/reprise-austen.gguf";

Model Load(const char* path = kTiny, ModelOptions options = {.threads = 2, .context = 1024, .lanes = 4, .capsules = 64, .chunk = 32}) {
  auto model = Model::Load(path, options);
  EXPECT_TRUE(model.ok()) << model.status().message();
  return *std::move(model);
}

Session NewSession(const Model& model) {
  auto session = model.NewSession();
  EXPECT_TRUE(session.ok()) << session.status().message();
  return *std::move(session);
}

std::vector<int32_t> Tokens(size_t count, int32_t seed = 0) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((i * i * 3 + i * 11 + static_cast<size_t>(seed) * 17) % 288));
  return tokens;
}

std::vector<int32_t> Joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

SamplingOptions Sampled(uint64_t seed) {
  return {.temperature = 1.1f,
          .top_k = 100,
          .top_p = 0.97f,
          .repetition_penalty = 1.1f,
          .presence_penalty = 0.2f,
          .penalty_window = 80,
          .seed = seed};
}

std::vector<int32_t> Say(Session& session, int count) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) {
    const auto token = session.Next();
    EXPECT_TRUE(token.ok()) << token.status().message();
    ids.push_back(token.ok() ? token->id : -2);
  }
  return ids;
}

// A digest of every byte of each state that a session remembers.
std::vector<uint64_t> Everything(const Session& session) {
  Engine& engine = session.model().engine();
  const Capsule capsule = Capsule::FromHeld(engine.shared_space(), session.lane().Hold(), 0);
  std::vector<uint64_t> states;
  for (const StateDecl& state : capsule.layout().states()) {
    auto bytes = capsule.Read(state.name);
    EXPECT_TRUE(bytes.ok());
    states.push_back(XXH3_64bits(bytes->data(), bytes->size()));
  }
  return states;
}

std::vector<float> LogitsOf(Session& session) {
  const auto logits = session.Logits();
  EXPECT_TRUE(logits.ok()) << logits.status().message();
  return {logits->begin(), logits->end()};
}

TEST(SessionTest, AnErrorSaysWhatIsWrongAndLeavesTheState) {
  const Model model = Load();
  const Model again = Load();
  const Model other = Load(kOtherModel);
  Session session = NewSession(model);
  Session stranger = NewSession(again);
  ASSERT_TRUE(session.Prefill(Tokens(50)).ok());
  ASSERT_TRUE(session.SetSampling(Sampled(3)).ok());
  Say(session, 4);
  ASSERT_TRUE(stranger.Prefill(Tokens(9)).ok());
  const Capsule foreign = stranger.Snapshot();
  const auto before = Everything(session);
  const auto expect = [&](const Status& status, StatusCode code, const std::string& words) {
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
    EXPECT_EQ(Everything(session), before) << words;
  };
  expect(session.Prefill(std::vector<int32_t>{}).status(), StatusCode::kInvalidArgument, "empty");
  expect(session.Prefill(std::vector<int32_t>{1, 2, 288}).status(), StatusCode::kInvalidArgument, "288");
  expect(session.Prefill(std::vector<int32_t>{-1}).status(), StatusCode::kInvalidArgument, "-1");
  expect(session.Prefill(Tokens(1025)).status(), StatusCode::kExhausted, "1024");
  expect(session.SetSampling({.temperature = -1}), StatusCode::kInvalidArgument, "temperature");
  expect(session.Rollback(-1), StatusCode::kInvalidArgument, "-1");
  expect(session.Rollback(1000), StatusCode::kInvalidArgument, "1000");
  expect(session.Rollback(INT32_MIN), StatusCode::kInvalidArgument, "cannot");
  expect(session.Rollback(INT32_MAX), StatusCode::kInvalidArgument, "cannot");
  expect(session.Restore(Capsule()), StatusCode::kInvalidArgument, "empty capsule");
  expect(session.Restore(foreign), StatusCode::kMismatch, "another loaded model");
  expect(session.Export(foreign).status(), StatusCode::kMismatch, "another loaded model");
  expect(session.Export(Capsule()).status(), StatusCode::kInvalidArgument, "empty capsule");
  expect(session.Fork(session.Snapshot(), 0).status(), StatusCode::kInvalidArgument, "0 ways");
  expect(session.Fork(session.Snapshot(), -3).status(), StatusCode::kInvalidArgument, "-3");
  expect(session.Fork(session.Snapshot(), 4).status(), StatusCode::kExhausted, "4 lanes");
  expect(session.Fork(foreign, 1).status(), StatusCode::kMismatch, "another loaded model");
  const auto bytes = stranger.Export(foreign);
  ASSERT_TRUE(bytes.ok());
  expect(other.ImportCapsule(*bytes).status(), StatusCode::kMismatch, "fingerprint");
}

TEST(SessionTest, AppendRefusesWhatItCannotHold) {
  const Model model = Load();
  Session session = NewSession(model);
  ASSERT_TRUE(session.Prefill(Tokens(1000)).ok());
  const auto before = Everything(session);
  EXPECT_EQ(session.Append(Tokens(25)).code(), StatusCode::kExhausted);
  EXPECT_EQ(session.Append(std::vector<int32_t>{5, 999}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Everything(session), before);
  ASSERT_TRUE(session.Append(Tokens(24)).ok());
  EXPECT_EQ(session.position(), 1024);
  EXPECT_TRUE(session.Next().ok());  // the logits are there; there is no room to feed the token
  EXPECT_EQ(session.Next().status().code(), StatusCode::kExhausted);
  EXPECT_EQ(session.position(), 1024);
}

TEST(SessionTest, NothingFollowsFromNothing) {
  const Model model = Load();
  Session session = NewSession(model);
  EXPECT_EQ(session.Next().status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(session.Logits().status().code(), StatusCode::kInvalidArgument);
  const Capsule empty = session.Snapshot();
  EXPECT_EQ(empty.position(), 0);
  ASSERT_TRUE(session.Prefill(Tokens(20)).ok());
  ASSERT_TRUE(session.Restore(empty).ok());  // an empty line is a line, and not some other session's
  EXPECT_EQ(session.position(), 0);
  EXPECT_EQ(session.Next().status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(session.Rollback(0).ok());
}

TEST(SessionTest, APrefillReusesTheDeepestBoundaryOnItsPath) {
  const Model model = Load();
  Session session = NewSession(model);
  const auto system = Tokens(100);
  const auto first = Joined(system, Tokens(60, 1));
  const auto second = Joined(system, Tokens(61, 2));
  EXPECT_EQ(session.Prefill(system)->reused, 0);
  EXPECT_EQ(session.Prefill(first)->reused, 100);
  auto report = session.Prefill(second);  // the boundary at 160 is not on this path, that at 100 is
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->reused, 100);
  EXPECT_EQ(report->computed, 61);
  const auto after_second = LogitsOf(session);
  EXPECT_EQ(session.Prefill(first)->reused, 160);
  EXPECT_EQ(session.Prefill(second)->reused, 161);
  EXPECT_EQ(LogitsOf(session), after_second);
  // A conversation that goes on: what was generated and fed is not computed again either.
  const auto said = Say(session, 10);
  auto longer = Joined(second, said);
  EXPECT_EQ(session.Prefill(Joined(longer, Tokens(5, 3)))->reused, 170);
  // And from nothing the same bits follow.
  Session fresh = NewSession(model);
  ASSERT_TRUE(fresh.Prefill(Joined(longer, Tokens(5, 3))).ok());
  EXPECT_EQ(LogitsOf(fresh), LogitsOf(session));
}

TEST(SessionTest, ACancelledPrefillKeepsItsBoundaryAndTheRetryGoesOnFromIt) {
  const Model model = Load();
  Session session = NewSession(model);
  const auto prompt = Tokens(200);
  std::atomic<bool> cancel{false};
  PrefillOptions options;
  options.cancel = &cancel;
  options.progress = [&](int done, int) { cancel = done >= 64; };
  EXPECT_EQ(session.Prefill(prompt, options).status().code(), StatusCode::kCancelled);
  EXPECT_EQ(session.position(), 64);
  EXPECT_EQ(session.tokens(), std::vector<int32_t>(prompt.begin(), prompt.begin() + 64));
  // Also when something else was done meanwhile.
  ASSERT_TRUE(session.Prefill(Tokens(30, 9)).ok());
  const auto report = session.Prefill(prompt);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->reused, 64);
  Session fresh = NewSession(model);
  ASSERT_TRUE(fresh.Prefill(prompt).ok());
  EXPECT_EQ(Everything(fresh), Everything(session));
}

// One prompt in pieces, while another session talks.
TEST(SessionTest, APromptInPiecesIsThePromptAndOthersAreServedInBetween) {
  const Model model = Load();
  const auto prompt = Tokens(200);
  Session whole = NewSession(model);
  ASSERT_TRUE(whole.Prefill(prompt).ok());
  Session other = NewSession(model);
  ASSERT_TRUE(other.Prefill(Tokens(40, 3)).ok());
  Session pieces = NewSession(model);
  const auto report = pieces.StartPrefill(prompt, {.boundaries = {{150, Keep::kTurn}, {70, Keep::kSystem}, {-3}, {0}, {200}, {9999}}});
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->reused, 0);
  EXPECT_EQ(report->computed, 200);
  EXPECT_EQ(report->tier, Tier::kNone);
  int steps = 0;
  for (bool complete = false; !complete; ++steps) {
    EXPECT_TRUE(pieces.prefilling());
    EXPECT_EQ(pieces.position(), std::min(200, steps * 23));
    EXPECT_EQ(pieces.Next().status().code(), StatusCode::kInvalidArgument);
    const auto more = pieces.ContinuePrefill(23);
    ASSERT_TRUE(more.ok()) << more.status().message();
    complete = *more;
    Say(other, 2);
  }
  EXPECT_EQ(steps, 9);
  EXPECT_FALSE(pieces.prefilling());
  EXPECT_EQ(Everything(pieces), Everything(whole));
  EXPECT_TRUE(*pieces.ContinuePrefill(1));
  // The boundaries asked for are there to go back to, and what was cancelled is there to go on from.
  EXPECT_EQ(pieces.Prefill(Joined({prompt.begin(), prompt.begin() + 150}, Tokens(9, 7)))->reused, 150);
  EXPECT_EQ(pieces.Prefill(Joined({prompt.begin(), prompt.begin() + 70}, Tokens(9, 8)))->reused, 70);
  ASSERT_TRUE(pieces.StartPrefill(Tokens(100, 5)).ok());
  EXPECT_FALSE(*pieces.ContinuePrefill(33));
  ASSERT_TRUE(pieces.CancelPrefill().ok());
  EXPECT_EQ(pieces.position(), 33);
  ASSERT_TRUE(pieces.Prefill(prompt).ok());
  const auto retry = pieces.StartPrefill(Tokens(100, 5));
  EXPECT_EQ(retry->reused, 33);
  EXPECT_EQ(retry->tier, Tier::kLive);
  EXPECT_EQ(pieces.Save().status().code(), StatusCode::kUnsupported);
  EXPECT_TRUE(pieces.EndReply().ok());
}

// Goes back `depth` tokens from `generated` tokens after a prompt, and says them again.
void ExpectExactRollback(const Model& model, size_t prompt, int generated, int depth) {
  Session session = NewSession(model);
  const auto tokens = Tokens(prompt);
  ASSERT_TRUE(session.Prefill(std::span(tokens).first(prompt / 2)).ok());
  ASSERT_TRUE(session.SetSampling(Sampled(5)).ok());
  ASSERT_TRUE(session.Prefill(tokens).ok());
  const auto said = Say(session, generated);
  ASSERT_TRUE(session.Rollback(depth).ok()) << depth;
  const size_t target = prompt + static_cast<size_t>(generated) - static_cast<size_t>(depth);
  ASSERT_EQ(session.position(), static_cast<int>(target));
  EXPECT_EQ(session.pending_token(), -1);
  EXPECT_EQ(session.sampling(), Sampled(5));
  if (target >= prompt) {
    const auto again = Say(session, depth);
    EXPECT_EQ(again, std::vector<int32_t>(said.end() - depth, said.end())) << "back by " << depth;
    return;
  }
  // Within the prompt: as if the prompt had been shorter.
  Session shorter = NewSession(model);
  ASSERT_TRUE(shorter.SetSampling(Sampled(5)).ok());
  if (target > 0) {
    ASSERT_TRUE(shorter.Prefill(std::span(tokens).first(target)).ok());
  }
  EXPECT_EQ(Everything(session), Everything(shorter)) << "back by " << depth;
}

TEST(SessionTest, ARollbackIsExactAtAnyDepth) {
  const Model model = Load();
  for (const int depth : {1, 2, 15, 63, 64, 65, 99, 100, 101, 130, 170, 249, 250}) ExpectExactRollback(model, 150, 100, depth);
}

// Tokens that were chosen one by one are taken back without a product, to every byte of the state of then.
class RollbackTest : public testing::TestWithParam<const char*> {};
TEST_P(RollbackTest, OfChosenTokensRunsTheRecurrencesAlone) {
  const Model model = Load(GetParam());
  const Engine& engine = model.engine();
  Session session = NewSession(model);
  ASSERT_TRUE(session.Prefill(Tokens(90)).ok());
  ASSERT_TRUE(session.SetSampling(Sampled(3)).ok());
  const auto said = Say(session, 140);
  // Another session chooses the same, and never goes back.
  std::vector<std::vector<uint64_t>> was;  // [i]: when the first i tokens had been fed
  Session straight = NewSession(model);
  ASSERT_TRUE(straight.Prefill(Tokens(90)).ok());
  ASSERT_TRUE(straight.SetSampling(Sampled(3)).ok());
  for (const int32_t token : said) {
    was.push_back(Everything(straight));
    ASSERT_EQ(straight.Next()->id, token);
    ASSERT_TRUE(straight.Append({}).ok());
  }
  for (const int depth : {1, 2, 3, 17, 33, 40, 64}) {
    const uint64_t computed = engine.work().computed, replayed = engine.work().replayed;
    const int from = session.position() + 1;
    ASSERT_TRUE(session.Rollback(depth).ok()) << depth;
    EXPECT_EQ(engine.work().computed, computed) << "back by " << depth;
    EXPECT_LE(engine.work().replayed - replayed, static_cast<uint64_t>(Checkpoints::kStride)) << "back by " << depth;
    const auto at = static_cast<size_t>(from - depth - 90);
    EXPECT_EQ(Everything(session), was[at]) << "back by " << depth;
    EXPECT_EQ(Say(session, 140 - static_cast<int>(at)), std::vector<int32_t>(said.begin() + static_cast<long>(at), said.end()));
  }
}
INSTANTIATE_TEST_SUITE_P(EachKindOfState, RollbackTest,
                         testing::Values("tests/data/goldens/qwen35_equal.gguf", "tests/data/goldens/qwen3_next.gguf",
                                         "tests/data/goldens/granite_hybrid.gguf", "tests/data/goldens/falcon_h1.gguf",
                                         "tests/data/goldens/nemotron_moe.gguf", "tests/data/goldens/jamba.gguf",
                                         "tests/data/goldens/lfm2_hybrid.gguf", "tests/data/goldens/gemma4.gguf",
                                         "tests/data/goldens/llama_gqa.gguf"));

TEST(SessionTest, LinesOfABatchAreTakenBackEachByItself) {
  const Model model = Load();
  Session first = NewSession(model);
  ASSERT_TRUE(first.Prefill(Tokens(70)).ok());
  std::vector<Session> lines = *first.Fork(first.Snapshot(), 3);
  std::vector<Session*> batch;
  for (size_t i = 0; i < lines.size(); ++i) {
    ASSERT_TRUE(lines[i].SetSampling(Sampled(i)).ok());
    batch.push_back(&lines[i]);
  }
  std::vector<std::vector<int32_t>> said(lines.size());
  std::vector<Token> tokens(lines.size());
  const auto say = [&](int count) {
    for (int i = 0; i < count; ++i) {
      ASSERT_TRUE(Session::NextBatch(batch, tokens).ok());
      for (size_t line = 0; line < lines.size(); ++line) said[line].push_back(tokens[line].id);
    }
  };
  say(50);
  const auto before = said;
  const uint64_t computed = model.engine().work().computed;
  for (size_t line = 0; line < lines.size(); ++line) ASSERT_TRUE(lines[line].Rollback(9 + 13 * static_cast<int>(line)).ok());
  EXPECT_EQ(model.engine().work().computed, computed);
  for (size_t line = 0; line < lines.size(); ++line) {
    const auto kept = static_cast<long>(50 - 9 - 13 * line);
    EXPECT_EQ(Say(lines[line], static_cast<int>(50 - kept)), std::vector<int32_t>(before[line].begin() + kept, before[line].end())) << line;
  }
}

// The log tells of rows of the line that is there, and of none that another wrote where they were.
TEST(SessionTest, ARollbackIsExactWhateverCameBetween) {
  const Model model = Load();
  Session session = NewSession(model), straight = NewSession(model);
  for (Session* each : {&session, &straight}) {
    ASSERT_TRUE(each->Prefill(Tokens(40)).ok());
    ASSERT_TRUE(each->SetSampling(Sampled(6)).ok());
  }
  const Capsule early = session.Snapshot();
  Say(session, 30);
  ASSERT_TRUE(session.Append(Tokens(21, 4)).ok());  // a step of many rows
  Say(session, 12);
  const auto more = [&] {
    Say(straight, 30);
    ASSERT_TRUE(straight.Append(Tokens(21, 4)).ok());
    Say(straight, 12);
  };
  more();
  ASSERT_TRUE(session.Rollback(4).ok());
  ASSERT_TRUE(straight.Rollback(4).ok());
  EXPECT_EQ(Everything(session), Everything(straight));
  ASSERT_TRUE(session.Rollback(20).ok());  // into what was appended
  Session shorter = NewSession(model);
  ASSERT_TRUE(shorter.Prefill(Tokens(40)).ok());
  ASSERT_TRUE(shorter.SetSampling(Sampled(6)).ok());
  Say(shorter, 30);
  ASSERT_TRUE(shorter.Append(Tokens(9, 4)).ok());
  EXPECT_EQ(Everything(session), Everything(shorter));

  // Other tokens to the same positions, after a restore.
  ASSERT_TRUE(session.Restore(early).ok());
  ASSERT_TRUE(session.SetSampling(Sampled(7)).ok());
  const auto other = Say(session, 30);
  ASSERT_TRUE(session.Rollback(11).ok());
  EXPECT_EQ(Say(session, 11), std::vector<int32_t>(other.end() - 11, other.end()));
}

TEST(SessionTest, ARollbackReachesAsFarBackAsTheSamplerIsKept) {
  const Model model = Load();
  Session session = NewSession(model);
  ASSERT_TRUE(session.Prefill(Tokens(50)).ok());
  ASSERT_TRUE(session.SetSampling(Sampled(2)).ok());
  const auto said = Say(session, 400);  // the ring has been written over
  for (const int depth : {250, 100, 150, 31}) {
    ASSERT_TRUE(session.Rollback(depth).ok()) << depth;
    EXPECT_EQ(Say(session, depth), std::vector<int32_t>(said.end() - depth, said.end())) << depth;
  }
}

TEST(SessionTest, GoingBackWithoutABlockToWriteChangesNothing) {
  const Model model = Load(kTiny, {.threads = 2, .context = 512, .lanes = 1, .capsules = 30, .chunk = 32});
  Engine& engine = model.engine();
  Session session = NewSession(model);
  ASSERT_TRUE(session.Prefill(Tokens(20)).ok());
  std::vector<Capsule> taken;
  while (true) {
    taken.push_back(session.Snapshot());
    if (!session.Next().ok()) break;
    ASSERT_LT(taken.size(), 100u);
  }
  ASSERT_GT(taken.size(), 20u);
  const auto before = Everything(session);
  const int position = session.position();
  const ReplayLog log = session.lane().log();
  EXPECT_EQ(engine.GoBack(session.lane(), taken[5].Hold(), position - 1).code(), StatusCode::kExhausted);
  EXPECT_EQ(session.position(), position);
  EXPECT_EQ(Everything(session), before);
  EXPECT_TRUE(session.lane().log().Holds(log.first, log.end));
  taken.erase(taken.begin() + 6, taken.begin() + 12);
  ASSERT_TRUE(session.Next().ok()) << "the lane goes on as if nothing had been asked";
  ASSERT_TRUE(engine.GoBack(session.lane(), taken[5].Hold(), position).ok());
  EXPECT_EQ(session.position(), position);
}

// A step of guesses writes over rows of the log as far as it goes, however few of them come true.
TEST(SessionTest, WhatATentativeStepWroteOverIsNotRecalled) {
  const Model model = Load();
  Engine& engine = model.engine();
  Session session = NewSession(model);
  Lane& lane = session.lane();
  const auto feed = [&](int32_t token) {
    const Engine::Feed one{&lane, std::span(&token, 1)};
    ASSERT_TRUE(engine.Advance(std::span(&one, 1)).ok());
  };
  for (int32_t i = 0; i < lane.log().capacity + 5; ++i) feed(i % 288);
  ASSERT_EQ(lane.log().end - lane.log().first, lane.log().capacity);
  const auto guesses = Tokens(9);
  ASSERT_TRUE(engine.BeginTentative(lane, 9).ok());
  ASSERT_TRUE(engine.RunTentative(lane, guesses).ok());
  ASSERT_TRUE(engine.CommitTentative(lane, 2).ok());
  EXPECT_EQ(lane.log().end, lane.position());
  EXPECT_EQ(lane.log().first, lane.position() + 7 - lane.log().capacity);
}

TEST(SessionTest, WithoutRoomForALogTokensAreComputedAgain) {
  for (size_t budget = size_t{64} << 20;; budget -= budget / 8) {
    ASSERT_GT(budget, 1u << 20) << "no budget left the log out";
    const Model model = Load(kTiny, {.threads = 2, .context = 512, .lanes = 2, .capsules = 64, .state_budget = budget, .chunk = 32});
    Session session = NewSession(model);
    if (session.lane().log().capacity > 0) continue;
    ASSERT_TRUE(session.Prefill(Tokens(40)).ok());
    const auto said = Say(session, 30);
    const uint64_t computed = model.engine().work().computed;
    ASSERT_TRUE(session.Rollback(9).ok());
    EXPECT_GT(model.engine().work().computed, computed);
    EXPECT_EQ(Say(session, 9), std::vector<int32_t>(said.end() - 9, said.end()));
    return;
  }
}

TEST(SessionTest, ARollbackFarBackGoesToAKeptBoundaryOrIsRefused) {
  const Model model = Load();
  Session session = NewSession(model);
  ASSERT_TRUE(session.Prefill(Tokens(100)).ok());
  ASSERT_TRUE(session.SetSampling(Sampled(8)).ok());  // at a boundary that is already kept
  const auto said = Say(session, 400);
  const auto before = Everything(session);
  const Status status = session.Rollback(390);  // 110: neither marked any more nor kept
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("110"), std::string::npos) << status.message();
  EXPECT_EQ(Everything(session), before);
  ASSERT_TRUE(session.Rollback(400).ok());  // 100: kept, with the sampling that was set there
  EXPECT_EQ(session.position(), 100);
  EXPECT_EQ(Say(session, 400), said);
}

// The sampler's state does not follow from the tokens: that of another line with the same tokens is not this line's.
TEST(SessionTest, ARollbackNeverTakesTheSamplerOfAnotherLine) {
  const Model model = Load();
  Session session = NewSession(model);
  ASSERT_TRUE(session.Prefill(Tokens(60)).ok());
  ASSERT_TRUE(session.SetSampling(Sampled(1)).ok());
  Say(session, 12);  // keeps a boundary at 64
  const auto tokens = session.tokens();
  Session other = NewSession(model);
  ASSERT_TRUE(other.Prefill(tokens).ok());
  ASSERT_TRUE(other.SetSampling(Sampled(2)).ok());
  ASSERT_TRUE(session.Restore(other.Snapshot()).ok());
  const auto before = Everything(session);
  EXPECT_EQ(session.Rollback(static_cast<int>(tokens.size()) - 64).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Everything(session), before);
  EXPECT_EQ(session.sampling(), Sampled(2));
}

TEST(SessionTest, ForksGoTheirOwnWays) {
  const Model model = Load();
  Session parent = NewSession(model);
  ASSERT_TRUE(parent.Prefill(Tokens(130)).ok());
  ASSERT_TRUE(parent.SetSampling(Sampled(1)).ok());
  const Capsule capsule = parent.Snapshot();
  const auto before = Everything(parent);
  auto forks = parent.Fork(capsule, 3);
  ASSERT_TRUE(forks.ok()) << forks.status().message();
  std::vector<std::vector<int32_t>> said;
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE((*forks)[i].SetSampling(Sampled(10 + i)).ok());
    said.push_back(Say((*forks)[i], 30));
  }
  EXPECT_EQ(Everything(parent), before);
  // As one batch they say what they said alone.
  std::vector<Session*> batch;
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE((*forks)[i].Restore(capsule).ok());
    ASSERT_TRUE((*forks)[i].SetSampling(Sampled(10 + i)).ok());
    batch.push_back(&(*forks)[i]);
  }
  for (size_t step = 0; step < 30; ++step) {
    std::vector<Token> tokens(3);
    ASSERT_TRUE(Session::NextBatch(batch, tokens).ok());
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(tokens[i].id, said[i][step]);
  }
  EXPECT_EQ(Everything(parent), before);
}

TEST(SessionTest, ABatchChoosesWholeOrNotAtAll) {
  const Model model = Load();
  Session a = NewSession(model);
  Session b = NewSession(model);
  Session empty = NewSession(model);
  ASSERT_TRUE(a.Prefill(Tokens(10)).ok());
  ASSERT_TRUE(b.Prefill(Tokens(11)).ok());
  Say(a, 1);
  const auto a_before = Everything(a);
  const auto b_before = Everything(b);
  std::vector<Token> tokens(3);
  const auto refused = [&](std::vector<Session*> batch) {
    EXPECT_FALSE(Session::NextBatch(batch, std::span(tokens).first(batch.size())).ok());
    EXPECT_EQ(Everything(a), a_before);
    EXPECT_EQ(Everything(b), b_before);
  };
  refused({&a, &a});
  refused({&b, &b});
  refused({&a, &b, &empty});
  const Model other = Load();
  Session stranger = NewSession(other);
  ASSERT_TRUE(stranger.Prefill(Tokens(5)).ok());
  refused({&a, &stranger});
  std::vector<Session*> both = {&a, &b};
  EXPECT_FALSE(Session::NextBatch(both, std::span(tokens).first(1)).ok());
  EXPECT_EQ(Everything(a), a_before);
  EXPECT_TRUE(Session::NextBatch(both, std::span(tokens).first(2)).ok());
}

TEST(SessionTest, ACapsuleMovesToAnyLoadOfTheSameModel) {
  std::vector<std::byte> bytes;
  std::vector<int32_t> said;
  {
    const Model model = Load();
    Session session = NewSession(model);
    ASSERT_TRUE(session.Prefill(Tokens(150)).ok());
    ASSERT_TRUE(session.SetSampling(Sampled(4)).ok());
    Say(session, 7);
    auto exported = session.Export(session.Snapshot());
    ASSERT_TRUE(exported.ok());
    bytes = *std::move(exported);
    said = Say(session, 40);
  }
  for (const ModelOptions& options : {ModelOptions{.threads = 1, .context = 256, .lanes = 1, .capsules = 8, .chunk = 7},
                                      ModelOptions{.threads = 3, .context = 4096, .lanes = 9, .capsules = 8, .chunk = 256}}) {
    const Model model = Load(kTiny, options);
    Session session = NewSession(model);
    ASSERT_TRUE(session.Prefill(Tokens(20, 5)).ok());  // not an untouched lane
    auto capsule = model.ImportCapsule(bytes);
    ASSERT_TRUE(capsule.ok()) << capsule.status().message();
    ASSERT_TRUE(session.Restore(*capsule).ok());
    EXPECT_EQ(Say(session, 40), said);
  }
  const Model small = Load(kTiny, {.threads = 1, .context = 128, .lanes = 1, .capsules = 8});
  const auto refused = small.ImportCapsule(bytes);
  EXPECT_EQ(refused.status().code(), StatusCode::kExhausted) << refused.status().message();
  EXPECT_NE(refused.status().message().find("128"), std::string::npos);
}

TEST(SessionTest, MemoryComesBack) {
  const Model model = Load();
  const auto before = model.engine().space().usage();
  {
    Session session = NewSession(model);
    ASSERT_TRUE(session.Prefill(Tokens(300)).ok());
    const Capsule capsule = session.Snapshot();
    auto forks = session.Fork(capsule, 3);
    ASSERT_TRUE(forks.ok());
    for (Session& fork : *forks) Say(fork, 70);
    EXPECT_EQ(model.NewSession().status().code(), StatusCode::kExhausted);
  }
  const auto after = model.engine().space().usage();
  EXPECT_EQ(after.bytes, before.bytes);
  EXPECT_TRUE(model.NewSession().ok());
}

// Capsules that outlive their session and model still hold what they held.
TEST(SessionTest, ACapsuleOutlivesItsModel) {
  Capsule capsule;
  std::vector<std::byte> tokens;
  {
    const Model model = Load();
    Session session = NewSession(model);
    ASSERT_TRUE(session.Prefill(Tokens(70)).ok());
    capsule = session.Snapshot();
    tokens = *capsule.Read("history.tokens");
  }
  EXPECT_EQ(*capsule.Read("history.tokens"), tokens);
  EXPECT_TRUE(capsule.Serialize().ok());
}

// User capsules take the blocks that checkpoints used; only then is there an error, which leaves the session where it was.
TEST(SessionTest, CheckpointsMakeRoomForCapsulesAndThenAFullPoolIsSaid) {
  const Model model = Load(kTiny, {.threads = 1, .context = 1024, .lanes = 1, .capsules = 6, .chunk = 32});
  Session session = NewSession(model);
  ASSERT_TRUE(session.Prefill(Tokens(20)).ok());
  std::vector<Capsule> held;
  Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {
    held.push_back(session.Snapshot());
    status = session.Append(Tokens(1, i));
  }
  EXPECT_EQ(status.code(), StatusCode::kExhausted);
  EXPECT_NE(status.message().find("drop a capsule"), std::string::npos) << status.message();
  EXPECT_GE(held.size(), 6u);
  const auto position = session.position();
  held.resize(held.size() / 2);
  EXPECT_TRUE(session.Append(Tokens(1)).ok());
  EXPECT_EQ(session.position(), position + 1);
}

TEST(SessionTest, TextStopsAndIsNeverCutInsideACharacter) {
  const Model model = Load(kEmbedded);
  Session session = NewSession(model);
  ASSERT_TRUE(session.Prefill(std::string_view("It is a truth universally acknowledged, that")).ok());
  const Capsule start = session.Snapshot();
  std::string free_text;
  const auto collect = [](std::string& text) {
    return [&text](const Token& token) {
      text += token.text;
      return true;
    };
  };
  ASSERT_EQ(*session.Generate(40, collect(free_text)), Finish::kLength);
  ASSERT_GT(free_text.size(), 40u);
  const std::string stop = free_text.substr(30, 5);
  ASSERT_TRUE(session.Restore(start).ok());
  ASSERT_TRUE(session.SetSampling({.stop = {stop}}).ok());
  std::string stopped;
  ASSERT_EQ(*session.Generate(40, collect(stopped)), Finish::kStopString);
  EXPECT_EQ(stopped, free_text.substr(0, free_text.find(stop)));
  // Refused by the caller: what was held stays held, and generation goes on from there.
  ASSERT_TRUE(session.Restore(start).ok());
  std::string parts;
  int count = 0;
  ASSERT_EQ(*session.Generate(40,
                              [&](const Token& token) {
                                parts += token.text;
                                return ++count < 5;
                              }),
            Finish::kCancelled);
  ASSERT_EQ(*session.Generate(35, collect(parts)), Finish::kLength);
  EXPECT_EQ(parts, free_text);
}

}  // namespace
}  // namespace reprise
