#!/usr/bin/env python3
"""An agent's day over HTTP: the same requests to `reprise serve` and to llama.cpp's server, and what each had to compute for them.

    tools/bench_server.py -m MODEL.gguf --peer .venv/bin/llama-server [--scale 1.0] [--threads 2] [--json FILE]

One client asks, one request at a time: six turns, one again, the turn before last edited, four sub-agents from the whole context, back to the main
line, a new chat on the same system message, an edit near the beginning, a long question cancelled while it is read and asked again, and after
`kill -9` and a restart the same context once more. Prompts are token ids and answers are forced with logit_bias, so that both servers are asked the
same tokens whatever they compute. Both run with their own defaults but for threads and context; Reprise with --store, llama.cpp's server has nothing
that corresponds. Times are those of the client: from sending the request to the first token.
"""
import argparse
import contextlib
import datetime
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

CONTEXT = 16384
REPLY = 48
OPENING = [11, 12, 13, 14, 15, 16]  # of an answer, as a chat format would open one


def words(count, seed):
    return [(i * i * 31 + i * 7 + seed * 7919) % 4000 + 20 for i in range(count)]


def reply(turn):
    return [5000 + turn] * REPLY


class Day:
    """The prompts, at `scale` of a whole day's lengths."""

    def __init__(self, scale):
        self.system = words(int(2400 * scale), 1)
        self.scale = scale

    def question(self, turn):
        return words(int((200 + 40 * turn) * self.scale), 10 + turn)

    def context(self, turns, last):
        prompt = list(self.system)
        for turn in range(turns):
            prompt += self.question(turn) + OPENING + reply(turn)
        return prompt + last + OPENING

    def requests(self):
        """(what it is, the prompt, the token that answers, whether it is cancelled while it is read; None: kill -9 and a new start)"""
        for turn in range(6):
            yield f"turn {turn + 1}", self.context(turn, self.question(turn)), 5000 + turn, False
        yield "the last turn again", self.context(5, self.question(5)), 5005, False
        edited = self.question(4)
        yield "the turn before last, edited", self.context(4, edited[:len(edited) // 2] + words(int(60 * self.scale), 30)), 5100, False
        for agent in range(4):
            yield f"sub-agent {agent + 1}", self.context(6, words(int(300 * self.scale), 40 + agent)), 5200 + agent, False
        yield "back to the main line", self.context(6, self.question(6)), 5006, False
        yield "a new chat, the same system message", self.system + words(int(150 * self.scale), 60) + OPENING, 5300, False
        deep = self.context(6, self.question(6))
        deep[len(self.system) + len(self.question(0)) // 2] += 1
        yield "an edit near the beginning", deep, 5400, False
        long = self.context(7, words(int(2400 * self.scale), 70))
        yield "a long question, cancelled", long, 5500, True
        yield "asked again", long, 5500, False
        yield None
        yield "the same after kill -9", long, 5500, False


class Server:
    def __init__(self, name, command):
        self.name, self.command = name, command
        self.start()

    def start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began = time.monotonic()
        while time.monotonic() < began + 300:
            if self.process.poll() is not None:
                sys.exit(f"bench_server: {self.name} ended with {self.process.returncode}: {' '.join(self.command)}")
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.1)
        sys.exit(f"bench_server: {self.name} does not come up")

    def ask(self, prompt, answer, cancel_after=None):
        """Returns (ms to the first token, the timings of the last chunk); after a cancellation (None, None)."""
        body = json.dumps({"prompt": prompt, "max_tokens": REPLY, "temperature": 0, "stream": True, "logit_bias": {str(answer): 100}})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        began = time.monotonic()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        if cancel_after is not None:
            time.sleep(cancel_after)
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
            return None, None
        response = connection.getresponse()
        if response.status != 200:
            sys.exit(f"bench_server: {self.name} answers {response.status}: {response.read(500)}")
        first, timings = None, None
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if first is None and any(choice.get("text") for choice in chunk.get("choices", [])):
                first = (time.monotonic() - began) * 1000
            timings = chunk.get("timings", timings)
        connection.close()
        return first, timings

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


def play(server, day, cancel_after, pause):
    rows = []
    for request in day.requests():
        if request is None:
            time.sleep(pause)  # what is written behind is written by then; the same for both
            server.kill()
            server.start()
            continue
        what, prompt, answer, cancelled = request
        first, timings = server.ask(prompt, answer, cancel_after if cancelled else None)
        if cancelled:
            time.sleep(1)
            continue
        rows.append(dict(what=what, prompt=len(prompt), computed=timings["prompt_n"], ttft_ms=first))
        print(f"  {server.name:10} {what:36} {len(prompt):6} tokens, {timings['prompt_n']:6} computed, first token after {first:8.0f} ms", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--program", default=str(pathlib.Path(__file__).resolve().parent.parent / "build" / "reprise"))
    parser.add_argument("--peer", help="llama.cpp's server (tools/install_peer.sh server)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the lengths of prompts (1.0: 2,400 tokens of system message)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cancel-after", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--pause", type=float, default=5.0, metavar="SECONDS", help="between the last answer and kill -9")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()

    day = Day(arguments.scale)
    result = dict(date=datetime.date.today().isoformat(), model=pathlib.Path(arguments.model).name, threads=arguments.threads,
                  scale=arguments.scale, load_average=[os.getloadavg()[0]], servers={})
    common = ["-m", arguments.model, "-t", str(arguments.threads)]
    with tempfile.TemporaryDirectory(prefix="bench-server-") as store:
        servers = [("Reprise", [arguments.program, "serve", *common, "--context", str(CONTEXT), "--quiet", "--store", store])]
        if arguments.peer:
            servers.append(("llama.cpp", [arguments.peer, *common, "-c", str(CONTEXT)]))
        for name, command in servers:
            server = Server(name, command)
            try:
                result["servers"][name] = play(server, day, arguments.cancel_after, arguments.pause)
            finally:
                server.stop()
    result["load_average"].append(os.getloadavg()[0])
    for name, rows in result["servers"].items():
        print(f"{name}: {sum(row['computed'] for row in rows):,} of {sum(row['prompt'] for row in rows):,} tokens computed, "
              f"{sum(row['ttft_ms'] for row in rows) / 1000:.1f} s to first tokens in all")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1))


main()
