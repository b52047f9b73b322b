// DiskRead: one capsule on its way from the directory into memory, shared by all who wait for it.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "reprise/store.h"
#include "store/disk_tier.h"

namespace reprise {

class Waiter;

struct DiskRead {
  uint64_t id = 0;
  int64_t disk_id = 0;
  Landing landing;
  std::shared_ptr<const char> hold;  // on the entry, which is not evicted meanwhile
  std::atomic<bool> given_up{false};

  // Written once, under the store's lock.
  std::atomic<bool> over{false};
  Status status;
  Capsule capsule;  // valid() when it is over and well

  std::mutex mutex;  // guards what follows; taken after the store's lock, or alone
  std::vector<Waiter*> waiters;
};

class Waiter final : public CapsuleStore::Reading {
 public:
  // Null when the read has been given up: then another has to be begun.
  static std::unique_ptr<Waiter> At(const std::shared_ptr<DiskRead>& read, const std::function<void()>& done) {
    const std::lock_guard lock(read->mutex);
    if (read->given_up) return nullptr;
    std::unique_ptr<Waiter> waiter(new Waiter(read, done));
    read->waiters.push_back(waiter.get());
    return waiter;
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter() override {
    const std::lock_guard lock(read_->mutex);
    std::erase(read_->waiters, this);
    if (read_->waiters.empty()) read_->given_up = true;
  }
  bool over() const override { return read_->over; }
  void Tell() const { done_(); }

 private:
  Waiter(std::shared_ptr<DiskRead> read, std::function<void()> done) : read_(std::move(read)), done_(std::move(done)) {}
  const std::shared_ptr<DiskRead> read_;
  const std::function<void()> done_;
};

}  // namespace reprise
