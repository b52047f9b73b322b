// Strings that a regular expression describes, as rules of a grammar.
#pragma once

#include "decode/grammar_builder.h"
#include "decode/json_characters.h"
#include "decode/regex.h"

namespace reprise {

// The texts of `regex` as part of a JSON string, each character in the form that JsonCharacters gives it.
void WriteRegex(const Regex& regex, GrammarBuilder& builder, JsonCharacters& characters);

}  // namespace reprise
