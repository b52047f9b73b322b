"""The figures of the model card: held-out bits per byte, loss by position, draft acceptance, a sample."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import gguf_file, vocabulary
from .corpus import BOOKS
from .network import Network
from .shape import CONTROL_TOKENS, SHAPE

BUCKETS = [0, 512, 1024, 2048, 4096, 8192]
PROMPTS = [
    "It was not to be supposed that Elizabeth",
    "<|im_start|>user\nIs Mr. Knightley come?<|im_end|>\n<|im_start|>assistant\n",
]


def from_checkpoint(path):
    network = Network(SHAPE)
    network.load_state_dict(torch.load(path)["network"])
    return network.eval()


def measure(network, work, limit=None):
    """Every held-out text as one sequence, so that the last of its tokens are predicted from thousands before them."""
    nats = bytes_seen = agreed = drafted = 0
    by_position = [[] for _ in BUCKETS]
    tokenizer = vocabulary.load(work)
    for book in BOOKS:
        ids = np.fromfile(work / f"{book}.held.ids", np.int32).astype(np.int64)[:limit]
        logits, guess = network.run(ids)
        loss = F.cross_entropy(logits[:-1], torch.from_numpy(ids[1:]), reduction="none")
        nats += loss.sum().item()
        bytes_seen += len(tokenizer.decode(ids[1:].tolist()).encode())
        # The MTP row of token i and the main row of token i both guess token i+1.
        agreed += (guess.argmax(-1) == logits[1:].argmax(-1)).sum().item()
        drafted += len(guess)
        for bucket, start in enumerate(BUCKETS):
            end = BUCKETS[bucket + 1] if bucket + 1 < len(BUCKETS) else len(loss)
            by_position[bucket] += loss[start:end].tolist()
    return {
        "bits_per_byte": nats / math.log(2) / bytes_seen,
        "acceptance": agreed / drafted,
        "nats_per_token_from": {s: round(float(np.mean(x)), 4) for s, x in zip(BUCKETS, by_position) if x},
    }


def sample(network, tokenizer, prompt, count, temperature, seed):
    torch.manual_seed(seed)
    ids = tokenizer.encode(prompt).ids
    stops = {tokenizer.token_to_id(t) for t in CONTROL_TOKENS}
    for _ in range(count):
        last = network.run(ids)[0][-1]
        token = int(last.argmax()) if temperature == 0 else int((last / temperature).softmax(-1).multinomial(1))
        if token in stops:
            break
        ids.append(token)
    return tokenizer.decode(ids, skip_special_tokens=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="the exported GGUF")
    parser.add_argument("--limit", type=int, help="tokens a book, for a quick look")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = vocabulary.load(options.work)
    exported = gguf_file.read(options.model)
    for name, network in (("fp32", from_checkpoint(options.work / "checkpoint.pt")), ("q8_0", exported)):
        print(name, json.dumps(measure(network, options.work, options.limit)), flush=True)
    for prompt in PROMPTS:
        print("---", sample(exported, tokenizer, prompt, 160, 0.7, 1813), sep="\n", flush=True)


if __name__ == "__main__":
    main()
