#include "gate.h"

#include <utility>

#include "errors.h"

namespace reprise::python {

Gate::Inside::Inside(Gate& gate) : gate_(gate) {
  if (gate.inside_.load() == std::this_thread::get_id()) Refuse("a callback cannot use the model whose call it is called from");
  released_.emplace();
  gate.mutex_.lock();
  gate.inside_.store(std::this_thread::get_id());
  gate.FreeLetGo();
}

Gate::Inside::~Inside() {
  gate_.FreeLetGo();
  gate_.inside_.store({});
  gate_.mutex_.unlock();
}

void Gate::LetGo(Session session) {
  {
    const std::lock_guard lock(let_go_mutex_);
    let_go_.push_back(std::move(session));
  }
  if (inside_.load() == std::this_thread::get_id() || !mutex_.try_lock()) return;
  FreeLetGo();
  mutex_.unlock();
}

void Gate::FreeLetGo() {
  std::vector<Session> sessions;
  const std::lock_guard lock(let_go_mutex_);
  sessions.swap(let_go_);
}

}  // namespace reprise::python
