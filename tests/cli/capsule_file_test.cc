// Capsules in files: another process goes on bit for bit, and what is no capsule of this model is refused by name.
#include <sys/stat.h>

#include "program_test.h"

namespace reprise {
namespace {

constexpr char kPrompt[] = "what was read before";

Arguments Options(const std::string& model) {
  return {"run", "-m", model, "--temp", "1.2", "--top-p", "0.95", "--presence-penalty", "0.3", "--penalty-window", "-1", "--seed", "12"};
}

json Saved(const std::string& model, const std::string& capsule, int tokens, Arguments more = {}) {
  Arguments arguments = Options(model);
  arguments.insert(arguments.end(), {"-p", kPrompt, "-n", std::to_string(tokens), "--save-capsule", capsule});
  arguments.insert(arguments.end(), more.begin(), more.end());
  return RunJson(arguments);
}

TEST(CapsuleFile, AnotherProcessGoesOnAsIfNothingHadHappened) {
  for (const std::string& model : {TinyModel(), LlamaModel()}) {
    const json whole = Saved(model, TestFile("whole"), 60);
    ASSERT_GT(whole["generated"].size(), 40U);
    for (const int cut : {0, 1, 17, 40}) {
      const std::string capsule = TestFile("capsule");
      const json first = Saved(model, capsule, cut);
      // Other threads, lanes and context: a capsule survives a change of settings. No sampling flags: they are in the capsule.
      const json second = RunJson({"run", "-m", model, "--load-capsule", capsule, "-n", std::to_string(60 - cut), "--threads", "1",
                                   "--context", "999", "--lanes", "2"});
      std::vector<int32_t> tokens = first["generated"];
      for (const int32_t token : second["generated"]) tokens.push_back(token);
      EXPECT_EQ(json(tokens), whole["generated"]) << cut;
      EXPECT_EQ(first["text"].get<std::string>() + second["text"].get<std::string>(), whole["text"]) << cut;
      EXPECT_EQ(second["reused"], first["position"]);
      EXPECT_EQ(second["computed"], 0);
    }
  }
}

TEST(CapsuleFile, TheMiddleOfAStopStringGoesOn) {
  Arguments options = Options(LlamaModel());
  options.insert(options.end(), {"-p", kPrompt});
  const auto with = [&](const Arguments& more) {
    Arguments arguments = options;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunJson(arguments);
  };
  const std::string text = with({"-n", "80"})["text"];
  const std::string stop = StopStringOf(text, 9);  // longer than most tokens: some cut goes through it
  ASSERT_FALSE(stop.empty()) << text;
  bool held = false;
  for (int cut = 1; cut < 80; ++cut) {
    const std::string capsule = TestFile("capsule");
    const json first = with({"--stop", stop, "-n", std::to_string(cut), "--save-capsule", capsule});
    if (first["finish"] != "length") break;
    // Every token is text here, so the text that was shown is shorter than what was said only where some was held back.
    held |= !text.starts_with(with({"-n", std::to_string(cut)})["text"].get<std::string>()) ||
            first["text"].get<std::string>().size() < with({"-n", std::to_string(cut)})["text"].get<std::string>().size();
    const json second = RunJson({"run", "-m", LlamaModel(), "--load-capsule", capsule, "-n", "80"});
    EXPECT_EQ(second["finish"], "stop string");
    EXPECT_EQ(first["text"].get<std::string>() + second["text"].get<std::string>(), text.substr(0, text.find(stop))) << cut;
  }
  EXPECT_TRUE(held);
}

TEST(CapsuleFile, APromptIsAddedToWhatItHolds) {
  const std::string capsule = TestFile("capsule");
  const json first = Saved(LlamaModel(), capsule, 0);
  const json more = RunJson({"run", "-m", LlamaModel(), "--load-capsule", capsule, "-p", " and then", "-n", "0"});
  EXPECT_EQ(more["reused"], first["position"]);
  EXPECT_EQ(more["position"].get<int>(), first["position"].get<int>() + more["prompt_tokens"].get<int>());
}

TEST(CapsuleFile, IsItsOwnersAlone) {
  const std::string capsule = TestFile("capsule");
  Saved(TinyModel(), capsule, 2);
  struct stat info {};
  ASSERT_EQ(::stat(capsule.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  ExpectError(RunReprise({"run", "-m", TinyModel(), "-p", "x", "-n", "0", "--save-capsule", TestFile("absent/capsule")}), 1, "absent");
}

TEST(CapsuleFile, WhatIsNoCapsuleOfThisModelIsRefused) {
  const std::string capsule = TestFile("capsule");
  Saved(TinyModel(), capsule, 5);
  const std::string bytes = ReadBytes(capsule);
  const auto refused = [&](const std::string& changed, const std::string& says) {
    const std::string file = TestFile("changed");
    WriteBytes(file, changed);
    ExpectError(RunReprise({"run", "-m", TinyModel(), "--load-capsule", file, "-n", "1"}), 1, says);
    ExpectError(RunReprise({"run", "-m", TinyModel(), "--load-capsule", file, "-n", "1", "--json"}), 1, file);
  };
  refused(bytes.substr(0, bytes.size() - 1), "bytes");
  refused(bytes.substr(0, bytes.size() / 2), "bytes");
  refused(bytes.substr(0, 40), "header");
  refused("", "header");
  refused("GGUF" + bytes.substr(4), "no capsule");
  refused(bytes + std::string(64, '\0'), "bytes");
  std::string flipped = bytes;
  flipped[flipped.size() - 70] = static_cast<char>(flipped[flipped.size() - 70] ^ 4);
  refused(flipped, "");
  for (size_t at = 0; at < bytes.size(); at += bytes.size() / 23) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
    refused(damaged, "");
  }
  ExpectError(RunReprise({"run", "-m", OtherModel(), "--load-capsule", capsule}), 1, "another model");
  ExpectError(RunReprise({"run", "-m", LlamaModel(), "--load-capsule", capsule}), 1, "another model");
  ExpectError(RunReprise({"run", "-m", TinyModel(), "--kv", "f32", "--load-capsule", capsule}), 1, "another model");
  ExpectError(RunReprise({"run", "-m", TinyModel(), "--kv", "q8_0", "--load-capsule", capsule}), 1, "another model");
  const std::string of_bytes = TestFile("of_bytes");
  RunJson({"run", "-m", TinyModel(), "--kv", "q8_0", "-p", "some words", "-n", "2", "--save-capsule", of_bytes});
  EXPECT_EQ(RunReprise({"run", "-m", TinyModel(), "--kv", "q8_0", "--load-capsule", of_bytes, "-n", "1"}).exit_code, 0);
  ExpectError(RunReprise({"run", "-m", TinyModel(), "--kv", "f16", "--load-capsule", of_bytes}), 1, "another model");
  ExpectError(RunReprise({"run", "-m", TinyModel(), "--load-capsule", TestFile("absent")}), 1, "No such file");
  ExpectError(RunReprise({"run", "-m", TinyModel(), "--load-capsule", capsule, "--context", "3"}), 1, "context of 3");
}

}  // namespace
}  // namespace reprise
