#include "serve/http_message.h"

#include <algorithm>

namespace reprise::serve {
namespace {

constexpr size_t kMostHeaders = 100;
constexpr size_t kMostOverhead = 64 << 10;  // of a chunked body

bool IsTokenChar(char c) {
  constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || kOthers.find(c) != std::string_view::npos;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return lower;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The next line without its end; nullopt unless it ends in CR LF.
std::optional<std::string_view> NextLine(std::string_view& text) {
  const size_t end = text.find("\r\n");
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 2);
  if (line.find('\r') != std::string_view::npos || line.find('\n') != std::string_view::npos) return std::nullopt;
  return line;
}

HttpError ParseTarget(std::string_view target, HttpRequest& request) {
  request.target = target;
  if (target.empty() || target.front() != '/') return {400, "the request target must be a path"};
  for (const char c : target) {
    if (c <= ' ' || c >= 127) return {400, "the request target holds a byte that no URL may"};
  }
  const size_t question = target.find('?');
  std::string_view path = target.substr(1, question == std::string_view::npos ? question : question - 1);
  while (!path.empty()) {
    const size_t slash = path.find('/');
    auto segment = PercentDecode(path.substr(0, slash));
    if (!segment) return {400, "the path is not encoded as URLs are"};
    request.segments.push_back(*std::move(segment));
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  if (question == std::string_view::npos) return {};
  std::string_view query = target.substr(question + 1);
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    const size_t equals = pair.find('=');
    auto name = PercentDecode(pair.substr(0, equals));
    auto value = PercentDecode(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1));
    if (!name || !value) return {400, "the query is not encoded as URLs are"};
    request.query.emplace_back(*std::move(name), *std::move(value));
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return {};
}

HttpError ParseHeader(std::string_view line, HttpRequest& request) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return {400, "a header line has no name and colon"};
  const std::string_view name = line.substr(0, colon);
  if (!std::all_of(name.begin(), name.end(), IsTokenChar)) return {400, "a header's name holds a byte that none may"};
  const std::string_view value = Trim(line.substr(colon + 1));
  for (const char c : value) {
    if ((static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 127) return {400, "a header's value holds a control character"};
  }
  if (request.headers.size() >= kMostHeaders) return {431, "the request has too many headers"};
  request.headers.emplace_back(Lower(name), std::string(value));
  return {};
}

HttpError Interpret(bool version_1_0, HttpRequest& request) {
  int hosts = 0;
  int lengths = 0;
  for (const auto& [name, value] : request.headers) {
    if (name == "host") ++hosts;
    if (name == "content-length") {
      if (++lengths > 1) return {400, "there is more than one Content-Length"};
      if (value.empty() || value.size() > 18 || value.find_first_not_of("0123456789") != std::string::npos) {
        return {400, "Content-Length is not a number of bytes"};
      }
      request.content_length = std::stoull(value);
    } else if (name == "transfer-encoding") {
      if (request.chunked || Lower(value) != "chunked") return {501, "the only transfer encoding understood is chunked"};
      request.chunked = true;
    } else if (name == "connection") {
      const std::string options = Lower(value);
      if (options.find("close") != std::string::npos) request.keep_alive = false;
    } else if (name == "expect") {
      if (Lower(value) != "100-continue") return {417, "the only expectation understood is 100-continue"};
      request.expects_continue = true;
    } else if (name == "content-encoding" && Lower(value) != "identity") {
      return {415, "compressed bodies are not taken"};
    }
  }
  if (hosts > 1 || (hosts == 0 && !version_1_0)) return {400, "a request needs one Host header"};
  // Two ways to say where the body ends are how requests are smuggled.
  if (request.chunked && request.content_length) return {400, "a request has a Content-Length or is chunked, not both"};
  if (request.chunked && version_1_0) return {400, "HTTP/1.0 knows no chunked bodies"};
  if (version_1_0) request.keep_alive = false;
  return {};
}

}  // namespace

std::string_view HttpRequest::Header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return {};
}

std::string_view HttpRequest::Query(std::string_view name) const {
  for (const auto& [key, value] : query) {
    if (key == name) return value;
  }
  return {};
}

