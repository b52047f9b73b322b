// The engine thread's loop: who gets a lane, and which chunk of which prompt is next. What happens to a line afterwards: scheduler_lines.cc.
#include "serve/scheduler.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "serve/scheduler_line.h"
#include "session/import.h"

namespace reprise::serve {
namespace {

// How long a client that went away may go unnoticed while nothing else happens.
constexpr std::chrono::milliseconds kLook{20};

}  // namespace

Scheduler::Scheduler(Model model, const SchedulerOptions& options, Metrics& metrics)
    : model_(std::move(model)),
      options_(options),
      metrics_(metrics),
      // One lane is left for what is done with capsules while all others are at work.
      lanes_(std::max(1, model_.info().lanes - 1)),
      most_rows_(model_.engine().max_rows()),
      thread_([this] { Loop(); }) {}

Scheduler::~Scheduler() { Stop(Clock::now()); }

Status Scheduler::Submit(std::shared_ptr<Job> job) {
  job->submitted = Clock::now();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Cancelled("the server is stopping");
    if (static_cast<int>(waiting_.size()) >= options_.queue) {
      ++metrics_.rejected;
      return Exhausted("the server is busy: " + std::to_string(waiting_.size()) + " requests are waiting already");
    }
    waiting_.push_back(std::move(job));
    news_ = true;
    metrics_.waiting = static_cast<int>(waiting_.size());
  }
  changed_.notify_all();
  return Ok();
}

bool Scheduler::Run(std::function<void()> task) {
  std::mutex done_mutex;
  std::condition_variable done_changed;
  bool done = false;
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return false;
    tasks_.push_back([&] {
      task();
      const std::lock_guard done_lock(done_mutex);
      done = true;
      done_changed.notify_all();
    });
    news_ = true;
  }
  changed_.notify_all();
  std::unique_lock lock(done_mutex);
  done_changed.wait(lock, [&] { return done; });
  return true;
}

bool Scheduler::Stopping() const {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

int Scheduler::waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(waiting_.size());
}

void Scheduler::Stop(Clock::time_point deadline) {
  {
    const std::lock_guard lock(mutex_);
    stop_at_ = stopping_ ? std::min(stop_at_, deadline) : deadline;
    stopping_ = news_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Scheduler::TakeTasks(std::unique_lock<std::mutex>& lock) {
  while (!tasks_.empty()) {
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
}

void Scheduler::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto ready = [&] { return news_ || !Idle(); };
    if (waiting_.empty() && reading_.empty() && !stopping_) {
      changed_.wait(lock, ready);
    } else {
      changed_.wait_for(lock, kLook, ready);
    }
    news_ = false;
    TakeTasks(lock);
    if (stopping_) {
      for (const auto& job : waiting_) job->events.Push(Event::Error(Cancelled("the server is stopping")));
      waiting_.clear();
      if ((Idle() && reading_.empty()) || Clock::now() >= stop_at_) break;
    }
    lock.unlock();
    DropCancelled();
    TakeRead();
    Admit();
    DecodeStep();
    PrefillSome();
    metrics_.lines = static_cast<int>(prefilling_.size() + decoding_.size());
    metrics_.reading = static_cast<int>(reading_.size());
    lock.lock();
  }
  lock.unlock();
  EndAll();
  ended_choices_.clear();
  lock.lock();
  TakeTasks(lock);
  ended_ = true;
}

// What stops here is kept: whoever comes back for it computes nothing twice.
void Scheduler::DropCancelled() {
  {
    const std::lock_guard lock(mutex_);
    metrics_.cancelled += std::erase_if(waiting_, [](const auto& job) { return job->cancelled.load(); });
    metrics_.waiting = static_cast<int>(waiting_.size());
  }
  std::erase_if(forks_, [](const Fork& fork) { return fork.job->cancelled.load(); });
  const auto no_longer = [&](const Awaiting& awaiting) {
    if (!awaiting.job->cancelled) return false;
    ++metrics_.cancelled;
    awaiting.job->events.Push(Event::Error(Cancelled("the request was cancelled")));
    return true;
  };
  if (std::erase_if(reading_, no_longer) > 0) DiskIsFree();
  const auto drop = [&](const std::unique_ptr<Line>& line) {
    if (!line->job->cancelled) return false;
    if (!line->failed) {
      ++metrics_.cancelled;
      if (line->session.prefilling()) {
        (void)line->session.CancelPrefill();  // a full store means less reuse, and no one is left to be told
      } else {
        SaveEnd(*line, Keep::kStop);
      }
      line->job->events.Push(Event::Error(Cancelled("the request was cancelled")));
    }
    return true;
  };
  std::erase_if(prefilling_, drop);
  std::erase_if(decoding_, drop);
}

int Scheduler::LinesOf(std::string_view name_space) const {
  const auto of = [&](const std::unique_ptr<Line>& line) { return line->job->name_space == name_space; };
  const auto awaits = [&](const Awaiting& awaiting) { return awaiting.job->name_space == name_space; };
  return static_cast<int>(std::count_if(prefilling_.begin(), prefilling_.end(), of) +
                          std::count_if(decoding_.begin(), decoding_.end(), of) + std::count_if(reading_.begin(), reading_.end(), awaits));
}

void Scheduler::Admit() {
  while (LanesTaken() < lanes_) {
    if (!forks_.empty()) {
      Fork fork = std::move(forks_.front());
      forks_.pop_front();
      StartFork(fork);
      continue;
    }
    std::shared_ptr<Job> next = NextWaiting();
    if (next == nullptr) return;
    Readings none;
    if (!AwaitDisk(next, none)) Start(std::move(next));
  }
}

// The oldest of the namespace that has the fewest lines, of those for which the disk need not be free first.
std::shared_ptr<Job> Scheduler::NextWaiting() {
  const std::lock_guard lock(mutex_);
  int fewest = std::numeric_limits<int>::max();
  auto best = waiting_.end();
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    if ((*it)->disk_is_busy) continue;
    if (const int lines = LinesOf((*it)->name_space); lines < fewest) {
      fewest = lines;
      best = it;
    }
  }
  if (best == waiting_.end()) return nullptr;
  std::shared_ptr<Job> next = std::move(*best);
  waiting_.erase(best);
  metrics_.waiting = static_cast<int>(waiting_.size());
  return next;
}

