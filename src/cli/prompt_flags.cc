#include "cli/prompt_flags.h"

#include <cstdio>

#include "base/file.h"

namespace reprise {
namespace {

constexpr size_t kMostBytes = size_t{256} << 20;  // a hundred times the longest context

Result<std::string> ReadStandardInput() {
  std::string text;
  char buffer[1 << 16];
  while (const size_t count = std::fread(buffer, 1, sizeof(buffer), stdin)) {
    text.append(buffer, count);
    if (text.size() > kMostBytes) return Exhausted("the standard input holds more than 256 MiB");
  }
  if (std::ferror(stdin) != 0) return IoError("the standard input cannot be read");
  return text;
}

}  // namespace

void AddPromptFlags(CLI::App& command, PromptFlags& flags) {
  auto* text = command.add_option("-p,--prompt", flags.text, "The prompt")->type_name("TEXT")->group("Prompt");
  auto* file = command.add_option("-f,--file", flags.file, "A file that holds the prompt; - is the standard input")
                   ->type_name("FILE")
                   ->group("Prompt");
  text->excludes(file);
}

Result<std::string> ReadPrompt(const PromptFlags& flags) {
  if (flags.text) return *flags.text;
  if (!flags.file) return InvalidArgument("there is no prompt; give one with -p TEXT or -f FILE");
  if (*flags.file == "-") return ReadStandardInput();
  REPRISE_ASSIGN_OR_RETURN(const auto bytes, ReadFile(*flags.file, kMostBytes));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace reprise
