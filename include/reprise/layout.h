// StateLayout: the one declaration of everything that an execution remembers.
//
// Whoever owns state (a model, the sampler, a simulator) declares it here once, by name. Capture, restore, `inspect`, `verify`, the file
// format and the docs all derive from this declaration, so a capsule is complete by construction: a state that is not declared has no
// memory to live in.
//
// There are two kinds. A *recurrent* state is rewritten as a whole at every step. An *append-only* state grows by one row a position and
// never changes a row once it is written. And there are two spaces: kDevice is memory of the backend that computes the step (on the CPU
// backend it is ordinary memory), kHost is memory that the host changes between steps.
//
// A layout is a value. Build it on one thread; once built it is read-only and may be read from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/status.h"

namespace reprise {

// Element types of state. The values are part of the capsule format (docs/capsule_format.md).
//
// An element of kQ8_0 is a block of 32 numbers: 32 int8 and a half-precision scale, a number being their product. A row has the int8 of all
// its blocks first and then their scales, in the same order, so that both are read as vectors.
enum class ElementType : uint32_t { kBytes = 0, kF32 = 1, kF16 = 2, kI32 = 3, kI64 = 4, kQ8_0 = 5 };
inline constexpr int kQ8Values = 32;   // numbers of an element of kQ8_0
size_t ElementSize(ElementType type);  // bytes
std::string_view ElementTypeName(ElementType type);

enum class Space : uint32_t { kDevice = 0, kHost = 1 };
inline constexpr int kSpaces = 2;
enum class Growth : uint32_t { kRecurrent = 0, kAppend = 1 };

// Rows of one extent. 64 keeps the copy that a fork pays at its first step small (at most 63 rows) while an 8,192-token history is still
// only 128 extents. Attention's blocks of 256 positions are a multiple of it.
inline constexpr int kExtentRows = 64;

// Every state starts on a boundary of this many bytes within its slab: a cache line, and the width of the widest vector.
inline constexpr size_t kStateAlignment = 64;

// Far above anything real. A capsule file is read within the same bounds, so whatever can be declared can be moved.
inline constexpr size_t kMaxStates = 4096;
inline constexpr size_t kMaxStateNameBytes = 256;
inline constexpr size_t kMaxDimensions = 8;

struct StateDecl {
  std::string name;  // unique; printable ASCII without spaces, by convention "owner.part" or "blk.3.part"
  Growth growth;
  Space space;
  ElementType type;
  std::vector<int64_t> shape;  // recurrent: of the whole state; append-only: of one row
  size_t bytes = 0;            // recurrent: of the whole state; append-only: of one row
  size_t offset = 0;           // within the state block of its space, or within one extent of its space (row r at offset + r * bytes)
};

class StateLayout {
 public:
  // Declares a state and returns its index. Names must be unique, every dimension at least 1, the total below 2^40 bytes, and the bounds
  // above kept; the first violation is remembered and reported by Check(), so that declarations follow one another without noise.
  int Recurrent(std::string name, ElementType type, std::vector<int64_t> shape, Space space = Space::kDevice);
  int Append(std::string name, ElementType type, std::vector<int64_t> row_shape, Space space = Space::kDevice);

  Status Check() const { return error_; }

  std::span<const StateDecl> states() const { return states_; }
  const StateDecl& operator[](int index) const { return states_[static_cast<size_t>(index)]; }
  int Find(std::string_view name) const;  // -1 when there is none

  size_t block_bytes(Space space) const { return block_bytes_[static_cast<size_t>(space)]; }    // of one state block
  size_t extent_bytes(Space space) const { return extent_bytes_[static_cast<size_t>(space)]; }  // of one extent (kExtentRows rows)
  size_t row_bytes() const;        // of one row of every append-only state, both spaces together
  size_t recurrent_bytes() const;  // of every recurrent state, both spaces, without padding

  bool operator==(const StateLayout& other) const;  // same states, in the same order, of the same types and shapes

 private:
  int Declare(StateDecl decl);
  Status Place(StateDecl& decl);

  std::vector<StateDecl> states_;
  size_t block_bytes_[kSpaces] = {0, 0};
  size_t extent_bytes_[kSpaces] = {0, 0};
  Status error_;
};

}  // namespace reprise
