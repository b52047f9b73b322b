// verify, bench and demo: what scripts read of them, and that what they print is what they found.
#include <set>

#include "base/sanitized.h"
#include "program_test.h"

namespace reprise {
namespace {

TEST(VerifyProgram, SaysOfEachPromiseWhetherItIsKept) {
  const json report = RunJson({"verify", "-m", TinyModel(), "--json", "--quick"});
  std::set<std::string> keys;
  for (const auto& [key, value] : report.items()) keys.insert(key);
  EXPECT_EQ(keys, (std::set<std::string>{"model", "passed", "promises"}));
  EXPECT_EQ(report["passed"], true);
  ASSERT_EQ(report["promises"].size(), 6u);
  for (int i = 0; i < 6; ++i) {
    const json& promise = report["promises"][static_cast<size_t>(i)];
    EXPECT_EQ(promise["id"], i + 1);
    EXPECT_EQ(promise["passed"], true) << promise["evidence"];
    EXPECT_FALSE(promise["name"].get<std::string>().empty());
    EXPECT_FALSE(promise["evidence"].get<std::string>().empty());
    EXPECT_EQ(promise.size(), 4u);
  }
}

TEST(VerifyProgram, PrintsCheckMarksAndNoColourToAPipe) {
  const Ran ran = RunReprise({"verify", "-m", LlamaModel(), "--quick"});
  EXPECT_EQ(ran.exit_code, 0) << ran.out << ran.err;
  EXPECT_NE(ran.out.find("✓ 6 refusing"), std::string::npos) << ran.out;
  EXPECT_EQ(ran.out.find('\033'), std::string::npos);
  EXPECT_EQ(ran.err, "");
}

TEST(VerifyProgram, FailsWhenAPromiseCannotBeShown) {
  const Ran ran = RunReprise({"verify", "-m", TinyModel(), "--lanes", "1", "--json"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_EQ(json::parse(ran.out)["passed"], false);
}

TEST(BenchProgram, WritesWhatTheContractSays) {
  const std::string file = TestFile("bench.json");
  const std::string plot = TestFile("ttft.svg");
  const Ran ran =
      RunReprise({"bench", "-m", TinyModel(), "--prompt", "64,96", "--branches", "1,3", "--runs", "5", "--json", file, "--plot", plot});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  const json report = json::parse(ReadBytes(file));
  EXPECT_TRUE(report["machine"].contains("cpu"));
  EXPECT_TRUE(report["model"].is_string());
  std::set<std::string> names;
  for (const json& result : report["results"]) {
    const auto name = result["name"].get<std::string>();
    names.insert(name);
    EXPECT_GT(result["median"].get<double>(), 0) << name;
    EXPECT_LE(result["min"].get<double>(), result["median"].get<double>()) << name;
    EXPECT_LE(result["median"].get<double>(), result["max"].get<double>()) << name;
    EXPECT_EQ(result["runs"], 5) << name;
    EXPECT_TRUE(result["unit"].is_string()) << name;
    EXPECT_TRUE(name != "snapshot" || result["bytes_copied"] == 0);
    EXPECT_EQ(result.contains("bytes_copied"), name == "snapshot" || name == "restore" || name == "fork") << name;
    EXPECT_EQ(result.contains("branches"), name == "branches") << name;
    EXPECT_FALSE(result.contains("ratio"));
  }
  EXPECT_EQ(names, (std::set<std::string>{"prefill", "decode", "suffix64", "snapshot", "restore", "fork", "branches", "rollback",
                                          "ttft_cold", "ttft_restored", "load"}));
  EXPECT_EQ(ReadBytes(plot).rfind("<svg", 0), 0u);
}

TEST(BenchProgram, MeasuresGuessesOfEverySource) {
  const Ran ran = RunReprise({"bench", "--prompt", "16", "--branches", "1", "--runs", "2", "--draft", "3", "--json", "-"});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  const json report = json::parse(ran.out);
  std::set<std::pair<std::string, bool>> kinds;
  for (const json& result : report["results"]) {
    if (result["name"] != "speculation") continue;
    const auto source = result["drafts"].get<std::string>();
    kinds.emplace(source, result["temperature"] == 0.0);
    EXPECT_GT(result["median"].get<double>(), 0) << source;
    EXPECT_TRUE(source != "off" || !result.contains("acceptance"));
    if (source == "off") {
      EXPECT_EQ(result["tokens_a_step"], 1.0);
    }
    // How many are guessed follows the clock; how many of them come true does not.
    EXPECT_GE(result["tokens_a_step"].get<double>(), 1.0) << source;
    if (source == "mtp" && result["temperature"] == 0.0) {
      EXPECT_GT(result["acceptance"].get<double>(), 0.25);
    }
  }
  const std::set<std::pair<std::string, bool>> all = {{"off", true},  {"lookup", true},  {"mtp", true},
                                                      {"off", false}, {"lookup", false}, {"mtp", false}};
  EXPECT_EQ(kinds, all);
}

TEST(BenchProgram, APeerThatIsNotThereIsOneClearLine) {
  const Ran unknown = RunReprise({"bench", "-m", TinyModel(), "--prompt", "16", "--peer", "nobody"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_NE(unknown.err.find("llama.cpp"), std::string::npos) << unknown.err;
  const Ran missing =
      RunReprise({"bench", "-m", TinyModel(), "--prompt", "16", "--runs", "1", "--peer", "llama.cpp", "--peer-python", "/nowhere/python"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_NE(missing.err.find("/nowhere/python"), std::string::npos) << missing.err;
}

TEST(DemoProgram, ComparesWhatItClaimsInPlainTextWhenPiped) {
  if (kSanitized) GTEST_SKIP() << "its contexts of 8,192 tokens take ten minutes under a sanitizer, on paths that other tests take";
  const Ran ran = RunReprise({"demo"});
  EXPECT_EQ(ran.exit_code, 0) << ran.out << ran.err;
  EXPECT_EQ(ran.out.find('\033'), std::string::npos);
  EXPECT_EQ(ran.out.find("✗"), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("60 of 60 sampled tokens are the same"), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("8,192"), std::string::npos) << ran.out;
}

}  // namespace
}  // namespace reprise
