"""Hugging Face checkpoints (qwen3_5_text, qwen3_5_moe_text, qwen3_next, llama, qwen2, qwen3, qwen3_moe, lfm2, lfm2_moe, granitemoehybrid,
falcon_h1, nemotron_h, gemma3_text, gemma4_text, granite, granitemoe, smollm3, ministral3, phi3, gpt_oss, jamba) as GGUF files: what tensors are called there, and how they are laid out.

The facts, each of them checked by the agreement of transformers, llama.cpp and Reprise on the files made here:
 - Qwen3.5's RMS norms store weight - 1 in Hugging Face, the weight in GGUF; `linear_attn.norm` (ssm_norm) is plain in both.
 - With more value heads than key heads, Hugging Face groups them (value head h belongs to key head h div r), GGUF tiles them (h mod nk).
 - Qwen3-Next's value heads are grouped in GGUF too. Its `in_proj_qkvz` comes key head by key head, each its q, its k, then v and z of its value heads;
   GGUF has all q, all k and all v as `attn_qkv`, and z as `attn_gate` (older files have the matrix as it is, as `ssm_in`). `ssm_ba` stays as it is:
   of each key head beta of its value heads, then alpha.
 - `ssm_a` holds -exp(A_log).
 - Llama's q and k rows are permuted from half-split to adjacent-pair rotation.
 - Qwen's are not: half-split rotation everywhere but in Llama.
 - LFM2's final norm is called `token_embd_norm`; a block without key-value heads (attention.head_count_kv) convolves.
 - Granite's rows of `ssm_in` are z, x, B, C, dt; `ssm_a` and `ssm_d` are columns, `ssm_norm` has a row for each group; the shared feed-forward
   network of a model without experts is its only one, its gate and its up rows apart; q and k are permuted as Llama's are.
 - Falcon-H1's multipliers are in the weights: every matrix times that of what it reads or makes, the five parts of `ssm_in` each times its own, the
   keys' times theirs too. Its `ffn_norm` has no `.weight` behind it; without `ssm_norm` there is no norm within Mamba. Rotation is half-split.
 - Every block of Nemotron-H has one sublayer, and attn_norm before it. Which one is told by two arrays: it attends where
   attention.head_count_kv is not 0, it is a feed-forward network (or a mixture: `nemotron_h_moe`) where feed_forward_length is not, and Mamba
   where both are. The feed-forward networks, experts too, have no gate; attention's q and k may be permuted or not, as nothing turns them.
   That routers have sigmoids is not said; exp_probs_b.bias is of the choice alone. Its time steps are not bounded from below, as
   transformers bounds them by time_step_min.
 - Jamba's rows of `ssm_in` are x, z, and those of `ssm_x` the low rank of the time steps, B, C; `ssm_a` has a row of its states' rates for each channel.
   A block has experts where it has a router; expert_count is 1 where no block has. The weights of the chosen are their probabilities among all
   experts, and do not add up to one. Nothing tells positions.
 - Gemma 3's norms store weight - 1 in Hugging Face, the weight in GGUF. A block has four: post_attention_norm and post_ffw_norm are of what a sublayer
   made, before it is added. Rotation is half-split; `rope.scaling` and `rope.freq_base` are of the blocks that see everything, of which there is one in
   six or in attention.sliding_window_pattern, the last of them; the others turn by rope.freq_base_swa, which older files do not tell (10,000).
   That the embedding is scaled by the root of its width, and scores by a head's width, is not said either.
 - gpt-oss has the columns of its experts' gates and ups in turns in Hugging Face, inputs before outputs; GGUF has three matrices. Its window is of the
   first block of every two, which files need not tell. Its own code lets the ramp of YaRN begin and end between pairs (`truncate` is false);
   llama.cpp rounds both, so that it agrees only where that changes nothing.
 - The MTP block is the last block of the file, counted by block_count.
 - A mixture's experts are three matrices a block, their gates, ups and downs, with the rows of one expert after those of another; in
   transformers the rows of an expert's gate stand above those of its up, in one matrix.
 - `exp_probs_b.bias` of LFM2 is added to the probabilities for the choice of experts alone, not to their weights.
 - What every token goes through beside a mixture is called `ffn_*_shexp`. Qwen3.5's gate of it, `ffn_gate_inp_shexp`, is a vector here; llama.cpp
   reads a matrix of one row as well, and its converter writes one.
 - Qwen3.5's mixtures have no feed_forward_length, Granite's no expert_feed_forward_length: there feed_forward_length is the experts'.
 - That the weights of the chosen experts are made to add up to one is not said in the file: all of these architectures but Jamba do it.
"""

