"""The embedded model as one whose chats have other markers: it knows nothing of them, so what it says with them is what the server holds it to."""
import struct

from conftest import AUSTEN


class Fields:
    """The fields of a GGUF file, to be read and written again."""
    SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    STRING, ARRAY = 8, 9

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def value(self, kind):
        if kind == self.STRING:
            return self.take(self.number(8))
        if kind == self.ARRAY:
            inner, count = self.number(4), self.number(8)
            return inner, [self.value(inner) for _ in range(count)]
        return self.take(self.SIZES[kind])

    @classmethod
    def written(cls, kind, value):
        if kind == cls.STRING:
            return struct.pack("<Q", len(value)) + value
        if kind == cls.ARRAY:
            inner, values = value
            return struct.pack("<IQ", inner, len(values)) + b"".join(cls.written(inner, one) for one in values)
        return value


def with_markers(path, markers, turn, template, bos=None):
    """The embedded model with `markers` in place of its last words, without the merges that gave those, and with other names for what stands around a turn.
    `bos`: the token that its vocabulary begins texts with, though its files do not ask for it."""
    read = Fields(AUSTEN.read_bytes())
    head = read.take(8)
    tensors, count = read.number(8), read.number(8)
    fields = {}
    for _ in range(count):
        name, kind = read.value(Fields.STRING), read.number(4)
        fields[name] = (kind, read.value(kind))
    names = read.at
    for _ in range(tensors):
        read.value(Fields.STRING)
        read.take(8 * read.number(4) + 4 + 8)
    names, data = read.data[names:read.at], read.data[(read.at + 31) // 32 * 32:]
    words, types = fields[b"tokenizer.ggml.tokens"][1][1], fields[b"tokenizer.ggml.token_type"][1][1]
    first = words.index(b"<|endoftext|>") - len(markers)
    gone = set(words[first:first + len(markers)])
    places = [*range(first, first + len(markers)), words.index(b"<|im_start|>"), words.index(b"<|im_end|>")]
    for place, marker in zip(places, [*markers, *turn]):
        words[place], types[place] = marker.encode(), struct.pack("<i", 3)
    kind, (inner, merges) = fields[b"tokenizer.ggml.merges"]
    kept = [merge for merge in merges if not gone & {merge.replace(b" ", b""), *merge.split(b" ")}]
    fields[b"tokenizer.ggml.merges"] = (kind, (inner, kept))
    if bos:
        fields[b"tokenizer.ggml.bos_token_id"] = (4, struct.pack("<I", words.index(bos.encode())))
    fields[b"tokenizer.chat_template"] = (Fields.STRING, template.encode())
    out = head + struct.pack("<QQ", tensors, len(fields))
    for name, (kind, value) in fields.items():
        out += Fields.written(Fields.STRING, name) + struct.pack("<I", kind) + Fields.written(kind, value)
    out += names
    path.write_bytes(out + bytes(-len(out) % 32) + data)
    return path
