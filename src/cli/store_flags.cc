#include "cli/store_flags.h"

#include <fmt/format.h>

#include <cstdio>

#include "cli/flags.h"
#include "cli/terminal.h"

namespace reprise {

std::optional<StoreOptions> StoreFlags::Options() const {
  if (!given()) return std::nullopt;
  StoreOptions options;
  options.directory = directory;
  if (memory) options.memory_budget = (uint64_t{1} << 20) * static_cast<uint64_t>(*memory);
  if (disk) options.disk_budget = (uint64_t{1} << 20) * static_cast<uint64_t>(*disk);
  return options;
}

void AddStoreFlags(CLI::App& command, StoreFlags& flags) {
  auto* store =
      command.add_option("--store", flags.directory, "A directory that keeps what was computed: it is not computed again, now or later")
          ->type_name("DIR")
          ->group("Store");
  const auto budget = [&](const char* name, std::optional<int>& value, const char* help) {
    command.add_option(name, value, help)->type_name("MIB")->check(Bounded(1, 1 << 30))->needs(store)->group("Store");
  };
  budget("--store-memory", flags.memory, "Most mebibytes of capsules in memory");
  budget("--store-disk", flags.disk, "Most mebibytes in the directory (8192)");
}

std::string StoreTitle(const StoreFlags& flags, const CapsuleStore& store) {
  const CapsuleStore::Stats stats = store.stats();
  return fmt::format("store in '{}': {} capsule{}, {} of {} on disk; {} in memory at most", flags.directory, stats.entries_on_disk,
                     stats.entries_on_disk == 1 ? "" : "s", HumanBytes(stats.disk_bytes), HumanBytes(stats.disk_budget),
                     HumanBytes(stats.memory_budget));
}

void ShowNotices(const char* command, const Model& model) {
  if (model.store() == nullptr) return;
  for (const std::string& notice : model.store()->TakeNotices()) {
    std::fprintf(stderr, "reprise %s: %s\n", command, SafeForTerminal(notice).c_str());
  }
}

std::string ReuseNote(const PrefillReport& report) {
  std::string note = fmt::format("{} tokens reused", Grouped(static_cast<uint64_t>(report.reused)));
  if (report.tier == Tier::kMemory || report.tier == Tier::kDisk) note += fmt::format(" from {}", TierName(report.tier));
  note += fmt::format(", {} computed", Grouped(static_cast<uint64_t>(report.computed)));
  if (report.diverged_from != 0 && report.known > 0)
    note += fmt::format("; left a known path at token {}", Grouped(static_cast<uint64_t>(report.known)));
  if (!report.reason.empty()) note += "; " + report.reason;
  return note;
}

void AddReuse(Json& json, const PrefillReport& report) {
  json["tier"] = TierName(report.tier);
  json["known"] = report.known;
  json["diverged_from"] = report.diverged_from;
  json["reason"] = report.reason;
}

}  // namespace reprise
