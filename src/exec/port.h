// Port: the writer of one Buffer. include/reprise/port.h says what the kinds mean.
//
// Used by one thread at a time, and never while a step that reads the buffer runs. Writing allocates nothing (a transform may).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "exec/buffer.h"
#include "exec/memory.h"
#include "reprise/port.h"
#include "reprise/status.h"

namespace reprise {

class Port {
 public:
  // Allocates the buffer that `input` declares from `memory`, which must outlive the port.
  static Result<Port> Create(const InputDecl& input, DeviceMemory& memory, Space space = Space::kDevice);

  const Buffer& buffer() const { return buffer_; }
  PortKind kind() const { return kind_; }
  size_t source_bytes() const { return source_bytes_; }  // what a write must give

  // The whole input. kInvalidArgument for another size and for a sealed kSetup port; otherwise what the transform reports.
  Status Write(std::span<const std::byte> bytes);

  // From now on a kSetup port refuses. Sealing twice is harmless, and there is no way back.
  void Seal() { sealed_ = true; }
  bool sealed() const { return sealed_; }

 private:
  Port() = default;

  Buffer buffer_;
  DeviceMemory* memory_ = nullptr;
  PortKind kind_ = PortKind::kSwap;
  size_t source_bytes_ = 0;
  PortTransform transform_;
  std::vector<std::byte> staging_;  // kStaged: a transform that fails halfway must not leave half an input
  bool sealed_ = false;
};

}  // namespace reprise
