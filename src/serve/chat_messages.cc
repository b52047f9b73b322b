#include "serve/chat_messages.h"

#include <fmt/format.h>

#include <map>

#include "serve/tools.h"

namespace reprise::serve {
namespace {

constexpr size_t kMostMessages = 10'000;

// A content: a string, or a list of parts of text.
std::string ContentText(const Json* content, const std::string& where, ApiError& error) {
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    error.Set(400, fmt::format("'{}' must be a string or a list of parts", where), where, "invalid_value");
    return "";
  }
  std::string text;
  for (const Json& part : *content) {
    if (part.is_string()) {
      text += part.get<std::string>();
      continue;
    }
    if (!part.is_object()) {
      error.Set(400, fmt::format("'{}' holds a part that is not an object", where), where, "invalid_value");
      return "";
    }
    Fields fields(part, error, where + ".");
    const std::string type = fields.String("type").value_or("text");
    if (type != "text" && type != "input_text" && type != "output_text" && type != "thinking") {
      error.Set(400, fmt::format("'{}' holds a part of type '{}'; this model reads text alone", where, type), where, "unsupported_value");
      return "";
    }
    if (type != "thinking") text += fields.String("text").value_or("");
  }
  return text;
}

// An id that a client gave a call.
std::string CallId(Fields& fields, const char* name) {
  const auto id = fields.String(name, 256);
  if (!id || id->empty()) fields.Fail(name, "is missing");
  return id.value_or("");
}

// The functions that were called so far, by the ids of the calls.
using CallNames = std::map<std::string, std::string>;

// Which call a result is of, and of which function: the one that a call of this id named, or whatever the client says where there was none. And what it
// is if it is JSON.
void NameResult(const CallNames& calls, const std::string& id, Fields& result, ChatMessage& read) {
  const auto call = calls.find(id);
  read.tool = call != calls.end() ? call->second : result.String("name", 256).value_or("");
  read.call = id;
  if (!BoundedJson(read.content)) return;
  if (const Json json = Json::parse(read.content, nullptr, /*allow_exceptions=*/false); !json.is_discarded()) read.json = SpacedJson(json);
}

void ReadCalls(Fields& message, CallNames& names, ChatMessage& read) {
  const Json* calls = message.Array("tool_calls");
  ApiError& error = message.error();
  for (size_t i = 0; calls != nullptr && i < calls->size() && error.ok(); ++i) {
    const std::string where = fmt::format("{}[{}]", message.Name("tool_calls"), i);
    if (!(*calls)[i].is_object()) return error.Set(400, fmt::format("'{}' must be an object", where), where, "invalid_value");
    Fields call((*calls)[i], error, where + ".");
    const std::string id = CallId(call, "id");
    const Json* function = call.Object("function");
    if (function == nullptr) return call.Fail("function", "is missing");
    Fields inner(*function, error, where + ".function.");
    const auto name = inner.String("name", 256);
    if (!name || name->empty()) return inner.Fail("name", "is missing");
    Json arguments = Json::object();
    if (const Json* given = inner.Find("arguments"); given != nullptr && given->is_object()) {
      arguments = *given;  // as some clients have it
    } else if (const std::string text = inner.String("arguments").value_or(""); !text.empty()) {
      arguments = BoundedJson(text) ? Json::parse(text, nullptr, /*allow_exceptions=*/false) : Json(Json::value_t::discarded);
      if (!arguments.is_object()) return inner.Fail("arguments", "must be a JSON object, as text");
    }
    read.tool_calls.push_back(MakeCall(id, *name, arguments));
    names[id] = *name;
  }
}

// One message of Anthropic's, whose blocks may be several of ours. Neighbouring texts are one.
class BlockReader {
 public:
  BlockReader(std::string role, std::string where, CallNames& names, std::vector<ChatMessage>& messages, ApiError& error)
      : role_(std::move(role)), where_(std::move(where)), names_(names), messages_(messages), error_(error) {}

  void Read(const Json* content) {
    ChatMessage said{role_, ""};
    bool any_said = content == nullptr || !content->is_array();
    if (any_said) {
      said.content = ContentText(content, where_, error_);
    } else {
      for (size_t i = 0; i < content->size() && error_.ok(); ++i)
        any_said |= ReadBlock((*content)[i], fmt::format("{}[{}]", where_, i), said);
    }
    if (any_said || content->empty()) Add(std::move(said));
  }

