"""Models for the tests: the embedded one, and small ones with random weights."""

import pathlib
import subprocess

import pytest
import reprise

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. "


def pytest_addoption(parser):
    parser.addoption("--program", default=str(ROOT / "build" / "reprise"), help="the program that writes the small models")


@pytest.fixture(scope="session")
def tiny(request, tmp_path_factory):
    """A hybrid with every kind of state, an MTP block among them; its tokenizer knows a chat format."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    subprocess.run([request.config.getoption("--program"), "synth", "tiny", str(path), "--mtp"], check=True, stdout=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="module")
def model():
    return reprise.Model(context=2048)


@pytest.fixture
def session(model):
    with model.session() as session:
        yield session
