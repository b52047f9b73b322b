// Starts a program and keeps what it printed. For tests: what cannot be started is a test failure.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace reprise {

struct Ran {
  int exit_code = -1;  // 128 + the signal for one that was killed
  std::string out;
  std::string err;
};

// A program that is running. Its destructor ends it.
class Program {
 public:
  // arguments[0] is the program. `input` is what it reads from its standard input. `directory` is for files that hold its outputs.
  Program(const std::vector<std::string>& arguments, const std::string& input, const std::string& directory);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program();

  std::string OutputSoFar() const;
  void Signal(int signal);
  Ran Wait();

 private:
  std::string files_;  // the common beginning of their names
  pid_t pid_ = -1;
};

}  // namespace reprise
