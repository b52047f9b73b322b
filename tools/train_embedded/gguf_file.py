"""The model as a GGUF file: how its tensors are called there, writing it, and reading it back into the network."""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch

from .network import Network
from .shape import CONTROL_TOKENS, END_OF_TEXT, SHAPE, TURN_END

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

ATTENTION = {
    "attn_q.weight": "mix.q.weight",
    "attn_k.weight": "mix.k.weight",
    "attn_v.weight": "mix.v.weight",
    "attn_output.weight": "mix.out.weight",
    "attn_q_norm.weight": "mix.q_norm.weight",
    "attn_k_norm.weight": "mix.k_norm.weight",
}
DELTA_NET = {
    "attn_qkv.weight": "mix.qkv.weight",
    "attn_gate.weight": "mix.gate.weight",
    "ssm_alpha.weight": "mix.alpha.weight",
    "ssm_beta.weight": "mix.beta.weight",
    "ssm_conv1d.weight": "mix.conv",
    "ssm_a": "mix.log_rate",
    "ssm_dt.bias": "mix.dt",
    "ssm_norm.weight": "mix.norm.weight",
    "ssm_out.weight": "mix.out.weight",
}
EVERY_BLOCK = {
    "attn_norm.weight": "attn_norm.weight",
    "post_attention_norm.weight": "ffn_norm.weight",
    "ffn_gate.weight": "ffn_gate.weight",
    "ffn_up.weight": "ffn_up.weight",
    "ffn_down.weight": "ffn_down.weight",
}
MTP = {
    "nextn.eh_proj.weight": "mtp.join.weight",
    "nextn.enorm.weight": "mtp.embed_norm.weight",
    "nextn.hnorm.weight": "mtp.hidden_norm.weight",
    "nextn.shared_head_norm.weight": "mtp.head_norm.weight",
}


def names():
    """GGUF name -> parameter of the network. The MTP block counts as the last block."""
    found = {"token_embd.weight": "embed.weight", "output_norm.weight": "norm.weight"}
    for i in range(SHAPE.layers + 1):
        is_mtp = i == SHAPE.layers
        mix = ATTENTION if is_mtp or SHAPE.attends(i) else DELTA_NET
        home = "mtp.block" if is_mtp else f"blocks.{i}"
        found |= {f"blk.{i}.{ours}": f"{home}.{theirs}" for ours, theirs in (EVERY_BLOCK | mix).items()}
    return found | {f"blk.{SHAPE.layers}.{ours}": theirs for ours, theirs in MTP.items()}


def is_matrix(name):
    """What gets quantised: everything that is multiplied as a matrix. Factors, rates and filter taps stay fp32."""
    return not name.endswith(("norm.weight", "ssm_conv1d.weight", "ssm_a", "ssm_dt.bias"))


def add_metadata(writer, tokenizer):
    s = SHAPE
    writer.add_name("Reprise Austen")
    writer.add_description("A small hybrid language model trained on the six novels of Jane Austen")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(s.context)
    writer.add_block_count(s.layers + 1)
    writer.add_uint32("qwen35.nextn_predict_layers", 1)
    writer.add_embedding_length(s.width)
    writer.add_feed_forward_length(s.ffn)
    writer.add_vocab_size(s.vocab)
    writer.add_head_count(s.heads)
    writer.add_head_count_kv(s.kv_heads)
    writer.add_key_length(s.head_dim)
    writer.add_value_length(s.head_dim)
    writer.add_layer_norm_rms_eps(s.norm_eps)
    writer.add_rope_freq_base(s.rope_base)
    writer.add_rope_dimension_count(s.rope_dims)
    writer.add_rope_dimension_sections([3, 3, 2, 0])
    writer.add_ssm_conv_kernel(s.conv_kernel)
    writer.add_ssm_state_size(s.state_dim)
    writer.add_ssm_group_count(s.key_heads)
    writer.add_ssm_time_step_rank(s.value_heads)
    writer.add_ssm_inner_size(s.value_rows)
    writer.add_uint32("qwen35.full_attention_interval", s.attention_every)

    model = tokenizer["model"]
    ids = model["vocab"] | {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    tokens = sorted(ids, key=ids.get)
    assert [ids[t] for t in tokens] == list(range(s.vocab))
    kinds = [gguf.TokenType.CONTROL if t in CONTROL_TOKENS else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen35")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    # Two ways to stop: a text ends, a turn ends.
    writer.add_eos_token_id(ids[END_OF_TEXT])
    writer.add_eot_token_id(ids[TURN_END])
    writer.add_pad_token_id(ids[END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write(path: Path, weights, tokenizer):
    writer = gguf.GGUFWriter(path, "qwen35")
    add_metadata(writer, tokenizer)
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, parameter in names().items():
        data = weights[parameter].float().numpy()
        if name.endswith("ssm_a"):
            data = -np.exp(data)
        if is_matrix(name):
            writer.add_tensor(name, gguf.quants.quantize(data, q8), raw_dtype=q8)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path) -> Network:
    network, wanted = Network(SHAPE), names()
    state = {}
    for tensor in gguf.GGUFReader(path).tensors:
        data = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        state[wanted.pop(tensor.name)] = (-data).log() if tensor.name.endswith("ssm_a") else data
    assert not wanted, f"missing from {path}: {sorted(wanted)}"
    network.load_state_dict(state)
    return network.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    saved = torch.load(options.work / "checkpoint.pt")
    write(options.out, saved["network"], json.loads((options.work / "tokenizer.json").read_text("utf-8")))
    read(options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes, after {saved['step']} steps")


if __name__ == "__main__":
    main()
