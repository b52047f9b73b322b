// From the directory: at once, for whoever waits, or in turn on a thread of the store's own.
//
// Memory is taken of the pools by the thread that asks, since what makes room there is its business; files are touched by the other.
#include "store/reading.h"

#include <algorithm>

#include "store/capsule_store.h"

namespace reprise {

Result<Capsule> TieredStore::Bring(Lock& lock, uint64_t id, const Capsule& base) {
  Stored* entry = entries_.at(id).get();
  const auto hold = entry->in_hand;
  const int64_t disk_id = entry->disk_id;
  const int32_t shared = base.valid() ? base.position() : 0;
  const auto start = StoreClock::now();
  lock.unlock();
  auto capsule = disk_->Load(disk_id, space_, base);
  lock.lock();
  Settle(lock, id, capsule, shared, start);
  return capsule;
}

// What a read means for what is known here. `shared` rows were in memory before it.
void TieredStore::Settle(Lock& lock, uint64_t id, const Result<Capsule>& capsule, int32_t shared, StoreClock::time_point start) {
  if (!capsule.ok()) {
    if (capsule.status().code() == StatusCode::kCorrupt) {
      ++stats_.quarantined;
      Notice("a capsule in '" + options_.directory + "' was damaged and has been set aside: " + capsule.status().message());
      Resync(lock);
    }
    return;
  }
  const StateLayout& layout = space_->layout();
  const double bytes = static_cast<double>(layout.recurrent_bytes()) +
                       static_cast<double>(capsule->position() - shared) * static_cast<double>(layout.row_bytes());
  const double rate = bytes / std::max(1e-6, std::chrono::duration<double>(StoreClock::now() - start).count());
  read_bytes_per_second_ = 0.7 * read_bytes_per_second_ + 0.3 * rate;
  const auto at = entries_.find(id);
  if (at != entries_.end() && !at->second->in_memory() && MakeRoom(*capsule, Proven(*at->second))) Install(at->second.get(), *capsule);
}

std::unique_ptr<CapsuleStore::Reading> TieredStore::Read(std::string_view name_space, uint64_t id, std::function<void()> done) {
  if (!reader_.joinable() || !space_->memory().ordinary()) return nullptr;
  Lock lock(mutex_);
  Stored* entry = EntryOf(name_space, id);
  const auto needless = [&] { return entry == nullptr || !entry->on_disk() || entry->in_memory() || ReadOf(*entry) != nullptr; };
  if (needless()) return nullptr;
  if (const auto under_way = entry->read.lock(); under_way != nullptr) {
    if (auto waiter = Waiter::At(under_way, done)) return waiter;
  }
  const Capsule base = BaseOf(*entry);
  const int32_t position = entry->position();
  lock.unlock();
  auto landing = Landing::At(*space_, position, base);  // which may ask this store to drop something
  lock.lock();
  entry = EntryOf(name_space, id);
  if (!landing.ok() || needless()) return nullptr;
  auto read = std::make_shared<DiskRead>();
  read->id = id;
  read->disk_id = entry->disk_id;
  read->landing = *std::move(landing);
  read->hold = entry->in_hand;
  auto waiter = Waiter::At(read, done);
  entry->read = read;
  reads_.push_back(std::move(read));
  read_wake_.notify_one();
  return waiter;
}

void TieredStore::ReadInTurn() {
  Lock lock(mutex_);
  while (true) {
    read_wake_.wait(lock, [&] { return stop_reading_ || !reads_.empty(); });
    if (reads_.empty()) return;
    const std::shared_ptr<DiskRead> read = reads_.front();  // where it stays until it is over, so that StopReading finds it
    const auto start = StoreClock::now();
    lock.unlock();
    Result<Capsule> capsule = Cancelled("nobody waits for the capsule any more");
    if (!read->given_up) capsule = disk_->LoadInto(read->disk_id, space_, read->landing, read->given_up);
    lock.lock();
    Settle(lock, read->id, capsule, read->landing.shared * kExtentRows, start);
    read->landing = Landing();
    read->status = capsule.status();
    if (capsule.ok()) read->capsule = *std::move(capsule);
    read->over = true;
    reads_.pop_front();
    lock.unlock();
    {
      const std::lock_guard waiting(read->mutex);
      for (const Waiter* waiter : read->waiters) waiter->Tell();
    }
    lock.lock();
  }
}

// What is being read ends at its next piece, and what waits for its turn is not read.
void TieredStore::StopReading() {
  const Lock lock(mutex_);
  stop_reading_ = true;
  for (const auto& read : reads_) read->given_up = true;
  read_wake_.notify_all();
}

}  // namespace reprise
