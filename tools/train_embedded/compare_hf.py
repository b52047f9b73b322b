"""The exported file against Hugging Face's Qwen3.5: fp32 logits within 1e-3, and the same greedy continuation."""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

from . import gguf_file
from .corpus import BOOKS
from .shape import SHAPE

TOLERANCE = 1e-3


def config():
    s = SHAPE
    return Qwen3_5TextConfig(
        vocab_size=s.vocab,
        hidden_size=s.width,
        intermediate_size=s.ffn,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.kv_heads,
        head_dim=s.head_dim,
        rms_norm_eps=s.norm_eps,
        tie_word_embeddings=True,
        full_attention_interval=s.attention_every,
        max_position_embeddings=s.context,
        linear_conv_kernel_dim=s.conv_kernel,
        linear_key_head_dim=s.state_dim,
        linear_value_head_dim=s.state_dim,
        linear_num_key_heads=s.key_heads,
        linear_num_value_heads=s.value_heads,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": s.rope_base,
            "partial_rotary_factor": s.rope_dims / s.head_dim,
            "mrope_section": [3, 3, 2],
        },
    )


def grouped(tensor, axis=0):
    """Value heads from the file's tiled order (0 1 0 1 by key head) to grouped order (0 0 1 1)."""
    s = SHAPE
    parts = tensor.unflatten(axis, (s.value_heads // s.key_heads, s.key_heads, -1))
    return parts.transpose(axis, axis + 1).flatten(axis, axis + 2)


def grouped_tail(tensor):
    keys = 2 * SHAPE.key_rows
    return torch.cat([tensor[:keys], grouped(tensor[keys:])])


def weights(network):
    ours = network.state_dict()
    out = {"model.embed_tokens.weight": ours["embed.weight"], "model.norm.weight": ours["norm.weight"] - 1}
    out["lm_head.weight"] = ours["embed.weight"]
    for i in range(SHAPE.layers):
        get = lambda name: ours[f"blocks.{i}.{name}"]
        put = lambda name, value: out.__setitem__(f"model.layers.{i}.{name}", value)
        put("input_layernorm.weight", get("attn_norm.weight") - 1)
        put("post_attention_layernorm.weight", get("ffn_norm.weight") - 1)
        for part in ("gate", "up", "down"):
            put(f"mlp.{part}_proj.weight", get(f"ffn_{part}.weight"))
        if SHAPE.attends(i):
            for theirs, mine in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("o_proj", "out")):
                put(f"self_attn.{theirs}.weight", get(f"mix.{mine}.weight"))
            put("self_attn.q_norm.weight", get("mix.q_norm.weight") - 1)
            put("self_attn.k_norm.weight", get("mix.k_norm.weight") - 1)
            continue
        put("linear_attn.in_proj_qkv.weight", grouped_tail(get("mix.qkv.weight")))
        put("linear_attn.conv1d.weight", grouped_tail(get("mix.conv")).unsqueeze(1))
        put("linear_attn.in_proj_z.weight", grouped(get("mix.gate.weight")))
        put("linear_attn.in_proj_b.weight", grouped(get("mix.beta.weight")))
        put("linear_attn.in_proj_a.weight", grouped(get("mix.alpha.weight")))
        put("linear_attn.A_log", grouped(get("mix.log_rate")))
        put("linear_attn.dt_bias", grouped(get("mix.dt")))
        put("linear_attn.norm.weight", get("mix.norm.weight"))
        put("linear_attn.out_proj.weight", grouped(get("mix.out.weight"), axis=1))
    return out


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="the exported GGUF")
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--greedy", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ours = gguf_file.read(options.model)
    theirs = Qwen3_5ForCausalLM(config()).eval()
    theirs.load_state_dict(weights(ours), strict=True)

    ids = np.fromfile(options.work / f"{BOOKS[0]}.held.ids", np.int32).astype(np.int64)[: options.tokens]
    difference = (ours.run(ids)[0] - theirs(torch.from_numpy(ids)[None]).logits[0]).abs().max().item()
    print(f"{len(ids)} positions: the largest difference of a logit is {difference:.2e}")
    assert difference < TOLERANCE

    start = ids[:64].tolist()
    mine = list(start)
    for _ in range(options.greedy):
        mine.append(int(ours.run(mine)[0][-1].argmax()))
    stop = dict(eos_token_id=None, pad_token_id=0, do_sample=False, max_new_tokens=options.greedy)
    peer = theirs.generate(torch.tensor([start]), attention_mask=torch.ones(1, len(start), dtype=torch.long), **stop)
    assert peer[0].tolist() == mine, "the greedy continuations differ"
    print(f"{options.greedy} greedy tokens are the same")


if __name__ == "__main__":
    main()
