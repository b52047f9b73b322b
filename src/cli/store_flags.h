// The flags of a capsule store, and what a command tells of what it reused.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "cli/output.h"
#include "reprise/session.h"

namespace reprise {

struct StoreFlags {
  std::string directory;            // empty: no store
  std::optional<int> memory, disk;  // MiB

  bool given() const { return !directory.empty(); }
  std::optional<StoreOptions> Options() const;
};

// --store, --store-memory, --store-disk.
void AddStoreFlags(CLI::App& command, StoreFlags& flags);

// "store in DIR: 12 capsules, 34.5 MiB of 8.00 GiB; 512 MiB in memory"
std::string StoreTitle(const StoreFlags& flags, const CapsuleStore& store);
// What a person should know, on stderr, each sentence once.
void ShowNotices(const char* command, const Model& model);

// "1,234 tokens reused from disk, 56 computed", and where the prompt left what was known or why nothing was reused.
std::string ReuseNote(const PrefillReport& report);
void AddReuse(Json& json, const PrefillReport& report);

}  // namespace reprise
