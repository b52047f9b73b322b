// Which tokens a session's grammar allows.
#include <algorithm>

#include "session/engine.h"

namespace reprise {

Status Engine::PrepareGrammar() {
  if (trie_) return Ok();
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* words, tokenizer());
  std::vector<std::string_view> bytes;
  std::vector<int32_t> ends;
  for (int32_t token = 0; token < info().vocabulary; ++token) {
    const bool ends_text = words->IsEndOfGeneration(token);
    if (ends_text) ends.push_back(token);
    bytes.push_back(ends_text || words->IsHidden(token) ? std::string_view() : words->TokenBytes(token));
  }
  trie_.emplace(bytes, ends);
  return Ok();
}

Result<AllowedTokens> Engine::Allowed(const std::byte* host) {
  if (!decode_.has_grammar(host)) return AllowedTokens();
  REPRISE_RETURN_IF_ERROR(PrepareGrammar());
  const GrammarProgram program = decode_.grammar(host);
  auto found = std::find_if(masks_.begin(), masks_.end(), [&](const auto& masks) { return masks->IsOf(program); });
  if (found == masks_.end()) {
    if (masks_.size() == kMostGrammars) masks_.pop_back();
    masks_.push_back(std::make_unique<GrammarMasks>(*trie_, program));
    found = masks_.end() - 1;
  }
  std::rotate(masks_.begin(), found, found + 1);  // the latest used first
  return masks_.front()->Allowed(decode_.threads(host));
}

}  // namespace reprise
