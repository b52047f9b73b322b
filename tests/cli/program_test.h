// What the tests of the program share: a directory of their own, models that are made once, and ways to run the program.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "program.h"

namespace reprise {

using nlohmann::json;
using Arguments = std::vector<std::string>;

// One for the whole test program, removed at its end.
const std::string& SharedDirectory();
// A random model, made at first use: a qwen35 with MTP block, the same with other weights, or a llama.
const std::string& TinyModel();
const std::string& OtherModel();
const std::string& LlamaModel();

Ran RunReprise(Arguments arguments, const std::string& input = "");

inline void WriteBytes(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
std::string ReadBytes(const std::string& path);
std::string TokenBytes(const std::vector<int32_t>& tokens);
// Files of this test's own.
std::string TestFile(const std::string& name);

// What the program printed as its one JSON object; a failure for anything else. The parser refuses invalid UTF-8.
json Parsed(const Ran& ran);
json RunJson(Arguments arguments);

// `size` bytes of printable ASCII from the later part of a text, to stop at; empty when there are none.
std::string StopStringOf(const std::string& text, size_t size);

// An error as it must be: the exit code, nothing on stdout, and one line on stderr that holds `says`.
void ExpectError(const Ran& ran, int exit_code, const std::string& says);

}  // namespace reprise
