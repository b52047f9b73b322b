// For tests alone: a file system whose reads of objects stand still while a gate is closed, as on a disk that does not answer. The index, which SQLite
// reads by itself, goes on.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "store/file_system.h"

namespace reprise::testing_support {

class Gate {
 public:
  void Close() { Set(false); }
  void Open() { Set(true); }
  // Returns once a read stands before the closed gate.
  void AwaitReader() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return standing_ > 0; });
  }
  int passed() {
    const std::lock_guard lock(mutex_);
    return passed_;
  }
  void Pass() {
    std::unique_lock lock(mutex_);
    ++standing_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
    --standing_;
    ++passed_;
  }

 private:
  void Set(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  int standing_ = 0, passed_ = 0;
};

class GatedFileSystem : public FileSystem {
 public:
  GatedFileSystem(std::shared_ptr<FileSystem> files, Gate& gate) : files_(std::move(files)), gate_(gate) {}

  bool writable() const override { return files_->writable(); }
  Result<std::unique_ptr<WritableFile>> Create(const std::string& name, uint64_t bytes) override { return files_->Create(name, bytes); }
  Status Touch(const std::string& name) override { return files_->Touch(name); }
  Result<std::unique_ptr<ReadableFile>> OpenFile(const std::string& name) override {
    REPRISE_ASSIGN_OR_RETURN(auto file, files_->OpenFile(name));
    return std::unique_ptr<ReadableFile>(std::make_unique<File>(std::move(file), gate_));
  }
  Status Rename(const std::string& from, const std::string& to) override { return files_->Rename(from, to); }
  Status Remove(const std::string& name) override { return files_->Remove(name); }
  Result<bool> RemoveAbandoned(const std::string& name) override { return files_->RemoveAbandoned(name); }
  Status SyncDirectory(const std::string& name) override { return files_->SyncDirectory(name); }
  Status MakeDirectory(const std::string& name) override { return files_->MakeDirectory(name); }
  Result<std::vector<Listed>> List(const std::string& name) override { return files_->List(name); }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& name, bool exclusive) override { return files_->Lock(name, exclusive); }
  std::string PathOf(const std::string& name) const override { return files_->PathOf(name); }
  const char* sqlite_vfs() const override { return files_->sqlite_vfs(); }

 private:
  class File : public ReadableFile {
   public:
    File(std::unique_ptr<ReadableFile> file, Gate& gate) : file_(std::move(file)), gate_(gate) {}
    uint64_t size() const override { return file_->size(); }
    Status ReadAt(uint64_t offset, std::span<const std::span<std::byte>> into) override {
      gate_.Pass();
      return file_->ReadAt(offset, into);
    }

   private:
    std::unique_ptr<ReadableFile> file_;
    Gate& gate_;
  };

  std::shared_ptr<FileSystem> files_;
  Gate& gate_;
};

}  // namespace reprise::testing_support
