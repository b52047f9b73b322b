#!/usr/bin/env python3
"""Makes tests/data/text/: small vocabularies, and what Hugging Face `tokenizers` and `sentencepiece` encode with them.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 jinja2 gguf
    tools/text_goldens.py --train PROSE.txt... [--pieces] [--ranked] [--smollm2 SmolLM2-135M-Instruct.gguf] [--gemma4 TEMPLATE.jinja...]
        [--mistral VERSION=TEMPLATE.jinja...] [--out tests/data/text]

PROSE is any large text; the committed vocabularies were trained on Jane Austen's novels (Debian's r-cran-janeaustenr) and fragments.json.
Without --smollm2 the committed smollm2.json is used again; --pieces trains sentencepiece.model, of which sentencepiece.json is a reading; --ranked trains gemma4.json; --gemma4 has the chat templates of
Gemma 4, its larger models' and its smaller ones', run; --mistral those of Mistral's models by their versions (v1, v3, v3-tekken and so on); without them what they wrote stays. The corpus is not stored: it is generated from fragments.json by a rule that
Corpus below and src/text/text_goldens_test.cc both follow. Training is deterministic, so a second run gives the same files.
"""

import argparse
import hashlib
import json
import pathlib
import re
import struct

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
LLAMA = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
QWEN35 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + SPACES
PRE_TOKENIZERS = ["gpt-2", "llama-bpe", "smollm", "qwen2", "qwen35"]

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<think>", "</think>", "<sep>", "<sep><sep>"]


def pre_tokenizer(name):
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    regex = {"gpt-2": GPT2, "llama-bpe": LLAMA, "qwen2": QWEN2, "qwen35": QWEN35}[name]
    split = pre_tokenizers.Split(Regex(regex), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def build(vocabulary):
    """The Hugging Face tokenizer of a vocabulary file."""
    merges = [tuple(m.split(" ")) for m in vocabulary["merges"]]
    tokens = all_tokens(vocabulary)
    model = models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, ignore_merges=vocabulary["pre"] == "llama-bpe")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer(vocabulary["pre"])
    if vocabulary["pre"].startswith("qwen"):
        tokenizer.normalizer = normalizers.NFC()  # as Qwen's own files have it
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in vocabulary["control"]])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in vocabulary["user_defined"]])
    return tokenizer


def all_tokens(vocabulary):
    """Control tokens, single bytes, what the merges make (in their order, each once), user-defined tokens."""
    tokens = list(vocabulary["control"]) + list(vocabulary["bytes"])
    seen = set(tokens)
    for merge in vocabulary["merges"]:
        token = merge.replace(" ", "")
        if token not in seen:
            seen.add(token)
            tokens.append(token)
    return tokens + list(vocabulary["user_defined"])


def train(name, texts, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(name)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return {"pre": name, "control": CONTROL, "user_defined": USER_DEFINED, "bytes": alphabet, "merges": [" ".join(m) for m in merges]}


# As Gemma has its: every line break and run of spaces whole, no space before the text, bytes for what is no piece.
PIECES = ["\n", "\n\n", "\n\n\n", "  ", "   ", "    ", *USER_DEFINED]


def train_pieces(texts, path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in text.split("\n") if line and "\0" not in line]),
        model_prefix=str(path.with_suffix("")), model_type="bpe", vocab_size=2000, character_coverage=0.998, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, split_digits=True,
        user_defined_symbols=[piece.replace(" ", Pieces.SPACE) for piece in PIECES], control_symbols=CONTROL, num_threads=1, minloglevel=2,
    )  # fmt: skip
    path.with_suffix(".vocab").unlink()


class Pieces:
    """sentencepiece, with two differences that ours has as well: control tokens may be parsed, and its sign for a space is no space."""

    SPACE = "\u2581"

    def __init__(self, path):
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.space = [self.model.piece_to_id(f"<0x{byte:02X}>") for byte in self.SPACE.encode()]
        model = self.model
        self.control = [model.id_to_piece(i) for i in range(model.get_piece_size()) if model.is_control(i) or model.is_unknown(i)]

    def vocabulary(self):
        model, kinds = self.model, (("is_unknown", 2), ("is_control", 3), ("is_unused", 5), ("is_byte", 6))
        ids = range(model.get_piece_size())
        pieces = [model.id_to_piece(i) for i in ids]
        kind = lambda i: next((number for name, number in kinds if getattr(model, name)(i)), 1)
        types = [4 if pieces[i].replace(self.SPACE, " ") in PIECES else kind(i) for i in ids]
        # Converters write spaces into pieces that are matched in raw text.
        tokens = [piece.replace(self.SPACE, " ") if type == 4 else piece for piece, type in zip(pieces, types)]
        return {"tokens": tokens, "types": types, "scores": [model.get_score(i) for i in ids]}

    def encode(self, text, parse_special):
        ids = []
        apart = [self.SPACE] + (self.control if parse_special else [])
        for part in re.split("(" + "|".join(map(re.escape, apart)) + ")", text):
            if part == self.SPACE:
                ids += self.space
            else:
                ids += [self.model.piece_to_id(part)] if part in apart else self.model.encode(part)
        return ids


