// Two processes work on one directory and are killed, again and again; a third finds what they left. For hundreds of rounds:
// store_test --gtest_filter='Processes.*' --gtest_repeat=20
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>
#include <set>
#include <thread>

#include "store/disk_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

struct Told {
  char what;  // 'P': put and acknowledged; 'R': about to be removed
  uint64_t id;
};

struct Toys {
  std::shared_ptr<StateSpace> space = NewToySpace();
  std::vector<std::vector<int32_t>> tokens;
  std::vector<Capsule> capsules;
  std::vector<std::vector<std::byte>> bytes;
  Toys() {
    for (int32_t i = 0; i < 10; ++i) {
      tokens.push_back(TokenPath(10 + 17 * i, i % 3 == 0 ? 1000 : 8 * i, i % 4));
      capsules.push_back(Toy(*space, tokens.back()));
      bytes.push_back(BytesOf(capsules.back()));
    }
  }
};

// Puts and removes until it is killed, and says so. An id tells which toy it is.
[[noreturn]] void Work(const std::string& directory, const Toys& toys, int pipe, uint64_t first_id, unsigned seed) {
  const auto files = FileSystem::Open(directory, false);
  if (!files.ok()) ::_exit(3);
  auto tier = DiskTier::Open(*files, {});
  if (!tier.ok()) ::_exit(4);
  std::minstd_rand random(seed);
  std::map<uint64_t, int64_t> mine;
  const auto tell = [&](Told told) {
    if (::write(pipe, &told, sizeof(told)) != sizeof(told)) ::_exit(5);
  };
  for (uint64_t id = first_id;; ++id) {
    const size_t toy = id % toys.tokens.size();
    std::vector<int64_t> evicted;
    const auto put = (*tier)->Put("ns", toys.tokens[toy], toys.capsules[toy], {.id = id}, evicted);
    if (!put.ok()) ::_exit(6);
    tell({'P', id});
    mine[id] = *put;
    if (mine.size() > 4 || random() % 3 == 0) {
      const auto victim = std::next(mine.begin(), static_cast<std::ptrdiff_t>(random() % mine.size()));
      tell({'R', victim->first});
      if (!(*tier)->Remove(victim->second).ok()) ::_exit(7);
      mine.erase(victim);
    }
    if (random() % 16 == 0 && !(*tier)->CollectGarbage().ok()) ::_exit(8);
  }
}

TEST(Processes, AreKilledAndLoseNothing) {
  const Toys toys;
  const TemporaryDirectory directory;
  const std::string path = directory / "store";
  constexpr int kRounds = 20;
  std::set<uint64_t> must;
  std::set<uint64_t> may;
  std::minstd_rand random(std::random_device{}());
  size_t puts = 0;
  for (int round = 0; round < kRounds; ++round) {
    int pipes[2];
    ASSERT_EQ(::pipe(pipes), 0);
    pid_t children[2];
    for (int c = 0; c < 2; ++c) {
      const uint64_t first_id = static_cast<uint64_t>(round * 2 + c + 1) * 1000000;
      const auto seed = static_cast<unsigned>(random());
      children[c] = ::fork();
      if (children[c] == 0) {
        ::close(pipes[0]);
        Work(path, toys, pipes[1], first_id, seed);
      }
    }
    ::close(pipes[1]);
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + random() % 120));
    for (const pid_t child : children) {
      ::kill(child, SIGKILL);
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status)) << "a process ended by itself, with " << WEXITSTATUS(status);
    }
    Told told{};
    while (::read(pipes[0], &told, sizeof(told)) == sizeof(told)) {
      puts += told.what == 'P' ? 1 : 0;
      if (told.what == 'P') must.insert(told.id);
      if (told.what == 'R') must.erase(told.id), may.insert(told.id);
    }
    ::close(pipes[0]);

    const auto tier = OpenTier(path);
    ASSERT_NE(tier, nullptr);
    const auto list = tier->List(toys.space->fingerprint());
    ASSERT_TRUE(list.ok()) << list.status().message();
    std::set<uint64_t> listed;
    for (const DiskEntry& entry : *list) {
      listed.insert(entry.note.id);
      const size_t toy = entry.note.id % toys.tokens.size();
      ASSERT_EQ(entry.tokens, toys.tokens[toy]);
      const auto capsule = tier->Load(entry.id, toys.space, Capsule());
      ASSERT_TRUE(capsule.ok()) << "round " << round << ": " << capsule.status().message();
      ASSERT_EQ(BytesOf(*capsule), toys.bytes[toy]) << "round " << round;
    }
    for (const uint64_t id : must) ASSERT_TRUE(listed.contains(id)) << "round " << round << ": entry " << id << " is lost";
    const auto report = tier->Check();
    ASSERT_TRUE(report.ok());
    ASSERT_TRUE(report->faults.empty()) << "round " << round << ": " << report->faults[0];
    ASSERT_TRUE(report->orphans.empty()) << "round " << round << ": " << report->orphans[0];
    ASSERT_TRUE(tier->TakeNotices().empty());
    must = listed;  // what was underway is settled now
    for (const DiskEntry& entry : *list) {
      if (entry.note.id % 3 != 0) continue;
      ASSERT_TRUE(tier->Remove(entry.id).ok());
      must.erase(entry.note.id);
    }
  }
  std::printf("%d rounds of two processes, %zu puts\n", kRounds, puts);
}

