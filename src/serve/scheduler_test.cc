// The scheduler beside a disk that does not answer: who waits for it and who does not, and how the waiting ends.
#include "serve/scheduler.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "store/disk_test_support.h"
#include "store/gated_file_system.h"

namespace reprise::serve {
namespace {

using testing_support::Gate;
using testing_support::GatedFileSystem;
using testing_support::TemporaryDirectory;

constexpr char kTiny[] = "tests/data/goldens/qwen35_equal.gguf";

std::vector<int32_t> Tokens(int count, int seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * i * 3 + i * 11 + seed * 17) % 288);
  return tokens;
}

class SchedulerTest : public testing::Test {
 protected:
  // A server that has just started: what earlier ones kept lies in the directory.
  struct Server {
    Metrics metrics;
    std::optional<Scheduler> scheduler;
  };
  std::unique_ptr<Server> Start() {
    auto files = FileSystem::Open(directory_.path(), false);
    EXPECT_TRUE(files.ok()) << files.status().message();
    const StoreOptions store{
        .directory = directory_.path(), .write_delay = 1000, .files = std::make_shared<GatedFileSystem>(*files, gate_)};
    auto model = Model::Load(kTiny, {.threads = 1, .context = 1024, .lanes = 4, .capsules = 32, .chunk = 32, .store = store});
    EXPECT_TRUE(model.ok()) << model.status().message();
    auto server = std::make_unique<Server>();
    server->scheduler.emplace(*std::move(model), SchedulerOptions(), server->metrics);
    return server;
  }
  void Keep(std::initializer_list<int> seeds) {
    const auto server = Start();
    for (const int seed : seeds) {
      const auto job = Submit(*server, Prompt(seed), 0);
      EXPECT_EQ(Last(*job).kind, Event::Kind::kEnd);
    }
  }
  static std::vector<int32_t> Prompt(int seed) { return Tokens(300, seed); }
  static std::shared_ptr<Job> Submit(Server& server, std::vector<int32_t> prompt, int tokens, std::optional<uint64_t> resume = {}) {
    auto job = std::make_shared<Job>();
    job->id = "job";
    job->prompt = std::move(prompt);
    job->max_tokens = tokens;
    job->resume = resume;
    EXPECT_TRUE(server.scheduler->Submit(job).ok());
    return job;
  }
  // Returns once the request has ended.
  static Event Last(Job& job) {
    while (true) {
      auto event = job.events.Pop(Clock::now() + std::chrono::minutes(10));
      if (!event) return Event::Error(Internal("it did not end"));
      if (event->kind == Event::Kind::kEnd || event->kind == Event::Kind::kError) return *std::move(event);
    }
  }
  static bool HasEvent(Job& job) { return job.events.Pop(Clock::now()).has_value(); }

  TemporaryDirectory directory_;
  Gate gate_;
};

TEST_F(SchedulerTest, OthersGoOnWhileACapsuleIsReadFromDisk) {
  Keep({1});
  const auto server = Start();
  gate_.Close();
  const auto waits = Submit(*server, Prompt(1), 4);
  gate_.AwaitReader();
  const auto other = Submit(*server, Tokens(100, 2), 20);
  EXPECT_EQ(Last(*other).kind, Event::Kind::kEnd);
  EXPECT_FALSE(HasEvent(*waits));
  EXPECT_EQ(server->metrics.reading, 1);
  gate_.Open();
  EXPECT_EQ(Last(*waits).kind, Event::Kind::kEnd);
  EXPECT_EQ(waits->prefill.tier, Tier::kDisk);
  EXPECT_EQ(waits->prefill.reused, 300);
  EXPECT_EQ(server->metrics.reused_tokens[static_cast<size_t>(Tier::kDisk)], 300u);
  EXPECT_EQ(server->scheduler->model().store()->stats().hits_disk, 1u);
}

