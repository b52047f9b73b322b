// For tests alone: a disk in memory that remembers every operation, so that it can lose power after any of them, and that can be made to fail.
//
// What a power cut may leave is taken from the worst that POSIX allows: data of a file is safe once the file was synced, a name once its directory
// was. Whatever was not may be there, be missing, or (writes) have landed in some of its sectors, each independently of the others. Only a rename is
// never lost on both sides.
//
// The store's own files (SimulatedFileSystem) and SQLite's (simulated_vfs.h) lie on one disk and in one history. One thread.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "store/file_system.h"

namespace reprise::testing_support {

struct Inode {
  std::vector<std::byte> bytes;
  int writers = 0;  // open WritableFiles
  // Locks and shared memory of SQLite; gone with the power.
  std::map<const void*, int> locks;
  std::vector<std::unique_ptr<std::byte[]>> shared;
  int shared_users = 0;
  struct Slot {
    std::set<const void*> readers;
    const void* writer = nullptr;
  } slots[8];
};
using InodePointer = std::shared_ptr<Inode>;

enum class Fault { kNone, kIo, kNoSpace, kShortWrite };

class SimulatedDisk {
 public:
  std::map<std::string, InodePointer> names;  // "file" or "folder/file"
  std::set<std::string> folders;
  std::map<std::string, std::pair<int, bool>> file_locks;  // holders, exclusively

  // Asked before every call; `writes` tells those that would take space.
  std::function<Fault(const char* call, bool writes)> fault = [](const char*, bool) { return Fault::kNone; };
  uint64_t bytes_limit = ~uint64_t{0};  // a full disk
  // A disk that says yes to a sync of that file, or "folder/", and does nothing: to see that a test would notice.
  std::function<bool(const std::string& name)> deaf = [](const std::string&) { return false; };

  static std::string FolderOf(const std::string& name) {
    const size_t slash = name.find('/');
    return slash == std::string::npos ? "" : name.substr(0, slash);
  }
  InodePointer Find(const std::string& name) const {
    const auto found = names.find(name);
    return found == names.end() ? nullptr : found->second;
  }
  uint64_t UsedBytes() const {
    uint64_t bytes = 0;
    std::set<const Inode*> seen;
    for (const auto& [name, inode] : names) {
      if (seen.insert(inode.get()).second) bytes += inode->bytes.size();
    }
    return bytes;
  }

  InodePointer Create(const std::string& name) {
    auto inode = std::make_shared<Inode>();
    Log({.kind = Kind::kLink, .name = name, .inode = inode});
    names[name] = inode;
    return inode;
  }
  void Write(const InodePointer& inode, uint64_t offset, std::span<const std::byte> bytes) {
    Log({.kind = Kind::kWrite, .inode = inode, .offset = offset, .bytes = {bytes.begin(), bytes.end()}});
    Apply(*inode, offset, bytes);
  }
  void Truncate(const InodePointer& inode, uint64_t size) {
    Log({.kind = Kind::kTruncate, .inode = inode, .offset = size});
    inode->bytes.resize(size);
  }
  void SyncFile(const std::string& name, const InodePointer& inode) {
    if (!deaf(name)) Log({.kind = Kind::kSyncFile, .inode = inode});
  }
  void SyncFolder(const std::string& folder) {
    if (!deaf(folder + "/")) Log({.kind = Kind::kSyncFolder, .name = folder});
  }
  void Unlink(const std::string& name) {
    Log({.kind = Kind::kUnlink, .name = name});
    names.erase(name);
  }
  void Rename(const std::string& from, const std::string& to) {
    const InodePointer inode = Find(from);
    Log({.kind = Kind::kLink, .name = to, .inode = inode});
    Log({.kind = Kind::kUnlink, .name = from, .only_after_previous = true});
    names[to] = inode;
    names.erase(from);
  }

  size_t history() const { return log_.size(); }