TEST(Processes, SeeEachOthersWork) {
  const Toys toys;
  const TemporaryDirectory directory;
  const auto a = OpenTier(directory.path());
  const auto b = OpenTier(directory.path());
  (void)a->List(toys.space->fingerprint());
  EXPECT_FALSE(a->Changed());
  const auto id = PutToy(*b, toys.tokens[3], toys.capsules[3]);
  ASSERT_TRUE(id.ok());
  EXPECT_TRUE(a->Changed());
  EXPECT_EQ(a->List(toys.space->fingerprint())->size(), 1u);
  EXPECT_FALSE(a->Changed());
  EXPECT_TRUE(a->Load(*id, toys.space, Capsule()).ok());
  // What one wrote, the other does not write again; what one removed, the other no longer has.
  ASSERT_TRUE(PutToy(*a, toys.tokens[3], toys.capsules[3]).ok());
  EXPECT_EQ(a->rows_written(), 0u);
  ASSERT_TRUE(a->Remove(*id).ok());
  EXPECT_EQ(b->Load(*id, toys.space, Capsule()).status().code(), StatusCode::kNotFound);
}

// The budget is the directory's, whoever writes, and the file system would agree.
TEST(Processes, ShareOneBudget) {
  const Toys toys;
  const TemporaryDirectory directory;
  const DiskOptions options{.budget = 700 << 10};
  const auto a = OpenTier(directory.path(), options);
  const auto b = OpenTier(directory.path(), options);
  size_t evictions = 0;
  for (uint64_t i = 0; i < 150; ++i) {
    auto tokens = TokenPath(static_cast<int32_t>(20 + i % 40), 0, static_cast<int32_t>(i));
    const Capsule capsule = Toy(*toys.space, tokens);
    std::vector<int64_t> evicted;
    const auto id = (i % 2 == 0 ? a : b)->Put("ns", tokens, capsule, {.id = i + 1, .used = static_cast<int64_t>(i)}, evicted);
    ASSERT_TRUE(id.ok()) << id.status().message();
    evictions += evicted.size();
    uint64_t bytes = 0;
    for (const auto& file : std::filesystem::recursive_directory_iterator(directory.path())) {
      if (file.is_regular_file()) bytes += (file.file_size() + 4095) / 4096 * 4096;
    }
    ASSERT_LE(bytes, options.budget) << "after put " << i;
    ASSERT_EQ(a->bytes(), bytes);
  }
  EXPECT_GT(evictions, 50u);
  EXPECT_TRUE(a->Check()->faults.empty());
  EXPECT_TRUE(a->Check()->orphans.empty());
}

TEST(Processes, ThreadsShareATier) {
  const Toys toys;
  const TemporaryDirectory directory;
  const auto tier = OpenTier(directory.path());
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 12; ++i) {
        const size_t toy = (i * 3 + static_cast<size_t>(t)) % toys.tokens.size();
        std::vector<int64_t> evicted;
        const auto id = tier->Put("ns", toys.tokens[toy], toys.capsules[toy], {.id = i}, evicted);
        const auto capsule = id.ok() ? tier->Load(*id, toys.space, Capsule()) : Result<Capsule>(id.status());
        if (!capsule.ok() || BytesOf(*capsule) != toys.bytes[toy]) ++wrong;
        (void)tier->List(toys.space->fingerprint());
        if (i % 2 == 0 && !tier->Remove(*id).ok()) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(tier->Check()->faults.empty());
  EXPECT_TRUE(tier->Check()->orphans.empty());
}

}  // namespace
}  // namespace reprise
