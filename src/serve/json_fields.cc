#include "serve/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace reprise::serve {
namespace {

constexpr int kMostDepth = 64;

}  // namespace

bool BoundedJson(std::string_view text) {
  size_t fields[kMostDepth + 1] = {};  // colons seen in what is open
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMostDepth) return false;
      fields[depth] = 0;
    } else if (c == ']' || c == '}') {
      depth = std::max(0, depth - 1);
    } else if (c == ':') {
      if (++fields[depth] > kMostFields) return false;
    }
  }
  return true;
}

void ApiError::Set(const Status& why) {
  switch (why.code()) {
    case StatusCode::kOk: return;
    case StatusCode::kInvalidArgument:
    case StatusCode::kUnsupported: return Set(400, why.message(), "", "invalid_request");
    case StatusCode::kNotFound: return Set(404, why.message(), "", "not_found");
    case StatusCode::kCorrupt:
    case StatusCode::kMismatch: return Set(422, why.message(), "", "refused");
    case StatusCode::kExhausted: return Set(429, why.message(), "", "exhausted");
    case StatusCode::kCancelled: return Set(503, why.message(), "", "cancelled");
    case StatusCode::kIo:
    case StatusCode::kInternal: return Set(500, why.message(), "", "internal");
  }
}

std::string OpenAiErrorBody(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? OrderedJson() : OrderedJson(text); };
  const char* type = error.status == 401   ? "authentication_error"
                     : error.status == 403 ? "permission_error"
                     : error.status == 404 ? "not_found_error"
                     : error.status == 429 ? "rate_limit_error"
                     : error.status >= 500 ? "server_error"
                                           : "invalid_request_error";
  return Dump(
      OrderedJson{{"error", {{"message", error.message}, {"type", type}, {"param", or_null(error.param)}, {"code", or_null(error.code)}}}});
}

std::string AnthropicErrorBody(const ApiError& error) {
  const char* type = error.status == 401   ? "authentication_error"
                     : error.status == 403 ? "permission_error"
                     : error.status == 404 ? "not_found_error"
                     : error.status == 413 ? "request_too_large"
                     : error.status == 429 ? "rate_limit_error"
                     : error.status == 503 ? "overloaded_error"
                     : error.status >= 500 ? "api_error"
                                           : "invalid_request_error";
  return Dump(OrderedJson{{"type", "error"}, {"error", {{"type", type}, {"message", error.message}}}});
}

const Json& In(const Json& json, const char* name) {
  static const Json kNothing;
  const auto found = json.find(name);  // the end of what is no object
  return found == json.end() ? kNothing : *found;
}

Json ParseObject(std::string_view text, ApiError& error, bool may_be_empty) {
  if (text.empty() && may_be_empty) return Json::object();
  if (!BoundedJson(text)) {
    error.Set(
        400, fmt::format("the body is nested more deeply than {} levels, or has an object of more than {} fields", kMostDepth, kMostFields),
        "", "invalid_json");
    return Json::object();
  }
  if (!IsUtf8(text)) {
    error.Set(400, "the body is not UTF-8", "", "invalid_json");
    return Json::object();
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    error.Set(400, "the body is not valid JSON", "", "invalid_json");
    return Json::object();
  }
  if (!json.is_object()) {
    error.Set(400, "the body must be a JSON object", "", "invalid_json");
    return Json::object();
  }
  return json;
}

void Fields::Fail(const char* name, const std::string& what) {
  error_.Set(400, fmt::format("'{}' {}", Name(name), what), Name(name), "invalid_value");
}

const Json* Fields::Find(const char* name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<double> Fields::Number(const char* name, double least, double most) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : NAN;
  if (number >= least && number <= most) return number;
  Fail(name, fmt::format("must be a number from {:g} to {:g}", least, most));
  return std::nullopt;
}

std::optional<int64_t> Fields::Integer(const char* name, int64_t least, int64_t most) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number_unsigned()) {
    const auto number = value->get<uint64_t>();
    if (number <= static_cast<uint64_t>(INT64_MAX) && static_cast<int64_t>(number) >= least && static_cast<int64_t>(number) <= most) {
      return static_cast<int64_t>(number);
    }
  } else if (value->is_number_integer()) {
    const auto number = value->get<int64_t>();
    if (number >= least && number <= most) return number;
  } else if (value->is_number_float()) {  // 3.0 is whole, and some clients write it so
    const double number = value->get<double>();
    if (std::abs(number) < 9e15 && std::floor(number) == number && number >= static_cast<double>(least) &&
        number <= static_cast<double>(most)) {
      return static_cast<int64_t>(number);
    }
  }
  Fail(name, fmt::format("must be a whole number from {} to {}", least, most));
  return std::nullopt;
}

std::optional<bool> Fields::Bool(const char* name) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  Fail(name, "must be true or false");
  return std::nullopt;
}

std::optional<std::string> Fields::String(const char* name, size_t most_bytes) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) {
    const auto& text = value->get_ref<const std::string&>();
    if (text.size() <= most_bytes) return text;
    Fail(name, fmt::format("must be at most {} bytes long", most_bytes));
    return std::nullopt;
  }
  Fail(name, "must be a string");
  return std::nullopt;
}

const Json* Fields::Array(const char* name) {
  const Json* value = Find(name);
  if (value == nullptr || value->is_array()) return value;
  Fail(name, "must be a list");
  return nullptr;
}

const Json* Fields::Object(const char* name) {
  const Json* value = Find(name);
  if (value == nullptr || value->is_object()) return value;
  Fail(name, "must be an object");
  return nullptr;
}

}  // namespace reprise::serve
