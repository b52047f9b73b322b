// Values of JSON as Gemma 4 writes them: every text between quotation marks that are a token of the vocabulary, as it is, since there are no escapes;
// names bare and in alphabetical order; no white space. {to:<|"|>Jane<|"|>,pages:2} are the arguments of a call.
//
// All functions are pure and thread-safe. Source: format_argument in the chat templates of Gemma 4.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace reprise {

// The fields of an object by name, whatever the case of its letters is, and those that are the same as they came.
using SortedFields = std::vector<std::pair<std::string_view, const nlohmann::ordered_json*>>;
SortedFields FieldsByName(const nlohmann::ordered_json& object);

// Whether a name may stand bare.
bool IsBareName(std::string_view name);

// `text` as it may stand between two of `mark`: such as it holds are plain ones.
std::string WithoutMarks(std::string_view text, std::string_view mark);

// Appends `value`. `names_too`: names stand between marks as well.
void WriteQuoted(const nlohmann::ordered_json& value, std::string_view mark, bool names_too, std::string& out);

// An object and nothing else but white space; nothing where it is none, or is nested more than 64 deep, or has more than 512 fields in one object. Names
// may stand between marks. What stands bare is a number, true, false or null, or text as it is.
std::optional<nlohmann::ordered_json> ReadQuoted(std::string_view text, std::string_view mark);

}  // namespace reprise