# As Gemma 4 has them: what files call control tokens, and what they have user-defined, which is no part of plain text either.
GEMMA4_CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|think|>", "<|turn>", "<turn|>", *CONTROL]
GEMMA4_MARKERS = ["<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|channel>", "<channel|>"]
RUNS = [c * n for c in "\n\u2581" for n in range(2, 9)]


def train_ranked(texts):
    """Pieces and, as merges, every way in which one is two others, in the order of the pieces: what converters make of Gemma's vocabularies."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\u2581?[^\n\u2581]+|\u2581+|\n+"), "isolated")
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1900, limit_alphabet=400, show_progress=False,
                                  initial_alphabet=[chr(c) for c in range(32, 127)] + ["\n", "\t", "\u2581"]))
    trained = json.loads(tokenizer.to_str())["model"]
    characters = [t for t in trained["vocab"] if len(t) == 1 and t != " "]
    merged = ["".join(m) for m in trained["merges"]]
    special = GEMMA4_CONTROL + GEMMA4_MARKERS + USER_DEFINED
    pieces = [p for p in dict.fromkeys(RUNS + merged + characters) if p not in special]
    tokens = special + [f"<0x{b:02X}>" for b in range(256)] + pieces
    types = [3] * len(GEMMA4_CONTROL) + [4] * (len(special) - len(GEMMA4_CONTROL)) + [6] * 256 + [1] * len(pieces)
    known, place = set(pieces), {t: i for i, t in enumerate(tokens)}
    merges = []
    for piece in pieces:
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        merges += sorted(((a, b) for a, b in splits if a in known and b in known), key=lambda m: (place[m[0]], place[m[1]]))
    return {"tokens": tokens, "types": types, "merges": [" ".join(m) for m in merges]}


class Ranked:
    """Gemma's tokenizer over a vocabulary, but that its sign for a space is no space, as in Pieces."""

    def __init__(self, vocabulary):
        self.ids = {t: i for i, t in enumerate(vocabulary["tokens"])}
        merges = [tuple(m.split(" ")) for m in vocabulary["merges"]]
        self.tokenizer = Tokenizer(models.BPE(vocab=self.ids, merges=merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True))
        self.tokenizer.normalizer = normalizers.Replace(" ", Pieces.SPACE)
        self.tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        special = GEMMA4_CONTROL + GEMMA4_MARKERS
        self.tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
        self.tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in USER_DEFINED])
        self.space = [self.ids[f"<0x{byte:02X}>"] for byte in Pieces.SPACE.encode()]

    def encode(self, text, parse_special):
        self.tokenizer.encode_special_tokens = not parse_special
        ids = []
        for i, part in enumerate(text.split(Pieces.SPACE)):
            ids += self.space if i else []
            ids += self.tokenizer.encode(part, add_special_tokens=False).ids
        return ids


