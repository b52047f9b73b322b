// Wrong usage is exit code 2 and one line that says what would be right; what goes wrong later is exit code 1.
#include "program_test.h"

namespace reprise {
namespace {

TEST(Usage, HelpSaysEverything) {
  for (const char* command : {"run", "chat", "serve", "eval", "inspect", "synth", "pull"}) {
    const Ran ran = RunReprise({command, "--help"});
    EXPECT_EQ(ran.exit_code, 0);
    EXPECT_EQ(ran.err, "");
    EXPECT_NE(ran.out.find("Usage: reprise " + std::string(command)), std::string::npos) << ran.out;
  }
  const Ran all = RunReprise({"--help"});
  EXPECT_EQ(all.exit_code, 0);
  EXPECT_NE(all.out.find("inspect"), std::string::npos);
  EXPECT_EQ(RunReprise({"--version"}).out.substr(0, 8), "reprise ");
  const Ran none = RunReprise({});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_EQ(none.out, "");
}

TEST(Usage, WhatCannotBeIsNamed) {
  const std::string& model = TinyModel();
  const auto wrong = [](const Arguments& arguments, const std::string& says) { ExpectError(RunReprise(arguments), 2, says); };
  wrong({"dance"}, "no command 'dance'");
  wrong({""}, "no command ''");
  wrong({"--dance"}, "required");
  wrong({"run"}, "-p TEXT");
  wrong({"run", "-m", model, "-p", "a", "-f", "b"}, "excludes");
  wrong({"run", "-m", model, "-p", "a", "--raw", "--chat"}, "excludes");
  wrong({"run", "-m", model, "-p", "a", "--system", "b"}, "--chat");
  wrong({"run", "-m", model, "-p", "a", "-n", "-1"}, "-1");
  wrong({"run", "-m", model, "-p", "a", "-n", "many"}, "many");
  wrong({"run", "-m", model, "-p", "a", "-n", "99999999999999999999"}, "--tokens");
  wrong({"run", "-m", model, "-p", "a", "--temp", "-1"}, "--temp");
  wrong({"run", "-m", model, "-p", "a", "--temp", "nan"}, "--temp");
  wrong({"run", "-m", model, "-p", "a", "--temp", "inf"}, "--temp");
  wrong({"run", "-m", model, "-p", "a", "--top-p", "1.5"}, "0 to 1");
  wrong({"run", "-m", model, "-p", "a", "--top-k", "2.5"}, "--top-k");
  wrong({"run", "-m", model, "-p", "a", "--seed", "-3"}, "--seed");
  wrong({"run", "-m", model, "-p", "a", "--repeat-penalty", "0"}, "--repeat-penalty");
  wrong({"run", "-m", model, "-p", "a", "--threads", "0"}, "1 to 1024");
  wrong({"run", "-m", model, "-p", "a", "--context", "-4"}, "--context");
  wrong({"run", "-m", model, "-p", "a", "--lanes", "257"}, "--lanes");
  wrong({"run", "-m", model, "-p", "a", "--chunk", "0"}, "--chunk");
  wrong({"run", "-m", model, "-p", "a", "--kv", "f8"}, "--kv");
  wrong({"run", "-m", model, "-p", "a", "--branches", "0"}, "--branches");
  wrong({"run", "-m", model, "-p", "a", "--branches", "2", "--save-capsule", "x"}, "excludes");
  wrong({"run", "-m", model, "-p", "a", "stray"}, "stray");
  wrong({"eval", "-m", model}, "--tokens");
  wrong({"eval", "-m", model, "--tokens", "x", "--last", "0"}, "--last");
  wrong({"inspect"}, "FILE");
  wrong({"synth"}, "SHAPE");
  wrong({"synth", "tiny"}, "OUT.gguf");
  wrong({"synth", "tiny", "x", "--type", "q3"}, "--type");
  wrong({"pull"}, "NAME");
}

TEST(Usage, WhatGoesWrongLaterIsOneSentence) {
  const std::string& model = TinyModel();
  ExpectError(RunReprise({"run", "-m", "/nowhere/model.gguf", "-p", "a"}), 1, "/nowhere/model.gguf");
  ExpectError(RunReprise({"run", "-m", SharedDirectory(), "-p", "a"}), 1, "not a file");
  // A damaged file is named once.
  const std::string damaged = TestFile("damaged.gguf");
  WriteBytes(damaged, "GGUF");
  for (const Arguments& arguments : {Arguments{"run", "-m", damaged, "-p", "a"}, Arguments{"inspect", damaged}}) {
    ExpectError(RunReprise(arguments), 1, "reprise: '" + damaged + "': the bytes end");
  }
  ExpectError(RunReprise({"run", "-m", model, "-p", "a", "--stop", ""}), 1, "stop string");
  ExpectError(RunReprise({"run", "-m", model, "-p", "a", "--stop", std::string(2000, 'x')}), 1, "2000 bytes");
  Arguments stops{"run", "-m", model, "-p", "a"};
  for (int i = 0; i < 17; ++i) stops.insert(stops.end(), {"--stop", std::to_string(i)});
  ExpectError(RunReprise(stops), 1, "17");
  ExpectError(RunReprise({"pull", "no-such-model"}), 1, "smollm2-135m");
  ExpectError(RunReprise({"pull", "../../etc/passwd"}), 1, "no model");
  ExpectError(RunReprise({"pull", "smollm2-135m", "--dir", model + "/below"}), 1, "directory");
  // What a terminal would obey does not reach it, and an error stays one line.
  const Ran escape = RunReprise({"run", "-m", "no\033[31m\nmodel", "-p", "a"});
  ExpectError(escape, 1, "model");
  EXPECT_EQ(escape.err.find('\033'), std::string::npos);
}

TEST(Usage, AFullDiskIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  ExpectError(RunReprise({"run", "-m", TinyModel(), "-p", "a", "-n", "1", "--json", "--save-capsule", "/dev/full/x"}), 1, "/dev/full");
}

}  // namespace
}  // namespace reprise
