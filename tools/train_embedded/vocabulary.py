"""A byte-level BPE of the qwen35 kind, trained on the training text and nothing else."""

import argparse
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .corpus import BOOKS
from .shape import CONTROL_TOKENS, SHAPE

# What a reader does for `tokenizer.ggml.pre` = "qwen35": contractions, a word with one leading mark or space, single
# digits, punctuation with the line ends that follow it, line ends, other white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(text: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE.vocab - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # every byte has a token: any text can be written
        show_progress=False,
    )
    words = text.read_text("utf-8").split(CONTROL_TOKENS[0])
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_special_tokens(CONTROL_TOKENS)  # at the end, as the family has it
    assert tokenizer.get_vocab_size() == SHAPE.vocab
    return tokenizer


def load(work: Path) -> Tokenizer:
    return Tokenizer.from_file(str(work / "tokenizer.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work
    tokenizer = train(work / "train.txt")
    tokenizer.save(str(work / "tokenizer.json"))
    for source in ["train.txt", "chat.txt", *(f"{b}.held" for b in BOOKS)]:
        text = (work / source).read_text("utf-8")
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        np.array(ids, np.int32).tofile(work / f"{source}.ids")
        print(f"{source}: {len(text.encode())} bytes, {len(ids)} tokens")


if __name__ == "__main__":
    main()
