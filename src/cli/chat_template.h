// Chats with a loaded model: its own template recognised, and messages as its tokens.
#pragma once

#include <span>
#include <vector>

#include "reprise/model.h"
#include "text/chat.h"

namespace reprise {

// kUnsupported, in words for users, for a model that has no chat template that this build knows.
Result<ChatFormat> ChatFormatOf(const Model& model);

// With the bos token in front where the model expects one.
Result<std::vector<int32_t>> EncodeChatFor(const Model& model, const ChatFormat& format, std::span<const ChatMessage> messages,
                                           const ChatOptions& options = {});

}  // namespace reprise
