// DeviceMemory: where the device part of state lives, and how bytes move within it. A backend gives one; HostMemory is the plain one.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "exec/stream.h"
#include "reprise/status.h"

namespace reprise {

class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  // Zeroed memory, aligned to kStateAlignment, that lives as long as this object. `what` names it in an error.
  virtual Result<std::byte*> Allocate(size_t bytes, std::string_view what) = 0;
  // Copies between disjoint ranges of either space, in order with the steps of the same device. Allocates nothing.
  virtual void Copy(std::byte* to, const std::byte* from, size_t bytes) = 0;
  // Returns once every copy and step so far has happened, so that the host may read.
  virtual void Synchronize() = 0;
  // Whether this is ordinary memory: any thread may then read and write it where no step does, without Copy and Synchronize, which belong to the
  // thread of the steps.
  virtual bool ordinary() const { return false; }

  // What a device of memory of its own gives besides, so that state can move to the host's memory and back: the stream of Copy and the steps, one of
  // copies alone that runs beside it, and zeroed host memory that both reach at the same address. Where there is no such stream, state stays.
  virtual Stream* steps() { return nullptr; }
  virtual Stream* copies() { return nullptr; }
  virtual Result<std::byte*> AllocateForHost(size_t bytes, std::string_view what) { return Allocate(bytes, what); }
};

// Anonymous pages of the operating system: no physical memory is used until first touch. Used by one thread at a time.
class HostMemory : public DeviceMemory {
 public:
  HostMemory() = default;
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  ~HostMemory() override;

  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override;
  void Copy(std::byte* to, const std::byte* from, size_t bytes) override;
  void Synchronize() override {}
  bool ordinary() const override { return true; }

 private:
  struct Mapping {
    void* address;
    size_t bytes;
  };
  std::vector<Mapping> mappings_;
};

}  // namespace reprise
