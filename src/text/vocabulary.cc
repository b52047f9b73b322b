#include "text/vocabulary.h"

#include <limits>
#include <string_view>

#include "formats/printable.h"
#include "text/pretokenizer.h"

namespace reprise {
namespace {

Result<std::vector<std::string>> Strings(const GgufFile& file, std::string_view key) {
  REPRISE_ASSIGN_OR_RETURN(const auto views, file.GetStrings(key));
  return std::vector<std::string>(views.begin(), views.end());
}

// -1 when the file does not name the token. Files write "no such token" as 2^32 - 1 too.
Result<int32_t> TokenId(const GgufFile& file, std::string_view key) {
  constexpr uint64_t kNoToken = std::numeric_limits<uint32_t>::max();
  if (!file.Has(key)) return -1;
  REPRISE_ASSIGN_OR_RETURN(const int64_t id, file.GetInt(key));
  if (id == -1 || id == static_cast<int64_t>(kNoToken)) return -1;
  if (id < 0 || id > std::numeric_limits<int32_t>::max())
    return Corrupt(std::string(key) + " is " + std::to_string(id) + ", which is no token id");
  return static_cast<int32_t>(id);
}

}  // namespace

Result<Vocabulary> ReadVocabulary(const GgufFile& file) {
  REPRISE_ASSIGN_OR_RETURN(const std::string_view model, file.GetString("tokenizer.ggml.model"));
  Vocabulary v;
  if (model == "gpt2") {
    REPRISE_ASSIGN_OR_RETURN(const std::string_view pre, file.GetString("tokenizer.ggml.pre"));
    v.pre = pre;
    REPRISE_ASSIGN_OR_RETURN(v.merges, Strings(file, "tokenizer.ggml.merges"));
  } else if (model == "llama") {
    v.kind = VocabularyKind::kSentencePiece;
    REPRISE_ASSIGN_OR_RETURN(v.scores, file.GetFloats("tokenizer.ggml.scores"));
    REPRISE_ASSIGN_OR_RETURN(v.add_space_prefix, file.GetBoolOr("tokenizer.ggml.add_space_prefix", true));
  } else if (model == "gemma4") {
    v.kind = VocabularyKind::kRankedPieces;
    REPRISE_ASSIGN_OR_RETURN(v.merges, Strings(file, "tokenizer.ggml.merges"));
  } else {
    return Unsupported("tokenizer model '" + Printable(model, 32) +
                       "' is not supported; known are gpt2 (byte-level BPE), llama (SentencePiece) and gemma4 (its pieces merged by rank)");
  }
  REPRISE_ASSIGN_OR_RETURN(v.tokens, Strings(file, "tokenizer.ggml.tokens"));
  if (file.Has("tokenizer.ggml.token_type")) {
    REPRISE_ASSIGN_OR_RETURN(const auto types, file.GetInts("tokenizer.ggml.token_type"));
    v.types.reserve(types.size());
    // What does not fit becomes 0, a type that does not exist either.
    for (const int64_t type : types)
      v.types.push_back(type > 0 && type <= std::numeric_limits<int32_t>::max() ? static_cast<int32_t>(type) : 0);
  }
  REPRISE_ASSIGN_OR_RETURN(v.bos, TokenId(file, "tokenizer.ggml.bos_token_id"));
  REPRISE_ASSIGN_OR_RETURN(v.eos, TokenId(file, "tokenizer.ggml.eos_token_id"));
  REPRISE_ASSIGN_OR_RETURN(v.eot, TokenId(file, "tokenizer.ggml.eot_token_id"));
  // Files of Llama's and Mistral's kinds that do not say start their prompts with bos.
  const auto pre = PreTokenizerByName(v.pre);
  const bool of_its_bpe = pre.ok() && (*pre == PreTokenizer::kLlamaBpe || *pre == PreTokenizer::kTekken);
  const bool like_llama = (of_its_bpe || v.kind == VocabularyKind::kSentencePiece) && v.bos >= 0;
  REPRISE_ASSIGN_OR_RETURN(v.add_bos, file.GetBoolOr("tokenizer.ggml.add_bos_token", like_llama));
  // Early files of Gemma 4 say that their prompts start without bos, which those models were not trained on.
  if (v.kind == VocabularyKind::kRankedPieces) v.add_bos = v.bos >= 0;
  REPRISE_ASSIGN_OR_RETURN(const std::string_view chat_template, file.GetStringOr("tokenizer.chat_template", ""));
  v.chat_template = chat_template;
  return v;
}

}  // namespace reprise
