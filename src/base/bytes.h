// ByteWriter and ByteReader: little-endian fields, the reader checked at every step.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/status.h"

namespace reprise {

static_assert(std::endian::native == std::endian::little, "file formats are little-endian and written as they lie in memory");

class ByteWriter {
 public:
  template <class T>
  void Put(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    Bytes(std::as_bytes(std::span(&value, 1)));
  }
  void Bytes(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    // Not insert(): GCC 12 warns, wrongly, wherever it sees the first one into an empty vector.
    out_.resize(out_.size() + bytes.size());
    std::memcpy(out_.data() + out_.size() - bytes.size(), bytes.data(), bytes.size());
  }
  void Text(std::string_view text) { Bytes(std::as_bytes(std::span(text))); }
  void PadTo(size_t alignment) { out_.resize((out_.size() + alignment - 1) / alignment * alignment); }
  template <class T>
  void PutAt(size_t offset, T value) {
    std::memcpy(out_.data() + offset, &value, sizeof(T));
  }
  size_t size() const { return out_.size(); }
  std::span<const std::byte> bytes() const { return out_; }
  std::vector<std::byte>& out() { return out_; }

 private:
  std::vector<std::byte> out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // `what` names the field in the error.
  template <class T>
  Result<T> Get(std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T>);
    REPRISE_ASSIGN_OR_RETURN(const auto field, Bytes(sizeof(T), what));
    T value;
    std::memcpy(&value, field.data(), sizeof(T));
    return value;
  }
  Result<std::span<const std::byte>> Bytes(uint64_t count, std::string_view what) {
    if (count > bytes_.size() - offset_) {
      return Corrupt("the bytes end within " + std::string(what) + ": " + std::to_string(count) + " are needed at offset " +
                     std::to_string(offset_) + ", " + std::to_string(bytes_.size() - offset_) + " remain");
    }
    const auto field = bytes_.subspan(offset_, count);
    offset_ += count;
    return field;
  }
  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

 private:
  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
};

}  // namespace reprise
