#include "serve/server.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <thread>

#include "serve/guard.h"
#include "serve/json_fields.h"
#include "serve/page.h"
#include "serve/service.h"
#include "store/record_file.h"

namespace reprise::serve {
namespace {

constexpr size_t kBodyWithoutKey = 64 << 10;
constexpr uint64_t kMostAnswerBytes = uint64_t{16} << 20;  // in a store of some size: what AnswerMemory holds

struct RouteEntry {
  std::string_view method;
  std::string_view path;  // a prefix of segments when it ends in '*'
  Route route;
};

constexpr RouteEntry kRoutes[] = {
    {"GET", "/v1/models", ServeModels},
    {"GET", "/v1/models/*", ServeModels},
    {"POST", "/v1/chat/completions", ServeChat},
    {"POST", "/v1/completions", ServeCompletions},
    {"POST", "/v1/messages", ServeMessages},
    {"POST", "/v1/messages/count_tokens", ServeCountTokens},
    {"GET", "/props", ServeProps},
    {"POST", "/tokenize", ServeTokenize},
    {"POST", "/detokenize", ServeDetokenize},
    {"GET", "/slots", ServeSlots},
    {"", "/v1/capsules", ServeCapsules},
    {"", "/v1/capsules/*", ServeCapsules},
    {"", "/v1/sessions/*", ServeCapsules},
};

bool Matches(std::string_view pattern, const std::string& path) {
  if (!pattern.ends_with('*')) return pattern == path;
  pattern.remove_suffix(1);
  return path.size() > pattern.size() && std::string_view(path).starts_with(pattern);
}

class Server {
 public:
  Server(const ServerOptions& options, Keys keys, std::unique_ptr<HttpServer> http)
      : options_(options), keys_(std::move(keys)), log_(options.log), service_(log_), http_(std::move(http)) {
    service_.started = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    service_.ping = options.ping;
    service_.most_choices = options.most_choices;
    service_.capsule_bytes = options.capsule_bytes;
  }

  Status Run(const std::function<Result<Model>()>& load, const std::atomic<bool>& stop) {
    std::thread accepting([this] {
      http_->Run({.answer = [this](Exchange& exchange) { Answer(exchange); },
                  .error_body =
                      [](int status, std::string_view what) {
                        return OpenAiErrorBody({status, std::string(what)});
                      },
                  .body_limit = [this](const HttpRequest& head) { return BodyLimit(head); }});
    });
    const Status status = LoadAndWait(load, stop);
    service_.stopping = true;
    http_->Stop();
    accepting.join();
    const auto deadline = Clock::now() + options_.drain;
    if (engines_) engines_->scheduler.Stop(deadline);
    // Every request has its last event now, and needs but to write it.
    http_->Close(Clock::now() + std::chrono::seconds(1));
    if (engines_) ExchangeAnswers(/*read=*/false);
    Status flushed;
    if (engines_ && engines_->model.store() != nullptr) flushed = engines_->model.store()->Flush();
    service_.engines = nullptr;
    log_.Write("stopped");
    return status.ok() ? flushed : status;
  }

 private:
  Status LoadAndWait(const std::function<Result<Model>()>& load, const std::atomic<bool>& stop) {
    const auto start = Clock::now();
    auto model = load();
    if (!model.ok()) return model.status();
    if (const auto tokenizer = model->engine().tokenizer(); !tokenizer.ok()) return tokenizer.status().Within("cannot serve this model");
    const ModelInfo info = model->info();
    std::string name = options_.model_id;
    if (name.empty()) name = info.name.empty() ? std::filesystem::path(info.path).stem().string() : info.name;
    engines_ = std::make_unique<Engines>(*std::move(model), name, options_.scheduler, service_.metrics);
    REPRISE_RETURN_IF_ERROR(ChooseChatFormat(*engines_));
    KeepAnswers(*engines_);
    service_.engines = engines_.get();
    log_.Write("ready", {{"model", name},
                         {"load_ms", std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count()},
                         {"context", info.context},
                         {"lanes", info.lanes},
                         {"backend", info.backend}});
    while (!stop) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      ++looks_;
      if (CapsuleStore* store = engines_->model.store(); store != nullptr && looks_ % 50 == 0) {
        for (const std::string& notice : store->TakeNotices()) log_.Write("store", {{"notice", notice}});
      }
      ExchangeAnswers(/*read=*/looks_ % 12 == 0);
    }
    log_.Write("stopping", {{"lines", service_.metrics.lines.load()}});
    return Ok();
  }

  // Where the store has a directory answers outlive the process in it. Without it they do not, which costs some reuse and no request.
  void KeepAnswers(Engines& engines) {
    const auto& store = engines.model.engine().options().store;
    if (!store || store->directory.empty()) return;
    const auto keep = [&]() -> Status {
      REPRISE_ASSIGN_OR_RETURN(const auto files, FileSystem::Open(store->directory, store->read_only));
      if (!files->writable()) return IoError("the directory cannot be written");
      bool begun_anew = false;
      const uint64_t most = std::min(kMostAnswerBytes, store->disk_budget / 16);
      REPRISE_ASSIGN_OR_RETURN(auto file, RecordFile::Open(*files, engines.model.info().fingerprint, most, begun_anew));
      if (begun_anew) log_.Write("store", {{"notice", "the answers remembered in the store were damaged and have been begun anew"}});
      return engines.answers.KeepIn(std::move(file), engines.model.info().vocabulary);
    };
    if (const Status kept = keep(); !kept.ok()) NoAnswers(kept.message());
  }

