// `reprise capsule`: what a store's directory holds, as lists and branches; checking, cleaning, and carrying some of it elsewhere.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <iterator>
#include <memory>
#include <tuple>
#include <vector>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "store/bundle.h"
#include "store/disk_tier.h"

namespace reprise {
namespace {

struct CapsuleFlags {
  ModelFlags model;
  std::string store;
  std::string name_space;
  bool all_namespaces = true;
  std::vector<std::string> which;  // ids or names
  bool json = false;
  // export and import
  std::string file;
  bool subtree = false;
  std::optional<std::string> origin;
  std::string sign, encrypt;  // paths of keys
};

// A store's directory, and the capsules in it: of every model, or of the one that was named, which then says how their tokens read.
struct Shelf {
  std::optional<Model> model;
  std::unique_ptr<DiskTier> disk;
  std::vector<DiskEntry> entries;  // by model, namespace and path: a parent stands before its children

  std::string Text(std::span<const int32_t> tokens) const {
    auto text = model->Detokenize(tokens);
    return text.ok() ? *std::move(text) : std::string();
  }
};

Result<std::unique_ptr<DiskTier>> OpenDisk(const std::string& directory, bool read_only) {
  auto files = FileSystem::Open(directory, read_only);
  if (!files.ok()) return files.status().Within("the store in '" + directory + "'");
  auto disk = DiskTier::Open(*std::move(files), {.budget = UINT64_MAX, .read_only = read_only});
  if (!disk.ok()) return disk.status().Within("the store in '" + directory + "'");
  return disk;
}

Result<Shelf> Open(const CapsuleFlags& flags, bool read_only) {
  Shelf shelf;
  REPRISE_ASSIGN_OR_RETURN(shelf.disk, OpenDisk(flags.store, read_only));
  std::vector<Fingerprint> models;
  if (flags.model.model.empty()) {
    REPRISE_ASSIGN_OR_RETURN(models, shelf.disk->Fingerprints());
  } else {
    REPRISE_ASSIGN_OR_RETURN(Model model,
                             LoadModel(flags.model, {.threads = 1, .context = 64, .lanes = 1, .capsules = 4, .chunk = 8}, flags.json));
    models = {model.info().fingerprint};
    shelf.model.emplace(std::move(model));
  }
  for (const Fingerprint& model : models) {
    REPRISE_ASSIGN_OR_RETURN(auto listed, shelf.disk->List(model));
    std::move(listed.begin(), listed.end(), std::back_inserter(shelf.entries));
  }
  if (!flags.all_namespaces) std::erase_if(shelf.entries, [&](const DiskEntry& entry) { return entry.name_space != flags.name_space; });
  std::sort(shelf.entries.begin(), shelf.entries.end(), [](const DiskEntry& a, const DiskEntry& b) {
    return std::tie(a.fingerprint.bytes, a.name_space, a.tokens) < std::tie(b.fingerprint.bytes, b.name_space, b.tokens);
  });
  return shelf;
}

Result<std::vector<const DiskEntry*>> Chosen(const Shelf& shelf, const std::vector<std::string>& which) {
  std::vector<const DiskEntry*> chosen;
  for (const std::string& one : which) {
    const DiskEntry* found = nullptr;
    for (const DiskEntry& entry : shelf.entries) {
      if (std::to_string(entry.note.id) != one && (entry.note.name.empty() || entry.note.name != one)) continue;
      if (found != nullptr) return InvalidArgument("'" + one + "' is the name of several; give its id, or --namespace, or -m");
      found = &entry;
    }
    if (found == nullptr) return NotFound("the store holds no capsule '" + one + "'" + (shelf.model ? " of this model" : ""));
    chosen.push_back(found);
  }
  return chosen;
}

std::string Ago(int64_t when) {
  const int64_t seconds = std::max<int64_t>(0, static_cast<int64_t>(std::time(nullptr)) - when);
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min", seconds / 60);
  if (seconds < 2 * 86400) return fmt::format("{} h", seconds / 3600);
  return fmt::format("{} days", seconds / 86400);
}

// Of one model and one namespace.
bool IsTogether(const DiskEntry& a, const DiskEntry& b) { return a.name_space == b.name_space && a.fingerprint == b.fingerprint; }

bool IsAbove(const DiskEntry& a, const DiskEntry& b) {
  return IsTogether(a, b) && a.tokens.size() <= b.tokens.size() && std::equal(a.tokens.begin(), a.tokens.end(), b.tokens.begin());
}

// The last words before the capsule, on one line; nothing when nobody said how tokens read.
std::string LastWords(const Shelf& shelf, const DiskEntry& entry) {
  if (!shelf.model) return "";
  constexpr size_t kTokens = 12;
  const std::span<const int32_t> tokens(entry.tokens);
  std::string text = shelf.Text(tokens.last(std::min(kTokens, tokens.size())));
  for (char& c : text) {
    if (c == '\n' || c == '\t') c = ' ';
  }
  return "  … " + SafeForTerminal(text);
}

Json Described(const DiskEntry& entry) {
  return {
      {"id", entry.note.id},           {"model", entry.fingerprint.Hex()},  {"namespace", entry.name_space},   {"name", entry.note.name},
      {"pinned", entry.note.pinned},   {"keep", KeepName(entry.note.keep)}, {"position", entry.tokens.size()}, {"bytes", entry.bytes},
      {"created", entry.note.created}, {"used", entry.note.used},           {"hits", entry.note.hits}};
}

std::string Facts(const DiskEntry& entry) {
  std::string facts = fmt::format("{} · {} · {} ago · {} hit{}", KeepName(entry.note.keep), HumanBytes(entry.bytes), Ago(entry.note.used),
                                  entry.note.hits, entry.note.hits == 1 ? "" : "s");
  if (entry.note.pinned) facts += " · pinned";
  if (!entry.note.name.empty()) facts += fmt::format(" · '{}'", SafeForTerminal(entry.note.name));
  return facts;
}

void Print(const std::string& line) { std::fputs((line + "\n").c_str(), stdout); }

Result<int> List(const CapsuleFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const Shelf shelf, Open(flags, /*read_only=*/true));
  if (flags.json) {
    Json list = Json::array();
    for (const DiskEntry& entry : shelf.entries) list.push_back(Described(entry));
    PrintJson({{"capsules", std::move(list)}, {"bytes", shelf.disk->bytes()}});
    return kExitOk;
  }
  for (const DiskEntry& entry : shelf.entries) {
    Print(fmt::format("{:>16}  {:>8} tokens  {}{}{}{}", entry.note.id, Grouped(entry.tokens.size()), Facts(entry),
                      shelf.model ? "" : " · model " + entry.fingerprint.ShortHex(),
                      entry.name_space.empty() ? "" : fmt::format(" · in {}", SafeForTerminal(entry.name_space)), LastWords(shelf, entry)));
  }
  Print(fmt::format("{} capsule{}{}; the store takes {}", shelf.entries.size(), shelf.entries.size() == 1 ? "" : "s",
                    shelf.model ? " of " + ModelTitle(shelf.model->info()) : "", HumanBytes(shelf.disk->bytes())));
  return kExitOk;
}

// Where each entry hangs: from the nearest one above it, if any, and whether it is the last that does. Entries stand in the order of their paths, so
// those above one are a stack, and no entry is compared with more than it pushes off that.
struct Branch {
  std::optional<size_t> above;
  bool last = true;
};
std::vector<Branch> BranchesOf(const std::vector<DiskEntry>& entries) {
  std::vector<Branch> branches(entries.size());
  std::vector<size_t> stack;
  for (size_t i = 0; i < entries.size(); ++i) {
    while (!stack.empty() && !IsAbove(entries[stack.back()], entries[i])) stack.pop_back();
    if (!stack.empty()) branches[i].above = stack.back();
    stack.push_back(i);
  }
  std::vector<bool> has_later(entries.size());
  bool root_later = false;  // of the same model and namespace
  for (size_t i = entries.size(); i-- > 0;) {
    if (i + 1 < entries.size() && !IsTogether(entries[i], entries[i + 1])) root_later = false;
    const auto above = branches[i].above;
    branches[i].last = above ? !has_later[*above] : !root_later;
    above ? has_later[*above] = true : root_later = true;
  }
  return branches;
}

Result<int> Tree(const CapsuleFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const Shelf shelf, Open(flags, /*read_only=*/true));
  const auto& entries = shelf.entries;
  const std::vector<Branch> branches = BranchesOf(entries);
  const bool has_namespaces = std::any_of(entries.begin(), entries.end(), [](const DiskEntry& entry) { return !entry.name_space.empty(); });
  for (size_t i = 0; i < entries.size(); ++i) {
    const DiskEntry& entry = entries[i];
    const bool new_model = i == 0 || entries[i - 1].fingerprint != entry.fingerprint;
    if (new_model && !shelf.model) Print("model " + entry.fingerprint.ShortHex());
    if ((new_model || entries[i - 1].name_space != entry.name_space) && has_namespaces) {
      Print(entry.name_space.empty() ? "(no namespace)" : SafeForTerminal(entry.name_space));
    }
    const auto& [above, last] = branches[i];
    std::string line = last ? "└─ " : "├─ ";
    for (auto at = above; at; at = branches[*at].above) line.insert(0, branches[*at].last ? "   " : "│  ");
    line += fmt::format("{} tokens", Grouped(entry.tokens.size()));
    if (above) line += fmt::format(" (+{})", Grouped(entry.tokens.size() - entries[*above].tokens.size()));
    Print(line + fmt::format(" · {}{}", Facts(entry), LastWords(shelf, entry)));
  }
  if (entries.empty()) Print(shelf.model ? "nothing is stored for this model" : "nothing is stored");
  return kExitOk;
}

