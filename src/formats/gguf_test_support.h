// Files for the tests of the GGUF reader: sound ones by GgufWriter, and lying ones put together field by field.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "formats/gguf.h"
#include "formats/tensor_type.h"

namespace reprise {

// Writes what it is told, true or not.
class RawGguf {
 public:
  RawGguf(uint64_t tensors, uint64_t keys, std::string_view magic = "GGUF", uint32_t version = 3) {
    out_.Text(magic);
    out_.Put(version);
    out_.Put(tensors);
    out_.Put(keys);
  }
  RawGguf& Text(std::string_view text) {
    out_.Put(uint64_t{text.size()});
    out_.Text(text);
    return *this;
  }
  template <class T>
  RawGguf& Put(T value) {
    out_.Put(value);
    return *this;
  }
  RawGguf& Uint32Key(std::string_view key, uint32_t value) { return Text(key).Put(GgufType::kUint32).Put(value); }
  RawGguf& Tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    Text(name).Put(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) Put(dim);
    return Put(type).Put(offset);
  }
  RawGguf& PadTo(size_t alignment) {
    out_.PadTo(alignment);
    return *this;
  }
  RawGguf& Zeros(size_t count) {
    out_.out().resize(out_.size() + count);
    return *this;
  }
  const std::vector<std::byte>& bytes() { return out_.out(); }

 private:
  ByteWriter out_;
};

inline constexpr uint32_t kF32Id = static_cast<uint32_t>(TensorType::kF32);
inline constexpr uint32_t kQ8_0Id = static_cast<uint32_t>(TensorType::kQ8_0);

}  // namespace reprise