  enum class Loss { kEverythingUnsynced, kNothing, kRandom };
  // What the disk may hold when power fails after the first `operations`.
  std::unique_ptr<SimulatedDisk> PowerCut(size_t operations, Loss loss, uint32_t seed) const {
    std::minstd_rand random(seed);
    auto left = std::make_unique<SimulatedDisk>();
    left->folders = folders;
    std::map<const Inode*, InodePointer> copies;
    const auto copy = [&](const InodePointer& inode) -> Inode& {
      auto& there = copies[inode.get()];
      if (there == nullptr) {
        there = std::make_shared<Inode>();
        if (const auto start = start_.find(inode.get()); start != start_.end()) there->bytes = start->second;
      }
      return *there;
    };
    for (const auto& [name, inode] : start_names_) {
      copy(inode);
      left->names[name] = copies[inode.get()];
    }
    bool previous_landed = true;
    for (size_t i = 0; i < operations; ++i) {
      const Operation& operation = log_[i];
      if (operation.kind == Kind::kSyncFile || operation.kind == Kind::kSyncFolder) continue;
      const bool safe = IsSafe(i, operations);
      bool lands = safe || loss == Loss::kNothing || (loss == Loss::kRandom && random() % 2 == 0);
      if (operation.only_after_previous && !previous_landed) lands = false;
      previous_landed = lands;
      if (!lands) continue;
      switch (operation.kind) {
        case Kind::kLink:
          copy(operation.inode);
          left->names[operation.name] = copies[operation.inode.get()];
          break;
        case Kind::kUnlink: left->names.erase(operation.name); break;
        case Kind::kTruncate: copy(operation.inode).bytes.resize(operation.offset); break;
        case Kind::kWrite:
          if (safe || loss == Loss::kNothing || random() % 2 == 0) {
            Apply(copy(operation.inode), operation.offset, operation.bytes);
          } else {
            Tear(copy(operation.inode), operation, random);
          }
          break;
        case Kind::kSyncFile:
        case Kind::kSyncFolder: break;
      }
    }
    left->Begin();
    return left;
  }
  // History starts here, and what is there is safe.
  void Begin() {
    log_.clear();
    start_.clear();
    start_names_ = names;
    for (const auto& [name, inode] : names) start_[inode.get()] = inode->bytes;
  }

 private:
  enum class Kind { kLink, kUnlink, kWrite, kTruncate, kSyncFile, kSyncFolder };
  struct Operation {
    Kind kind;
    std::string name = {};
    InodePointer inode = nullptr;
    uint64_t offset = 0;
    std::vector<std::byte> bytes = {};
    bool only_after_previous = false;
  };
  void Log(Operation operation) { log_.push_back(std::move(operation)); }
  static void Apply(Inode& inode, uint64_t offset, std::span<const std::byte> bytes) {
    if (inode.bytes.size() < offset + bytes.size()) inode.bytes.resize(offset + bytes.size());
    if (!bytes.empty()) std::memcpy(inode.bytes.data() + offset, bytes.data(), bytes.size());
  }
  static void Tear(Inode& inode, const Operation& operation, std::minstd_rand& random) {
    constexpr size_t kSector = 512;
    for (size_t at = 0; at < operation.bytes.size(); at += kSector) {
      if (random() % 2 != 0) continue;
      Apply(inode, operation.offset + at, std::span(operation.bytes).subspan(at, std::min(kSector, operation.bytes.size() - at)));
    }
  }
  bool IsSafe(size_t i, size_t operations) const {
    const Operation& operation = log_[i];
    const bool data = operation.kind == Kind::kWrite || operation.kind == Kind::kTruncate;
    const std::string folder = data ? "" : FolderOf(operation.name);
    for (size_t j = i + 1; j < operations; ++j) {
      if (data && log_[j].kind == Kind::kSyncFile && log_[j].inode == operation.inode) return true;
      if (!data && log_[j].kind == Kind::kSyncFolder && log_[j].name == folder) return true;
    }
    return false;
  }

  std::vector<Operation> log_;
  std::map<std::string, InodePointer> start_names_;
  std::map<const Inode*, std::vector<std::byte>> start_;
};

class SimulatedFileSystem : public FileSystem {
 public:
  SimulatedFileSystem(SimulatedDisk& disk, const char* vfs, bool writable = true) : disk_(disk), vfs_(vfs), writable_(writable) {}

