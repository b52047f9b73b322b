"""Many clients at once. A short form by default; --long for a minute with 200."""
import random
import threading
import time

import httpx

from conftest import PATIENCE, TEXT, running

PROMPTS = [TEXT + f"And the {n}th of them said" for n in range(12)]
ENDLESS = {"4093": -100, "4095": -100}


def ask(client, prompt, tokens):
    return client.post("/v1/completions", json={"prompt": prompt, "max_tokens": tokens, "temperature": 0}).json()["choices"][0]["text"]


def test_load(program, request):
    long = request.config.getoption("--long")
    clients, seconds = (200, 60) if long else (32, 8)
    with running(program, "--quiet", "--queue", "1000", "--connections", "600") as server:
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            alone = {prompt: ask(client, prompt, 24) for prompt in PROMPTS}
        server.idle()
        descriptors = server.descriptors()
        counts = {"whole": 0, "streamed": 0, "left": 0}
        wrong = []
        end = time.monotonic() + seconds
        lock = threading.Lock()

        def work(seed):
            chance = random.Random(seed)
            while time.monotonic() < end:
                prompt = chance.choice(PROMPTS)
                kind = chance.choice(["whole", "streamed", "left"])
                try:
                    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
                        if kind == "whole":
                            text = ask(client, prompt, 24)
                        elif kind == "streamed":
                            body = {"prompt": prompt, "max_tokens": 24, "temperature": 0, "stream": True}
                            text = ""
                            with client.stream("POST", "/v1/completions", json=body) as answer:
                                for line in answer.iter_lines():
                                    if line.startswith("data: {"):
                                        import json
                                        for choice in json.loads(line[6:])["choices"]:
                                            text += choice["text"]
                        else:
                            body = {"prompt": prompt * chance.randint(1, 20), "max_tokens": 4000, "stream": True, "logit_bias": ENDLESS}
                            with client.stream("POST", "/v1/completions", json=body) as answer:
                                for _, _ in zip(range(chance.randint(0, 5)), answer.iter_lines()):
                                    pass
                            text = None
                    with lock:
                        counts[kind] += 1
                        if text is not None and text != alone[prompt]:
                            wrong.append((prompt, text))
                except Exception as error:  # noqa: BLE001
                    with lock:
                        wrong.append((kind, repr(error)))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
        memory = []
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(server.memory())
            time.sleep(0.5)
        for thread in threads:
            thread.join()
        server.idle()
        print(f"\n{clients} clients, {seconds} s: {counts}, memory {memory[len(memory) // 2] >> 10} to {memory[-1] >> 10} MB")
        assert not wrong, wrong[:3]
        assert min(counts.values()) > 0
        for _ in range(100):
            if server.descriptors() <= descriptors + 1:
                break
            time.sleep(0.05)
        assert server.descriptors() <= descriptors + 1, "a descriptor was left behind"
        assert memory[-1] < memory[len(memory) // 2] * 1.25 + (32 << 10), "memory grows"
        assert server.metric("reprise_lines") == 0 and server.metric("reprise_queue_length") == 0
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            assert {prompt: ask(client, prompt, 24) for prompt in PROMPTS} == alone


def test_two_hundred_connections_at_once(program):
    with running(program, "--quiet", "--queue", "400") as server:
        results = []
        barrier = threading.Barrier(200)

        def work():
            with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
                barrier.wait()
                results.append(client.post("/v1/completions", json={"prompt": "One", "max_tokens": 2, "temperature": 0}))

        threads = [threading.Thread(target=work) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [r.status_code for r in results] == [200] * 200
        assert len({r.json()["choices"][0]["text"] for r in results}) == 1


def test_a_running_stream_keeps_its_pace(program):
    """While a long prompt is read for someone else."""
    long = "".join(f"The {n}th letter came in the morning of that day. " for n in range(300))
    with running(program, "--quiet") as server:
        gaps = []
        reading = threading.Event()
        read = threading.Event()

        def read_long():
            reading.wait()
            server.post("/v1/completions", {"prompt": long, "max_tokens": 1})
            read.set()

        thread = threading.Thread(target=read_long)
        thread.start()
        body = {"prompt": TEXT, "max_tokens": 20000, "stream": True, "logit_bias": ENDLESS}
        with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=PATIENCE) as answer:
            last = None
            count = 0
            for line in answer.iter_lines():
                if not line.startswith("data: "):
                    continue
                now = time.monotonic()
                if last is not None:
                    gaps.append((now - last, reading.is_set()))
                last = now
                count += 1
                if count == 100:
                    reading.set()
                if read.is_set():
                    break
        thread.join()
        before = sorted(gap for gap, during in gaps if not during)
        during = sorted(gap for gap, during in gaps if during)
        print(f"\ninter-token alone {before[len(before) // 2] * 1000:.1f} ms; during a foreign prefill median "
              f"{during[len(during) // 2] * 1000:.1f}, 99th {during[len(during) * 99 // 100] * 1000:.1f}, {len(during)} tokens")
        assert len(during) >= 4000 // 256, "a token between any two chunks of the other's prompt"
