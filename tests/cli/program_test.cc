#include "program_test.h"

#include <unistd.h>

namespace reprise {
namespace {

class SharedFiles : public ::testing::Environment {
 public:
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(SharedDirectory(), ignored);
  }
};

const auto* const shared_files = ::testing::AddGlobalTestEnvironment(new SharedFiles);

std::string MakeModel(const std::string& name, Arguments arguments) {
  const std::string path = SharedDirectory() + "/" + name;
  arguments.insert(arguments.begin(), "synth");
  arguments.push_back(path);
  const Ran ran = RunReprise(arguments);
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  return path;
}

}  // namespace

const std::string& SharedDirectory() {
  static const std::string directory = [] {
    const auto path = std::filesystem::temp_directory_path() / ("reprise_program_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(path);
    return path.string();
  }();
  return directory;
}

const std::string& TinyModel() {
  static const std::string path = MakeModel("tiny.gguf", {"tiny", "--mtp"});
  return path;
}
const std::string& OtherModel() {
  static const std::string path = MakeModel("other.gguf", {"tiny", "--mtp", "--seed", "2"});
  return path;
}
const std::string& LlamaModel() {
  static const std::string path = MakeModel("llama.gguf", {"tiny-llama", "--type", "f32"});
  return path;
}

Ran RunReprise(Arguments arguments, const std::string& input) {
  arguments.insert(arguments.begin(), REPRISE_PROGRAM);
  return Program(arguments, input, SharedDirectory()).Wait();
}

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

std::string TokenBytes(const std::vector<int32_t>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)};
}

std::string TestFile(const std::string& name) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  return SharedDirectory() + "/" + test->test_suite_name() + "." + test->name() + "." + name;
}

json Parsed(const Ran& ran) {
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 1) << ran.out;
  json value = json::parse(ran.out, nullptr, /*allow_exceptions=*/false);
  EXPECT_TRUE(value.is_object()) << ran.out;
  return value;
}

json RunJson(Arguments arguments) {
  arguments.push_back("--json");
  const Ran ran = RunReprise(arguments);
  EXPECT_EQ(ran.err, "");
  return Parsed(ran);
}

std::string StopStringOf(const std::string& text, size_t size) {
  const auto printable = [](char c) { return c >= 0x20 && c <= 0x7e; };
  for (size_t i = text.size() / 3; i + size <= text.size(); ++i) {
    const std::string part = text.substr(i, size);
    if (std::all_of(part.begin(), part.end(), printable) && text.find(part) == i) return part;
  }
  return {};
}

void ExpectError(const Ran& ran, int exit_code, const std::string& says) {
  EXPECT_EQ(ran.exit_code, exit_code) << ran.err;
  EXPECT_EQ(ran.out, "");
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  EXPECT_NE(ran.err.find(says), std::string::npos) << ran.err;
}

}  // namespace reprise