import math

import gguf
import numpy as np

FEED_FORWARD = {f"ffn_{part}.weight": f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
ATTENTION = {
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
}
GEMMA_NORMS = {
    "attn_norm.weight": "input_layernorm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}
BIASES = {f"attn_{part}.bias": f"self_attn.{part}_proj.bias" for part in "qkv"}
HEAD_NORMS = {"attn_q_norm.weight": "self_attn.q_norm.weight", "attn_k_norm.weight": "self_attn.k_norm.weight"}
QWEN35_SHARED_EXPERT = {f"ffn_{part}_shexp.weight": f"mlp.shared_expert.{part}_proj.weight" for part in ("gate", "up", "down")}


def numpy_state(module):
    return {name: tensor.detach().float().numpy() for name, tensor in module.state_dict().items()}


def tile_value_heads(array, key_heads, value_heads, axis=0):
    """Value heads from grouped (0 0 1 1 by key head) to tiled (0 1 0 1) order; `axis` holds the heads, each as a run of equal length."""
    moved = np.moveaxis(array, axis, 0)
    heads = moved.reshape(key_heads, value_heads // key_heads, -1, *moved.shape[1:])
    return np.ascontiguousarray(np.moveaxis(heads.swapaxes(0, 1).reshape(moved.shape), 0, axis))


def interleave_rotation(weight, heads):
    """Rows of q or k from half-split pairs (i, i + dim / 2) to adjacent pairs (2i, 2i + 1)."""
    return np.ascontiguousarray(weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape))


def mixture(state, source, router):
    """The experts of a block, and the router that chooses among them; `source` is the module that holds both."""
    gate, up = np.split(state[source + "experts.gate_up_proj"], 2, axis=1)
    return {
        "ffn_gate_inp.weight": state[f"{source}{router}.weight"],
        "ffn_gate_exps.weight": gate,
        "ffn_up_exps.weight": up,
        "ffn_down_exps.weight": state[source + "experts.down_proj"],
    }


def feed_forward(state, source):
    """Of Qwen and Llama: a network, or a mixture of them."""
    if source + "mlp.gate.weight" not in state:
        return {ours: state[source + theirs] for ours, theirs in FEED_FORWARD.items()}
    out = mixture(state, source + "mlp.", "gate")
    if source + "mlp.shared_expert_gate.weight" in state:
        out |= {ours: state[source + theirs] for ours, theirs in QWEN35_SHARED_EXPERT.items()}
        out["ffn_gate_inp_shexp.weight"] = state[source + "mlp.shared_expert_gate.weight"][0]
    return out


def qwen35_every_block(state, source):
    return {"attn_norm.weight": state[source + "input_layernorm.weight"] + 1} | feed_forward(state, source)


def qwen35_attention_block(state, source):
    out = qwen35_every_block(state, source) | {ours: state[source + theirs] for ours, theirs in ATTENTION.items()}
    out["post_attention_norm.weight"] = state[source + "post_attention_layernorm.weight"] + 1
    return out | {ours: state[source + theirs] + 1 for ours, theirs in HEAD_NORMS.items()}


def qwen35_delta_net_block(state, source, config):
    nk, nv = config.linear_num_key_heads, config.linear_num_value_heads
    key_rows = 2 * nk * config.linear_key_head_dim  # of q and k together; v follows
    get = lambda name: state[source + "linear_attn." + name]
    tiled = lambda array, axis=0: tile_value_heads(array, nk, nv, axis)
    tiled_tail = lambda array: np.concatenate([array[:key_rows], tiled(array[key_rows:])])
    return qwen35_every_block(state, source) | {
        "post_attention_norm.weight": state[source + "post_attention_layernorm.weight"] + 1,
        "attn_qkv.weight": tiled_tail(get("in_proj_qkv.weight")),
        "attn_gate.weight": tiled(get("in_proj_z.weight")),
        "ssm_beta.weight": tiled(get("in_proj_b.weight")),
        "ssm_alpha.weight": tiled(get("in_proj_a.weight")),
        "ssm_a": tiled(-np.exp(get("A_log"))),
        "ssm_dt.bias": tiled(get("dt_bias")),
        "ssm_conv1d.weight": tiled_tail(get("conv1d.weight")[:, 0]),
        "ssm_norm.weight": get("norm.weight"),
        "ssm_out.weight": tiled(get("out_proj.weight"), axis=1),
    }


def qwen3_next_delta_net_block(state, source, config):
    nk, dk = config.linear_num_key_heads, config.linear_key_head_dim
    values = config.linear_num_value_heads // nk * config.linear_value_head_dim
    get = lambda name: state[source + "linear_attn." + name]
    mixed = get("in_proj_qkvz.weight")
    q, k, v, z = np.split(mixed.reshape(nk, -1, mixed.shape[1]), np.cumsum([dk, dk, values]), axis=1)
    flat = lambda part: part.reshape(-1, mixed.shape[1])
    return qwen35_every_block(state, source) | {
        "post_attention_norm.weight": state[source + "post_attention_layernorm.weight"] + 1,
        "attn_qkv.weight": np.concatenate([flat(q), flat(k), flat(v)]),
        "attn_gate.weight": flat(z),
        "ssm_ba.weight": get("in_proj_ba.weight"),
        "ssm_a": -np.exp(get("A_log")),
        "ssm_dt.bias": get("dt_bias"),
        "ssm_conv1d.weight": get("conv1d.weight")[:, 0],
        "ssm_norm.weight": get("norm.weight"),
        "ssm_out.weight": get("out_proj.weight"),
    }


def qwen35_tensors(model, mtp=None):
    """Of Qwen3.5, and of Qwen3-Next, whose recurrent blocks are laid out otherwise."""
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"] + 1}
    if not config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    for i, kind in enumerate(config.layer_types):
        source = f"model.layers.{i}."
        recurrent = qwen3_next_delta_net_block if config.model_type == "qwen3_next" else qwen35_delta_net_block
        block = qwen35_attention_block(state, source) if kind == "full_attention" else recurrent(state, source, config)
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    if mtp is not None:
        extra = numpy_state(mtp)
        block = qwen35_attention_block(extra, "layer.")
        block |= {
            "nextn.eh_proj.weight": extra["fc.weight"],
            "nextn.enorm.weight": extra["pre_fc_norm_embedding.weight"] + 1,
            "nextn.hnorm.weight": extra["pre_fc_norm_hidden.weight"] + 1,
            "nextn.shared_head_norm.weight": extra["norm.weight"] + 1,
        }
        out |= {f"blk.{config.num_hidden_layers}.{name}": array for name, array in block.items()}
    return out


def llama_tensors(model):
    """Of Llama and SmolLM3, and of Qwen2, which has biases, and Qwen3, which has norms of heads and may have mixtures."""
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    if not config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    for i in range(config.num_hidden_layers):
        source = f"model.layers.{i}."
        names = ATTENTION | BIASES | HEAD_NORMS
        block = {"attn_norm.weight": state[source + "input_layernorm.weight"]} | feed_forward(state, source)
        block |= {ours: state[source + theirs] for ours, theirs in names.items() if source + theirs in state}
        block["ffn_norm.weight"] = state[source + "post_attention_layernorm.weight"]
        if config.model_type in ("llama", "smollm3", "ministral3"):
            block["attn_q.weight"] = interleave_rotation(block["attn_q.weight"], config.num_attention_heads)
            block["attn_k.weight"] = interleave_rotation(block["attn_k.weight"], config.num_key_value_heads)
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


def gemma3_tensors(model):
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"] + 1}
    if not config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    for i in range(config.num_hidden_layers):
        source = f"model.layers.{i}."
        block = {ours: state[source + theirs] for ours, theirs in (ATTENTION | FEED_FORWARD).items()}
        block |= {ours: state[source + theirs] + 1 for ours, theirs in (GEMMA_NORMS | HEAD_NORMS).items()}
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


def phi3_tensors(model):
    """Queries, keys and values in one matrix; the gate's rows, then those of up, in another. What divides the frequencies goes into the file."""
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    for kind in ("long", "short"):
        out[f"rope_factors_{kind}.weight"] = np.array(config.rope_parameters[f"{kind}_factor"])
    names = {
        "attn_norm.weight": "input_layernorm.weight",
        "attn_qkv.weight": "self_attn.qkv_proj.weight",
        "attn_output.weight": "self_attn.o_proj.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "ffn_up.weight": "mlp.gate_up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
    }
    for i in range(config.num_hidden_layers):
        out |= {f"blk.{i}.{ours}": state[f"model.layers.{i}.{theirs}"] for ours, theirs in names.items()}
    return out


GEMMA4_PER_LAYER = {
    "inp_gate.weight": "per_layer_input_gate.weight",
    "proj.weight": "per_layer_projection.weight",
    "post_norm.weight": "post_per_layer_input_norm.weight",
}
GEMMA4_MIXTURE = {
    "ffn_gate_inp.weight": "router.proj.weight",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj",
    "ffn_down_exps.weight": "experts.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
}


def gemma4_tensors(model):
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    if not config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    rope = config.rope_parameters["full_attention"]
    pairs = config.per_layer_config["full_attention"].head_dim // 2
    turned = int(pairs * rope["partial_rotary_factor"])
    out["rope_freqs.weight"] = np.array([1.0] * turned + [1e30] * (pairs - turned))
    if config.hidden_size_per_layer_input:
        out["per_layer_token_embd.weight"] = state["model.embed_tokens_per_layer.weight"]
        out["per_layer_model_proj.weight"] = state["model.per_layer_model_projection.weight"]
        out["per_layer_proj_norm.weight"] = state["model.per_layer_projection_norm.weight"]
    for i in range(config.num_hidden_layers):
        source = f"model.layers.{i}."
        names = ATTENTION | HEAD_NORMS | FEED_FORWARD | GEMMA_NORMS | GEMMA4_PER_LAYER | GEMMA4_MIXTURE
        block = {ours: state[source + theirs] for ours, theirs in names.items() if source + theirs in state}
        block["layer_output_scale.weight"] = state[source + "layer_scalar"]
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


LFM2_NORMS = {"attn_norm.weight": "operator_norm.weight", "ffn_norm.weight": "ffn_norm.weight"}
LFM2_FEED_FORWARD = {
    "ffn_gate.weight": "feed_forward.w1.weight",
    "ffn_up.weight": "feed_forward.w3.weight",
    "ffn_down.weight": "feed_forward.w2.weight",
}
LFM2_ATTENTION = {
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.out_proj.weight",
    "attn_q_norm.weight": "self_attn.q_layernorm.weight",
    "attn_k_norm.weight": "self_attn.k_layernorm.weight",
}
LFM2_CONVOLUTION = {f"shortconv.{part}.weight": f"conv.{part}.weight" for part in ("in_proj", "conv", "out_proj")}


def lfm2_tensors(model):
    state = numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "token_embd_norm.weight": state["model.embedding_norm.weight"]}
    for i, kind in enumerate(model.config.layer_types):
        source = f"model.layers.{i}."
        dense = source + "feed_forward.w1.weight" in state
        names = LFM2_NORMS | (LFM2_FEED_FORWARD if dense else {}) | (LFM2_CONVOLUTION if kind == "conv" else LFM2_ATTENTION)
        block = {ours: state[source + theirs] for ours, theirs in names.items()}
        if not dense:
            block |= mixture(state, source + "feed_forward.", "gate")
            block["exp_probs_b.bias"] = state[source + "feed_forward.expert_bias"]
        if kind == "conv":
            block["shortconv.conv.weight"] = block["shortconv.conv.weight"][:, 0]
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


GRANITE_MAMBA = {
    "ssm_in.weight": "mamba.in_proj.weight",
    "ssm_conv1d.bias": "mamba.conv1d.bias",
    "ssm_dt.bias": "mamba.dt_bias",
    "ssm_out.weight": "mamba.out_proj.weight",
}


GPT_OSS = ATTENTION | BIASES | {
    "attn_norm.weight": "input_layernorm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "attn_output.bias": "self_attn.o_proj.bias",
    "attn_sinks.weight": "self_attn.sinks",
    "ffn_gate_inp.weight": "mlp.router.weight",
    "ffn_gate_inp.bias": "mlp.router.bias",
    "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
}


def gpt_oss_tensors(model):
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    out["output.weight"] = state["lm_head.weight"]
    for i in range(config.num_hidden_layers):
        source = f"model.layers.{i}."
        block = {ours: state[source + theirs] for ours, theirs in GPT_OSS.items()}
        both, biases = (state[f"{source}mlp.experts.gate_up_proj{what}"] for what in ("", "_bias"))
        for at, part in enumerate(("gate", "up")):
            block[f"ffn_{part}_exps.weight"] = both[..., at::2].swapaxes(1, 2)
            block[f"ffn_{part}_exps.bias"] = biases[..., at::2]
        block["ffn_down_exps.weight"] = state[source + "mlp.experts.down_proj"].swapaxes(1, 2)
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


def granite_tensors(model):
    """Of Granite without recurrent blocks, a network or a mixture of them in each."""
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    for i in range(config.num_hidden_layers):
        source = f"model.layers.{i}."
        block = {ours: state[source + theirs] for ours, theirs in ATTENTION.items()}
        block["attn_q.weight"] = interleave_rotation(block["attn_q.weight"], config.num_attention_heads)
        block["attn_k.weight"] = interleave_rotation(block["attn_k.weight"], config.num_key_value_heads)
        block["attn_norm.weight"] = state[source + "input_layernorm.weight"]
        block["ffn_norm.weight"] = state[source + "post_attention_layernorm.weight"]
        block |= mixture(state, source + "block_sparse_moe.", "router") if config.model_type == "granitemoe" else feed_forward(state, source)
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


def granite_hybrid_tensors(model):
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    if not config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    for i, kind in enumerate(config.layer_types):
        source = f"model.layers.{i}."
        names = ATTENTION if kind == "full_attention" else GRANITE_MAMBA
        block = {ours: state[source + theirs] for ours, theirs in names.items()}
        if kind == "full_attention":
            block["attn_q.weight"] = interleave_rotation(block["attn_q.weight"], config.num_attention_heads)
            block["attn_k.weight"] = interleave_rotation(block["attn_k.weight"], config.num_key_value_heads)
        else:
            block |= mamba_parameters(state, source + "mamba.", config.mamba_n_groups)
        block["attn_norm.weight"] = state[source + "input_layernorm.weight"]
        block["ffn_norm.weight"] = state[source + "post_attention_layernorm.weight"]
        suffix = "_shexp" if config.num_local_experts else ""
        gate, up = np.split(state[source + "shared_mlp.input_linear.weight"], 2)
        block |= {f"ffn_gate{suffix}.weight": gate, f"ffn_up{suffix}.weight": up}
        block[f"ffn_down{suffix}.weight"] = state[source + "shared_mlp.output_linear.weight"]
        if config.num_local_experts:
            block |= mixture(state, source + "block_sparse_moe.", "router")
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


FALCON_H1 = ATTENTION | GRANITE_MAMBA | {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm": "pre_ff_layernorm.weight",
    **{f"ffn_{part}.weight": f"feed_forward.{part}_proj.weight" for part in ("gate", "up", "down")},
}


def falcon_h1_tensors(model):
    config, state = model.config, numpy_state(model)
    group_states = config.mamba_n_groups * config.mamba_d_state
    parts = np.repeat(config.ssm_multipliers, [config.mamba_d_ssm, config.mamba_d_ssm, group_states, group_states, config.mamba_n_heads])
    read = config.attention_in_multiplier
    multipliers = {
        "attn_q.weight": read,
        "attn_k.weight": read * config.key_multiplier,
        "attn_v.weight": read,
        "attn_output.weight": config.attention_out_multiplier,
        "ssm_in.weight": config.ssm_in_multiplier * parts[:, None],
        "ssm_out.weight": config.ssm_out_multiplier,
        "ffn_gate.weight": config.mlp_multipliers[0],
        "ffn_down.weight": config.mlp_multipliers[1],
    }
    out = {
        "token_embd.weight": state["model.embed_tokens.weight"] * config.embedding_multiplier,
        "output_norm.weight": state["model.final_layernorm.weight"],
        "output.weight": state["lm_head.weight"] * config.lm_head_multiplier,
    }
    for i in range(config.num_hidden_layers):
        source = f"model.layers.{i}."
        block = {ours: state[source + theirs] * multipliers.get(ours, 1) for ours, theirs in FALCON_H1.items()}
        block |= mamba_parameters(state, source + "mamba.", config.mamba_n_groups)
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


NEMOTRON_H = {
    "linear_attention": {ours: theirs.replace("mamba.", "mixer.") for ours, theirs in GRANITE_MAMBA.items()},
    "full_attention": {ours: theirs.replace("self_attn.", "mixer.") for ours, theirs in ATTENTION.items()},
    "mlp": {f"ffn_{part}.weight": f"mixer.{part}_proj.weight" for part in ("up", "down")},
    "moe": {
        "ffn_gate_inp.weight": "mixer.gate.weight",
        "exp_probs_b.bias": "mixer.gate.e_score_correction_bias",
        "ffn_up_exps.weight": "mixer.experts.up_proj",
        "ffn_down_exps.weight": "mixer.experts.down_proj",
        "ffn_up_shexp.weight": "mixer.shared_experts.up_proj.weight",
        "ffn_down_shexp.weight": "mixer.shared_experts.down_proj.weight",
    },
}


def mamba_parameters(state, source, groups):
    """Of a Mamba-2 sublayer, what is not stored as Hugging Face has it."""
    out = {
        "ssm_a": -np.exp(state[source + "A_log"])[:, None],
        "ssm_d": state[source + "D"][:, None],
        "ssm_conv1d.weight": state[source + "conv1d.weight"][:, 0],
    }
    if source + "norm.weight" in state:
        out["ssm_norm.weight"] = state[source + "norm.weight"].reshape(groups, -1)
    return out


def nemotron_h_tensors(model):
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embeddings.weight"], "output_norm.weight": state["model.norm_f.weight"]}
    if not config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    for i, kind in enumerate(config.layer_types):
        source = f"model.layers.{i}."
        block = {ours: state[source + theirs] for ours, theirs in NEMOTRON_H[kind].items()} | {"attn_norm.weight": state[source + "norm.weight"]}
        if kind == "linear_attention":
            block |= mamba_parameters(state, source + "mixer.", config.n_groups)
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


JAMBA_MAMBA = {
    f"ssm_{ours}": f"mamba.{theirs}"
    for ours, theirs in {
        "in.weight": "in_proj.weight",
        "conv1d.bias": "conv1d.bias",
        "x.weight": "x_proj.weight",
        "dt_norm.weight": "dt_layernorm.weight",
        "b_norm.weight": "b_layernorm.weight",
        "c_norm.weight": "c_layernorm.weight",
        "dt.weight": "dt_proj.weight",
        "dt.bias": "dt_proj.bias",
        "d": "D",
        "out.weight": "out_proj.weight",
    }.items()
}


def jamba_tensors(model):
    config, state = model.config, numpy_state(model)
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.final_layernorm.weight"]}
    if not config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    for i, (kind, experts) in enumerate(zip(config.layers_block_type, config.layers_num_experts)):
        source = f"model.layers.{i}."
        names = ATTENTION if kind == "attention" else JAMBA_MAMBA
        names = names | {"attn_norm.weight": "input_layernorm.weight", "ffn_norm.weight": "pre_ff_layernorm.weight"}
        block = {ours: state[source + theirs] for ours, theirs in names.items()}
        if kind == "mamba":
            block["ssm_a"] = -np.exp(state[source + "mamba.A_log"])
            block["ssm_conv1d.weight"] = state[source + "mamba.conv1d.weight"][:, 0]
        if experts > 1:
            block |= mixture(state, source + "feed_forward.", "router")
        else:
            block |= {f"ffn_{part}.weight": state[source + f"feed_forward.{part}_proj.weight"] for part in ("gate", "up", "down")}
        out |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return out


def add_common_metadata(writer, config, blocks, rope=None):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(blocks)
    writer.add_embedding_length(config.hidden_size)
    if hasattr(config, "intermediate_size") and not getattr(config, "use_double_wide_mlp", False):
        writer.add_feed_forward_length(config.intermediate_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type != "gemma4_text":  # whose kinds of blocks have their own
        kinds, kv_heads = getattr(config, "layer_types", []), config.num_key_value_heads
        recurrent = {"lfm2": "conv", "lfm2_moe": "conv", "granitemoehybrid": "linear_attention"}.get(config.model_type)
        writer.add_head_count_kv([0 if kind == recurrent else kv_heads for kind in kinds] if recurrent else kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps if hasattr(config, "norm_eps") else config.rms_norm_eps)
    rope = rope or config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] != "default":
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if "original_max_position_embeddings" in rope:
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if getattr(config, "num_experts", getattr(config, "num_local_experts", 0)):
        add_mixture_metadata(writer, config)


def add_mixture_metadata(writer, config):
    writer.add_expert_count(config.num_local_experts if hasattr(config, "num_local_experts") else config.num_experts)
    writer.add_expert_used_count(config.top_k_experts if hasattr(config, "top_k_experts") else config.num_experts_per_tok)
    if hasattr(config, "moe_intermediate_size"):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if config.model_type in ("qwen3_5_moe_text", "qwen3_next"):
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    elif config.model_type == "granitemoehybrid":
        writer.add_expert_shared_feed_forward_length(config.shared_intermediate_size)
    elif config.model_type == "lfm2_moe":
        writer.add_leading_dense_block_count(config.num_dense_layers)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def add_qwen35_metadata(writer, config, mtp=None):
    add_common_metadata(writer, config, config.num_hidden_layers + (mtp is not None))
    if mtp is not None:
        writer.add_uint32(f"{writer.arch}.nextn_predict_layers", 1)
    rope_dims = int(config.head_dim * config.rope_parameters["partial_rotary_factor"])
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(rope_dims)
    if "mrope_section" in config.rope_parameters:
        writer.add_rope_dimension_sections(config.rope_parameters["mrope_section"] + [0])
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_num_value_heads * config.linear_value_head_dim)
    writer.add_uint32(f"{writer.arch}.full_attention_interval", config.layer_types.index("full_attention") + 1)


