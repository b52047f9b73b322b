#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace reprise {
namespace {

Status FileError(const char* verb, const std::string& path) {
  const int error = errno;
  std::string message = std::string("cannot ") + verb + " '" + path + "': " + std::strerror(error);
  return error == ENOENT ? NotFound(std::move(message)) : IoError(std::move(message));
}

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Result<uint64_t> RegularFileSize(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return FileError("examine", path);
  if (!S_ISREG(info.st_mode)) return InvalidArgument("'" + path + "' is not a regular file");
  return static_cast<uint64_t>(info.st_size);
}

Status WriteAll(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("write", path);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return Ok();
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<MappedFile> MappedFile::Open(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return FileError("open", path);
  REPRISE_ASSIGN_OR_RETURN(const uint64_t size, RegularFileSize(fd.get(), path));
  MappedFile file;
  if (size == 0) return file;
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) return FileError("map", path);
  file.data_ = static_cast<const std::byte*>(data);
  file.size_ = size;
  return file;
}

Result<std::vector<std::byte>> ReadFile(const std::string& path, uint64_t max_bytes) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return FileError("open", path);
  REPRISE_ASSIGN_OR_RETURN(const uint64_t size, RegularFileSize(fd.get(), path));
  if (size > max_bytes) {
    return Exhausted("'" + path + "' holds " + std::to_string(size) + " bytes, more than the " + std::to_string(max_bytes) +
                     " allowed here");
  }
  std::vector<std::byte> bytes(size);
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t n = ::read(fd.get(), bytes.data() + filled, bytes.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("read", path);
    if (n == 0) return Corrupt("'" + path + "' became shorter while it was read");
    filled += static_cast<size_t>(n);
  }
  return bytes;
}

Status WriteFileAtomically(const std::string& path, std::span<const std::byte> bytes, int mode) {
  // The temporary file must share the directory, or the rename would not be atomic.
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  std::string temporary = path + ".XXXXXX";
  Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (fd.get() < 0) return FileError("create a temporary file beside", path);
  Status status = WriteAll(fd.get(), bytes, temporary);
  if (status.ok() && ::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) status = FileError("set the mode of", temporary);
  if (status.ok() && ::fsync(fd.get()) != 0) status = FileError("sync", temporary);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) status = FileError("rename onto", path);
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  Fd directory_fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory_fd.get() < 0 || ::fsync(directory_fd.get()) != 0) return FileError("sync the directory of", path);
  return Ok();
}

}  // namespace reprise
