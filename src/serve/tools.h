// Tools as clients declare them, and the calls that come of it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "serve/json_fields.h"
#include "text/chat.h"

namespace reprise::serve {

struct Tool {
  std::string name;
  Json declared;    // as OpenAI's clients write it, which is what models were trained to read
  Json parameters;  // the schema of its arguments
  bool strict = false;
};

struct Tools {
  enum class Choice { kAuto, kNone, kRequired };
  std::vector<Tool> list;
  Choice choice = Choice::kAuto;
  std::string only;  // with kRequired: the one that must be called, or any
  bool parallel = true;

  bool callable() const { return !list.empty() && choice != Choice::kNone; }
  const Tool* Find(std::string_view name) const;
  // What the model is told of them and what it may do. With "none" they are told too: a prompt that says otherwise could reuse nothing.
  void Tell(const ChatFormat& format, ChatOptions& options) const;
};

Tools ReadTools(Fields& fields);
Tools ReadAnthropicTools(Fields& fields);

// A call from its arguments, an object. Every part that the forms may need is filled in.
ChatToolCall MakeCall(std::string id, std::string name, const Json& arguments);

// JSON as Python's json.dumps writes it, ", " and ": " between things: what the templates of models write, so what they were trained on.
std::string SpacedJson(const Json& json);

}  // namespace reprise::serve
