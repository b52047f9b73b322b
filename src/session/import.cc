#include "session/import.h"

#include <cstring>
#include <string>

#include "session/engine.h"

namespace reprise {

Result<CapsuleImport> CapsuleImport::Check(const Engine& engine, std::span<const std::byte> bytes) {
  REPRISE_ASSIGN_OR_RETURN(CheckedCapsule checked, CheckedCapsule::Of(bytes, engine.shared_space()));
  CapsuleImport import(std::move(checked));
  // The bytes are whole and of this model. What they say must also be possible before a step may rely on it.
  const int vocabulary = engine.info().vocabulary;
  const std::vector<std::byte> host = import.checked_.Block(Space::kHost);
  REPRISE_RETURN_IF_ERROR(engine.decode().Check(host.data(), vocabulary));
  import.pending_ = engine.decode().pending(host.data());
  const auto history = import.checked_.payload(engine.history());
  std::vector<int32_t>& tokens = import.tokens_;
  tokens.resize(static_cast<size_t>(import.checked_.position()));
  if (!tokens.empty()) std::memcpy(tokens.data(), history.data(), history.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary) {
      return Corrupt("the capsule's token " + std::to_string(tokens[i]) + " at position " + std::to_string(i) +
                     " is outside the vocabulary of " + std::to_string(vocabulary));
    }
  }
  return import;
}

Status CapsuleImport::TakeMemory() {
  REPRISE_ASSIGN_OR_RETURN(held_, checked_.space()->AcquireState(checked_.position()));
  return Ok();
}

bool CapsuleImport::fills_anywhere() const { return checked_.space()->memory().ordinary(); }

Capsule CapsuleImport::Fill() {
  checked_.CopyTo(held_);
  return Capsule::FromHeld(checked_.space(), std::move(held_), 0);
}

}  // namespace reprise
