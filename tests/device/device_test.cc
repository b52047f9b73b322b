// See README.md of this folder.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../goldens/golden.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/emulator/emulated_device.h"
#include "backend/devices.h"
#include "base/count_hot_calls.h"
#include "exec/lane.h"
#include "reprise/session.h"
#include "session/engine.h"
#include "session/session_subject.h"
#include "session/verify.h"

namespace reprise {
namespace {

constexpr char kEmulated[] = "emulated";

// What the emulated device has copied to the host so far, in bytes.
uint64_t copied_to_host = 0;

// The emulator, and "cuda" where there is a GPU.
const std::vector<std::string>& Devices() {
  static const auto devices = [] {
    AddDevice(kEmulated, [] { return cuda::MakeBackend(cuda::MakeEmulatedDevice(3, &copied_to_host)); });
    std::vector<std::string> names = {kEmulated};
    if (const auto gpu = MakeCudaBackend(); gpu.ok()) {
      names.emplace_back("cuda");
    } else {
      std::fprintf(stderr, "NOT TESTED ON A GPU: %s\n", gpu.status().message().c_str());
    }
    return names;
  }();
  return devices;
}

class OnDevice : public testing::TestWithParam<std::string> {
 protected:
  bool emulated() const { return GetParam() == kEmulated; }
  Model Load(const std::string& path, KeyValueType kv = KeyValueType::kAuto) const {
    auto model = Model::Load(path, {.device = GetParam(), .context = 1024, .lanes = 4, .capsules = 48, .chunk = 96, .kv = kv});
    EXPECT_TRUE(model.ok()) << model.status().message();
    return *std::move(model);
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, OnDevice, testing::ValuesIn(Devices()), [](const auto& info) { return info.param; });

TEST_P(OnDevice, LogitsAndGreedyTokensAreThoseOfTransformers) {
  for (const char* name :
       {"qwen35_grouped", "llama_gqa",     "qwen2_gqa",         "qwen3_gqa",      "lfm2_hybrid",  "granite_hybrid", "granite_grouped",
        "qwen35_moe",     "qwen3_moe",     "lfm2_moe",          "granite_moe",    "qwen3_next",   "falcon_h1",      "falcon_h1_normed",
        "gemma3",         "gemma4",        "gemma4_moe",        "gpt_oss",        "mistral3",     "phi3",           "qwen3_yarn",
        "smollm3",        "granite_dense", "granite_dense_moe", "nemotron_dense", "nemotron_moe", "jamba",          "jamba_moe",
        "qwen35_equal"}) {
    if (emulated() && std::string(name) == "qwen35_equal") continue;  // slow, and another test's model
    const Golden golden(name);
    const Model model = Load(golden.model);
    ExpectLogits(model.engine(), golden, 64, emulated() ? 4 : SIZE_MAX);
  }
}

TEST_P(OnDevice, PromisesAreKept) {
  std::vector<const char*> names = {"qwen35_grouped", "qwen35_equal",    "llama_gqa",  "qwen2_gqa", "qwen3_gqa",
                                    "lfm2_hybrid",    "granite_grouped", "qwen35_moe", "lfm2_moe",  "falcon_h1",
                                    "nemotron_moe",   "gemma3",          "jamba_moe"};
  if (emulated()) names.resize(1);  // which takes the better part of a minute there
  for (const char* name : names) {
    const Model model = Load(kGoldens + std::string(name) + ".gguf");
    auto subject = SessionSubject::Create(model);
    ASSERT_TRUE(subject.ok()) << subject.status().message();
    const VerifyReport report = Verify(**subject, {.quick = true});
    for (const PromiseReport& promise : report.promises) {
      EXPECT_TRUE(promise.passed) << name << ", promise " << promise.id << ": " << promise.evidence;
    }
  }
}

// The heart of promise 3 on whole models: however a prompt is cut, alone or beside others, through a capsule or not, the logits are the same bits.
TEST_P(OnDevice, LogitsDoNotDependOnHowWorkWasCut) {
  const struct {
    std::string path;
    KeyValueType kv;
    size_t tokens;
    std::vector<size_t> chunks;  // 1: alone, as a token is decoded
  } cases[] = {{kGoldens + std::string("qwen35_equal.gguf"), KeyValueType::kF32, emulated() ? 40u : 90u, {17, 3, 1}},
               {kGoldens + std::string("qwen35_equal.gguf"), KeyValueType::kF16, emulated() ? 40u : 90u, {17, 3, 1}},
               {kGoldens + std::string("qwen35_equal.gguf"), KeyValueType::kQ8_0, emulated() ? 40u : 90u, {17, 3, 1}},
               {"models/reprise-austen.gguf", KeyValueType::kAuto, emulated() ? 16u : 90u, {11, 1}}};
  for (const auto& c : cases) {
    const Model model = Load(c.path, c.kv);
    Engine& engine = model.engine();
    const auto ids = ReadGolden<int32_t>("qwen35_equal.ids.i32");
    const auto prompt = std::span<const int32_t>(ids).first(c.tokens);
    const auto logits_of = [&](Session& session) {
      const auto logits = *session.Logits();
      return std::vector<float>(logits.begin(), logits.end());
    };
    Session whole = *model.NewSession(), parts = *model.NewSession(), other = *model.NewSession();
    const Capsule origin = whole.Snapshot();
    ASSERT_TRUE(whole.Append(prompt).ok());
    const std::vector<float> expected = logits_of(whole);
    for (const size_t chunk : c.chunks) {
      ASSERT_TRUE(parts.Restore(origin).ok());
      for (size_t at = 0; at < prompt.size(); at += chunk) {
        const auto piece = prompt.subspan(at, std::min(chunk, prompt.size() - at));
        const auto beside = prompt.first(std::min<size_t>(5, prompt.size()));
        if (other.position() > 200) {
          ASSERT_TRUE(other.Restore(origin).ok());
        }
        const Engine::Feed feeds[] = {{&parts.lane(), piece}, {&other.lane(), beside}};
        ASSERT_TRUE(engine.Advance(std::span(feeds).first(chunk == 1 ? 1 : 2)).ok());
        if (at / chunk % 2 == 0 && chunk > 1) {
          const Capsule here = parts.Snapshot();
          ASSERT_TRUE(parts.Append(beside).ok());
          ASSERT_TRUE(parts.Restore(here).ok());
        }
      }
      const std::vector<float> got = logits_of(parts);
      ASSERT_EQ(got.size(), expected.size());
      EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0) << c.path << " in steps of " << chunk
                                                                                         << (c.kv == KeyValueType::kF32    ? ", floats"
                                                                                             : c.kv == KeyValueType::kQ8_0 ? ", bytes"
                                                                                                                           : ", halves");
    }
  }
}

// A model of quantised weights: the same tokens as on the CPU, and logits as near as two ways to quantise the same activations are.
TEST_P(OnDevice, LogitsOfTheEmbeddedModelAreNearTheCpus) {
  const std::string path = "models/reprise-austen.gguf";
  for (const KeyValueType kv : {KeyValueType::kAuto, KeyValueType::kQ8_0}) {
    auto cpu = Model::Load(path, {.context = 512, .lanes = 1, .capsules = 4, .kv = kv});
    ASSERT_TRUE(cpu.ok());
    const Model device = Load(path, kv);
    auto ids = cpu->Tokenize("It was a dark and stormy evening, and Emma had");
    ASSERT_TRUE(ids.ok());
    const auto run = [&](const Model& model) {
      auto session = *model.NewSession();
      EXPECT_TRUE(session.Append(*ids).ok());
      std::vector<std::vector<float>> all;
      for (int i = 0; i < (emulated() ? 2 : 60); ++i) {
        const auto logits = *session.Logits();
        all.emplace_back(logits.begin(), logits.end());
        EXPECT_TRUE(session.Next().ok());
      }
      return all;
    };
    const auto expected = run(*cpu), actual = run(device);
    double worst = 0;
    for (size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, Worst(expected[i], actual[i]));
    EXPECT_LT(worst, 0.2);
    RecordProperty(kv == KeyValueType::kAuto ? "worst_difference" : "worst_difference_of_bytes", std::to_string(worst));
  }
}

// Tokens are chosen from the best logits that the device leaves for the host; they are those that the whole row gives. A row is copied only
// where options ask for more than the best can tell, and then it is the only thing copied.
TEST_P(OnDevice, SampledTokensAreThoseOfTheWholeRow) {
  const Model model = Load(kGoldens + std::string("qwen35_equal.gguf"));
  const Engine& engine = model.engine();
  const auto ids = ReadGolden<int32_t>("qwen35_equal.ids.i32");
  const auto vocabulary = static_cast<size_t>(model.info().vocabulary);
  ASSERT_GT(vocabulary, size_t{2} * kBestValues);
  const auto prompt = std::span<const int32_t>(ids).first(20);
  const SamplingOptions usual{.temperature = 0.9f, .top_k = 40, .top_p = 0.95f, .min_p = 0.02f, .seed = 3};
  SamplingOptions penalised = usual, biased = usual, raising = usual;
  penalised.repetition_penalty = 1.2f, penalised.presence_penalty = 0.5f, penalised.frequency_penalty = 0.2f;
  biased.bias = {{ids[0], -3.0f}, {ids[0] + 1, -100.0f}};
  raising.repetition_penalty = 0.5f;
  const struct {
    SamplingOptions options;
    bool small;  // whether the best always tell
  } cases[] = {{{}, true},
               {{.repetition_penalty = 1.3f}, true},
               {usual, true},
               {penalised, true},
               {biased, true},
               {{.temperature = 1.5f, .top_k = 128, .seed = 9}, true},
               {{.temperature = 1, .seed = 4}, false},
               {{.temperature = 0.3f, .top_p = 0.6f, .seed = 5}, true},  // the device adds up what the others weigh
               {{.temperature = 2, .top_p = 0.99f, .seed = 5}, false},
               {raising, false}};
  Session session = *model.NewSession();
  ASSERT_TRUE(session.Append(prompt).ok());
  const Capsule here = session.Snapshot();
  SampleWorkspace workspace(model.info().vocabulary);
  for (const auto& [options, small] : cases) {
    ASSERT_TRUE(session.Restore(here).ok());
    ASSERT_TRUE(session.SetSampling(options).ok());
    Generator generator{options.seed, 0};
    const auto numbers = SamplingNumbers::Of(options);
    const int steps = emulated() ? 4 : 40;
    uint64_t copied = 0;
    std::vector<int32_t> expected, got;
    for (int i = 0; i < steps; ++i) {
      const uint64_t before = copied_to_host;
      const auto token = session.Next();
      copied += copied_to_host - before;
      ASSERT_TRUE(token.ok()) << token.status().message();
      got.push_back(token->id);
      // The boundary that the token was chosen at is the lane's still: the token is only pending.
      const auto row = *session.Logits();
      const auto wanted = ChooseToken(numbers, row, session.tokens(), generator, workspace, TokenBiases::Of(options));
      ASSERT_TRUE(wanted.ok());
      expected.push_back(*wanted);
    }
    EXPECT_EQ(got, expected) << "temperature " << options.temperature << ", top_k " << options.top_k;
    if (!emulated()) continue;
    EXPECT_EQ(copied, small ? 0 : static_cast<size_t>(steps) * vocabulary * sizeof(float))
        << "temperature " << options.temperature << ", top_k " << options.top_k;
  }
  // What is left for the host beside that: a kilobyte a lane.
  EXPECT_LE(engine.best(0).ids.size() * (sizeof(float) + sizeof(int32_t)), size_t{1024});
}

// Bursts, and several sessions at once, choose from the best of their own entries.
TEST_P(OnDevice, SampledTokensAreTheSameInBurstsAndInBatches) {
  const Model model = Load(kGoldens + std::string("qwen35_equal.gguf"));
  const auto ids = ReadGolden<int32_t>("qwen35_equal.ids.i32");
  const SamplingOptions options{.temperature = 0.5f, .top_k = 40, .repetition_penalty = 1.1f, .seed = 12};
  Session alone = *model.NewSession(), beside = *model.NewSession(), burst = *model.NewSession();
  ASSERT_TRUE(alone.Append(std::span<const int32_t>(ids).first(12)).ok());
  const Capsule here = alone.Snapshot();
  const int count = 4;
  std::vector<int32_t> one, two, three;
  for (Session* session : {&alone, &beside, &burst}) {
    ASSERT_TRUE(session->Restore(here).ok());
    ASSERT_TRUE(session->SetSampling(options).ok());
  }
  for (int i = 0; i < count; ++i) one.push_back(alone.Next()->id);
  ASSERT_TRUE(alone.Append(std::span<const int32_t>(ids).first(3)).ok());
  for (int i = 0; i < count; ++i) {
    Session* const both[] = {&alone, &beside};
    Token tokens[2];
    ASSERT_TRUE(Session::NextBatch(both, tokens).ok());
    two.push_back(tokens[1].id);
  }
  EXPECT_EQ(two, one);
  ASSERT_TRUE(burst.SetSpeculation({.draft = 2, .source = Speculation::Source::kMtp, .adapt = false}).ok());
  const uint64_t before = copied_to_host;
  ASSERT_TRUE(burst
                  .Generate(count,
                            [&](const Token& token) {
                              if (token.id >= 0) three.push_back(token.id);  // the last one only ends the text
                              return true;
                            })
                  .ok());
  EXPECT_EQ(three, one);
  EXPECT_EQ(copied_to_host, before);
}

// A capsule is taken, and a thousand replays on, after the lanes have moved on, gone back and grown apart, it holds the same bytes.
TEST_P(OnDevice, CapsulesDoNotChangeWhileOthersRun) {
  const Model model = Load(kGoldens + std::string("qwen35_equal.gguf"));
  const auto ids = ReadGolden<int32_t>("qwen35_equal.ids.i32");
  std::vector<Session> sessions;
  for (int i = 0; i < 3; ++i) sessions.push_back(*model.NewSession());
  ASSERT_TRUE(sessions[0].Append(std::span<const int32_t>(ids).first(70)).ok());
  std::vector<Capsule> capsules;
  std::vector<std::vector<std::byte>> bytes;
  const auto keep = [&](Session& session) {
    capsules.push_back(session.Snapshot());
    bytes.push_back(*capsules.back().Serialize());
  };
  keep(sessions[0]);
  const int rounds = emulated() ? 12 : 1000;
  for (int i = 0; i < rounds; ++i) {
    Session& session = sessions[static_cast<size_t>(i) % 3];
    if (i % 5 == 0) {
      ASSERT_TRUE(session.Restore(capsules[static_cast<size_t>(i / 5) % capsules.size()]).ok());
    }
    if (session.position() > 900 || session.position() == 0) {
      ASSERT_TRUE(session.Restore(capsules[0]).ok());
    }
    ASSERT_TRUE(session.Next().ok());
    if (i % (rounds / 4) == 1) keep(session);
  }
  for (size_t i = 0; i < capsules.size(); ++i) EXPECT_EQ(*capsules[i].Serialize(), bytes[i]) << "capsule " << i;
  // And they mean what they meant.
  std::vector<int32_t> first, second;
  for (auto* tokens : {&first, &second}) {
    ASSERT_TRUE(sessions[1].Restore(capsules[0]).ok());
    for (int i = 0; i < 4; ++i) tokens->push_back(sessions[1].Next()->id);
  }
  EXPECT_EQ(first, second);
}

// Three lines of thought on a device with room for one and a half: what is kept of them moves to the host's memory, comes back, and goes on as it
// would have.
TEST_P(OnDevice, StateThatTheDeviceHasNoRoomForComesBackFromTheHosts) {
  const std::string path = kGoldens + std::string("qwen35_equal.gguf");
  const auto ids = ReadGolden<int32_t>("qwen35_equal.ids.i32");
  size_t budget = 0;
  {
    const Model roomy = Load(path);
    const StateLayout& layout = roomy.layout();
    const size_t host = layout.block_bytes(Space::kHost);
    budget = 7 * (layout.block_bytes(Space::kDevice) + host) + Checkpoints::kMarks * host + 200 * layout.row_bytes();
  }
  auto model = Model::Load(
      path,
      {.device = GetParam(), .context = 128, .lanes = 1, .capsules = 4, .state_budget = budget, .spill_budget = 64 << 20, .chunk = 96});
  ASSERT_TRUE(model.ok()) << model.status().message();
  Session session = *model->NewSession();
  const Capsule origin = session.Snapshot();
  std::vector<Capsule> capsules;
  std::vector<std::vector<std::byte>> bytes;
  std::vector<std::vector<int32_t>> tokens;
  const auto next = [&] {
    std::vector<int32_t> chosen;
    for (int i = 0; i < 3; ++i) chosen.push_back(session.Next()->id);
    return chosen;
  };
  for (size_t line = 0; line < 3; ++line) {
    ASSERT_TRUE(session.Restore(origin).ok());
    ASSERT_TRUE(session.Append(std::span<const int32_t>(ids).subspan(line, 70)).ok());
    for (int i = 0; i < 2; ++i) {
      capsules.push_back(session.Snapshot());
      bytes.push_back(*capsules.back().Serialize());
      tokens.push_back(next());
    }
  }
  const auto usage = model->engine().space().usage();
  EXPECT_GT(usage.extents, usage.extent_limit - usage.spilled_extent_limit) << "more than the device holds";
  EXPECT_GT(usage.spilled, 0u);
  for (size_t i = 0; i < capsules.size(); ++i) EXPECT_EQ(*capsules[i].Serialize(), bytes[i]) << "capsule " << i;
  for (size_t i = 0; i < capsules.size(); ++i) {
    ASSERT_TRUE(session.Restore(capsules[i]).ok());
    EXPECT_EQ(next(), tokens[i]) << "capsule " << i;
  }
  EXPECT_GT(model->engine().space().usage().returned, usage.returned);
}

}  // namespace
}  // namespace reprise
