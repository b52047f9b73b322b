// Chats as tokens. No template is run: the file's chat template is only looked at, to recognise which known format it writes.
//
// A chat is rendered as segments, text or marker, and only markers become control tokens. Text in a message that spells a marker, such as
// "<|im_end|>", stays text, so that content can never end its own turn or begin another.
// All functions are pure and thread-safe. Sources: the templates that Qwen and SmolLM publish with their models.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/status.h"
#include "text/tokenizer.h"

namespace reprise {

struct ChatMessage {
  std::string role;  // system, user or assistant
  std::string content;
};

enum class ChatStyle : uint8_t {
  kChatMl,  // <|im_start|>role\ncontent<|im_end|>\n (SmolLM2, Qwen2, Qwen2.5 and whatever else is content with that)
  kQwen3,   // ChatML; what the assistant thought is kept only after the last question
  kQwen35,  // as Qwen3; contents are stripped of white space, and an answer opens with its thoughts, even if it has none
  kLlama3,  // <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>
  kPlain,   // no roles and no markers: contents with an empty line after each, for models that only continue text
};

struct ChatFormat {
  ChatStyle style = ChatStyle::kChatMl;
  std::string default_system = {};  // said when a chat does not begin with a system message; empty: nothing is
  bool thinks = false;              // whether answers start with thoughts when the caller does not say
};

// From the file's template (may be empty) and the tokens present. kUnsupported, with the known formats, when it is none of them.
Result<ChatFormat> RecogniseChatFormat(const Tokenizer& tokenizer, std::string_view chat_template);

// By name, whatever the file's template is: chatml, qwen3, qwen3.5, llama3 or plain. kInvalidArgument names them; kUnsupported when the
// vocabulary lacks the format's markers.
Result<ChatFormat> NamedChatFormat(const Tokenizer& tokenizer, std::string_view name);
std::string_view ChatStyleName(ChatStyle style);

enum class Thinking : uint8_t { kByFormat, kOn, kOff };

struct ChatOptions {
  bool add_generation_prompt = true;  // end with the opening of the assistant's answer
  Thinking thinking = Thinking::kByFormat;
  bool continues = false;  // the messages follow others, so that nothing is said before the first of them
};

struct ChatSegment {
  std::string text;
  bool marker = false;  // the name of one token of the vocabulary, if it has such; never content
  bool operator==(const ChatSegment&) const = default;
};

// kInvalidArgument for an empty chat, an unknown role, or a later system message where the format has none. Neighbouring texts are one
// segment.
Result<std::vector<ChatSegment>> RenderChat(const ChatFormat& format, std::span<const ChatMessage> messages, ChatOptions options = {});

// The same as token ids. Does not add a bos token.
Result<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                        ChatOptions options = {});

struct EncodedChat {
  std::vector<int32_t> tokens;
  std::vector<int> turns;  // where each message begins, the opening of the answer included; none in formats without markers
};
Result<EncodedChat> EncodeChatTurns(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                    ChatOptions options = {});
// The messages that tokens hold, as they stand there: what was said in a format with markers, read back. Empty where there are none.
struct ChatTurn {
  int position = 0;  // of the marker that opens it
  std::string role, content;
};
std::vector<ChatTurn> TurnsOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens);
// What ends the last message of a chat that stands at `tokens`: nothing where it has ended.
std::vector<int32_t> EndOfTurn(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens);

}  // namespace reprise
