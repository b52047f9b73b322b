// Arena: the backend's memory, given back all at once when the backend goes.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "reprise/status.h"

namespace reprise {

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Zeroed and 64-byte aligned. Pieces of some size share huge pages where the system has them, attached at first touch.
  Result<std::byte*> Allocate(size_t bytes, std::string_view what);

 private:
  struct Piece {
    std::byte* data;
    size_t bytes;
    bool mapped;
  };
  std::byte* Map(size_t bytes);  // whole huge pages, or null

  std::vector<Piece> pieces_;
  std::byte* slab_ = nullptr;  // what is left of the last one mapped
  size_t slab_bytes_ = 0;
};

}  // namespace reprise
