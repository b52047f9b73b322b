"""Goldens of the block formats: tests/data/goldens/quants.gguf, from the `gguf` package's own conversions.

For each type T the file holds
  T.blocks   random blocks (int8)           T.values   what they mean (float32)
  T.input    random floats (float32)        T.quantized   the blocks that they become (int8), where Reprise quantises to T

    python tools/goldens/quants.py tests/data/goldens/quants.gguf
"""

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants

BLOCKS = 6
# Byte offsets of the half-precision fields in a block: random bits there would be infinities and NaNs.
HALVES = {
    Type.F16: [], Type.BF16: [], Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.MXFP4: [],
}
QUANTIZED = [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.MXFP4]
EXPONENTS = [0, 1, 2, 120, 254, 255]  # of blocks of MXFP4: the ends, and one as weights have it


def random_blocks(rng, kind):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    if kind in (Type.F16, Type.BF16):
        values = (rng.standard_normal(256) * 10.0 ** rng.integers(-6, 4, 256)).astype(np.float32)
        return quants.quantize(values, kind).view(np.uint8)
    blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for offset in HALVES[kind]:
        scale = (rng.standard_normal(BLOCKS) * 0.05).astype(np.float16)
        scale[-1] = np.float16(3e-7)  # a denormal half
        blocks[:, offset:offset + 2] = scale.view(np.uint8).reshape(BLOCKS, 2)
    if kind == Type.MXFP4:
        blocks[:, 0] = EXPONENTS
    return blocks.reshape(-1)


def random_input(rng):
    rows = rng.standard_normal((10, 32)).astype(np.float32)
    rows *= np.float32(10.0) ** rng.integers(-4, 4, (10, 1)).astype(np.float32)
    rows[0] = 0
    rows[1] = np.arange(32) - 16  # ties in the middle of steps
    rows[2] = (np.arange(32) - 15.5) / 4
    rows[3] = 0.25
    rows[4] = np.abs(rows[4])
    rows[5] *= 1e-6  # scales that are denormal halves
    return rows.reshape(-1)


def main(path):
    rng = np.random.default_rng(7)
    out = gguf.GGUFWriter(path, "quants")
    for kind in HALVES:
        name = kind.name.lower()
        blocks = random_blocks(rng, kind)
        out.add_tensor(f"{name}.blocks", blocks.view(np.int8))
        out.add_tensor(f"{name}.values", quants.dequantize(blocks, kind).astype(np.float32).reshape(-1))
        if kind in QUANTIZED:
            values = random_input(rng)
            out.add_tensor(f"{name}.input", values)
            out.add_tensor(f"{name}.quantized", quants.quantize(values, kind).view(np.int8).reshape(-1))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main(sys.argv[1])
