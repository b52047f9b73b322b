// FileSystem: every touch of the disk that the store makes, so that tests can make any of them fail, tear or be forgotten.
//
// Paths are names within one directory that is opened once, "file" or "folder/file": no name leads out of it and no link is followed (openat,
// O_NOFOLLOW; names are made by the store, never by a client). Thread-safe. Errors are kNotFound, kExhausted (no space), or kIo, with the name
// and the reason.
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

// A file being written. Closed by its destructor. While it is open nobody takes it for abandoned, neither here nor in another process.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual Status Append(std::span<const std::byte> bytes) = 0;  // all of them, or an error
  virtual Status Sync() = 0;  // after a failed sync nothing of the file may be trusted, and it is not tried again
};

// A file being read. What it reads is one file, whatever happens to the name meanwhile.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual uint64_t size() const = 0;
  // Fills every piece in turn from what follows `offset`: fewer bytes are an error.
  virtual Status ReadAt(uint64_t offset, std::span<const std::span<std::byte>> into) = 0;
  Status ReadAt(uint64_t offset, std::span<std::byte> into) { return ReadAt(offset, std::span(&into, 1)); }
};

// An advisory lock on a name, held until it is destroyed or the process ends.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

class FileSystem {
 public:
  // The real one. Creates `directory` with mode 0700 where it is missing, unless `read_only`. A directory that is there must be one that only its owner
  // can write.
  static Result<std::shared_ptr<FileSystem>> Open(const std::string& directory, bool read_only);
  // A file anywhere, by a path that a person gave.
  static Result<std::unique_ptr<ReadableFile>> OpenPath(const std::string& path);
  virtual ~FileSystem() = default;

  virtual bool writable() const = 0;  // whether it was opened to be written, and the operating system would allow it

  // With mode 0600; must not exist. Its size is `bytes` from the start, so that the disk's end shows before anything is written.
  virtual Result<std::unique_ptr<WritableFile>> Create(const std::string& name, uint64_t bytes) = 0;
  virtual Status Touch(const std::string& name) = 0;  // creates it empty; one that is there is not opened
  virtual Result<std::unique_ptr<ReadableFile>> OpenFile(const std::string& name) = 0;
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  virtual Status Remove(const std::string& name) = 0;
  // Removes a file that Create() made, unless somebody is still writing it; returns whether it is gone.
  virtual Result<bool> RemoveAbandoned(const std::string& name) = 0;
  virtual Status SyncDirectory(const std::string& name) = 0;  // "" is the directory itself
  virtual Status MakeDirectory(const std::string& name) = 0;  // fine when it is there
  struct Listed {
    std::string name;
    uint64_t bytes = 0;
  };
  virtual Result<std::vector<Listed>> List(const std::string& name) = 0;  // its files; empty when the directory is missing
  // Null when somebody holds it otherwise. Creates the file.
  virtual Result<std::unique_ptr<FileLock>> Lock(const std::string& name, bool exclusive) = 0;

  // Where SQLite finds `name`; and the VFS through which it does, null for the default.
  virtual std::string PathOf(const std::string& name) const = 0;
  virtual const char* sqlite_vfs() const = 0;
};

}  // namespace reprise
