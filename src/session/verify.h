// Verify: the six promises of docs/design.md, put to the test on a loaded model, each with its evidence.
//
// The lines of the subject are reset and used freely; nothing else is changed. One thread, as for the model itself.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "session/verify_subject.h"

namespace reprise {

struct PromiseReport {
  int id = 0;
  std::string name;
  bool passed = false;
  std::string evidence;  // one or two sentences with numbers; when it failed, what was seen first
};

struct VerifyReport {
  bool passed = false;
  std::vector<PromiseReport> promises;  // 1 to 6
};

struct VerifyOptions {
  bool quick = false;  // shorter contexts, fewer cuts, and one reload in place of four: for large models
  std::function<void(int id, std::string_view name)> started = {};
  std::function<void(double fraction)> progress = {};  // of the promise under way
  std::function<void(const PromiseReport&)> finished = {};
};

// Needs a subject with two lines or more, a context of 256 positions and room for a few capsules; the first promise says so otherwise. An
// error that a verb returns where it should not fails the promise, with the error as evidence.
VerifyReport Verify(VerifySubject& subject, const VerifyOptions& options = {});

}  // namespace reprise
