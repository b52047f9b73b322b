// The CPU backend: plans are flat arrays of launches, replayed by a persistent team of threads (team.h) on kernels chosen at run time for
// the instruction set of the machine (kernels.h).
//
// Results are bit-identical for every number of threads, lanes and rows a step, and among all instruction sets whose numerics() agree.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "reprise/status.h"

namespace reprise {

struct CpuOptions {
  int threads = 0;    // 0: all processors that this process may use
  bool pin = false;   // tie each thread but the caller's to a processor of its own
  std::string isa{};  // force one of CpuInstructionSets(); empty: the first
};

// The names that CpuOptions::isa may have on this machine, the best first, of: "avx512vnni", "avx2", "portable" (x86 with SSE 4.2),
// "neon-i8mm", "neon-dotprod", "neon".
std::vector<std::string> CpuInstructionSets();

Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuOptions& options = {});

}  // namespace reprise
