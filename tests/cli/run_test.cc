// `reprise run`: the same tokens whenever the same is asked, however the work is cut.
#include <csignal>
#include <fstream>
#include <thread>

#include "program_test.h"

namespace reprise {
namespace {

constexpr char kPrompt[] = "a prompt of some length, so that it takes more than one step of eight tokens";

Arguments Sampled(const std::string& model, const std::string& seed = "5") {
  return {"run", "-m", model, "-p", kPrompt, "-n", "40", "--temp", "1", "--top-k", "100", "--repeat-penalty", "1.2", "--seed", seed};
}
Arguments With(Arguments arguments, const Arguments& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(Run, SaysWhatItDid) {
  const json result = RunJson({"run", "-m", LlamaModel(), "-p", kPrompt, "-n", "10"});
  EXPECT_EQ(result["architecture"], "llama");
  EXPECT_EQ(result["finish"], "length");
  EXPECT_EQ(result["generated"].size(), 10U);
  EXPECT_EQ(result["reused"], 0);
  EXPECT_EQ(result["computed"], result["prompt_tokens"]);
  EXPECT_EQ(result["position"].get<int>(), result["prompt_tokens"].get<int>() + 9);  // the last token is chosen, not fed
  for (const char* key : {"model", "fingerprint", "text", "load_ms", "prefill_ms", "decode_ms", "decode_tokens_per_s"})
    EXPECT_TRUE(result.contains(key)) << key;
}

TEST(Run, IsTheSameHoweverTheWorkIsCut) {
  for (const std::string& model : {TinyModel(), LlamaModel()}) {
    const json once = RunJson(Sampled(model));
    for (const Arguments& more : {Arguments{}, Arguments{"--threads", "1"}, Arguments{"--threads", "3", "--chunk", "8"},
                                  Arguments{"--lanes", "1", "--context", "300"}}) {
      EXPECT_EQ(RunJson(With(Sampled(model), more))["generated"], once["generated"]);
    }
    EXPECT_NE(RunJson(Sampled(model, "6"))["generated"], once["generated"]);
  }
}

TEST(Run, GuessingAheadChangesNothing) {
  const Arguments greedy{"run", "-m", TinyModel(), "-p", kPrompt, "-n", "60"};
  EXPECT_EQ(RunJson(With(greedy, {"--draft", "4"}))["generated"], RunJson(greedy)["generated"]);
  const json drafted = RunJson(With(Sampled(TinyModel()), {"--draft", "3"}));
  EXPECT_EQ(drafted["generated"], RunJson(Sampled(TinyModel()))["generated"]);
  EXPECT_GT(drafted["draft"]["steps"], 0);
}

TEST(Run, TextIsTheJsonsTextFromAnySource) {
  const json result = RunJson({"run", "-m", LlamaModel(), "-p", kPrompt, "-n", "12"});
  const std::string file = TestFile("prompt.txt");
  WriteBytes(file, kPrompt);
  for (const Ran& ran :
       {RunReprise({"run", "-m", LlamaModel(), "-p", kPrompt, "-n", "12"}), RunReprise({"run", "-m", LlamaModel(), "-f", file, "-n", "12"}),
        RunReprise({"run", "-m", LlamaModel(), "-f", "-", "-n", "12"}, kPrompt)}) {
    EXPECT_EQ(ran.exit_code, 0) << ran.err;
    EXPECT_EQ(ran.err, "");
    const std::string text = result["text"];
    EXPECT_EQ(ran.out, text.ends_with('\n') ? text : text + "\n");
  }
}

TEST(Run, BranchesAreWhatEachWouldBeAlone) {
  const json together = RunJson(With(Sampled(TinyModel(), "20"), {"--branches", "4"}));
  ASSERT_EQ(together["branches"].size(), 4U);
  for (int i = 0; i < 4; ++i) {
    const json alone = RunJson(Sampled(TinyModel(), std::to_string(20 + i)));
    EXPECT_EQ(together["branches"][i]["seed"], 20 + i);
    EXPECT_EQ(together["branches"][i]["generated"], alone["generated"]);
    EXPECT_EQ(together["branches"][i]["text"], alone["text"]);
  }
  EXPECT_EQ(RunReprise(With(Sampled(TinyModel()), {"--branches", "2"})).exit_code, 0);
  ExpectError(RunReprise(With(Sampled(TinyModel()), {"--branches", "4", "--lanes", "2"})), 1, "lanes");
}

TEST(Run, StopsAtAStopString) {
  const std::string text = RunJson(Sampled(LlamaModel()))["text"];
  const std::string stop = StopStringOf(text, 3);
  ASSERT_FALSE(stop.empty()) << text;
  const json stopped = RunJson(With(Sampled(LlamaModel()), {"--stop", "never to be seen", "--stop", stop}));
  EXPECT_EQ(stopped["finish"], "stop string");
  EXPECT_EQ(stopped["text"], text.substr(0, text.find(stop)));
}

TEST(Run, WritesJsonOfASchema) {
  const std::string schema = testing::TempDir() + "schema.json";
  std::ofstream(schema)
      << R"({"properties":{"n":{"type":"integer","minimum":10,"maximum":99},"of":{"enum":["letters","balls"]}},"required":["n","of"]})";
  const json result = RunJson({"run", "-m", LlamaModel(), "-p", kPrompt, "-n", "300", "--temp", "1", "--json-schema", schema});
  EXPECT_EQ(result["finish"], "complete");
  const json written = json::parse(result["text"].get<std::string>(), nullptr, false);
  ASSERT_TRUE(written.is_object()) << result["text"];
  EXPECT_TRUE(written["n"] >= 10 && written["n"] <= 99 && (written["of"] == "letters" || written["of"] == "balls")) << result["text"];

  std::ofstream(schema) << R"x({"type":"string","pattern":"(?=a)"})x";
  ExpectError(RunReprise(With(Sampled(LlamaModel()), {"--json-schema", schema})), 2, "the schema's 'pattern' at # cannot be enforced");
}

TEST(Run, EndsWithTheContext) {
  const json result = RunJson({"run", "-m", LlamaModel(), "-p", kPrompt, "-n", "500", "--context", "100"});
  EXPECT_EQ(result["finish"], "length");
  EXPECT_EQ(result["context_full"], true);
  EXPECT_EQ(result["position"], 100);
  EXPECT_EQ(result["generated"].size(), 101U - result["prompt_tokens"].get<size_t>());
  ExpectError(RunReprise({"run", "-m", TinyModel(), "-p", kPrompt, "--context", "4"}), 1, "context of 4");
}

TEST(Run, AnyBytesGoInAndJsonComesOut) {
  const std::string file = TestFile("bytes");
  std::string bytes;
  for (int i = 0; i < 512; ++i) bytes.push_back(static_cast<char>(i * 37));
  WriteBytes(file, bytes);
  const json result = RunJson({"run", "-m", LlamaModel(), "-f", file, "-n", "50", "--temp", "3"});
  EXPECT_EQ(result["generated"].size(), 50U);
  WriteBytes(file, "");
  ExpectError(RunReprise({"run", "-m", LlamaModel(), "-f", file}), 1, "empty");
  ExpectError(RunReprise({"run", "-m", LlamaModel(), "-f", SharedDirectory()}), 1, "not a regular file");
  ExpectError(RunReprise({"run", "-m", LlamaModel(), "-f", TestFile("absent")}), 1, "No such file");
}

TEST(Run, AQuestionIsPutInTheChatFormat) {
  const json plain = RunJson({"run", "-m", TinyModel(), "-p", "hello", "-n", "1"});
  const json chat = RunJson({"run", "-m", TinyModel(), "-p", "hello", "-n", "1", "--chat", "--system", "be brief"});
  EXPECT_GT(chat["prompt_tokens"], plain["prompt_tokens"].get<int>() + 4);
  // Written in the prompt, markers are letters unless asked for.
  const json letters = RunJson({"run", "-m", TinyModel(), "-p", "<|im_start|>", "-n", "0"});
  const json marker = RunJson({"run", "-m", TinyModel(), "-p", "<|im_start|>", "-n", "0", "--special"});
  EXPECT_GT(letters["prompt_tokens"], 1);
  EXPECT_EQ(marker["prompt_tokens"], 1);
}

TEST(Run, AnInterruptStopsAtABoundary) {
  const std::string capsule = TestFile("capsule");
  // Greedy, this model never chooses its end of text: a fast machine must not come to it before the signal.
  Program program({REPRISE_PROGRAM, "run", "-m", TinyModel(), "-p", kPrompt, "-n", "1000000", "--context", "1000000", "--threads", "1",
                   "--save-capsule", capsule},
                  "", SharedDirectory());
  for (int i = 0; i < 2000 && program.OutputSoFar().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  program.Signal(SIGINT);
  const Ran ran = program.Wait();
  EXPECT_EQ(ran.exit_code, 130) << ran.err;
  // What was reached is a capsule like any other.
  const json next = RunJson({"run", "-m", TinyModel(), "--load-capsule", capsule, "-n", "4", "--context", "1000000"});
  EXPECT_EQ(next["generated"].size(), 4U);
  EXPECT_GT(next["reused"], 0);
}

TEST(Run, TheEmbeddedModelRunsWithoutAName) {
  if (!std::filesystem::exists("models/reprise-austen.gguf")) GTEST_SKIP() << "the embedded model is not here";
  const Arguments arguments{"run", "-p", "It is a truth universally acknowledged, that", "-n", "16"};
  const json result = RunJson(arguments);
  EXPECT_EQ(result["generated"].size(), 16U);
  EXPECT_EQ(RunJson(With(arguments, {"-m", "reprise-austen", "--threads", "1"}))["generated"], result["generated"]);
}

}  // namespace
}  // namespace reprise