  // With the file, and so with other processes on the same directory. The same trouble is told once.
  void ExchangeAnswers(bool read) {
    Status done = engines_->answers.WriteOut();
    if (done.ok() && read) done = engines_->answers.ReadIn();
    if (!done.ok() && done.message() != answers_trouble_) NoAnswers(answers_trouble_ = done.message());
  }

  void NoAnswers(const std::string& why) { log_.Write("store", {{"notice", "answers are not remembered in the store: " + why}}); }

  Status ChooseChatFormat(Engines& engines) {
    const Tokenizer& tokenizer = engines.tokenizer();
    if (!options_.chat_template.empty()) {
      REPRISE_ASSIGN_OR_RETURN(engines.chat, NamedChatFormat(tokenizer, options_.chat_template));
      return Ok();
    }
    REPRISE_ASSIGN_OR_RETURN(const std::string_view text, engines.model.engine().file().GetStringOr("tokenizer.chat_template", ""));
    auto format = RecogniseChatFormat(tokenizer, text);
    if (format.ok()) {
      engines.chat = *format;
    } else {
      engines.no_chat = Unsupported(format.status().message() + "; start the server with --chat-template to choose one by name");
      log_.Write("no chat template", {{"why", engines.no_chat.message()}});
    }
    return Ok();
  }

  // Before a body is read: whoever may not ask may not send much either.
  size_t BodyLimit(const HttpRequest& head) {
    ApiError error;
    if (!Admit(head, keys_, http_->loopback(), false, error)) return kBodyWithoutKey;
    return head.Path() == "/v1/capsules/import" ? options_.capsule_bytes : options_.body_bytes;
  }

  void Answer(Exchange& exchange) {
    const auto start = Clock::now();
    std::string route = "other";
    exchange.AddHeader("X-Content-Type-Options", "nosniff");
    Dispatch(exchange, route);
    service_.metrics.CountRequest(route, exchange.status());
    if (route == "/health" || route == "/metrics") return;
    log_.Write("request", {{"method", exchange.request().method},
                           {"route", route},
                           {"status", exchange.status()},
                           {"peer", exchange.peer()},
                           {"ms", std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count()}});
  }

  void Dispatch(Exchange& exchange, std::string& route) {
    const HttpRequest& request = exchange.request();
    const std::string path = request.Path();
    const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
    // The page is the same for everyone and holds nothing; it asks for a key where one is needed.
    const bool is_public = path == "/health" || path == "/";
    ApiError error;
    const std::optional<Caller> caller = Admit(request, keys_, http_->loopback(), is_public || method == "OPTIONS", error);
    if (const std::string_view origin = request.Header("origin"); !origin.empty() && IsLoopbackOrigin(origin))
      AllowOrigin(exchange, origin);
    if (!caller) return RespondError(exchange, error);
    if (method == "OPTIONS") return exchange.Respond(204, "text/plain", "");
    if (path == "/" && method == "GET") {
      route = path;
      exchange.AddHeader(
          "Content-Security-Policy",
          "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'");
      return exchange.Respond(200, "text/html; charset=utf-8", kPage);
    }
    Engines* engines = service_.engines;
    if (path == "/health" && method == "GET") {
      route = path;
      if (engines == nullptr) return RespondError(exchange, {503, "the model is loading", "", "loading"});
      if (service_.stopping) return RespondError(exchange, {503, "the server is stopping", "", "stopping"});
      return exchange.Respond(200, kJsonType, R"({"status":"ok"})");
    }
    if (path == "/metrics" && method == "GET") {
      route = path;
      return exchange.Respond(200, "text/plain; version=0.0.4",
                              service_.metrics.Text(engines ? &engines->model : nullptr, http_->connections()));
    }
    bool known = false;
    for (const RouteEntry& entry : kRoutes) {
      if (!Matches(entry.path, path)) continue;
      known = true;
      if (!entry.method.empty() && entry.method != method) continue;
      route = entry.path;
      if (engines == nullptr) return RespondError(exchange, {503, "the model is loading", "", "loading"});
      return entry.route(service_, *engines, exchange, *caller);
    }
    if (known) return RespondError(exchange, {405, "this route does not take that method", "", "method_not_allowed"});
    RespondError(exchange, {404, "there is no such route", "", "not_found"});
  }

  static void AllowOrigin(Exchange& exchange, std::string_view origin) {
    exchange.AddHeader("Access-Control-Allow-Origin", std::string(origin));
    exchange.AddHeader("Access-Control-Allow-Headers", "authorization, content-type, x-api-key, anthropic-version");
    exchange.AddHeader("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE");
    exchange.AddHeader("Vary", "Origin");
  }

  const ServerOptions& options_;
  const Keys keys_;
  Log log_;
  Service service_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<Engines> engines_;
  int looks_ = 0;
  std::string answers_trouble_;
};

}  // namespace

Status RunServer(const ServerOptions& options, const std::function<Result<Model>()>& load,
                 const std::function<void(const std::string&)>& bound, const std::atomic<bool>& stop) {
  Keys keys;
  if (!options.api_key_file.empty()) {
    REPRISE_ASSIGN_OR_RETURN(keys, Keys::Load(options.api_key_file));
  }
  REPRISE_ASSIGN_OR_RETURN(auto http, HttpServer::Bind(options.host, options.port, options.http));
  if (!http->loopback() && keys.empty()) {
    return InvalidArgument("'" + options.host +
                           "' can be reached from other machines, which needs --api-key-file: anyone could use this server");
  }
  const std::string host = options.host.find(':') == std::string::npos ? options.host : "[" + options.host + "]";
  bound(fmt::format("http://{}:{}", host, http->port()));
  return Server(options, std::move(keys), std::move(http)).Run(load, stop);
}

}  // namespace reprise::serve
