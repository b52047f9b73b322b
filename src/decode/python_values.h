// Values of JSON as Python writes literals, and calls of functions with them: what LFM2's models call tools with, [f(to="Jane", pages=[1, 2])].
//
// All functions are pure and thread-safe. Sources: the tool use pages of Liquid AI's documentation and the chat templates of LFM2.5.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace reprise {

// The arguments of a call, an object, as to="Jane", pages=[1, 2]: texts are JSON's, between double quotes, and so are objects; all else is Python's.
std::string PythonArguments(const nlohmann::ordered_json& arguments);

// What stands between the brackets of a call, as an object; nothing where it is no list of literals, with or without names. Those without are called
// by `names` in order. Values may be nested 64 deep, with 512 fields in one object.
std::optional<nlohmann::ordered_json> ReadPythonArguments(std::string_view text, std::span<const std::string> names);

// Whether an argument may be called so here: letters, digits, _ and -.
bool IsPythonName(std::string_view name);

// With Python's words, and texts of JSON.
std::string PythonLiteral(const nlohmann::ordered_json& value);

}  // namespace reprise
