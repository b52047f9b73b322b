"""What an operator sees, and how the server starts and stops."""
import json
import signal
import subprocess
import threading
import time

import httpx

from conftest import AUSTEN, TEXT, Server, greedy, running, until


def test_health_while_loading(program):
    with running(program, "--quiet", wait=False) as server:
        seen = set()
        while 200 not in seen:
            answer = server.get("/health")
            seen.add(answer.status_code)
            if answer.status_code != 200:
                assert answer.status_code == 503 and answer.json()["error"]["code"] == "loading"
                assert server.post("/v1/completions", {"prompt": "x"}).status_code in (200, 503)
        assert server.get("/health").json() == {"status": "ok"}


def test_metrics(server):
    greedy(server, TEXT)
    text = server.get("/metrics").text
    for name in ["reprise_requests_total", "reprise_time_to_first_token_seconds_bucket", "reprise_inter_token_seconds_bucket",
                 "reprise_prompt_tokens_computed_total", 'reprise_prompt_tokens_reused_total{tier="memory"}', "reprise_queue_length",
                 'reprise_capsule_bytes{tier="memory"}', 'reprise_capsule_evictions_total{tier="disk"}']:
        assert name in text, name
    # Every line is a comment or a name with a number.
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rsplit(" ", 1)[1]) >= 0
    count = server.metric("reprise_time_to_first_token_seconds_count")
    greedy(server, TEXT)
    assert server.metric("reprise_time_to_first_token_seconds_count") == count + 1


def test_props(server):
    props = server.get("/props").json()
    assert props["chat_template"] == "chatml" and props["n_ctx"] == 32768 and props["total_slots"] == 8


def test_tokenize(server):
    for text in [TEXT, "", "日本語 🙂 \n", "<|im_start|>"]:
        tokens = server.post("/tokenize", {"content": text}).json()["tokens"]
        assert server.post("/detokenize", {"tokens": tokens}).json()["content"] == text
    assert len(server.post("/tokenize", {"content": "<|im_start|>", "parse_special": True}).json()["tokens"]) == 1
    pieces = server.post("/tokenize", {"content": TEXT, "with_pieces": True}).json()["tokens"]
    assert "".join(p["piece"] for p in pieces) == TEXT
    assert server.post("/detokenize", {"tokens": [-1]}).status_code == 400
    assert server.post("/tokenize", {}).status_code == 400


def test_slots_show_what_runs(server):
    with httpx.stream("POST", server.url + "/v1/completions", json={"prompt": TEXT, "max_tokens": 4000, "stream": True, "logit_bias": {"4093": -100, "4095": -100}}) as answer:
        lines = answer.iter_lines()  # held: dropping it would close the connection
        next(lines)
        busy = [s for s in server.get("/slots").json() if s["is_processing"]]
        assert len(busy) == 1 and busy[0]["phase"] == "decode" and busy[0]["n_prompt_tokens"] > 10
    server.idle()


def test_log_json(program):
    with running(program, "--log-json") as server:
        greedy(server, TEXT)
        server.get("/nothing\u202e/here")
    # A request is logged after it is answered, so not before the end is all of it there.
    lines = [json.loads(line) for line in server.logged().splitlines()]
    assert [line["event"] for line in lines][0] == "ready"
    routes = [line["route"] for line in lines if line["event"] == "request"]
    assert "/v1/completions" in routes and "other" in routes


def test_full_queue_is_429(program):
    with running(program, "--quiet", "--lanes", "1", "--queue", "1") as server:
        body = {"prompt": TEXT, "max_tokens": 3000, "stream": True, "logit_bias": {"4093": -100, "4095": -100}}
        with httpx.stream("POST", server.url + "/v1/completions", json=body) as first:
            lines = first.iter_lines()  # held: dropping it would close the connection
            next(lines)
            waiting = threading.Thread(target=server.post, args=("/v1/completions", {"prompt": TEXT, "max_tokens": 1}))
            waiting.start()
            until(lambda: server.metric("reprise_queue_length") >= 1)
            answer = server.post("/v1/completions", {"prompt": TEXT})
            assert answer.status_code == 429 and answer.headers["retry-after"] and answer.json()["error"]["type"] == "rate_limit_error"
        waiting.join()


def test_sigterm_finishes_what_is_short(program):
    server = Server(program, "--quiet", "--drain", "20")
    results = []
    def ask():
        results.append(server.post("/v1/completions", {"prompt": TEXT, "max_tokens": 300, "temperature": 0}))
    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: results or any(s["is_processing"] for s in server.get("/slots").json()))
    assert server.stop(signal.SIGTERM) == 0
    thread.join()
    assert results[0].status_code == 200 and results[0].json()["usage"]["completion_tokens"] > 0


def test_sigterm_keeps_what_is_long(program, tmp_path):
    long = "".join(f"The {n}th day of the year was as long as any other. " for n in range(250))
    server = Server(program, "--quiet", "--drain", "0", "--store", str(tmp_path / "store"))
    results = []
    thread = threading.Thread(target=lambda: results.append(server.post("/v1/completions", {"prompt": long, "max_tokens": 30000, "logit_bias": {"4093": -100, "4095": -100}})))
    thread.start()
    until(lambda: any(s.get("phase") == "decode" for s in server.get("/slots").json()))
    assert server.stop(signal.SIGTERM) == 0
    thread.join()
    assert results[0].status_code == 503
    with running(program, "--quiet", "--store", str(tmp_path / "store")) as again:
        usage = again.post("/v1/completions", {"prompt": long, "max_tokens": 1}).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]


def play_day(server, stop_after=None):
    """An agent's day: one system prompt, tasks of several turns, going back and trying again. Returns (computed, cached) of every request."""
    system = "You are an agent that reads novels and answers with care. " * 30
    done = []
    def ask(messages):
        answer = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 12, "temperature": 0}).json()
        usage = answer["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        done.append((usage["prompt_tokens"] - cached, cached))
        return answer["choices"][0]["message"]["content"]
    for task in range(3):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": f"Task {task}: find the letter of chapter {task}."}]
        for turn in range(3):
            reply = ask(messages)
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": f"Result {turn} of the tool, with some words in it."}]
        ask(messages[:-1] + [{"role": "user", "content": "That was wrong, try another way."}])
    return done


def test_the_agents_day_with_restart_and_kill(program, tmp_path):
    flags = ["--quiet", "--store", str(tmp_path / "store")]
    server = Server(program, *flags)
    day = play_day(server)
    system = day[0][0]
    assert all(computed < system / 3 for computed, _ in day[1:]), day
    assert server.stop() == 0

    server = Server(program, *flags)
    after_restart = play_day(server)
    assert all(computed < system / 3 for computed, _ in after_restart), after_restart
    time.sleep(2)  # what is written in the background
    server.stop(signal.SIGKILL)

    server = Server(program, *flags)
    after_kill = play_day(server)
    assert all(computed < system / 3 for computed, _ in after_kill), after_kill
    assert server.stop() == 0


def test_unknown_chat_template_says_so(program):
    answer = subprocess.run([program, "serve", "-m", str(AUSTEN), "--port", "0", "--chat-template", "nonsense"], capture_output=True, text=True)
    assert answer.returncode == 2 and "chatml" in answer.stderr
    answer = subprocess.run([program, "serve", "-m", str(AUSTEN), "--port", "0", "--chat-template", "llama3"], capture_output=True, text=True)
    assert answer.returncode == 1 and "llama3" in answer.stderr


def test_plain_template(program):
    with running(program, "--quiet", "--chat-template", "plain") as server:
        answer = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 8}).json()
        assert answer["choices"][0]["message"]["content"]
