// Messages and tools from any client: an error that says something, or what every chat format renders or refuses in a sentence.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "serve/chat_messages.h"
#include "serve/tools.h"

namespace {

using namespace reprise;
using namespace reprise::serve;

void Require(bool holds) {
  if (!holds) std::abort();
}

std::vector<ChatFormat> Formats() {
  std::vector<ChatFormat> formats;
  for (const ToolForm tools : {ToolForm::kJson, ToolForm::kXml}) {
    for (const ChatStyle style : {ChatStyle::kChatMl, ChatStyle::kQwen3, ChatStyle::kQwen35, ChatStyle::kGranite}) {
      formats.push_back({.style = style, .tools = tools, .thinks = style == ChatStyle::kQwen35});
    }
  }
  formats.push_back({.style = ChatStyle::kLlama3, .tools = ToolForm::kLlama});
  formats.push_back({.style = ChatStyle::kHarmony, .tools = ToolForm::kHarmony, .thinks = true});
  formats.push_back({.style = ChatStyle::kJamba, .tools = ToolForm::kJson, .thinks = true});
  formats.push_back({.style = ChatStyle::kNemotron, .tools = ToolForm::kNemotron, .thinks = true});
  formats.push_back({.style = ChatStyle::kLfm2, .tools = ToolForm::kPython});
  formats.push_back({.style = ChatStyle::kLfm2, .tools = ToolForm::kPython, .marks_tools = true});
  formats.push_back({.style = ChatStyle::kGemma4, .tools = ToolForm::kGemma, .results_open_thoughts = true});
  formats.push_back({.style = ChatStyle::kMistral, .tools = ToolForm::kMistral, .mistral = {.own_system = true, .thoughts = true}});
  formats.push_back(
      {.style = ChatStyle::kMistral, .tools = ToolForm::kMistral, .mistral = {.own_system = true, .thoughts = true, .settings = true}});
  formats.push_back({.style = ChatStyle::kMistral, .tools = ToolForm::kMistralIds, .mistral = {.own_system = true}});
  formats.push_back({.style = ChatStyle::kMistral, .tools = ToolForm::kMistralList, .mistral = {.spaces = true, .own_system = true}});
  formats.push_back({.style = ChatStyle::kMistral, .tools = ToolForm::kMistralList, .mistral = {.in_last = true}});
  formats.push_back({.style = ChatStyle::kMistral, .tools = ToolForm::kNone, .mistral = {.spaces = true, .as_text = true}});
  for (const ChatStyle style :
       {ChatStyle::kGemma, ChatStyle::kGemma4, ChatStyle::kPhi3, ChatStyle::kPhi4, ChatStyle::kPhi4Mini, ChatStyle::kPlain}) {
    formats.push_back({.style = style, .tools = ToolForm::kNone});
  }
  return formats;
}

void RenderEverywhere(const std::vector<ChatMessage>& messages, const Tools& tools) {
  for (const ChatFormat& format : Formats()) {
    ChatOptions options;
    tools.Tell(format, options);
    for (const bool continues : {false, true}) {
      options.continues = continues;
      const auto segments = RenderChat(format, messages, options);
      if (!segments.ok()) {
        Require(!segments.status().message().empty());
        continue;
      }
      // Neighbouring texts are one, so that how words become tokens does not hang on how they were put together.
      bool text = false;
      for (const ChatSegment& segment : *segments) {
        Require(segment.marker || !text);
        text = !segment.marker;
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const bool anthropic : {false, true}) {
    ApiError error;
    const Json body = ParseObject(bytes, error);
    if (error.ok()) {
      Fields fields(body, error);
      const Tools tools = anthropic ? ReadAnthropicTools(fields) : ReadTools(fields);
      if (error.ok()) {
        const std::vector<ChatMessage> messages = anthropic ? ReadAnthropicMessages(fields) : ReadMessages(fields);
        if (error.ok()) RenderEverywhere(messages, tools);
      }
    }
    Require(error.ok() || !error.message.empty());
  }
  return 0;
}
