// Scheduler::Line: one lane at work. Of the engine thread alone.
#pragma once

#include <memory>
#include <string>

#include "serve/scheduler.h"
#include "session/engine.h"

namespace reprise::serve {

struct Scheduler::Line {
  Line(std::shared_ptr<Job> of, int number, Session own) : job(std::move(of)), choice(number), session(std::move(own)) {}

  // What goes with a capsule taken here. The token that was chosen last is not among the committed ones, and whoever goes on from the text needs
  // it.
  std::string Metadata() const;

  std::shared_ptr<Job> job;
  int choice;
  Session session;
  int generated = 0;
  bool failed = false;  // its request was told so
  std::string tail;     // the last bytes generated, stop strings included
  Clock::time_point started = Clock::now();
  Clock::time_point prompt_read;
  Clock::time_point last_token;
};

}  // namespace reprise::serve
