#include "backend/weightless_backend.h"

namespace reprise {

Result<const Matrix*> WeightlessBackend::LoadMatrix(const WeightSource& source) {
  REPRISE_RETURN_IF_ERROR(CheckLoad(source));
  Matrix& matrix = matrices_.emplace_back();
  matrix.outputs = static_cast<int>(source.outputs);
  matrix.inputs = static_cast<int>(source.inputs);
  return &matrix;
}

Result<std::unique_ptr<Plan>> WeightlessBackend::Capture(const StepTable&, const std::function<void(Ops&)>&) {
  return Unsupported("a backend without memory has no plans");
}

}  // namespace reprise
