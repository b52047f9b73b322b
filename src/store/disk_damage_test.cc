// Damage and hostility in a directory: every byte of an object changed, objects swapped or missing, links, an index that is cut, foreign or of a later version.
// What is wrong is refused, reported once and put aside; what does not rest on it goes on.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>

#include "store/disk_test_support.h"
#include "store/object_file.h"
#include "store/object_format.h"

namespace reprise {
namespace {

namespace fs = std::filesystem;
using namespace testing_support;

std::vector<char> Slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void Spill(const fs::path& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A line of two capsules, and one that shares nothing with them.
class Damage : public testing::Test {
 protected:
  Damage() {
    Open();
    for (const auto& tokens : {TokenPath(70, 1000), TokenPath(130, 1000), TokenPath(40, 0, 7)}) {
      const Capsule capsule = Toy(*space_, tokens);
      bytes_.push_back(BytesOf(capsule));
      const std::set<fs::path> before = Objects();
      const auto id = PutToy(*tier_, tokens, capsule, {.name = std::to_string(tokens.size()), .metadata = "m"});
      EXPECT_TRUE(id.ok());
      ids_.push_back(*id);
      for (const fs::path& file : Objects()) {
        if (before.contains(file)) continue;
        (Head(file).kind == ObjectKind::kBlock ? blocks_ : segments_).push_back(file);
      }
    }
  }
  void Open(const DiskOptions& options = {}) {
    tier_.reset();
    tier_ = OpenTier(Dir(), options);
  }
  std::string Dir() const { return directory_ / "store"; }
  std::set<fs::path> Objects() const {
    std::set<fs::path> files;
    for (const auto& file : fs::directory_iterator(Dir() + "/objects")) files.insert(file.path());
    return files;
  }
  static ObjectHead Head(const fs::path& path) {
    auto reader = ObjectReader::Open(*FileSystem::OpenPath(path), path.filename());
    EXPECT_TRUE(reader.ok());
    return std::move(reader->head());
  }
  Status Load(size_t which) {
    const auto usage = space_->usage();
    const auto capsule = tier_->Load(ids_[which], space_, Capsule());
    if (capsule.ok()) {
      EXPECT_EQ(BytesOf(*capsule), bytes_[which]);
      return Ok();
    }
    EXPECT_TRUE(SameUsage(usage, space_->usage())) << "a failed load keeps memory";
    return capsule.status();
  }
  size_t Listed() { return tier_->List(space_->fingerprint())->size(); }

  TemporaryDirectory directory_;
  std::shared_ptr<StateSpace> space_ = NewToySpace();
  std::unique_ptr<DiskTier> tier_;
  std::vector<int64_t> ids_;
  std::vector<std::vector<std::byte>> bytes_;
  std::vector<fs::path> blocks_, segments_;
};

TEST_F(Damage, NoByteOfAnObjectCanChangeUnnoticed) {
  Open({.read_only = true});  // nothing is put aside, so that every byte has its turn
  for (const size_t which : {size_t{0}, size_t{2}}) {
    for (const fs::path& path : {blocks_[which], segments_[which == 0 ? 0 : 2]}) {
      const auto sound = Slurp(path);
      for (size_t at = 0; at < sound.size(); ++at) {
        if (at > 1400 && at % 17 != 0) continue;
        auto bytes = sound;
        bytes[at] = static_cast<char>(bytes[at] ^ (at % 2 == 0 ? 1 : 0x80));
        Spill(path, bytes);
        const Status status = Load(which);
        ASSERT_TRUE(status.code() == StatusCode::kCorrupt || status.code() == StatusCode::kUnsupported)
            << "byte " << at << ": " << status.message();
      }
      for (size_t size = 0; size < sound.size(); size += 61) {
        Spill(path, {sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(size)});
        ASSERT_EQ(Load(which).code(), StatusCode::kCorrupt) << "cut to " << size;
      }
      Spill(path, sound);
      EXPECT_TRUE(Load(which).ok());
    }
  }
}

TEST_F(Damage, ADamagedFileIsPutAsideWithWhatRestsOnIt) {
  auto bytes = Slurp(segments_[0]);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  Spill(segments_[0], bytes);
  const auto report = tier_->Check();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->faults.size(), 1u);
  EXPECT_EQ(Load(1).code(), StatusCode::kCorrupt);  // rests on the damaged rows through its own
  EXPECT_EQ(Listed(), 1u);
  EXPECT_EQ(Load(0).code(), StatusCode::kNotFound);
  EXPECT_TRUE(Load(2).ok());
  EXPECT_EQ(tier_->TakeNotices().size(), 1u);
  EXPECT_TRUE(tier_->TakeNotices().empty());
  EXPECT_TRUE(fs::exists(Dir() + "/quarantine/" + segments_[0].filename().string()));
  EXPECT_TRUE(tier_->Check()->faults.empty());
  // The place can be taken again, by good bytes of the same name.
  ASSERT_TRUE(PutToy(*tier_, TokenPath(70, 1000), Toy(*space_, TokenPath(70, 1000))).ok());
  EXPECT_TRUE(tier_->Check()->faults.empty());
  EXPECT_GT(*tier_->CollectGarbage(), 0u);
  EXPECT_TRUE(fs::is_empty(Dir() + "/quarantine"));
}

TEST_F(Damage, GarbageCollectionFindsItToo) {
  fs::remove(blocks_[1]);
  auto bytes = Slurp(blocks_[2]);
  bytes.back() = 1;  // padding
  Spill(blocks_[2], bytes);
  Spill(Dir() + "/objects/stray", {1, 2, 3});
  Spill(Dir() + "/objects/" + std::string(64, 'a'), {1, 2, 3});
  Spill(Dir() + "/tmp/left", {1});
  EXPECT_EQ(tier_->Check()->faults.size(), 2u);
  EXPECT_EQ(tier_->Check()->orphans.size(), 2u);
  ASSERT_TRUE(tier_->CollectGarbage().ok());
  EXPECT_EQ(Listed(), 1u);
  EXPECT_TRUE(Load(0).ok());
  const auto report = tier_->Check();
  EXPECT_TRUE(report->faults.empty());
  EXPECT_TRUE(report->orphans.empty());
  EXPECT_TRUE(fs::is_empty(Dir() + "/tmp"));
}

TEST_F(Damage, SoundObjectsInEachOthersPlacesAreNoticed) {
  const auto swap = [&](const fs::path& a, const fs::path& b) {
    fs::rename(a, Dir() + "/x");
    fs::rename(b, a);
    fs::rename(Dir() + "/x", b);
  };
  // Two requested capsules of one place differ in nothing but their payload and notes.
  const auto again = PutToy(*tier_, TokenPath(40, 0, 7), Toy(*space_, TokenPath(40, 0, 7)));
  ASSERT_TRUE(again.ok());
  fs::path twin;
  for (const fs::path& file : Objects()) {
    if (std::find(blocks_.begin(), blocks_.end(), file) == blocks_.end() && Head(file).kind == ObjectKind::kBlock) twin = file;
  }
  Open({.read_only = true});
  for (const auto& [a, b] : {std::pair(blocks_[2], twin), std::pair(segments_[0], segments_[2]), std::pair(blocks_[0], segments_[0])}) {
    swap(a, b);
    EXPECT_EQ(Load(a == blocks_[2] ? 2 : 0).code(), StatusCode::kCorrupt);
    swap(a, b);
  }
  EXPECT_TRUE(Load(2).ok());
}

TEST_F(Damage, LinksAndPipesAreNotFollowed) {
  const fs::path target = directory_ / "elsewhere";
  fs::rename(blocks_[2], target);
  fs::create_symlink(target, blocks_[2]);
  Status status = Load(2);
  EXPECT_EQ(status.code(), StatusCode::kIo) << status.message();
  EXPECT_NE(status.message().find("symbolic link"), std::string::npos);
  fs::remove(blocks_[2]);
  ASSERT_EQ(::mkfifo(blocks_[2].c_str(), 0600), 0);
  EXPECT_EQ(Load(2).code(), StatusCode::kIo);
  fs::remove(blocks_[2]);
  fs::rename(target, blocks_[2]);
  EXPECT_TRUE(Load(2).ok());
  tier_.reset();
  fs::rename(Dir() + "/objects", directory_ / "objects");
  fs::create_directory_symlink(directory_ / "objects", Dir() + "/objects");
  auto files = FileSystem::Open(Dir(), false);
  EXPECT_FALSE(DiskTier::Open(*files, {}).ok());
  fs::remove(Dir() + "/objects");
  fs::rename(directory_ / "objects", Dir() + "/objects");
  fs::rename(Dir() + "/index.sqlite", directory_ / "index.sqlite");
  fs::create_symlink(directory_ / "index.sqlite", Dir() + "/index.sqlite");
  EXPECT_FALSE(DiskTier::Open(*files, {}).ok());
}

TEST_F(Damage, NamesAreBytesAndNeverPaths) {
  const std::string hostile[] = {"../../etc/passwd",   std::string("a\0b", 3), "'; DROP TABLE capsules; --", "\xff\xfe", "/",
                                 std::string(256, 'x')};
  for (const std::string& name : hostile) {
    const auto id = PutToy(*tier_, TokenPath(5), Toy(*space_, TokenPath(5)), {.name = name, .metadata = name}, name);
    ASSERT_TRUE(id.ok()) << id.status().message();
    bool found = false;
    const auto list = tier_->List(space_->fingerprint());
    for (const DiskEntry& entry : *list) found |= entry.name_space == name && entry.note.name == name && entry.note.metadata == name;
    EXPECT_TRUE(found);
  }
  EXPECT_EQ(PutToy(*tier_, TokenPath(5), Toy(*space_, TokenPath(5)), {.name = std::string(257, 'x')}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(PutToy(*tier_, {-1}, Toy(*space_, {1})).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(PutToy(*tier_, {1, 2}, Toy(*space_, {1})).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Load(-5, space_, Capsule()).status().code(), StatusCode::kNotFound);
  for (const auto& file : fs::recursive_directory_iterator(directory_.path())) {
    EXPECT_EQ(fs::status(file).permissions() & (fs::perms::group_all | fs::perms::others_all), fs::perms::none) << file.path();
  }
}

TEST_F(Damage, ADamagedIndexIsMadeAnewFromTheObjects) {
  const auto ids_before = ids_;
  const auto index = fs::path(Dir()) / "index.sqlite";
  tier_.reset();
  const auto sound = Slurp(index);
  for (const auto& damage : {std::pair<size_t, size_t>{sound.size() / 2, 0}, {100, 0}, {sound.size(), 4096}, {sound.size(), 50}}) {
    auto bytes = sound;
    bytes.resize(damage.first);
    if (damage.second != 0) std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(damage.second), 600, '\x5a');
    Spill(index, bytes);
    Open();
    ASSERT_NE(tier_, nullptr);
    const auto notices = tier_->TakeNotices();
    ASSERT_EQ(notices.size(), 1u);
    EXPECT_NE(notices[0].find("made anew"), std::string::npos) << notices[0];
    const auto list = tier_->List(space_->fingerprint());
    ASSERT_EQ(list->size(), 3u);
    for (const DiskEntry& entry : *list) {
      EXPECT_EQ(entry.name_space, "ns");
      EXPECT_EQ(entry.note.name, std::to_string(entry.tokens.size()));
      EXPECT_EQ(entry.note.metadata, "m");
      const auto capsule = tier_->Load(entry.id, space_, Capsule());
      ASSERT_TRUE(capsule.ok()) << capsule.status().message();
      EXPECT_NE(std::find(bytes_.begin(), bytes_.end(), BytesOf(*capsule)), bytes_.end());
      EXPECT_EQ(std::find(ids_before.begin(), ids_before.end(), entry.id), ids_before.end()) << "an id is used twice";
    }
    EXPECT_TRUE(tier_->Check()->faults.empty());
    ASSERT_TRUE(tier_->CollectGarbage().ok());
    tier_.reset();
  }
}

TEST_F(Damage, AnIndexOfALaterVersionOrAnotherProgramIsRefused) {
  tier_.reset();
  const auto edit = [&](const char* sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open((Dir() + "/index.sqlite").c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
  };
  const auto files = *FileSystem::Open(Dir(), false);
  edit("PRAGMA user_version = 99");
  const auto later = DiskTier::Open(files, {});
  EXPECT_EQ(later.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(later.status().message().find("version 99"), std::string::npos);
  edit("PRAGMA user_version = 1; PRAGMA application_id = 5");
  EXPECT_EQ(DiskTier::Open(files, {}).status().code(), StatusCode::kUnsupported);
  const auto foreign = directory_ / "foreign";
  fs::create_directory(foreign);
  fs::permissions(foreign, fs::perms::owner_all);
  Spill(foreign + "/thesis.txt", {'x'});
  EXPECT_EQ(DiskTier::Open(*FileSystem::Open(foreign, false), {}).status().code(), StatusCode::kInvalidArgument);
  fs::permissions(foreign, fs::perms::all);
  EXPECT_EQ(FileSystem::Open(foreign, false).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(Damage, AnIndexThatLiesAboutItsTreeIsNotFollowed) {
  tier_.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((Dir() + "/index.sqlite").c_str(), &db), SQLITE_OK);
  // A circle, and a capsule that stands on another path's rows.
  ASSERT_EQ(
      sqlite3_exec(db, "UPDATE segments SET parent = id WHERE parent IS NOT NULL; UPDATE capsules SET segment = 1 WHERE position = 40",
                   nullptr, nullptr, nullptr),
      SQLITE_OK);
  sqlite3_close(db);
  Open();
  EXPECT_EQ(Load(1).code(), StatusCode::kCorrupt);
  EXPECT_EQ(Load(2).code(), StatusCode::kCorrupt);
  EXPECT_TRUE(Load(0).ok());
}

TEST_F(Damage, AReadOnlyDirectoryIsRead) {
  tier_.reset();
  const auto expect_readable = [&](const std::string& directory) {
    // In a child without the rights of root, to whom every directory is writable.
    const pid_t child = ::fork();
    if (child == 0) {
      if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(2);
      const auto files = FileSystem::Open(directory, false);
      if (!files.ok()) ::_exit(3);
      const auto tier = DiskTier::Open(*files, {});
      if (!tier.ok()) ::_exit(4);
      if (!(*tier)->read_only()) ::_exit(5);
      if ((*tier)->List(space_->fingerprint())->size() != 3) ::_exit(6);
      const auto capsule = (*tier)->Load(ids_[1], space_, Capsule());
      if (!capsule.ok() || BytesOf(*capsule) != bytes_[1]) ::_exit(7);
      if (PutToy(**tier, TokenPath(3), *capsule).ok() || (*tier)->Remove(ids_[1]).ok() || (*tier)->CollectGarbage().ok()) ::_exit(8);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  };
  fs::permissions(directory_.path(), fs::perms::owner_all | fs::perms::others_exec | fs::perms::group_exec);
  for (const auto& file : fs::recursive_directory_iterator(directory_.path())) {
    if (::geteuid() == 0) {
      ASSERT_EQ(::chown(file.path().c_str(), 65534, 65534), 0);
    }
    fs::permissions(file, fs::is_directory(file) ? fs::perms::owner_read | fs::perms::owner_exec : fs::perms::owner_read);
  }
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(Dir().c_str(), 65534, 65534), 0);
  }
  fs::permissions(Dir(), fs::perms::owner_read | fs::perms::owner_exec);
  expect_readable(Dir());
  fs::permissions(Dir(), fs::perms::owner_all);
}

}  // namespace
}  // namespace reprise
