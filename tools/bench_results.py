#!/usr/bin/env python3
"""Runs the benchmarks that bench/RESULTS.md quotes, and writes it: tables from the runs, and the plots beside it.

    tools/bench_results.py                    every suite that is not kept in build-bench/ yet, with llama.cpp in turns; about an hour and a half
    tools/bench_results.py --only q8_0-512    one suite anew; the others keep the figures of their last run, each under its own date
    tools/bench_results.py --only store       the capsule store's suites anew
    tools/bench_results.py --report           writes RESULTS.md from what build-bench/ keeps; runs nothing

Where build-bench/ has nothing of a suite, as in a fresh clone, the page keeps the table that it has.

What tools/gpu_check.sh brings from a machine with a GPU belongs in build-bench/device/.

Run it on a machine that does nothing else: the load average is part of each table.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys

import device_results
from device_results import number

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "build-bench"
PAGE = ROOT / "bench" / "RESULTS.md"
SHAPE = "qwen3.5-0.8b"


def suite(name, title, model, prompt, runs, branches="1,8", peer=True, plot=False, draft=0, kv=None):
    return dict(name=name, title=title, model=model, prompt=prompt, runs=runs, branches=branches, peer=peer, plot=plot, draft=draft, kv=kv)


# A model is a known name, or a synthetic one: "synth:SHAPE:TYPE".
SUITES = [
    suite("embedded", "The embedded model, 512 to 8,192 tokens", None, "512,1024,2048,4096,8192", 5, peer=False, plot=True, draft=3),
    *(suite(f"{kind}-{prompt}", f"{SHAPE} shape, {kind.upper()}, random weights, {prompt:,} tokens", f"synth:{SHAPE}:{kind}", str(prompt), runs)
      for kind in ("q8_0", "q4_0", "q4_k_m") for prompt, runs in ((512, 11), (2048, 7), (8192, 5))),
    suite("q8_0-8192-kv-q8_0", f"{SHAPE} shape, Q8_0, random weights, 8,192 tokens, keys and values in Q8_0 on both sides", f"synth:{SHAPE}:q8_0", "8192", 5, kv="q8_0"),
    *(suite(f"smollm2-{prompt}", f"SmolLM2-135M-Instruct, Q4_1, {prompt:,} tokens", "smollm2-135m", str(prompt), 5, draft=draft)
      for prompt, draft in ((512, 3), (2048, 0))),
    *(suite(f"{shape}-{prompt}", f"{shape} shape ({what}), Q8_0, random weights, {prompt:,} tokens", f"synth:{shape}:q8_0", str(prompt), 5)
      for shape, what in (("lfm2-350m", "short convolutions"), ("granite-4.0-h-350m", "Mamba-2"), ("falcon-h1-0.5b", "Mamba-2 beside attention"),
                          ("jamba-reasoning-3b", "Mamba-1, attention"),
                          ("gemma-3-1b", "attention, mostly over a window of 512"),
                          ("gemma-4-e2b", "attention, mostly over a window of 512; 20 of 35 blocks share keys and values"))
      for prompt in (512, 2048)),
    *(suite(f"{shape}-{prompt}", f"{shape} shape ({what}), {kind.upper()}, random weights, {prompt:,} tokens", f"synth:{shape}:{kind}", str(prompt), runs)
      for shape, what, kind in (("lfm2-8b-a1b", "32 experts", "q4_0"), ("granite-4.0-h-tiny", "Mamba-2, 64 experts", "q4_k_m"))
      for prompt, runs in ((512, 5), (2048, 3))),
    # 20 GB: beside the peer's it would not fit 24 GB of memory.
    suite("qwen3.5-35b-a3b-2048", "qwen3.5-35b-a3b shape (256 experts), Q4_0, random weights, 2,048 tokens", "synth:qwen3.5-35b-a3b:q4_0", "2048", 3, branches="1,4", peer=False),
]

SERVER, SERVER_TYPE = "server", "q8_0"
SERVER_TITLE = f"## The server: an agent's day over HTTP, {SHAPE} shape, {SERVER_TYPE.upper()}"
# The capsule store: what reuse_bench measures on a model, and store_bench without one.
STORE_SUITES = [
    dict(name="store-embedded", title="The embedded model", model="models/reprise-austen.gguf", rounds=3),
    dict(name=f"store-{SHAPE}", title=f"{SHAPE} shape, Q8_0, random weights", model=f"synth:{SHAPE}:q8_0", rounds=1),
]
LOOK_UP, LOOK_UP_TITLE = "store-lookup", "### Looking up a prompt of 8,000 tokens"

HEAD = """# Results

