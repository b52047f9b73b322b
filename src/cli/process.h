// Other programs, started directly: an argument is an argument, and no shell reads it.
#pragma once

#include <string>
#include <vector>

#include "reprise/status.h"

namespace reprise {

struct ProcessResult {
  int exit_code = 0;   // 128 + the signal for one that was killed
  std::string errors;  // the last 64 KiB of what it wrote to stderr
};

// Runs arguments[0] (found in PATH when it has no slash), waits for it, and drops what it writes to stdout. kNotFound when there is no such
// program; kCancelled when SIGINT arrived meanwhile (the program has been ended and waited for).
Result<ProcessResult> RunProcess(const std::vector<std::string>& arguments);

}  // namespace reprise