Result<int> Show(const CapsuleFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const Shelf shelf, Open(flags, /*read_only=*/true));
  REPRISE_ASSIGN_OR_RETURN(const auto chosen, Chosen(shelf, flags.which));
  for (const DiskEntry* entry : chosen) {
    if (flags.json) {
      Json json = Described(*entry);
      json["metadata"] = entry->note.metadata;
      json["tokens"] = entry->tokens;
      if (shelf.model) json["text"] = shelf.Text(entry->tokens);
      PrintJson(json);
      continue;
    }
    Print(fmt::format("{}  {} tokens · {}", entry->note.id, Grouped(entry->tokens.size()), Facts(*entry)));
    if (!entry->note.metadata.empty()) Print(SafeForTerminal(entry->note.metadata));
    Print(shelf.model ? SafeForTerminal(shelf.Text(entry->tokens)) : fmt::format("{}", fmt::join(entry->tokens, " ")));
  }
  return kExitOk;
}

Result<int> Remove(const CapsuleFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const Shelf shelf, Open(flags, /*read_only=*/false));
  REPRISE_ASSIGN_OR_RETURN(const auto chosen, Chosen(shelf, flags.which));
  const uint64_t before = shelf.disk->bytes();
  for (const DiskEntry* entry : chosen) REPRISE_RETURN_IF_ERROR(shelf.disk->Remove(entry->id));
  Print(fmt::format("{} removed; {} freed", chosen.size(), HumanBytes(before - std::min(before, shelf.disk->bytes()))));
  return kExitOk;
}