def read_smollm2(path):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    control = [t for t, kind in zip(tokens, types) if kind == 3]
    singles = [t for t, kind in zip(tokens, types) if kind == 1 and len(t) == 1 and t in set(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {"pre": "smollm", "control": control, "user_defined": [], "bytes": singles, "merges": merges,
                  "chat_template": fields["tokenizer.chat_template"].contents()}
    assert all_tokens(vocabulary) == tokens, "the vocabulary is not in the order that this file format implies"
    return vocabulary


class Random:
    """SplitMix64."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        mask = 2**64 - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def below(self, n):
        return self.next() % n


class Corpus:
    """DOCUMENTS texts of about 16 KB each and three of 1 MB without a space. Written twice: see the docstring of the file."""

    DOCUMENTS = 240
    SIZE = 16384
    HUGE = 1 << 20
    RUNS = [" ", "\n", "\t", "\r\n", "0", "9", "a", "Z", ".", "-", "=", "\u00e9", "\u4e2d", "\U0001f600", "\u0301", "\u00a0", "\u3000", "' ", "\x00"]
    # Digits of Unicode 17, which the parts of the reference disagree about.
    SKIPPED = [(0x11DE0, 0x11DE9), (0x16FF4, 0x16FF6)]

    def __init__(self, fragments):
        self.fragments = fragments
        self.kinds = [k for k in fragments if k != "separators"]

    def fragment(self, rng, kinds):
        return self.pick(rng, self.fragments[kinds[rng.below(len(kinds))]])

    @staticmethod
    def pick(rng, items):
        return items[rng.below(len(items))]

    def scalar(self, rng, base, span):
        while True:
            code = base + rng.below(span)
            if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF and not any(a <= code <= b for a, b in self.SKIPPED):
                return chr(code)

    def part(self, index, rng):
        kind = index % 8
        separators = self.fragments["separators"]
        if kind <= 1:
            return self.fragment(rng, self.kinds) + self.pick(rng, separators)
        if kind == 2:
            return self.fragment(rng, ["prose", "english"]) + self.pick(rng, separators)
        if kind == 3:
            return self.fragment(rng, ["code"]) + self.pick(rng, separators)
        if kind == 4:  # a few characters of one block, anywhere in Unicode or in its first three planes
            planes = 0x10FF00 if rng.below(4) == 0 else 0x32000
            base = rng.below(planes)
            if 0xD700 <= base <= 0xDFFF:
                base = 0x20
            return "".join(self.scalar(rng, base, 64) for _ in range(1 + rng.below(20))) + self.pick(rng, separators)
        if kind == 5:
            return "".join(chr(rng.below(128)) for _ in range(64))
        if kind == 6:
            return self.pick(rng, self.RUNS) * (1 + rng.below(1 << rng.below(10)))
        text = list(self.fragment(rng, ["english", "emoji", "cjk", "scripts", "controls", "special"]))
        at = rng.below(len(text))
        change = rng.below(3)
        if change == 0:
            del text[at]
        elif change == 1:
            text.insert(at, text[rng.below(len(text))])
        else:
            text[at] = self.scalar(rng, 0x20, 0x3000)
        return "".join(text) + self.pick(rng, separators)

    def document(self, index):
        rng = Random(index)
        parts, size = [], 0
        while size < self.SIZE:
            parts.append(self.part(index, rng))
            size += len(parts[-1].encode())
        return "".join(parts)

    def huge(self, which):
        if which == 0:  # one letter
            return "a" * self.HUGE
        rng = Random(1000 + which)
        if which == 1:  # any letters
            return "".join(chr(ord("a") + rng.below(26)) for _ in range(self.HUGE))
        parts, size = [], 0  # the letters of prose
        while size < self.HUGE:
            parts.append("".join(c for c in self.pick(rng, self.fragments["prose"]) if c.isascii() and c.isalpha()))
            size += len(parts[-1])
        return "".join(parts)

    def all(self):
        return [self.document(i) for i in range(self.DOCUMENTS)] + [self.huge(i) for i in range(3)]


def encode(tokenizer, text, parse_special):
    if isinstance(tokenizer, (Pieces, Ranked)):
        return tokenizer.encode(text, parse_special)
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer.encode(text, add_special_tokens=False).ids


def digest(ids):
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()[:16]


def small_cases(fragments):
    """Every fragment alone, and a few that need another's company."""
    cases = [t for kind in fragments if kind not in ("separators", "prose", "code") for t in fragments[kind]]
    cases += fragments["code"] + fragments["prose"][:4]
    cases += ["", " ", "  ", "a", " a", "  a", "a ", "a  ", "a b", "a  b", "12345", " 12345", "1 2", "a1b22c333d4444", "\n", "\n\n", " \n", "\n ", "a\n b",
              "a \n b", "a\n\n  b", "!\n", "!\r\n\r\nx", " !?\n\nx", "x\u00a0y", "x\u00a0\u00a0y", "\u00a0x", "\u3000x", "\tx", "\t\tx", "\t1", "(x)", "((x))",
              " (x)", "'", "''s", "' s", "x's y", "x'S y", "1's", "!'s", "\u0301x", "!\u0301", "1\u0301", " \u0301", "\u0301 ", "a\u0301!\u0301", "\r", "\r\n"]
    return list(dict.fromkeys(cases))


CHATS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "What is 12 x 34?")],
    [("user", "a"), ("assistant", "b"), ("user", " c\n")],
    [("user", "\n\nTwo lines\nof text"), ("assistant", ""), ("user", "\u4f60\u597d \U0001f600")],
]


