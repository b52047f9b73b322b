#include "serve/job.h"

namespace reprise::serve {

bool EventQueue::Push(Event event) {
  const bool last = event.kind == Event::Kind::kEnd || event.kind == Event::Kind::kError;
  {
    const std::lock_guard lock(mutex_);
    if (events_.size() >= kMost && !last) return false;
    events_.push_back(std::move(event));
  }
  filled_.notify_one();
  return true;
}

std::optional<Event> EventQueue::Pop(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  if (!filled_.wait_until(lock, deadline, [&] { return !events_.empty(); })) return std::nullopt;
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace reprise::serve
