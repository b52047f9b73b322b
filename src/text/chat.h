// Chats as tokens. No template is run: the file's chat template is only looked at, to recognise which known format it writes.
//
// A chat is rendered as segments, text or marker, and only markers become control tokens. Text in a message that spells a marker, such as
// "<|im_end|>", stays text, so that content can never end its own turn or begin another.
// All functions are pure and thread-safe. Sources: the templates that Qwen, SmolLM, Granite, Gemma, gpt-oss, Jamba, Nemotron and Mistral
// are published with.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reprise/status.h"
#include "text/tokenizer.h"

namespace reprise {

struct ChatToolCall {
  std::string id;  // what the client knows it by; the model sees it in some of Mistral's forms alone
  std::string name;
  std::string arguments;                                             // a JSON object, as text
  std::vector<std::pair<std::string, std::string>> parameters = {};  // the same, one by one: strings bare, all else as JSON
  std::string quoted = {};                                           // the same as Gemma 4 writes values (decode/quoted_values.h)
  std::string python = {};                                           // the same as Python's arguments (decode/python_values.h)
};

struct ChatMessage {
  std::string role;  // system, user, assistant or tool
  std::string content;
  std::string reasoning = {};                 // what an assistant thought, where it is not part of the content
  std::vector<ChatToolCall> tool_calls = {};  // of an assistant, after the content
  std::string tool = {};                      // of a tool's result: the function that was called; empty: the one that was called last
  std::string call = {};                      // of a tool's result: the id of the call
  std::string json = {};                      // of a tool's result: the content if it is JSON, as JSON; empty: it is a string of it
};

enum class ChatStyle : uint8_t {
  kChatMl,   // <|im_start|>role\ncontent<|im_end|>\n (SmolLM2, Qwen2, Qwen2.5 and whatever else is content with that)
  kQwen3,    // ChatML; what the assistant thought is kept only after the last question
  kQwen35,   // as Qwen3; contents are stripped of white space, and an answer opens with its thoughts, even if it has none
  kJamba,    // ChatML; a question is preceded by a request to think, and an answer opens with its thoughts (Jamba Reasoning)
  kLfm2,     // ChatML; LFM2.5's thoughts, <think>thoughts</think>, are kept only after the last question
  kLlama3,   // <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>
  kGranite,  // <|start_of_role|>role<|end_of_role|>content<|end_of_text|>\n (Granite 4)
  kGemma,    // <start_of_turn>role\ncontent<end_of_turn>\n; the system speaks in the first question (Gemma 2 and 3)
  kGemma4,   // <|turn>role\ncontent<turn|>\n; the system's turn asks for thoughts, which are <|channel>thought\n...\n<channel|>
  kHarmony,  // <|start|>role<|message|>content<|end|>; an answer is messages, each on a channel: thoughts and the final one (gpt-oss)
  kMistral,  // [INST]question[/INST]answer</s>, in the versions that MistralForm tells apart
  kPhi4,     // <|im_start|>role<|im_sep|>content<|im_end|>
  kPhi3,  // as Phi-4-mini, in SentencePiece's vocabulary: a space precedes what is said, and white space that a message begins with is none
  kPhi4Mini,  // <|role|>content<|end|>, where a marker is the role
  kNemotron,  // <SPECIAL_11>Role\ncontent\n; the system's turn has another marker, an answer one behind it (Nemotron Nano 2)
  kPlain,     // no roles and no markers: contents with an empty line after each, for models that only continue text
};

// How a model was trained to be told of tools and to call them.
enum class ToolForm : uint8_t {
  kJson,         // <tool_call>{"name": ..., "arguments": {...}}</tool_call> (Hermes, Qwen2.5, Qwen3)
  kXml,          // <tool_call><function=NAME><parameter=KEY>VALUE... (Qwen3-Coder, Qwen3.5)
  kLlama,        // the whole answer is {"name": ..., "parameters": {...}}
  kMistral,      // [TOOL_CALLS]NAME[ARGS]{...} (Mistral's thirteenth version and later)
  kMistralIds,   // [TOOL_CALLS]NAME[CALL_ID]ID[ARGS]{...} (Mistral's eleventh version)
  kMistralList,  // [TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ID}] (Mistral's third and seventh versions)
  kNemotron,     // <TOOLCALL>[{"name": ..., "arguments": {...}}]</TOOLCALL> (Nemotron Nano 2)
  kHarmony,      // a message to=functions.NAME on the commentary channel, which ends the answer with <|call|> (gpt-oss)
  kPython,       // <|tool_call_start|>[NAME(key="text", other=2)]<|tool_call_end|> (LFM2 and LFM2.5)
  kGemma,        // <|tool_call>call:NAME{key:<|"|>text<|"|>}<tool_call|>, whose result the same turn goes on with (Gemma 4)
  kNone,         // the format has no words for them
};
std::string_view ToolFormName(ToolForm form);

// What Mistral's versions differ in.
struct MistralForm {
  bool spaces = false;      // SentencePiece's: one after what opens a turn and one before an answer
  bool as_text = false;     // the first: [INST] and [/INST] are no tokens, and more spaces stand around them
  bool own_system = false;  // from the seventh on: what the system says stands between markers of its own, else within a question
  bool in_last = false;     // which is the last of them, not the first
  bool strips = false;      // answers of old are stripped of white space
  bool thoughts = false;    // an answer may begin with [THINK]thoughts[/THINK]
  bool settings = false;    // the fifteenth: before the first question stands whether answers are to think
};

struct ChatFormat {
  ChatStyle style = ChatStyle::kChatMl;
  ToolForm tools = ToolForm::kJson;
  std::string default_system = {};  // said when a chat does not begin with a system message; empty: nothing is
  bool thinks = false;              // whether answers start with thoughts when the caller does not say (ThinkingFor)
  bool empty_thoughts = false;      // Gemma 4's larger models: an answer that is not to think is opened by thoughts without a word
  bool results_open_thoughts =
      false;  // Gemma 4's later templates: an answer that is to think is opened by its thoughts after a tool's result
  MistralForm mistral = {};
  bool marks_tools = false;  // LFM2: the list of tools and their results stand between markers
  bool writes_bos =
      false;  // the template opens prompts with the vocabulary's bos token, which some files do not otherwise ask for (Falcon-H1's)
};

// From the file's template (may be empty) and the tokens present. kUnsupported, with the known formats, when it is none of them.
Result<ChatFormat> RecogniseChatFormat(const Tokenizer& tokenizer, std::string_view chat_template);

// By name, whatever the file's template is. kInvalidArgument names them; kUnsupported when the vocabulary lacks the format's markers.
std::vector<std::string> ChatFormatNames();
Result<ChatFormat> NamedChatFormat(const Tokenizer& tokenizer, std::string_view name);
std::string_view ChatStyleName(ChatStyle style);

// The token that a chat's prompt begins with before anything else, where there is one.
std::optional<int32_t> FirstTokenOf(const Tokenizer& tokenizer, const ChatFormat& format);

enum class Thinking : uint8_t { kByFormat, kOn, kOff };

// What the caller says, or if that is kByFormat the last of the messages' own words for it: Nemotron Nano 2's "/think" and "/no_think".
Thinking ThinkingFor(const ChatFormat& format, std::span<const ChatMessage> messages, Thinking thinking);

// How an answer was generated, where that is known: its tokens, without what ends a turn. The prompt that it followed was `before` and then
// `opening`. Calls come with the same `before`, grown. An answer that thought is to be left alone where its thoughts are not shown.
using RecallAnswer = std::function<std::optional<std::vector<int32_t>>(std::span<const int32_t> before, std::span<const int32_t> opening,
                                                                       const ChatMessage& message, bool thoughts_shown)>;

struct ChatOptions {
  bool add_generation_prompt = true;  // end with the opening of the assistant's answer
  Thinking thinking = Thinking::kByFormat;
  bool continues = false;               // the messages follow others, so that nothing is said before the first of them
  std::vector<std::string> tools = {};  // each as its form wants it (ToolForm), JSON or a declaration; the model is told of them first
  bool after_result = false;            // the last message is the result of a tool
  bool must_answer = false;             // whatever tools it is told of, none may be called
  std::string called = {};              // with `continues`: the function that was called last in what the messages follow
  bool in_result = false;               // with `continues`: the marker that a result begins with is the last thing there (Gemma 4)
  RecallAnswer recall = {};
};

// Whether an answer is messages on channels, of which only the final one is its reader's: <|channel|>analysis<|message|>thoughts<|end|>
// <|start|>assistant<|channel|>final<|message|>content, the first of them from <|channel|> on. Where thinking is off a prompt ends with the header
// of the final one, unless a tool may be called instead.
bool HasChannels(const ChatFormat& format);
bool OpensFinal(const ChatFormat& format, const ChatOptions& options);

// Whether answers start within their thoughts, after an opening marker that the prompt ends with; and whether they may write that themselves.
bool OpensThoughts(const ChatFormat& format, const ChatOptions& options);
bool MayThink(const ChatFormat& format);

// Whether an answer is generated with a space before it, which is layout.
bool AnswersBeginWithSpace(const ChatFormat& format);

// What an answer without channels has its thoughts between, white space aside.
struct ThoughtMarkers {
  std::string_view start, end;
};
ThoughtMarkers ThoughtMarkersOf(const ChatFormat& format);

struct ChatSegment {
  std::string text;
  bool marker = false;  // the name of one token of the vocabulary, if it has such; never content
  bool operator==(const ChatSegment&) const = default;
};

// kInvalidArgument for an empty chat, an unknown role, tools where the format has none, a later system message where it has none, or the result of
// a tool that nobody called where results go by the names of tools (Harmony, Gemma 4), or that says of no call where they go by ids (Mistral).
// Neighbouring texts are one segment.
Result<std::vector<ChatSegment>> RenderChat(const ChatFormat& format, std::span<const ChatMessage> messages,
                                            const ChatOptions& options = {});

// The same as token ids. Does not add what FirstTokenOf says. An answer's tokens are its own: they are the recalled ones, or the text is encoded from where
// the prompt ended that it followed, so that what was said before an answer has the same tokens ever after.
Result<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                        const ChatOptions& options = {});

struct EncodedChat {
  std::vector<int32_t> tokens;
  std::vector<int> turns;  // where each turn begins, the opening of the answer included; none in formats without markers
  int system_end = 0;      // where the system's turn ends, tools included; 0 where there is none
};
Result<EncodedChat> EncodeChatTurns(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                    const ChatOptions& options = {});
// The messages that tokens hold, as they stand there: what was said in a format with markers, read back. Empty where there are none.
struct ChatTurn {
  int position = 0;  // of the marker that opens it
  std::string role, content;
};
std::vector<ChatTurn> TurnsOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens);
// The function that was called last in what `tokens` hold, in formats whose results name it (Harmony, Gemma 4); else empty.
std::string LastCallOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens);
// What ends the last message of a chat that stands at `tokens`, before one of `next_role`: nothing where it has ended.
std::vector<int32_t> EndOfTurn(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens,
                               std::string_view next_role = "user");

}  // namespace reprise
