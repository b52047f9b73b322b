// Ports: how the outside writes into a live execution.
//
// An input is a named buffer of fixed size at a fixed address: a camera frame, a command, a table of gains. It is not state: a capsule does
// not hold it, and restoring one leaves every input as it is. What an execution must remember of an input, its step writes into a state.
//
// A port writes whole inputs, between steps. It checks sizes first; on an error the input is as it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "reprise/layout.h"
#include "reprise/status.h"

namespace reprise {

enum class PortKind : uint32_t {
  kSwap = 0,    // the bytes given are the bytes of the input; any time between steps
  kStaged = 1,  // a transform turns what is given (a u8 image) into the bytes of the input (normalised f32); any time between steps
  kSetup = 2,   // as kSwap, but only until the execution is sealed, which the first step does: what was captured may depend on it
};
std::string_view PortKindName(PortKind kind);

// Fills all of `to` from all of `from`. Called on the thread that writes, never twice at once. An error leaves the input as it was.
using PortTransform = std::function<Status(std::span<const std::byte> from, std::span<std::byte> to)>;

struct InputDecl {
  std::string name;  // unique among the inputs, under the rules for the names of states
  ElementType type = ElementType::kBytes;
  std::vector<int64_t> shape;
  PortKind kind = PortKind::kSwap;
  size_t source_bytes = 0;       // kStaged: how many bytes a write gives
  PortTransform transform = {};  // kStaged: must be given
};

}  // namespace reprise