  bool writable() const override { return writable_; }
  Result<std::unique_ptr<WritableFile>> Create(const std::string& name, uint64_t bytes) override {
    REPRISE_RETURN_IF_ERROR(Ask("create", name, true));
    if (disk_.Find(name) != nullptr) return IoError("'" + name + "' is there");
    if (disk_.UsedBytes() + bytes > disk_.bytes_limit) return Exhausted("no space for '" + name + "'");
    const InodePointer inode = disk_.Create(name);
    if (bytes > 0) disk_.Truncate(inode, bytes);
    return std::unique_ptr<WritableFile>(std::make_unique<Writable>(*this, name, inode));
  }
  Status Touch(const std::string& name) override {
    REPRISE_RETURN_IF_ERROR(Ask("touch", name, true));
    if (disk_.Find(name) == nullptr) disk_.Create(name);
    return Ok();
  }
  Result<std::unique_ptr<ReadableFile>> OpenFile(const std::string& name) override {
    REPRISE_RETURN_IF_ERROR(Ask("open", name, false));
    const InodePointer inode = disk_.Find(name);
    if (inode == nullptr) return NotFound("'" + name + "' is missing");
    return std::unique_ptr<ReadableFile>(std::make_unique<Readable>(*this, name, inode));
  }
  Status Rename(const std::string& from, const std::string& to) override {
    REPRISE_RETURN_IF_ERROR(Ask("rename", from, false));
    if (disk_.Find(from) == nullptr) return NotFound("'" + from + "' is missing");
    disk_.Rename(from, to);
    return Ok();
  }
  Status Remove(const std::string& name) override {
    REPRISE_RETURN_IF_ERROR(Ask("remove", name, false));
    if (disk_.Find(name) == nullptr) return NotFound("'" + name + "' is missing");
    disk_.Unlink(name);
    return Ok();
  }
  Result<bool> RemoveAbandoned(const std::string& name) override {
    REPRISE_RETURN_IF_ERROR(Ask("remove", name, false));
    const InodePointer inode = disk_.Find(name);
    if (inode != nullptr && inode->writers > 0) return false;
    if (inode != nullptr) disk_.Unlink(name);
    return true;
  }
  Status SyncDirectory(const std::string& name) override {
    REPRISE_RETURN_IF_ERROR(Ask("sync", name, false));
    disk_.SyncFolder(name);
    return Ok();
  }
  Status MakeDirectory(const std::string& name) override {
    REPRISE_RETURN_IF_ERROR(Ask("make", name, true));
    disk_.folders.insert(name);
    return Ok();
  }
  Result<std::vector<Listed>> List(const std::string& name) override {
    REPRISE_RETURN_IF_ERROR(Ask("list", name, false));
    std::vector<Listed> files;
    for (const auto& [path, inode] : disk_.names) {
      if (SimulatedDisk::FolderOf(path) == name) files.push_back({name.empty() ? path : path.substr(name.size() + 1), inode->bytes.size()});
    }
    return files;
  }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& name, bool exclusive) override {
    REPRISE_RETURN_IF_ERROR(Ask("lock", name, true));
    if (disk_.Find(name) == nullptr) disk_.Create(name);
    auto& [holders, exclusively] = disk_.file_locks[name];
    if (holders > 0 && (exclusive || exclusively)) return std::unique_ptr<FileLock>();
    ++holders;
    exclusively = exclusive;
    return std::unique_ptr<FileLock>(std::make_unique<Held>(disk_, name));
  }
  std::string PathOf(const std::string& name) const override { return "/" + name; }
  const char* sqlite_vfs() const override { return vfs_; }

 private:
  Status Ask(const char* call, const std::string& name, bool writes) {
    switch (disk_.fault(call, writes)) {
      case Fault::kNone: return Ok();
      case Fault::kNoSpace: return Exhausted(std::string("cannot ") + call + " '" + name + "': no space");
      default: return IoError(std::string("cannot ") + call + " '" + name + "'");
    }
  }
  class Held : public FileLock {
   public:
    Held(SimulatedDisk& disk, std::string name) : disk_(disk), name_(std::move(name)) {}
    ~Held() override { --disk_.file_locks[name_].first; }

   private:
    SimulatedDisk& disk_;
    std::string name_;
  };
  class Writable : public WritableFile {
   public:
    Writable(SimulatedFileSystem& files, std::string name, InodePointer inode)
        : files_(files), name_(std::move(name)), inode_(std::move(inode)) {
      ++inode_->writers;
    }
    ~Writable() override { --inode_->writers; }
    Status Append(std::span<const std::byte> bytes) override {
      const Fault fault = files_.disk_.fault("write", true);
      if (fault == Fault::kShortWrite) files_.disk_.Write(inode_, at_, bytes.first(bytes.size() / 2));
      if (fault != Fault::kNone)
        return fault == Fault::kIo ? IoError("cannot write '" + name_ + "'") : Exhausted("no space for '" + name_ + "'");
      files_.disk_.Write(inode_, at_, bytes);
      at_ += bytes.size();
      return Ok();
    }
    Status Sync() override {
      REPRISE_RETURN_IF_ERROR(files_.Ask("sync", name_, false));
      files_.disk_.SyncFile(name_, inode_);
      return Ok();
    }

   private:
    SimulatedFileSystem& files_;
    std::string name_;
    InodePointer inode_;
    uint64_t at_ = 0;
  };
  class Readable : public ReadableFile {
   public:
    Readable(SimulatedFileSystem& files, std::string name, InodePointer inode)
        : files_(files), name_(std::move(name)), inode_(std::move(inode)), size_(inode_->bytes.size()) {}
    uint64_t size() const override { return size_; }
    Status ReadAt(uint64_t offset, std::span<const std::span<std::byte>> into) override {
      REPRISE_RETURN_IF_ERROR(files_.Ask("read", name_, false));
      for (const auto piece : into) {
        if (offset + piece.size() > inode_->bytes.size()) return Corrupt("'" + name_ + "' ends too early");
        if (!piece.empty()) std::memcpy(piece.data(), inode_->bytes.data() + offset, piece.size());
        offset += piece.size();
      }
      return Ok();
    }
    using ReadableFile::ReadAt;

   private:
    SimulatedFileSystem& files_;
    std::string name_;
    InodePointer inode_;
    uint64_t size_;
  };

  SimulatedDisk& disk_;
  const char* vfs_;
  bool writable_;
};

}  // namespace reprise::testing_support
