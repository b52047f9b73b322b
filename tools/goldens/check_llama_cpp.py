"""Does llama.cpp agree with the goldens that tiny_models.py made with transformers? Prints the largest difference of a logit for each model.

    python tools/goldens/check_llama_cpp.py tests/data/goldens
"""

import json
import sys
from pathlib import Path

import numpy as np
from llama_cpp import Llama

TOLERANCE = 2e-3
OTHERS = {"gemma3": 1e-2}  # whose GELU it looks up in a table of halves


def check(directory, name, facts):
    exact = dict(type_k=0, type_v=0, flash_attn=False)  # keys and values in fp32: the default of fp16 alone costs 2e-2
    model = Llama(str(directory / f"{name}.gguf"), n_ctx=512, n_batch=512, n_threads=1, logits_all=True, verbose=False, **exact)
    ids = np.fromfile(directory / f"{name}.ids.i32", "<i4").tolist()
    expected = np.fromfile(directory / f"{name}.logits.f32", "<f4").reshape(facts["rows"], -1)
    model.eval(ids)
    difference = np.abs(model.scores[len(ids) - len(expected) : len(ids)] - expected).max()
    continuation = []
    for _ in range(facts["greedy"]):
        continuation.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval(continuation[-1:])
    same = continuation == np.fromfile(directory / f"{name}.greedy.i32", "<i4").tolist()
    print(f"{name}: largest difference {difference:.1e}, greedy ids {'the same' if same else 'DIFFER'}")
    return difference < OTHERS.get(name, TOLERANCE) and same


def main():
    directory = Path(sys.argv[1])
    facts = json.loads((directory / "tiny_models.json").read_text())
    sys.exit(0 if all([check(directory, name, facts[name]) for name in facts]) else 1)


if __name__ == "__main__":
    main()
