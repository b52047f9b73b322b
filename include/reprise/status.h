// Status and Result: how every fallible call reports what went wrong.
//
// Reprise does not throw. A call that can fail returns a Status, or a Result<T> that holds either a T or a Status. A message is
// one clear sentence: what was wrong, where, and what to do. Both types are values: copy and move them freely, from any thread.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace reprise {

// The codes are few because a caller acts on few distinctions; the message carries the rest. Values are stable (the C API uses them).
enum class StatusCode : int {
  kOk = 0,
  kInvalidArgument = 1,  // the caller asked for something that can never work
  kNotFound = 2,         // a file, name or capsule is not there
  kCorrupt = 3,          // bytes are damaged, truncated or lie about themselves
  kMismatch = 4,         // sound bytes of another model, layout or version
  kExhausted = 5,        // a pool, budget or context is full
  kUnsupported = 6,      // a known thing that this build cannot do
  kIo = 7,               // the operating system refused
  kCancelled = 8,        // stopped on request; what was committed stays committed
  kInternal = 9,         // a defect of Reprise itself
};

std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error with `context` and ": " before the message, for a caller that knows where it happened.
  Status Within(std::string_view context) const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status Ok() { return Status(); }
inline Status InvalidArgument(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
inline Status NotFound(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status Corrupt(std::string m) { return {StatusCode::kCorrupt, std::move(m)}; }
inline Status Mismatch(std::string m) { return {StatusCode::kMismatch, std::move(m)}; }
inline Status Exhausted(std::string m) { return {StatusCode::kExhausted, std::move(m)}; }
inline Status Unsupported(std::string m) { return {StatusCode::kUnsupported, std::move(m)}; }
inline Status IoError(std::string m) { return {StatusCode::kIo, std::move(m)}; }
inline Status Cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status Internal(std::string m) { return {StatusCode::kInternal, std::move(m)}; }

// Either a T or the Status that says why there is none. Dereferencing a Result that is not ok() is a programming error.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                                  // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }  // NOLINT(google-explicit-constructor)

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Status& status() const { return status_; }

  T& operator*() & {
    assert(ok());
    return *value_;
  }
  const T& operator*() const& {
    assert(ok());
    return *value_;
  }
  T&& operator*() && {
    assert(ok());
    return *std::move(value_);
  }
  T* operator->() {
    assert(ok());
    return &*value_;
  }
  const T* operator->() const {
    assert(ok());
    return &*value_;
  }

 private:
  std::optional<T> value_;
  Status status_;
};

#define REPRISE_CONCAT_INNER(a, b) a##b
#define REPRISE_CONCAT(a, b) REPRISE_CONCAT_INNER(a, b)

// Leaves the enclosing function with the error of `expr`, if there is one.
#define REPRISE_RETURN_IF_ERROR(expr)                                                              \
  do {                                                                                             \
    if (::reprise::Status reprise_status_ = (expr); !reprise_status_.ok()) return reprise_status_; \
  } while (false)

// REPRISE_ASSIGN_OR_RETURN(auto x, F()): x takes the value of F(), or the enclosing function returns its error.
#define REPRISE_ASSIGN_OR_RETURN(decl, expr) REPRISE_ASSIGN_OR_RETURN_IMPL(REPRISE_CONCAT(reprise_result_, __LINE__), decl, expr)
#define REPRISE_ASSIGN_OR_RETURN_IMPL(tmp, decl, expr) \
  auto tmp = (expr);                                   \
  if (!tmp.ok()) return tmp.status();                  \
  decl = *std::move(tmp)

}  // namespace reprise