TEST_F(SchedulerTest, WhoGoesOnFromACapsuleByItsIdWaitsLikewise) {
  Keep({1});
  const auto server = Start();
  CapsuleStore& store = *server->scheduler->model().store();
  const auto listed = store.List("");
  ASSERT_FALSE(listed.empty());
  gate_.Close();
  const auto waits = Submit(*server, {}, 4, listed.back().id);
  auto given = std::async(std::launch::async, [&] { return server->scheduler->Get("", listed.back().id); });
  gate_.AwaitReader();
  EXPECT_EQ(Last(*Submit(*server, Tokens(100, 2), 20)).kind, Event::Kind::kEnd);
  EXPECT_FALSE(HasEvent(*waits));
  gate_.Open();
  EXPECT_EQ(Last(*waits).kind, Event::Kind::kEnd);
  EXPECT_EQ(waits->prefill.tier, Tier::kDisk);
  EXPECT_EQ(waits->prefill.reused, 300);
  const auto capsule = given.get();
  ASSERT_TRUE(capsule.ok()) << capsule.status().message();
  EXPECT_EQ(capsule->position(), 300);
}

TEST_F(SchedulerTest, MoreThanMayWaitForTheDiskLetOthersPass) {
  Keep({1, 2, 3});
  const auto server = Start();  // three lanes for requests, of which one may be kept for a read
  gate_.Close();
  std::vector<std::shared_ptr<Job>> wait;
  for (const int seed : {1, 2, 3}) wait.push_back(Submit(*server, Prompt(seed), 4));
  gate_.AwaitReader();
  for (const int seed : {4, 5}) EXPECT_EQ(Last(*Submit(*server, Tokens(100, seed), 20)).kind, Event::Kind::kEnd);
  EXPECT_EQ(server->metrics.reading, 1);
  gate_.Open();
  for (const auto& job : wait) {
    EXPECT_EQ(Last(*job).kind, Event::Kind::kEnd);
    EXPECT_EQ(job->prefill.tier, Tier::kDisk);
  }
}

TEST_F(SchedulerTest, WhoIsCancelledWhileItWaitsEndsAtOnce) {
  Keep({1});
  const auto server = Start();
  gate_.Close();
  const auto waits = Submit(*server, Prompt(1), 4);
  gate_.AwaitReader();
  waits->cancelled = true;
  const Event last = Last(*waits);
  EXPECT_EQ(last.kind, Event::Kind::kError);
  EXPECT_EQ(last.status.code(), StatusCode::kCancelled);
  const auto again = Submit(*server, Prompt(1), 4);
  gate_.Open();
  EXPECT_EQ(Last(*again).kind, Event::Kind::kEnd);
  EXPECT_EQ(again->prefill.reused, 300);  // from disk, or from memory if the first read came to its end before it was given up
}

TEST_F(SchedulerTest, WhatIsDamagedWhileItIsReadIsComputed) {
  Keep({1});
  const auto server = Start();
  gate_.Close();
  const auto waits = Submit(*server, Prompt(1), 4);
  gate_.AwaitReader();
  for (const auto& file : std::filesystem::directory_iterator(directory_ / "objects")) {
    std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(static_cast<std::streamoff>(file.file_size() / 2));
    bytes.write("damaged!", 8);
  }
  gate_.Open();
  EXPECT_EQ(Last(*waits).kind, Event::Kind::kEnd);
  EXPECT_EQ(waits->prefill.tier, Tier::kNone);
  EXPECT_EQ(waits->prefill.computed, 300);
  EXPECT_GE(server->scheduler->model().store()->stats().quarantined, 1u);
}

TEST_F(SchedulerTest, AServerThatStopsFinishesWhatIsUnderWayAndNoMore) {
  const auto server = Start();
  const auto job = Submit(*server, Prompt(1), 200);
  while (server->scheduler->waiting() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  server->scheduler->Stop(Clock::now() + std::chrono::hours(1));
  EXPECT_EQ(Last(*job).kind, Event::Kind::kEnd);
}

TEST_F(SchedulerTest, AServerStopsAlthoughTheDiskDoesNotAnswer) {
  Keep({1});
  const auto server = Start();
  gate_.Close();
  const auto waits = Submit(*server, Prompt(1), 4);
  gate_.AwaitReader();
  server->scheduler->Stop(Clock::now());
  EXPECT_EQ(Last(*waits).kind, Event::Kind::kError);
  gate_.Open();  // the store itself ends when the disk lets go of the piece at hand
}

}  // namespace
}  // namespace reprise::serve
