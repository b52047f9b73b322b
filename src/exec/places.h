// Places: where the slabs of one pool can lie. The first are in the device's memory, and any further ones in the host's, to which Spill moves what
// no lane uses. A place is a number; it is free, or some slab's, or has been left and is about to be free.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exec/free_list.h"

namespace reprise {

struct PoolMemory {
  std::byte* device = nullptr;
  int32_t device_count = 0;
  std::byte* host = nullptr;
  int32_t host_count = 0;
  size_t stride = 0;  // bytes of a slab
};

// Any thread may take and give.
class Places {
 public:
  explicit Places(const PoolMemory& memory) : memory_(memory), device_(memory.device_count), host_(memory.host_count) {}

  // A free place that is now the caller's, or -1.
  int32_t TakeOnDevice() { return device_.Pop(); }
  int32_t TakeOnHost() {
    const int32_t place = host_.Pop();
    return place < 0 ? place : memory_.device_count + place;
  }
  void Give(int32_t place) { on_device(place) ? device_.Push(place) : host_.Push(place - memory_.device_count); }

  bool on_device(int32_t place) const { return place < memory_.device_count; }
  std::byte* at(int32_t place) const {
    return on_device(place) ? memory_.device + static_cast<size_t>(place) * memory_.stride
                            : memory_.host + static_cast<size_t>(place - memory_.device_count) * memory_.stride;
  }
  bool on_host(const std::byte* address) const {
    return address >= memory_.host && address < memory_.host + static_cast<size_t>(memory_.host_count) * memory_.stride;
  }
  size_t stride() const { return memory_.stride; }
  int32_t count() const { return memory_.device_count + memory_.host_count; }
  int32_t device_count() const { return memory_.device_count; }
  int32_t host_count() const { return memory_.host_count; }
  int32_t free_on_device() const { return device_.free(); }
  int32_t free_on_host() const { return host_.free(); }

 private:
  const PoolMemory memory_;
  FreeList device_, host_;
};

}  // namespace reprise
