#include "reprise/model.h"

#include <utility>

#include "session/engine.h"

namespace reprise {

Result<Model> Model::Load(const std::string& path, const ModelOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(auto engine, Engine::Load(path, options));
  return Model(std::move(engine));
}

const ModelInfo& Model::info() const { return engine_->info(); }
const StateLayout& Model::layout() const { return engine_->space().layout(); }
CapsuleStore* Model::store() const { return engine_->store(); }

Result<std::vector<int32_t>> Model::Tokenize(std::string_view text, bool parse_special) const {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, engine_->tokenizer());
  return tokenizer->Encode(text, {.add_bos = tokenizer->add_bos(), .parse_special = parse_special});
}

Result<std::string> Model::Detokenize(std::span<const int32_t> tokens) const {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, engine_->tokenizer());
  return tokenizer->Decode(tokens);
}

bool Model::IsEndOfGeneration(int32_t token) const {
  const auto tokenizer = engine_->tokenizer();
  return tokenizer.ok() && (*tokenizer)->IsEndOfGeneration(token);
}

Result<Capsule> Model::ImportCapsule(std::span<const std::byte> bytes) const {
  REPRISE_ASSIGN_OR_RETURN(Capsule capsule, DeserializeCapsule(bytes, engine_->shared_space()));
  // The bytes are whole and of this model. What they say must also be possible before a step may rely on it.
  const HeldState held = capsule.Hold();
  REPRISE_RETURN_IF_ERROR(engine_->decode().Check(held.block[static_cast<int>(Space::kHost)]->data, info().vocabulary));
  const auto tokens = engine_->token_scratch().first(static_cast<size_t>(capsule.position()));
  engine_->CopyTokens(held, 0, tokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= info().vocabulary) {
      return Corrupt("the capsule's token " + std::to_string(tokens[i]) + " at position " + std::to_string(i) +
                     " is outside the vocabulary of " + std::to_string(info().vocabulary));
    }
  }
  return capsule;
}

}  // namespace reprise