Result<int> Check(const CapsuleFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const auto disk, OpenDisk(flags.store, /*read_only=*/true));
  REPRISE_ASSIGN_OR_RETURN(const DiskTier::CheckReport report, disk->Check());
  if (flags.json) {
    PrintJson({{"capsules", report.capsules},
               {"objects", report.objects},
               {"bytes", report.bytes},
               {"faults", report.faults},
               {"orphans", report.orphans}});
  } else {
    for (const std::string& fault : report.faults) Print(SafeForTerminal(fault));
    Print(fmt::format(
        "{} capsules in {} files, {}: {}", report.capsules, report.objects, HumanBytes(report.bytes),
        report.faults.empty() ? "all whole" : fmt::format("{} faults; 'reprise capsule gc' sets them aside", report.faults.size())));
    if (!report.orphans.empty())
      Print(fmt::format("{} files that nothing lists, of writes that were cut short; 'reprise capsule gc' removes them",
                        report.orphans.size()));
  }
  return report.faults.empty() ? kExitOk : kExitError;
}

Result<int> Collect(const CapsuleFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const auto disk, OpenDisk(flags.store, /*read_only=*/false));
  REPRISE_ASSIGN_OR_RETURN(const uint64_t freed, disk->CollectGarbage());
  for (const std::string& notice : disk->TakeNotices()) std::fprintf(stderr, "reprise capsule: %s\n", SafeForTerminal(notice).c_str());
  if (flags.json) {
    PrintJson({{"freed", freed}, {"bytes", disk->bytes()}});
  } else {
    Print(fmt::format("{} freed; the store takes {}", HumanBytes(freed), HumanBytes(disk->bytes())));
  }
  return kExitOk;
}