// False when the request waits for no file. Otherwise what it goes on from is being read, or it is in the queue again.
bool Scheduler::AwaitDisk(const std::shared_ptr<Job>& job, Readings& readings) {
  CapsuleStore* store = model_.store();
  if (store == nullptr) return false;
  uint64_t id = 0;
  if (!job->resume) {
    id = store->MustRead(job->name_space, job->prompt);
  } else if (store->MustRead(job->name_space, *job->resume)) {
    id = *job->resume;
  }
  if (id == 0) return false;
  if (static_cast<int>(reading_.size()) >= std::max(1, lanes_ / 2)) {
    job->disk_is_busy = true;
    const std::lock_guard lock(mutex_);
    const auto later = [&](const std::shared_ptr<Job>& other) { return other->submitted > job->submitted; };
    waiting_.insert(std::find_if(waiting_.begin(), waiting_.end(), later), job);
    metrics_.waiting = static_cast<int>(waiting_.size());
    return true;
  }
  auto reading = store->Read(job->name_space, id, [this] {
    {
      const std::lock_guard lock(mutex_);
      news_ = true;
    }
    changed_.notify_all();
  });
  if (reading == nullptr) return false;
  if (job->admitted == Clock::time_point()) job->admitted = Clock::now();
  readings.push_back(std::move(reading));
  reading_.push_back({job, std::move(readings)});
  return true;
}

// Starts the requests whose capsule has been read. One that could not be read may have another below it.
void Scheduler::TakeRead() {
  for (size_t i = 0; i < reading_.size();) {
    if (!reading_[i].readings.back()->over()) {
      ++i;
      continue;
    }
    Awaiting read = std::move(reading_[i]);
    reading_.erase(reading_.begin() + static_cast<ptrdiff_t>(i));
    DiskIsFree();
    // Where nothing more has to be read, it starts while what was read is held.
    if (!AwaitDisk(read.job, read.readings)) Start(read.job);
  }
}

void Scheduler::DiskIsFree() {
  const std::lock_guard lock(mutex_);
  for (const auto& job : waiting_) job->disk_is_busy = false;
}

int Scheduler::ChunkTokens() const {
  if (decoding_.empty()) return most_rows_;
  return std::clamp(static_cast<int>(chunk_tokens_), 8, most_rows_);
}

