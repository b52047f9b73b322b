// `reprise eval`: bits that do not depend on how the work was cut, and ids that are checked.
#include <cmath>

#include "program_test.h"

namespace reprise {
namespace {

constexpr size_t kVocabulary = 512;

std::vector<int32_t> Ids(int count) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back((i * i * 31 + 7 * i) % 500);
  return ids;
}
std::string IdFile(const std::vector<int32_t>& ids) {
  const std::string file = TestFile("ids.i32");
  WriteBytes(file, TokenBytes(ids));
  return file;
}
std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

TEST(Eval, LogitsDoNotDependOnHowTheWorkIsCut) {
  const std::string ids = IdFile(Ids(150));
  const std::string out = TestFile("logits.f32");
  for (const std::string& model : {TinyModel(), LlamaModel()}) {
    for (const std::string kv : {"f16", "f32", "q8_0"}) {
      if (kv == "q8_0" && model == LlamaModel()) {
        ExpectError(RunReprise({"eval", "-m", model, "--tokens", ids, "--kv", kv}), 1, "a head of this model is 16 wide");
        continue;
      }
      const auto logits = [&](const Arguments& more) {
        Arguments arguments{"eval", "-m", model, "--tokens", ids, "--logits", out, "--greedy", "9", "--kv", kv};
        arguments.insert(arguments.end(), more.begin(), more.end());
        const json result = RunJson(arguments);
        return std::pair(ReadBytes(out), result["greedy"]);
      };
      const auto first = logits({});
      ASSERT_EQ(first.first.size(), 150 * kVocabulary * sizeof(float));
      EXPECT_EQ(logits({"--threads", "1", "--chunk", "1"}), first);
      EXPECT_EQ(logits({"--threads", "2", "--chunk", "7", "--lanes", "5"}), first);
      EXPECT_EQ(logits({"--threads", "3", "--chunk", "64", "--context", "4000"}), first);
      // The last rows alone, reached by long steps, are the last of all rows.
      const auto last = logits({"--last", "3", "--chunk", "100"});
      EXPECT_EQ(last.first, first.first.substr(147 * kVocabulary * sizeof(float)));
      EXPECT_EQ(last.second, first.second);
      EXPECT_EQ(logits({"--last", "1000"}), first);
    }
  }
}

TEST(Eval, SaysWhatTheLogitsSay) {
  const std::vector<int32_t> ids = Ids(40);
  const std::string out = TestFile("logits.f32");
  const json result = RunJson({"eval", "-m", TinyModel(), "--tokens", IdFile(ids), "--logits", out, "--greedy", "5"});
  EXPECT_EQ(result["tokens"], 40);
  EXPECT_EQ(result["vocab"], kVocabulary);
  const std::vector<float> logits = Floats(ReadBytes(out));
  double sum = 0;
  for (size_t row = 0; row + 1 < ids.size(); ++row) {
    double total = 0;
    for (size_t i = 0; i < kVocabulary; ++i) total += std::exp(static_cast<double>(logits[row * kVocabulary + i]));
    sum += std::log(total) - logits[row * kVocabulary + static_cast<size_t>(ids[row + 1])];
  }
  EXPECT_EQ(result["predicted"], 39);
  EXPECT_NEAR(result["nll"].get<double>(), sum / 39, 1e-9);
  EXPECT_NEAR(result["perplexity"].get<double>(), std::exp(sum / 39), 1e-6);
  const auto last = logits.end() - kVocabulary;
  EXPECT_EQ(result["greedy"][0], std::max_element(last, logits.end()) - last);

  // What follows is what `eval` itself finds after the ids and what followed first.
  std::vector<int32_t> longer = ids;
  for (int i = 0; i < 3; ++i) longer.push_back(result["greedy"][i]);
  const json next = RunJson({"eval", "-m", TinyModel(), "--tokens", IdFile(longer), "--last", "1", "--greedy", "2"});
  EXPECT_EQ(next["greedy"][0], result["greedy"][3]);
  EXPECT_EQ(next["greedy"][1], result["greedy"][4]);
  EXPECT_TRUE(next["nll"].is_null());  // the last row foretells nothing that is known
}

TEST(Eval, DraftsAreCountedWhereThereAreAny) {
  const std::string ids = IdFile(Ids(70));
  const json result = RunJson({"eval", "-m", TinyModel(), "--tokens", ids, "--draft"});
  EXPECT_EQ(result["draft"]["rows"], 69);
  const double acceptance = result["draft"]["acceptance"];
  EXPECT_GE(acceptance, 0);
  EXPECT_LE(acceptance, 1);
  ExpectError(RunReprise({"eval", "-m", LlamaModel(), "--tokens", ids, "--draft"}), 1, "draft");
  const Ran text = RunReprise({"eval", "-m", TinyModel(), "--tokens", ids, "--draft", "--greedy", "2"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_NE(text.out.find("acceptance"), std::string::npos);
}

TEST(Eval, IdsAreChecked) {
  const std::string file = TestFile("ids.i32");
  const std::string out = TestFile("logits.f32");
  const auto refused = [&](const std::string& bytes, const std::string& says) {
    WriteBytes(file, bytes);
    ExpectError(RunReprise({"eval", "-m", TinyModel(), "--tokens", file, "--logits", out, "--json"}), 1, says);
    EXPECT_FALSE(std::filesystem::exists(out));
  };
  refused("", "no token ids");
  refused("abcde", "multiple of 4");
  refused(TokenBytes({1, 2, 512}), "512 at index 2");
  refused(TokenBytes({-1}), "-1 at index 0");
  refused(TokenBytes({1, INT32_MIN}), "outside the vocabulary");
  ExpectError(RunReprise({"eval", "-m", TinyModel(), "--tokens", TestFile("absent")}), 1, "No such file");
  ExpectError(RunReprise({"eval", "-m", TinyModel(), "--tokens", SharedDirectory()}), 1, "not a regular file");
  WriteBytes(file, TokenBytes(Ids(20)));
  ExpectError(RunReprise({"eval", "-m", TinyModel(), "--tokens", file, "--context", "19"}), 1, "context");
  ExpectError(RunReprise({"eval", "-m", TinyModel(), "--tokens", file, "--logits", TestFile("absent/logits")}), 1, "absent");
}

}  // namespace
}  // namespace reprise
