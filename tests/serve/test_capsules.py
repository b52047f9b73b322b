"""The verbs on capsules, over HTTP."""
import httpx

from conftest import PATIENCE, TEXT, running

ENDLESS = {"4093": -100, "4095": -100}


def complete(server, prompt=None, tokens=8, **kwargs):
    body = {"max_tokens": tokens, "temperature": 0, "keep": True, **kwargs}
    if prompt is not None:
        body["prompt"] = prompt
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chat(server, content, tokens=8, **kwargs):
    answer = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, "temperature": 0, "keep": True, **kwargs})
    assert answer.status_code == 200, answer.text
    return answer.json()


def show(server, capsule):
    answer = server.get(f"/v1/capsules/{capsule}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_answer_ends_in_a_capsule(server):
    answer = complete(server, TEXT)
    capsule = show(server, answer["reprise"]["capsules"][0])
    assert capsule["text"] == TEXT + answer["choices"][0]["text"]
    assert capsule["id"] in [c["id"] for c in server.get("/v1/capsules").json()["data"]]


def test_tree(server):
    complete(server, TEXT + "He was")
    complete(server, TEXT + "She was")
    nodes = server.get("/v1/capsules/tree").json()["nodes"]
    seen = set()
    for node in nodes:
        assert node["parent"] is None or node["parent"] in seen, "parents come first"
        seen.add(node["id"])
        assert set(node["tiers"]) <= {"memory", "disk"} and node["tokens"] > 0 and "text" in node


def test_going_on_from_a_capsule_is_as_if_uninterrupted(server):
    whole = complete(server, TEXT, 24)["choices"][0]["text"]
    first = complete(server, TEXT, 10)
    rest = complete(server, None, 14, capsule=first["reprise"]["capsules"][0])
    assert first["choices"][0]["text"] + rest["choices"][0]["text"] == whole
    assert rest["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    # Sampled too: the generator is a part of what was kept.
    sampling = {"temperature": 1, "seed": 11}
    whole = complete(server, TEXT, 24, **sampling)["choices"][0]["text"]
    first = complete(server, TEXT, 10, **sampling)
    body = {"max_tokens": 14, "capsule": first["reprise"]["capsules"][0]}
    rest = server.post("/v1/completions", body).json()
    assert first["choices"][0]["text"] + rest["choices"][0]["text"] == whole


def test_a_prompt_after_a_capsule(server):
    first = complete(server, TEXT, 10)
    both = complete(server, " And so", 6, capsule=first["reprise"]["capsules"][0])
    plain = complete(server, first and server.get(f"/v1/capsules/{first['reprise']['capsules'][0]}").json()["text"] + " And so", 6)
    assert both["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"]
    assert both["choices"][0]["text"] == plain["choices"][0]["text"]


def test_a_session_is_a_conversation_kept_by_the_server(server):
    one = chat(server, "Who is Mr. Darcy?", session="talk")
    two = chat(server, "And Mr. Bingley?", session="talk")
    whole = server.post("/v1/chat/completions", {"temperature": 0, "max_tokens": 8, "messages": [
        {"role": "user", "content": "Who is Mr. Darcy?"},
        {"role": "assistant", "content": one["choices"][0]["message"]["content"]},
        {"role": "user", "content": "And Mr. Bingley?"}]}).json()
    assert two["usage"]["prompt_tokens_details"]["cached_tokens"] >= one["usage"]["prompt_tokens"]
    assert abs(two["usage"]["prompt_tokens"] - whole["usage"]["prompt_tokens"]) <= 2
    messages = show(server, "talk")["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2
    assert messages[2]["content"] == "And Mr. Bingley?"
    assert server.get("/v1/capsules/tree").json()["sessions"]["talk"] == two["reprise"]["capsules"][0]


def test_rollback(server):
    chat(server, "The first question.", session="back")
    before = show(server, "back")["tokens"]
    chat(server, "The second question.", session="back")
    there = server.post("/v1/sessions/back/rollback", {"turns": 1})
    assert there.status_code == 200, there.text
    assert show(server, "back")["messages"][0]["content"] == "The first question."
    assert len([m for m in show(server, "back")["messages"] if m["role"] == "user"]) == 1
    assert show(server, "back")["tokens"] - before in (0, 1, 2, 3), "the end of the answer's turn, and no more"
    here = show(server, "back")["tokens"]
    assert server.post("/v1/sessions/back/rollback", {"tokens": 3}).json()["tokens"] == here - 3
    assert server.post("/v1/sessions/back/rollback", {"position": 5}).json()["tokens"] == 5
    for body, status in [({"tokens": 100000}, 400), ({"turns": 9}, 400), ({}, 400), ({"tokens": 1, "turns": 1}, 400), ({"tokens": -1}, 400)]:
        assert server.post("/v1/sessions/back/rollback", body).status_code == status, body
    assert show(server, "back")["tokens"] == 5, "what was refused changed nothing"
    assert server.post("/v1/sessions/never/rollback", {"tokens": 1}).status_code == 404


def test_restore_and_fork(server):
    answer = chat(server, "A place to come back to.", session="trunk")
    trunk = answer["reprise"]["capsules"][0]
    chat(server, "Away from it.", session="trunk")
    there = server.post(f"/v1/capsules/{trunk}/restore", {"session": "trunk"})
    assert there.status_code == 201, there.text
    assert show(server, "trunk")["tokens"] == show(server, trunk)["tokens"]
    forks = server.post(f"/v1/capsules/{trunk}/fork", {"sessions": ["left", "right"]}).json()["data"]
    assert [f["session"] for f in forks] == ["left", "right"]
    chat(server, "Left!", session="left")
    chat(server, "Right!", session="right")
    assert show(server, "left")["messages"][2]["content"] == "Left!"
    assert show(server, "right")["messages"][2]["content"] == "Right!"
    assert len(server.post(f"/v1/capsules/{trunk}/fork", {"n": 3}).json()["data"]) == 3


def test_take_from_a_running_request(server):
    body = {"prompt": TEXT, "max_tokens": 3000, "temperature": 0, "stream": True, "logit_bias": ENDLESS}
    with httpx.stream("POST", server.url + "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()  # held: dropping it would close the connection
        line = next(line for line in lines if line.startswith("data: "))
        request = httpx.Response(200, content=line[6:]).json()["id"]
        taken = server.post("/v1/capsules", {"request": request, "name": "midway", "pinned": True})
        assert taken.status_code == 201, taken.text
        assert taken.json()["name"] == "midway" and taken.json()["pinned"]
    server.idle()
    assert show(server, "midway")["text"].startswith(TEXT)
    finished = complete(server, TEXT)
    taken = server.post("/v1/capsules", {"request": finished["id"], "name": "afterwards"})
    assert taken.status_code == 201 and show(server, "afterwards")["text"] == TEXT + finished["choices"][0]["text"]
    assert server.post("/v1/capsules", {"request": "cmpl-unknown"}).status_code == 404


def test_pin_name_and_remove(server):
    capsule = complete(server, TEXT + "Pin this one.")["reprise"]["capsules"][0]
    url = f"{server.url}/v1/capsules/{capsule}"
    assert httpx.patch(url, json={"name": "best", "pinned": True}).json()["name"] == "best"
    assert show(server, "best")["id"] == capsule and show(server, "best")["pinned"]
    assert httpx.patch(url, json={"name": None, "pinned": False}).json()["name"] is None
    assert server.get("/v1/capsules/best").status_code == 404
    for name in ["a/b", "12", "x" * 200, 5, "ä"]:
        assert httpx.patch(url, json={"name": name}).status_code == 400, name
    assert httpx.delete(url).json()["deleted"]
    assert httpx.delete(url).status_code == 404


def test_export_and_import(program, server):
    answer = complete(server, TEXT, 12)
    capsule = answer["reprise"]["capsules"][0]
    data = server.get(f"/v1/capsules/{capsule}/export").content
    whole = complete(server, TEXT, 24)["choices"][0]["text"]
    with running(program, "--quiet", "--max-capsule", "1") as other:
        taken = httpx.post(other.url + "/v1/capsules/import?name=moved", content=data)
        assert taken.status_code == 201, taken.text
        assert show(other, "moved")["text"] == TEXT + answer["choices"][0]["text"]
        rest = complete(other, None, 12, capsule="moved")["choices"][0]["text"]
        assert answer["choices"][0]["text"] + rest == whole
        # Hostile bytes: refused in words, and nothing else disturbed.
        for bad in [b"", b"x", data[:-1], data + b"x", data[:5000] + b"\x00\x01" + data[5002:], bytes(len(data)), b"\xff" * 4096]:
            refused = httpx.post(other.url + "/v1/capsules/import", content=bad)
            assert refused.status_code in (400, 422), (refused.status_code, refused.text)
            assert refused.json()["error"]["message"]
        assert httpx.post(other.url + "/v1/capsules/import", content=bytes((1 << 20) + 1)).status_code == 413
        assert complete(other, TEXT, 24)["choices"][0]["text"] == whole


def test_a_client_that_leaves_keeps_what_was_read(server):
    long = "".join(f"The {n}th letter came in the morning of the day. " for n in range(400))
    cancelled = server.metric("reprise_requests_cancelled_total")
    body = {"prompt": long, "max_tokens": 1, "stream": True, "return_progress": True}
    with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=PATIENCE) as answer:
        next(line for line in answer.iter_lines() if "prompt_progress" in line)
    server.idle()
    assert server.metric("reprise_requests_cancelled_total") == cancelled + 1
    usage = complete(server, long, 1)["usage"]
    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


def test_nothing_without_a_store_route(server):
    for method, route in [("POST", "/v1/capsules/tree"), ("PUT", "/v1/capsules"), ("GET", "/v1/capsules/1/2/3"), ("GET", "/v1/sessions/x"), ("POST", "/v1/capsules/1/unknown")]:
        assert httpx.request(method, server.url + route, content=b"{}").status_code in (404, 405), route
