// Reading JSON from strangers: parsed without exceptions and to a bounded depth, and read field by field, each with its type and range, so
// that an error names the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "serve/api_error.h"

namespace reprise::serve {

// Objects keep the order that they came in: models read schemas and arguments in it. They are searched one field after the other, so there may be no
// more than kMostFields in one.
using Json = nlohmann::ordered_json;
using OrderedJson = Json;
inline constexpr size_t kMostFields = 512;

// Whether text may be parsed at all: neither too deep, nor with too many fields in one object.
bool BoundedJson(std::string_view text);

// A field of what may be no object; null where there is none.
const Json& In(const Json& json, const char* name);

// An object, or an error. An empty body counts as an empty object where `may_be_empty`.
Json ParseObject(std::string_view text, ApiError& error, bool may_be_empty = false);

// Text of bytes that may be no UTF-8 (half a character in a token): never throws.
template <class AnyJson>
std::string Dump(const AnyJson& json) {
  return json.dump(-1, ' ', false, AnyJson::error_handler_t::replace);
}

// The fields of one object. A field that is absent or null reads as nothing; one of the wrong type or out of range sets the error.
class Fields {
 public:
  Fields(const Json& object, ApiError& error, std::string where = "") : object_(object), error_(error), where_(std::move(where)) {}

  const Json* Find(const char* name) const;  // null when absent or null
  std::optional<double> Number(const char* name, double least, double most);
  std::optional<int64_t> Integer(const char* name, int64_t least, int64_t most);
  std::optional<bool> Bool(const char* name);
  std::optional<std::string> String(const char* name, size_t most_bytes = size_t{1} << 30);
  const Json* Array(const char* name);
  const Json* Object(const char* name);

  void Fail(const char* name, const std::string& what);
  std::string Name(const char* name) const { return where_ + name; }
  ApiError& error() { return error_; }

 private:
  const Json& object_;
  ApiError& error_;
  std::string where_;
};

}  // namespace reprise::serve
