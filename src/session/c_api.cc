#include "session/c_api.h"

namespace {

static_assert(REPRISE_OK == static_cast<int>(reprise::StatusCode::kOk) &&
              REPRISE_INVALID_ARGUMENT == static_cast<int>(reprise::StatusCode::kInvalidArgument) &&
              REPRISE_NOT_FOUND == static_cast<int>(reprise::StatusCode::kNotFound) &&
              REPRISE_CORRUPT == static_cast<int>(reprise::StatusCode::kCorrupt) &&
              REPRISE_MISMATCH == static_cast<int>(reprise::StatusCode::kMismatch) &&
              REPRISE_EXHAUSTED == static_cast<int>(reprise::StatusCode::kExhausted) &&
              REPRISE_UNSUPPORTED == static_cast<int>(reprise::StatusCode::kUnsupported) &&
              REPRISE_IO == static_cast<int>(reprise::StatusCode::kIo) &&
              REPRISE_CANCELLED == static_cast<int>(reprise::StatusCode::kCancelled) &&
              REPRISE_INTERNAL == static_cast<int>(reprise::StatusCode::kInternal));

// Fixed, so that an error can be told when memory has run out.
thread_local char last_error[1024] = "";

}  // namespace

void reprise::c_api::Remember(std::string_view message) noexcept {
  const size_t size = std::min(message.size(), sizeof(last_error) - 1);
  std::memcpy(last_error, message.data(), size);
  last_error[size] = '\0';
}

extern "C" {

const char* reprise_status_name(reprise_status status) {
  if (status < REPRISE_OK || status > REPRISE_INTERNAL) return "unknown";
  return reprise::StatusCodeName(static_cast<reprise::StatusCode>(status)).data();  // a literal
}

const char* reprise_last_error(void) { return last_error; }
const char* reprise_version(void) { return "0.1.0"; }

}  // extern "C"
