#include "backend/cpu/memory.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/checked.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace reprise {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMapFrom = size_t{256} << 10;  // smaller pieces come from the heap

}  // namespace

Arena::~Arena() {
  for (const Piece& piece : pieces_) {
#if defined(__linux__)
    if (piece.mapped) {
      munmap(piece.data, piece.bytes);
      continue;
    }
#endif
    std::free(piece.data);
  }
}

Result<std::byte*> Arena::Allocate(size_t bytes, std::string_view what) {
  const auto refused = [&] { return Exhausted("no memory for " + std::string(what) + " (" + std::to_string(bytes) + " bytes)"); };
  const auto rounded = CheckedAlignUp(bytes ? bytes : 1, kAlignment);
  if (!rounded || *rounded > SIZE_MAX / 2) return refused();
  const size_t size = static_cast<size_t>(*rounded);
#if defined(__linux__)
  if (size >= kMapFrom) {
    // Pieces of a huge page and more start on one, so that weights stream without a page walk every 4 KB.
    const size_t slack = size >= kHugePage ? kHugePage : 0;
    void* raw = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) return refused();
    pieces_.push_back({static_cast<std::byte*>(raw), size + slack, true});
    if (!slack) return static_cast<std::byte*>(raw);
    const auto address = AlignUp(reinterpret_cast<uintptr_t>(raw), kHugePage);
    madvise(reinterpret_cast<void*>(address), size, MADV_HUGEPAGE);  // a hint: refusal costs speed only
    return reinterpret_cast<std::byte*>(address);
  }
#endif
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, size));
  if (!data) return refused();
  std::memset(data, 0, size);
  pieces_.push_back({data, size, false});
  return data;
}

}  // namespace reprise
