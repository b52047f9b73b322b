// Capsules that come as bytes, beside streams that run: however long their bytes take to read, the engine thread does not wait for them.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <vector>

#include "serve/scheduler.h"
#include "session/engine.h"

namespace reprise::serve {
namespace {

constexpr char kTiny[] = "tests/data/goldens/qwen35_equal.gguf";

// Bytes before which whoever reads them stands still while they are closed: a page fault waits in its handler. One at a time.
class StandingBytes {
 public:
  explicit StandingBytes(std::span<const std::byte> from) : size_(from.size()) {
    EXPECT_EQ(::pipe(standing_), 0);
    EXPECT_EQ(::pipe(opened_), 0);
    memory_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory_, MAP_FAILED);
    std::memcpy(memory_, from.data(), size_);
    the_ = this;
    struct sigaction action {};
    action.sa_sigaction = OnFault;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGSEGV, &action, &before_);
  }
  ~StandingBytes() {
    ::sigaction(SIGSEGV, &before_, nullptr);
    ::munmap(memory_, size_);
    for (const int end : {standing_[0], standing_[1], opened_[0], opened_[1]}) ::close(end);
  }
  StandingBytes(const StandingBytes&) = delete;
  StandingBytes& operator=(const StandingBytes&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(memory_), size_}; }
  void Close() { ::mprotect(memory_, size_, PROT_NONE); }
  // Returns once a reader stands before them.
  void AwaitReader() { Take(standing_[0]); }
  void Open() { Give(opened_[1]); }

 private:
  static void Give(int end) {
    const char one = 1;
    if (::write(end, &one, 1) != 1) std::abort();
  }
  static void Take(int end) {
    char one;
    if (::read(end, &one, 1) != 1) std::abort();
  }
  static void OnFault(int, siginfo_t* info, void*) {
    const auto* at = static_cast<const std::byte*>(info->si_addr);
    const auto* first = static_cast<const std::byte*>(the_->memory_);
    if (at < first || at >= first + the_->size_) std::abort();
    Give(the_->standing_[1]);
    Take(the_->opened_[0]);
    ::mprotect(the_->memory_, the_->size_, PROT_READ);
  }

  static inline StandingBytes* the_ = nullptr;
  size_t size_;
  void* memory_ = nullptr;
  int standing_[2], opened_[2];
  struct sigaction before_ {};
};

class ImportTest : public testing::Test {
 protected:
  ImportTest() {
    auto model = Model::Load(kTiny, {.threads = 1, .context = 1024, .lanes = 4, .capsules = 32, .chunk = 32, .store = StoreOptions{}});
    EXPECT_TRUE(model.ok()) << model.status().message();
    scheduler_.emplace(*std::move(model), SchedulerOptions(), metrics_);
    const auto job = Ask(300, 0, /*keep=*/true);
    const auto capsule = scheduler_->Get("", job->capsules.at(0));
    EXPECT_TRUE(capsule.ok()) << capsule.status().message();
    capsule_ = *capsule->Serialize();
  }

  CapsuleStore& store() { return *scheduler_->model().store(); }
  StateSpace& space() { return scheduler_->model().engine().space(); }
  // Reads a prompt and chooses tokens; returns when that has been done.
  std::shared_ptr<Job> Ask(int prompt, int tokens, bool keep = false) {
    auto job = std::make_shared<Job>();
    job->id = "job";
    for (int i = 0; i < prompt; ++i) job->prompt.push_back((i * i * 3 + i * 11 + prompt * 17) % 288);
    job->max_tokens = tokens;
    job->keep = keep;
    job->capsules.resize(1);
    EXPECT_TRUE(scheduler_->Submit(job).ok());
    while (true) {
      const auto event = job->events.Pop(Clock::now() + std::chrono::minutes(10));
      EXPECT_TRUE(event && event->kind != Event::Kind::kError) << "it did not end";
      if (!event || event->kind == Event::Kind::kEnd) return job;
    }
  }

  Metrics metrics_;
  std::optional<Scheduler> scheduler_;
  std::vector<std::byte> capsule_;
};

TEST_F(ImportTest, StreamsGoOnWhileItIsVerifiedAndCopied) {
  StandingBytes standing(capsule_);
  standing.Close();
  auto imported =
      std::async(std::launch::async, [&] { return scheduler_->Import("other", standing.bytes(), {.name = "brought", .pinned = true}); });
  standing.AwaitReader();  // it is being verified
  EXPECT_EQ(Ask(100, 20)->predicted, 20);
  EXPECT_TRUE(store().List("other").empty());

  // From now on there is no room, until the import asks for it; and from then on its bytes stand still again.
  std::vector<Ref<StateBlock>> all;
  scheduler_->Run([&] {
    space().SetEvictor([] { return false; });
    for (auto block = space().AcquireBlock(Space::kDevice); block.ok(); block = space().AcquireBlock(Space::kDevice)) all.push_back(*block);
    space().SetEvictor([&] {
      if (all.empty()) return false;
      standing.Close();
      all.clear();
      return true;
    });
  });
  standing.Open();
  standing.AwaitReader();  // it is being copied
  EXPECT_EQ(Ask(120, 20)->predicted, 20);
  EXPECT_TRUE(store().List("other").empty());
  standing.Open();

  const auto id = imported.get();
  ASSERT_TRUE(id.ok()) << id.status().message();
  const auto entry = store().Show("other", *id);
  ASSERT_TRUE(entry.ok());
  EXPECT_EQ(entry->name, "brought");
  EXPECT_TRUE(entry->pinned);
  EXPECT_NE(entry->metadata.find("\"pending\""), std::string::npos);
  const auto capsule = scheduler_->Get("other", *id);
  ASSERT_TRUE(capsule.ok());
  EXPECT_EQ(*capsule->Serialize(), capsule_);
  scheduler_->Run([&] { space().SetEvictor({}); });  // what it refers to ends before the engine does
}

TEST_F(ImportTest, WhatIsDamagedIsRefusedWithoutTheEngineAndChangesNothing) {
  const auto usage = space().usage();
  const auto entries = store().List("").size();
  std::promise<void> standing, released;
  auto task = std::async(std::launch::async, [&] {
    return scheduler_->Run([&] {
      standing.set_value();
      released.get_future().wait();
    });
  });
  standing.get_future().wait();  // from here on the engine thread does nothing
  for (const size_t at : {size_t{40}, capsule_.size() / 2, capsule_.size() - 65}) {
    std::vector<std::byte> damaged = capsule_;
    damaged[at] ^= std::byte{1};
    EXPECT_FALSE(scheduler_->Import("", damaged, {}).ok()) << at;
  }
  EXPECT_EQ(scheduler_->Import("", std::span(capsule_).first(capsule_.size() - 1), {}).status().code(), StatusCode::kCorrupt);
  released.set_value();
  EXPECT_TRUE(task.get());
  EXPECT_EQ(space().usage().blocks[0], usage.blocks[0]);
  EXPECT_EQ(space().usage().extents, usage.extents);
  EXPECT_EQ(store().List("").size(), entries);
}

TEST_F(ImportTest, AServerThatHasStoppedTakesNothingIn) {
  scheduler_->Stop(Clock::now());
  EXPECT_EQ(scheduler_->Import("", capsule_, {}).status().code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace reprise::serve
