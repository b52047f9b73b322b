"""The running server against docs/openapi.yaml: what the document says may be asked is answered as it says, and nothing is a 500."""
import hypothesis
import pytest
import schemathesis
import yaml
from schemathesis.checks import CHECKS

from conftest import PATIENCE, ROOT, running

DOCUMENT = ROOT / "docs" / "openapi.yaml"


def small():
    """The document, with answers kept short and vocabularies those of the embedded model."""
    document = yaml.safe_load(DOCUMENT.read_text())

    def walk(node):
        if isinstance(node, dict):
            for name, value in node.items():
                if name in ("max_tokens", "n") and isinstance(value, dict) and "maximum" in value:
                    value["maximum"] = min(value["maximum"], 3)
                if name == "items" and isinstance(value, dict) and value.get("type") == "integer" and "maximum" in value:
                    value["maximum"] = 4095
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    for name in ("ChatRequest", "CompletionRequest"):
        document["components"]["schemas"][name]["required"].append("max_tokens")
    return document


@pytest.fixture(scope="module")
def server(program):
    # A short context, since some of what is generated asks for as many tokens as there is room for.
    with running(program, "--quiet", "--context", "128") as one:
        yield one


@pytest.fixture(scope="module")
def api(server):
    schema = schemathesis.openapi.from_dict(small())
    schema.config.update(base_url=server.url)
    return schema


def test_as_documented(api, request):
    if not request.config.getoption("--long"):
        pytest.skip("drawing requests from the document takes minutes: --long")
    wanted = [check for check in CHECKS.get_all() if check.__name__ in (
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")]
    assert len(wanted) == 4
    for operation in (result.ok() for result in api.get_all_operations()):
        @hypothesis.settings(max_examples=10, deadline=None, derandomize=True, database=None,
                             suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(checks=wanted, timeout=PATIENCE)
        check()


def test_every_route_is_documented(server):
    """And the other way round: nothing is served that the document does not have."""
    paths = set(yaml.safe_load(DOCUMENT.read_text())["paths"])
    source = (ROOT / "src" / "serve" / "server.cc").read_text()
    for route in ["/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/messages/count_tokens", "/props", "/tokenize",
                  "/detokenize", "/slots", "/health", "/metrics", "/v1/capsules"]:
        assert f'"{route}"' in source and route in paths
