#include "cli/model_names.h"

#include <filesystem>
#include <vector>

namespace reprise {
namespace {

namespace fs = std::filesystem;

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// The directory of the running program, or nothing when the system does not tell.
fs::path ProgramDirectory() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path() : program.parent_path();
}

}  // namespace

Result<std::string> FindHouseFile(const std::string& name) {
  std::vector<fs::path> candidates;
  if (const fs::path program = ProgramDirectory(); !program.empty()) {
    candidates.push_back(program.parent_path() / "share" / "reprise" / "models" / name);  // installed: bin/ beside share/
    candidates.push_back(program.parent_path() / "models" / name);                        // built: build/ within the source tree
  }
  candidates.push_back(fs::path("models") / name);
  for (const fs::path& candidate : candidates) {
    if (IsFile(candidate)) return candidate.lexically_normal().string();
  }
  return NotFound("'" + name +
                  "' is not there; it belongs in models/ of the source tree, or in share/reprise/models where the program is installed");
}

std::string PullDirectory() {
  // Only a source tree has this file beside its build folder; an installed program must not write beside itself.
  if (const fs::path program = ProgramDirectory(); !program.empty() && IsFile(program.parent_path() / "models" / "prompt.txt")) {
    return (program.parent_path() / "models" / "pulled").string();
  }
  return "models/pulled";
}

std::string PulledFile(const std::string& directory, std::string_view name) {
  return (fs::path(directory) / (std::string(name) + ".gguf")).string();
}

Result<std::string> FindModelFile(const std::string& name) {
  const std::string embedded(kEmbeddedModel);
  // A file of the user's own goes before a known name.
  if (!name.empty() && IsFile(name)) return name;
  if (name.empty() || name == embedded) return FindHouseFile(embedded + ".gguf");
  if (name == kSmolLm2) {
    for (const std::string& directory : {PullDirectory(), std::string("models/pulled")}) {
      if (const std::string file = PulledFile(directory, name); IsFile(file)) return file;
    }
    return NotFound("the model '" + name + "' is not here yet; get it with 'reprise pull " + name + "'");
  }
  std::error_code error;
  if (fs::exists(name, error)) return InvalidArgument("'" + name + "' is not a file, so it cannot be a model");
  return NotFound("there is no model file '" + name + "', and it is no known name; known are " + embedded + " and " +
                  std::string(kSmolLm2));
}

}  // namespace reprise
