"""Whatever it is given, it raises; it never crashes and never hangs."""

import random

import numpy as np
import pytest
import reprise
from conftest import TEXT

THINGS = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**200, -(2**70), 0.5, float("nan"), float("inf"), "", "x", "\ud800", "a\0b", b"", b"\xff\0", bytearray(b"abc"), [], [1], [-1],
    [2**40], ["x"], [None], (), {}, {"a": 1}, set(), object(), int, len, np.zeros(0), np.zeros((3, 3)), np.array([1, 2]), np.array(["x"]), np.array([1.5]),
    np.array([2**62]), np.arange(6)[::2], np.zeros(2, np.int32), np.array(5), range(3), iter([1, 2]), reprise.Sampling(), reprise.Layout(),
]  # fmt: skip


def targets():
    model = reprise.Model(context=256, lanes=3, capsules=8, store=reprise.StoreOptions())
    session = model.session()
    session.prefill("It is")
    capsule = session.snapshot()
    layout = reprise.Layout().recurrent("h", "f32", (2,)).append("rows", "i32", (1,))
    execution = reprise.Execution(layout, "x", lanes=2)
    execution.add_input("in", "f32", (2,))
    lane = execution.lane()
    return [model, session, capsule, model.store, layout, execution, lane, model.chat, session.generate(5)]


def test_random_calls():
    rng = random.Random(5)
    for _ in range(4):
        made = targets()
        for _ in range(1500):
            target = rng.choice(made)
            names = [name for name in dir(target) if not name.startswith("_") or name in ("__getitem__", "__setitem__", "__call__", "__next__", "__enter__", "__exit__")]
            name = rng.choice(names)
            if name in ("close", "__exit__", "complete") and rng.random() < 0.95:
                continue
            try:
                member = getattr(target, name)
                if callable(member):
                    args = [rng.choice(THINGS + made) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
                    member(*args)
            except Exception:  # noqa: BLE001, S110
                pass
    # And what was not broken by its own arguments still works.
    model = reprise.Model(context=256)
    with model.session() as session:
        session.prefill(TEXT)
        assert len(session.complete(5).tokens) == 5


@pytest.mark.parametrize("things", [{"path": "/nowhere.gguf"}, {"path": "/dev/null"}, {"path": "/"}, {"path": 5}, {"path": "a\0b"}, {"threads": -1}, {"lanes": 0},
                                    {"lanes": 10**9}, {"context": -1}, {"chunk": 0}, {"kv": "f8"}, {"device": "toaster"}, {"instruction_set": "mmx"},
                                    {"store": "/dev/null/x"}, {"store": 5}, {"progress": 5}, {"state_budget": 1}])  # fmt: skip
def test_models_refuse(things):
    with pytest.raises((reprise.Error, TypeError, ValueError)) as raised:
        reprise.Model(**things)
    assert len(str(raised.value)) > 10


@pytest.mark.filterwarnings("ignore:nanobind. attempted to access an uninitialized instance")
def test_objects_cannot_be_made_of_nothing():
    for kind in (reprise.Session, reprise.Capsule, reprise.Token, reprise.Lane, reprise.Step, reprise.Store, reprise.Tokens):
        with pytest.raises(TypeError):
            kind()
        blank = kind.__new__(kind)
        for name in dir(kind):
            if not name.startswith("_"):
                with pytest.raises((TypeError, RuntimeError)):
                    member = getattr(blank, name)
                    member()


def test_tokens_are_whole_numbers(session):
    for wrong in ([1.5], np.array([1.5]), ["1"], "12", b"12", [2**40], np.array([2**40]), None, 5):
        with pytest.raises((TypeError, ValueError)):
            session.append(wrong)
    for outside in ([-1], [10**9]):
        with pytest.raises(reprise.InvalidArgumentError):
            session.append(outside)
    assert session.position == 0
