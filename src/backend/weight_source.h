// WeightSource: a weight as a model file holds it, and what every backend asks of one before it packs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "formats/tensor_type.h"
#include "reprise/status.h"

namespace reprise {

// `outputs` rows of `inputs` elements of `type`.
struct WeightSource {
  std::string_view name;  // for error messages
  TensorType type{};
  int64_t inputs = 0;
  int64_t outputs = 0;
  std::span<const std::byte> data;
};

// The bytes of one row. An error when the sizes are none of a matrix, or when `data` does not hold just so many bytes.
Result<size_t> CheckMatrix(const WeightSource& source);

// The elements as floats, for any float type.
Result<std::vector<float>> ReadVector(const WeightSource& source);

}  // namespace reprise
