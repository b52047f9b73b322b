// GgufFile: a GGUF model file, read in place.
//
// Parse() walks the whole header and checks every count, offset, type and size before anything else sees the file; after that no getter can
// read outside the bytes. A file that means two things is refused:
//  - versions 2 and 3, little-endian;
//  - keys and tensor names are unique, of printable ASCII, at most 65,535 and 64 bytes;
//  - a bool is 0 or 1; arrays do not nest (no reader of the format takes them);
//  - `general.alignment` is a power of two from 8 to 65,536;
//  - a tensor has 1 to 4 dimensions, none of them 0, and rows that are whole blocks of its type;
//  - tensor data lies in the order of the tensor table: each tensor starts at the first aligned offset after the one before it, so
//    there are neither overlaps nor gaps;
//  - the file ends with the last tensor's data, padded to the alignment or not; anything after that is an error.
// What padding bytes hold is not looked at. Counts are capped by the bytes that remain, and tables grow with the bytes that were read, so a
// short file never allocates much, whatever it claims.
//
// Strings, names and tensor data point into the file: they live as long as the GgufFile (moved or not), or as long as the bytes given to
// Parse(). Data is aligned like the file's alignment, at most as the bytes themselves are. Const calls are safe from any thread.
//
// Errors name the key or tensor, what was found, and what was expected. kCorrupt: the bytes lie; kNotFound: no such key, tensor or file;
// kUnsupported: a version or type that this build does not know.
// Format: the GGUF specification (ggml, docs/gguf.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "formats/tensor_type.h"
#include "reprise/status.h"

namespace reprise {

enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

std::string_view GgufTypeName(GgufType type);  // "uint32", "string", "array" ...

struct GgufTensor {
  std::string_view name;
  TensorType type{};
  std::array<uint64_t, 4> dims{1, 1, 1, 1};  // dims[0] is the contiguous one (a row); unused ones are 1
  int n_dims = 0;
  std::span<const std::byte> data;

  uint64_t elements() const { return dims[0] * rows(); }
  uint64_t rows() const { return dims[1] * dims[2] * dims[3]; }
  std::string Shape() const;  // "[1024, 3584]"
};

// One key and its value, as the file holds it.
struct GgufEntry {
  std::string_view key;
  GgufType type{};          // kArray, or the type of the one value
  GgufType element_type{};  // of an array's elements; otherwise as `type`
  uint64_t count = 1;       // of an array's elements; otherwise 1
  const std::byte* values = nullptr;

  std::string TypeName() const;  // "uint32", "array of 248320 string"
  // For people: at most about `max_chars` characters, control characters and bytes that are not ASCII escaped, the rest elided with "...".
  std::string ShortValue(size_t max_chars = 60) const;
};

// The values that an integer may have; outside is an error that says so.
struct GgufRange {
  uint64_t min = 0;
  uint64_t max = UINT64_MAX;
};

class GgufFile {
 public:
  // Maps and parses.
  static Result<GgufFile> Open(const std::string& path);
  // The caller keeps `bytes` alive and unchanged. Give them 64-byte alignment, or tensor data will not have it.
  static Result<GgufFile> Parse(std::span<const std::byte> bytes);

  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  uint64_t data_offset() const { return data_offset_; }  // where tensor data begins, from the start of the file
  std::span<const std::byte> bytes() const { return bytes_; }

  // In the order of the file.
  std::span<const GgufEntry> metadata() const { return entries_; }
  std::span<const GgufTensor> tensors() const { return tensors_; }

  // Metadata. Every integer type of the file will do for an integer when the value fits, float32 and float64 for a float (it must be
  // finite). The forms with a fallback return it only when the key is absent: a key of a wrong type or value is an error there too.
  bool Has(std::string_view key) const { return FindEntry(key) != nullptr; }
  const GgufEntry* FindEntry(std::string_view key) const;
  Result<uint64_t> GetUint(std::string_view key, GgufRange range = {}) const;
  Result<uint64_t> GetUintOr(std::string_view key, uint64_t fallback, GgufRange range = {}) const;
  Result<int64_t> GetInt(std::string_view key) const;
  Result<int64_t> GetIntOr(std::string_view key, int64_t fallback) const;
  Result<double> GetFloat(std::string_view key) const;
  Result<double> GetFloatOr(std::string_view key, double fallback) const;
  Result<bool> GetBool(std::string_view key) const;
  Result<bool> GetBoolOr(std::string_view key, bool fallback) const;
  Result<std::string_view> GetString(std::string_view key) const;
  Result<std::string_view> GetStringOr(std::string_view key, std::string_view fallback) const;

  // Arrays. An empty array counts as an array of any type.
  Result<std::vector<uint64_t>> GetUints(std::string_view key, GgufRange range = {}) const;
  Result<std::vector<int64_t>> GetInts(std::string_view key) const;
  Result<std::vector<double>> GetFloats(std::string_view key) const;
  Result<std::vector<uint8_t>> GetBools(std::string_view key) const;  // 0 or 1 each
  Result<std::vector<std::string_view>> GetStrings(std::string_view key) const;
  // A value for each of `count` layers: from an array of exactly that many, or from one number for all of them.
  Result<std::vector<uint64_t>> GetUintPerLayer(std::string_view key, uint64_t count, GgufRange range = {}) const;

  // Null when there is none.
  const GgufTensor* Find(std::string_view name) const;
  // A tensor that must be there with these dimensions, dims[0] first; dimensions of 1 at the end may be left out on either side.
  Result<const GgufTensor*> Require(std::string_view name, std::initializer_list<uint64_t> dims) const;

 private:
  friend class GgufParser;
  GgufFile() = default;
  Result<const GgufEntry*> RequireEntry(std::string_view key) const;
  Result<const GgufEntry*> RequireArray(std::string_view key) const;

  MappedFile file_;  // empty after Parse()
  std::span<const std::byte> bytes_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  uint64_t data_offset_ = 0;
  std::vector<GgufEntry> entries_;
  std::vector<GgufTensor> tensors_;
  std::vector<uint32_t> entries_by_key_;   // indices into entries_, sorted by key
  std::vector<uint32_t> tensors_by_name_;  // indices into tensors_, sorted by name
};

}  // namespace reprise
