// What every file of the C interface (reprise/reprise.h) is made with: handles around the C++ one, arguments checked, and nothing thrown across.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <string_view>

#include "reprise/model.h"
#include "reprise/reprise.h"
#include "reprise/session.h"

struct reprise_model {
  reprise::Model model;
};
struct reprise_session {
  reprise::Session session;
};
struct reprise_capsule {
  reprise::Capsule capsule;
};

namespace reprise::c_api {

inline constexpr size_t kMostLanes = 256;  // that Load allows

// For reprise_last_error of this thread.
void Remember(std::string_view message) noexcept;

// Every fallible call goes through here: nothing that is thrown below gets past it.
template <class F>
reprise_status Guarded(F body) noexcept {
  try {
    const Status status = body();
    if (!status.ok()) Remember(status.message());
    return static_cast<reprise_status>(status.code());
  } catch (const std::bad_alloc&) {
    Remember("memory has run out");
    return REPRISE_EXHAUSTED;
  } catch (const std::exception& error) {
    Remember(error.what());
    return REPRISE_INTERNAL;
  } catch (...) {
    Remember("an unknown exception was thrown");
    return REPRISE_INTERNAL;
  }
}

inline Status Missing(std::string_view what) { return InvalidArgument(std::string(what) + " must not be NULL"); }

#define REPRISE_NEED(argument) \
  if ((argument) == nullptr) return reprise::c_api::Missing(#argument)

template <class T>
Result<std::span<const T>> Array(const T* data, size_t count, std::string_view what) {
  if (data == nullptr && count > 0) return Missing(what);
  if (count > INT_MAX) return InvalidArgument(std::string(what) + " cannot have " + std::to_string(count) + " elements");
  return std::span<const T>(data, count);
}

// Versioned structs. `Known` is the library's own; what the caller's lacks keeps its default, and what it has beyond must be zero.
template <class Known>
Result<Known> ReadStruct(const Known* given, Known defaults, std::string_view what) {
  size_t size = 0;
  std::memcpy(&size, given, sizeof(size));
  if (size < sizeof(Known)) {
    return InvalidArgument(std::string(what) + ": size is " + std::to_string(size) + ", less than the " + std::to_string(sizeof(Known)) +
                           " bytes of the first version; fill the struct with its _init function");
  }
  constexpr size_t kMostBytes = 4096;  // a size beyond is no struct's
  if (size > kMostBytes)
    return InvalidArgument(std::string(what) + ": size is " + std::to_string(size) + ", which is no size of this struct");
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (std::any_of(bytes + sizeof(Known), bytes + size, [](unsigned char byte) { return byte != 0; })) {
    return Unsupported(std::string(what) + " asks for something that this version of the library does not know");
  }
  std::memcpy(&defaults, given, sizeof(Known));
  return defaults;
}

template <class Known>
Status InitStruct(Known* out, size_t size, Known defaults, std::string_view what) {
  if (out == nullptr) return Missing(what);
  constexpr size_t kMostBytes = 4096;
  if (size < sizeof(Known) || size > kMostBytes) {
    return InvalidArgument(std::string(what) + ": " + std::to_string(size) + " is no size of this struct; pass its sizeof");
  }
  defaults.size = size;
  std::memset(static_cast<void*>(out), 0, size);
  std::memcpy(static_cast<void*>(out), &defaults, sizeof(Known));
  return Ok();
}

// `items` into the caller's buffer, as the comment on reprise_tokenize promises.
template <class T>
Status CopyOut(std::span<const T> items, T* buffer, size_t capacity, size_t* count) {
  *count = items.size();
  if (items.size() > capacity) {
    return Exhausted("the buffer has room for " + std::to_string(capacity) + " elements, and " + std::to_string(items.size()) +
                     " are needed");
  }
  if (!items.empty() && buffer != nullptr) std::memcpy(buffer, items.data(), items.size_bytes());
  return Ok();
}

inline void Report(const PrefillReport& from, reprise_prefill_report* to) {
  if (to != nullptr) *to = {from.reused, from.computed, from.seconds};
}

}  // namespace reprise::c_api
