// llama.cpp as a contender: tools/bench_peer.py in a process of its own. One line of JSON asks, one answers.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/bench_contender.h"

extern char** environ;

namespace reprise {
namespace {

using nlohmann::json;

class LlamaCpp : public BenchContender {
 public:
  ~LlamaCpp() override {
    if (to_ != nullptr) std::fclose(to_);  // the script ends when its input does
    if (from_ != nullptr) std::fclose(from_);
    if (child_ > 0) {
      while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
  }

  Status Start(const PeerOptions& options) {
    int in[2];
    int out[2];
    if (::pipe2(in, O_CLOEXEC) != 0) return IoError(std::string("no pipe for the peer: ") + std::strerror(errno));
    if (::pipe2(out, O_CLOEXEC) != 0) {
      ::close(in[0]);
      ::close(in[1]);
      return IoError(std::string("no pipe for the peer: ") + std::strerror(errno));
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    std::string python = options.python;
    std::string script = options.script;
    char* arguments[] = {python.data(), script.data(), nullptr};
    const int error = ::posix_spawnp(&child_, python.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(in[0]);
    ::close(out[1]);
    to_ = ::fdopen(in[1], "w");
    from_ = ::fdopen(out[0], "r");
    if (error != 0) {
      child_ = -1;
      return NotFound("the peer's Python '" + python + "' cannot be started: " + std::strerror(error));
    }
    ::signal(SIGPIPE, SIG_IGN);  // a peer that is gone is an error of the next question
    REPRISE_ASSIGN_OR_RETURN(const json answer, Ask({{"op", "load"},
                                                     {"model", options.model},
                                                     {"kv", options.kv},
                                                     {"threads", options.threads},
                                                     {"context", options.context},
                                                     {"sequences", std::max(options.branches, 2)}}));
    (void)answer;
    return Ok();
  }

  Result<BenchRound> Round(const BenchPlan& plan) override {
    REPRISE_ASSIGN_OR_RETURN(const json answer, Ask({{"op", "round"},
                                                     {"prompt", plan.prompt},
                                                     {"suffix", plan.suffix},
                                                     {"dirt", plan.dirt},
                                                     {"decode", plan.decode},
                                                     {"rollback", plan.rollback}}));
    BenchRound round;
    const std::pair<const char*, double*> times[] = {
        {"prefill_ms", &round.prefill_ms}, {"ttft_cold_ms", &round.ttft_cold_ms}, {"snapshot_us", &round.snapshot_us},
        {"decode_ms", &round.decode_ms},   {"restore_us", &round.restore_us},     {"ttft_restored_ms", &round.ttft_restored_ms},
        {"suffix_ms", &round.suffix_ms},   {"fork_us", &round.fork_us},           {"rollback_ms", &round.rollback_ms},
    };
    for (const auto& [name, value] : times) {
      if (!answer.contains(name) || !answer[name].is_number()) return Corrupt(std::string("the peer's answer lacks ") + name);
      *value = answer[name].get<double>();
    }
    return round;
  }

  Result<double> Branches(int branches, int steps) override {
    REPRISE_ASSIGN_OR_RETURN(const json answer,
                             Ask({{"op", "branches"}, {"branches", branches}, {"warm_up", kBranchWarmUp}, {"steps", steps}}));
    if (!answer.contains("ms") || !answer["ms"].is_number()) return Corrupt("the peer's answer lacks ms");
    return answer["ms"].get<double>();
  }

 private:
  Result<json> Ask(const json& question) {
    const std::string line = question.dump() + "\n";
    if (std::fwrite(line.data(), 1, line.size(), to_) != line.size() || std::fflush(to_) != 0) return IoError("the peer has gone away");
    std::string text;
    char buffer[4096];
    while (std::fgets(buffer, sizeof(buffer), from_) != nullptr) {
      text += buffer;
      if (!text.empty() && text.back() == '\n') break;
    }
    const json answer = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!answer.is_object()) return IoError("the peer has gone away without an answer");
    if (answer.contains("missing")) {
      return NotFound(
          "llama-cpp-python is not installed for the peer's Python; 'tools/install_peer.sh' puts it into the project's virtual "
          "environment");
    }
    if (answer.contains("error") && answer["error"].is_string())
      return Unsupported("the peer says: " + answer["error"].get<std::string>().substr(0, 300));
    return answer;
  }

  pid_t child_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<BenchContender>> StartLlamaCpp(const PeerOptions& options) {
  auto contender = std::make_unique<LlamaCpp>();
  REPRISE_RETURN_IF_ERROR(contender->Start(options));
  return std::unique_ptr<BenchContender>(std::move(contender));
}

}  // namespace reprise