def chats(folder):
    """SmolLM2's own template, run, and the ids of what it writes."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    vocabulary = json.loads((folder / "smollm2.json").read_text())
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(vocabulary["chat_template"])
    tokenizer = build(vocabulary)
    for chat in CHATS:
        for prompt in (False, True):
            text = template.render(messages=[{"role": r, "content": c} for r, c in chat], add_generation_prompt=prompt)
            yield lines({"messages": chat, "add_generation_prompt": prompt, "text": text, "ids": encode(tokenizer, text, True)})


GEMMA4_CHATS = [
    [("user", " Hello \n")],
    [("system", " Be brief.\n"), ("user", "What is 12 x 34?")],
    [("user", "a"), ("assistant", " b\n"), ("user", "\n c\n\nd")],
    [("user", "a"), ("assistant", "b", "Thoughts of old."), ("user", "c"), ("assistant", "\u4f60\u597d", "Two lines\nof them."), ("user", "d")],
    [("user", "a"), ("assistant", "<|channel>thought\nWell.\n<channel|>b <|channel>x<channel|> c"), ("system", "Now in rhyme."), ("user", "d")],
    [("system", ""), ("user", "a"), ("assistant", "The last.", "It is asked of me.")],
]


def gemma4_chats(folder, templates):
    """What the templates write, less bos, and its ids."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    tokenizer = Ranked(json.loads((folder / "gemma4.json").read_text()))
    for path in templates:
        source = path.read_text()
        template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
        for chat in GEMMA4_CHATS:
            for prompt in (False, True):
                for thinking in (False, True):
                    messages = [dict(zip(("role", "content", "reasoning"), message)) for message in chat]
                    text = template.render(messages=messages, bos_token="", add_generation_prompt=prompt, enable_thinking=thinking)
                    yield {"empty_thoughts": r"thought\n<channel|>" in source, "thinking": thinking, "messages": chat,
                           "add_generation_prompt": prompt, "text": text, "ids": encode(tokenizer, text, True)}


MISTRAL_CHATS = [
    [("user", " Hello \n")],
    [("system", "Be brief."), ("user", "What is 12 x 34?")],
    [("user", "a"), ("assistant", "b \n"), ("user", "\n c\n\nd")],
    [("system", " Be\n"), ("user", "a"), ("assistant", "\u4f60\u597d \U0001f600"), ("user", "d")],
    [("user", "One two"), ("assistant", "three."), ("user", "Four")],
    [("system", "Think."), ("user", "a"), ("assistant", "b", "Two lines\nof them. "), ("user", "c"), ("assistant", "d"), ("user", "e")],
]
# Of the thirteenth version, whose calls and results have no names of their own.
MISTRAL_TOOLS = [
    {"type": "function", "function": {"name": "read", "description": "Reads <a> file's text: \u00e9.", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "list"}},
]
MISTRAL_CALLS = [
    ("system", "Be brief."), ("user", "What is in a?"), ("assistant", "I look.", "", [("read", '{"path": "a", "lines": [1, 2]}'), ("list", "{}")]),
    ("tool", "one\n"), ("tool", '{"two": 2}'), ("assistant", "One."), ("user", "And b?"), ("assistant", "", "", [("list", "{}")]), ("tool", "b"),
]  # fmt: skip
# Those that a version has come after its vocabulary's own tokens: SentencePiece's of the first has none, and of all others only this.
MISTRAL_MARKERS = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[THINK]", "[/THINK]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]",
                   "[ARGS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "</s>"]


