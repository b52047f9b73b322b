// The commands of the program. Each lives in a file of its own, and adds itself to the command line with one function.
//
// To add a command: write src/cli/<command>.cc with `void Add<Command>Command(CLI::App& app, Action& action)`, declare it here, and name it
// in the list of main.cc. The function adds a subcommand whose callback sets `action`; it runs once the whole command line has been parsed:
//
//   void AddHelloCommand(CLI::App& app, Action& action) {
//     auto flags = std::make_shared<HelloFlags>();
//     CLI::App* command = app.add_subcommand("hello", "Says hello");
//     command->add_option("--name", flags->name, "Whom to greet")->required();
//     command->callback([flags, &action] { action = [flags] { return Hello(*flags); }; });
//   }
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <functional>

#include "reprise/status.h"

namespace reprise {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;  // one sentence on stderr says why
inline constexpr int kExitUsage = 2;  // the command line itself is wrong
inline constexpr int kExitInterrupted = 130;

// What a command does: its exit code, or an error that main prints.
using Action = std::function<Result<int>()>;

void AddRunCommand(CLI::App& app, Action& action);
void AddChatCommand(CLI::App& app, Action& action);
void AddServeCommand(CLI::App& app, Action& action);
void AddEvalCommand(CLI::App& app, Action& action);
void AddInspectCommand(CLI::App& app, Action& action);
void AddSynthCommand(CLI::App& app, Action& action);
void AddPullCommand(CLI::App& app, Action& action);
void AddVerifyCommand(CLI::App& app, Action& action);
void AddBenchCommand(CLI::App& app, Action& action);
void AddDemoCommand(CLI::App& app, Action& action);
void AddCapsuleCommand(CLI::App& app, Action& action);

}  // namespace reprise
