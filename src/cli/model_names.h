// Which file a model's name means, and where the files of the house lie.
#pragma once

#include <string>
#include <string_view>

#include "reprise/status.h"

namespace reprise {

inline constexpr std::string_view kEmbeddedModel = "reprise-austen";  // comes with the program, and runs without -m
inline constexpr std::string_view kSmolLm2 = "smollm2-135m";          // `reprise pull smollm2-135m`

// The file of `name`: a path as it is, a known name by where its file lies, "" the embedded model. kNotFound says which names are known, or
// how to get the file.
Result<std::string> FindModelFile(const std::string& name);

// A file of models/: beside the installed program's data, in the source tree that the program was built in, or in the working directory.
// kNotFound when it is in none of them.
Result<std::string> FindHouseFile(const std::string& name);

// Where `pull` puts models: models/pulled of the source tree that the program was built in, otherwise of the working directory.
std::string PullDirectory();
std::string PulledFile(const std::string& directory, std::string_view name);

}  // namespace reprise
