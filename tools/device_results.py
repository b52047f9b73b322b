#!/usr/bin/env python3
"""The section of bench/RESULTS.md on a GPU, from what tools/gpu_check.sh left behind.

    tools/device_results.py DIR     prints the section; DIR holds the JSON files that gpu_check.sh brought

tools/bench_results.py writes it into the page, from build-bench/device/. Where there is no file there is no figure.
"""
import json
import pathlib
import sys

TITLE = "## On a GPU"
HEAD = TITLE + "\n\n"
NONE = HEAD + """Not measured: no GPU could be had yet. `tools/gpu_check.sh all` makes every table that belongs here, and `tools/bench_results.py --report` writes them down.

"""


def number(value):
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def pair(row, key):
    """Median and 95th percentile."""
    return f"{number(row[key])} | {number(row[key + '_p95'])}"


def percent(share):
    return f"{100 * share:.0f} %"


def table(heads, rows):
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in [heads, ["---"] * len(heads), *rows]) + "\n"


def time_to_first_token(name, result):
    text = f"### {name}: {result['device']}\n\n"
    text += (f"Weights {result['weight_bytes'] / 1e9:.2f} GB, a block {result['block_bytes']:,} bytes, a row {result['row_bytes']:,}; steps of at most "
             f"{result['chunk']} tokens. Milliseconds, device settled before each clock; median and 95th percentile.\n\n")
    text += table(["prefix", "suffix", "cold", "p95", "restored", "p95", "times", "suffix alone", "first decode", "runs"],
                  [[f"{row['prefix']:,}", row["suffix"], pair(row, "cold_ms"), pair(row, "restored_ms"), f"{row['times']:.1f}", number(row["suffix_ms"]),
                    number(row["first_decode_ms"]), row["runs"]] for row in result["ttft"]])
    if "left_out" not in result:
        text += "Not whole: the program was ended before the rest was measured.\n\n"
    if "capsules" not in result:
        return text
    text += ("A snapshot moves no bytes of state, a restore and a fork the addresses of their extents to the device with the step that follows; a branch that "
             "finds its last extent shared copies the rows of it that it sees. Microseconds.\n\n")
    rows = []
    for verb in ("snapshot", "restore", "fork"):
        for row in result["capsules"]:
            moved = {"snapshot": 0, "restore": row["address_bytes"], "fork": row["address_bytes"] + row["fork_copied_bytes"]}[verb]
            rows.append([verb, f"{row['prefix']:,}", pair(row, f"{verb}_us"), f"{moved:,}"])
    text += table(["", "prefix", "median", "p95", "bytes moved"], rows)
    if "decode" not in result:
        return text
    text += f"The device reads {result['read_gb_s']:,.0f} GB/s and multiplies {result['byte_gmac_s']:,.0f} G int8 MAC/s, measured in the same run.\n\n"
    text += table(["branches", "ms a step", "p95", "tokens/s", "weights read, GB/s", "of the device's reads"],
                  [[row["lanes"], pair(row, "ms_a_step"), number(row["tokens_s"]), number(row["weight_gb_s"]), percent(row["of_read"])]
                   for row in result["decode"]])
    if "left_out" not in result:
        return text
    left = result["left_out"]
    whole, rows_only = left["same_of_whole"], left["same_of_rows_only"]
    after = f"a restore of keys and values alone left the line after {rows_only} tokens" if rows_only < left["tokens"] else \
        "a restore of keys and values alone did not leave the line, which is not as it should be"
    text += f"Of {left['tokens']} tokens after a restore at {left['prefix']:,}, {whole} were those of another whole restore; {after}.\n\n"
    return text


def spill(name, result):
    text = f"### {name}: state that the device has no room for: {result['device']}\n\n"
    text += (f"{result['steps']} steps of decoding, each kept as a capsule: {result['moved_out']} blocks and extents moved out of the device's memory meanwhile "
             f"({result['block_bytes']:,} bytes a block), {result['moved_back']} back for the last row.\n\n")
    return text + table(["", "ms", "p95"],
                        [["a step, the last two kept", pair(result, "few_kept_ms")], ["a step, all kept", pair(result, "all_kept_ms")],
                         ["restore and a step, on the device", number(result["restored_here_ms"]), ""],
                         ["restore and a step, from the host's memory", number(result["restored_from_host_ms"]), ""]])


