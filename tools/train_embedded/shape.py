"""The shape of the embedded model. Every other file asks here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    vocab: int = 4096
    width: int = 256
    layers: int = 8
    attention_every: int = 4  # layers 3 and 7 attend, the others carry a delta net
    ffn: int = 384

    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    rope_dims: int = 16
    # The slowest of the eight rotary pairs turns once in 2,600 positions: training windows of 2,048 show the model
    # nearly every angle it will ever meet, so that longer texts bring no angle it has not seen.
    rope_base: float = 1000.0

    # Fewer key heads than value heads, as in the larger models of the family, so that the tiled head order is exercised.
    key_heads: int = 2
    value_heads: int = 4
    state_dim: int = 64
    conv_kernel: int = 4

    norm_eps: float = 1e-6
    context: int = 32768

    def attends(self, layer: int) -> bool:
        return layer % self.attention_every == self.attention_every - 1

    @property
    def key_rows(self) -> int:
        return self.key_heads * self.state_dim

    @property
    def value_rows(self) -> int:
        return self.value_heads * self.state_dim


SHAPE = Shape()
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = [END_OF_TEXT, TURN_START, TURN_END]
