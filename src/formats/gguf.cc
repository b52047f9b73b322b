#include "formats/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "formats/gguf_types.h"
#include "formats/printable.h"

namespace reprise {
namespace {

// An integer of any of the file's types: `bits` is the two's complement of a negative one.
struct Integer {
  bool negative = false;
  uint64_t bits = 0;

  std::string Text() const { return negative ? std::to_string(static_cast<int64_t>(bits)) : std::to_string(bits); }
};

Integer FromSigned(int64_t value) { return {value < 0, static_cast<uint64_t>(value)}; }

std::optional<Integer> LoadInteger(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::kUint8: return Integer{false, LoadUnaligned<uint8_t>(at)};
    case GgufType::kUint16: return Integer{false, LoadUnaligned<uint16_t>(at)};
    case GgufType::kUint32: return Integer{false, LoadUnaligned<uint32_t>(at)};
    case GgufType::kUint64: return Integer{false, LoadUnaligned<uint64_t>(at)};
    case GgufType::kInt8: return FromSigned(LoadUnaligned<int8_t>(at));
    case GgufType::kInt16: return FromSigned(LoadUnaligned<int16_t>(at));
    case GgufType::kInt32: return FromSigned(LoadUnaligned<int32_t>(at));
    case GgufType::kInt64: return FromSigned(LoadUnaligned<int64_t>(at));
    default: return std::nullopt;
  }
}

std::optional<double> LoadFloat(GgufType type, const std::byte* at) {
  if (type == GgufType::kFloat32) return LoadUnaligned<float>(at);
  if (type == GgufType::kFloat64) return LoadUnaligned<double>(at);
  return std::nullopt;
}

Status WrongType(const GgufEntry& entry, std::string_view expected) {
  return Corrupt(fmt::format("key '{}' is {}; {} was expected", Printable(entry.key), entry.TypeName(), expected));
}

// "key 'k'" or "element 3 of key 'k'".
std::string Place(const GgufEntry& entry, uint64_t index) {
  const std::string key = fmt::format("key '{}'", Printable(entry.key));
  return entry.type == GgufType::kArray ? fmt::format("element {} of {}", index, key) : key;
}

// The element `index` of an entry whose elements have a fixed size.
const std::byte* ElementAt(const GgufEntry& entry, uint64_t index) { return entry.values + index * GgufTypeBytes(entry.element_type); }

Result<uint64_t> UintAt(const GgufEntry& entry, uint64_t index, GgufRange range) {
  const auto value = LoadInteger(entry.element_type, ElementAt(entry, index));
  if (!value) return WrongType(entry, "an integer");
  if (value->negative || value->bits < range.min || value->bits > range.max) {
    const std::string expected =
        range.max == UINT64_MAX ? fmt::format("at least {}", range.min) : fmt::format("{} to {}", range.min, range.max);
    return Corrupt(fmt::format("{} is {}; {} was expected", Place(entry, index), value->Text(), expected));
  }
  return value->bits;
}

Result<int64_t> IntAt(const GgufEntry& entry, uint64_t index) {
  const auto value = LoadInteger(entry.element_type, ElementAt(entry, index));
  if (!value) return WrongType(entry, "an integer");
  if (!value->negative && value->bits > static_cast<uint64_t>(INT64_MAX)) {
    return Corrupt(fmt::format("{} is {}, more than 63 bits hold", Place(entry, index), value->Text()));
  }
  return static_cast<int64_t>(value->bits);
}

Result<double> FloatAt(const GgufEntry& entry, uint64_t index) {
  const auto value = LoadFloat(entry.element_type, ElementAt(entry, index));
  if (!value) return WrongType(entry, "a float");
  if (!std::isfinite(*value)) return Corrupt(fmt::format("{} is not a finite number", Place(entry, index)));
  return *value;
}

Result<bool> BoolAt(const GgufEntry& entry, uint64_t index) {
  if (entry.element_type != GgufType::kBool) return WrongType(entry, "a bool");
  return LoadUnaligned<uint8_t>(ElementAt(entry, index)) != 0;
}

}  // namespace

std::string_view GgufTypeName(GgufType type) {
  switch (type) {
    case GgufType::kUint8: return "uint8";
    case GgufType::kInt8: return "int8";
    case GgufType::kUint16: return "uint16";
    case GgufType::kInt16: return "int16";
    case GgufType::kUint32: return "uint32";
    case GgufType::kInt32: return "int32";
    case GgufType::kFloat32: return "float32";
    case GgufType::kBool: return "bool";
    case GgufType::kString: return "string";
    case GgufType::kArray: return "array";
    case GgufType::kUint64: return "uint64";
    case GgufType::kInt64: return "int64";
    case GgufType::kFloat64: return "float64";
  }
  return "unknown";
}