Result<int> Export(const CapsuleFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const Shelf shelf, Open(flags, /*read_only=*/true));
  REPRISE_ASSIGN_OR_RETURN(const auto chosen, Chosen(shelf, flags.which));
  std::vector<int64_t> ids;
  for (const DiskEntry& entry : shelf.entries) {
    const bool wanted = std::any_of(chosen.begin(), chosen.end(),
                                    [&](const DiskEntry* one) { return one == &entry || (flags.subtree && IsAbove(*one, entry)); });
    if (wanted) ids.push_back(entry.id);
  }
  REPRISE_RETURN_IF_ERROR(ExportBundle(*shelf.disk, ids, flags.file,
                                       {.origin = flags.origin.value_or(""), .signing_key = flags.sign, .encryption_key = flags.encrypt}));
  REPRISE_ASSIGN_OR_RETURN(const BundleSummary summary, SummariseBundle(flags.file));
  Print(fmt::format("{} capsule{} in '{}', {}; {}, {}", summary.capsules, summary.capsules == 1 ? "" : "s", flags.file,
                    HumanBytes(summary.bytes), summary.signer.empty() ? "not signed" : "signed",
                    summary.encrypted ? "encrypted" : "readable by anyone"));
  return kExitOk;
}

Result<int> Import(const CapsuleFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const auto disk, OpenDisk(flags.store, /*read_only=*/false));
  ImportOptions options{
      .name_space = flags.name_space, .origin = flags.origin, .verification_key = flags.sign, .encryption_key = flags.encrypt};
  if (!flags.model.model.empty()) {
    REPRISE_ASSIGN_OR_RETURN(const Model model,
                             LoadModel(flags.model, {.threads = 1, .context = 64, .lanes = 1, .capsules = 4, .chunk = 8}, true));
    options.fingerprint = model.info().fingerprint;
  }
  auto ids = ImportBundle(*disk, flags.file, options);
  if (!ids.ok()) return ids.status().Within("'" + flags.file + "'");
  Print(fmt::format("{} capsule{} from '{}'{}", ids->size(), ids->size() == 1 ? "" : "s", flags.file,
                    flags.sign.empty() ? "; who made the file was not asked, since no --verify key was given" : ", signed by that key"));
  return kExitOk;
}

}  // namespace

