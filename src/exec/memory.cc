#include "exec/memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace reprise {

HostMemory::~HostMemory() {
  for (const Mapping& mapping : mappings_) ::munmap(mapping.address, mapping.bytes);
}

Result<std::byte*> HostMemory::Allocate(size_t bytes, std::string_view what) {
  if (bytes == 0) bytes = 1;
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return Exhausted("the operating system gave no " + std::to_string(bytes) + " bytes for " + std::string(what) + ": " +
                     std::strerror(errno));
  }
#ifdef MADV_HUGEPAGE
  // Large pages make the first touch of a state block cheap; without them the request is merely refused.
  if (bytes >= (size_t{4} << 20)) ::madvise(address, bytes, MADV_HUGEPAGE);
#endif
  mappings_.push_back({address, bytes});
  return static_cast<std::byte*>(address);
}

void HostMemory::Copy(std::byte* to, const std::byte* from, size_t bytes) { std::memcpy(to, from, bytes); }

}  // namespace reprise
