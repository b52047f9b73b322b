// The messages of a chat as each kind of client writes them, read into the one form that is rendered.
#pragma once

#include <vector>

#include "serve/json_fields.h"
#include "text/chat.h"

namespace reprise::serve {

// OpenAI's "messages".
std::vector<ChatMessage> ReadMessages(Fields& fields);
// Anthropic's "messages", with its "system" first. A turn of blocks becomes results of tools, then what the user says.
std::vector<ChatMessage> ReadAnthropicMessages(Fields& fields);

}  // namespace reprise::serve
