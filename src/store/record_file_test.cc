// Records outlive their process, stay within their bytes, and are begun anew where they are damaged.
#include "store/record_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "store/disk_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

Digest KeyOf(uint32_t number) {
  Digest key{};
  std::memcpy(key.data(), &number, sizeof(number));
  return key;
}

class RecordFileTest : public testing::Test {
 protected:
  std::unique_ptr<RecordFile> Open(std::string_view owner = "mine", uint64_t most = uint64_t{1} << 20) {
    const auto files = FileSystem::Open(path_, false);
    EXPECT_TRUE(files.ok()) << files.status().message();
    auto file = RecordFile::Open(**files, TestFingerprint(owner), most, begun_anew_);
    EXPECT_TRUE(file.ok()) << file.status().message();
    return file.ok() ? *std::move(file) : nullptr;
  }
  static Status Put(RecordFile& file, uint32_t key, std::string_view record) {
    return file.Put(KeyOf(key), std::as_bytes(std::span(record)));
  }
  // In their order.
  static std::vector<std::pair<uint32_t, std::string>> All(RecordFile& file) {
    std::vector<std::pair<uint32_t, std::string>> all;
    const Status read = file.ForEachNew([&](const Digest& key, std::span<const std::byte> record) {
      uint32_t number = 0;
      std::memcpy(&number, key.data(), sizeof(number));
      all.emplace_back(number, std::string(reinterpret_cast<const char*>(record.data()), record.size()));
    });
    EXPECT_TRUE(read.ok()) << read.message();
    return all;
  }

  const TemporaryDirectory directory_;
  const std::string path_ = directory_ / "store";
  bool begun_anew_ = false;
};

using Records = std::vector<std::pair<uint32_t, std::string>>;

TEST_F(RecordFileTest, OutlivesWhoeverWroteIt) {
  {
    const auto file = Open();
    for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(Put(*file, i, "record " + std::to_string(i)).ok());
    ASSERT_TRUE(Put(*file, 0, "").ok());
    ASSERT_TRUE(Put(*Open("theirs"), 1, "theirs").ok());
  }
  EXPECT_EQ(All(*Open()), (Records{{1, "record 1"}, {2, "record 2"}, {0, ""}}));
  EXPECT_EQ(All(*Open("theirs")), (Records{{1, "theirs"}}));
  EXPECT_FALSE(begun_anew_);
}

TEST_F(RecordFileTest, TheOldestGoFirst) {
  const uint64_t most = 10 * (100 + RecordFile::kOverhead);
  const auto file = Open("mine", most);
  for (uint32_t i = 0; i < 30; ++i) ASSERT_TRUE(Put(*file, i, std::string(100, 'x')).ok());
  const auto all = All(*Open("mine", most));
  ASSERT_EQ(all.size(), 10u);
  EXPECT_EQ(all.front().first, 20u);
  ASSERT_TRUE(Put(*file, 99, std::string(10000, 'x')).ok()) << "what never fits is passed over";
  EXPECT_EQ(All(*Open("mine", most)), all);
}

TEST_F(RecordFileTest, OthersRecordsAreNewOnce) {
  const auto mine = Open();
  const auto theirs = Open();
  ASSERT_TRUE(Put(*mine, 1, "mine").ok());
  EXPECT_TRUE(All(*mine).empty()) << "what it put itself";
  ASSERT_TRUE(Put(*theirs, 2, "theirs").ok());
  ASSERT_TRUE(Put(*mine, 3, "mine").ok());
  ASSERT_TRUE(Put(*theirs, 1, "over mine").ok());
  ASSERT_TRUE(Put(*Open("somebody"), 4, "of another owner").ok());
  EXPECT_EQ(All(*mine), (Records{{2, "theirs"}, {3, "mine"}, {1, "over mine"}}));
  EXPECT_TRUE(All(*mine).empty());
  EXPECT_EQ(All(*theirs), (Records{{2, "theirs"}, {3, "mine"}, {1, "over mine"}}));
}

TEST_F(RecordFileTest, WhatIsDamagedIsBegunAnew) {
  {
    const auto file = Open();
    for (uint32_t i = 0; i < 200; ++i) ASSERT_TRUE(Put(*file, i, std::string(500, 'x')).ok());
  }
  const std::string name = path_ + "/" + RecordFile::kFile;
  for (const uintmax_t keep : {uintmax_t{100}, std::filesystem::file_size(name) / 2}) {
    std::filesystem::resize_file(name, keep);
    std::ofstream(name, std::ios::in | std::ios::out | std::ios::binary).write("no database at all", 18);
    const auto file = Open();
    ASSERT_NE(file, nullptr);
    EXPECT_TRUE(begun_anew_);
    EXPECT_TRUE(All(*file).empty());
    ASSERT_TRUE(Put(*file, 7, std::string(5000, 'x')).ok());
  }
}

TEST_F(RecordFileTest, TheStoreTakesItForItsOwn) {
  ASSERT_NE(OpenTier(path_), nullptr);
  ASSERT_TRUE(Put(*Open(), 1, "record").ok());
  // As a crash leaves it while a damaged index is being replaced.
  std::filesystem::remove(path_ + "/index.sqlite");
  EXPECT_NE(OpenTier(path_), nullptr);
  EXPECT_EQ(All(*Open()).size(), 1u);
}

// What was acknowledged is there after a kill at any moment.
TEST_F(RecordFileTest, AKilledProcessLosesNothing) {
  uint32_t next = 0;
  for (int round = 0; round < 10; ++round) {
    int pipes[2];
    ASSERT_EQ(::pipe(pipes), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipes[0]);
      const auto file = Open();
      if (file == nullptr) ::_exit(3);
      for (uint32_t i = next;; ++i) {
        if (!Put(*file, i, "record " + std::to_string(i)).ok()) ::_exit(4);
        if (::write(pipes[1], &i, sizeof(i)) != sizeof(i)) ::_exit(5);
      }
    }
    ::close(pipes[1]);
    uint32_t told = 0;
    const uint32_t enough = next + 5 + static_cast<uint32_t>(round) * 7;
    while (::read(pipes[0], &told, sizeof(told)) == sizeof(told) && told < enough) {
    }
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the process ended by itself, with " << WEXITSTATUS(status);
    while (::read(pipes[0], &told, sizeof(told)) == sizeof(told)) {
    }
    ::close(pipes[0]);
    const auto all = All(*Open());
    EXPECT_FALSE(begun_anew_);
    ASSERT_GE(all.size(), told + 1) << "round " << round;
    for (uint32_t i = 0; i <= told; ++i) ASSERT_EQ(all[i], std::pair(i, "record " + std::to_string(i)));
    next = all.back().first + 1;
  }
}

}  // namespace
}  // namespace reprise