Made by `make bench` (tools/bench_results.py). Each table is one run: Reprise and llama.cpp in turns on the same file, each restore after another prompt
has dirtied the state. A ratio above 1 means that Reprise is better. "Of limit" is what a decode's weights and a prefill's products come to, of the memory
bandwidth and the int8 multiplications a second that the same run measured on the same threads; a model that fits a cache can pass 100 %.

"""


def model_file(program, model):
    if model is None or not model.startswith("synth:"):
        if model is not None and not (ROOT / model).exists():
            subprocess.run([program, "pull", model], check=True, stdout=subprocess.DEVNULL)
        return model
    _, shape, kind = model.split(":")
    path = KEPT / f"{shape}-{kind}.gguf"
    if not path.exists():
        subprocess.run([program, "synth", shape, str(path), "--type", kind], check=True)
    return str(path)


def run(one, program, python):
    command = [program, "bench", "--prompt", one["prompt"], "--branches", one["branches"], "--runs", str(one["runs"])]
    if one["kv"]:
        command += ["--kv", one["kv"]]
    if one["draft"]:
        command += ["--draft", str(one["draft"])]
    shown = ["reprise", *command[1:]]
    file = model_file(program, one["model"])
    if file is not None:
        command += ["-m", file]
        shown += ["-m", pathlib.Path(file).name]
    if one["peer"]:
        command += ["--peer", "llama.cpp"]
        shown += ["--peer", "llama.cpp"]
        if python:
            command += ["--peer-python", python]
    if one["plot"]:
        command += ["--plot", str(ROOT / "bench" / f"ttft-{one['name']}.svg")]
    print(f"{one['name']}: {' '.join(shown)}", flush=True)
    kept = KEPT / f"{one['name']}.json"
    subprocess.run([*command, "--json", str(kept)], check=True)
    result = json.loads(kept.read_text())
    result.update(command=" ".join(shown), date=datetime.date.today().isoformat())
    kept.write_text(json.dumps(result, indent=1))


def machine():
    """What a benchmark that does not say it itself ran on."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].split("\n")
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    cpu = facts.get("model name", "unknown processor")
    if "cpu family" in facts:
        cpu += f" (family {facts['cpu family']}, model {facts['model']})"
    return dict(cpu=cpu, cores=len(os.sched_getaffinity(0)))


def run_store(name, command, shown):
    print(f"{name}: {' '.join(shown)}", flush=True)
    before = os.getloadavg()[0]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    result.update(command=" ".join(shown), date=datetime.date.today().isoformat(), machine=machine(), load=[before, os.getloadavg()[0]])
    (KEPT / f"{name}.json").write_text(json.dumps(result, indent=1))


def run_store_suite(name, program):
    programs = pathlib.Path(program).parent
    if name == LOOK_UP:
        options = ["--benchmark_filter=FindDeepest", "--benchmark_repetitions=5", "--benchmark_format=json"]
        return run_store(name, [str(programs / "store_bench"), *options], ["store_bench", *options])
    one = next(suite for suite in STORE_SUITES if suite["name"] == name)
    file = model_file(program, one["model"])
    return run_store(name, [str(programs / "reuse_bench"), str(ROOT / file), str(one["rounds"])],
                     ["reuse_bench", pathlib.Path(file).name, str(one["rounds"])])


STORE_HEAD = """## The capsule store

*Writing one capsule*: how much longer 32 tokens take to choose while a block and the rows since the last are written than while nothing is, in pairs of segments of
one session; the median's 95 % interval is a bootstrap's, and "processor" is the choosing thread's own time. *Overhead*: that cost over the time of as many tokens as
the policy leaves between two blocks of a line at the least. *Written*: turns of 64 tokens asked and 64 chosen after a context of 512, without a pause, and
with time after each turn to write all that the store will. *Restores* are of the whole conversation by a session that holds nothing of it: kept in memory; on disk with
its files in the page cache; on disk after `fsync` and `posix_fadvise(DONTNEED)`, of which `mincore` says how much stayed (a host's cache behind a virtual disk stays as it is).

"""


def store_row(text, figure, unit=None, scale=1):
    cells = [number(scale * figure[key]) for key in ("median", "min", "max")]
    return f"| {text} | {cells[0]} {unit or figure['unit']} | {cells[1]} to {cells[2]} | {figure['runs']} |\n"


