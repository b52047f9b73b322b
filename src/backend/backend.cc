#include "backend/backend.h"

namespace reprise {

Result<Vector> Backend::LoadVector(const WeightSource& source) {
  REPRISE_ASSIGN_OR_RETURN(const std::vector<float> values, ReadVector(source));
  const size_t bytes = values.size() * sizeof(float);
  REPRISE_ASSIGN_OR_RETURN(std::byte* const memory, Allocate(bytes, "vector " + std::string(source.name)));
  REPRISE_RETURN_IF_ERROR(Copy(memory, values.data(), bytes));
  return Vector{reinterpret_cast<const float*>(memory), static_cast<int64_t>(values.size())};
}

Status Backend::Copy(void* to, const void* from, size_t bytes) {
  REPRISE_RETURN_IF_ERROR(stream().Copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes));
  return stream().Synchronize();
}

}  // namespace reprise
