// HTTP/1.1 messages as far as a server of JSON and event streams needs them, and not a byte further: no ranges, no multipart bodies, no
// compression, no folded headers. What is not understood is refused, never guessed at, so that no two readers of one message disagree.
//
// Pure functions and values over bytes; fuzzed by http_message_fuzz.cc. Nothing here knows of sockets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace reprise::serve {

struct HttpRequest {
  std::string method;
  std::string target;                 // as sent
  std::vector<std::string> segments;  // of the path, decoded: "/v1/models" is {"v1", "models"}
  std::vector<std::pair<std::string, std::string>> query;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  bool keep_alive = true;

  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool expects_continue = false;

  std::string_view Header(std::string_view lower_case_name) const;  // "" when absent
  std::string_view Query(std::string_view name) const;
  std::string Path() const;  // "/" and the segments
};

struct HttpError {
  int status = 0;  // 0: none
  const char* what = "";
  bool ok() const { return status == 0; }
};

// `head` is everything up to and with the empty line.
HttpError ParseRequestHead(std::string_view head, HttpRequest& request);

// The body of a chunked message, as its bytes come in.
class ChunkedDecoder {
 public:
  explicit ChunkedDecoder(size_t most) : most_(most) {}
  // Takes from the front of `bytes` what belongs to the message and appends the content to `body`. Returns how many bytes were taken.
  size_t Feed(std::string_view bytes, std::string& body);
  bool done() const { return state_ == State::kDone; }
  HttpError error() const { return error_; }

 private:
  enum class State { kSize, kExtension, kSizeLf, kData, kDataCr, kDataLf, kTrailer, kTrailerLine, kTrailerLf, kEndLf, kDone, kFailed };
  void Fail(int status, const char* what);
  void SizeByte(char c);

  size_t most_;
  State state_ = State::kSize;
  uint64_t left_ = 0;
  int digits_ = 0;
  size_t overhead_ = 0;  // bytes of sizes, extensions and trailers
  HttpError error_;
};

std::string_view ReasonPhrase(int status);
// "%20" and the like; nullopt for anything malformed, or for a byte of zero.
std::optional<std::string> PercentDecode(std::string_view text);

}  // namespace reprise::serve
