"""Goldens of whole models: tiny random checkpoints, and what Hugging Face transformers computes with them in fp32.

    python tools/goldens/tiny_models.py tests/data/goldens [name ...]

Without names all are made; with names those alone, and what tiny_models.json says of the others stays.

Weights are drawn so that everything is load-bearing: logits of order one, decays from fast to slow, norms around one, gates away from their
ends. A seed is taken only if the two best logits of every greedy step are well apart, so that the ids are the same on any machine. For the same
reason the last expert that a router chooses and the first that it does not are well apart, at every position of the prompt and its continuation,
and every expert has work.

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
from transformers import GptOssConfig, GptOssForCausalLM, FalconH1Config, FalconH1ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, Gemma4ForCausalLM, Gemma4TextConfig, GraniteConfig, GraniteForCausalLM
from transformers import GraniteMoeConfig, GraniteMoeForCausalLM, GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM
from transformers import JambaConfig, JambaForCausalLM, Lfm2Config, Lfm2ForCausalLM, Lfm2MoeConfig, Lfm2MoeForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import Ministral3Config, Ministral3ForCausalLM
from transformers import NemotronHConfig, NemotronHForCausalLM
from transformers import Phi3Config, Phi3ForCausalLM
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM, SmolLM3Config, SmolLM3ForCausalLM
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5ForCausalLM, Qwen3_5RMSNorm
from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeTextConfig
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeDecoderLayer, Qwen3_5MoeForCausalLM, Qwen3_5MoeRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNorm

import hf_to_gguf

VOCABULARY = 288
PROMPT = 300  # past one block of 256 positions and several extents of 64 rows, and a multiple of neither
ROWS = 64  # logits are kept for the last of them: positions 236 to 299, each of which depends on all before it
GREEDY = 48
LEAST_GAP = 0.02  # ten times the tolerance of the tests
LEAST_CHOICE_GAP = 4e-3  # between logits of experts, a hundred times what fp32 costs them; of sigmoids, four times as flat, a quarter
LEAST_SHARE = 10  # an expert is chosen at no fewer positions
SEEDS = range(1, 5000)


@dataclass
class Tiny:
    name: str
    config: object
    mtp: bool = False


def qwen35(heads, kv_heads, head_dim, key_heads, value_heads, state_dim, layers, attention_every, ffn, tied):
    """`ffn`: how wide the feed-forward network is, or the parameters of a mixture."""
    mixture = isinstance(ffn, dict)
    return (Qwen3_5MoeTextConfig if mixture else Qwen3_5TextConfig)(
        vocab_size=VOCABULARY,
        hidden_size=64,
        **(ffn if mixture else {"intermediate_size": ffn}),
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


def granite(layers, d_head, groups, tied, rope, embedding, residual, attention, logits, ffn=64, experts=0, used=0):
    return GraniteMoeHybridConfig(
        **EVERY,
        intermediate_size=ffn,  # of an expert
        shared_intermediate_size=64,
        num_hidden_layers=len(layers),
        layer_types=["full_attention" if kind == "a" else "linear_attention" for kind in layers],
        rms_norm_eps=1e-5,
        num_local_experts=experts,
        num_experts_per_tok=used,
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


def gemma4(kinds, **more):
    return Gemma4TextConfig(
        **EVERY | {
            "num_key_value_heads": 1,
            "rope_parameters": {
                "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        } | more,
        num_hidden_layers=len(kinds),
        layer_types=["sliding_attention" if kind == "w" else "full_attention" for kind in kinds],
        head_dim=16,
        global_head_dim=32,
        sliding_window=70,
        final_logit_softcapping=8.0,
        tie_word_embeddings=False,  # as of Gemma 3
    )


def falcon_h1(layers, groups, normed):
    return FalconH1Config(
        **EVERY,
        intermediate_size=96,
        num_hidden_layers=layers,
        head_dim=24,  # wider than the stream divided by the heads
        rms_norm_eps=1e-5,
        mamba_d_ssm=96,
        mamba_n_heads=6,
        mamba_n_groups=groups,
        mamba_d_state=16,
        mamba_rms_norm=normed,
        mamba_norm_before_gate=False,
        embedding_multiplier=1.5,
        lm_head_multiplier=0.8,
        mlp_multipliers=[0.9, 1.2],
        key_multiplier=0.7,
        attention_in_multiplier=1.1,
        attention_out_multiplier=0.9,
        ssm_multipliers=[0.8, 1.1, 0.7, 1.3, 0.9],
        ssm_in_multiplier=1.25,
        ssm_out_multiplier=0.7,
    )


def nemotron(layers, **mixture):
    kinds = {"m": "linear_attention", "a": "full_attention", "f": "mlp", "e": "moe"}
    return NemotronHConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        layers_block_type=[kinds[kind] for kind in layers],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,  # wider than the stream divided by the heads
        max_position_embeddings=4096,
        intermediate_size=96,
        mamba_num_heads=6,
        mamba_head_dim=16,  # together not twice as wide as the stream
        n_groups=2,
        ssm_state_size=16,
        time_step_min=1e-30,  # transformers lets no step be smaller, llama.cpp does
        **mixture,
    )


def jamba(layers, attends, ffn, tied, experts=1, used=1):
    """Of `layers`, that of index `attends` has attention; the second of every two has experts, where there are any."""
    return JambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        attn_layer_period=layers,
        attn_layer_offset=attends,
        mamba_dt_rank=8,
        num_experts=experts,
        num_experts_per_tok=used,
        tie_word_embeddings=tied,
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
    # Mixtures have few blocks: their files are to stay small.
    Tiny(
        "qwen35_moe",
        qwen35(
            2, 1, 32, 2, 4, 16, layers=2, attention_every=2, tied=True,
            ffn=dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=32, shared_expert_intermediate_size=64),
        ),
        mtp=True,
    ),  # fmt: skip
    # Heads wider than the stream divided by their number. No block has the network of `intermediate_size`.
    Tiny(
        "qwen3_moe",
        Qwen3MoeConfig(
            **EVERY,
            intermediate_size=96,
            num_hidden_layers=1,
            head_dim=32,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=64,
            norm_topk_prob=True,
            tie_word_embeddings=False,
        ),
    ),
    Tiny(
        "lfm2_moe",
        Lfm2MoeConfig(
            **EVERY,
            intermediate_size=96,
            num_hidden_layers=3,
            layer_types=["conv", "full_attention", "conv"],
            conv_L_cache=3,
            num_dense_layers=1,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            use_expert_bias=True,
            norm_topk_prob=True,
        ),
    ),
    Tiny(
        "granite_moe",
        granite(
            "ma", 32, 1, tied=True, rope=False, embedding=1.5, residual=0.4, attention=0.3, logits=0.8, ffn=32, experts=8, used=3
        ),
    ),
    Tiny(
        "qwen3_next",
        Qwen3NextConfig(
            **EVERY | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
            intermediate_size=96,  # of no block
            num_hidden_layers=2,
            full_attention_interval=2,
            head_dim=32,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            linear_num_key_heads=2,
            linear_num_value_heads=6,
            num_experts=6,
            num_experts_per_tok=3,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=64,
            norm_topk_prob=True,
            tie_word_embeddings=True,
        ),
    ),
    Tiny("smollm3", SmolLM3Config(**EVERY, intermediate_size=64, num_hidden_layers=4, pad_token_id=0, tie_word_embeddings=True)),
    Tiny(
        "granite_dense",
        GraniteConfig(
            **EVERY, intermediate_size=96, num_hidden_layers=2, tie_word_embeddings=True,
            embedding_multiplier=1.5, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=0.8,
        ),
    ),  # fmt: skip
    Tiny(
        "granite_dense_moe",
        GraniteMoeConfig(
            **EVERY, intermediate_size=32, num_hidden_layers=2, tie_word_embeddings=True, num_local_experts=8, num_experts_per_tok=3,
            embedding_multiplier=1.5, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=0.8,
        ),
    ),  # fmt: skip
    # Positions that YaRN scales: some pairs whole, some in part, some not at all.
    Tiny(
        "qwen3_yarn",
        Qwen3Config(
            **EVERY | {
                "rope_parameters": {
                    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 256,
                }
            },
            intermediate_size=64,
            num_hidden_layers=1,
            head_dim=32,
            tie_word_embeddings=False,
        ),
    ),  # fmt: skip
    # Positions of long texts, since this one is longer than the model was first made for; some of a head's pairs do not turn.
    Tiny(
        "phi3",
        Phi3Config(
            **EVERY | {
                "rope_parameters": {
                    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 256,
                    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 9.0],
                },
                "original_max_position_embeddings": 256,
            },
            intermediate_size=64,
            num_hidden_layers=2,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
            tie_word_embeddings=True,
        ),
    ),  # fmt: skip
    # Queries grow longer with each 64 positions.
    Tiny(
        "mistral3",
        Ministral3Config(
            **EVERY | {
                "rope_parameters": {
                    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64,
                    "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32.0, "beta_slow": 1.0, "llama_4_scaling_beta": 0.5,
                }
            },
            intermediate_size=96,
            num_hidden_layers=1,
            head_dim=32,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
            tie_word_embeddings=False,
        ),
    ),  # fmt: skip
    # The window is no whole number of extents, and most of what is kept of it lies beyond it.
    Tiny(
        "gemma3",
        Gemma3TextConfig(
            **EVERY | {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                }
            },
            intermediate_size=96,
            num_hidden_layers=6,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=70,
            layer_types=["sliding_attention"] * 5 + ["full_attention"],
            tie_word_embeddings=False,  # with the embedding as large as it is in the stream, a tied one would say the last token again
        ),
    ),
    # The last two blocks attend to the keys and values of the two before them, and have wider networks; each block is told of the token.
    Tiny(
        "gemma4",
        gemma4(
            "wwawa", intermediate_size=48, num_kv_shared_layers=2, use_double_wide_mlp=True,
            hidden_size_per_layer_input=16, vocab_size_per_layer_input=VOCABULARY,
        ),
    ),  # fmt: skip
    # Keys are values where a block sees everything.
    Tiny(
        "gemma4_moe",
        gemma4(
            "wa", intermediate_size=48, hidden_size_per_layer_input=0, num_key_value_heads=2, num_global_key_value_heads=1,
            attention_k_eq_v=True, enable_moe_block=True, num_experts=8, top_k_experts=3, moe_intermediate_size=32,
        ),
    ),  # fmt: skip
    Tiny(
        "gpt_oss",
        GptOssConfig(
            **EVERY | {
                "rope_parameters": {
                    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 256, "truncate": False,
                }
            },
            intermediate_size=32,
            num_hidden_layers=2,
            head_dim=16,
            sliding_window=70,
            num_local_experts=8,
            num_experts_per_tok=3,
        ),
    ),  # fmt: skip
    Tiny("falcon_h1", falcon_h1(2, 1, normed=False)),
    Tiny("falcon_h1_normed", falcon_h1(1, 2, normed=True)),
    Tiny("nemotron_dense", nemotron("mafmf")),
    Tiny(
        "nemotron_moe",
        nemotron(
            "mea", n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=32,
            moe_shared_expert_intermediate_size=64, routed_scaling_factor=2.5,
        ),
    ),  # fmt: skip
    Tiny("jamba", jamba(3, 1, ffn=64, tied=True)),
    Tiny("jamba_moe", jamba(2, 0, ffn=32, tied=False, experts=8, used=3)),
]


@dataclass
class Architecture:
    """What transformers and GGUF call it, and the pre-tokeniser of its files; without one they have SentencePiece's vocabularies."""

    network: type
    name: str
    tensors: object
    add_metadata: object
    pre: str | None


