// Where the prompt comes from: -p TEXT, or -f FILE, where "-" is the standard input.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "reprise/status.h"

namespace reprise {

struct PromptFlags {
  std::optional<std::string> text;
  std::optional<std::string> file;

  bool given() const { return text.has_value() || file.has_value(); }
};

void AddPromptFlags(CLI::App& command, PromptFlags& flags);

// The prompt's bytes as they are. kNotFound or kIo for a file that cannot be read, kExhausted beyond 256 MiB.
Result<std::string> ReadPrompt(const PromptFlags& flags);

}  // namespace reprise