std::string HttpRequest::Path() const {
  std::string path;
  for (const std::string& segment : segments) {
    path += '/';
    path += segment;
  }
  return path.empty() ? "/" : path;
}

HttpError ParseRequestHead(std::string_view head, HttpRequest& request) {
  const auto line = NextLine(head);
  if (!line) return {400, "the request line does not end in CR LF"};
  const size_t first = line->find(' ');
  const size_t second = first == std::string_view::npos ? first : line->find(' ', first + 1);
  if (second == std::string_view::npos) return {400, "the request line is not method, target and version"};
  const std::string_view method = line->substr(0, first);
  if (method.empty() || method.size() > 16 || !std::all_of(method.begin(), method.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) {
    return {400, "the method is not a word of capital letters"};
  }
  request.method = method;
  const std::string_view version = line->substr(second + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    return {version.starts_with("HTTP/") ? 505 : 400, "the version is neither HTTP/1.1 nor HTTP/1.0"};
  }
  if (const HttpError error = ParseTarget(line->substr(first + 1, second - first - 1), request); !error.ok()) return error;
  while (true) {
    const auto header = NextLine(head);
    if (!header) return {400, "a header line does not end in CR LF"};
    if (header->empty()) break;
    if (const HttpError error = ParseHeader(*header, request); !error.ok()) return error;
  }
  if (!head.empty()) return {400, "there are bytes after the headers"};
  return Interpret(version == "HTTP/1.0", request);
}

void ChunkedDecoder::Fail(int status, const char* what) {
  error_ = {status, what};
  state_ = State::kFailed;
}

void ChunkedDecoder::SizeByte(char c) {
  if (const int digit = HexDigit(c); digit >= 0) {
    if (++digits_ > 15) return Fail(400, "a chunk's size has too many digits");
    left_ = left_ * 16 + static_cast<uint64_t>(digit);
    return;
  }
  if (digits_ == 0) return Fail(400, "a chunk has no size");
  if (c == '\r') {
    state_ = State::kSizeLf;
  } else if (c == ';') {
    state_ = State::kExtension;
  } else {
    Fail(400, "a chunk's size is not a hexadecimal number");
  }
}

size_t ChunkedDecoder::Feed(std::string_view bytes, std::string& body) {
  size_t at = 0;
  const auto expect = [&](char c, char wanted, State next) {
    if (c == wanted) {
      state_ = next;
    } else {
      Fail(400, "a line of a chunked body does not end in CR LF");
    }
  };
  while (at < bytes.size() && state_ != State::kDone && state_ != State::kFailed) {
    if (state_ == State::kData) {
      const auto count = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size() - at));
      body.append(bytes.substr(at, count));
      at += count;
      left_ -= count;
      if (left_ == 0) state_ = State::kDataCr;
      continue;
    }
    const char c = bytes[at++];
    if (++overhead_ > kMostOverhead + body.size()) Fail(400, "a chunked body is mostly not content");
    switch (state_) {
      case State::kSize: SizeByte(c); break;
      case State::kExtension:
        if (c == '\r') state_ = State::kSizeLf;
        break;
      case State::kSizeLf:
        expect(c, '\n', left_ == 0 ? State::kTrailer : State::kData);
        if (left_ > most_ - std::min(most_, body.size())) Fail(413, "the body is larger than this server takes");
        digits_ = 0;
        break;
      case State::kDataCr: expect(c, '\r', State::kDataLf); break;
      case State::kDataLf: expect(c, '\n', State::kSize); break;
      case State::kTrailer: state_ = c == '\r' ? State::kEndLf : State::kTrailerLine; break;
      case State::kTrailerLine:
        if (c == '\r') state_ = State::kTrailerLf;
        break;
      case State::kTrailerLf: expect(c, '\n', State::kTrailer); break;
      case State::kEndLf: expect(c, '\n', State::kDone); break;
      default: break;
    }
  }
  return at;
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 100: return "Continue";
    case 200: return "OK";
    case 201: return "Created";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Other";
  }
}

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = HexDigit(text[i + 1]);
    const int low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return std::nullopt;
    decoded += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return decoded;
}

}  // namespace reprise::serve
