// What stands in a chat for an answer, and for what a tool gave back: thoughts, content, calls, results, each as the format has them. For
// chat_rendering.cc, which says whose turn it is.
#pragma once

#include <string_view>

#include "text/chat_renderer.h"
#include "text/chat_tools.h"

namespace reprise {

ToolWriter WriterTo(Renderer& out);  // refers to `out`

// How an answer begins that is yet to come.
void RenderOpening(const ChatFormat& format, const ChatOptions& options, Renderer& out);

// An answer within its turn. `content` is the message's, stripped where the format wants that; `after_question`: no question follows; `last`: nothing does.
void RenderAnswer(const ChatFormat& format, const ChatMessage& message, std::string_view content, bool after_question, bool thoughts_shown,
                  bool last, Renderer& out);

// What `tool` gave back; `content` is the message's, stripped where the format wants that. Neighbours are one turn, which is the user's in ChatML.
void RenderToolResult(const ChatFormat& format, const ChatMessage& message, std::string_view tool, std::string_view content, bool first,
                      bool last, Renderer& out);
// The same of Gemma 4's, in the turn of the model that called it. `opened`: the marker that it begins with is there.
void RenderGemmaResult(std::string_view tool, std::string_view content, bool opened, Renderer& out);

}  // namespace reprise
