// Guard: who may ask, before anything of a request is looked at.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "reprise/status.h"
#include "serve/api_error.h"
#include "serve/http_message.h"
#include "serve/service.h"

namespace reprise::serve {

// The keys of a file, one a line; empty lines and lines that begin with # are passed over. Each has a namespace of its own, which is a digest
// of the key: the same key finds its capsules again after a restart, and the key itself is nowhere on disk.
class Keys {
 public:
  Keys() = default;
  // Refused when others than its owner may read it.
  static Result<Keys> Load(const std::string& path);

  bool empty() const { return keys_.empty(); }
  // The namespace of the key, or nullopt. Takes as long for a wrong key as for a right one.
  std::optional<std::string> NameSpaceOf(std::string_view key) const;

 private:
  struct Key {
    unsigned char digest[32];
    std::string name_space;
  };
  std::vector<Key> keys_;
};

// Whether an Origin or a Host is of this machine itself: localhost, *.localhost, 127.0.0.0/8 or [::1], with any port.
bool IsLoopbackHost(std::string_view host);
bool IsLoopbackOrigin(std::string_view origin);

// The caller, or an error and nothing. `public_route` needs no key. `loopback`: the server is bound there, so a Host that is not means a name
// that some page made resolve to this machine.
std::optional<Caller> Admit(const HttpRequest& request, const Keys& keys, bool loopback, bool public_route, ApiError& error);

}  // namespace reprise::serve
