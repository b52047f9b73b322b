// reprise verify: the six promises on the user's own model, each with its evidence.
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "session/session_subject.h"
#include "session/verify.h"

namespace reprise {
namespace {

struct VerifyFlags {
  ModelFlags model;
  bool json = false;
  bool quick = false;
};

// Enough for what verify does; a shorter context than usual, so that large models leave room for their second load.
ModelOptions OptionsFor(const ModelFlags& flags) {
  ModelOptions options = flags.Options();
  options.context = flags.context.value_or(1024);
  options.lanes = flags.lanes.value_or(4);
  return options;
}

// `text` in lines of at most `width`, each after `indent` spaces.
std::string Wrapped(const std::string& text, size_t width, size_t indent) {
  std::string out;
  size_t column = 0;
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find(' ', at);
    if (end == std::string::npos) end = text.size();
    const std::string word = text.substr(at, end - at);
    if (column > 0 && column + 1 + word.size() > width) {
      out += "\n";
      column = 0;
    }
    out += column == 0 ? std::string(indent, ' ') : " ";
    out += word;
    column += (column == 0 ? indent : 1) + word.size();
    at = end + 1;
  }
  return out;
}

Result<int> RunVerify(const VerifyFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const Model model, LoadModel(flags.model, OptionsFor(flags.model), flags.json));
  REPRISE_ASSIGN_OR_RETURN(const auto subject, SessionSubject::Create(model));
  const bool colour = !flags.json && StdoutIsTerminal();
  std::unique_ptr<Progress> progress;
  VerifyOptions options;
  options.quick = flags.quick;
  options.started = [&](int id, std::string_view name) {
    progress = std::make_unique<Progress>(fmt::format("{} {}", id, name), flags.json);
  };
  options.progress = [&](double fraction) { progress->Update(fraction); };
  options.finished = [&](const PromiseReport& promise) {
    progress->Done();
    if (flags.json) return;
    const char* on = !colour ? "" : promise.passed ? "\033[32m" : "\033[31m";
    fmt::print("{}{} {} {}{}\n{}\n", on, promise.passed ? "✓" : "✗", promise.id, promise.name, colour ? "\033[0m" : "",
               Wrapped(SafeForTerminal(promise.evidence), 110, 4));
    std::fflush(stdout);
  };
  if (!flags.json) fmt::print("{} ({})\n", SafeForTerminal(ModelTitle(model.info())), model.info().backend);
  const VerifyReport report = Verify(*subject, options);
  if (flags.json) {
    Json promises = Json::array();
    for (const PromiseReport& promise : report.promises) {
      promises.push_back({{"id", promise.id}, {"name", promise.name}, {"passed", promise.passed}, {"evidence", promise.evidence}});
    }
    PrintJson({{"model", ModelTitle(model.info())}, {"passed", report.passed}, {"promises", promises}});
  } else {
    fmt::print("{}\n", report.passed ? "All six promises are kept." : "A promise is broken.");
  }
  return report.passed ? kExitOk : kExitError;
}

}  // namespace

void AddVerifyCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<VerifyFlags>();
  CLI::App* command = app.add_subcommand("verify", "Puts the six promises to the test on a model, and shows the evidence");
  AddModelFlags(*command, flags->model);
  command->add_flag("--json", flags->json, "Prints one JSON object");
  command->add_flag("--quick", flags->quick, "A shorter context and fewer cuts, for large models");
  command->callback([flags, &action] { action = [flags] { return RunVerify(*flags); }; });
}

}  // namespace reprise
