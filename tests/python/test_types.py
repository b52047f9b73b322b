"""What editors and checkers are told, and that the examples keep to it and run."""

import pathlib
import subprocess
import sys

import pytest
import reprise
from conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples(example):
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and done.stdout and not done.stderr, done.stdout + done.stderr


def test_types(tmp_path):
    # From elsewhere, so that only the installed package answers.
    package = pathlib.Path(reprise.__file__).parent
    assert (package / "py.typed").exists() and (package / "_reprise.pyi").exists()
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), *map(str, EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    stubs = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "-p", "reprise"], capture_output=True, text=True, cwd=tmp_path,
                           check=False)  # fmt: skip
    assert stubs.returncode == 0, stubs.stdout + stubs.stderr


def test_everything_public_says_what_it_is():
    for name in reprise.__all__:
        thing = getattr(reprise, name)
        if not isinstance(thing, str):
            assert thing.__doc__, name
