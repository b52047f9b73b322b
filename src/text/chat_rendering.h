// A chat as segments: whose turn it is, what the system says, where questions, answers and results stand. For chat.cc.
#pragma once

#include <span>

#include "reprise/status.h"
#include "text/chat_renderer.h"

namespace reprise {

// As RenderChat (text/chat.h), with what encoding must know of it.
Result<Renderer::Rendered> RenderMessages(const ChatFormat& format, std::span<const ChatMessage> messages, const ChatOptions& options);

}  // namespace reprise
