#include "program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <sstream>

extern char** environ;

namespace reprise {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

// Outputs go to files and not to pipes: a program that prints much never waits for a test that does not read.
Program::Program(const std::vector<std::string>& arguments, const std::string& input, const std::string& directory) {
  static std::atomic<int> count{0};
  files_ = directory + "/program_" + std::to_string(count++);
  std::ofstream(files_ + ".in", std::ios::binary) << input;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, (files_ + ".in").c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, (files_ + ".out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, (files_ + ".err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int error = ::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) pid_ = -1;
  EXPECT_EQ(error, 0) << "cannot start " << arguments[0];
}

Program::~Program() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  (void)Wait();
}

std::string Program::OutputSoFar() const { return ReadAll(files_ + ".out"); }

void Program::Signal(int signal) {
  if (pid_ > 0) ::kill(pid_, signal);
}

Ran Program::Wait() {
  Ran ran;
  if (pid_ < 0) return ran;
  int state = 0;
  while (::waitpid(pid_, &state, 0) < 0) {
    if (errno != EINTR) return ran;
  }
  pid_ = -1;
  ran.exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  ran.out = ReadAll(files_ + ".out");
  ran.err = ReadAll(files_ + ".err");
  return ran;
}

}  // namespace reprise
