// Parsing a GGUF file: one pass over the header that trusts nothing. See gguf.h for what is refused.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/checked.h"
#include "formats/gguf.h"
#include "formats/gguf_types.h"
#include "formats/printable.h"

namespace reprise {
namespace {

constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxNameBytes = 64;
// Real files hold a few dozen keys and at most tens of thousands of tensors. The caps bound the tables that a huge header can ask for.
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 18;
// The least that an entry takes. A key: length, one byte, type, one byte of value. A tensor: length, one byte of name, rank, one
// dimension, type, offset.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
constexpr uint64_t kMinAlignment = 8;
constexpr uint64_t kMaxAlignment = 1 << 16;

std::string Quoted(std::string_view name) { return fmt::format("'{}'", Printable(name)); }

// Indices of `items`, sorted by their names; the first name that occurs twice goes to `duplicate`.
template <class Item>
std::vector<uint32_t> SortedByName(const std::vector<Item>& items, std::string_view Item::*name,
                                   std::optional<std::string_view>& duplicate) {
  std::vector<uint32_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](uint32_t i) { return items[i].*name; });
  const auto twice = std::ranges::adjacent_find(order, [&](uint32_t a, uint32_t b) { return items[a].*name == items[b].*name; });
  if (twice != order.end()) duplicate = items[*twice].*name;
  return order;
}

}  // namespace

class GgufParser {
 public:
  explicit GgufParser(std::span<const std::byte> bytes) : in_(bytes) { file_.bytes_ = bytes; }

  Result<GgufFile> Parse() {
    REPRISE_RETURN_IF_ERROR(ParseCounts());
    for (uint64_t i = 0; i < n_keys_; ++i) REPRISE_RETURN_IF_ERROR(ParseEntry(i));
    REPRISE_RETURN_IF_ERROR(CheckKeys());
    for (uint64_t i = 0; i < n_tensors_; ++i) REPRISE_RETURN_IF_ERROR(ParseTensor(i));
    REPRISE_RETURN_IF_ERROR(CheckTensors());
    return std::move(file_);
  }

 private:
  Status ParseCounts() {
    REPRISE_ASSIGN_OR_RETURN(const auto magic, in_.Bytes(4, "the GGUF magic"));
    const std::string_view found(reinterpret_cast<const char*>(magic.data()), magic.size());
    if (found != "GGUF") return Corrupt(fmt::format("this is no GGUF file: it begins with {} instead of 'GGUF'", Quoted(found)));
    REPRISE_ASSIGN_OR_RETURN(file_.version_, in_.Get<uint32_t>("the version"));
    if (file_.version_ != 2 && file_.version_ != 3) {
      const uint32_t swapped = __builtin_bswap32(file_.version_);
      if (swapped == 2 || swapped == 3) return Unsupported("this GGUF file is big-endian; only little-endian files are read");
      return Unsupported(fmt::format("GGUF version {} is unknown; versions 2 and 3 are read", file_.version_));
    }
    REPRISE_ASSIGN_OR_RETURN(n_tensors_, in_.Get<uint64_t>("the number of tensors"));
    REPRISE_ASSIGN_OR_RETURN(n_keys_, in_.Get<uint64_t>("the number of keys"));
    REPRISE_RETURN_IF_ERROR(CheckCount("tensors", n_tensors_, kMinTensorBytes, kMaxTensors));
    return CheckCount("keys", n_keys_, kMinKeyBytes, kMaxKeys);
  }

  Status CheckCount(std::string_view what, uint64_t count, uint64_t least_bytes, uint64_t cap) const {
    if (count > in_.remaining() / least_bytes) {
      return Corrupt(fmt::format("the header claims {} {}, more than the {} bytes that remain can hold", count, what, in_.remaining()));
    }
    if (count > cap) {
      return Unsupported(fmt::format("the header claims {} {}; at most {} are read", count, what, cap));
    }
    return Ok();
  }

