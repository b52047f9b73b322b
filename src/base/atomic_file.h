// AtomicFile: a file written piece by piece that appears under its name whole, or not at all.
//
// For files too large to hold in memory; WriteFileAtomically (base/file.h) does the same for bytes at hand. The bytes go to a temporary
// file in the same directory (a rename elsewhere would not be atomic), which the destructor removes unless Commit() succeeded. Move-only;
// one thread at a time. Errors are kIo, or kNotFound when the directory is missing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "reprise/status.h"

namespace reprise {

class AtomicFile {
 public:
  // `mode` as for open(2).
  static Result<AtomicFile> Create(const std::string& path, int mode = 0644);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();

  // Appends, unbuffered.
  Status Write(std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }  // bytes written so far

  // Syncs, renames over the path, syncs the directory. After an error `path` is as it was; after success nothing more may be written.
  Status Commit();

 private:
  AtomicFile() = default;

  int fd_ = -1;
  int mode_ = 0;
  uint64_t size_ = 0;
  std::string path_;
  std::string temporary_;  // empty once there is nothing to remove
};

}  // namespace reprise
