// Reference conversions between rows of float32 and the block formats of GGUF: scalar, portable, and the same to the bit everywhere.
//
// These say what a block means; the backends' kernels are tested against them. Quantising rounds as ggml's reference does, so
// files made here equal files made there: Q8_0 rounds halves away from zero, the 4-bit types truncate after adding half a step,
// and scales are computed in float32 before they are stored as halves. MXFP4 takes the nearest of its values, of two as near the smaller magnitude.
// Thread-safe.
//
// The formats, each block in the order of its fields, little-endian, "half" = F16:
//
//   Q4_0   32: half d; nibbles of elements 0-15 low, 16-31 high         x = d (q - 8)
//   Q4_1   32: half d, half m; nibbles likewise                         x = d q + m
//   Q5_0   32: half d; 32 fifth bits; nibbles                           x = d (q - 16)
//   Q5_1   32: half d, half m; 32 fifth bits; nibbles                   x = d q + m
//   Q8_0   32: half d; 32 int8                                          x = d q
//   Q4_K  256: half d, half dmin; 8 scales and 8 minima of 6 bits in    x = d scale q - dmin minimum,
//              12 bytes; nibbles, each 32 bytes holding 64 elements     a scale for each 32 elements
//   Q5_K  256: as Q4_K, with 256 fifth bits before the nibbles
//   Q6_K  256: low nibbles, 2 high bits each, 16 int8 scales, half d    x = d scale (q - 32), a scale for each 16
//   MXFP4  32: byte e; nibbles as in Q4_0, codes of 4-bit floats        x = 2^(e - 127) E2M1(q)   (mxfp4.h)
#pragma once

#include <cstddef>
#include <span>

#include "formats/tensor_type.h"
#include "reprise/status.h"

namespace reprise {

// F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, MXFP4.
bool CanDequantize(TensorType type);
// F32, F16, BF16, Q4_0, Q4_1, Q8_0, MXFP4.
bool CanQuantize(TensorType type);

// Whole blocks to floats. `row` has as many elements as `blocks` hold; kInvalidArgument otherwise, kUnsupported for another type.
Status DequantizeRow(TensorType type, std::span<const std::byte> blocks, std::span<float> row);

// The reverse. kInvalidArgument too when a block type meets a value that is not finite, or too large for its scale.
Status QuantizeRow(TensorType type, std::span<const float> row, std::span<std::byte> blocks);

}  // namespace reprise