void AddCapsuleCommand(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("capsule", "Shows, checks, cleans and moves what a store keeps");
  command->require_subcommand(1);
  command->footer(
      "A store is the directory that --store of other commands names. A capsule is called by its id or its name. With -m those of that "
      "model "
      "alone are\n"
      "meant, and their text is shown; otherwise no model is loaded. check and gc look at all of them.");
  struct Added {
    CLI::App* command;
    std::shared_ptr<CapsuleFlags> flags;
  };
  const auto add = [&](const char* name, const char* help, Result<int> (*run)(const CapsuleFlags&), bool of_model, bool chosen) {
    auto flags = std::make_shared<CapsuleFlags>();
    CLI::App* sub = command->add_subcommand(name, help);
    sub->add_option("--store", flags->store, "The store's directory")->type_name("DIR")->required();
    sub->add_flag("--json", flags->json, "Print one JSON object");
    if (of_model) {
      sub->add_option("-m,--model", flags->model.model, "Of this model alone, a GGUF file or a known name, which says how tokens read")
          ->type_name("MODEL");
      sub->add_option("--namespace", flags->name_space, "Of this namespace alone")->type_name("NAME");
    }
    if (chosen) sub->add_option("capsule", flags->which, "Ids or names")->type_name("CAPSULE")->required();
    sub->callback([flags, sub, of_model, run, &action] {
      flags->all_namespaces = !of_model || sub->count("--namespace") == 0;
      action = [flags, run] { return run(*flags); };
    });
    return Added{sub, flags};
  };
  add("ls", "Lists the capsules", &List, true, false);
  add("tree", "Draws the branches that they are on", &Tree, true, false);
  add("show", "What one of them holds, as text", &Show, true, true);
  add("rm", "Removes some of them", &Remove, true, true);
  add("check", "Reads everything and verifies every checksum; changes nothing", &Check, false, false);
  add("gc", "Sets aside what is damaged, and removes what nothing lists", &Collect, false, false);
  const Added out = add("export", "Writes some of them to one file, to carry elsewhere", &Export, true, true);
  out.command->add_option("-o,--output", out.flags->file, "The file")->type_name("FILE")->required();
  out.command->add_flag("--subtree", out.flags->subtree, "With all that is below them on their branches");
  out.command->add_option("--origin", out.flags->origin, "Who exports, for the reader")->type_name("TEXT");
  out.command->add_option("--sign", out.flags->sign, "Signs with this key")->type_name("KEY");
  out.command->add_option("--encrypt", out.flags->encrypt, "Encrypts with this key")->type_name("KEY");
  const Added in = add("import", "Takes in what export wrote, once everything in it is verified", &Import, true, false);
  in.command->add_option("file", in.flags->file, "The file")->type_name("FILE")->required();
  in.command->add_option("--origin", in.flags->origin, "Refuses another origin")->type_name("TEXT");
  in.command->add_option("--verify", in.flags->sign, "Refuses what is not signed with this key (its .pub)")->type_name("KEY");
  in.command->add_option("--decrypt", in.flags->encrypt, "The key that it was encrypted with")->type_name("KEY");

  struct KeyFlags {
    std::string sign, encrypt;
  };
  auto keys = std::make_shared<KeyFlags>();
  CLI::App* make = command->add_subcommand("keygen", "Makes keys for export and import");
  auto* group = make->add_option_group("kind");
  group->add_option("--sign", keys->sign, "A pair to sign with: FILE, and FILE.pub to verify with")->type_name("FILE");
  group->add_option("--encrypt", keys->encrypt, "A key to encrypt and decrypt with")->type_name("FILE");
  group->require_option(1);
  make->callback([keys, &action] {
    action = [keys]() -> Result<int> {
      REPRISE_RETURN_IF_ERROR(keys->sign.empty() ? WriteEncryptionKey(keys->encrypt) : WriteSigningKeys(keys->sign));
      return kExitOk;
    };
  });
}

}  // namespace reprise
