// `reprise inspect` and `reprise synth`: what a file holds, and files that are not what they seem.
#include <set>

#include "program_test.h"

namespace reprise {
namespace {

TEST(Inspect, AModelsStatesAreAllThere) {
  const json model = RunJson({"inspect", TinyModel()});
  EXPECT_EQ(model["format"], "gguf");
  EXPECT_EQ(model["architecture"], "qwen35");
  EXPECT_EQ(model["draft"], true);
  EXPECT_EQ(model["fingerprint"].get<std::string>().size(), 64U);
  std::set<std::string> names;
  size_t row_bytes = 0;
  size_t recurrent_bytes = 0;
  for (const json& state : model["states"]) {
    EXPECT_TRUE(names.insert(state["name"]).second) << state;
    (state["growth"] == "append" ? row_bytes : recurrent_bytes) += state["bytes"].get<size_t>();
  }
  for (const char* name :
       {"history.tokens", "last.hidden", "decode.generator", "decode.utf8", "mtp.attn.k", "blk.0.delta.memory", "blk.0.conv.tail"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_EQ(model["row_bytes"], row_bytes);
  EXPECT_EQ(model["recurrent_bytes"], recurrent_bytes);
  EXPECT_EQ(model["tokenizer"]["known"], true);

  const Ran text = RunReprise({"inspect", TinyModel(), "--metadata", "--tensors"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  for (const std::string& name : names) EXPECT_NE(text.out.find(name), std::string::npos) << name;
  EXPECT_NE(text.out.find("tokenizer.ggml.tokens"), std::string::npos);
  EXPECT_NE(text.out.find("token_embd.weight"), std::string::npos);
  // The settings that are part of whose state this is.
  EXPECT_NE(RunJson({"inspect", TinyModel(), "--kv", "f32"})["fingerprint"], model["fingerprint"]);
  const json of_bytes = RunJson({"inspect", TinyModel(), "--kv", "q8_0"});
  EXPECT_NE(of_bytes["fingerprint"], model["fingerprint"]);
  EXPECT_LT(of_bytes["row_bytes"].get<double>(), 0.55 * model["row_bytes"].get<double>());
  EXPECT_NE(RunJson({"inspect", OtherModel()})["fingerprint"], model["fingerprint"]);
}

TEST(Inspect, ACapsuleSaysWhatItHolds) {
  const std::string capsule = TestFile("capsule");
  const json run = RunJson({"run", "-m", TinyModel(), "-p", "some words", "-n", "4", "--save-capsule", capsule});
  const json held = RunJson({"inspect", capsule});
  EXPECT_EQ(held["format"], "capsule");
  EXPECT_EQ(held["position"], run["position"]);
  EXPECT_EQ(held["fingerprint"], run["fingerprint"]);
  EXPECT_EQ(held["bytes"], std::filesystem::file_size(capsule));
  EXPECT_EQ(held["metadata"]["tokens"], run["position"]);
  const json model = RunJson({"inspect", TinyModel()});
  ASSERT_EQ(held["states"].size(), model["states"].size());
  for (size_t i = 0; i < held["states"].size(); ++i) {
    const json& state = held["states"][i];
    EXPECT_EQ(state["name"], model["states"][i]["name"]);
    const auto count = state["growth"] == "append" ? run["position"].get<size_t>() : 1;
    EXPECT_EQ(state["payload_bytes"], state["bytes"].get<size_t>() * count);
  }
  EXPECT_EQ(RunReprise({"inspect", capsule}).exit_code, 0);

  std::string bytes = ReadBytes(capsule);
  WriteBytes(capsule, bytes.substr(0, bytes.size() - 64));
  ExpectError(RunReprise({"inspect", capsule, "--json"}), 1, capsule);
}

TEST(Inspect, FilesThatAreNeitherAreRefused) {
  const std::string file = TestFile("file");
  const std::string model = ReadBytes(TinyModel());
  for (const std::string& bytes : {std::string(), std::string("GG"), std::string("GGUF"), std::string(4096, 'x'), model.substr(0, 1000),
                                   model.substr(0, model.size() - 1)}) {
    WriteBytes(file, bytes);
    ExpectError(RunReprise({"inspect", file}), 1, file);
    ExpectError(RunReprise({"run", "-m", file, "-p", "x"}), 1, file);
  }
  ExpectError(RunReprise({"inspect", SharedDirectory()}), 1, "not a file");
  ExpectError(RunReprise({"inspect", TestFile("absent")}), 1, "absent");
}

TEST(Inspect, Devices) {
  const json devices = RunJson({"inspect", "--devices"});
  ASSERT_FALSE(devices["devices"].empty());
  const json& sets = devices["devices"][0]["instruction_sets"];
  ASSERT_FALSE(sets.empty());
  // Each of them runs.
  for (const json& set : sets) {
    EXPECT_EQ(RunJson({"run", "-m", TinyModel(), "-p", "a b c", "-n", "3", "--isa", set["name"]})["generated"].size(), 3U);
  }
  ExpectError(RunReprise({"run", "-m", TinyModel(), "-p", "x", "--isa", "abacus"}), 1, "abacus");
}

TEST(Synth, TheSameSeedGivesTheSameBytes) {
  const std::string file = TestFile("model.gguf");
  const json made = RunJson({"synth", "tiny", file, "--mtp"});
  EXPECT_EQ(made["bytes"], std::filesystem::file_size(file));
  EXPECT_EQ(ReadBytes(file), ReadBytes(TinyModel()));
  for (const char* type : {"q4_0", "q4_1", "mxfp4", "f16", "bf16", "f32"}) {
    RunJson({"synth", "tiny", file, "--type", type});
    EXPECT_EQ(RunJson({"run", "-m", file, "-p", "words", "-n", "3"})["generated"].size(), 3U) << type;
  }
  const json shapes = RunJson({"synth", "--list"});
  EXPECT_GT(shapes["shapes"].size(), 5U);
  ExpectError(RunReprise({"synth", "no-such-shape", file}), 1, "tiny");
  ExpectError(RunReprise({"synth", "tiny-llama", file, "--mtp"}), 1, "multi-token");
  ExpectError(RunReprise({"synth", "tiny", TestFile("absent/model.gguf")}), 1, "absent");
}

}  // namespace
}  // namespace reprise