ARCHITECTURES = {
    Qwen3_5TextConfig: Architecture(Qwen3_5ForCausalLM, "qwen35", hf_to_gguf.qwen35_tensors, hf_to_gguf.add_qwen35_metadata, "qwen35"),
    LlamaConfig: Architecture(LlamaForCausalLM, "llama", hf_to_gguf.llama_tensors, hf_to_gguf.add_llama_metadata, "smollm"),
    Qwen2Config: Architecture(Qwen2ForCausalLM, "qwen2", hf_to_gguf.llama_tensors, hf_to_gguf.add_qwen2_metadata, "qwen2"),
    Qwen3Config: Architecture(Qwen3ForCausalLM, "qwen3", hf_to_gguf.llama_tensors, hf_to_gguf.add_qwen3_metadata, "qwen2"),
    Qwen3_5MoeTextConfig: Architecture(
        Qwen3_5MoeForCausalLM, "qwen35moe", hf_to_gguf.qwen35_tensors, hf_to_gguf.add_qwen35_metadata, "qwen35"
    ),
    Qwen3MoeConfig: Architecture(Qwen3MoeForCausalLM, "qwen3moe", hf_to_gguf.llama_tensors, hf_to_gguf.add_qwen3_metadata, "qwen2"),
    Lfm2Config: Architecture(Lfm2ForCausalLM, "lfm2", hf_to_gguf.lfm2_tensors, hf_to_gguf.add_lfm2_metadata, "lfm2"),
    Lfm2MoeConfig: Architecture(Lfm2MoeForCausalLM, "lfm2moe", hf_to_gguf.lfm2_tensors, hf_to_gguf.add_lfm2_metadata, "lfm2"),
    GraniteMoeHybridConfig: Architecture(
        GraniteMoeHybridForCausalLM, "granitehybrid", hf_to_gguf.granite_hybrid_tensors, hf_to_gguf.add_granite_hybrid_metadata, "dbrx"
    ),
    Qwen3NextConfig: Architecture(
        Qwen3NextForCausalLM, "qwen3next", hf_to_gguf.qwen35_tensors, hf_to_gguf.add_qwen35_metadata, "qwen2"
    ),
    GptOssConfig: Architecture(GptOssForCausalLM, "gpt-oss", hf_to_gguf.gpt_oss_tensors, hf_to_gguf.add_gpt_oss_metadata, "gpt-4o"),
    SmolLM3Config: Architecture(SmolLM3ForCausalLM, "smollm3", hf_to_gguf.llama_tensors, hf_to_gguf.add_smollm3_metadata, "llama-bpe"),
    GraniteConfig: Architecture(GraniteForCausalLM, "granite", hf_to_gguf.granite_tensors, hf_to_gguf.add_granite_metadata, "dbrx"),
    GraniteMoeConfig: Architecture(GraniteMoeForCausalLM, "granitemoe", hf_to_gguf.granite_tensors, hf_to_gguf.add_granite_metadata, "dbrx"),
    Gemma3TextConfig: Architecture(Gemma3ForCausalLM, "gemma3", hf_to_gguf.gemma3_tensors, hf_to_gguf.add_gemma3_metadata, None),
    Gemma4TextConfig: Architecture(Gemma4ForCausalLM, "gemma4", hf_to_gguf.gemma4_tensors, hf_to_gguf.add_gemma4_metadata, None),
    Phi3Config: Architecture(Phi3ForCausalLM, "phi3", hf_to_gguf.phi3_tensors, hf_to_gguf.add_phi3_metadata, "gpt-4o"),
    Ministral3Config: Architecture(
        Ministral3ForCausalLM, "mistral3", hf_to_gguf.llama_tensors, hf_to_gguf.add_mistral3_metadata, "tekken"
    ),
    FalconH1Config: Architecture(
        FalconH1ForCausalLM, "falcon-h1", hf_to_gguf.falcon_h1_tensors, hf_to_gguf.add_falcon_h1_metadata, "falcon-h1"
    ),
    NemotronHConfig: Architecture(
        NemotronHForCausalLM, "nemotron_h", hf_to_gguf.nemotron_h_tensors, hf_to_gguf.add_nemotron_h_metadata, "pixtral"
    ),
    JambaConfig: Architecture(JambaForCausalLM, "jamba", hf_to_gguf.jamba_tensors, hf_to_gguf.add_jamba_metadata, None),
}


