// Sizes and values of GGUF's metadata types: shared by the parser, the getters and the writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "formats/gguf.h"

namespace reprise {

// Of one value; 0 for strings and arrays, which have no fixed size.
constexpr uint64_t GgufTypeBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool: return 1;
    case GgufType::kUint16:
    case GgufType::kInt16: return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32: return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64: return 8;
    case GgufType::kString:
    case GgufType::kArray: return 0;
  }
  return 0;
}

// Values in a file are not aligned.
template <class T>
T LoadUnaligned(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

inline std::string_view LoadString(const std::byte* at) {
  return {reinterpret_cast<const char*>(at + sizeof(uint64_t)), LoadUnaligned<uint64_t>(at)};
}

}  // namespace reprise
