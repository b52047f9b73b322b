// The server: HTTP in front, the model behind, from the first byte bound to the last capsule flushed.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "reprise/model.h"
#include "serve/http_server.h"
#include "serve/log.h"
#include "serve/scheduler.h"

namespace reprise::serve {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;  // 0: any free one
  std::string api_key_file;
  std::string chat_template;  // by name; "" recognises the model's own
  std::string model_id;       // "" for the model's name
  SchedulerOptions scheduler;
  HttpLimits http;
  size_t body_bytes = 16 << 20;            // of a request, but for a capsule that is imported
  size_t capsule_bytes = size_t{1} << 30;  // of that
  int most_choices = 64;
  std::chrono::milliseconds ping{2000};
  std::chrono::milliseconds drain{5000};  // that running requests have to finish when the server stops
  Log::Form log = Log::Form::kText;
};

// Binds, calls `bound` with the address to visit, loads the model with `load` while /health says so, and serves until `stop` is set. Then
// nothing new is taken, what runs may finish or is kept as capsules, and the store is flushed.
Status RunServer(const ServerOptions& options, const std::function<Result<Model>()>& load,
                 const std::function<void(const std::string&)>& bound, const std::atomic<bool>& stop);

}  // namespace reprise::serve
