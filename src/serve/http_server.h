// HttpServer: connections over sockets, one thread each, and what an answer needs of them.
//
// A connection is bounded in everything that its other end decides: the bytes of a head and of a body, the time until each is complete, the
// time a write may stall, the time it may lie idle. Beyond `connections` a new one is answered 503 and closed. So no client holds a thread for
// long without doing something, and none can stall another. Threads wait in the kernel; a few hundred cost little.
//
// The handler runs on the connection's thread. It answers through the Exchange: once, with Respond, or piece by piece.
#pragma once

#include <netinet/in.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reprise/status.h"
#include "serve/http_message.h"

namespace reprise::serve {

struct HttpLimits {
  int connections = 512;
  size_t head_bytes = 32 << 10;
  std::chrono::milliseconds head_time{10'000};     // from its first byte
  std::chrono::milliseconds body_time{60'000};     // from the end of the head
  std::chrono::milliseconds idle_time{30'000};     // between requests
  std::chrono::milliseconds stalled_time{10'000};  // that a write may wait for the reader
};

using Headers = std::vector<std::pair<std::string, std::string>>;

class Exchange {
 public:
  Exchange(int fd, const HttpLimits& limits, HttpRequest request, std::string peer);
  Exchange(const Exchange&) = delete;

  const HttpRequest& request() const { return request_; }
  HttpRequest& request() { return request_; }
  const std::string& peer() const { return peer_; }  // address of the other end
  int status() const { return status_; }             // of the answer; 0 before it

  // Sent with whatever answer comes.
  void AddHeader(std::string name, std::string value) { headers_.emplace_back(std::move(name), std::move(value)); }

  void Respond(int status, std::string_view type, std::string_view body);
  // An answer in pieces. Write returns false when the other end is gone or has stopped reading; nothing more need be written then.
  bool StartStream(std::string_view type);
  bool Write(std::string_view piece);
  void EndStream();

  bool streaming() const { return streaming_; }
  bool ClientGone() const;                            // it has closed its side
  bool usable() const { return !broken_ && ended_; }  // for another request

 private:
  bool SendAll(std::string_view bytes);
  std::string Head(int status, std::string_view type) const;

  int fd_;
  const HttpLimits& limits_;
  HttpRequest request_;
  std::string peer_;
  Headers headers_;
  int status_ = 0;
  bool streaming_ = false;
  bool ended_ = false;
  bool broken_ = false;
};

class HttpServer {
 public:
  struct Handlers {
    std::function<void(Exchange&)> answer;
    std::function<std::string(int status, std::string_view what)> error_body;  // of what never became a request
    std::function<size_t(const HttpRequest& head)> body_limit;                 // the most bytes that may follow this head
  };
  // Binds to a numeric address, or "localhost"; port 0 takes any free one. The kernel queues connections until Run.
  static Result<std::unique_ptr<HttpServer>> Bind(const std::string& host, int port, const HttpLimits& limits);
  ~HttpServer();

  int port() const { return port_; }
  bool loopback() const { return loopback_; }
  int connections() const;
  const HttpLimits& limits() const { return limits_; }

  // Accepts until Stop, which any thread may call. Connections that are there go on until they end, or until Close.
  void Run(Handlers handlers);
  void Stop();
  // Lets idle connections go, and waits for the rest until `deadline`; then closes them under their handlers.
  void Close(std::chrono::steady_clock::time_point deadline);

 private:
  explicit HttpServer(const HttpLimits& limits) : limits_(limits) {}
  void Serve(int fd, const std::string& peer);
  bool ServeOne(int fd, const std::string& peer, std::string& buffered);
  void Refuse(int fd, int status, std::string_view what);

  HttpLimits limits_;
  Handlers handlers_;
  int listen_fd_ = -1;
  int wake_fd_ = -1;
  int port_ = 0;
  bool loopback_ = true;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::set<int> busy_, idle_;  // descriptors of live connections
};

}  // namespace reprise::serve