def store_report(page):
    text, missing = "", []
    for one in STORE_SUITES:
        kept = KEPT / f"{one['name']}.json"
        title = f"### {one['title']}"
        if not kept.exists():
            text += page.get(title, "")
            missing += [] if title in page else [one["name"]]
            continue
        result = json.loads(kept.read_text())
        figures = {figure["name"]: figure for figure in result["results"]}
        at = figures["restore_memory"]
        text += f"{title}\n\n```\n{result['command']}\n```\n\n" + store_origin(result)
        text += (f"A block is {result['recurrent_bytes']:,} bytes, a row {result['row_bytes']:,}; restored are {at['tokens']:,} tokens, "
                 f"{at['bytes'] / 1e6:.1f} MB.\n\n| | median | min to max | runs |\n|---|---|---|---|\n")
        apart = figures["tokens_between_blocks"]["median"]
        for name, what in (("decode_overhead", f"decode, overhead, a block each {apart} tokens"), ("decode_overhead_processor", "the same, processor"),
                           ("write_cost", "writing one capsule, cost"), ("write_cost_processor", "the same, processor")):
            text += store_row(f"{what} (95 %: {number(figures[name]['low'])} to {number(figures[name]['high'])})", figures[name])
        if figures["tokens_between_blocks"]["unfinished"] > 0:
            text += f"| segments that ended before their writing did | {figures['tokens_between_blocks']['unfinished']} | | |\n"
        for which, how in (("", "without a pause"), ("_with_pauses", "with pauses")):
            text += store_row(f"rows written for each new token, {how}", figures["rows_written_a_token" + which])
            text += store_row(f"bytes written for each new token, {how}, blocks and all", figures["disk_bytes_a_token" + which])
        text += store_row("restore from memory", figures["restore_memory"], "µs", 1000)
        text += store_row("restore from the page cache", figures["restore_page_cache"])
        text += store_row(f"restore from disk ({figures['restore_disk']['still_cached']:.0%} of the pages still cached)".replace("%", " %"),
                          figures["restore_disk"])
        text += "\n"
    kept = KEPT / f"{LOOK_UP}.json"
    if kept.exists():
        result = json.loads(kept.read_text())
        text += f"{LOOK_UP_TITLE}\n\n```\n{result['command']}\n```\n\n" + store_origin(result)
        text += "| capsules | median | min to max | runs |\n|---|---|---|---|\n"
        runs = {}
        for row in result["benchmarks"]:
            if row["run_type"] == "iteration":
                runs.setdefault(int(row["run_name"].split("/")[1]), []).append(row["real_time"])
        for count, times in runs.items():
            text += store_row(f"{count:,}", dict(median=statistics.median(times), min=min(times), max=max(times), runs=len(times)), "µs")
        text += "\n"
    elif LOOK_UP_TITLE in page:
        text += page[LOOK_UP_TITLE]
    else:
        missing.append(LOOK_UP)
    return (STORE_HEAD + text if text else ""), missing


def store_origin(result):
    backend = f", {result['backend']}" if "backend" in result else ""
    load = "load average {:.1f} before, {:.1f} after".format(*result["load"]) if "load" in result else "the machine did nothing else"
    return f"{result['date']}; {result['machine']['cpu']}, {result['machine']['cores']} cores{backend}; {load}.\n\n"


def suite_title(one):
    return f"## {one['title']}"


def table(one, result):
    machine = result["machine"]
    before, after = machine["load_average"]
    runs = max(row["runs"] for row in result["results"])
    text = f"{suite_title(one)}\n\n```\n{result['command']}\n```\n\n"
    text += (f"{result['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['backend']}; reads {machine['read_gb_s']} GB/s, multiplies "
             f"{machine['int8_gmac_s']:.0f} G int8 MAC/s; load average {before:.1f} before, {after:.1f} after; {runs} runs.\n\n")
    peer = any("peer" in row for row in result["results"])
    text += "| | prompt | median | min to max | bytes copied | of limit |" + (" llama.cpp | ratio |" if peer else "") + "\n"
    text += "|---|---|---|---|---|---|" + ("---|---|" if peer else "") + "\n"
    for row in result["results"]:
        name = row["name"] + (f" x{row['branches']}" if "branches" in row else "")
        if "drafts" in row:
            name = f"drafts: {row['drafts']}, temperature {row['temperature']:g}"
            if "acceptance" in row:
                name += f" ({row['acceptance']:.0%} come true, {row['tokens_a_step']:.2f} tokens a step)".replace("%", " %")
        cells = [name, f"{row['prompt']:,}" if row["prompt"] else "", f"{number(row['median'])} {row['unit']}",
                 f"{number(row['min'])} to {number(row['max'])}", f"{row['bytes_copied']:,}" if "bytes_copied" in row else "",
                 f"{row['of_limit']:.0%}".replace("%", " %") if "of_limit" in row else ""]
        if peer:
            cells += [number(row["peer"]["median"]), f"{row['ratio']:.2f}"] if "peer" in row else ["", ""]
        text += "| " + " | ".join(cells) + " |\n"
    if one["plot"]:
        text += f"\n![Time to the first token](ttft-{one['name']}.svg)\n"
    return text + "\n"


