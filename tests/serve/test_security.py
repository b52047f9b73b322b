"""Who may ask, and from where."""
import os
import subprocess

import httpx
import pytest

from conftest import AUSTEN, TEXT, greedy, raw, running

ROUTES = ["/v1/models", "/metrics", "/props", "/slots", "/v1/capsules", "/v1/capsules/tree"]


@pytest.fixture(scope="module")
def keyed(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("# the keys\nfirst-key-of-all\nsecond-key-of-all\n")
    path.chmod(0o600)
    with running(program, "--quiet", "--api-key-file", str(path)) as server:
        yield server


def test_a_public_address_needs_keys(program):
    answer = subprocess.run([program, "serve", "-m", str(AUSTEN), "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True)
    assert answer.returncode == 1 and "--api-key-file" in answer.stderr


def test_a_key_file_that_others_read_is_refused(program, tmp_path):
    path = tmp_path / "keys"
    path.write_text("some-key-or-other\n")
    path.chmod(0o644)
    answer = subprocess.run([program, "serve", "-m", str(AUSTEN), "--port", "0", "--api-key-file", str(path)], capture_output=True, text=True)
    assert answer.returncode == 1 and "chmod 600" in answer.stderr


def test_every_route_but_health_is_guarded(keyed):
    assert keyed.get("/health").status_code == 200
    for route in ROUTES:
        assert keyed.get(route).status_code == 401, route
        assert keyed.get(route, headers={"authorization": "Bearer wrong-key-altogether"}).status_code == 401
        assert keyed.get(route, headers={"authorization": "Bearer first-key-of-all"}).status_code == 200, route
        assert keyed.get(route, headers={"x-api-key": "second-key-of-all"}).status_code == 200
    for route in ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize", "/v1/capsules/import"]:
        assert keyed.post(route, {}).status_code == 401, route
    assert keyed.get("/nothing").status_code == 401
    assert keyed.get("/v1/models").json()["error"]["type"] == "authentication_error"
    assert keyed.post("/v1/messages", {}).json()["error"]["type"] == "authentication_error"


def test_the_official_clients_send_their_keys(keyed):
    assert keyed.openai("first-key-of-all").models.list().data
    assert keyed.anthropic("second-key-of-all").messages.create(model="any", max_tokens=2, messages=[{"role": "user", "content": "x"}])


def test_a_body_without_a_key_is_bounded(keyed):
    answer = keyed.post("/v1/completions", {"prompt": "x" * (1 << 17)})
    assert answer.status_code == 413


def test_keys_do_not_see_each_other(keyed):
    prompt = "A secret that only the first one knows, and that is long enough to be kept. " * 4
    first = {"authorization": "Bearer first-key-of-all"}
    second = {"authorization": "Bearer second-key-of-all"}
    def usage(headers):
        body = {"prompt": prompt, "max_tokens": 2, "temperature": 0, "session": "mine" if headers is first else None}
        return keyed.post("/v1/completions", body, headers=headers).json()
    usage(first)
    mine = keyed.get("/v1/capsules", headers=first).json()["data"]
    assert mine
    assert usage(second)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert keyed.get("/v1/capsules/mine", headers=second).status_code == 404
    for capsule in mine:
        for method, route in [("GET", ""), ("GET", "/export"), ("DELETE", ""), ("POST", "/fork")]:
            answer = httpx.request(method, f"{keyed.url}/v1/capsules/{capsule['id']}{route}", headers=second)
            assert answer.status_code == 404, (method, route)


def test_dns_rebinding_is_refused(server):
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "[::1].evil.example"]:
        assert server.get("/v1/models", headers={"host": host}).status_code == 403, host
    for host in ["localhost", "127.0.0.1:1", "app.localhost:99", "[::1]:8080"]:
        assert server.get("/v1/models", headers={"host": host}).status_code == 200, host


def test_pages_of_other_sites_are_refused(server):
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"]:
        answer = server.get("/v1/models", headers={"origin": origin})
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    answer = server.get("/v1/models", headers={"origin": "http://localhost:3000"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    answer = httpx.options(server.url + "/v1/chat/completions", headers={"origin": "http://127.0.0.1:5173"})
    assert answer.status_code == 204 and "authorization" in answer.headers["access-control-allow-headers"]


def test_names_never_reach_the_file_system(program, tmp_path):
    store = tmp_path / "store"
    with running(program, "--quiet", "--store", str(store)) as server:
        for name in ["../../../tmp/x", "/etc/passwd", "a/b", "..", "x\u0000y", "名", "a" * 200, "17"]:
            answer = server.post("/v1/completions", {"prompt": TEXT, "max_tokens": 1, "session": name})
            assert answer.status_code == 400, name
            assert server.post("/v1/capsules/import?name=" + "..%2F..%2Fx", None).status_code == 400
            for route in ["/v1/capsules/..%2f..%2fetc%2fpasswd", "/v1/capsules/%2e%2e/export", "/v1/capsules/../../../etc/passwd"]:
                assert raw(server, f"GET {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()).startswith(b"HTTP/1.1 404")
    assert {p.name for p in tmp_path.iterdir()} == {"store"}
    for folder, _, files in os.walk(store):
        assert os.stat(folder).st_mode & 0o077 == 0, folder


def test_the_page_loads_nothing_from_elsewhere(server):
    page = server.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text and "https://" not in page.text and "@import" not in page.text
