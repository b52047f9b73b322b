#include "base/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace reprise {
namespace {

Status FileError(std::string_view verb, const std::string& path) {
  const int error = errno;
  std::string message = fmt::format("cannot {} '{}': {}", verb, path, std::strerror(error));
  return error == ENOENT ? NotFound(std::move(message)) : IoError(std::move(message));
}

}  // namespace

Result<AtomicFile> AtomicFile::Create(const std::string& path, int mode) {
  AtomicFile file;
  file.path_ = path;
  file.mode_ = mode;
  std::string temporary = path + ".XXXXXX";
  file.fd_ = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (file.fd_ < 0) return FileError("create a temporary file beside", path);
  file.temporary_ = std::move(temporary);
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      mode_(other.mode_),
      size_(other.size_),
      path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})) {}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(mode_, other.mode_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  return *this;
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status AtomicFile::Write(std::span<const std::byte> bytes) {
  if (fd_ < 0) return InvalidArgument("the file is already committed");
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("write", temporary_);
    size_ += static_cast<uint64_t>(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return Ok();
}

Status AtomicFile::Commit() {
  if (fd_ < 0) return InvalidArgument("the file is already committed");
  if (::fchmod(fd_, static_cast<mode_t>(mode_)) != 0) return FileError("set the mode of", temporary_);
  if (::fsync(fd_) != 0) return FileError("sync", temporary_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return FileError("rename onto", path_);
  temporary_.clear();
  ::close(std::exchange(fd_, -1));
  const size_t slash = path_.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const int directory_fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = directory_fd >= 0 && ::fsync(directory_fd) == 0;
  Status status = synced ? Ok() : FileError("sync the directory of", path_);
  if (directory_fd >= 0) ::close(directory_fd);
  return status;
}

}  // namespace reprise
