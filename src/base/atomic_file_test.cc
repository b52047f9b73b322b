#include "base/atomic_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace reprise {
namespace {

namespace fs = std::filesystem;

class AtomicFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string directory = testing::TempDir() + "atomic_file_XXXXXX";
    ASSERT_NE(::mkdtemp(directory.data()), nullptr);
    directory_ = directory;
    path_ = directory + "/file";
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::string Content() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  int Files() const { return static_cast<int>(std::distance(fs::directory_iterator(directory_), fs::directory_iterator())); }

  fs::path directory_;
  std::string path_;
};

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST_F(AtomicFileTest, AppearsWholeAtCommit) {
  std::ofstream(path_) << "old";
  auto file = AtomicFile::Create(path_, 0600);
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_TRUE(file->Write(Bytes("new ")).ok());
  ASSERT_TRUE(file->Write(Bytes("content")).ok());
  EXPECT_EQ(file->size(), 11u);
  EXPECT_EQ(Content(), "old");
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(Content(), "new content");
  EXPECT_EQ(fs::status(path_).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_EQ(Files(), 1);
  EXPECT_FALSE(file->Write(Bytes("more")).ok());
  EXPECT_FALSE(file->Commit().ok());
}

TEST_F(AtomicFileTest, LeavesNothingBehindWhenDropped) {
  std::ofstream(path_) << "old";
  {
    auto file = AtomicFile::Create(path_);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write(Bytes("half")).ok());
    AtomicFile moved = *std::move(file);
    EXPECT_EQ(Files(), 2);
  }
  EXPECT_EQ(Content(), "old");
  EXPECT_EQ(Files(), 1);
}

TEST_F(AtomicFileTest, NamesADirectoryThatIsMissing) {
  const auto file = AtomicFile::Create((directory_ / "missing" / "file").string());
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), StatusCode::kNotFound);
  EXPECT_NE(file.status().message().find("missing/file"), std::string::npos) << file.status().message();
}

}  // namespace
}  // namespace reprise
