// The program `reprise`: one command a run. See README.md of this folder.
#include <CLI/App.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "base/count_hot_calls.h"  // `verify` shows how often the hot path of this program allocates and locks
#include "cli/commands.h"
#include "cli/terminal.h"

namespace reprise {
namespace {

constexpr char kVersion[] = "reprise 0.1.0";

// The first sentence of what the parser says, on one line.
std::string OneLine(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string ChosenCommand(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? "reprise" : "reprise " + chosen.front()->get_name();
}

int Main(int argc, char** argv) {
  CLI::App app("Runs language models on this machine, and treats what they remember as something to keep, copy and go back to.", "reprise");
  app.set_version_flag("--version", kVersion);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer("'reprise COMMAND --help' says more. Without -m a small model that comes with the program runs.");

  Action action;
  for (const auto add : {AddDemoCommand, AddRunCommand, AddChatCommand, AddServeCommand, AddEvalCommand, AddVerifyCommand, AddBenchCommand,
                         AddInspectCommand, AddCapsuleCommand, AddSynthCommand, AddPullCommand}) {
    add(app, action);
  }

  if (argc < 2) {
    std::fputs(app.help().c_str(), stderr);
    return kExitUsage;
  }
  // The parser would only say that a command is missing.
  const std::string first = argv[1];
  bool named = !first.empty() && first[0] == '-';
  std::string known;
  for (const CLI::App* command : app.get_subcommands({})) {
    named |= command->get_name() == first;
    known += (known.empty() ? "" : ", ") + command->get_name();
  }
  if (!named) {
    std::fprintf(stderr, "reprise: there is no command '%s'; there are %s\n", SafeForTerminal(OneLine(first)).c_str(), known.c_str());
    return kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      app.exit(error);  // --help or --version: prints it
      return kExitOk;
    }
    const std::string command = ChosenCommand(app);
    std::fprintf(stderr, "%s: %s; see '%s --help'\n", command.c_str(), OneLine(error.what()).c_str(), command.c_str());
    return kExitUsage;
  }
  const Result<int> result = action();
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!result.ok()) {
    std::fprintf(stderr, "reprise: %s\n", SafeForTerminal(OneLine(result.status().message())).c_str());
    return kExitError;
  }
  if (!written) {
    std::fputs("reprise: the output could not be written in full\n", stderr);
    return kExitError;
  }
  return *result;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  try {
    return reprise::Main(argc, argv);
  } catch (const std::exception& error) {  // Reprise does not throw; the standard library does when memory ends
    std::fprintf(stderr, "reprise: stopped by an unexpected condition: %s\n", error.what());
    return reprise::kExitError;
  }
}
