// What a client wants of an answer's text, as a grammar: JSON, JSON of a schema, a call of a tool.
#pragma once

#include "reprise/grammar.h"
#include "serve/json_fields.h"
#include "serve/tools.h"

namespace reprise::serve {

// "response_format".
struct AnswerShape {
  enum class Kind { kText, kJson, kSchema };
  Kind kind = Kind::kText;
  Json schema = Json();  // with kSchema
};
AnswerShape ReadResponseFormat(Fields& fields);

// For an answer without roles and tools.
Grammar GrammarOf(const AnswerShape& shape, ApiError& error);
// For an answer in a chat: after whatever thoughts the format has, calls of tools where one is asked for; where JSON is, JSON or, if tools may be
// called, calls of them. No grammar where any text will do.
Grammar GrammarOf(const AnswerShape& shape, const Tools& tools, const ChatFormat& format, const ChatOptions& options, ApiError& error);

}  // namespace reprise::serve
