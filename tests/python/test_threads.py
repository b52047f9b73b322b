"""Threads, signals and callbacks around one model."""

import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
import reprise
from conftest import TEXT


def test_sessions_on_threads_give_what_they_give_alone(model):
    def run(seed):
        with model.session() as session:
            session.set_sampling(reprise.Sampling(temperature=1.0, seed=seed))
            session.prefill(TEXT)
            return session.complete(30).tokens

    alone = [run(seed) for seed in range(4)]
    together = [None] * 4

    def thread(seed):
        together[seed] = run(seed)

    threads = [threading.Thread(target=thread, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert together == alone


def test_a_prefill_leaves_the_interpreter_to_others(model):
    """Another thread counts while this one computes: it could not, if the call kept the interpreter."""
    prompt = model.tokenize(TEXT) * 60
    counted = []
    started = threading.Event()
    stop = threading.Event()

    def count():
        while not stop.is_set():
            counted.append(1)
            started.set()
            stop.wait(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    started.wait()
    with model.session() as session:
        before = len(counted)
        session.prefill(prompt[:2000])
        during = len(counted) - before
    stop.set()
    thread.join()
    assert during > 3


def test_an_exception_of_a_callback_ends_the_call_at_a_boundary(model):
    prompt = (model.tokenize(TEXT) * 60)[:1500]
    with model.session() as session:

        def stop(done, total):
            if done >= 500:
                raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            session.prefill(prompt, progress=stop)
        assert 500 <= session.position < 1500
        report = session.prefill(prompt)
        assert report.reused >= 500 and report.reused + report.computed == 1500

        with pytest.raises(ZeroDivisionError):
            session.complete(50, on_text=lambda text: 1 // 0)
        assert session.complete(3).tokens


def test_a_callback_that_uses_its_model_is_refused(model):
    with model.session() as session, model.session() as other:
        with pytest.raises(reprise.InvalidArgumentError, match="callback"):
            session.prefill(TEXT, progress=lambda done, total: other.prefill("x"))
        # A session that ends within is freed when the call is over.
        spare = [model.session()]
        session.prefill("Another text than before", progress=lambda done, total: spare.clear())
        del spare
        assert len(session.fork(session.snapshot(), model.info.lanes - 2)) == model.info.lanes - 2


@pytest.mark.parametrize("callback", ["progress=lambda done, total: None", ""])
def test_ctrl_c_ends_a_long_prompt_and_keeps_what_was_read(callback):
    code = f"""
import os, signal, threading, reprise
model = reprise.Model(context=32768, threads=1)
prompt = (model.tokenize({TEXT!r}) * 1200)[:32000]
session = model.session()
session.prefill(prompt[:500])
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    session.prefill(prompt, {callback})
    print("finished")
except KeyboardInterrupt:
    print("stopped", 500 <= session.position < 32000, session.prefill(prompt[:session.position]).computed)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout == "stopped True 0\n", done.stdout + done.stderr


def test_closed_sessions_say_so(model):
    session = model.session()
    capsule = session.snapshot()
    session.close()
    session.close()
    assert session.closed and "closed" in repr(session)
    for use in (session.next, session.snapshot, session.logits, lambda: session.position, lambda: session.restore(capsule), lambda: next(session.generate(3)),
                lambda: reprise.next_batch([session])):
        with pytest.raises(reprise.InvalidArgumentError, match="closed"):
            use()


def test_lanes_come_back_with_the_garbage(model):
    for _ in range(3):
        sessions = [model.session() for _ in range(model.info.lanes)]
        with pytest.raises(reprise.ExhaustedError):
            model.session()
        cycle = {"sessions": sessions}
        cycle["self"] = cycle
        del sessions, cycle
        gc.collect()


def test_things_are_dropped_in_any_order():
    model = reprise.Model(context=512)
    session = model.session()
    tokens = session.generate(5)
    session.prefill("It is")
    capsule = session.snapshot()
    del model, session
    assert next(tokens).id >= 0
    del tokens
    assert capsule.read(capsule.states[0].name).size > 0


def test_leaving_with_everything_alive_is_quiet():
    code = "import reprise; m = reprise.Model(); s = m.session(); s.prefill('It is'); c = s.snapshot(); g = s.generate(3); next(g)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout == done.stderr == ""


def test_signals_reach_a_generation():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = reprise.Model(context=4096)
    with model.session() as session:
        session.prefill("It is")
        heard = []

        def press(text):
            heard.append(text)
            if len(heard) == 5:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            session.complete(2000, on_text=press)
        assert len(heard) < 100 and session.next().id >= 0
