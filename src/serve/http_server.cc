#include "serve/http_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

namespace reprise::serve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kJson = "application/json";

int MillisecondsUntil(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
}

// More bytes at the end of `buffer`: how many came, 0 at the end of the stream, or -1 on an error or at the deadline.
ssize_t ReceiveMore(int fd, std::string& buffer, Clock::time_point deadline) {
  char bytes[16 << 10];
  while (true) {
    pollfd wait{fd, POLLIN, 0};
    const int ready = poll(&wait, 1, MillisecondsUntil(deadline));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return -1;
    const ssize_t count = recv(fd, bytes, sizeof(bytes), 0);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count > 0) buffer.append(bytes, static_cast<size_t>(count));
    return count;
  }
}

}  // namespace

Exchange::Exchange(int fd, const HttpLimits& limits, HttpRequest request, std::string peer)
    : fd_(fd), limits_(limits), request_(std::move(request)), peer_(std::move(peer)) {}

bool Exchange::SendAll(std::string_view bytes) {
  if (broken_) return false;
  auto deadline = Clock::now() + limits_.stalled_time;
  while (!bytes.empty()) {
    const ssize_t count = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      bytes.remove_prefix(static_cast<size_t>(count));
      deadline = Clock::now() + limits_.stalled_time;
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    pollfd wait{fd_, POLLOUT, 0};
    if (count < 0 && errno == EAGAIN && poll(&wait, 1, MillisecondsUntil(deadline)) > 0 && (wait.revents & (POLLERR | POLLHUP)) == 0)
      continue;
    broken_ = true;
    return false;
  }
  return true;
}

std::string Exchange::Head(int status, std::string_view type) const {
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\n", status, ReasonPhrase(status), type);
  for (const auto& [name, value] : headers_) head += fmt::format("{}: {}\r\n", name, value);
  if (!request_.keep_alive) head += "Connection: close\r\n";
  return head;
}

void Exchange::Respond(int status, std::string_view type, std::string_view body) {
  if (status_ != 0) return;
  status_ = status;
  std::string answer = Head(status, type) + fmt::format("Content-Length: {}\r\n\r\n", body.size());
  if (request_.method != "HEAD") answer += body;
  SendAll(answer);
  ended_ = true;
}

bool Exchange::StartStream(std::string_view type) {
  if (status_ != 0) return false;
  status_ = 200;
  streaming_ = true;
  return SendAll(Head(200, type) + "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n");
}

bool Exchange::Write(std::string_view piece) {
  return piece.empty() ? !broken_ : SendAll(fmt::format("{:x}\r\n{}\r\n", piece.size(), piece));
}

void Exchange::EndStream() {
  SendAll("0\r\n\r\n");
  ended_ = true;
}