std::string GgufTensor::Shape() const { return fmt::format("[{}]", fmt::join(dims.begin(), dims.begin() + n_dims, ", ")); }

std::string GgufEntry::TypeName() const {
  if (type != GgufType::kArray) return std::string(GgufTypeName(type));
  return fmt::format("array of {} {}", count, GgufTypeName(element_type));
}

std::string GgufEntry::ShortValue(size_t max_chars) const {
  std::string text = type == GgufType::kArray ? "[" : "";
  const std::byte* at = values;
  for (uint64_t i = 0; i < count; ++i) {
    if (i > 0) text += ", ";
    if (text.size() >= max_chars) {
      text += "...";
      break;
    }
    if (element_type == GgufType::kString) {
      const std::string_view value = LoadString(at);
      text += '"' + Printable(value, max_chars - text.size()) + '"';
      at += sizeof(uint64_t) + value.size();
      continue;
    }
    if (element_type == GgufType::kBool) {
      text += LoadUnaligned<uint8_t>(at) != 0 ? "true" : "false";
    } else if (const auto integer = LoadInteger(element_type, at)) {
      text += integer->Text();
    } else if (element_type == GgufType::kFloat32) {
      text += fmt::format("{}", LoadUnaligned<float>(at));
    } else {
      text += fmt::format("{}", LoadUnaligned<double>(at));
    }
    at += GgufTypeBytes(element_type);
  }
  return type == GgufType::kArray ? text + "]" : text;
}

const GgufEntry* GgufFile::FindEntry(std::string_view key) const {
  const auto it = std::ranges::lower_bound(entries_by_key_, key, {}, [&](uint32_t i) { return entries_[i].key; });
  return it != entries_by_key_.end() && entries_[*it].key == key ? &entries_[*it] : nullptr;
}

Result<const GgufEntry*> GgufFile::RequireEntry(std::string_view key) const {
  const GgufEntry* entry = FindEntry(key);
  if (entry == nullptr) return NotFound(fmt::format("the file has no key '{}'", Printable(key)));
  return entry;
}

Result<const GgufEntry*> GgufFile::RequireArray(std::string_view key) const {
  REPRISE_ASSIGN_OR_RETURN(const GgufEntry* entry, RequireEntry(key));
  if (entry->type != GgufType::kArray) return WrongType(*entry, "an array");
  return entry;
}

// An array must not be mistaken for its first element: the scalar getters check `type`, which an element reader does not look at.
#define REPRISE_GGUF_SCALAR(key, expected)                             \
  REPRISE_ASSIGN_OR_RETURN(const GgufEntry* entry, RequireEntry(key)); \
  if (entry->type == GgufType::kArray) return WrongType(*entry, expected)

Result<uint64_t> GgufFile::GetUint(std::string_view key, GgufRange range) const {
  REPRISE_GGUF_SCALAR(key, "an integer");
  return UintAt(*entry, 0, range);
}

Result<int64_t> GgufFile::GetInt(std::string_view key) const {
  REPRISE_GGUF_SCALAR(key, "an integer");
  return IntAt(*entry, 0);
}

Result<double> GgufFile::GetFloat(std::string_view key) const {
  REPRISE_GGUF_SCALAR(key, "a float");
  return FloatAt(*entry, 0);
}

Result<bool> GgufFile::GetBool(std::string_view key) const {
  REPRISE_GGUF_SCALAR(key, "a bool");
  return BoolAt(*entry, 0);
}

Result<std::string_view> GgufFile::GetString(std::string_view key) const {
  REPRISE_GGUF_SCALAR(key, "a string");
  if (entry->type != GgufType::kString) return WrongType(*entry, "a string");
  return LoadString(entry->values);
}

#undef REPRISE_GGUF_SCALAR

Result<uint64_t> GgufFile::GetUintOr(std::string_view key, uint64_t fallback, GgufRange range) const {
  return Has(key) ? GetUint(key, range) : Result<uint64_t>(fallback);
}

Result<int64_t> GgufFile::GetIntOr(std::string_view key, int64_t fallback) const {
  return Has(key) ? GetInt(key) : Result<int64_t>(fallback);
}

