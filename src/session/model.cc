#include "reprise/model.h"

#include <utility>

#include "session/engine.h"
#include "session/import.h"

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
  REPRISE_ASSIGN_OR_RETURN(CapsuleImport import, CapsuleImport::Check(*engine_, bytes));
  REPRISE_RETURN_IF_ERROR(import.TakeMemory());
  return import.Fill();
}

}  // namespace reprise
