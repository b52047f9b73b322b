// Buffer: named, typed, fixed-size memory that a backend owns. This is a view of it: copying it copies no memory, and it is valid for as long
// as the DeviceMemory that the bytes came from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "exec/memory.h"
#include "reprise/layout.h"
#include "reprise/status.h"

namespace reprise {

struct Buffer {
  std::string name;
  ElementType type = ElementType::kBytes;
  std::vector<int64_t> shape;
  Space space = Space::kDevice;
  std::byte* address = nullptr;  // fixed for life: captured plans hold it
  size_t bytes = 0;

  // Takes zeroed memory of `memory`, which is of `space`. Name and shape are checked like those of a state.
  static Result<Buffer> Allocate(DeviceMemory& memory, std::string name, ElementType type, std::vector<int64_t> shape,
                                 Space space = Space::kDevice);
};

}  // namespace reprise