def add_llama_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_rope_dimension_count(config.head_dim)


def add_smollm3_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)


def add_qwen2_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)


def add_qwen3_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)


def add_phi3_metadata(writer, config):
    rope = config.rope_parameters
    original = rope["original_max_position_embeddings"]
    add_common_metadata(writer, config, config.num_hidden_layers, rope | {"rope_type": "default"})
    writer.add_rope_dimension_count(2 * len(rope["long_factor"]))
    longer = config.max_position_embeddings / original
    writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(longer) / math.log(original)))


def add_mistral3_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    rope = config.rope_parameters
    writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
    writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])


def add_gemma3_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers, config.rope_parameters["full_attention"])
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern(config.layer_types.index("full_attention") + 1)
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])


def add_gemma4_metadata(writer, config):
    # Proportional rotation is told by divisors of the frequencies (rope_freqs), which are infinite where nothing is turned.
    rope = config.rope_parameters
    add_common_metadata(writer, config, config.num_hidden_layers, rope["full_attention"] | {"rope_type": "default"})
    everywhere, windowed = (config.per_layer_config[kind] for kind in ("full_attention", "sliding_attention"))
    in_window = [kind == "sliding_attention" for kind in config.layer_types]
    shared = config.num_kv_shared_layers
    writer.add_head_count_kv([(windowed if i else everywhere).num_key_value_heads for i in in_window])
    writer.add_shared_kv_layers(shared)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern(in_window)
    writer.add_key_length(everywhere.head_dim)
    writer.add_value_length(everywhere.head_dim)
    writer.add_key_length_swa(windowed.head_dim)
    writer.add_value_length_swa(windowed.head_dim)
    writer.add_rope_dimension_count(everywhere.head_dim)
    writer.add_rope_dimension_count_swa(windowed.head_dim)
    writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if config.use_double_wide_mlp:
        wide = 2 * config.intermediate_size
        writer.add_feed_forward_length([config.intermediate_size] * (len(in_window) - shared) + [wide] * shared)


