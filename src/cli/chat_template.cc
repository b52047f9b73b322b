#include "cli/chat_template.h"

#include "session/engine.h"

namespace reprise {

Result<ChatFormat> ChatFormatOf(const Model& model) {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
  REPRISE_ASSIGN_OR_RETURN(const std::string_view text, model.engine().file().GetStringOr("tokenizer.chat_template", ""));
  auto format = RecogniseChatFormat(*tokenizer, text);
  if (!format.ok()) {
    return Unsupported("this model cannot chat here: " + format.status().message() + "; 'reprise run' continues plain text with any model");
  }
  return format;
}

Result<std::vector<int32_t>> EncodeChatFor(const Model& model, const ChatFormat& format, std::span<const ChatMessage> messages,
                                           const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
  REPRISE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, EncodeChat(*tokenizer, format, messages, options));
  if (tokenizer->add_bos() && tokenizer->bos() >= 0) tokens.insert(tokens.begin(), tokenizer->bos());
  return tokens;
}

}  // namespace reprise
