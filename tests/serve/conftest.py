"""A running server for each test file, and clients for it."""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.parse

import anthropic
import httpx
import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
AUSTEN = ROOT / "models" / "reprise-austen.gguf"
PATIENCE = 600  # seconds: no test is about speed, and a sanitizer on a busy machine takes its time
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. "


def pytest_addoption(parser):
    parser.addoption("--program", default=str(ROOT / "build" / "reprise"), help="the program under test")
    parser.addoption("--long", action="store_true", help="the load test for a minute, with 200 clients; requests drawn from the OpenAPI document")


class Server:
    def __init__(self, program, *flags, wait=True, model=AUSTEN):
        self.process = subprocess.Popen(
            [program, "serve", "-m", str(model), "--port", "0", *([] if "-t" in flags else ["-t", "2"]), *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("Reprise serves on "):
            raise RuntimeError(line + self.process.stderr.read())
        self.url = line.split()[-1]
        self.port = urllib.parse.urlsplit(self.url).port
        if wait:
            self.wait()

    def wait(self):
        for _ in range(1200):
            if self.process.poll() is not None:
                raise RuntimeError(self.process.stderr.read())
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + "/health").status_code == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError("the server did not come up")

    def logged(self):
        """All that it has logged, once it has ended."""
        return self.process.stderr.read()

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return code

    def openai(self, key="none"):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=PATIENCE)

    def anthropic(self, key="none"):
        return anthropic.Anthropic(base_url=self.url, api_key=key, max_retries=0, timeout=PATIENCE)

    def post(self, path, body=None, **kwargs):
        return httpx.post(self.url + path, json=body, timeout=PATIENCE, **kwargs)

    def get(self, path, **kwargs):
        return httpx.get(self.url + path, timeout=PATIENCE, **kwargs)

    def metric(self, name):
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise KeyError(name)

    def idle(self):
        """Waits until nothing runs."""
        until(lambda: not any(slot["is_processing"] for slot in self.get("/slots").json()))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.fixture(scope="session")
def program(request):
    return request.config.getoption("--program")


@contextlib.contextmanager
def running(program, *flags, **kwargs):
    server = Server(program, *flags, **kwargs)
    try:
        yield server
    finally:
        code = server.stop()
    assert code == 0, f"the server ended with {code}"


@pytest.fixture(scope="module")
def server(program):
    with running(program, "--quiet") as one:
        yield one


@pytest.fixture
def client(server):
    return server.openai()


def until(true, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def events(response):
    """The data of each event of a stream, [DONE] included."""
    return [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]


def greedy(server, prompt, tokens=16):
    return server.post("/v1/completions", {"prompt": prompt, "max_tokens": tokens, "temperature": 0}).json()["choices"][0]["text"]


def raw(server, data, half_close=False, timeout=10):
    """Sends bytes as they are and returns what comes back until the other end closes."""
    import socket
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            while piece := sock.recv(65536):
                answer += piece
    return answer
