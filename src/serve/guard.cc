#include "serve/guard.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <fstream>

namespace reprise::serve {
namespace {

constexpr size_t kLeastKeyBytes = 8;
constexpr size_t kMostKeyBytes = 1024;

void Digest(std::string_view key, unsigned char (&digest)[32]) {
  crypto_generichash(digest, sizeof(digest), reinterpret_cast<const unsigned char*>(key.data()), key.size(), nullptr, 0);
}

}  // namespace

Result<Keys> Keys::Load(const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) return IoError("cannot read the key file '" + path + "': " + std::strerror(errno));
  if ((facts.st_mode & 077) != 0) return InvalidArgument("the key file '" + path + "' can be read by others; chmod 600 it");
  std::ifstream file(path);
  Keys keys;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    while (!line.empty() && (line.back() == ' ' || line.back() == '\r' || line.back() == '\t')) line.pop_back();
    if (line.empty() || line.front() == '#') continue;
    if (line.size() < kLeastKeyBytes || line.size() > kMostKeyBytes) {
      return InvalidArgument(
          fmt::format("line {} of the key file '{}' is not of {} to {} characters", number, path, kLeastKeyBytes, kMostKeyBytes));
    }
    Key key;
    Digest(line, key.digest);
    key.name_space = "key-";
    for (int i = 0; i < 8; ++i) key.name_space += fmt::format("{:02x}", key.digest[i]);
    keys.keys_.push_back(std::move(key));
  }
  if (!file.eof()) return IoError("cannot read the key file '" + path + "'");
  if (keys.empty()) return InvalidArgument("the key file '" + path + "' holds no key");
  return keys;
}

std::optional<std::string> Keys::NameSpaceOf(std::string_view given) const {
  unsigned char digest[32];
  Digest(given, digest);
  const Key* found = nullptr;
  for (const Key& key : keys_) {
    if (sodium_memcmp(digest, key.digest, sizeof(digest)) == 0) found = &key;
  }
  if (found == nullptr) return std::nullopt;
  return found->name_space;
}

bool IsLoopbackHost(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    const std::string_view rest = end == std::string_view::npos ? "x" : host.substr(end + 1);
    return host.substr(0, end) == "[::1" && (rest.empty() || rest.front() == ':');
  }
  const std::string name(host.substr(0, host.find(':')));
  if (name == "localhost" || name.ends_with(".localhost")) return true;
  in_addr address{};
  return inet_pton(AF_INET, name.c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

bool IsLoopbackOrigin(std::string_view origin) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (origin.starts_with(scheme)) return IsLoopbackHost(origin.substr(scheme.size()));
  }
  return false;
}

std::optional<Caller> Admit(const HttpRequest& request, const Keys& keys, bool loopback, bool public_route, ApiError& error) {
  if (loopback && !request.Header("host").empty() && !IsLoopbackHost(request.Header("host"))) {
    error.Set(403, "this server answers to the names of this machine alone", "", "wrong_host");
    return std::nullopt;
  }
  // Browsers send an Origin with whatever a page asks for. A page from elsewhere has no business here, whether or not it could read the answer.
  const std::string_view origin = request.Header("origin");
  if (!origin.empty() && !IsLoopbackOrigin(origin)) {
    const std::string_view host = request.Header("host");
    const bool own = origin.ends_with(host) && (origin == "http://" + std::string(host) || origin == "https://" + std::string(host));
    if (!own) {
      error.Set(403, "pages of other sites may not use this server", "", "wrong_origin");
      return std::nullopt;
    }
  }
  if (public_route || keys.empty()) return Caller{};
  std::string_view key = request.Header("x-api-key");
  if (const std::string_view bearer = request.Header("authorization"); key.empty() && bearer.size() > 7) {
    const std::string_view scheme = bearer.substr(0, 7);
    if (scheme == "Bearer " || scheme == "bearer ") key = bearer.substr(7);
  }
  auto name_space = keys.NameSpaceOf(key);
  if (!name_space) {
    error.Set(401,
              key.empty() ? "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
                          : "the API key is not one of this server's",
              "", "invalid_api_key");
    return std::nullopt;
  }
  return Caller{*std::move(name_space)};
}

}  // namespace reprise::serve