Result<double> GgufFile::GetFloatOr(std::string_view key, double fallback) const {
  return Has(key) ? GetFloat(key) : Result<double>(fallback);
}

Result<bool> GgufFile::GetBoolOr(std::string_view key, bool fallback) const { return Has(key) ? GetBool(key) : Result<bool>(fallback); }

Result<std::string_view> GgufFile::GetStringOr(std::string_view key, std::string_view fallback) const {
  return Has(key) ? GetString(key) : Result<std::string_view>(fallback);
}

namespace {

// All elements of an array through `element(entry, index)`. The count was checked against the file's bytes, so the reserve is bounded by
// them.
template <class T, class Element>
Result<std::vector<T>> Collect(const GgufEntry& entry, Element element) {
  std::vector<T> values;
  values.reserve(entry.count);
  for (uint64_t i = 0; i < entry.count; ++i) {
    REPRISE_ASSIGN_OR_RETURN(const auto value, element(entry, i));
    values.push_back(value);
  }
  return values;
}

}  // namespace

Result<std::vector<uint64_t>> GgufFile::GetUints(std::string_view key, GgufRange range) const {
  REPRISE_ASSIGN_OR_RETURN(const GgufEntry* entry, RequireArray(key));
  return Collect<uint64_t>(*entry, [&](const GgufEntry& e, uint64_t i) { return UintAt(e, i, range); });
}

Result<std::vector<int64_t>> GgufFile::GetInts(std::string_view key) const {
  REPRISE_ASSIGN_OR_RETURN(const GgufEntry* entry, RequireArray(key));
  return Collect<int64_t>(*entry, IntAt);
}

Result<std::vector<double>> GgufFile::GetFloats(std::string_view key) const {
  REPRISE_ASSIGN_OR_RETURN(const GgufEntry* entry, RequireArray(key));
  return Collect<double>(*entry, FloatAt);
}

Result<std::vector<uint8_t>> GgufFile::GetBools(std::string_view key) const {
  REPRISE_ASSIGN_OR_RETURN(const GgufEntry* entry, RequireArray(key));
  return Collect<uint8_t>(*entry, BoolAt);
}

Result<std::vector<std::string_view>> GgufFile::GetStrings(std::string_view key) const {
  REPRISE_ASSIGN_OR_RETURN(const GgufEntry* entry, RequireArray(key));
  if (entry->count > 0 && entry->element_type != GgufType::kString) return WrongType(*entry, "an array of strings");
  std::vector<std::string_view> values;
  values.reserve(entry->count);
  const std::byte* at = entry->values;
  for (uint64_t i = 0; i < entry->count; ++i) {
    values.push_back(LoadString(at));
    at += sizeof(uint64_t) + values.back().size();
  }
  return values;
}

Result<std::vector<uint64_t>> GgufFile::GetUintPerLayer(std::string_view key, uint64_t count, GgufRange range) const {
  REPRISE_ASSIGN_OR_RETURN(const GgufEntry* entry, RequireEntry(key));
  if (entry->type != GgufType::kArray) {
    REPRISE_ASSIGN_OR_RETURN(const uint64_t value, UintAt(*entry, 0, range));
    return std::vector<uint64_t>(count, value);
  }
  if (entry->count != count) return WrongType(*entry, fmt::format("an integer or an array of {}", count));
  return GetUints(key, range);
}

const GgufTensor* GgufFile::Find(std::string_view name) const {
  const auto it = std::ranges::lower_bound(tensors_by_name_, name, {}, [&](uint32_t i) { return tensors_[i].name; });
  return it != tensors_by_name_.end() && tensors_[*it].name == name ? &tensors_[*it] : nullptr;
}

Result<const GgufTensor*> GgufFile::Require(std::string_view name, std::initializer_list<uint64_t> dims) const {
  const GgufTensor* tensor = Find(name);
  if (tensor == nullptr) return NotFound(fmt::format("the file has no tensor '{}'", Printable(name)));
  GgufTensor expected;
  for (const uint64_t dim : dims) {
    if (expected.n_dims < expected.dims.size()) expected.dims[expected.n_dims++] = dim;
  }
  if (tensor->dims != expected.dims) {
    return Corrupt(fmt::format("tensor '{}' is {}; {} was expected", Printable(name), tensor->Shape(), expected.Shape()));
  }
  return tensor;
}

}  // namespace reprise
