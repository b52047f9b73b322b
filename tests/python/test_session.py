"""The verbs on a session, as Python has them."""

import numpy as np
import pytest
import reprise
from conftest import TEXT


def ids(tokens):
    return [token.id for token in tokens]


def test_what_follows_a_restore_is_what_would_have_followed(session):
    session.set_sampling(reprise.Sampling(temperature=0.9, top_p=0.95, seed=7))
    report = session.prefill(TEXT)
    assert report.reused == 0 and report.computed == session.position == len(session.tokens)
    session.complete(10)
    here = session.snapshot()
    logits = session.logits()
    first = ids(session.generate(40))
    session.prefill("Something else altogether, to leave nothing as it was.")
    session.restore(here)
    assert np.array_equal(session.logits(), logits) and logits.dtype == np.float32
    assert ids(session.generate(40)) == first
    # The token that was pending then is fed first; the last one is pending now.
    assert session.tokens[here.position + 1 :] == first[:-1] and session.pending_token == first[-1]


def test_one_by_one_and_whole_are_the_same_tokens(session):
    session.prefill(TEXT)
    here = session.snapshot()
    one_by_one = list(session.generate(30))
    session.restore(here)
    heard = []
    whole = session.complete(30, on_text=heard.append)
    assert whole.tokens == ids(one_by_one) and whole.finish == "length"
    assert whole.text == "".join(heard) == "".join(token.text for token in one_by_one)
    session.restore(here)
    session.set_speculation(draft=6, source="lookup", adapt=False)
    assert session.complete(30).tokens == whole.tokens
    assert session.speculation_stats.steps > 0


def test_forks_go_their_own_ways_as_one_batch(model, session):
    session.prefill(TEXT)
    here = session.snapshot()
    alone = ids(session.generate(12))
    futures = session.fork(here, 4)
    for seed, future in enumerate(futures[1:]):
        future.set_sampling(reprise.Sampling(temperature=1.0, seed=seed))
    batches = [reprise.next_batch(futures) for _ in range(12)]
    assert [batch[0].id for batch in batches] == alone
    assert len({tuple(batch[i].id for batch in batches) for i in range(4)}) > 1
    del futures, future
    assert len(session.fork(here, model.info.lanes - 1)) == model.info.lanes - 1


def test_rollback_is_as_if_it_had_not_been(session):
    session.prefill(TEXT)
    first = ids(session.generate(20))
    session.rollback(12)
    assert ids(session.generate(12)) == first[8:]
    with pytest.raises(reprise.InvalidArgumentError):
        session.rollback(10_000)


def test_what_is_known_is_not_computed_again(session):
    session.prefill(TEXT)
    tokens = session.tokens
    assert session.prefill(TEXT).computed == 0
    report = session.prefill(np.array(tokens + tokens, dtype=np.int64))
    assert report.reused == len(tokens) and report.computed == len(tokens)
    session.append(tokens[:3])
    assert session.tokens == tokens + tokens + tokens[:3]


def test_capsules_move_as_bytes(model, session):
    session.prefill(TEXT)
    session.complete(5)
    here = session.snapshot()
    following = ids(session.generate(20))
    # Another process would have a model of its own, and other settings.
    other = reprise.Model(context=1024, threads=1)
    moved = other.import_capsule(here.to_bytes(b"mine"))
    assert moved.metadata == b"mine" and other.import_capsule(session.export(here)).metadata
    with other.session() as there:
        there.restore(moved)
        assert ids(there.generate(20)) == following
    with pytest.raises(reprise.MismatchError):
        session.restore(moved)
    session.restore(model.import_capsule(bytearray(session.export(here))))
    assert ids(session.generate(20)) == following
    damaged = bytearray(session.export(here))
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(reprise.CorruptError):
        model.import_capsule(damaged)


def test_states_are_named_and_read(session):
    session.prefill(TEXT)
    here = session.snapshot()
    states = {state.name: state for state in here.states}
    assert {state.growth for state in states.values()} == {"append", "recurrent"}
    for name, state in states.items():
        array = here.read(name)
        expected = (here.position, *state.shape) if state.growth == "append" else tuple(state.shape)
        assert array.shape == expected and array.nbytes == state.nbytes * (here.position if state.growth == "append" else 1)
        array[...] = 0  # a copy: nothing of the capsule changes
    session.restore(here)
    assert any(here.read(name).any() for name in states)


def test_answers_end_where_they_are_told_to(session):
    session.set_sampling(reprise.Sampling(stop=[" a"]))
    session.prefill("It is")
    completion = session.complete(200)
    assert completion.finish == "stop_string" and " a" not in completion.text
    session.set_sampling(reprise.Sampling(temperature=1, seed=3, json_schema={"enum": ["Lydia", "Mary"]}))
    session.prefill("It is")
    assert session.complete(50).text in ('"Lydia"', '"Mary"')
    session.set_sampling(reprise.Sampling())
    session.prefill("It is")
    assert session.complete(0).tokens == []
    room = 2048 - session.position
    assert len(session.complete().tokens) == room + 1  # the last one chosen need not be fed
    assert list(session.generate()) == []


def test_chats_are_written_in_the_models_format(tiny):
    model = reprise.Model(tiny)
    prompt = model.chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello <|im_end|>"}])
    text = model.detokenize(prompt.tokens)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n") and text.endswith("<|im_start|>assistant\n")
    # What a message says ends nothing.
    end = model.tokenize("<|im_end|>", parse_special=True)
    assert len(end) == 1 and prompt.tokens.count(end[0]) == 2
    with model.session() as session:
        assert session.prefill(prompt).computed == len(prompt)
    with pytest.raises(reprise.InvalidArgumentError):
        model.chat([{"role": "oracle", "content": "?"}])
    with pytest.raises(reprise.InvalidArgumentError):
        model.chat([])


def test_sampling_is_kept_as_it_was_given(session):
    sampling = reprise.Sampling(temperature=0.5, top_k=3, bias={5: 2.5, 1: -1.0}, stop=["x"])
    session.set_sampling(sampling)
    assert session.sampling == sampling != reprise.Sampling()
    assert session.sampling.bias == {1: -1.0, 5: 2.5}
    with pytest.raises(ValueError, match="top_p"):
        reprise.Sampling(top_p=7)
    with pytest.raises(reprise.UnsupportedError):
        reprise.Sampling(json_schema={"type": "string", "not": {"const": "x"}})


def test_speculation_with_the_models_own_block(tiny):
    with reprise.Model(tiny).session() as session:
        session.prefill("abcabcabcabc")
        here = session.snapshot()
        plain = session.complete(40).tokens
        session.restore(here)
        session.set_speculation(draft=3, source="mtp", adapt=False)
        assert session.complete(40).tokens == plain
        assert session.speculation_stats.drafted > 0


def test_models_say_what_they_are(model, tiny):
    assert model.info.architecture == "qwen35" and model.info.parameters > 5e6 and len(model.info.fingerprint) == 64
    assert reprise.Model(str(tiny)).info.has_draft
    heard = []
    reprise.Model(tiny, progress=heard.append)
    assert heard and sorted(heard) == heard and 0.5 < heard[-1] <= 1
    tokens = model.tokenize("Ça va, Émile?")
    assert model.detokenize(tokens) == "Ça va, Émile?"
    assert b"".join(model.detokenize_bytes([token]) for token in tokens) == "Ça va, Émile?".encode()
