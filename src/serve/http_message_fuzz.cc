// Heads and chunked bodies from strangers.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "serve/http_message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reprise::serve;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  HttpRequest request;
  if (ParseRequestHead(bytes, request).ok()) {
    if (request.method.empty() || request.target.empty() || request.target[0] != '/') std::abort();
    if (request.chunked && request.content_length) std::abort();
    for (const auto& [name, value] : request.headers) {
      if (name.find_first_of("\r\n:") != std::string::npos || value.find_first_of("\r\n") != std::string::npos) std::abort();
    }
  }
  // A body in one piece and in pieces of a size that the input chooses: the same outcome.
  constexpr size_t kMost = 4096;
  ChunkedDecoder whole(kMost);
  std::string body;
  whole.Feed(bytes, body);
  if (body.size() > kMost) std::abort();
  ChunkedDecoder pieces(kMost);
  std::string again;
  const size_t step = size == 0 ? 1 : 1 + data[0] % 7;
  for (size_t at = 0; at < size && !pieces.done() && pieces.error().ok();) at += pieces.Feed(bytes.substr(at, step), again);
  if (body != again || whole.done() != pieces.done() || whole.error().status != pieces.error().status) std::abort();
  return 0;
}
