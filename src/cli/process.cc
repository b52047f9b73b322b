#include "cli/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "cli/terminal.h"

extern char** environ;

namespace reprise {
namespace {

constexpr size_t kMostErrors = 64 << 10;

// What the program is started with: no input, output dropped, errors into `errors_to`.
class FileActions {
 public:
  explicit FileActions(int errors_to) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions_, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, errors_to, STDERR_FILENO);
  }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  ~FileActions() { posix_spawn_file_actions_destroy(&actions_); }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

// Reads until the other end is closed; an interrupt is passed on once.
void Drain(int fd, pid_t child, const std::atomic<bool>& interrupted, std::string& errors) {
  bool told = false;
  char buffer[4096];
  for (;;) {
    const ssize_t count = ::read(fd, buffer, sizeof(buffer));
    if (count > 0) {
      errors.append(buffer, static_cast<size_t>(count));
      if (errors.size() > kMostErrors) errors.erase(0, errors.size() - kMostErrors);
    } else if (count == 0 || errno != EINTR) {
      return;
    }
    if (interrupted.load(std::memory_order_relaxed) && !told) {
      ::kill(child, SIGTERM);
      told = true;
    }
  }
}

}  // namespace

Result<ProcessResult> RunProcess(const std::vector<std::string>& arguments) {
  if (arguments.empty()) return InvalidArgument("no program was named");
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) return IoError(std::string("cannot make a pipe: ") + std::strerror(errno));
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const std::atomic<bool>& interrupted = CatchInterrupt();
  pid_t child = 0;
  const FileActions actions(pipe[1]);
  const int error = ::posix_spawnp(&child, argv[0], actions.get(), nullptr, argv.data(), environ);
  ::close(pipe[1]);
  if (error != 0) {
    ::close(pipe[0]);
    const std::string message = "cannot start '" + arguments[0] + "': " + std::strerror(error);
    return error == ENOENT ? NotFound(message) : IoError(message);
  }
  ProcessResult result;
  Drain(pipe[0], child, interrupted, result.errors);
  ::close(pipe[0]);
  int state = 0;
  while (::waitpid(child, &state, 0) < 0) {
    if (errno != EINTR) return IoError("cannot wait for '" + arguments[0] + "': " + std::strerror(errno));
  }
  if (interrupted.load(std::memory_order_relaxed)) return Cancelled("stopped on request");
  result.exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  return result;
}

}  // namespace reprise