def add_gpt_oss_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_sliding_window(config.sliding_window)
    writer.add_expert_feed_forward_length(config.intermediate_size)


def add_lfm2_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_shortconv_l_cache(config.conv_L_cache)


def add_granite_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def add_granite_hybrid_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_rope_scaling_finetuned(config.position_embedding_type == "rope")
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)
    writer.add_ssm_conv_kernel(config.mamba_d_conv)
    writer.add_ssm_state_size(config.mamba_d_state)
    writer.add_ssm_group_count(config.mamba_n_groups)
    writer.add_ssm_inner_size(config.mamba_expand * config.hidden_size)
    writer.add_ssm_time_step_rank(config.mamba_n_heads)


def add_falcon_h1_metadata(writer, config):
    add_common_metadata(writer, config, config.num_hidden_layers)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_ssm_conv_kernel(config.mamba_d_conv)
    writer.add_ssm_state_size(config.mamba_d_state)
    writer.add_ssm_group_count(config.mamba_n_groups)
    writer.add_ssm_inner_size(config.mamba_d_ssm)
    writer.add_ssm_time_step_rank(config.mamba_n_heads)


def add_nemotron_h_metadata(writer, config):
    kinds, mixture = config.layer_types, "moe" in config.layer_types
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(len(kinds))
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    inner = config.moe_intermediate_size if mixture else config.intermediate_size
    writer.add_feed_forward_length([inner if kind in ("mlp", "moe") else 0 for kind in kinds])
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv([config.num_key_value_heads if kind == "full_attention" else 0 for kind in kinds])
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_scaling_finetuned(False)
    writer.add_ssm_conv_kernel(config.conv_kernel)
    writer.add_ssm_state_size(config.ssm_state_size)
    writer.add_ssm_group_count(config.n_groups)
    writer.add_ssm_inner_size(config.mamba_num_heads * config.mamba_head_dim)
    writer.add_ssm_time_step_rank(config.mamba_num_heads)
    if mixture:
        writer.add_expert_count(config.n_routed_experts)
        writer.add_expert_used_count(config.top_k_experts if hasattr(config, "top_k_experts") else config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_expert_shared_feed_forward_length(config.moe_shared_expert_intermediate_size)
        writer.add_expert_shared_count(config.n_shared_experts)
        writer.add_expert_weights_norm(config.norm_topk_prob)
        writer.add_expert_weights_scale(config.routed_scaling_factor)
        writer.add_expert_group_count(config.n_group)


def add_jamba_metadata(writer, config):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv([config.num_key_value_heads if kind == "attention" else 0 for kind in config.layers_block_type])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_ssm_conv_kernel(config.mamba_d_conv)
    writer.add_ssm_inner_size(config.mamba_expand * config.hidden_size)
    writer.add_ssm_state_size(config.mamba_d_state)
    writer.add_ssm_time_step_rank(config.mamba_dt_rank)
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)