class Mtp(nn.Module):
    """The multi-token-prediction block, from the parts of the model that it belongs to."""

    def __init__(self, config):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        mixture = isinstance(config, Qwen3_5MoeTextConfig)
        norm, layer = (Qwen3_5MoeRMSNorm, Qwen3_5MoeDecoderLayer) if mixture else (Qwen3_5RMSNorm, Qwen3_5DecoderLayer)
        self.pre_fc_norm_embedding = norm(width, eps)
        self.pre_fc_norm_hidden = norm(width, eps)
        self.fc = nn.Linear(2 * width, width, bias=False)
        self.layer = layer(config, config.layer_types.index("full_attention"))
        self.norm = norm(width, eps)

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
    zero_centred = any(isinstance(m, (Qwen3_5RMSNorm, Qwen3_5MoeRMSNorm, Qwen3NextRMSNorm, Gemma3RMSNorm)) for m in module.modules())
    # Without norms on q and k attention would be flat.
    gain = 1.0 if any("q_norm" in name or "q_layernorm" in name for name, _ in module.named_parameters()) else 1.5
    for name, p in module.named_parameters():
        leaf = name.rsplit(".", 2)[-2:]
        if "A_log" in leaf:
            p.copy_(torch.log(uniform(p, 0.02, 2.0)))  # a step keeps between 10 % and 99 % of a state
        elif "dt_bias" in leaf:
            uniform(p, -2.0, 1.0)
        elif ".experts." in name and p.dim() == 3:
            inputs = p.shape[1 if isinstance(config, GptOssConfig) else 2]
            normal(p, (gain * into_stream * 1.5 if "down_proj" in leaf else gain) / math.sqrt(inputs))
        elif ".experts." in name or "sinks" in leaf:
            uniform(p, -0.5, 0.5)
        elif name.endswith((".gate.weight", ".router.weight")):  # of the chosen experts none has all the say, and none next to none
            normal(p, 2.0 / math.sqrt(p.shape[1]))
        elif name.endswith(".router.proj.weight"):  # of rows that are scaled down by the root of their width
            normal(p, 2.0)
        elif "embed_tokens_per_layer" in leaf:
            normal(p, 1.0 / math.sqrt(config.hidden_size_per_layer_input))
        elif p.dim() == 3:  # a convolution's taps
            normal(p, 0.5)
        elif "linear_attn.norm" in name:
            uniform(p, 0.7, 1.3)
        elif "bias" in leaf:
            uniform(p, -0.5, 0.5)
        elif p.dim() == 1:
            uniform(p, -0.3, 0.3) if zero_centred else uniform(p, 0.7, 1.3)
        elif "embed_tokens" in leaf or "embeddings" in leaf or "lm_head" in leaf:
            normal(p, 0.35)
        else:
            residual = any(part in name for part in ("o_proj", "out_proj", "down_proj", "feed_forward.w2", "output_linear"))
            normal(p, (gain if not residual else gain * into_stream) / math.sqrt(p.shape[1]))
    for name, p in module.named_buffers():
        if name.endswith(("expert_bias", "e_score_correction_bias")):
            uniform(p, -0.3, 0.3)
        elif name.endswith("layer_scalar"):
            uniform(p, 0.6, 1.2)