def run_server(program):
    peer = ROOT / ".venv" / "bin" / "llama-server"
    command = [ROOT / "tools" / "bench_server.py", "-m", model_file(program, f"synth:{SHAPE}:{SERVER_TYPE}"), "--program", program, "--json", KEPT / f"{SERVER}.json"]
    subprocess.run([str(part) for part in [*command, *(["--peer", peer] if peer.exists() else [])]], check=True)


def server_table(result):
    servers = result["servers"]
    names = list(servers)
    before, after = result["load_average"]
    text = (f"{SERVER_TITLE}\n\n```\ntools/bench_server.py -m {result['model']} "
            f"--peer .venv/bin/llama-server\n```\n\n"
            f"{result['date']}; llama.cpp b11434, {result['threads']} threads, one client, one run; load average {before:.1f} before, {after:.1f} after. The same prompts, "
            "as token ids, to both servers with their own defaults (tools/bench_server.py says what they are); times are the client's, to the first "
            "token.\n\n| request | prompt |" + "".join(f" {name}: computed | first token |" for name in names) + "\n|---|---|" + "---|---|" * len(names) + "\n")
    for rows in zip(*servers.values()):
        text += f"| {rows[0]['what']} | {rows[0]['prompt']:,} |" + "".join(f" {row['computed']:,} | {number(row['ttft_ms'] / 1000)} s |" for row in rows) + "\n"
    text += f"| **in all** | {sum(row['prompt'] for row in servers[names[0]]):,} |"
    for rows in servers.values():
        text += f" **{sum(row['computed'] for row in rows):,}** | **{number(sum(row['ttft_ms'] for row in rows) / 1000)} s** |"
    return text + "\n\n"


def sections():
    """The page as it is: the text of each section, by its title, and of each part of one by its own."""
    page, title, part = {}, "", ""
    for line in PAGE.read_text().splitlines(keepends=True) if PAGE.exists() else []:
        if line.startswith("## "):
            title = part = line.strip()
        elif line.startswith("### "):
            part = line.strip()
        for name in {title, part}:
            page[name] = page.get(name, "") + line
    return page


def report():
    page = sections()
    text = HEAD
    missing = []
    for one in SUITES:
        kept = KEPT / f"{one['name']}.json"
        if kept.exists():
            text += table(one, json.loads(kept.read_text()))
        elif suite_title(one) in page:
            text += page[suite_title(one)]
        else:
            missing.append(one["name"])
    kept = KEPT / f"{SERVER}.json"
    if kept.exists():
        text += server_table(json.loads(kept.read_text()))
    elif SERVER_TITLE in page:
        text += page[SERVER_TITLE]
    else:
        missing.append(SERVER)
    store_text, store_missing = store_report(page)
    device = device_results.section(KEPT / "device")
    text += store_text + (device if device != device_results.NONE else page.get(device_results.TITLE, device))
    missing += store_missing
    notes = ROOT / "bench" / "notes.md"
    if notes.exists():
        text += notes.read_text()
    if missing:
        text += f"\nNot run for this page: {', '.join(missing)}.\n"
    PAGE.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="SUITE", help="run this suite, even if it is kept; may be repeated")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--list", action="store_true", help="name the suites")
    parser.add_argument("--peer-python", help="the Python that has llama-cpp-python (that of .venv)")
    parser.add_argument("--program", default=str(ROOT / "build" / "reprise"))
    arguments = parser.parse_args()
    store_names = [one["name"] for one in STORE_SUITES] + [LOOK_UP]
    names = [one["name"] for one in SUITES] + [SERVER] + store_names
    if arguments.only and "store" in arguments.only:
        arguments.only = [name for name in arguments.only if name != "store"] + store_names
    for name in arguments.only or []:
        if name not in names:
            sys.exit(f"bench_results: there is no suite '{name}'; there are {', '.join(names)}")
    if arguments.list:
        print("\n".join(names))
        return
    KEPT.mkdir(exist_ok=True)
    if not arguments.report:
        for one in SUITES:
            if one["name"] in (arguments.only or []) or (not arguments.only and not (KEPT / f"{one['name']}.json").exists()):
                run(one, arguments.program, arguments.peer_python)
        if SERVER in (arguments.only or []) or (not arguments.only and not (KEPT / f"{SERVER}.json").exists()):
            run_server(arguments.program)
        for name in store_names:
            if name in (arguments.only or []) or (not arguments.only and not (KEPT / f"{name}.json").exists()):
                run_store_suite(name, arguments.program)
    report()


main()
