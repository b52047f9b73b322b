#include "backend/cpu/memory.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "base/checked.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace reprise {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMapFrom = size_t{256} << 10;  // smaller pieces come from the heap
constexpr size_t kSlab = size_t{64} << 20;      // of which pieces are cut; larger ones are mapped on their own

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
    if (size > slab_bytes_) {
      const size_t mapped = size > kSlab / 2 ? static_cast<size_t>(AlignUp(size, kHugePage)) : kSlab;
      std::byte* const data = Map(mapped);
      if (!data) return refused();
      if (mapped != kSlab) return data;
      slab_ = data;
      slab_bytes_ = mapped;
    }
    slab_bytes_ -= size;
    return std::exchange(slab_, slab_ + size);
  }
#endif
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, size));
  if (!data) return refused();
  std::memset(data, 0, size);
  pieces_.push_back({data, size, false});
  return data;
}

#if defined(__linux__)
// Weights stream without a page walk every 4 KB only where whole huge pages are theirs: a matrix of 3.9 MB that ended its own mapping would
// have one huge page and 1.9 MB of small ones.
std::byte* Arena::Map(size_t bytes) {
  void* const raw = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  pieces_.push_back({static_cast<std::byte*>(raw), bytes + kHugePage, true});
  const auto address = AlignUp(reinterpret_cast<uintptr_t>(raw), kHugePage);
  madvise(reinterpret_cast<void*>(address), bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
  return reinterpret_cast<std::byte*>(address);
}
#endif

}  // namespace reprise
