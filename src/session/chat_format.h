// Chats with a model: its own template recognised, and messages as its tokens.
#pragma once

#include <span>
#include <vector>

#include "formats/gguf.h"
#include "reprise/chat.h"
#include "text/chat.h"

namespace reprise {

// kUnsupported, in words for users, for a model that has no chat template that this build knows.
Result<ChatFormat> ChatFormatOf(const Model& model);
Result<ChatFormat> ChatFormatOf(const GgufFile& file, const Tokenizer& tokenizer);

// With the bos token in front where the model expects one.
Result<std::vector<int32_t>> EncodeChatFor(const Model& model, const ChatFormat& format, std::span<const ChatMessage> messages,
                                           const ChatOptions& options = {});

// Where later prompts are likely to part from `prompt`, which is the chat's: after its system message, and after its last question. Formats may
// rewrite what opened an answer once it is old, and the end of the question is then the last that the next prompt has in common.
std::vector<Boundary> BoundariesOf(const Model& model, const ChatFormat& format, std::span<const ChatMessage> messages,
                                   const ChatOptions& options, std::span<const int32_t> prompt);

// The messages that a context holds, read back from its tokens: what a capsule of a chat was about. kInvalidArgument when the tokens are no
// chat, kUnsupported for a format without markers. A message's content is what was written between its markers, thoughts included; an answer that
// has no word yet is left out.
Result<std::vector<ChatMessage>> MessagesOf(const Model& model, const ChatFormat& format, std::span<const int32_t> tokens);

}  // namespace reprise
