// `reprise serve`: the model over HTTP. What it does lives in src/serve.
#include <csignal>
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/model_flags.h"
#include "serve/server.h"
#include "text/chat.h"

namespace reprise {
namespace {

struct ServeFlags {
  ModelFlags model;
  serve::ServerOptions server;
  std::string store;
  int store_memory_mb = 0;
  int store_disk_mb = 8192;
  int queue = 64;
  int connections = 512;
  int body_mb = 16;
  int capsule_mb = 1024;
  int drain_seconds = 5;
  int stall_seconds = 10;
  bool log_json = false;
  bool quiet = false;
};

std::atomic<bool> stop{false};

void OnSignal(int) { stop = true; }

Result<int> Serve(ServeFlags flags) {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  serve::ServerOptions& options = flags.server;
  options.scheduler.queue = flags.queue;
  options.http.connections = flags.connections;
  options.http.stalled_time = std::chrono::seconds(flags.stall_seconds);
  options.body_bytes = static_cast<size_t>(flags.body_mb) << 20;
  options.capsule_bytes = static_cast<size_t>(flags.capsule_mb) << 20;
  options.drain = std::chrono::seconds(flags.drain_seconds);
  options.log = flags.log_json ? serve::Log::Form::kJson : flags.quiet ? serve::Log::Form::kNone : serve::Log::Form::kText;

  const auto load = [&]() -> Result<Model> {
    ModelOptions model = flags.model.Options();
    model.lanes += 1;  // one for what is done with capsules while all others are at work
    model.store = StoreOptions{.memory_budget = static_cast<uint64_t>(flags.store_memory_mb) << 20,
                               .directory = flags.store,
                               .disk_budget = static_cast<uint64_t>(flags.store_disk_mb) << 20};
    return LoadModel(flags.model, model, flags.log_json || flags.quiet);
  };
  const auto bound = [](const std::string& address) {
    std::printf("Reprise serves on %s\n", address.c_str());
    std::fflush(stdout);
  };
  REPRISE_RETURN_IF_ERROR(serve::RunServer(options, load, bound, stop));
  return kExitOk;
}

}  // namespace

void AddServeCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "Answers OpenAI's and Anthropic's clients over HTTP, and serves a page to chat on");
  command->footer(
      "Clients take http://ADDRESS/v1 as their base URL; a browser takes http://ADDRESS. Stops at SIGTERM or Ctrl-C: running requests may\n"
      "finish, or are kept as capsules. docs/server.md has every route.");
  const auto number = [&](const char* name, int& value, const char* type, const char* help, int min, int max, const char* group) {
    command->add_option(name, value, help)->type_name(type)->check(Bounded(min, max))->capture_default_str()->group(group);
  };
  command->add_option("--host", flags->server.host, "Address to listen on; one that other machines reach needs --api-key-file")
      ->type_name("ADDRESS")
      ->capture_default_str();
  number("--port", flags->server.port, "N", "Port to listen on; 0 takes any free one", 0, 65535, "");
  command->get_option("--port")->group("OPTIONS");
  command
      ->add_option("--api-key-file", flags->server.api_key_file,
                   "Keys that clients must show, one a line; each sees its own capsules alone")
      ->type_name("FILE");
  command->add_option("--chat-template", flags->server.chat_template, "Chat format by name instead of the model's own")
      ->check(CLI::IsMember(ChatFormatNames()))
      ->type_name("NAME");
  command->add_option("--model-name", flags->server.model_id, "What clients are told the model is called")->type_name("NAME");
  number("--drain", flags->drain_seconds, "SECONDS", "How long running requests may take to finish when the server stops", 0, 3600,
         "OPTIONS");
  command->add_flag("--log-json", flags->log_json, "Log one JSON object a line");
  command->add_flag("--quiet", flags->quiet, "Log nothing");
  command->add_option("--store", flags->store, "Keep capsules in this directory, beyond memory and restarts")
      ->type_name("DIR")
      ->group("Capsules");
  number("--store-memory", flags->store_memory_mb, "MB", "Most memory that kept capsules take; 0 for three quarters of what there is", 0,
         1 << 30, "Capsules");
  number("--store-disk", flags->store_disk_mb, "MB", "Most of the directory", 0, 1 << 30, "Capsules");
  number("--queue", flags->queue, "N", "Requests that may wait for a lane; more are answered 429", 1, 100000, "Limits");
  number("--connections", flags->connections, "N", "Connections that may be open at once; more are answered 503", 1, 10000, "Limits");
  number("--max-body", flags->body_mb, "MB", "Largest request", 1, 1024, "Limits");
  number("--max-capsule", flags->capsule_mb, "MB", "Largest capsule that is imported", 1, 1 << 20, "Limits");
  number("--max-choices", flags->server.most_choices, "N", "Most answers to one prompt (n)", 1, 256, "Limits");
  number("--stalled", flags->stall_seconds, "SECONDS", "How long a client may stop reading before it is dropped", 1, 3600, "Limits");
  AddModelFlags(*command, flags->model);
  command->callback([flags, &action] { action = [flags] { return Serve(*flags); }; });
}

}  // namespace reprise
