// Log: what happened, a line each, on stderr: for people, or with --log-json as one JSON object a line. Any thread.
#pragma once

#include <mutex>
#include <nlohmann/json.hpp>
#include <string_view>

namespace reprise::serve {

class Log {
 public:
  enum class Form { kText, kJson, kNone };
  explicit Log(Form form) : form_(form) {}

  // `fields` is an object; `event` a word or two that says what happened.
  void Write(std::string_view event, const nlohmann::ordered_json& fields = nlohmann::ordered_json::object());

 private:
  Form form_;
  std::mutex mutex_;
};

}  // namespace reprise::serve