def gap(logits):
    best = logits.topk(2, dim=-1).values
    return (best[..., 0] - best[..., 1]).min().item()


class Choices:
    """What the routers below some modules score and choose while they are watched: [positions x experts] and [positions x used] each."""

    def __init__(self, *modules):
        self.scores, self.chosen, self.least_wanted = [], [], LEAST_CHOICE_GAP
        self.routers = [
            m for module in modules for m in module.modules() if type(m).__name__.lower().endswith(("topkrouter", "textrouter"))
        ]
        self.hooks = [router.register_forward_hook(self.keep) for router in self.routers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def keep(self, router, inputs, outputs):
        """LFM2's router is handed the biases of its choice, Nemotron's has them; the others choose by the greatest logits, which is by the
        greatest softmax."""
        logits, _, chosen = outputs
        if type(router).__name__ == "Gemma4TextRouter":
            logits = logits.log()  # what it gives are probabilities
        bias = inputs[1] if len(inputs) > 1 else getattr(router, "e_score_correction_bias", None)
        biased = bias is not None
        self.scores.append(logits.sigmoid() + bias if biased else logits)
        self.chosen.append(chosen)
        self.least_wanted = LEAST_CHOICE_GAP / 4 if biased else LEAST_CHOICE_GAP

    def good(self):
        return not self.routers or (self.least_gap() >= self.least_wanted and self.least_share() >= LEAST_SHARE)

    def least_gap(self):
        """Between the last chosen and the first unchosen."""
        least = math.inf
        for scores, chosen in zip(self.scores, self.chosen):
            ordered = scores.sort(dim=-1, descending=True).values
            assert torch.equal(scores.topk(chosen.shape[1]).indices.sort().values, chosen.sort().values)
            least = min(least, (ordered[:, chosen.shape[1] - 1] - ordered[:, chosen.shape[1]]).min().item())
        return least

    def least_share(self):
        """At how many positions the least wanted expert of any router is chosen."""
        return min(torch.bincount(chosen.flatten(), minlength=scores.shape[1]).min().item() for scores, chosen in zip(self.scores, self.chosen))


@torch.no_grad()
def choices(model, mtp, ids):
    with Choices(model, *([mtp] if mtp is not None else [])) as seen:
        hidden = model.model(ids[None]).last_hidden_state[0]
        if mtp is not None:
            mtp.logits(model, hidden[:-1], ids[1:])
    return seen


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
    tiny.config._experts_implementation = "eager"
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
    for seed in SEEDS:
        model, mtp, ids = make(tiny, seed)
        if not choices(model, mtp, ids).good():
            continue
        continuation, least = greedy(model, ids, GREEDY)
        text = torch.cat([ids, continuation])
        if least >= LEAST_GAP and len(set(continuation.tolist())) > GREEDY // 3 and choices(model, mtp, text).good():
            break
    else:
        raise SystemExit(f"{tiny.name}: no seed keeps the two best logits {LEAST_GAP} apart, and the experts {LEAST_CHOICE_GAP}")

    # The cached path of transformers agrees with its own full passes, so the goldens do not hang on one of its code paths.
    cached = model.generate(
        ids[None], attention_mask=torch.ones(1, PROMPT, dtype=torch.long), do_sample=False, max_new_tokens=GREEDY,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert cached[0, PROMPT:].tolist() == continuation.tolist(), f"{tiny.name}: transformers disagrees with itself"

    hidden = model.model(ids[None]).last_hidden_state[0]
    logits = model(ids[None]).logits[0]
    seen = choices(model, mtp, text)
    exact = model.double()(ids[None]).logits[0]
    noise = (logits - exact).abs().max().item()
    exactly_seen = choices(model, mtp and mtp.double(), text)
    for module in filter(None, (model, mtp)):
        module.float()

    config = tiny.config
    path = lambda suffix: directory / f"{tiny.name}.{suffix}"
    architecture = ARCHITECTURES[type(config)]
    extra = {"mtp": mtp} if tiny.mtp else {}
    add = lambda writer: architecture.add_metadata(writer, config, **extra)
    name = architecture.name + ("_moe" if isinstance(config, NemotronHConfig) and "moe" in config.layer_types else "")
    hf_to_gguf.write(path("gguf"), name, architecture.tensors(model, **extra), add, VOCABULARY, architecture.pre)
    ids.numpy().astype("<i4").tofile(path("ids.i32"))
    continuation.numpy().astype("<i4").tofile(path("greedy.i32"))
    logits[-ROWS:].numpy().astype("<f4").tofile(path("logits.f32"))
    facts = {"prompt": PROMPT, "rows": ROWS, "vocabulary": VOCABULARY, "greedy": GREEDY, "seed": seed, "least_gap": round(least, 4),
             "fp32_noise": float(f"{noise:.1e}"), "logit_std": round(logits.std().item(), 2)}  # fmt: skip
    if seen.routers:
        choice_noise = max((a - b).abs().max().item() for a, b in zip(seen.scores, exactly_seen.scores))
        facts |= {"least_choice_gap": round(seen.least_gap(), 5), "choice_noise": float(f"{choice_noise:.1e}"), "least_share": seen.least_share()}
    if mtp is not None:
        following = torch.cat([ids[1:], continuation[:1]])
        mtp_logits = mtp.logits(model, hidden, following)
        mtp_logits[-ROWS:].numpy().astype("<f4").tofile(path("mtp_logits.f32"))
        facts["mtp_least_gap"] = round(gap(mtp_logits[-1]), 4)
    print(tiny.name, facts)
    return facts


def main():
    directory, names = Path(sys.argv[1]), sys.argv[2:] or [tiny.name for tiny in MODELS]
    if unknown := set(names) - {tiny.name for tiny in MODELS}:
        raise SystemExit(f"no such model: {' '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    path = directory / "tiny_models.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    made = {tiny.name: write(tiny, directory) for tiny in MODELS if tiny.name in names}
    facts = {tiny.name: (known | made)[tiny.name] for tiny in MODELS if tiny.name in known | made}
    path.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
