#include "store/bundle_keys.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "store/bundle.h"

namespace reprise {
namespace {

constexpr std::string_view kSigning = "reprise-signing-key ";
constexpr std::string_view kPublic = "reprise-public-key ";
constexpr std::string_view kSecret = "reprise-encryption-key ";

Status WriteKey(const std::string& path, std::string_view kind, std::span<const uint8_t> key) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return IoError(fmt::format("cannot create '{}': {}", path, std::strerror(errno)));
  std::string line(kind);
  for (const uint8_t byte : key) line += fmt::format("{:02x}", byte);
  line += '\n';
  const bool written = ::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()) && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  ::sodium_memzero(line.data(), line.size());
  if (written) return Ok();
  ::unlink(path.c_str());
  return IoError(fmt::format("cannot write '{}': {}", path, std::strerror(error)));
}

Status ReadKey(const std::string& path, std::string_view kind, std::span<uint8_t> key) {
  REPRISE_ASSIGN_OR_RETURN(auto bytes, ReadFile(path, 4096));
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  size_t count = 0;
  const char* end = nullptr;
  const bool right_kind = text.starts_with(kind);
  if (right_kind) text.remove_prefix(kind.size());
  const bool read = right_kind && ::sodium_hex2bin(key.data(), key.size(), text.data(), text.size(), nullptr, &count, &end) == 0 &&
                    count == key.size() && end == text.data() + text.size();
  ::sodium_memzero(bytes.data(), bytes.size());
  return read ? Ok() : InvalidArgument(fmt::format("'{}' does not hold a {}", path, kind.substr(0, kind.size() - 1)));
}

}  // namespace

Status WriteSigningKeys(const std::string& path) {
  if (::sodium_init() < 0) return Internal("libsodium cannot be used on this machine");
  PublicKey public_key;
  SigningKey signing_key;
  ::crypto_sign_keypair(public_key.data(), signing_key.data());
  Status status = WriteKey(path, kSigning, signing_key);
  ::sodium_memzero(signing_key.data(), signing_key.size());
  if (!status.ok()) return status;
  status = WriteKey(path + ".pub", kPublic, public_key);
  if (!status.ok()) ::unlink(path.c_str());
  return status;
}

Status WriteEncryptionKey(const std::string& path) {
  if (::sodium_init() < 0) return Internal("libsodium cannot be used on this machine");
  SecretKey key;
  ::crypto_secretstream_xchacha20poly1305_keygen(key.data());
  Status status = WriteKey(path, kSecret, key);
  ::sodium_memzero(key.data(), key.size());
  return status;
}

Result<SigningKey> ReadSigningKey(const std::string& path) {
  SigningKey key;
  REPRISE_RETURN_IF_ERROR(ReadKey(path, kSigning, key));
  return key;
}

Result<PublicKey> ReadPublicKey(const std::string& path) {
  PublicKey key;
  REPRISE_RETURN_IF_ERROR(ReadKey(path, kPublic, key));
  return key;
}

Result<SecretKey> ReadSecretKey(const std::string& path) {
  SecretKey key;
  REPRISE_RETURN_IF_ERROR(ReadKey(path, kSecret, key));
  return key;
}

}  // namespace reprise
