// Scheduler: the thread that owns the model, and what it does next.
//
// A turn of its loop: take what was submitted, give free lanes to what waits, decode one token for every live line as one batch, and read one
// chunk of one prompt. A chunk is sized to take about as long as a decode step does, so that a long prompt slows running streams by no more
// than about half; with no stream running a chunk is as long as a step can be. Prompts that are read at the same time take turns.
//
// A request that goes on from a capsule on disk waits until a thread of the store's has read it, while everybody else goes on: a lane is kept free for it,
// since what is read takes the memory of one. At most half of the lanes are kept so; whoever comes later and needs the disk too waits in the queue, and
// lets others pass.
//
// A line is one lane at work. Choices beyond the first (n > 1) fork the prompt's capsule and wait for lanes of their own, ahead of new
// requests: so no request holds a lane while it waits for another. Of requests that wait, the next is one of the namespace that has the fewest
// lines at work, the oldest first.
//
// All public calls may come from any thread; Run's function runs on the engine thread between two turns.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "reprise/model.h"
#include "reprise/session.h"
#include "serve/job.h"
#include "serve/metrics.h"

namespace reprise::serve {

struct SchedulerOptions {
  int queue = 64;                                  // requests that may wait
  std::chrono::milliseconds least_chunk_time{10};  // a chunk of a prompt may always take this long
};

class Scheduler {
 public:
  Scheduler(Model model, const SchedulerOptions& options, Metrics& metrics);
  ~Scheduler();

  // kExhausted when the queue is full, kCancelled while stopping. Afterwards the job's events tell of it, to a last one.
  Status Submit(std::shared_ptr<Job> job);

  // `task` on the engine thread; returns when it is done. False, and it never runs, once the engine has stopped.
  bool Run(std::function<void()> task);

  // What one line does, for /slots.
  struct LineView {
    std::string job, name_space;
    int choice = 0;
    bool prefilling = false;
    int prompt = 0, reused = 0, position = 0, generated = 0;
  };
  std::vector<LineView> Lines();
  int waiting() const;

  // A capsule of a running or lately finished request. kNotFound.
  Result<uint64_t> Take(std::string_view name_space, std::string_view job, int choice, const CapsuleStore::PutOptions& options);

  // A capsule of the store, read from disk if need be, which nobody but the caller waits for. kCancelled while stopping.
  Result<Capsule> Get(std::string_view name_space, uint64_t id);

  // Keeps a capsule that came as bytes, which are not to be trusted: verified, copied and stored on the calling thread, while the engine thread only
  // makes room for it (and, where the model's memory is a device's own, copies). `options.metadata` is set here. 0 when the store has no room.
  // kCancelled while stopping.
  Result<uint64_t> Import(std::string_view name_space, std::span<const std::byte> bytes, const CapsuleStore::PutOptions& options);

  // Takes nothing new. What runs may finish until `deadline`; then it is kept as capsules and ended. Returns when the thread has ended.
  void Stop(Clock::time_point deadline);

  const Model& model() const { return model_; }

 private:
  struct Line;
  struct Fork {
    std::shared_ptr<Job> job;
    int choice;
    Capsule capsule;
  };

  // A request that waits for the disk, and what was read for it: the last is on its way, those before it could not be read.
  using Readings = std::vector<std::unique_ptr<CapsuleStore::Reading>>;
  struct Awaiting {
    std::shared_ptr<Job> job;
    Readings readings;
  };

  void Loop();
  void TakeTasks(std::unique_lock<std::mutex>& lock);
  void DropCancelled();
  void TakeRead();
  void Admit();
  std::shared_ptr<Job> NextWaiting();
  bool AwaitDisk(const std::shared_ptr<Job>& job, Readings& readings);
  void DiskIsFree();
  bool Stopping() const;
  void Start(std::shared_ptr<Job> job);
  void StartFork(const Fork& fork);
  void PrefillSome();
  void PromptRead(std::unique_ptr<Line> line);
  void DecodeStep();
  void DecodeOneByOne(std::span<Session*> sessions);
  void Deliver(Line& line, const Token& token, int entry);  // of the engine's logits
  void Finish(Line& line, FinishReason reason, std::string text);
  void Fail(Line& line, const Status& status);
  void EndChoice(Job& job);
  void SaveEnd(Line& line, Keep keep);
  int ChunkTokens() const;
  int LinesOf(std::string_view name_space) const;
  int LanesTaken() const { return static_cast<int>(prefilling_.size() + decoding_.size() + reading_.size()); }
  bool Idle() const { return prefilling_.empty() && decoding_.empty() && forks_.empty(); }
  void EndAll();

  Model model_;
  const SchedulerOptions options_;
  Metrics& metrics_;
  const int lanes_;
  const int most_rows_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool news_ = false;                         // guarded: something came that an idle loop has to look at
  std::deque<std::shared_ptr<Job>> waiting_;  // guarded
  std::deque<std::function<void()>> tasks_;   // guarded
  bool stopping_ = false;                     // guarded
  bool ended_ = false;                        // guarded
  Clock::time_point stop_at_;                 // guarded

  // Of the engine thread alone.
  std::deque<std::unique_ptr<Line>> prefilling_;  // the next chunk is the front's
  std::vector<std::unique_ptr<Line>> decoding_;
  std::deque<Fork> forks_;
  std::vector<Awaiting> reading_;
  // The latest ends, by reference: Take may still be asked for them.
  struct Ended {
    std::string job, name_space;
    int choice;
    std::vector<int32_t> tokens;
    Capsule capsule;
    std::string metadata;
  };
  std::deque<Ended> ended_choices_;
  double chunk_tokens_ = 32;     // what a chunk holds while streams run
  double step_seconds_ = 0.005;  // of a decode step, lately
  Clock::time_point last_step_;

  std::thread thread_;
};

// The natural logarithm of each token's probability, of the one chosen and of the `top` most likely.
Logprobs LogprobsOf(std::span<const float> logits, int32_t chosen, int top);

}  // namespace reprise::serve
