// FileTable: rows that are looked up one at a time and multiplied with nothing. They stay where the model file is mapped, in the file's own types: a table
// may be as large as all weights together, of which a step reads a row a token, and the system keeps of it what is used.
#pragma once

#include <cassert>
#include <cstddef>

#include "backend/ops.h"
#include "backend/weight_source.h"
#include "formats/quantize.h"

namespace reprise {

class FileTable : public Matrix {
 public:
  // `source` was checked, and its bytes stay.
  explicit FileTable(const WeightSource& source) : type_(source.type), data_(source.data) {
    outputs = static_cast<int>(source.outputs);
    inputs = static_cast<int>(source.inputs);
  }

  // Row `row` as floats, exactly the file's own dequantisation.
  void UnpackRow(int row, float* out) const {
    const size_t bytes = data_.size() / static_cast<size_t>(outputs);
    [[maybe_unused]] const Status status =
        DequantizeRow(type_, data_.subspan(static_cast<size_t>(row) * bytes, bytes), {out, static_cast<size_t>(inputs)});
    assert(status.ok());
  }

 private:
  TensorType type_;
  std::span<const std::byte> data_;
};

}  // namespace reprise
