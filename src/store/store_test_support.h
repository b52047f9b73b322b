// For tests alone: an execution whose state is a digest of the tokens it was fed, so that any capsule can be told from any other; and a disk
// tier in memory that fails on request.
#pragma once

#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "exec/lane.h"
#include "exec/state_space.h"
#include "reprise/capsule.h"
#include "store/disk_tier.h"

namespace reprise::testing_support {

using Path = std::vector<int32_t>;

inline constexpr int kDigestWords = 1024;  // a block is worth 400 rows, as in models with recurrent memories

inline std::shared_ptr<StateSpace> DigestSpace(int capsules = 4096, int64_t rows = 1 << 20, std::string_view name = "digest") {
  StateLayout layout;
  layout.Recurrent("digest", ElementType::kI64, {kDigestWords});
  layout.Append("tokens", ElementType::kI32, {1}, Space::kHost);
  layout.Append("marks", ElementType::kI64, {2});
  layout.Recurrent("count", ElementType::kI64, {1}, Space::kHost);
  auto space = StateSpace::Create(std::move(layout), {.lanes = 64, .capsules = capsules, .rows = rows, .max_position = 1 << 16},
                                  FingerprintBuilder().Add("name", name).Finish(), std::make_shared<HostMemory>());
  EXPECT_TRUE(space.ok()) << space.status().message();
  return *std::move(space);
}

inline uint64_t DigestOf(std::span<const int32_t> path) { return XXH3_64bits(path.data(), path.size_bytes()); }

// Feeds `tokens` to a lane that has been fed `before`, in one step.
inline void FeedLane(Lane& lane, const Path& before, std::span<const int32_t> tokens) {
  ASSERT_EQ(lane.position(), static_cast<int32_t>(before.size()));
  ASSERT_TRUE(lane.Begin(static_cast<int>(tokens.size())).ok());
  const StateLayout& layout = lane.space().layout();
  Path path = before;
  for (const int32_t token : tokens) {
    const auto at = static_cast<int32_t>(path.size());
    path.push_back(token);
    std::memcpy(lane.row(layout[1], at), &token, sizeof(token));
    const int64_t marks[2] = {at, token};
    std::memcpy(lane.row(layout[2], at), marks, sizeof(marks));
  }
  int64_t digest[kDigestWords];
  for (int i = 0; i < kDigestWords; ++i) digest[i] = static_cast<int64_t>(DigestOf(path)) + i;
  std::memcpy(lane.write(Space::kDevice) + layout[0].offset, digest, sizeof(digest));
  const auto count = static_cast<int64_t>(path.size());
  std::memcpy(lane.write(Space::kHost) + layout[3].offset, &count, sizeof(count));
  lane.Commit();
}

// What a capsule at the end of `path` holds, computed on from `base` where one is given.
inline Capsule CapsuleAt(const std::shared_ptr<StateSpace>& space, const Path& path, const Capsule& base = {}) {
  auto lane = space->NewLane();
  EXPECT_TRUE(lane.ok()) << lane.status().message();
  size_t from = 0;
  if (base.valid()) {
    EXPECT_TRUE(base.RestoreTo(**lane).ok());
    from = static_cast<size_t>(base.position());
  }
  if (from < path.size()) FeedLane(**lane, {path.begin(), path.begin() + static_cast<ptrdiff_t>(from)}, std::span(path).subspan(from));
  return Capsule::Take(**lane);
}

// "" when the capsule is that of the first position() tokens of `path`.
inline std::string WrongIn(const Capsule& capsule, std::span<const int32_t> path) {
  if (!capsule.valid()) return "no capsule";
  const auto size = static_cast<size_t>(capsule.position());
  if (size > path.size()) return "deeper than the path";
  path = path.first(size);
  const auto tokens = capsule.Read("tokens");
  if (tokens->size() != path.size_bytes() || std::memcmp(tokens->data(), path.data(), path.size_bytes()) != 0) return "other rows";
  const auto digest = capsule.Read("digest");
  for (int i = 0; i < kDigestWords; ++i) {
    int64_t word;
    std::memcpy(&word, digest->data() + static_cast<size_t>(i) * sizeof(word), sizeof(word));
    if (word != static_cast<int64_t>(DigestOf(path)) + i) return "another block";
  }
  return "";
}

class FakeDisk final : public DiskTier {
 public:
  struct Shared {  // what several processes would see
    std::mutex mutex;
    struct Entry {
      DiskEntry entry;
      Fingerprint fingerprint;
      std::vector<std::byte> bytes;
    };
    std::map<int64_t, Entry> entries;
    int64_t next = 1;
    int64_t changes = 0;
    Status put_fails;             // what Put answers when it is not Ok
    bool only_requested = false;  // whether there is no room for automatic entries
    std::set<int64_t> damaged;    // Load finds these corrupt, and sets them aside
    int puts = 0, loads = 0;
    bool read_only = false;
    uint64_t budget = UINT64_MAX;
  };
  explicit FakeDisk(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

  bool read_only() const override { return shared_->read_only; }
  Result<std::vector<Fingerprint>> Fingerprints() override {
    const std::lock_guard lock(shared_->mutex);
    std::vector<Fingerprint> fingerprints;
    for (const auto& [id, one] : shared_->entries) {
      if (std::find(fingerprints.begin(), fingerprints.end(), one.fingerprint) == fingerprints.end())
        fingerprints.push_back(one.fingerprint);
    }
    return fingerprints;
  }
  Result<std::vector<DiskEntry>> ListAgain(const Fingerprint& fingerprint, const std::unordered_set<int64_t>& known) override {
    const std::lock_guard lock(shared_->mutex);
    seen_ = shared_->changes;
    std::vector<DiskEntry> list;
    for (const auto& [id, one] : shared_->entries) {
      if (one.fingerprint != fingerprint) continue;
      list.push_back(one.entry);
      if (known.contains(id)) list.back().tokens.clear();
    }
    return list;
  }
  bool Changed() override {
    const std::lock_guard lock(shared_->mutex);
    return seen_ != shared_->changes;
  }
  Result<int64_t> Put(std::string_view name_space, std::span<const int32_t> tokens, const Capsule& capsule, const DiskNote& note,
                      std::vector<int64_t>& evicted) override {
    const std::lock_guard lock(shared_->mutex);
    if (!shared_->put_fails.ok()) return shared_->put_fails;
    if (shared_->only_requested && note.keep != Keep::kRequested) return Exhausted("there is no room that is worth it");
    ++shared_->puts;
    auto bytes = capsule.Serialize();
    written_ += bytes->size();
    while (Bytes() + bytes->size() > shared_->budget && !shared_->entries.empty()) {
      evicted.push_back(shared_->entries.begin()->first);
      shared_->entries.erase(shared_->entries.begin());
    }
    const int64_t id = shared_->next++;
    DiskEntry entry{id, capsule.fingerprint(), std::string(name_space), {tokens.begin(), tokens.end()}, note, bytes->size()};
    shared_->entries[id] = {std::move(entry), capsule.fingerprint(), *std::move(bytes)};
    Change();
    return id;
  }
  Result<Capsule> Load(int64_t id, const std::shared_ptr<StateSpace>& space, const Capsule&) override {
    std::vector<std::byte> bytes;
    {
      const std::lock_guard lock(shared_->mutex);
      ++shared_->loads;
      const auto at = shared_->entries.find(id);
      if (at == shared_->entries.end()) return NotFound("no such capsule on disk");
      if (shared_->damaged.contains(id)) {
        shared_->entries.erase(at);
        return Corrupt("a checksum does not hold");
      }
      bytes = at->second.bytes;
    }
    return DeserializeCapsule(bytes, space);
  }
  Result<Capsule> LoadInto(int64_t id, const std::shared_ptr<StateSpace>& space, const Landing&, const std::atomic<bool>&) override {
    return Load(id, space, {});
  }
  Status Update(int64_t id, const DiskNote& note) override {
    const std::lock_guard lock(shared_->mutex);
    if (const auto at = shared_->entries.find(id); at != shared_->entries.end()) at->second.entry.note = note;
    Change();
    return Ok();
  }
  Status Remove(int64_t id) override {
    const std::lock_guard lock(shared_->mutex);
    shared_->entries.erase(id);
    Change();
    return Ok();
  }
  uint64_t bytes() const override {
    const std::lock_guard lock(shared_->mutex);
    return Bytes();
  }
  uint64_t bytes_written() const override { return written_; }
  uint64_t rows_written() const override { return 0; }
  Result<CheckReport> Check() override { return CheckReport(); }
  Result<uint64_t> CollectGarbage() override { return uint64_t{0}; }
  std::vector<std::string> TakeNotices() override { return {}; }

 private:
  uint64_t Bytes() const {
    uint64_t bytes = 0;
    for (const auto& [id, one] : shared_->entries) bytes += one.bytes.size();
    return bytes;
  }
  void Change() {  // of which this one knows
    const bool knew = seen_ == shared_->changes;
    ++shared_->changes;
    if (knew) seen_ = shared_->changes;
  }

  std::shared_ptr<Shared> shared_;
  int64_t seen_ = 0;
  std::atomic<uint64_t> written_{0};
};

}  // namespace reprise::testing_support