void Scheduler::PrefillSome() {
  if (prefilling_.empty()) return;
  std::unique_ptr<Line> line = std::move(prefilling_.front());
  prefilling_.pop_front();
  const int before = line->session.position();
  const int wanted = ChunkTokens();
  const Clock::time_point start = Clock::now();
  const auto done = line->session.ContinuePrefill(wanted);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const int computed = line->session.position() - before;
  metrics_.computed_tokens += static_cast<uint64_t>(std::max(0, computed));
  if (!decoding_.empty() && computed == wanted) {
    const double target = std::max(std::chrono::duration<double>(options_.least_chunk_time).count(), step_seconds_);
    chunk_tokens_ = std::clamp(chunk_tokens_ * std::clamp(target / std::max(seconds, 1e-6), 0.5, 2.0), 8.0, 1.0 * most_rows_);
  }
  if (!done.ok()) return Fail(*line, done.status());
  if (*done) return PromptRead(std::move(line));
  if (line->job->progress) {
    // Worth a line to whoever asked for it, and not worth losing the request over.
    Event event = Event::Of(Event::Kind::kProgress);
    event.done = line->session.position();
    event.total = static_cast<int>(line->job->prompt.size());
    event.prefill = line->job->prefill;
    (void)line->job->events.Push(std::move(event));
  }
  prefilling_.push_back(std::move(line));
}

std::vector<Scheduler::LineView> Scheduler::Lines() {
  std::vector<LineView> views;
  Run([&] {
    const auto view = [&](const Line& line, bool prefilling) {
      views.push_back({line.job->id, line.job->name_space, line.choice, prefilling, static_cast<int>(line.job->prompt.size()),
                       line.job->prefill.reused, line.session.position(), line.generated});
    };
    for (const auto& line : prefilling_) view(*line, true);
    for (const auto& line : decoding_) view(*line, false);
  });
  return views;
}

Result<Capsule> Scheduler::Get(std::string_view name_space, uint64_t id) {
  Result<Capsule> capsule = Cancelled("the server is stopping");
  std::mutex over_mutex;
  std::condition_variable over;
  std::unique_ptr<CapsuleStore::Reading> reading;
  const auto tell = [&] {
    const std::lock_guard lock(over_mutex);
    over.notify_all();
  };
  if (!Run([&] { reading = model_.store()->Read(name_space, id, tell); })) return capsule;
  if (reading != nullptr) {
    std::unique_lock lock(over_mutex);
    while (!reading->over()) {
      if (Stopping()) return capsule;
      over.wait_for(lock, kLook);
    }
  }
  Run([&] { capsule = model_.store()->Get(name_space, id); });
  return capsule;
}

Result<uint64_t> Scheduler::Import(std::string_view name_space, std::span<const std::byte> bytes, const CapsuleStore::PutOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(CapsuleImport import, CapsuleImport::Check(model_.engine(), bytes));
  Status room = Cancelled("the server is stopping");
  Capsule capsule;
  Run([&] {
    room = import.TakeMemory();
    if (room.ok() && !import.fills_anywhere()) capsule = import.Fill();
  });
  REPRISE_RETURN_IF_ERROR(room);
  if (import.fills_anywhere()) capsule = import.Fill();
  CapsuleStore::PutOptions with_metadata = options;
  with_metadata.metadata = nlohmann::json{{"imported", true}, {"pending", import.pending()}}.dump();
  return model_.store()->Put(name_space, import.tokens(), capsule, with_metadata);
}

Result<uint64_t> Scheduler::Take(std::string_view name_space, std::string_view job, int choice, const CapsuleStore::PutOptions& options) {
  Result<uint64_t> taken = NotFound("no running or lately finished request has the id '" + std::string(job) + "' and that choice");
  Run([&] {
    const auto wanted = [&](const std::unique_ptr<Line>& line) {
      return line->job->id == job && line->job->name_space == name_space && line->choice == choice;
    };
    const auto take = [&](const std::unique_ptr<Line>& line) {
      if (!wanted(line)) return;
      CapsuleStore::PutOptions with_metadata = options;
      with_metadata.metadata = line->Metadata();
      taken = line->session.Save(with_metadata);
    };
    std::for_each(prefilling_.begin(), prefilling_.end(), take);
    std::for_each(decoding_.begin(), decoding_.end(), take);
    if (taken.ok()) return;
    for (const Ended& end : ended_choices_) {
      if (end.job != job || end.name_space != name_space || end.choice != choice || model_.store() == nullptr) continue;
      CapsuleStore::PutOptions with_metadata = options;
      with_metadata.metadata = end.metadata;
      taken = model_.store()->Put(name_space, end.tokens, end.capsule, with_metadata);
    }
  });
  return taken;
}

}  // namespace reprise::serve
