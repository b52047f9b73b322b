#include "models/model_fingerprint.h"

#include <xxhash.h>

#include <string>

namespace reprise {

Fingerprint ModelFingerprint(const GgufFile& file, const NetworkInfo& network, const StateLayout& layout, std::string_view numerics,
                             const std::function<void(uint64_t bytes)>& progress) {
  // Counts changes to what state means that neither the layout nor the numerics show.
  constexpr uint64_t kStateVersion = 1;
  FingerprintBuilder builder;
  builder.Add("reprise.state", kStateVersion).Add("architecture", network.architecture).Add("numerics", numerics);
  if (!network.positions.empty()) builder.Add("positions", network.positions);
  const std::string prefix = network.architecture + ".";
  for (const GgufEntry& entry : file.metadata()) {
    // How long a context the model was made for changes no state.
    if (!entry.key.starts_with(prefix) || entry.key == prefix + "context_length") continue;
    builder.Add("key", entry.key).Add("value", entry.ShortValue(SIZE_MAX));
  }
  uint64_t read = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    // Weights are the user's own file and no adversary's, and there may be gigabytes of them: a fast hash each, and the strong one over all.
    const XXH128_hash_t hash = XXH3_128bits(tensor.data.data(), tensor.data.size());
    builder.Add("tensor", tensor.name).Add("type", TensorTypeName(tensor.type)).Add("shape", tensor.Shape());
    builder.Add("low", hash.low64).Add("high", hash.high64);
    read += tensor.data.size();
    if (progress) progress(read);
  }
  for (const StateDecl& state : layout.states()) {
    builder.Add("state", state.name).Add("kind", static_cast<uint64_t>(state.growth)).Add("type", static_cast<uint64_t>(state.type));
    for (const int64_t dimension : state.shape) builder.Add("dimension", static_cast<uint64_t>(dimension));
  }
  return builder.Finish();
}

}  // namespace reprise