 private:
  // Whether it is part of what is said, and not a message of its own.
  bool ReadBlock(const Json& block, const std::string& where, ChatMessage& said) {
    const std::string type = block.is_object() ? Fields(block, error_, where + ".").String("type").value_or("text") : "text";
    if (block.is_object() && role_ == "user" && type == "tool_result") {
      Fields fields(block, error_, where + ".");
      ChatMessage result{"tool", ContentText(fields.Find("content"), where + ".content", error_)};
      NameResult(names_, CallId(fields, "tool_use_id"), fields, result);
      messages_.push_back(std::move(result));
      return false;
    }
    if (block.is_object() && role_ == "assistant" && type == "tool_use") {
      Fields fields(block, error_, where + ".");
      const std::string id = CallId(fields, "id");
      const auto name = fields.String("name", 256);
      if (!name || name->empty()) fields.Fail("name", "is missing");
      const Json* input = fields.Object("input");
      said.tool_calls.push_back(MakeCall(id, name.value_or(""), input == nullptr ? Json::object() : *input));
      names_[id] = name.value_or("");
      return true;
    }
    if (block.is_object() && role_ == "assistant" && type == "thinking") {
      said.reasoning += Fields(block, error_, where + ".").String("thinking").value_or("");
      return true;
    }
    const Json alone = Json::array({block});
    said.content += ContentText(&alone, where_, error_);
    return true;
  }

  // Neighbours of one role are one turn.
  void Add(ChatMessage said) {
    if (messages_.empty() || messages_.back().role != said.role || !messages_.back().tool_calls.empty()) {
      messages_.push_back(std::move(said));
      return;
    }
    ChatMessage& before = messages_.back();
    if (!before.content.empty() && !said.content.empty()) before.content += "\n";
    before.content += said.content;
    before.reasoning += said.reasoning;
    before.tool_calls = std::move(said.tool_calls);
  }

  std::string role_, where_;
  CallNames& names_;
  std::vector<ChatMessage>& messages_;
  ApiError& error_;
};

const Json* MessageList(Fields& fields) {
  const Json* list = fields.Array("messages");
  if (list != nullptr && !list->empty() && list->size() <= kMostMessages) return list;
  fields.Fail("messages", "must be a list of at least one message");
  return nullptr;
}

}  // namespace

std::vector<ChatMessage> ReadMessages(Fields& fields) {
  std::vector<ChatMessage> messages;
  CallNames names;
  const Json* list = MessageList(fields);
  for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const std::string where = fmt::format("messages[{}]", i);
    const Json& one = (*list)[i];
    if (!one.is_object()) {
      fields.error().Set(400, fmt::format("'{}' must be an object", where), where, "invalid_value");
      return messages;
    }
    Fields message(one, fields.error(), where + ".");
    const auto role = message.String("role", 64);
    if (!role) message.Fail("role", "is missing");
    ChatMessage read{role.value_or(""), ""};
    if (read.role == "developer") read.role = "system";
    if (read.role != "system" && read.role != "user" && read.role != "assistant" && read.role != "tool") {
      message.Fail("role", "must be system, developer, user, assistant or tool");
    }
    read.content = ContentText(message.Find("content"), where + ".content", fields.error());
    if (read.role == "assistant") {
      ReadCalls(message, names, read);
      const char* thoughts = message.Find("reasoning_content") != nullptr ? "reasoning_content" : "reasoning";
      if (const Json* given = message.Find(thoughts); given != nullptr && given->is_string()) read.reasoning = given->get<std::string>();
    }
    if (read.role == "tool") NameResult(names, message.String("tool_call_id").value_or(""), message, read);
    if (!fields.error().ok()) return messages;
    messages.push_back(std::move(read));
  }
  return messages;
}

std::vector<ChatMessage> ReadAnthropicMessages(Fields& fields) {
  std::vector<ChatMessage> messages;
  CallNames names;
  if (const Json* system = fields.Find("system")) {
    messages.push_back({"system", ContentText(system, "system", fields.error())});
  }
  const Json* list = MessageList(fields);
  for (size_t i = 0; list != nullptr && i < list->size() && fields.error().ok(); ++i) {
    const std::string where = fmt::format("messages[{}]", i);
    const Json& one = (*list)[i];
    if (!one.is_object()) {
      fields.error().Set(400, fmt::format("'{}' must be an object", where), where, "invalid_value");
      break;
    }
    Fields message(one, fields.error(), where + ".");
    const std::string role = message.String("role", 64).value_or("");
    if (role != "user" && role != "assistant" && role != "system") message.Fail("role", "must be user or assistant");
    BlockReader(role, where + ".content", names, messages, fields.error()).Read(message.Find("content"));
  }
  return messages;
}

}  // namespace reprise::serve
