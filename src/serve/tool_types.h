// Tools as declarations of types, which is how Harmony's models were told of them: a function of one namespace, its parameters as the fields of an
// object, in a language close to TypeScript. The wording is that of gpt-oss's own template, letter for letter.
#pragma once

#include <string>

#include "serve/json_fields.h"

namespace reprise::serve {

// Of a function as OpenAI's clients declare it: {"name", "description", "parameters"}. What in it is not as a schema should be counts as not said; what
// has no type of its own (references, anyOf), or lies deeper than 64 types, is of type any.
std::string TypeOfTool(const Json& function);

}  // namespace reprise::serve
