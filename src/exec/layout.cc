#include "reprise/layout.h"

#include <algorithm>
#include <utility>

#include "base/checked.h"

namespace reprise {

size_t ElementSize(ElementType type) {
  switch (type) {
    case ElementType::kBytes: return 1;
    case ElementType::kF32: return 4;
    case ElementType::kF16: return 2;
    case ElementType::kI32: return 4;
    case ElementType::kI64: return 8;
    case ElementType::kQ8_0: return kQ8Values + 2;
  }
  return 0;
}

std::string_view ElementTypeName(ElementType type) {
  switch (type) {
    case ElementType::kBytes: return "bytes";
    case ElementType::kF32: return "f32";
    case ElementType::kF16: return "f16";
    case ElementType::kI32: return "i32";
    case ElementType::kI64: return "i64";
    case ElementType::kQ8_0: return "q8_0";
  }
  return "unknown";
}

int StateLayout::Recurrent(std::string name, ElementType type, std::vector<int64_t> shape, Space space) {
  return Declare({std::move(name), Growth::kRecurrent, space, type, std::move(shape)});
}

int StateLayout::Append(std::string name, ElementType type, std::vector<int64_t> row_shape, Space space) {
  return Declare({std::move(name), Growth::kAppend, space, type, std::move(row_shape)});
}

int StateLayout::Declare(StateDecl decl) {
  if (Status status = Place(decl); error_.ok()) error_ = std::move(status);
  states_.push_back(std::move(decl));
  return static_cast<int>(states_.size()) - 1;
}

// Checks `decl` and gives it its bytes and its offset.
Status StateLayout::Place(StateDecl& decl) {
  constexpr uint64_t kMostBytes = uint64_t{1} << 40;
  if (states_.size() >= kMaxStates) return InvalidArgument("more than " + std::to_string(kMaxStates) + " states are declared");
  if (decl.name.empty() || decl.name.size() > kMaxStateNameBytes) {
    return InvalidArgument("a state's name has 1 to " + std::to_string(kMaxStateNameBytes) + " bytes, not " +
                           std::to_string(decl.name.size()));
  }
  // The name itself is not repeated: it may come from a file, and the message may go to a terminal.
  const auto odd = std::find_if_not(decl.name.begin(), decl.name.end(), [](char c) { return c > ' ' && c < 127; });
  if (odd != decl.name.end()) {
    return InvalidArgument("a state's name must be printable ASCII without spaces; byte " + std::to_string(odd - decl.name.begin()) +
                           " of the name of state " + std::to_string(states_.size()) + " is " +
                           std::to_string(static_cast<unsigned char>(*odd)));
  }
  if (Find(decl.name) >= 0) return InvalidArgument("the state '" + decl.name + "' is declared twice");
  if (ElementSize(decl.type) == 0) return InvalidArgument("the state '" + decl.name + "' has an unknown element type");
  if (decl.shape.size() > kMaxDimensions) {
    return InvalidArgument("the state '" + decl.name + "' has " + std::to_string(decl.shape.size()) + " dimensions; at most " +
                           std::to_string(kMaxDimensions) + " are allowed");
  }
  uint64_t bytes = ElementSize(decl.type);
  for (const int64_t dimension : decl.shape) {
    const auto product = dimension < 1 ? std::nullopt : CheckedMul(bytes, static_cast<uint64_t>(dimension));
    if (!product || *product > kMostBytes) {
      return InvalidArgument("the shape of state '" + decl.name + "' has an impossible dimension " + std::to_string(dimension));
    }
    bytes = *product;
  }
  const auto space = static_cast<size_t>(decl.space);
  size_t& total = decl.growth == Growth::kRecurrent ? block_bytes_[space] : extent_bytes_[space];
  const uint64_t end = total + AlignUp(decl.growth == Growth::kRecurrent ? bytes : bytes * kExtentRows, kStateAlignment);
  if (end > kMostBytes) return InvalidArgument("the states up to '" + decl.name + "' take more than 2^40 bytes");
  decl.bytes = bytes;
  decl.offset = total;
  total = end;
  return Ok();
}

int StateLayout::Find(std::string_view name) const {
  for (size_t i = 0; i < states_.size(); ++i) {
    if (states_[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

size_t StateLayout::row_bytes() const {
  size_t total = 0;
  for (const StateDecl& state : states_) {
    if (state.growth == Growth::kAppend) total += state.bytes;
  }
  return total;
}

size_t StateLayout::recurrent_bytes() const {
  size_t total = 0;
  for (const StateDecl& state : states_) {
    if (state.growth == Growth::kRecurrent) total += state.bytes;
  }
  return total;
}

bool StateLayout::operator==(const StateLayout& other) const {
  return std::equal(states_.begin(), states_.end(), other.states_.begin(), other.states_.end(), [](const StateDecl& a, const StateDecl& b) {
    return a.name == b.name && a.growth == b.growth && a.space == b.space && a.type == b.type && a.shape == b.shape;
  });
}

}  // namespace reprise
