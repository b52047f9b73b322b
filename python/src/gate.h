// Gate: one thread at a time on a model and all its sessions, as model.h wants it, while Python's other threads go on.
//
// Whoever enters lets go of the interpreter first and waits without it, so that a long prefill on one thread stops nobody but those who want the
// same model. Within, the interpreter may be taken for a moment (a callback); a callback that uses the model again is refused, since it would wait for
// itself.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "reprise/session.h"

namespace reprise::python {

class Gate {
 public:
  template <class Work>
  auto Run(Work&& work) {
    const Inside inside(*this);
    return work();
  }

  // A session that nobody has any more. Garbage is collected on any thread and must not wait: where the model is in use, whoever leaves it frees the
  // session.
  void LetGo(Session session);

 private:
  class Inside {
   public:
    explicit Inside(Gate& gate);
    ~Inside();

   private:
    Gate& gate_;
    std::optional<nanobind::gil_scoped_release> released_;
  };
  void FreeLetGo();

  std::mutex mutex_;
  std::atomic<std::thread::id> inside_ = {};
  std::mutex let_go_mutex_;
  std::vector<Session> let_go_;
};

}  // namespace reprise::python