def byte_letters():
    """The 256 characters that stand for bytes in a byte-level BPE vocabulary (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {b: chr(b) for b in printable}, 256
    for b in range(256):
        if b not in letters:
            letters[b], extra = chr(extra), extra + 1
    return [letters[b] for b in range(256)]


def add_tokenizer(writer, vocabulary, pre):
    """A byte-level BPE of 256 bytes, merges of two bytes to fill the vocabulary, and the three control tokens of ChatML at the end."""
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = byte_letters()
    pairs = [(a, b) for a in "etaoinshr" for b in "etaoinshrdlu"]
    merges = pairs[: vocabulary - 256 - len(control)]
    assert len(merges) == vocabulary - 256 - len(control)
    tokens = letters + [a + b for a, b in merges] + control
    kinds = [gguf.TokenType.NORMAL] * (vocabulary - len(control)) + [gguf.TokenType.CONTROL] * len(control)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_eos_token_id(vocabulary - 1)
    writer.add_pad_token_id(vocabulary - 3)
    writer.add_add_bos_token(False)


def add_pieces(writer, vocabulary):
    """SentencePiece's: a token for each byte, a space and letters to fill the vocabulary, and the control tokens of Gemma at the end."""
    control = ["<unk>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    letters = list("\u2581etaoinshrdlucmfwygpbvkxqjz.")[: vocabulary - 256 - len(control)]
    kind = gguf.TokenType
    kinds = [kind.BYTE] * 256 + [kind.NORMAL] * len(letters) + [kind.UNKNOWN] + [kind.CONTROL] * 3
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<0x{byte:02X}>" for byte in range(256)] + letters + control)
    writer.add_token_types(kinds)
    writer.add_token_scores([0.0] * 256 + [-float(i) for i in range(len(letters))] + [0.0] * len(control))
    writer.add_bos_token_id(vocabulary - 3)
    writer.add_eos_token_id(vocabulary - 1)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template("{{ bos_token }}{{ '<start_of_turn>' + role + content | trim + '<end_of_turn>' }}")  # a mark to know it by, not the whole


def write(path, architecture, tensors, add_metadata, vocabulary, pre):
    writer = gguf.GGUFWriter(path, architecture)
    add_metadata(writer)
    if pre is None:
        add_pieces(writer, vocabulary)
    else:
        add_tokenizer(writer, vocabulary, pre)
    for name, array in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(array.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
