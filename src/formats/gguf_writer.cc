#include "formats/gguf_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "formats/printable.h"

namespace reprise {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF", as it lies in the file
constexpr uint64_t kDefaultAlignment = 32;
constexpr std::byte kZeros[1 << 16] = {};  // as many as the largest padding needs

}  // namespace

Status GgufStream::SkipComplete() {
  while (tensor_ < tensors_.size() && filled_ == tensors_[tensor_].bytes) {
    const uint64_t padding = AlignUp(filled_, alignment_) - filled_;
    REPRISE_RETURN_IF_ERROR(file_.Write(std::span(kZeros).first(padding)));
    ++tensor_;
    filled_ = 0;
  }
  return Ok();
}

Status GgufStream::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (tensor_ == tensors_.size()) return InvalidArgument(fmt::format("{} bytes more than the declared tensors hold", bytes.size()));
    const uint64_t count = std::min<uint64_t>(bytes.size(), tensors_[tensor_].bytes - filled_);
    REPRISE_RETURN_IF_ERROR(file_.Write(bytes.first(count)));
    bytes = bytes.subspan(count);
    filled_ += count;
    REPRISE_RETURN_IF_ERROR(SkipComplete());
  }
  return Ok();
}

Status GgufStream::Finish() {
  if (tensor_ < tensors_.size()) {
    const GgufDeclaration& tensor = tensors_[tensor_];
    return InvalidArgument(
        fmt::format("tensor '{}' was declared with {} bytes and given {}", Printable(tensor.name), tensor.bytes, filled_));
  }
  return file_.Commit();
}

GgufWriter::GgufWriter(uint64_t alignment) : alignment_(alignment) {
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > sizeof(kZeros)) {
    Remember(InvalidArgument(fmt::format("an alignment of {} is no power of two from 8 to {}", alignment, sizeof(kZeros))));
    alignment_ = kDefaultAlignment;
  }
  if (alignment_ != kDefaultAlignment) Number<uint32_t>("general.alignment", static_cast<uint32_t>(alignment_));
}

GgufWriter& GgufWriter::Bool(std::string_view key, bool value) {
  Key(key, GgufType::kBool);
  metadata_.Put(static_cast<uint8_t>(value));
  return *this;
}

GgufWriter& GgufWriter::String(std::string_view key, std::string_view value) {
  Key(key, GgufType::kString);
  PutString(metadata_, value);
  return *this;
}

GgufWriter& GgufWriter::Bools(std::string_view key, const std::vector<bool>& values) {
  ArrayKey(key, GgufType::kBool, values.size());
  for (const bool value : values) metadata_.Put(static_cast<uint8_t>(value));
  return *this;
}

GgufWriter& GgufWriter::Strings(std::string_view key, std::span<const std::string> values) {
  ArrayKey(key, GgufType::kString, values.size());
  for (const std::string& value : values) PutString(metadata_, value);
  return *this;
}

GgufWriter& GgufWriter::Tensor(std::string_view name, TensorType type, std::vector<uint64_t> dims) {
  GgufDeclaration tensor{std::string(name), type, std::move(dims), 0};
  const std::string quoted = fmt::format("tensor '{}'", Printable(name));
  if (name.empty() || name.size() > 64 || !IsPrintableAscii(name)) {
    Remember(InvalidArgument(fmt::format("{}: a name is 1 to 64 characters of printable ASCII", quoted)));
  }
  if (!names_.insert(tensor.name).second) Remember(InvalidArgument(fmt::format("{} is declared twice", quoted)));
  if (tensor.dims.empty() || tensor.dims.size() > 4 || std::ranges::count(tensor.dims, 0u) > 0) {
    Remember(InvalidArgument(fmt::format("{}: [{}] are not 1 to 4 dimensions of at least 1", quoted, fmt::join(tensor.dims, ", "))));
    return *this;
  }
  std::optional<uint64_t> rows = 1;
  for (size_t i = 1; i < tensor.dims.size(); ++i) rows = rows ? CheckedMul(*rows, tensor.dims[i]) : rows;
  const auto bytes = TensorBytes(type, tensor.dims[0], rows.value_or(UINT64_MAX));
  if (!bytes.ok()) {
    Remember(InvalidArgument(bytes.status().message()).Within(quoted));
    return *this;
  }
  tensor.bytes = *bytes;
  const auto end = CheckedAdd(data_end_, tensor.bytes);
  const auto padded = end ? CheckedAlignUp(*end, alignment_) : std::nullopt;
  if (!padded || *padded > INT64_MAX) {
    Remember(InvalidArgument(fmt::format("{}: the file would have more bytes than 63 bits can count", quoted)));
    return *this;
  }
  data_end_ = *padded;
  tensors_.push_back(std::move(tensor));
  return *this;
}

