// Makes the program that includes this, in exactly one of its files, count its allocations and its locks (base/hot_calls.h): malloc and its relatives,
// and with them operator new; the calls that lock a mutex, and with them std::mutex. A library never includes it: what allocates, and how, is the
// program's decision.
//
// glibc lets a program bring these functions, and offers its own under other names or to dlsym; the sanitizers bring an allocator of their own, with a
// hook, and locks of their own, without. What is not counted, with them or with another C library, CountsAllocations() and CountsLocks() tell.
#pragma once

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#include "base/hot_calls.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define REPRISE_SANITIZER_ALLOCATOR 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define REPRISE_SANITIZER_ALLOCATOR 1
#endif
#endif

// It defines functions on purpose, and glibc names its own with underscores.
// NOLINTBEGIN(bugprone-reserved-identifier,misc-definitions-in-headers,google-build-namespaces)
#if defined(REPRISE_SANITIZER_ALLOCATOR)

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*, size_t),
                                                         void (*free_hook)(const volatile void*));

namespace {
[[maybe_unused]] const bool reprise_counts = [] {
  const auto on_malloc = [](const volatile void*, size_t) { reprise::CountOneAllocation(); };
  const auto on_free = [](const volatile void*) {};
  if (__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) != 0) reprise::SetCountsAllocations();
  return true;
}();
}  // namespace

#elif defined(__GLIBC__)

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t bytes) {
  reprise::CountOneAllocation();
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  reprise::CountOneAllocation();
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, size_t bytes) {
  reprise::CountOneAllocation();
  return __libc_realloc(memory, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  reprise::CountOneAllocation();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  *memory = memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}
void free(void* memory) { __libc_free(memory); }
}

namespace reprise_counting {
// The function that `name` would be without the one below. Found at its first call, which may come before any constructor.
template <class Function>
Function* Own(std::atomic<Function*>& known, const char* name) {
  Function* function = known.load(std::memory_order_relaxed);
  if (function == nullptr) {
    function = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
    known.store(function, std::memory_order_relaxed);
  }
  return function;
}
}  // namespace reprise_counting

#define REPRISE_COUNT_LOCKS(name, type)                           \
  extern "C" int name(type* lock) noexcept {                      \
    static constinit std::atomic<int (*)(type*)> known{};         \
    reprise::CountOneLock();                                      \
    return reprise_counting::Own<int(type*)>(known, #name)(lock); \
  }
REPRISE_COUNT_LOCKS(pthread_mutex_lock, pthread_mutex_t)
REPRISE_COUNT_LOCKS(pthread_mutex_trylock, pthread_mutex_t)
REPRISE_COUNT_LOCKS(pthread_rwlock_rdlock, pthread_rwlock_t)
REPRISE_COUNT_LOCKS(pthread_rwlock_wrlock, pthread_rwlock_t)
#undef REPRISE_COUNT_LOCKS

namespace {
[[maybe_unused]] const bool reprise_counts = [] {
  reprise::SetCountsAllocations();
  reprise::SetCountsLocks();
  return true;
}();
}  // namespace

#endif
// NOLINTEND(bugprone-reserved-identifier,misc-definitions-in-headers,google-build-namespaces)
