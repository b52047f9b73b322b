// GgufWriter: makes GGUF v3 files, in memory or streamed to a file of any size.
//
//   GgufWriter writer;
//   writer.String("general.architecture", "llama").Number<uint32_t>("llama.block_count", 30);
//   writer.Tensor("output_norm.weight", TensorType::kF32, {576});
//   auto stream = writer.WriteTo("model.gguf");         // the header is written, and fixed
//   stream->Append(bytes);                              // the tensors' data, in the order they were declared, in pieces of any size
//   stream->Finish();                                   // the file appears under its name
//
// A mistake in a declaration (a key or name twice, or one that GgufFile would refuse; a row that is no whole number of blocks) is
// remembered and reported by WriteTo() or ToBytes(), so that declarations can be chained. What these make, GgufFile::Parse() accepts. Not
// thread-safe. Strings and values are copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/atomic_file.h"
#include "base/bytes.h"
#include "formats/gguf.h"
#include "formats/tensor_type.h"
#include "reprise/status.h"

namespace reprise {

template <class T>
constexpr GgufType GgufTypeOf() {
  static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>, "bools have calls of their own");
  if constexpr (std::is_floating_point_v<T>) {
    return sizeof(T) == 4 ? GgufType::kFloat32 : GgufType::kFloat64;
  } else if constexpr (std::is_signed_v<T>) {
    return sizeof(T) == 1 ? GgufType::kInt8 : sizeof(T) == 2 ? GgufType::kInt16 : sizeof(T) == 4 ? GgufType::kInt32 : GgufType::kInt64;
  } else {
    return sizeof(T) == 1 ? GgufType::kUint8 : sizeof(T) == 2 ? GgufType::kUint16 : sizeof(T) == 4 ? GgufType::kUint32 : GgufType::kUint64;
  }
}

// A tensor as declared.
struct GgufDeclaration {
  std::string name;
  TensorType type{};
  std::vector<uint64_t> dims;  // dims[0] is the contiguous one
  uint64_t bytes = 0;
};

// The data of the tensors on its way to a file. Dropped before Finish(), it leaves nothing behind.
class GgufStream {
 public:
  // `bytes` may end anywhere and span tensors; the padding between them is added here. kInvalidArgument when it is more than was declared.
  Status Append(std::span<const std::byte> bytes);
  // kInvalidArgument, naming the tensor, when data is missing.
  Status Finish();
  uint64_t bytes_written() const { return file_.size(); }

 private:
  friend class GgufWriter;
  GgufStream(AtomicFile file, uint64_t alignment, std::vector<GgufDeclaration> tensors)
      : file_(std::move(file)), alignment_(alignment), tensors_(std::move(tensors)) {}
  Status SkipComplete();

  AtomicFile file_;
  uint64_t alignment_;
  std::vector<GgufDeclaration> tensors_;
  size_t tensor_ = 0;    // the one that the next byte belongs to
  uint64_t filled_ = 0;  // its bytes so far
};

class GgufWriter {
 public:
  // A power of two from 8 to 65,536; recorded as general.alignment when it is not the format's default.
  explicit GgufWriter(uint64_t alignment = 32);

  template <class T>
  GgufWriter& Number(std::string_view key, std::type_identity_t<T> value) {
    Key(key, GgufType{GgufTypeOf<T>()});
    metadata_.Put(value);
    return *this;
  }
  GgufWriter& Bool(std::string_view key, bool value);
  GgufWriter& String(std::string_view key, std::string_view value);
  template <class T>
  GgufWriter& Numbers(std::string_view key, std::span<const std::type_identity_t<T>> values) {
    ArrayKey(key, GgufTypeOf<T>(), values.size());
    metadata_.Bytes(std::as_bytes(values));
    return *this;
  }
  GgufWriter& Bools(std::string_view key, const std::vector<bool>& values);
  GgufWriter& Strings(std::string_view key, std::span<const std::string> values);

  GgufWriter& Tensor(std::string_view name, TensorType type, std::vector<uint64_t> dims);
  std::span<const GgufDeclaration> tensors() const { return tensors_; }

  // The whole size of the file that the declarations make; 0 after a mistake.
  uint64_t FileSize() const;

  Result<GgufStream> WriteTo(const std::string& path) const;
  // The file as bytes; `data` holds one span for each declared tensor.
  Result<std::vector<std::byte>> ToBytes(std::span<const std::span<const std::byte>> data) const;

 private:
  void Key(std::string_view key, GgufType type);
  void ArrayKey(std::string_view key, GgufType element_type, uint64_t count);
  void PutString(ByteWriter& out, std::string_view text) const;
  void Remember(Status status);
  Result<ByteWriter> Header() const;

  uint64_t alignment_;
  ByteWriter metadata_;
  std::set<std::string, std::less<>> keys_;
  std::set<std::string, std::less<>> names_;
  std::vector<GgufDeclaration> tensors_;
  uint64_t data_end_ = 0;  // of the declared tensors, aligned
  Status first_mistake_;
};

}  // namespace reprise