def transformers(name, result):
    if "skipped" in result:
        return f"### {name} beside Hugging Face transformers\n\nNot measured: {result['skipped']}.\n\n"
    text = f"### {name} beside Hugging Face transformers: {result['device']}\n\n"
    text += (f"torch {result['torch']}, transformers {result['transformers']}, bf16, eager, {result['kernels']}; random weights of the same shape. Medians and "
             "95th percentiles, milliseconds.\n\n")
    rows = [["prefill", f"{row['prompt']:,}", pair(row, "prefill_ms")] for row in result["prefill"]]
    rows += [["decode, a token", f"{row['prompt']:,}", pair(row, "decode_ms")] for row in result["prefill"]]
    rows += [["copy of the cache", f"{row['prompt']:,}", pair(row, "copy_ms")] for row in result["prefill"]]
    return text + table(["", "prompt", "median", "p95"], rows)


def program_bench(name, result):
    machine = result["machine"]
    rows = [[row["name"] + (f" x{row['branches']}" if "branches" in row else ""), f"{row['prompt']:,}" if row.get("prompt") else "",
             f"{number(row['median'])} {row['unit']}", f"{number(row['min'])} to {number(row['max'])}"] for row in result["results"]]
    return f"### {name}, `reprise bench`: {machine['backend']}\n\n" + table(["", "prompt", "median", "min to max"], rows)


def steps(name, result):
    overlap = "" if result["overlap"] else ", launches one after another"
    if result["shared"] >= 0:
        overlap += f", {result['shared']} % of every multiprocessor's first memory shared by threads"
    text = f"### {name}: where a step's time goes: {result['device']}\n\n"
    text += (f"After {result['position']:,} positions{overlap}; the mean of up to {result['replays']} replays, the least of {result['turns']} such. A kernel's time is what the step is "
             "shorter by without its launches: launches overlap, so these do not add up to the whole.\n\n")
    rows = []
    for shape in result["shapes"]:
        rows.append([f"**{shape['lanes']} x {shape['rows']}**", "whole step", shape["launches"], f"{shape['ms']:.3f}", ""])
        for kernel in shape["kernels"]:
            rate = f"{kernel['weight_bytes'] / kernel['ms'] / 1e6:,.0f}" if kernel["weight_bytes"] and kernel["ms"] > 0 else ""
            rows.append(["", kernel["name"], kernel["launches"], f"{kernel['ms']:.3f}", rate])
    return text + table(["lanes x rows", "kernel", "launches", "ms", "weights, GB/s"], rows)


def whole_of(text):
    """What a file says that was cut off, as when time ran out: up to the last object that is whole, with everything closed that is open there."""
    for end in range(len(text), 0, -1):
        if text[end - 1] != "}":
            continue
        open_ones, quoted, escaped = [], False, False
        for character in text[:end]:
            if quoted:
                quoted = escaped or character != '"'
                escaped = not escaped and character == "\\"
            elif character == '"':
                quoted = True
            elif character in "{[":
                open_ones.append("}" if character == "{" else "]")
            elif character in "}]":
                open_ones.pop()
        try:
            return json.loads(text[:end] + "".join(reversed(open_ones)))
        except json.JSONDecodeError:
            continue
    return None


KINDS = [("ttft", time_to_first_token), ("steps", steps), ("spill", spill), ("bench", program_bench), ("transformers", transformers)]


def section(folder):
    text = ""
    for kind, write in KINDS:
        for file in sorted(pathlib.Path(folder).glob(f"{kind}-*.json")):
            name = file.stem.removeprefix(kind + "-")
            try:
                text += write(name, whole_of(file.read_text()))
            except (KeyError, TypeError):
                text += f"### {name}\n\nNot measured: {file.name} is not whole.\n\n"
    return HEAD + text if text else NONE


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(section(sys.argv[1]), end="")