void GgufWriter::Key(std::string_view key, GgufType type) {
  if (key.empty() || key.size() > 65535 || !IsPrintableAscii(key)) {
    Remember(InvalidArgument(fmt::format("key '{}': a key is 1 to 65535 characters of printable ASCII", Printable(key))));
  }
  if (!keys_.insert(std::string(key)).second) Remember(InvalidArgument(fmt::format("key '{}' is given twice", Printable(key))));
  PutString(metadata_, key);
  metadata_.Put(type);
}

void GgufWriter::ArrayKey(std::string_view key, GgufType element_type, uint64_t count) {
  Key(key, GgufType::kArray);
  metadata_.Put(element_type);
  metadata_.Put(count);
}

void GgufWriter::PutString(ByteWriter& out, std::string_view text) const {
  out.Put(uint64_t{text.size()});
  out.Text(text);
}

void GgufWriter::Remember(Status status) {
  if (first_mistake_.ok()) first_mistake_ = std::move(status);
}

Result<ByteWriter> GgufWriter::Header() const {
  REPRISE_RETURN_IF_ERROR(first_mistake_);
  ByteWriter out;
  out.Put(kMagic);
  out.Put(uint32_t{3});
  out.Put(uint64_t{tensors_.size()});
  out.Put(uint64_t{keys_.size()});
  out.Bytes(metadata_.bytes());
  uint64_t offset = 0;
  for (const GgufDeclaration& tensor : tensors_) {
    PutString(out, tensor.name);
    out.Put(static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) out.Put(dim);
    out.Put(tensor.type);
    out.Put(offset);
    offset = AlignUp(offset + tensor.bytes, alignment_);
  }
  out.PadTo(alignment_);
  return out;
}

uint64_t GgufWriter::FileSize() const {
  const auto header = Header();
  return header.ok() ? header->size() + data_end_ : 0;
}

Result<GgufStream> GgufWriter::WriteTo(const std::string& path) const {
  REPRISE_ASSIGN_OR_RETURN(const ByteWriter header, Header());
  REPRISE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  REPRISE_RETURN_IF_ERROR(file.Write(header.bytes()));
  return GgufStream(std::move(file), alignment_, tensors_);
}

Result<std::vector<std::byte>> GgufWriter::ToBytes(std::span<const std::span<const std::byte>> data) const {
  REPRISE_ASSIGN_OR_RETURN(ByteWriter out, Header());
  if (data.size() != tensors_.size()) {
    return InvalidArgument(fmt::format("{} tensors were declared and the data of {} given", tensors_.size(), data.size()));
  }
  for (size_t i = 0; i < data.size(); ++i) {
    if (data[i].size() != tensors_[i].bytes) {
      return InvalidArgument(fmt::format("tensor '{}' was declared with {} bytes and given {}", Printable(tensors_[i].name),
                                         tensors_[i].bytes, data[i].size()));
    }
    out.Bytes(data[i]);
    out.PadTo(alignment_);
  }
  return std::move(out.out());
}

}  // namespace reprise
