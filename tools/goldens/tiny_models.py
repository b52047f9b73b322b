"""Goldens of whole models: tiny random checkpoints, and what Hugging Face transformers computes with them in fp32.

    python tools/goldens/tiny_models.py tests/data/goldens

Weights are drawn so that everything is load-bearing: logits of order one, decays from fast to slow, norms around one, gates away from their
ends. A seed is taken only if the two best logits of every greedy step are well apart, so that the ids are the same on any machine.

transformers has no code for the MTP block of Qwen3.5 (it skips `mtp.*`). Its reference is computed here from transformers' own norm and decoder
layer, after the published checkpoints' layout: with e the embedding of token t + 1 and h the model's hidden state of position t, after the final
norm,   x = fc([norm_e(e), norm_h(h)]);   x = attention block(x), its keys and values its own;   logits = embedding . norm(x)   for token t + 2.
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5ForCausalLM, Qwen3_5RMSNorm

import hf_to_gguf

VOCABULARY = 288
PROMPT = 300  # past one block of 256 positions and several extents of 64 rows, and a multiple of neither
ROWS = 64  # logits are kept for the last of them: positions 236 to 299, each of which depends on all before it
GREEDY = 48
LEAST_GAP = 0.02  # ten times the tolerance of the tests


@dataclass
class Tiny:
    name: str
    config: object
    mtp: bool = False


def qwen35(heads, kv_heads, head_dim, key_heads, value_heads, state_dim, layers, attention_every, ffn, tied):
    return Qwen3_5TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        tie_word_embeddings=tied,
        full_attention_interval=attention_every,
        max_position_embeddings=4096,
        linear_key_head_dim=state_dim,
        linear_value_head_dim=state_dim,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [head_dim // 8 - 2, 1, 1],
        },
    )


EVERY = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)


def granite(layers, d_head, groups, tied, rope, embedding, residual, attention, logits):
    return GraniteMoeHybridConfig(
        **EVERY,
        intermediate_size=64,
        shared_intermediate_size=64,
        num_hidden_layers=len(layers),
        layer_types=["full_attention" if kind == "a" else "linear_attention" for kind in layers],
        rms_norm_eps=1e-5,
        num_local_experts=0,
        num_experts_per_tok=0,
        mamba_n_heads=128 // d_head,
        mamba_d_head=d_head,
        mamba_n_groups=groups,
        mamba_d_state=16,
        position_embedding_type="rope" if rope else None,
        tie_word_embeddings=tied,
        embedding_multiplier=embedding,
        residual_multiplier=residual,
        attention_multiplier=attention,
        logits_scaling=logits,
    )


MODELS = [
    Tiny("qwen35_equal", qwen35(2, 1, 32, 2, 2, 32, layers=4, attention_every=4, ffn=32, tied=True), mtp=True),
    Tiny("qwen35_grouped", qwen35(4, 2, 32, 2, 6, 16, layers=4, attention_every=3, ffn=32, tied=False)),
    Tiny(
        "llama_gqa",
        LlamaConfig(**EVERY, intermediate_size=96, num_hidden_layers=2, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=True),
    ),
    Tiny("qwen2_gqa", Qwen2Config(**EVERY, intermediate_size=96, num_hidden_layers=2, tie_word_embeddings=True)),
    # Heads wider than the stream divided by their number.
    Tiny("qwen3_gqa", Qwen3Config(**EVERY, intermediate_size=96, num_hidden_layers=2, head_dim=32, tie_word_embeddings=False)),
    Tiny(
        "lfm2_hybrid",
        Lfm2Config(
            **EVERY,
            intermediate_size=96,
            block_auto_adjust_ff_dim=False,
            num_hidden_layers=4,
            layer_types=["conv", "full_attention", "conv", "conv"],
            conv_L_cache=3,
        ),
    ),
    Tiny("granite_hybrid", granite("mamm", 32, 1, tied=True, rope=False, embedding=1.5, residual=0.4, attention=0.3, logits=0.8)),
    Tiny("granite_grouped", granite("mma", 16, 2, tied=False, rope=True, embedding=3.0, residual=0.22, attention=0.2, logits=1.5)),
]


@dataclass
class Architecture:
    """What transformers and GGUF call it, and the pre-tokeniser of its files."""

    network: type
    name: str
    tensors: object
    add_metadata: object
    pre: str


ARCHITECTURES = {
    Qwen3_5TextConfig: Architecture(Qwen3_5ForCausalLM, "qwen35", hf_to_gguf.qwen35_tensors, hf_to_gguf.add_qwen35_metadata, "qwen35"),
    LlamaConfig: Architecture(LlamaForCausalLM, "llama", hf_to_gguf.llama_tensors, hf_to_gguf.add_llama_metadata, "smollm"),
    Qwen2Config: Architecture(Qwen2ForCausalLM, "qwen2", hf_to_gguf.llama_tensors, hf_to_gguf.add_qwen2_metadata, "qwen2"),
    Qwen3Config: Architecture(Qwen3ForCausalLM, "qwen3", hf_to_gguf.llama_tensors, hf_to_gguf.add_qwen3_metadata, "qwen2"),
    Lfm2Config: Architecture(Lfm2ForCausalLM, "lfm2", hf_to_gguf.lfm2_tensors, hf_to_gguf.add_lfm2_metadata, "lfm2"),
    GraniteMoeHybridConfig: Architecture(
        GraniteMoeHybridForCausalLM, "granitehybrid", hf_to_gguf.granite_hybrid_tensors, hf_to_gguf.add_granite_hybrid_metadata, "dbrx"
    ),
}


class Mtp(nn.Module):
    """The multi-token-prediction block, from the parts of the model that it belongs to."""

    def __init__(self, config):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.pre_fc_norm_embedding = Qwen3_5RMSNorm(width, eps)
        self.pre_fc_norm_hidden = Qwen3_5RMSNorm(width, eps)
        self.fc = nn.Linear(2 * width, width, bias=False)
        self.layer = Qwen3_5DecoderLayer(config, config.layer_types.index("full_attention"))
        self.norm = Qwen3_5RMSNorm(width, eps)

    def logits(self, model, hidden, next_ids):
        """`hidden` [positions x width] after the final norm, `next_ids` the token after each position."""
        embedded = model.model.embed_tokens(next_ids)[None]
        x = self.fc(torch.cat([self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden[None])], dim=-1))
        positions = torch.arange(x.shape[1]).view(1, 1, -1).expand(3, 1, -1)
        mask = torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1)[None, None]
        x = self.layer(x, position_embeddings=model.model.rotary_emb(x, positions), attention_mask=mask)
        return model.lm_head(self.norm(x))[0]


def randomise(module, generator, config):
    """Weights under which activations stay of order one through any number of layers, and every state matters."""
    normal = lambda p, scale: p.normal_(0, scale, generator=generator)
    uniform = lambda p, low, high: p.uniform_(low, high, generator=generator)
    # What a model scales down before it is added to the residual stream is drawn as much larger.
    into_stream = 1.5 / math.sqrt(config.num_hidden_layers) / getattr(config, "residual_multiplier", 1.0)
    zero_centred = any(isinstance(m, Qwen3_5RMSNorm) for m in module.modules())
    # Without norms on q and k attention would be flat.
    gain = 1.0 if any("q_norm" in name or "q_layernorm" in name for name, _ in module.named_parameters()) else 1.5
    for name, p in module.named_parameters():
        leaf = name.rsplit(".", 2)[-2:]
        if "A_log" in leaf:
            p.copy_(torch.log(uniform(p, 0.02, 2.0)))  # a step keeps between 10 % and 99 % of a state
        elif "dt_bias" in leaf:
            uniform(p, -2.0, 1.0)
        elif p.dim() == 3:  # a convolution's taps
            normal(p, 0.5)
        elif "linear_attn.norm" in name:
            uniform(p, 0.7, 1.3)
        elif "bias" in leaf:
            uniform(p, -0.5, 0.5)
        elif p.dim() == 1:
            uniform(p, -0.3, 0.3) if zero_centred else uniform(p, 0.7, 1.3)
        elif "embed_tokens" in leaf or "lm_head" in leaf:
            normal(p, 0.35)
        else:
            residual = any(part in name for part in ("o_proj", "out_proj", "down_proj", "feed_forward.w2", "output_linear"))
            normal(p, (gain if not residual else gain * into_stream) / math.sqrt(p.shape[1]))


def gap(logits):
    best = logits.topk(2, dim=-1).values
    return (best[..., 0] - best[..., 1]).min().item()


@torch.no_grad()
def greedy(model, ids, count):
    """By full forward passes, without any cache: nothing is reused that could be wrong."""
    ids, least = ids.clone(), math.inf
    for _ in range(count):
        last = model(ids[None]).logits[0, -1]
        least = min(least, gap(last))
        ids = torch.cat([ids, last.argmax()[None]])
    return ids[-count:], least


@torch.no_grad()
def make(tiny, seed):
    generator = torch.Generator().manual_seed(seed)
    tiny.config._attn_implementation = "eager"
    model = ARCHITECTURES[type(tiny.config)].network(tiny.config).float().eval()
    randomise(model, generator, tiny.config)
    mtp = None
    if tiny.mtp:
        mtp = Mtp(tiny.config).float().eval()
        randomise(mtp, generator, tiny.config)
    ids = torch.randint(0, VOCABULARY - 3, (PROMPT,), generator=generator)
    return model, mtp, ids


@torch.no_grad()
def write(tiny, directory):
    for seed in range(1, 100):
        model, mtp, ids = make(tiny, seed)
        continuation, least = greedy(model, ids, GREEDY)
        if least >= LEAST_GAP and len(set(continuation.tolist())) > GREEDY // 3:
            break
    else:
        raise SystemExit(f"{tiny.name}: no seed keeps the two best logits {LEAST_GAP} apart")

    # The cached path of transformers agrees with its own full passes, so the goldens do not hang on one of its code paths.
    cached = model.generate(
        ids[None], attention_mask=torch.ones(1, PROMPT, dtype=torch.long), do_sample=False, max_new_tokens=GREEDY,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert cached[0, PROMPT:].tolist() == continuation.tolist(), f"{tiny.name}: transformers disagrees with itself"

    hidden = model.model(ids[None]).last_hidden_state[0]
    logits = model(ids[None]).logits[0]
    exact = model.double()(ids[None]).logits[0]
    noise = (logits - exact).abs().max().item()
    model.float()

    config = tiny.config
    path = lambda suffix: directory / f"{tiny.name}.{suffix}"
    architecture = ARCHITECTURES[type(config)]
    extra = {"mtp": mtp} if tiny.mtp else {}
    add = lambda writer: architecture.add_metadata(writer, config, **extra)
    hf_to_gguf.write(path("gguf"), architecture.name, architecture.tensors(model, **extra), add, VOCABULARY, architecture.pre)
    ids.numpy().astype("<i4").tofile(path("ids.i32"))
    continuation.numpy().astype("<i4").tofile(path("greedy.i32"))
    logits[-ROWS:].numpy().astype("<f4").tofile(path("logits.f32"))
    facts = {"prompt": PROMPT, "rows": ROWS, "vocabulary": VOCABULARY, "greedy": GREEDY, "seed": seed, "least_gap": round(least, 4),
             "fp32_noise": float(f"{noise:.1e}"), "logit_std": round(logits.std().item(), 2)}  # fmt: skip
    if mtp is not None:
        following = torch.cat([ids[1:], continuation[:1]])
        mtp_logits = mtp.logits(model, hidden, following)
        mtp_logits[-ROWS:].numpy().astype("<f4").tofile(path("mtp_logits.f32"))
        facts["mtp_least_gap"] = round(gap(mtp_logits[-1]), 4)
    print(tiny.name, facts)
    return facts


def main():
    directory = Path(sys.argv[1])
    torch.set_num_threads(1)
    facts = {tiny.name: write(tiny, directory) for tiny in MODELS}
    (directory / "tiny_models.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
