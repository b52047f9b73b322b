#include "models/network.h"

#include "models/granite_hybrid.h"
#include "models/lfm2.h"
#include "models/llama.h"
#include "models/loader.h"
#include "models/qwen35.h"

namespace reprise {
namespace {

struct Architecture {
  std::string_view name;  // general.architecture of the file
  Result<std::unique_ptr<Network>> (*load)(Loader&, NetworkInfo);
};

constexpr Architecture kArchitectures[] = {
    {"granitehybrid", LoadGraniteHybrid},
    {"lfm2", LoadLfm2},
    {"llama", LoadLlama},
    {"qwen2", LoadQwen2},
    {"qwen3", LoadQwen3},
    {"qwen35", LoadQwen35},
};

}  // namespace

std::vector<std::string_view> Network::Architectures() {
  std::vector<std::string_view> names;
  for (const Architecture& architecture : kArchitectures) names.push_back(architecture.name);
  return names;
}

Result<std::unique_ptr<Network>> Network::Load(const GgufFile& file, Backend& backend, StateLayout& layout, const NetworkOptions& options) {
  NetworkInfo info;
  REPRISE_ASSIGN_OR_RETURN(const std::string_view name, file.GetString("general.architecture"));
  info.architecture = name;
  REPRISE_ASSIGN_OR_RETURN(const std::string_view title, file.GetStringOr("general.name", ""));
  info.name = title;
  const GgufTensor* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr) return NotFound("the model has no tensor 'token_embd.weight'");
  if (embedding->dims[1] > (1u << 24))
    return Corrupt("a vocabulary of " + std::to_string(embedding->dims[1]) + " tokens is beyond any model");
  info.vocabulary = static_cast<int>(embedding->dims[1]);
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name != name) continue;
    Loader loader(file, backend, layout, options, name);
    REPRISE_ASSIGN_OR_RETURN(auto network, architecture.load(loader, std::move(info)));
    REPRISE_RETURN_IF_ERROR(layout.Check());
    network->info_.parameters = loader.parameters();
    return network;
  }
  std::string known;
  for (const Architecture& architecture : kArchitectures) known += (known.empty() ? "'" : ", '") + std::string(architecture.name) + "'";
  return Unsupported("the architecture '" + std::string(name) + "' is not known; this build runs " + known);
}

}  // namespace reprise
