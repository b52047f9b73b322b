// `--store` and `reprise capsule`: what one process computed, the next one has.
#include <cstdlib>

#include "program_test.h"

namespace reprise {
namespace {

std::string LongText() {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word " + std::to_string(i * 7919 % 1000) + " and ";
  return text;
}

Arguments RunWith(const std::string& store, const std::string& prompt) {
  return {"run", "-m", TinyModel(), "--store", store, "--context", "8192", "-p", prompt, "-n", "8"};
}

TEST(Store, TheNextProcessComputesOnlyWhatIsNew) {
  const std::string store = TestFile("store");
  const json first = RunJson(RunWith(store, LongText()));
  EXPECT_EQ(first["reused"], 0);
  EXPECT_EQ(first["tier"], "none");
  EXPECT_NE(first["reason"], "");
  const json again = RunJson(RunWith(store, LongText()));
  EXPECT_EQ(again["reused"], again["prompt_tokens"]);
  EXPECT_EQ(again["computed"], 0);
  EXPECT_EQ(again["tier"], "disk");
  EXPECT_EQ(again["reason"], "");
  EXPECT_EQ(again["generated"], first["generated"]);
  // Another model in the same directory, and a directory that is none.
  Arguments other = RunWith(store, LongText());
  other[2] = OtherModel();
  EXPECT_EQ(RunJson(other)["reused"], 0);
  ExpectError(RunReprise({"run", "-m", TinyModel(), "--store", "/proc/version", "-p", "a", "-n", "1"}), 1, "/proc/version");
  ExpectError(RunReprise({"run", "-m", TinyModel(), "--store-memory", "5", "-p", "a"}), 2, "--store");
}

TEST(Store, ShowsChecksRemovesAndCollects) {
  const std::string store = TestFile("store");
  RunJson(RunWith(store, LongText()));
  RunJson(RunWith(store, LongText() + "one more thing, " + LongText()));
  const json list = RunJson({"capsule", "ls", "--store", store, "-m", TinyModel()});
  ASSERT_GE(list["capsules"].size(), 2U);
  const Ran tree = RunReprise({"capsule", "tree", "--store", store, "-m", TinyModel()});
  EXPECT_EQ(tree.exit_code, 0) << tree.err;
  EXPECT_NE(tree.out.find("└─ "), std::string::npos) << tree.out;
  EXPECT_NE(tree.out.find("(+"), std::string::npos) << tree.out;
  const std::string id = std::to_string(list["capsules"][0]["id"].get<uint64_t>());
  // No model is needed but for the text, so that capsules of any are shown.
  Arguments other = RunWith(store, LongText());
  other[2] = OtherModel();
  RunJson(other);
  const json all = RunJson({"capsule", "ls", "--store", store});
  EXPECT_GT(all["capsules"].size(), list["capsules"].size());
  for (const json& capsule : list["capsules"])
    EXPECT_NE(std::find(all["capsules"].begin(), all["capsules"].end(), capsule), all["capsules"].end());
  const std::string fingerprint = list["capsules"][0]["model"].get<std::string>();
  const Ran both = RunReprise({"capsule", "tree", "--store", store});
  EXPECT_NE(both.out.find("model " + fingerprint.substr(0, 12)), std::string::npos) << both.out;
  EXPECT_EQ(both.out.find(" … "), std::string::npos) << both.out;
  EXPECT_NE(tree.out.find(" … "), std::string::npos) << tree.out;
  const json bare = RunJson({"capsule", "show", "--store", store, id});
  EXPECT_FALSE(bare.contains("text"));
  ExpectError(RunReprise({"capsule", "ls", "--store", store, "-m", "/absent.gguf"}), 1, "/absent.gguf");
  const json shown = RunJson({"capsule", "show", "--store", store, "-m", TinyModel(), id});
  EXPECT_EQ(shown["tokens"].size(), shown["position"].get<size_t>());
  EXPECT_EQ(shown["tokens"], bare["tokens"]);
  EXPECT_NE(shown["text"].get<std::string>().find("word"), std::string::npos);
  const json whole = RunJson({"capsule", "check", "--store", store});
  EXPECT_EQ(whole["capsules"], all["capsules"].size());
  EXPECT_TRUE(whole["faults"].empty());
  EXPECT_EQ(RunReprise({"capsule", "rm", "--store", store, "-m", TinyModel(), id}).exit_code, 0);
  ExpectError(RunReprise({"capsule", "rm", "--store", store, "-m", TinyModel(), id}), 1, id);
  // A damaged file is found, set aside, and the rest is whole.
  for (const auto& file : std::filesystem::recursive_directory_iterator(store + "/objects")) {
    if (!file.is_regular_file() || file.file_size() < 5000) continue;
    std::string bytes = ReadBytes(file.path());
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    WriteBytes(file.path(), bytes);
    break;
  }
  EXPECT_EQ(RunReprise({"capsule", "check", "--store", store}).exit_code, 1);
  EXPECT_EQ(RunReprise({"capsule", "gc", "--store", store}).exit_code, 0);
  EXPECT_EQ(RunReprise({"capsule", "check", "--store", store}).exit_code, 0);
  EXPECT_EQ(RunJson(RunWith(store, LongText()))["finish"], "length");
}

TEST(Store, ABranchMovesToAnotherStoreAndAForeignOneIsRefused) {
  const std::string store = TestFile("store");
  const std::string there = TestFile("there");
  const std::string key = TestFile("key");
  const std::string secret = TestFile("secret");
  const std::string file = TestFile("bundle");
  const json first = RunJson(RunWith(store, LongText()));
  EXPECT_EQ(RunReprise({"capsule", "keygen", "--sign", key}).exit_code, 0);
  EXPECT_EQ(RunReprise({"capsule", "keygen", "--encrypt", secret}).exit_code, 0);
  ExpectError(RunReprise({"capsule", "keygen"}), 2, "is required");
  const json list = RunJson({"capsule", "ls", "--store", store, "-m", TinyModel()});
  const std::string root = std::to_string(list["capsules"][0]["id"].get<uint64_t>());
  const Ran out = RunReprise(
      {"capsule", "export", "--store", store, "-m", TinyModel(), root, "--subtree", "-o", file, "--sign", key, "--encrypt", secret});
  ASSERT_EQ(out.exit_code, 0) << out.err;
  ExpectError(RunReprise({"capsule", "import", "--store", there, file}), 1, "encrypt");
  ExpectError(RunReprise({"capsule", "import", "--store", there, "-m", OtherModel(), file, "--verify", key + ".pub", "--decrypt", secret}),
              1, "model");
  const Ran in =
      RunReprise({"capsule", "import", "--store", there, "-m", TinyModel(), file, "--verify", key + ".pub", "--decrypt", secret});
  ASSERT_EQ(in.exit_code, 0) << in.err;
  ExpectError(RunReprise({"capsule", "import", "--store", there, file, "--verify", key + ".pub", "--decrypt", secret}), 1, "before");
  const json moved = RunJson(RunWith(there, LongText()));
  EXPECT_EQ(moved["reused"], moved["prompt_tokens"]);
  EXPECT_EQ(moved["generated"], first["generated"]);
}

TEST(Store, AChatGoesOnInTheNextProcess) {
  const std::string store = TestFile("store");
  const auto talk = [&](const std::string& input, Arguments more = {}) {
    Arguments arguments{"chat", "-m", TinyModel(), "--context", "8192", "-n", "40", "--temp", "1", "--store", store};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunReprise(arguments, input);
  };
  const Ran whole = RunReprise({"chat", "-m", TinyModel(), "--context", "8192", "-n", "40", "--temp", "1"}, "first\nsecond\n");
  const Ran first = talk("first\n", {"--resume", "talk"});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  const Ran second = talk("second\n", {"--resume", "talk"});
  EXPECT_EQ(second.exit_code, 0) << second.err;
  EXPECT_NE(second.err.find("talk resumed: 1 turn"), std::string::npos) << second.err;
  EXPECT_EQ(first.out + second.out, whole.out);
  EXPECT_NE(RunReprise({"capsule", "ls", "--store", store}).out.find("'talk'"), std::string::npos);
  EXPECT_NE(talk("a question\n").err.find("store in"), std::string::npos);
}

}  // namespace
}  // namespace reprise
