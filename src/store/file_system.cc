#include "store/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace reprise {
namespace {

Status FileError(std::string_view verb, std::string_view name, int error = errno) {
  if (error == ELOOP) return IoError(fmt::format("cannot {} '{}': it is a symbolic link, and the store follows none", verb, name));
  std::string message = fmt::format("cannot {} '{}': {}", verb, name, std::strerror(error));
  if (error == ENOENT) return NotFound(std::move(message));
  if (error == ENOSPC || error == EDQUOT) return Exhausted(std::move(message));
  return IoError(std::move(message));
}

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  int Detach() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

int Retry(auto&& call) {
  int result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

class RealWritable : public WritableFile {
 public:
  RealWritable(Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
  Status Append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FileError("write", name_);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return Ok();
  }
  Status Sync() override { return ::fsync(fd_.get()) == 0 ? Ok() : FileError("sync", name_); }

 private:
  Fd fd_;
  std::string name_;
};

class RealReadable : public ReadableFile {
 public:
  RealReadable(Fd fd, std::string name, uint64_t size) : fd_(std::move(fd)), name_(std::move(name)), size_(size) {}
  uint64_t size() const override { return size_; }
  Status ReadAt(uint64_t offset, std::span<const std::span<std::byte>> into) override {
    constexpr size_t kMostPieces = 512;  // well below IOV_MAX
    for (; !into.empty(); into = into.subspan(std::min(into.size(), kMostPieces))) {
      iovec pieces[kMostPieces];
      const size_t count = std::min(into.size(), kMostPieces);
      for (size_t i = 0; i < count; ++i) pieces[i] = {into[i].data(), into[i].size()};
      REPRISE_RETURN_IF_ERROR(Fill(offset, std::span(pieces, count)));
    }
    return Ok();
  }

 private:
  Status Fill(uint64_t& offset, std::span<iovec> pieces) {
    while (true) {
      while (!pieces.empty() && pieces[0].iov_len == 0) pieces = pieces.subspan(1);
      if (pieces.empty()) return Ok();
      const ssize_t n = ::preadv(fd_.get(), pieces.data(), static_cast<int>(pieces.size()), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FileError("read", name_);
      if (n == 0) return Corrupt(fmt::format("'{}' ends at offset {}, before what it should hold", name_, offset));
      offset += static_cast<uint64_t>(n);
      for (auto left = static_cast<size_t>(n); left > 0;) {
        const size_t taken = std::min(left, pieces[0].iov_len);
        pieces[0] = {static_cast<std::byte*>(pieces[0].iov_base) + taken, pieces[0].iov_len - taken};
        left -= taken;
        if (pieces[0].iov_len == 0) pieces = pieces.subspan(1);
      }
    }
  }

  Fd fd_;
  std::string name_;
  uint64_t size_;
};

Result<std::unique_ptr<ReadableFile>> Readable(Fd fd, const std::string& name) {
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return FileError("examine", name);
  if (!S_ISREG(info.st_mode)) return IoError(fmt::format("'{}' is not a regular file", name));
  return std::unique_ptr<ReadableFile>(std::make_unique<RealReadable>(std::move(fd), name, static_cast<uint64_t>(info.st_size)));
}

class RealLock : public FileLock {
 public:
  explicit RealLock(Fd fd) : fd_(std::move(fd)) {}

 private:
  Fd fd_;
};

class RealFileSystem : public FileSystem {
 public:
  RealFileSystem(Fd root, std::string path, bool writable) : root_(std::move(root)), path_(std::move(path)), writable_(writable) {}

  bool writable() const override { return writable_; }

  Result<std::unique_ptr<WritableFile>> Create(const std::string& name, uint64_t bytes) override {
    while (true) {
      REPRISE_ASSIGN_OR_RETURN(Fd fd, OpenAt(name, O_WRONLY | O_CREAT | O_EXCL, "create"));
      if (Retry([&] { return ::flock(fd.get(), LOCK_EX); }) != 0) return FileError("lock", name);
      struct stat info {};
      if (::fstat(fd.get(), &info) != 0) return FileError("examine", name);
      if (info.st_nlink == 0) continue;  // somebody took it for abandoned before it was locked
      if (Status status = Reserve(fd.get(), bytes, name); !status.ok()) {
        (void)Remove(name);
        return status;
      }
      return std::unique_ptr<WritableFile>(std::make_unique<RealWritable>(std::move(fd), name));
    }
  }

  Status Touch(const std::string& name) override {
    // Closing any descriptor of a file drops this process's record locks on it, SQLite's among them: so what exists is not opened.
    REPRISE_ASSIGN_OR_RETURN(const Place place, Within(name));
    const Fd fd(Retry([&] { return ::openat(place.folder(root_), place.file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600); }));
    return fd.open() || errno == EEXIST ? Ok() : FileError("create", name);
  }

  Result<std::unique_ptr<ReadableFile>> OpenFile(const std::string& name) override {
    // Not blocking: a pipe under this name must not hold the store up.
    REPRISE_ASSIGN_OR_RETURN(Fd fd, OpenAt(name, O_RDONLY | O_NONBLOCK, "open"));
    return Readable(std::move(fd), name);
  }

  Status Rename(const std::string& from, const std::string& to) override {
    REPRISE_ASSIGN_OR_RETURN(const Place a, Within(from));
    REPRISE_ASSIGN_OR_RETURN(const Place b, Within(to));
    return ::renameat(a.folder(root_), a.file.c_str(), b.folder(root_), b.file.c_str()) == 0 ? Ok() : FileError("rename", from);
  }

  Status Remove(const std::string& name) override {
    REPRISE_ASSIGN_OR_RETURN(const Place place, Within(name));
    return ::unlinkat(place.folder(root_), place.file.c_str(), 0) == 0 ? Ok() : FileError("remove", name);
  }

  Result<bool> RemoveAbandoned(const std::string& name) override {
    auto fd = OpenAt(name, O_RDONLY | O_NONBLOCK, "open");
    if (fd.ok() && ::flock(fd->get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return false;
      return FileError("lock", name);
    }
    if (!fd.ok() && fd.status().code() == StatusCode::kNotFound) return true;
    Status status = Remove(name);  // what cannot be opened is no file of ours, and goes too
    if (!status.ok() && status.code() != StatusCode::kNotFound) return status;
    return true;
  }

  Status SyncDirectory(const std::string& name) override {
    REPRISE_ASSIGN_OR_RETURN(const Fd fd, OpenFolder(name));
    return ::fsync(fd.get()) == 0 ? Ok() : FileError("sync", name.empty() ? path_ : name);
  }

  Status MakeDirectory(const std::string& name) override {
    return ::mkdirat(root_.get(), name.c_str(), 0700) == 0 || errno == EEXIST ? Ok() : FileError("create", name);
  }

  Result<std::vector<Listed>> List(const std::string& name) override {
    std::vector<Listed> files;
    auto fd = OpenFolder(name);
    if (!fd.ok() && fd.status().code() == StatusCode::kNotFound) return files;
    if (!fd.ok()) return fd.status();
    const int folder = fd->get();
    DIR* stream = ::fdopendir(fd->Detach());
    if (stream == nullptr) return FileError("list", name);
    const std::unique_ptr<DIR, int (*)(DIR*)> close(stream, ::closedir);
    while (true) {
      errno = 0;
      const dirent* entry = ::readdir(stream);
      if (entry == nullptr) break;
      struct stat info {};
      if (::fstatat(folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;  // gone meanwhile
      if (S_ISDIR(info.st_mode)) continue;
      files.push_back({entry->d_name, S_ISREG(info.st_mode) ? static_cast<uint64_t>(info.st_size) : 0});
    }
    if (errno != 0) return FileError("list", name);
    return files;
  }

  Result<std::unique_ptr<FileLock>> Lock(const std::string& name, bool exclusive) override {
    REPRISE_ASSIGN_OR_RETURN(Fd fd, OpenAt(name, O_RDONLY | O_CREAT, "open"));
    if (Retry([&] { return ::flock(fd.get(), (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB); }) == 0) {
      return std::unique_ptr<FileLock>(std::make_unique<RealLock>(std::move(fd)));
    }
    if (errno == EWOULDBLOCK) return std::unique_ptr<FileLock>();
    return FileError("lock", name);
  }

  std::string PathOf(const std::string& name) const override { return path_ + "/" + name; }
  const char* sqlite_vfs() const override { return nullptr; }

 private:
  // Where a name lies: a folder of the directory, or the directory itself.
  struct Place {
    Fd own;
    std::string file;
    int folder(const Fd& root) const { return own.open() ? own.get() : root.get(); }
  };

  Result<Place> Within(const std::string& name) const {
    const size_t slash = name.find('/');
    Place place;
    place.file = slash == std::string::npos ? name : name.substr(slash + 1);
    if (place.file.empty() || place.file == "." || place.file == ".." || place.file.find('/') != std::string::npos) {
      return Internal(fmt::format("'{}' is no name of a file of the store", name));
    }
    if (slash != std::string::npos) {
      REPRISE_ASSIGN_OR_RETURN(place.own, OpenFolder(name.substr(0, slash)));
    }
    return place;
  }

  Result<Fd> OpenFolder(const std::string& name) const {
    if (name == "..") return Internal("'..' is no folder of the store");
    Fd fd(::openat(root_.get(), name.empty() ? "." : name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.open()) return FileError("open", name.empty() ? path_ : name);
    return fd;
  }

  Result<Fd> OpenAt(const std::string& name, int flags, std::string_view verb) const {
    REPRISE_ASSIGN_OR_RETURN(const Place place, Within(name));
    Fd fd(Retry([&] { return ::openat(place.folder(root_), place.file.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, 0600); }));
    if (!fd.open()) return FileError(verb, name);
    return fd;
  }

  static Status Reserve(int fd, uint64_t bytes, const std::string& name) {
    if (bytes == 0) return Ok();
    if (::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0) return Ok();
    if (errno != EOPNOTSUPP && errno != ENOSYS) return FileError("make room for", name);
    return ::ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? Ok() : FileError("make room for", name);
  }

  Fd root_;
  std::string path_;
  bool writable_;
};

}  // namespace

Result<std::unique_ptr<ReadableFile>> FileSystem::OpenPath(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd.open()) return FileError("open", path);
  return Readable(std::move(fd), path);
}

Result<std::shared_ptr<FileSystem>> FileSystem::Open(const std::string& directory, bool read_only) {
  if (!read_only && ::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST && errno != EROFS) {
    return FileError("create the store's directory", directory);
  }
  Fd root(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.open()) return FileError("open the store's directory", directory);
  struct stat info {};
  if (::fstat(root.get(), &info) != 0) return FileError("examine", directory);
  if ((info.st_mode & 022) != 0) {
    return InvalidArgument(
        fmt::format("others can write to '{}' (mode {:o}), and so to whatever is restored from it; make it 0700, or give "
                    "a directory of the store's own",
                    directory, info.st_mode & 07777));
  }
  // SQLite wants a path. Without links in it, so that it may refuse any link that it meets.
  const std::unique_ptr<char, void (*)(void*)> path(::realpath(directory.c_str(), nullptr), ::free);
  if (path == nullptr) return FileError("find", directory);
  const bool writable = !read_only && ::faccessat(root.get(), ".", W_OK | X_OK, AT_EACCESS) == 0;
  return std::shared_ptr<FileSystem>(std::make_shared<RealFileSystem>(std::move(root), path.get(), writable));
}

}  // namespace reprise
