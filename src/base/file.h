// Files: mapped for reading, or written whole so that a reader sees the old file or the new one, never a mixture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "reprise/status.h"

namespace reprise {

// A read-only private mapping of a whole file. Move-only; the bytes stay valid and in place for the object's life, moves included.
// The mapping reads the page cache, so a file that another process truncates meanwhile can still fault: models are trusted to stay.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  // Fails with kNotFound or kIo; an empty file maps to an empty span.
  static Result<MappedFile> Open(const std::string& path);

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The whole file, refused with kExhausted when it is larger than `max_bytes`.
Result<std::vector<std::byte>> ReadFile(const std::string& path, uint64_t max_bytes);

// Writes beside `path`, syncs, renames over it, syncs the directory. On an error `path` is as it was. `mode` as for open(2).
Status WriteFileAtomically(const std::string& path, std::span<const std::byte> bytes, int mode = 0644);

}  // namespace reprise
