"""Greedy continuations of SmolLM2-135M-Instruct by llama.cpp: tests/data/goldens/smollm2.json.

    python tools/goldens/smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf tests/data/goldens/smollm2.json

The model file is the one that `reprise pull smollm2-135m` fetches. For each prompt: its ids, the ids that follow greedily (end-of-turn tokens do
not stop it), and at each step the second best id and the gap between the two best logits.

llama.cpp quantises activations to 8 bits in blocks of 32 and sums in an order of its own. Against fp32 (transformers, on the same dequantised
weights) its gaps moved by up to 1.1 on these prompts, and its choice differed only where its gap was below 0.15. So compare step by step, each with
llama.cpp's own ids before it: where the gap is large the choice has to be the same, where it is small it may be the second best.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from llama_cpp import Llama

STEPS = 48
LONG_TEXT = Path(__file__).parents[2] / "models" / "prompt.txt"


def chat(user):
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


PROMPTS = {
    "story": "Once upon a time, in a small village by the sea, there lived",
    "science": "The three states of matter are",
    "code": "def fibonacci(n):\n    ",
    "numbers": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,",
    "chat_capital": chat("What is the capital of France?"),
    "chat_haiku": chat("Write a haiku about the rain."),
    "chat_list": chat("List three things that I should pack for a week in the mountains, and say why."),
    "long": LONG_TEXT.read_text("utf-8")[:2400],
}


def continuation(model, prompt):
    ids = model.tokenize(prompt.encode("utf-8"), add_bos=False, special=True)
    model.reset()
    model.eval(ids)
    made, second, gaps = [], [], []
    for _ in range(STEPS):
        logits = model.scores[model.n_tokens - 1]
        best, next_best = np.argsort(-logits, kind="stable")[:2].tolist()
        made.append(best)
        second.append(next_best)
        gaps.append(round(float(logits[best] - logits[next_best]), 4))
        model.eval([best])
    text = model.detokenize(made, special=True).decode("utf-8", "replace")
    print(f"{len(ids)} prompt tokens, least gap {min(gaps)}: {text!r}")
    return {"prompt": prompt, "ids": ids, "continuation": made, "second": second, "gaps": gaps, "text": text}


def main():
    path, out = Path(sys.argv[1]), Path(sys.argv[2])
    model = Llama(str(path), n_ctx=2048, n_threads=1, logits_all=True, verbose=False, type_k=0, type_v=0, flash_attn=False)
    found = {name: continuation(model, prompt) for name, prompt in PROMPTS.items()}
    goldens = {"model": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "prompts": found}
    lists = {f'"@{i}"': json.dumps(v) for i, v in enumerate(v for p in found.values() for v in p.values() if isinstance(v, list))}
    numbers = iter(lists)
    for prompt in found.values():
        prompt |= {key: next(numbers).strip('"') for key, value in prompt.items() if isinstance(value, list)}
    text = json.dumps(goldens, indent=1, ensure_ascii=True)
    for mark, values in lists.items():  # a list of ids goes on one line
        text = text.replace(mark, values)
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
