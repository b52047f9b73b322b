#include "formats/tensor_type.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <string>

#include "base/checked.h"

namespace reprise {
namespace {

// clang-format off
constexpr std::array kTypes = {
    TensorTypeTraits{TensorType::kF32,     "F32",     1,   4},
    TensorTypeTraits{TensorType::kF16,     "F16",     1,   2},
    TensorTypeTraits{TensorType::kQ4_0,    "Q4_0",    32,  18},
    TensorTypeTraits{TensorType::kQ4_1,    "Q4_1",    32,  20},
    TensorTypeTraits{TensorType::kQ5_0,    "Q5_0",    32,  22},
    TensorTypeTraits{TensorType::kQ5_1,    "Q5_1",    32,  24},
    TensorTypeTraits{TensorType::kQ8_0,    "Q8_0",    32,  34},
    TensorTypeTraits{TensorType::kQ2_K,    "Q2_K",    256, 84},
    TensorTypeTraits{TensorType::kQ3_K,    "Q3_K",    256, 110},
    TensorTypeTraits{TensorType::kQ4_K,    "Q4_K",    256, 144},
    TensorTypeTraits{TensorType::kQ5_K,    "Q5_K",    256, 176},
    TensorTypeTraits{TensorType::kQ6_K,    "Q6_K",    256, 210},
    TensorTypeTraits{TensorType::kIQ2_XXS, "IQ2_XXS", 256, 66},
    TensorTypeTraits{TensorType::kIQ2_XS,  "IQ2_XS",  256, 74},
    TensorTypeTraits{TensorType::kIQ3_XXS, "IQ3_XXS", 256, 98},
    TensorTypeTraits{TensorType::kIQ1_S,   "IQ1_S",   256, 50},
    TensorTypeTraits{TensorType::kIQ4_NL,  "IQ4_NL",  32,  18},
    TensorTypeTraits{TensorType::kIQ3_S,   "IQ3_S",   256, 110},
    TensorTypeTraits{TensorType::kIQ2_S,   "IQ2_S",   256, 82},
    TensorTypeTraits{TensorType::kIQ4_XS,  "IQ4_XS",  256, 136},
    TensorTypeTraits{TensorType::kI8,      "I8",      1,   1},
    TensorTypeTraits{TensorType::kI16,     "I16",     1,   2},
    TensorTypeTraits{TensorType::kI32,     "I32",     1,   4},
    TensorTypeTraits{TensorType::kI64,     "I64",     1,   8},
    TensorTypeTraits{TensorType::kF64,     "F64",     1,   8},
    TensorTypeTraits{TensorType::kIQ1_M,   "IQ1_M",   256, 56},
    TensorTypeTraits{TensorType::kBF16,    "BF16",    1,   2},
    TensorTypeTraits{TensorType::kTQ1_0,   "TQ1_0",   256, 54},
    TensorTypeTraits{TensorType::kTQ2_0,   "TQ2_0",   256, 66},
    TensorTypeTraits{TensorType::kMXFP4,   "MXFP4",   32,  17},
};
// clang-format on

const TensorTypeTraits* FindType(uint32_t id) {
  const auto it = std::ranges::lower_bound(kTypes, id, {}, [](const TensorTypeTraits& t) { return static_cast<uint32_t>(t.type); });
  return it != kTypes.end() && static_cast<uint32_t>(it->type) == id ? &*it : nullptr;
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

std::span<const TensorTypeTraits> TensorTypes() { return kTypes; }

const TensorTypeTraits& TraitsOf(TensorType type) {
  const TensorTypeTraits* traits = FindType(static_cast<uint32_t>(type));
  assert(traits != nullptr);
  return *traits;
}

Result<TensorType> TensorTypeFromId(uint32_t id) {
  const TensorTypeTraits* traits = FindType(id);
  if (traits == nullptr) return Unsupported(fmt::format("tensor type id {} is unknown to this build", id));
  return traits->type;
}

Result<TensorType> TensorTypeFromName(std::string_view name) {
  for (const TensorTypeTraits& t : kTypes) {
    if (std::ranges::equal(t.name, name, {}, Lower, Lower)) return t.type;
  }
  return InvalidArgument(fmt::format("tensor type '{}' is unknown", name));
}

Result<uint64_t> TensorBytes(TensorType type, uint64_t row_elements, uint64_t rows) {
  const TensorTypeTraits& t = TraitsOf(type);
  if (row_elements % t.block_elements != 0) {
    return Corrupt(fmt::format("rows of {} elements are no whole number of {} blocks of {}", row_elements, t.name, t.block_elements));
  }
  const auto row_bytes = CheckedMul(row_elements / t.block_elements, t.block_bytes);
  const auto bytes = row_bytes ? CheckedMul(*row_bytes, rows) : std::nullopt;
  if (!bytes) {
    return Corrupt(fmt::format("{} rows of {} elements of {} are more bytes than 64 bits can count", rows, row_elements, t.name));
  }
  return *bytes;
}

}  // namespace reprise
