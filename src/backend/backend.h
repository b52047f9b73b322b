// Backend: memory, weights, and plans of one device. The CPU backend is made by MakeCpuBackend (backend/cpu/cpu_backend.h).
//
// A backend is used by one thread at a time, except where a call says otherwise. Everything it hands out (memory, matrices, vectors) lives as
// long as the backend does.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "backend/ops.h"
#include "backend/weight_source.h"
#include "exec/plan.h"
#include "exec/step_table.h"
#include "exec/stream.h"
#include "reprise/status.h"

namespace reprise {

// What the device can do at most, however the work is arranged.
struct BackendLimits {
  double read_bytes_per_second = 0;  // of memory that is in no cache
  double byte_macs_per_second = 0;   // multiplications of bytes, with their additions
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;    // "cpu"
  virtual std::string description() const = 0;  // for people: instruction set, threads
  // Names everything that decides the bits of a result: part of the fingerprint. Thread count is not part of it.
  virtual std::string numerics() const = 0;
  virtual int threads() const = 0;
  virtual BackendLimits MeasureLimits() = 0;  // takes about a second

  // Zeroed, 64-byte aligned memory of this device; physical pages may be attached at first touch. `what` names it in errors.
  virtual Result<std::byte*> Allocate(size_t bytes, std::string_view what) = 0;
  // The same, of memory that the host reads too: for what a step leaves for it, once the stream is synchronised.
  virtual Result<std::byte*> AllocateForHost(size_t bytes, std::string_view what) { return Allocate(bytes, what); }

  // Whether LoadMatrix takes such a weight, and its error if not. Packs and allocates nothing.
  virtual Status CheckLoad(const WeightSource& source) const = 0;
  // Packs a weight for this device. The source bytes are not used after the call.
  virtual Result<const Matrix*> LoadMatrix(const WeightSource& source) = 0;
  // A weight for Ops::Embed alone. The source bytes must stay as long as the backend is used: where it can it reads them there, and keeps no copy.
  virtual Result<const Matrix*> LoadTable(const WeightSource& source) { return LoadMatrix(source); }
  Result<Vector> LoadVector(const WeightSource& source);  // any float type, as float32; outputs may be > 1 (row-major)

  // Calls `record` with an Ops that captures; afterwards `table`'s address is fixed into the plan, and must outlive it. Rows buffers passed to
  // ops must hold table.max_rows() (or max_lanes()) rows. Scratch memory is the backend's.
  virtual Result<std::unique_ptr<Plan>> Capture(const StepTable& table, const std::function<void(Ops&)>& record) = 0;

  virtual Stream& stream() = 0;
  // A stream of copies alone that runs beside it, where the device has memory of its own; otherwise null.
  virtual Stream* copies() { return nullptr; }
  // Copies between memory of either space, and waits until it is done.
  Status Copy(void* to, const void* from, size_t bytes);
  // Whether Allocate gives ordinary memory, which any thread may read and write where no step does.
  virtual bool ordinary_memory() const { return false; }
  // Whether its ops have Best, which spares the host a copy of all logits.
  virtual bool finds_best() const { return false; }
  // Bytes of this backend's memory that are free; 0 where it is the machine's own.
  virtual size_t free_memory() const { return 0; }
};

}  // namespace reprise
