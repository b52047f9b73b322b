"""The qwen35 network as it is trained: delta-net and attention blocks, three to one, and an MTP block.

Value heads are kept in GGUF's tiled order (value head h reads key head h mod key_heads), so the GGUF export copies
tensors as they are and only the comparison with Hugging Face has to reorder them. Norm weights are plain factors.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .delta_rule import CHUNK, chunked
from .shape import Shape


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def product(x, weight, training):
    """x times weight^T. Training multiplies in bf16, which halves its time; everything around it stays fp32."""
    if training:
        return F.linear(x.bfloat16(), weight.bfloat16()).float()
    return F.linear(x, weight)


class Matrix(nn.Module):
    def __init__(self, inputs, outputs, std=0.02):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * std)

    def forward(self, x):
        return product(x, self.weight, self.training)


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


class Rope:
    """Rotates pairs (i, i + dims/2) of the first `dims` values of a head; the other values carry no position."""

    def __init__(self, shape: Shape, positions):
        half = shape.rope_dims // 2
        angle = positions[:, None] * shape.rope_base ** (-torch.arange(half) / half)
        self.half, self.cos, self.sin = half, angle.cos(), angle.sin()

    def __call__(self, x):
        a, b, rest = x.split([self.half, self.half, x.shape[-1] - 2 * self.half], -1)
        return torch.cat([a * self.cos - b * self.sin, b * self.cos + a * self.sin, rest], -1)


class Attention(nn.Module):
    def __init__(self, s: Shape, out_std):
        super().__init__()
        self.s = s
        self.q = Matrix(s.width, s.heads * 2 * s.head_dim)  # a head gives [query, gate]
        self.k = Matrix(s.width, s.kv_heads * s.head_dim)
        self.v = Matrix(s.width, s.kv_heads * s.head_dim)
        self.out = Matrix(s.heads * s.head_dim, s.width, out_std)
        self.q_norm, self.k_norm = Norm(s.head_dim, s.norm_eps), Norm(s.head_dim, s.norm_eps)

    def forward(self, x, rope):
        s, (batch, time, _) = self.s, x.shape
        query, gate = self.q(x).view(batch, time, s.heads, 2 * s.head_dim).chunk(2, -1)
        heads = lambda y: y.reshape(batch, time, -1, s.head_dim).transpose(1, 2)
        q, k = rope(self.q_norm(heads(query))), rope(self.k_norm(heads(self.k(x))))
        shared = s.heads // s.kv_heads
        k, v = (y.repeat_interleave(shared, 1) for y in (k, heads(self.v(x))))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, time, -1) * gate.reshape(batch, time, -1).sigmoid())


class DeltaNet(nn.Module):
    def __init__(self, s: Shape, out_std):
        super().__init__()
        self.s = s
        self.qkv = Matrix(s.width, 2 * s.key_rows + s.value_rows)
        self.gate = Matrix(s.width, s.value_rows)
        self.alpha, self.beta = Matrix(s.width, s.value_heads), Matrix(s.width, s.value_heads)
        self.conv = nn.Parameter(torch.randn(2 * s.key_rows + s.value_rows, s.conv_kernel) / s.conv_kernel**0.5)
        # Decays start spread from "forget within a few tokens" to "keep for thousands".
        self.log_rate = nn.Parameter(torch.linspace(1, 16, s.value_heads).log())
        step = torch.exp(torch.linspace(math.log(1e-3), math.log(1e-1), s.value_heads).flip(0))
        self.dt = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.norm = Norm(s.state_dim, s.norm_eps)
        self.out = Matrix(s.value_rows, s.width, out_std)

    def forward(self, x, rope):
        s, (batch, time, _) = self.s, x.shape
        mixed, kernel = self.qkv(x), s.conv_kernel
        padded = F.pad(mixed, (0, 0, kernel - 1, 0))
        mixed = F.silu(sum(padded[:, i : i + time] * self.conv[:, i] for i in range(kernel)))
        q, k, v = mixed.split([s.key_rows, s.key_rows, s.value_rows], -1)
        heads = lambda y: y.reshape(batch, time, -1, s.state_dim).transpose(1, 2)
        tile = lambda y: y.repeat(1, s.value_heads // s.key_heads, 1, 1)
        q, k = tile(unit(heads(q)) * s.state_dim**-0.5), tile(unit(heads(k)))
        b = self.beta(x).sigmoid().transpose(1, 2)
        g = (-self.log_rate.exp() * F.softplus(self.alpha(x) + self.dt)).transpose(1, 2)
        y = self.norm(chunked(q, k, heads(v), g, b)).transpose(1, 2).reshape(batch, time, -1)
        return self.out(y * F.silu(self.gate(x)))


class Block(nn.Module):
    def __init__(self, s: Shape, attends, out_std, dropout):
        super().__init__()
        self.attn_norm, self.ffn_norm = Norm(s.width, s.norm_eps), Norm(s.width, s.norm_eps)
        self.mix = (Attention if attends else DeltaNet)(s, out_std)
        self.ffn_gate, self.ffn_up = Matrix(s.width, s.ffn), Matrix(s.width, s.ffn)
        self.ffn_down = Matrix(s.ffn, s.width, out_std)
        self.dropout = dropout

    def forward(self, x, rope):
        drop = lambda y: F.dropout(y, self.dropout, self.training)
        x = x + drop(self.mix(self.attn_norm(x), rope))
        y = self.ffn_norm(x)
        return x + drop(self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y)))


class Mtp(nn.Module):
    """Reads the token at i and the main network's hidden state at i-1; guesses the token at i+1.

    There is no row for the first token: nothing came before it.
    """

    def __init__(self, s: Shape, out_std, dropout):
        super().__init__()
        self.embed_norm, self.hidden_norm = Norm(s.width, s.norm_eps), Norm(s.width, s.norm_eps)
        self.join = Matrix(2 * s.width, s.width)
        self.block = Block(s, True, out_std, dropout)
        self.head_norm = Norm(s.width, s.norm_eps)

    def forward(self, embedded, hidden, rope):
        joined = torch.cat([self.embed_norm(embedded[:, 1:]), self.hidden_norm(hidden[:, :-1])], -1)
        return self.head_norm(self.block(self.join(joined), rope))


class Network(nn.Module):
    def __init__(self, shape: Shape, dropout=0.0):
        super().__init__()
        self.shape = shape
        out_std = 0.02 / (2 * shape.layers) ** 0.5
        self.embed = nn.Embedding(shape.vocab, shape.width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(shape, shape.attends(i), out_std, dropout) for i in range(shape.layers))
        self.norm = Norm(shape.width, shape.norm_eps)
        self.mtp = Mtp(shape, out_std, dropout)

    def forward(self, ids):
        """Hidden states of every position after the output norm, and of the MTP block (one row fewer)."""
        positions = torch.arange(ids.shape[1])
        rope = Rope(self.shape, positions)
        embedded = x = self.embed(ids)
        for block in self.blocks:
            x = block(x, rope)
        hidden = self.norm(x)
        return hidden, self.mtp(embedded, hidden, Rope(self.shape, positions[1:]))

    def logits(self, hidden):
        return product(hidden, self.embed.weight, self.training)

    @torch.no_grad()
    def run(self, ids):
        """Logits and MTP logits of one sequence of any length (causal, so the padding to whole chunks is harmless)."""
        count = len(ids)
        padded = F.pad(torch.as_tensor(ids), (0, -count % CHUNK))
        hidden, guess = self(padded[None])
        return self.logits(hidden[0, :count]), self.logits(guess[0, : count - 1])
