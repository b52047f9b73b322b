// The flags that say which model runs, and with how much memory: the same for every command that loads one.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "reprise/model.h"
#include "reprise/status.h"

namespace reprise {

struct ModelFlags {
  std::string model;  // as given; empty for the embedded one
  std::optional<int> threads, context, lanes, capsules, chunk, spill;
  std::string kv = "auto";
  std::string instruction_set;
  std::string device;
  bool pin_threads = false;

  ModelOptions Options() const;  // without progress
};

// -m alone, for commands that decide the rest themselves.
void AddModelFlag(CLI::App& command, ModelFlags& flags);
// --kv alone.
CLI::Option* AddKeyValueFlag(CLI::App& command, ModelFlags& flags);
// -m, --threads, --context, --lanes, --capsules, --chunk, --kv, --isa, --device, --spill, --pin-threads.
void AddModelFlags(CLI::App& command, ModelFlags& flags);

// Finds and loads the model, with progress on a terminal unless `quiet`.
Result<Model> LoadModel(const ModelFlags& flags, const ModelOptions& options, bool quiet);
inline Result<Model> LoadModel(const ModelFlags& flags, bool quiet) { return LoadModel(flags, flags.Options(), quiet); }

// What people call the model: its name, or its file's.
std::string ModelTitle(const ModelInfo& info);

}  // namespace reprise
