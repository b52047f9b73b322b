// FileSystem: every touch of the disk that the store makes, so that tests can make any of them fail, tear or be forgotten.
//
// Paths are names within one directory that is opened once: no name leads out of it (openat, O_NOFOLLOW; names are made by the store, never
// by a client). Thread-safe. Errors are kNotFound, kExhausted (no space), or kIo with the name and the reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/status.h"

namespace reprise {

// A file being written. Closed by its destructor. While it is open no other process takes it for an orphan (an advisory lock).
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual Status Append(std::span<const std::byte> bytes) = 0;  // all of them, or an error
  virtual Status Sync() = 0;  // after a failed sync nothing of the file may be trusted, and it is not tried again
};

class FileSystem {
 public:
  // The real one. Creates `directory` with mode 0700 where it is missing, unless `read_only`.
  static Result<std::shared_ptr<FileSystem>> Open(const std::string& directory, bool read_only);
  virtual ~FileSystem() = default;

  virtual Result<std::unique_ptr<WritableFile>> Create(const std::string& name) = 0;  // 0600, must not exist
  virtual Result<std::vector<std::byte>> Read(const std::string& name, uint64_t max_bytes) = 0;
  // `out.size()` bytes from `offset`: fewer is an error.
  virtual Status ReadAt(const std::string& name, uint64_t offset, std::span<std::byte> out) = 0;
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  virtual Status Remove(const std::string& name) = 0;
  virtual Status SyncDirectory(const std::string& name) = 0;  // "" is the directory itself
  virtual Status MakeDirectory(const std::string& name) = 0;  // fine when it is there
  struct Listed {
    std::string name;
    uint64_t bytes = 0;
    bool locked = false;  // being written by a live process
  };
  virtual Result<std::vector<Listed>> List(const std::string& name) = 0;
  // Where SQLite finds `name`; and the VFS through which it does, null for the default.
  virtual std::string PathOf(const std::string& name) const = 0;
  virtual const char* sqlite_vfs() const = 0;
};

}  // namespace reprise
