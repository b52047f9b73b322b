"""Malformed HTTP and JSON: an error in form, and nothing else disturbed."""
import contextlib
import json
import random
import socket

import httpx
import pytest

from conftest import PATIENCE, TEXT, greedy, raw, running, until

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
GOOD = b'{"prompt": "x", "max_tokens": 1}'


@pytest.fixture(scope="module")
def server(program):
    # A short context, since a fuzzed request may well ask for as many tokens as there is room for.
    with running(program, "--quiet", "--context", "512") as one:
        yield one


def status(answer):
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


@pytest.fixture(autouse=True)
def undisturbed(server):
    """Whatever a test sends, what others are told stays the same, and nothing stays behind."""
    before = greedy(server, TEXT)
    yield
    server.idle()
    assert greedy(server, TEXT) == before


@pytest.mark.parametrize("data, expected", [
    (b"\r\n\r\n", 400),
    (b"GET\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
    (b"GET / FTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET http://x/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: localhost\n\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: yes\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400),
    (b"GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100000 + b"\r\n\r\n", 431),
    (b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
    (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    (HEAD + b"Content-Length: 1e3\r\n\r\n", 400),
    (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    (HEAD + b"Content-Length: 999999999999999\r\n\r\n", 413),
    (HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello", 400),
    (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 400),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n", 413),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n", 400),
    (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 415),
    (HEAD + b"Expect: the unexpected\r\n\r\n", 417),
])
def test_malformed_http(server, data, expected):
    answer = raw(server, data)
    assert status(answer) == expected
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_chunked_and_pipelined_requests_are_understood(server):
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x;note\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (len(GOOD), GOOD)
    plain = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
    answer = raw(server, chunked + plain)
    assert answer.count(b"HTTP/1.1 200 OK") == 2


def test_expect_continue(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 Continue")
        sock.sendall(GOOD)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_body_shorter_than_it_says(server):
    assert raw(server, HEAD + b"Content-Length: 1000\r\n\r\nabc", half_close=True) == b""


def test_a_half_sent_head_holds_nothing_up(server):
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET / HT")
        assert server.get("/health").status_code == 200


@pytest.mark.parametrize("body", [
    b"", b"null", b"[]", b"5", b'"x"', b"{", b"{}", b'{"prompt": }', b"\xff\xfe", b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}',
    b"[" * 100000, b'{"a":' * 100000, b'{"prompt": [' + b"[" * 70 + b"]" * 70 + b"]}",
    b'{"prompt": 1}', b'{"prompt": {}}', b'{"prompt": [[], 1]}', b'{"prompt": [1.5]}', b'{"prompt": [-1]}', b'{"prompt": [99999999999999999999]}',
    b'{"prompt": [1e400]}', b'{"prompt": "x", "max_tokens": 1e400}', b'{"prompt": "x", "max_tokens": 99999999999999999999}',
    b'{"prompt": "x", "max_tokens": "5"}', b'{"prompt": "x", "temperature": NaN}', b'{"prompt": "x", "temperature": Infinity}',
    b'{"prompt": "x", "n": 1000000000}', b'{"prompt": "x", "seed": 1e300}', b'{"prompt": "x", "logprobs": -1}', b'{"prompt": "x", "logprobs": 99}',
    b'{"prompt": "x", "stop": {}}', b'{"prompt": "x", "stop": [null]}', b'{"prompt": "x", "stop": ["' + b"a" * 2000 + b'"]}',
    b'{"prompt": "x", "logit_bias": []}', b'{"prompt": "x", "logit_bias": {"-1": 5}}', b'{"prompt": "x", "logit_bias": {"99999999999": 5}}',
    b'{"prompt": "x", "stream_options": 5}', b'{"prompt": "x", "capsule": -1}', b'{"prompt": "x", "capsule": {}}', b'{"prompt": "x", "session": 5}',
    b'{"prompt": [' + b'"x",' * 1000 + b'"x"]}', b'{"prompt": "x", "prompt": 5}',
])
def test_malformed_json(server, body):
    for route in ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"]:
        answer = httpx.post(server.url + route, content=body, timeout=PATIENCE)
        assert 400 <= answer.status_code < 500, (route, answer.status_code)
        assert answer.json()["error"]["message"]


def test_huge_but_well_formed(server):
    answer = server.post("/v1/completions", {"prompt": "x" * (17 << 20)})
    assert answer.status_code == 413
    answer = server.post("/v1/completions", {"prompt": "word " * 60000})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"


SEEDS = [
    ("/v1/completions", {"prompt": "A letter", "max_tokens": 2, "n": 2, "stop": ["x"], "logit_bias": {"5": 1}, "logprobs": 2, "seed": 4}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "max_tokens": 2, "stream": True,
                              "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 1, "temperature": 0.5}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "system": "x", "stop_sequences": ["y"], "stream": True}),
    ("/tokenize", {"content": "Hi", "add_special": True, "with_pieces": True}),
    ("/detokenize", {"tokens": [1, 2, 3]}),
    ("/v1/capsules", {"request": "x", "choice": 1, "name": "y"}),
    ("/v1/sessions/s/rollback", {"tokens": 1}),
]


def mutated(body, random):
    """The same with one value somewhere replaced, or bytes of it changed."""
    values = [None, True, -1, 0, 2**31, 2**63, 1e308, -0.0, "", "x" * 1000, [], {}, [[]], {"a": {}}, "\u0000", "<|im_end|>"]
    text = json.dumps(body)
    if random.random() < 0.5:
        data = bytearray(text.encode())
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(data))
            data[at:at + random.randint(0, 3)] = bytes(random.randrange(256) for _ in range(random.randint(0, 3)))
        return bytes(data)
    copy = json.loads(text)
    path = copy
    while True:
        key = random.choice(list(path) if isinstance(path, dict) else list(range(len(path))))
        if isinstance(path[key], (dict, list)) and path[key] and random.random() < 0.7:
            path = path[key]
            continue
        path[key] = random.choice(values)
        return json.dumps(copy).encode()


def test_fuzzed_bodies(server):
    chance = random.Random(1)
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        for _ in range(400):
            route, body = chance.choice(SEEDS)
            data = mutated(body, chance)
            answer = client.post(route, content=data)
            assert answer.status_code < 500, (route, data, answer.text)
            if answer.status_code >= 400:
                assert answer.json()["error"]["message"], (route, data)


def test_fuzzed_bytes(server):
    chance = random.Random(2)
    plain = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
    for _ in range(150):
        data = bytearray(plain)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at:at + chance.randint(0, 4)] = bytes(chance.randrange(256) for _ in range(chance.randint(0, 4)))
        answer = raw(server, bytes(data), half_close=True, timeout=5)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


@contextlib.contextmanager
def stalled_reader(server):
    body = json.dumps({"prompt": TEXT, "max_tokens": 30000, "stream": True, "logprobs": 20, "logit_bias": {"4093": -100, "4095": -100}}).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        yield


def test_a_reader_that_stalls_stalls_no_one(program):
    # Who waited for it would wait for an hour.
    with running(program, "--quiet", "--stalled", "3600") as server, stalled_reader(server):
        assert greedy(server, TEXT)


def test_a_reader_that_stalls_is_dropped(program):
    with running(program, "--quiet", "--stalled", "1") as server:
        with stalled_reader(server):
            server.idle()  # while the socket is still open
        assert server.metric("reprise_requests_cancelled_total") + server.metric("reprise_slow_readers_total") >= 1


def test_slow_senders_hold_no_more_than_their_connection(program):
    with running(program, "--quiet", "--connections", "8") as server:
        socks = []

        def full():
            # One more each time: what asked whether the server is up may still have held a place when the first of these came, and the
            # server lets idle ones go.
            socks.append(socket.create_connection(("127.0.0.1", server.port)))
            return status(raw(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) == 503

        # Until all places are taken, and then until they are let go of: when that is, a busy machine decides.
        until(full)
        for sock in socks:
            sock.close()
        until(lambda: server.get("/health").status_code == 200)
