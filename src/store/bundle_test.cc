#include "store/bundle.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>
#include <map>
#include <random>

#include "store/bundle_format.h"
#include "store/disk_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

std::vector<char> Slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void Spill(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A store with a small tree, and its entries by their tokens.
class Bundles : public testing::Test {
 protected:
  Bundles() {
    for (const auto& tokens :
         {TokenPath(70, 1000), TokenPath(100, 1000), TokenPath(130, 80, 1), std::vector<int32_t>(), TokenPath(90, 85, 2)}) {
      const Capsule capsule = Toy(*space_, tokens);
      bytes_[tokens] = BytesOf(capsule);
      const auto id = PutToy(*tier_, tokens, capsule, {.name = tokens.size() == 100 ? "hundred" : "", .metadata = "about it"});
      EXPECT_TRUE(id.ok());
      ids_.push_back(*id);
    }
  }
  std::string Out(std::string_view name = "bundle") { return directory_ / name; }
  ImportOptions Into() { return {.name_space = "ns"}; }
  // Empty when everything that `tier` lists is what was exported.
  std::string Wrong(DiskTier& tier, size_t count) {
    const auto list = tier.List(space_->fingerprint());
    if (!list.ok()) return list.status().message();
    if (list->size() != count) return std::to_string(list->size()) + " entries are listed";
    for (const DiskEntry& entry : *list) {
      const auto capsule = tier.Load(entry.id, space_, Capsule());
      if (!capsule.ok()) return capsule.status().message();
      if (!bytes_.contains(entry.tokens) || BytesOf(*capsule) != bytes_[entry.tokens]) return "an entry loads as something else";
    }
    const auto report = tier.Check();
    if (!report.ok() || !report->faults.empty() || !report->orphans.empty()) return "it is not clean";
    return "";
  }

  TemporaryDirectory directory_;
  std::shared_ptr<StateSpace> space_ = NewToySpace();
  std::unique_ptr<DiskTier> tier_ = OpenTier(directory_ / "store");
  std::map<std::vector<int32_t>, std::vector<std::byte>> bytes_;
  std::vector<int64_t> ids_;
};

TEST_F(Bundles, CarryATreeToAnotherStore) {
  ASSERT_TRUE(ExportBundle(*tier_, ids_, Out(), {.origin = "here"}).ok());
  struct stat info {};
  ASSERT_EQ(::stat(Out().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto summary = SummariseBundle(Out());
  ASSERT_TRUE(summary.ok()) << summary.status().message();
  EXPECT_EQ(summary->capsules, 5u);
  EXPECT_EQ(summary->objects, 9u);
  EXPECT_EQ(summary->name_space, "ns");
  EXPECT_EQ(summary->origin, "here");
  EXPECT_EQ(summary->signer, "");
  const auto other = OpenTier(directory_ / "other");
  const auto ids = ImportBundle(*other, Out(), Into());
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  EXPECT_EQ(ids->size(), 5u);
  EXPECT_EQ(other->rows_written(), tier_->rows_written());
  EXPECT_EQ(Wrong(*other, 5), "");
  const auto list = other->List(space_->fingerprint());
  for (const DiskEntry& entry : *list) EXPECT_EQ(entry.note.metadata, "about it");
  // Once more is refused by its id, here and in another life of the store.
  EXPECT_EQ(ImportBundle(*other, Out(), Into()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Wrong(*other, 5), "");
}

TEST_F(Bundles, RowsThatAreHereAreNotWrittenAgain) {
  const auto other = OpenTier(directory_ / "other");
  ASSERT_TRUE(PutToy(*other, TokenPath(120, 1000), Toy(*space_, TokenPath(120, 1000)), {.name = "hundred"}).ok());
  bytes_[TokenPath(120, 1000)] = BytesOf(Toy(*space_, TokenPath(120, 1000)));
  const uint64_t rows = other->rows_written();
  ASSERT_TRUE(ExportBundle(*tier_, ids_, Out(), {}).ok());
  const auto ids = ImportBundle(*other, Out(), Into());
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  EXPECT_EQ(other->rows_written() - rows, 50u + 5u);  // of the two branches alone
  EXPECT_EQ(Wrong(*other, 6), "");
  // A name that is in use stays where it is.
  const auto list = other->List(space_->fingerprint());
  for (const DiskEntry& entry : *list) EXPECT_EQ(entry.note.name == "hundred", entry.tokens.size() == 120);
}

TEST_F(Bundles, ImportIntoItsOwnStoreAddsNothingAutomaticTwice) {
  const auto tokens = TokenPath(60, 3, 3);
  const auto id = PutToy(*tier_, tokens, Toy(*space_, tokens), {.keep = Keep::kReply});
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(ExportBundle(*tier_, std::span(&*id, 1), Out(), {}).ok());
  const auto ids = ImportBundle(*tier_, Out(), Into());
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  EXPECT_EQ(*ids, std::vector<int64_t>{*id});
}

TEST_F(Bundles, ForeignOnesAreRefusedByName) {
  ASSERT_TRUE(WriteSigningKeys(directory_ / "key").ok());
  ASSERT_TRUE(WriteSigningKeys(directory_ / "other_key").ok());
  ASSERT_TRUE(WriteEncryptionKey(directory_ / "secret").ok());
  ASSERT_TRUE(WriteEncryptionKey(directory_ / "other_secret").ok());
  EXPECT_FALSE(WriteEncryptionKey(directory_ / "secret").ok());
  const ExportOptions options{.origin = "here", .signing_key = directory_ / "key", .encryption_key = directory_ / "secret"};
  ASSERT_TRUE(ExportBundle(*tier_, ids_, Out(), options).ok());
  const auto plain = Slurp(Out());
  EXPECT_EQ(std::string_view(plain.data(), plain.size()).find("about it"), std::string_view::npos) << "metadata is readable";
  const auto other = OpenTier(directory_ / "other");
  const auto refused = [&](const ImportOptions& into, StatusCode code, std::string_view word, const std::string& path) {
    const auto ids = ImportBundle(*other, path, into);
    EXPECT_EQ(ids.status().code(), code) << ids.status().message();
    EXPECT_NE(ids.status().message().find(word), std::string::npos) << ids.status().message();
    EXPECT_TRUE(other->List(space_->fingerprint())->empty());
  };
  ImportOptions into = {.name_space = "ns",
                        .fingerprint = space_->fingerprint(),
                        .origin = "here",
                        .verification_key = directory_ / "key.pub",
                        .encryption_key = directory_ / "secret"};
  const auto but = [&](auto change) {
    ImportOptions changed = into;
    change(changed);
    return changed;
  };
  refused(but([](auto& o) { o.name_space = "another"; }), StatusCode::kMismatch, "namespace", Out());
  refused(but([](auto& o) { o.fingerprint = TestFingerprint("another"); }), StatusCode::kMismatch, "model", Out());
  refused(but([](auto& o) { o.origin = "there"; }), StatusCode::kMismatch, "origin", Out());
  refused(but([&](auto& o) { o.verification_key = directory_ / "other_key.pub"; }), StatusCode::kMismatch, "another key", Out());
  refused(but([&](auto& o) { o.encryption_key = directory_ / "other_secret"; }), StatusCode::kCorrupt, "another key", Out());
  refused(but([&](auto& o) { o.encryption_key = ""; }), StatusCode::kMismatch, "no key was given", Out());
  refused(but([&](auto& o) { o.verification_key = directory_ / "key"; }), StatusCode::kInvalidArgument, "public-key", Out());
  ASSERT_TRUE(ExportBundle(*tier_, ids_, Out("unsigned"), {.origin = "here"}).ok());
  refused(into, StatusCode::kMismatch, "not signed", Out("unsigned"));
  refused(but([](auto& o) { o.verification_key = ""; }), StatusCode::kMismatch, "not encrypted", Out("unsigned"));
  ASSERT_TRUE(ImportBundle(*other, Out(), into).ok());
  EXPECT_EQ(Wrong(*other, 5), "");
  const auto replayed = ImportBundle(*other, Out(), into);
  EXPECT_NE(replayed.status().message().find("imported before"), std::string::npos);
}

TEST_F(Bundles, EveryEditOfASignedOneIsNoticed) {
  ASSERT_TRUE(WriteSigningKeys(directory_ / "key").ok());
  ASSERT_TRUE(ExportBundle(*tier_, std::span(ids_).first(2), Out(), {.signing_key = directory_ / "key"}).ok());
  const auto sound = Slurp(Out());
  const auto other = OpenTier(directory_ / "other");
  ImportOptions into = Into();
  into.verification_key = directory_ / "key.pub";
  std::minstd_rand random(3);
  const auto spoil = [&](std::vector<char> bytes, std::string_view what) {
    Spill(Out("edited"), bytes);
    const auto ids = ImportBundle(*other, Out("edited"), into);
    EXPECT_FALSE(ids.ok()) << what;
    EXPECT_TRUE(other->List(space_->fingerprint())->empty()) << what;
  };
  for (size_t i = 0; i < 400; ++i) {
    auto bytes = sound;
    const size_t at = i < 200 ? random() % 1200 : random() % bytes.size();
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    spoil(std::move(bytes), "a bit at " + std::to_string(at));
  }
  for (const size_t size : {size_t{0}, size_t{8}, size_t{1023}, size_t{1024}, size_t{1120}, sound.size() - 1}) {
    spoil({sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(size)}, "cut to " + std::to_string(size));
  }
  auto longer = sound;
  longer.push_back(0);
  spoil(longer, "a byte more");
  Spill(Out("edited"), sound);
  EXPECT_TRUE(ImportBundle(*other, Out("edited"), into).ok());
  EXPECT_EQ(Wrong(*other, 2), "");
}

TEST_F(Bundles, TooLargeForTheBudgetIsRefusedBeforeAnythingIsWritten) {
  ASSERT_TRUE(ExportBundle(*tier_, ids_, Out(), {}).ok());
  const auto other = OpenTier(directory_ / "other", {.budget = 20000});
  const auto ids = ImportBundle(*other, Out(), Into());
  EXPECT_EQ(ids.status().code(), StatusCode::kExhausted) << ids.status().message();
  EXPECT_EQ(other->bytes_written(), 0u);
}

TEST_F(Bundles, DamagedObjectsAreNotExported) {
  for (const auto& file : std::filesystem::directory_iterator(directory_ / "store/objects")) {
    auto bytes = Slurp(file.path());
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    Spill(file.path(), bytes);
  }
  EXPECT_EQ(ExportBundle(*tier_, ids_, Out(), {}).code(), StatusCode::kCorrupt);
  EXPECT_FALSE(std::filesystem::exists(Out()));
}

}  // namespace
}  // namespace reprise
