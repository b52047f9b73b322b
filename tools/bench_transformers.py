#!/usr/bin/env python3
"""Prefill, decode and a copy of the cache in Hugging Face transformers, on a model of a known shape with random weights: what stands beside ours.

    tools/bench_transformers.py SHAPE [--prompt N]... [--runs N] [--steps N] [--device cuda] [--json FILE]

bf16, eager: no torch.compile, no graphs. Three warm-ups of every shape come first. Where torch or transformers is missing, or too old for the shape,
the JSON says so and nothing is measured.
"""
import argparse
import copy
import importlib.util
import json
import pathlib
import statistics
import sys
import time

# As src/models/synth.cc has them.
SHAPES = {
    "tiny": dict(layers=4, width=64, ffn=128, heads=4, kv=2, dim=32, key_heads=2, value_heads=4, state=32, vocabulary=512, tied=True, base=1e4),
    "qwen3.5-0.8b": dict(layers=24, width=1024, ffn=3584, heads=8, kv=2, dim=256, key_heads=16, value_heads=16, state=128, vocabulary=248320, tied=True,
                         base=1e7),
    "qwen3.5-4b": dict(layers=32, width=2560, ffn=9216, heads=16, kv=4, dim=256, key_heads=16, value_heads=32, state=128, vocabulary=248320, tied=True,
                       base=1e7),
    "qwen3.5-9b": dict(layers=32, width=4096, ffn=12288, heads=16, kv=4, dim=256, key_heads=16, value_heads=32, state=128, vocabulary=248320, tied=False,
                       base=1e7),
}
ATTENTION_EVERY, CONV_KERNEL = 4, 4
WARM_UPS = 3


def percentile(values):
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def figures(name, values):
    return {name: statistics.median(values), f"{name}_p95": percentile(values)}


def build(shape, device):
    import torch
    from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

    rope = shape["dim"] // 4
    config = Qwen3_5TextConfig(
        vocab_size=shape["vocabulary"], hidden_size=shape["width"], intermediate_size=shape["ffn"], num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"], num_key_value_heads=shape["kv"], head_dim=shape["dim"], tie_word_embeddings=shape["tied"],
        full_attention_interval=ATTENTION_EVERY, max_position_embeddings=262144, linear_conv_kernel_dim=CONV_KERNEL,
        linear_key_head_dim=shape["state"], linear_value_head_dim=shape["state"], linear_num_key_heads=shape["key_heads"],
        linear_num_value_heads=shape["value_heads"],
        rope_parameters=dict(rope_type="default", rope_theta=shape["base"], partial_rotary_factor=0.25,
                             mrope_section=[rope // 2 - 2 * (rope // 6), rope // 6, rope // 6]))
    torch.manual_seed(1)
    with torch.device(device):
        model = Qwen3_5ForCausalLM(config)
    return model.to(torch.bfloat16).eval()


def measure(arguments, shape):
    import torch
    import transformers

    model = build(shape, arguments.device)
    settle = torch.cuda.synchronize if arguments.device.startswith("cuda") else lambda: None

    def timed(work):
        settle()
        start = time.perf_counter()
        result = work()
        settle()
        return result, 1000 * (time.perf_counter() - start)

    def step(tokens, cache=None):
        return model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)

    rows = []
    with torch.inference_mode():
        for prompt in arguments.prompt:
            tokens = torch.randint(0, shape["vocabulary"] // 2, (1, prompt), device=arguments.device)
            prefill, decode, copies = [], [], []
            for run in range(-WARM_UPS, arguments.runs):
                out, prefill_ms = timed(lambda: step(tokens))
                _, copy_ms = timed(lambda: copy.deepcopy(out.past_key_values))
                cache, chosen = out.past_key_values, out.logits[:, -1:].argmax(-1)
                steps = []
                for _ in range(arguments.steps):
                    out, step_ms = timed(lambda: step(chosen, cache))
                    cache, chosen = out.past_key_values, out.logits[:, -1:].argmax(-1)
                    steps.append(step_ms)
                if run >= 0:
                    prefill.append(prefill_ms)
                    copies.append(copy_ms)
                    decode += steps
            rows.append(dict(prompt=prompt, runs=arguments.runs, **figures("prefill_ms", prefill), **figures("decode_ms", decode),
                             **figures("copy_ms", copies)))
    fast = [name for name in ("fla", "causal_conv1d", "flash_attn") if importlib.util.find_spec(name)]
    device = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "cpu"
    return dict(device=device, torch=torch.__version__, transformers=transformers.__version__,
                kernels="with " + ", ".join(fast) if fast else "transformers' own PyTorch code for the delta net", prefill=rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--prompt", type=int, action="append", help="512, 2048 and 8192 without it; may be repeated")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=32, help="tokens decoded in each run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.prompt = arguments.prompt or [512, 2048, 8192]
    try:
        result = measure(arguments, SHAPES[arguments.shape])
    except Exception as error:  # whatever another version of them raises
        result = dict(skipped=f"{type(error).__name__}: {error}".splitlines()[0])
        print(f"bench_transformers: not measured: {result['skipped']}", file=sys.stderr)
    result["shape"] = arguments.shape
    text = json.dumps(result, indent=1)
    if arguments.json:
        arguments.json.write_text(text)
    print(text)


main()
