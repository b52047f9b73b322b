// DiskStore: the DiskTier that there is. Put, Load and the care of a directory are files of their own.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "exec/state_space.h"
#include "store/disk_tier.h"
#include "store/index.h"

namespace reprise {

inline constexpr const char* kObjects = "objects";
inline constexpr const char* kTemporary = "tmp";
inline constexpr const char* kQuarantine = "quarantine";
inline constexpr const char* kLock = "lock";

inline std::string ObjectPath(const Digest& name) { return std::string(kObjects) + "/" + HexOf(name); }

// A file that is removed unless it became an object.
class TemporaryFile {
 public:
  static Result<TemporaryFile> Create(FileSystem& files, uint64_t bytes);
  TemporaryFile(TemporaryFile&&) noexcept = default;
  TemporaryFile& operator=(TemporaryFile&& other) noexcept {
    std::swap(files_, other.files_);
    std::swap(name_, other.name_);
    std::swap(file_, other.file_);
    std::swap(kept_, other.kept_);
    return *this;
  }
  ~TemporaryFile();

  WritableFile& file() { return *file_; }
  Status MoveTo(const Digest& name);

 private:
  TemporaryFile() = default;
  FileSystem* files_ = nullptr;
  std::string name_;
  std::unique_ptr<WritableFile> file_;
  bool kept_ = false;
};

class DiskStore : public DiskTier {
 public:
  DiskStore(std::shared_ptr<FileSystem> files, const DiskOptions& options) : files_(std::move(files)), options_(options) {}
  ~DiskStore() override;
  Status Start();

  bool read_only() const override { return read_only_; }
  Result<std::vector<Fingerprint>> Fingerprints() override;
  Result<std::vector<DiskEntry>> ListAgain(const Fingerprint& fingerprint, const std::unordered_set<int64_t>& known) override;
  bool Changed() override;
  Result<int64_t> Put(std::string_view name_space, std::span<const int32_t> tokens, const Capsule& capsule, const DiskNote& note,
                      std::vector<int64_t>& evicted) override;
  Result<Capsule> Load(int64_t id, const std::shared_ptr<StateSpace>& space, const Capsule& base) override;
  Result<Capsule> LoadInto(int64_t id, const std::shared_ptr<StateSpace>& space, const Landing& landing,
                           const std::atomic<bool>& stop) override;
  Status Update(int64_t id, const DiskNote& note) override;
  Status Remove(int64_t id) override;
  uint64_t bytes() const override;
  uint64_t bytes_written() const override { return bytes_written_; }
  uint64_t rows_written() const override { return rows_written_; }
  Result<CheckReport> Check() override;
  Result<uint64_t> CollectGarbage() override;
  std::vector<std::string> TakeNotices() override;
  Result<Shipment> PlanExport(std::span<const int64_t> ids) override;
  Result<std::unique_ptr<ReadableFile>> OpenExported(const Digest& object) override;
  Result<std::vector<int64_t>> Import(const Arrival& arrival, ObjectStream& stream) override;

 private:
  // What a capsule on disk consists of: its block, and the rows [segment.first, until) of each segment, without gaps from row 0 to its position.
  struct Located {
    IndexedCapsule capsule;
    IndexedNamespace name_space;
    std::vector<Index::Step> path;
  };
  struct Draft;
  struct Intake;

  // disk_tier.cc
  Status Prepare();
  Status OpenIndex(bool alone);
  Result<Located> Locate(int64_t id);
  Result<std::unique_ptr<ObjectReader>> OpenObject(const IndexedObject& object, ObjectKind kind, const Fingerprint& fingerprint,
                                                   const Digest& salt, int32_t first, int32_t last, const Digest& below);
  Result<uint64_t> Usage();  // bytes that count towards the budget
  Status Unlink(const std::vector<Digest>& objects);
  void Notice(std::string text) { notices_.push_back(std::move(text)); }
  Status Writable() const;

  // disk_put.cc
  Result<int64_t> Reserve(Draft& draft, std::vector<int64_t>& evicted);
  Status Plan(Draft& draft);
  Status MakeRoom(const std::vector<Index::Step>& in_use, uint64_t needed, double ceiling, Transaction& transaction,
                  std::vector<int64_t>& evicted);
  double WorthOf(const Draft& draft, const std::vector<Index::Step>& path);
  Status Write(Draft& draft, const Capsule& capsule);
  Result<int64_t> Commit(Draft& draft);

  // disk_ship.cc
  Result<IndexedNamespace> Welcome(const Arrival& arrival, uint64_t bytes);
  Status TakeIn(Intake& intake, ObjectStream& stream, uint64_t bytes);
  Status Settle(Intake& intake, ObjectHead& head, const Digest& source, bool& wanted);
  Result<std::vector<int64_t>> ListIntake(const Arrival& arrival, Intake& intake);

  // disk_load.cc
  Result<Capsule> LoadOnce(int64_t id, const std::shared_ptr<StateSpace>& space, const Landing& landing, const std::atomic<bool>& stop,
                           bool& again);
  Status ReadState(const Located& located, StateSpace& space, const Landing& landing, const std::atomic<bool>& stop, Digest& reading);

  // disk_care.cc
  struct Finding {
    Digest object;
    std::string what;
    bool damaged;  // and not only out of reach: an error of the device may pass
  };
  std::vector<Finding> Examine(const std::vector<IndexedCapsule>& capsules, const std::vector<IndexedSegment>& segments,
                               const std::vector<IndexedNamespace>& name_spaces, const Digest* only = nullptr);
  Result<bool> Quarantine(const Digest& object, std::string_view why);  // false: it is sound now, or gone
  Result<uint64_t> Sweep();                                             // removes orphans
  Result<std::vector<std::string>> Orphans();
  Status Rebuild();

  std::shared_ptr<FileSystem> files_;
  const DiskOptions options_;
  bool read_only_ = false;
  std::unique_ptr<FileLock> lock_;  // shared: the directory is in use

  mutable std::mutex mutex_;  // guards what follows; not held while state is read or written
  std::unique_ptr<Index> index_;
  int64_t seen_version_ = -1;
  bool sweep_due_ = false;  // a removal or a commit failed half way
  std::set<Digest> bad_;    // of a read-only directory, where nothing can be quarantined
  std::vector<std::string> notices_;

  std::atomic<uint64_t> bytes_written_ = 0;
  std::atomic<uint64_t> rows_written_ = 0;
};

}  // namespace reprise