def mistral_chats(folder, templates):
    """What the templates write, less bos, and its ids, with the spaces that its vocabularies add written out."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message):
        raise ValueError(message)

    for version, path in (given.split("=", 1) for given in templates):
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)  # as transformers has it
        environment.globals.update(raise_exception=refuse, strftime_now=lambda format: "today")
        source = pathlib.Path(path).read_text()
        template = environment.from_string(source)
        pieces = Pieces(folder / "sentencepiece.model")
        base = pieces.model.get_piece_size()
        if version in ("v1", "v3", "v7"):
            ids = {marker: base + i for i, marker in enumerate(MISTRAL_MARKERS[:-1]) if version != "v1"} | {"</s>": pieces.model.piece_to_id("</s>")}
            part = lambda text: pieces.encode(text, False)
        else:
            vocabulary = json.loads((folder / "llama-bpe.json").read_text())
            tokenizer = build(vocabulary)
            ids = {marker: len(all_tokens(vocabulary)) + i for i, marker in enumerate(MISTRAL_MARKERS)}
            part = lambda text: encode(tokenizer, text, False)
        for chat in MISTRAL_CHATS + ([MISTRAL_CALLS] if version == "v13" else []):
            tools = MISTRAL_TOOLS if chat is MISTRAL_CALLS else []
            thoughts = any(message[2:3] not in ((), ("",)) for message in chat)
            # A default is the system's first word where there is one; only some templates know of thoughts.
            if ("default_system_message" in source and chat[0][0] != "system") or (thoughts and "[THINK]" not in source):
                continue
            messages = []
            for role, content, *more in chat:
                parts = [{"type": "thinking", "thinking": more[0]}, {"type": "text", "text": content}] if more and more[0] else content
                messages.append({"role": role, "content": parts})
                for name, arguments in more[1] if len(more) > 1 else []:
                    messages[-1].setdefault("tool_calls", []).append({"function": {"name": name, "arguments": json.loads(arguments)}})
            given = {"tools": tools} if tools else {}
            text = template.render(messages=messages, **given, bos_token="", eos_token="</s>")
            cut = re.split("(" + "|".join(map(re.escape, ids)) + ")", text)
            tokens = [token for piece in cut for token in ([ids[piece]] if piece in ids else part(piece))]
            told = {"tools": [json.dumps(tool, ensure_ascii=False) for tool in tools]} if tools else {}
            yield {"version": version, "messages": chat, **told, "text": text, "ids": tokens}


def lines(value):
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="*", type=pathlib.Path, default=[], help="prose; without it the committed vocabularies are used again")
    parser.add_argument("--smollm2", type=pathlib.Path)
    parser.add_argument("--gemma4", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--mistral", nargs="*", default=[])
    parser.add_argument("--pieces", action="store_true")
    parser.add_argument("--ranked", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/data/text"))
    args = parser.parse_args()

    fragments = json.loads((args.out / "fragments.json").read_text())
    corpus = Corpus(fragments)
    documents = corpus.all()
    cases = small_cases(fragments)

    if args.train:
        texts = [p.read_text() for p in args.train] + [t for kind in fragments for t in fragments[kind]] * 20
        for name in PRE_TOKENIZERS:
            (args.out / f"{name}.json").write_text(json.dumps(train(name, texts, 2000), ensure_ascii=False, indent=0))
    if args.smollm2:
        (args.out / "smollm2.json").write_text(json.dumps(read_smollm2(args.smollm2), ensure_ascii=False, indent=0))

    if args.ranked:
        vocabulary = train_ranked([t for kind in fragments for t in fragments[kind]])
        (args.out / "gemma4.json").write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0))

    if args.pieces:
        train_pieces([t for kind in fragments for t in fragments[kind]], args.out / "sentencepiece.model")
        vocabulary = Pieces(args.out / "sentencepiece.model").vocabulary()
        (args.out / "sentencepiece.json").write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0))

    corpus_digest = hashlib.sha256("\0".join(documents).encode()).hexdigest()
    out = ['{"corpus":%s,"cases":[' % lines(corpus_digest), ",\n".join(lines(c) for c in cases), '],\n"vocabularies":{']
    blocks = []
    for name in PRE_TOKENIZERS + ["smollm2", "sentencepiece", "gemma4"]:
        if name == "sentencepiece":
            tokenizer = Pieces(args.out / "sentencepiece.model")
        elif name == "gemma4":
            tokenizer = Ranked(json.loads((args.out / "gemma4.json").read_text()))
        else:
            tokenizer = build(json.loads((args.out / f"{name}.json").read_text()))
        small = ",\n".join(lines([encode(tokenizer, c, False), encode(tokenizer, c, True)]) if encode(tokenizer, c, False) != encode(tokenizer, c, True)
                           else lines([encode(tokenizer, c, False)]) for c in cases)
        large = []
        for i, text in enumerate(documents):
            ids = encode(tokenizer, text, i % 2 == 1)
            large.append(lines([len(ids), digest(ids)]))
        blocks.append('%s:{"cases":[\n%s],\n"documents":[\n%s]}' % (lines(name), small, ",\n".join(large)))
        print(name, "tokens;", sum(json.loads(x)[0] for x in large), "ids in", len(documents), "documents")
    gemma4 = list(gemma4_chats(args.out, args.gemma4)) or json.loads((args.out / "expected.json").read_text())["gemma4_chats"]
    out.append(",\n".join(blocks) + '},\n"chats":[\n' + ",\n".join(chats(args.out)) + "],")
    out.append('"gemma4_chats":[\n' + ",\n".join(map(lines, gemma4)) + "],")
    mistral = list(mistral_chats(args.out, args.mistral)) or json.loads((args.out / "expected.json").read_text())["mistral_chats"]
    out.append('"mistral_chats":[\n' + ",\n".join(map(lines, mistral)) + "]}\n")
    (args.out / "expected.json").write_text("\n".join(out))


if __name__ == "__main__":
    main()
