#include "serve/log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdio>

namespace reprise::serve {

void Log::Write(std::string_view event, const nlohmann::ordered_json& fields) {
  if (form_ == Form::kNone) return;
  using Json = nlohmann::ordered_json;
  const auto now = std::chrono::system_clock::now();
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  const std::string time = fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(now)), milliseconds);
  std::string line;
  if (form_ == Form::kJson) {
    Json json = {{"time", time}, {"event", event}};
    json.update(fields);
    line = json.dump(-1, ' ', true, Json::error_handler_t::replace);
  } else {
    line = fmt::format("{} {}", time, event);
    for (const auto& [name, value] : fields.items()) {
      // Escaped as JSON: nothing that a client sent reaches a terminal as it is.
      line += fmt::format(" {}={}", name, value.dump(-1, ' ', true, Json::error_handler_t::replace));
    }
  }
  line += '\n';
  const std::lock_guard lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace reprise::serve
