#include "backend/weight_source.h"

#include <cstring>
#include <limits>
#include <string>

#include "base/half.h"

namespace reprise {
namespace {

Status CheckBytes(const WeightSource& source, const std::string& name) {
  const auto bytes = TensorBytes(source.type, static_cast<uint64_t>(source.inputs), static_cast<uint64_t>(source.outputs));
  if (!bytes.ok()) return bytes.status().Within(name);
  if (*bytes == source.data.size()) return Ok();
  return Corrupt(name + ": needs " + std::to_string(*bytes) + " bytes, has " + std::to_string(source.data.size()));
}

template <class T>
T ElementAt(const WeightSource& source, size_t i) {
  T element;
  std::memcpy(&element, source.data.data() + i * sizeof(T), sizeof(T));
  return element;
}

}  // namespace

Result<size_t> CheckMatrix(const WeightSource& source) {
  const std::string name = "weight " + std::string(source.name);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() / 2;
  if (source.inputs < 1 || source.outputs < 1 || source.inputs > kMost || source.outputs > kMost) {
    return InvalidArgument(name + ": cannot be a matrix of " + std::to_string(source.outputs) + " x " + std::to_string(source.inputs));
  }
  REPRISE_RETURN_IF_ERROR(CheckBytes(source, name));
  return source.data.size() / static_cast<size_t>(source.outputs);
}

Result<std::vector<float>> ReadVector(const WeightSource& source) {
  const std::string name = "vector " + std::string(source.name);
  if (source.inputs < 1 || source.outputs < 1) return InvalidArgument(name + ": is empty");
  REPRISE_RETURN_IF_ERROR(CheckBytes(source, name));
  float (*element)(const WeightSource&, size_t) = nullptr;
  switch (source.type) {
    case TensorType::kF32: element = ElementAt<float>; break;
    case TensorType::kF64: element = [](const WeightSource& s, size_t i) { return static_cast<float>(ElementAt<double>(s, i)); }; break;
    case TensorType::kF16: element = [](const WeightSource& s, size_t i) { return HalfToFloat(ElementAt<uint16_t>(s, i)); }; break;
    case TensorType::kBF16: element = [](const WeightSource& s, size_t i) { return BFloat16ToFloat(ElementAt<uint16_t>(s, i)); }; break;
    default: return Unsupported(name + ": must be of a float type, is " + std::string(TensorTypeName(source.type)));
  }
  // The product fits: the bytes are there.
  std::vector<float> values(static_cast<size_t>(source.inputs) * static_cast<size_t>(source.outputs));
  for (size_t i = 0; i < values.size(); ++i) values[i] = element(source, i);
  return values;
}

}  // namespace reprise
