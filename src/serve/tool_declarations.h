// Tools as Gemma 4 is told of them: a function's name and description, and its parameters as the template of these models writes schemas, which is less
// than a schema says (type, description, choices of texts, items, fields). Texts stand between quotation marks (decode/quoted_values.h).
#pragma once

#include <string>

#include "serve/json_fields.h"

namespace reprise::serve {

// Of a function as OpenAI's clients declare it: {"name", "description", "parameters"}. What in it is not as a schema should be counts as not said, and
// what lies deeper than 64 schemas too.
std::string DeclarationOfTool(const Json& function);

}  // namespace reprise::serve