  // A key or a tensor's name.
  Result<std::string_view> ParseName(std::string_view what, uint64_t max_bytes) {
    const size_t at = in_.offset();
    REPRISE_ASSIGN_OR_RETURN(const uint64_t size, in_.Get<uint64_t>(what));
    if (size == 0 || size > max_bytes) {
      return Corrupt(fmt::format("{} at byte {} has {} bytes; 1 to {} are allowed", what, at, size, max_bytes));
    }
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, in_.Bytes(size, what));
    const std::string_view name(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!IsPrintableAscii(name)) {
      return Corrupt(fmt::format("{} at byte {} is not printable ASCII: {}", what, at, Quoted(name)));
    }
    return name;
  }

  Status ParseEntry(uint64_t index) {
    GgufEntry entry;
    REPRISE_ASSIGN_OR_RETURN(entry.key, ParseName(fmt::format("key {}", index), kMaxKeyBytes));
    return ParseValue(entry).Within("key " + Quoted(entry.key));
  }

  Status ParseValue(GgufEntry& entry) {
    REPRISE_ASSIGN_OR_RETURN(entry.type, ParseType());
    entry.element_type = entry.type;
    if (entry.type == GgufType::kArray) {
      REPRISE_ASSIGN_OR_RETURN(entry.element_type, ParseType());
      if (entry.element_type == GgufType::kArray) return Unsupported("it is an array of arrays, which is not read");
      REPRISE_ASSIGN_OR_RETURN(entry.count, in_.Get<uint64_t>("the length of its array"));
    }
    const auto rest = file_.bytes_.subspan(in_.offset());
    entry.values = rest.data();
    if (entry.element_type == GgufType::kString) {
      REPRISE_RETURN_IF_ERROR(SkipStrings(entry.count));
    } else {
      REPRISE_RETURN_IF_ERROR(SkipNumbers(entry));
    }
    file_.entries_.push_back(entry);
    return Ok();
  }

  Result<GgufType> ParseType() {
    const size_t at = in_.offset();
    REPRISE_ASSIGN_OR_RETURN(const uint32_t id, in_.Get<uint32_t>("a value's type"));
    if (id > static_cast<uint32_t>(GgufType::kFloat64)) {
      return Corrupt(fmt::format("value type id {} at byte {} is unknown; 0 to 12 are defined", id, at));
    }
    return static_cast<GgufType>(id);
  }

  Status SkipNumbers(const GgufEntry& entry) {
    const auto size = CheckedMul(entry.count, GgufTypeBytes(entry.element_type));
    if (!size || *size > in_.remaining()) {
      return Corrupt(fmt::format("its {} values of {} at byte {} are more than the {} bytes that remain can hold", entry.count,
                                 GgufTypeName(entry.element_type), in_.offset(), in_.remaining()));
    }
    REPRISE_ASSIGN_OR_RETURN(const auto values, in_.Bytes(*size, "its values"));
    if (entry.element_type == GgufType::kBool) {
      for (const std::byte value : values) {
        if (value > std::byte{1}) return Corrupt(fmt::format("a bool is {} instead of 0 or 1", static_cast<int>(value)));
      }
    }
    return Ok();
  }

  // A vocabulary holds hundreds of thousands of strings, so this loop goes without a Result for each.
  Status SkipStrings(uint64_t count) {
    const size_t start = in_.offset();
    const std::span<const std::byte> rest = file_.bytes_.subspan(start);
    if (count > rest.size() / sizeof(uint64_t)) {
      return Corrupt(fmt::format("its {} strings at byte {} are more than the {} bytes that remain can hold", count, start, rest.size()));
    }
    uint64_t used = 0;
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t size = 0;
      const uint64_t left = rest.size() - used;
      if (left >= sizeof(size)) std::memcpy(&size, rest.data() + used, sizeof(size));
      if (left < sizeof(size) || size > left - sizeof(size)) {
        return Corrupt(fmt::format("string {} at byte {} claims {} bytes, {} remain", i, start + used, size,
                                   left < sizeof(size) ? 0 : left - sizeof(size)));
      }
      used += sizeof(size) + size;
    }
    return in_.Bytes(used, "its strings").status();
  }

  Status CheckKeys() {
    std::optional<std::string_view> duplicate;
    file_.entries_by_key_ = SortedByName(file_.entries_, &GgufEntry::key, duplicate);
    if (duplicate) return Corrupt(fmt::format("key {} occurs twice", Quoted(*duplicate)));
    REPRISE_ASSIGN_OR_RETURN(file_.alignment_, file_.GetUintOr("general.alignment", file_.alignment_));
    if (!std::has_single_bit(file_.alignment_) || file_.alignment_ < kMinAlignment || file_.alignment_ > kMaxAlignment) {
      return Corrupt(fmt::format("key 'general.alignment' is {}; a power of two from {} to {} was expected", file_.alignment_,
                                 kMinAlignment, kMaxAlignment));
    }
    return Ok();
  }

  Status ParseTensor(uint64_t index) {
    GgufTensor tensor;
    REPRISE_ASSIGN_OR_RETURN(tensor.name, ParseName(fmt::format("the name of tensor {}", index), kMaxNameBytes));
    return ParseTensorInfo(tensor).Within("tensor " + Quoted(tensor.name));
  }

  Status ParseTensorInfo(GgufTensor& tensor) {
    REPRISE_ASSIGN_OR_RETURN(const uint32_t n_dims, in_.Get<uint32_t>("its number of dimensions"));
    if (n_dims < 1 || n_dims > tensor.dims.size()) {
      return Corrupt(fmt::format("it has {} dimensions; 1 to {} were expected", n_dims, tensor.dims.size()));
    }
    tensor.n_dims = static_cast<int>(n_dims);
    uint64_t elements = 1;
    for (int i = 0; i < tensor.n_dims; ++i) {
      REPRISE_ASSIGN_OR_RETURN(tensor.dims[i], in_.Get<uint64_t>("its dimensions"));
      if (tensor.dims[i] == 0) return Corrupt(fmt::format("dimension {} is 0", i));
      const auto product = CheckedMul(elements, tensor.dims[i]);
      // Signed arithmetic is used on sizes elsewhere, so what 63 bits cannot count is refused here.
      if (!product || *product > INT64_MAX) return Corrupt("the product of its dimensions overflows");
      elements = *product;
    }
    REPRISE_ASSIGN_OR_RETURN(const uint32_t type_id, in_.Get<uint32_t>("its type"));
    REPRISE_ASSIGN_OR_RETURN(tensor.type, TensorTypeFromId(type_id));
    REPRISE_ASSIGN_OR_RETURN(const uint64_t size, TensorBytes(tensor.type, tensor.dims[0], tensor.rows()));
    REPRISE_ASSIGN_OR_RETURN(const uint64_t offset, in_.Get<uint64_t>("its offset"));
    const auto expected = CheckedAlignUp(data_end_, file_.alignment_);
    if (!expected || offset != *expected) {
      return Corrupt(
          fmt::format("its data starts at offset {} of the data section; {} was expected, as tensors follow each other aligned to {} bytes",
                      offset, expected.value_or(data_end_), file_.alignment_));
    }
    const auto end = CheckedAdd(offset, size);
    if (!end || *end > file_.bytes_.size()) {
      return Corrupt(
          fmt::format("its {} bytes at offset {} of the data section end beyond the file of {} bytes", size, offset, file_.bytes_.size()));
    }
    data_end_ = *end;
    tensor.data = file_.bytes_.subspan(offset, size);  // moved behind the header once its end is known
    file_.tensors_.push_back(tensor);
    return Ok();
  }

  Status CheckTensors() {
    std::optional<std::string_view> duplicate;
    file_.tensors_by_name_ = SortedByName(file_.tensors_, &GgufTensor::name, duplicate);
    if (duplicate) return Corrupt(fmt::format("tensor {} occurs twice", Quoted(*duplicate)));
    const uint64_t file_size = file_.bytes_.size();
    uint64_t end = in_.offset();
    const auto data_offset = CheckedAlignUp(end, file_.alignment_);
    if (!data_offset) return Corrupt("the header's end cannot be aligned");
    file_.data_offset_ = *data_offset;
    for (GgufTensor& tensor : file_.tensors_) {
      const uint64_t offset = static_cast<uint64_t>(tensor.data.data() - file_.bytes_.data());
      // No sum wraps: both terms are at most the file's size, plus one alignment.
      end = file_.data_offset_ + offset + tensor.data.size();
      if (end > file_size) {
        return Corrupt(fmt::format("tensor {} lies at bytes {} to {}, but the file has {}", Quoted(tensor.name),
                                   file_.data_offset_ + offset, end, file_size));
      }
      tensor.data = file_.bytes_.subspan(file_.data_offset_ + offset, tensor.data.size());
    }
    const auto padded = CheckedAlignUp(end, file_.alignment_);
    if (padded && file_size > *padded) {
      return Corrupt(fmt::format("{} bytes follow the end of the data at byte {}", file_size - end, end));
    }
    return Ok();
  }

  ByteReader in_;
  GgufFile file_;
  uint64_t n_tensors_ = 0;
  uint64_t n_keys_ = 0;
  uint64_t data_end_ = 0;  // of the tensors so far, within the data section
};

Result<GgufFile> GgufFile::Parse(std::span<const std::byte> bytes) { return GgufParser(bytes).Parse(); }

Result<GgufFile> GgufFile::Open(const std::string& path) {
  REPRISE_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  auto parsed = Parse(mapped.bytes());
  if (!parsed.ok()) return parsed.status().Within("'" + path + "'");
  parsed->file_ = std::move(mapped);
  return parsed;
}

}  // namespace reprise