bool Exchange::ClientGone() const {
  if (broken_) return true;
  pollfd state{fd_, POLLRDHUP, 0};
  return poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

Result<std::unique_ptr<HttpServer>> HttpServer::Bind(const std::string& host, int port, const HttpLimits& limits) {
  std::unique_ptr<HttpServer> server(new HttpServer(limits));
  sockaddr_storage address{};
  socklen_t size = 0;
  const std::string numeric = host == "localhost" ? "127.0.0.1" : host;
  if (auto* v4 = reinterpret_cast<sockaddr_in*>(&address); inet_pton(AF_INET, numeric.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    size = sizeof(sockaddr_in);
    server->loopback_ = (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
  } else if (auto* v6 = reinterpret_cast<sockaddr_in6*>(&address); inet_pton(AF_INET6, numeric.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    size = sizeof(sockaddr_in6);
    server->loopback_ = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
  } else {
    return InvalidArgument("'" + host + "' is not an IP address; give one such as 127.0.0.1, ::1 or 0.0.0.0");
  }
  const auto failed = [&](const char* what) { return IoError(fmt::format("cannot {} {}:{}: {}", what, host, port, std::strerror(errno))); };
  server->wake_fd_ = eventfd(0, EFD_CLOEXEC);
  server->listen_fd_ = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (server->wake_fd_ < 0 || server->listen_fd_ < 0) return failed("make a socket for");
  const int on = 1;
  setsockopt(server->listen_fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(server->listen_fd_, reinterpret_cast<sockaddr*>(&address), size) != 0) return failed("bind to");
  // A burst of connections waits in the kernel instead of being refused.
  if (listen(server->listen_fd_, 1024) != 0) return failed("listen on");
  if (getsockname(server->listen_fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) return failed("name");
  server->port_ = ntohs(address.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&address)->sin_port
                                                     : reinterpret_cast<sockaddr_in6*>(&address)->sin6_port);
  return server;
}

HttpServer::~HttpServer() {
  Close(Clock::now());
  if (listen_fd_ >= 0) close(listen_fd_);
  if (wake_fd_ >= 0) close(wake_fd_);
}

int HttpServer::connections() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(busy_.size() + idle_.size());
}

void HttpServer::Run(Handlers handlers) {
  handlers_ = std::move(handlers);
  while (!stopping_) {
    pollfd waits[2] = {{listen_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    if (poll(waits, 2, -1) < 0 && errno != EINTR) break;
    if (stopping_) break;
    sockaddr_storage from{};
    socklen_t size = sizeof(from);
    const int fd = accept4(listen_fd_, reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC);
    if (fd < 0) {
      // Out of descriptors: what waits in the kernel stays there until a connection ends.
      if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      continue;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    // What a slow reader makes the kernel hold is bounded too.
    const int buffer = 256 << 10;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    char text[INET6_ADDRSTRLEN] = "";
    const void* bytes = from.ss_family == AF_INET ? static_cast<const void*>(&reinterpret_cast<sockaddr_in*>(&from)->sin_addr)
                                                  : static_cast<const void*>(&reinterpret_cast<sockaddr_in6*>(&from)->sin6_addr);
    inet_ntop(from.ss_family, bytes, text, sizeof(text));
    bool room = false;
    {
      const std::lock_guard lock(mutex_);
      room = busy_.size() + idle_.size() < static_cast<size_t>(limits_.connections);
      if (room) busy_.insert(fd);
    }
    if (!room) {
      Refuse(fd, 503, "too many connections are open");
      close(fd);
      continue;
    }
    std::thread([this, fd, peer = std::string(text)] { Serve(fd, peer); }).detach();
  }
}

void HttpServer::Stop() {
  stopping_ = true;
  const uint64_t one = 1;
  (void)!write(wake_fd_, &one, sizeof(one));
}

void HttpServer::Close(Clock::time_point deadline) {
  Stop();
  std::unique_lock lock(mutex_);
  for (const int fd : idle_) shutdown(fd, SHUT_RDWR);
  changed_.wait_until(lock, deadline, [&] { return busy_.empty() && idle_.empty(); });
  for (const int fd : busy_) shutdown(fd, SHUT_RDWR);
  changed_.wait(lock, [&] { return busy_.empty() && idle_.empty(); });
}

void HttpServer::Refuse(int fd, int status, std::string_view what) {
  HttpRequest none;
  none.keep_alive = false;
  Exchange exchange(fd, limits_, std::move(none), "");
  exchange.Respond(status, kJson, handlers_.error_body(status, what));
  // What the other end still sends is read for a moment: closing over unread bytes would take the answer away from it.
  shutdown(fd, SHUT_WR);
  std::string dropped;
  const auto deadline = Clock::now() + std::chrono::milliseconds(status == 503 ? 0 : 500);
  while (dropped.size() < (4u << 20) && ReceiveMore(fd, dropped, deadline) > 0) {
  }
}

void HttpServer::Serve(int fd, const std::string& peer) {
  std::string buffered;
  try {
    while (!stopping_ && ServeOne(fd, peer, buffered)) {
    }
  } catch (const std::exception&) {  // memory ended; this connection ends with it, and the others go on
  }
  const std::lock_guard lock(mutex_);
  busy_.erase(fd);
  idle_.erase(fd);
  close(fd);
  changed_.notify_all();
}

// One request and its answer. False when the connection has come to its end.
bool HttpServer::ServeOne(int fd, const std::string& peer, std::string& buffered) {
  if (buffered.empty()) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return false;
      busy_.erase(fd);
      idle_.insert(fd);
    }
    const ssize_t count = ReceiveMore(fd, buffered, Clock::now() + limits_.idle_time);
    const std::lock_guard lock(mutex_);
    idle_.erase(fd);
    busy_.insert(fd);
    if (count <= 0) return false;
  }
  const auto refuse = [&](int status, std::string_view what) {
    Refuse(fd, status, what);
    return false;
  };
  const auto head_deadline = Clock::now() + limits_.head_time;
  size_t end = buffered.find("\r\n\r\n");
  while (end == std::string::npos) {
    if (buffered.size() > limits_.head_bytes) return refuse(431, "the request's head is larger than this server takes");
    const size_t searched = buffered.size();
    const ssize_t count = ReceiveMore(fd, buffered, head_deadline);
    if (count == 0) return false;
    if (count < 0) return refuse(408, "the request's head did not arrive in time");
    end = buffered.find("\r\n\r\n", searched < 3 ? 0 : searched - 3);
  }
  if (end > limits_.head_bytes) return refuse(431, "the request's head is larger than this server takes");
  HttpRequest request;
  if (const HttpError error = ParseRequestHead(std::string_view(buffered).substr(0, end + 4), request); !error.ok()) {
    return refuse(error.status, error.what);
  }
  buffered.erase(0, end + 4);

  const auto body_deadline = Clock::now() + limits_.body_time;
  const size_t most = request.chunked || request.content_length ? handlers_.body_limit(request) : 0;
  if (request.content_length.value_or(0) > most) return refuse(413, "the body is larger than this server takes");
  if (request.expects_continue && buffered.empty() && (request.chunked || request.content_length.value_or(0) > 0)) {
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    if (send(fd, kContinue.data(), kContinue.size(), MSG_NOSIGNAL) < 0) return false;
  }
  if (request.chunked) {
    ChunkedDecoder decoder(most);
    while (true) {
      buffered.erase(0, decoder.Feed(buffered, request.body));
      if (!decoder.error().ok()) return refuse(decoder.error().status, decoder.error().what);
      if (decoder.done()) break;
      const ssize_t count = ReceiveMore(fd, buffered, body_deadline);
      if (count == 0) return false;
      if (count < 0) return refuse(408, "the request's body did not arrive in time");
    }
  } else if (const auto length = static_cast<size_t>(request.content_length.value_or(0)); length > 0) {
    while (buffered.size() < length) {
      const ssize_t count = ReceiveMore(fd, buffered, body_deadline);
      if (count == 0) return false;
      if (count < 0) return refuse(408, "the request's body did not arrive in time");
    }
    request.body = buffered.substr(0, length);
    buffered.erase(0, length);
  }
  const bool keep_alive = request.keep_alive;
  Exchange exchange(fd, limits_, std::move(request), peer);
  handlers_.answer(exchange);
  return keep_alive && exchange.usable();
}

}  // namespace reprise::serve
