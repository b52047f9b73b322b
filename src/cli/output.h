// What `--json` prints: one object, in the order its fields were set, whatever bytes its strings hold.
#pragma once

#include <nlohmann/json.hpp>

namespace reprise {

using Json = nlohmann::ordered_json;

// One line on stdout. Bytes that are not UTF-8 become U+FFFD; a number that is not finite becomes null.
void PrintJson(const Json& json);

// "1.5 MiB", "640 bytes"
std::string HumanBytes(uint64_t bytes);
// "1,234,567"
std::string Grouped(uint64_t number);

}  // namespace reprise
