"""Nothing is prefilled twice: the store, from Python."""

import pytest
import reprise
from conftest import TEXT


def load(directory, **options):
    return reprise.Model(context=2048, store=reprise.StoreOptions(directory, write_delay=0, tip_delay=0, **options))


def test_what_one_process_computed_the_next_has(tmp_path):
    model = load(tmp_path / "store")
    with model.session() as session:
        computed = session.prefill(TEXT).computed
        tokens = session.complete(8).tokens
        session.end_reply()
        assert session.save("talk", metadata=b"a title") > 0
    model.store.flush()
    stats = model.store.stats
    assert stats.entries_on_disk >= 2 and stats.waiting == 0 and model.store.notices() == []
    del model, session

    again = load(tmp_path / "store")
    with again.session() as session:
        report = session.prefill(TEXT)
        assert (report.reused, report.computed, report.tier) == (computed, 0, "disk")
        assert session.complete(8).tokens == tokens
        entry = again.store.entry("talk")
        assert entry.metadata == b"a title" and entry.keep == "requested" and entry.id in {e.id for e in again.store.entries()}
        session.restore(again.store.get("talk"))
        assert session.tokens == again.store.tokens(entry.id)


def test_namespaces_see_nothing_of_each_other(tmp_path):
    model = load(tmp_path / "store")
    with model.session("alice") as session:
        session.prefill(TEXT)
        session.save("mine")
    with model.session("bob") as session:
        assert session.prefill(TEXT).reused == 0
    assert [entry.name for entry in model.store.entries("alice") if entry.name] == ["mine"]
    assert not [entry for entry in model.store.entries("bob") if entry.name]
    with pytest.raises(reprise.NotFoundError):
        model.store.get("mine", "bob")


def test_entries_are_named_pinned_and_removed(tmp_path):
    model = load(tmp_path / "store")
    store = model.store
    with model.session() as session:
        session.prefill(TEXT)
        entry = session.save()
    store.name(entry, "here")
    store.pin(entry)
    assert store.entry(entry).pinned and store.entry("here").id == entry
    store.remove(entry)
    for key in (entry, "here", 10**18):
        with pytest.raises(LookupError):
            store.get(key)
    with pytest.raises(ValueError):
        store.get(1.5)


def test_without_a_store():
    model = reprise.Model()
    assert model.store is None
    with model.session() as session:
        session.prefill(TEXT)
        session.end_reply()
        with pytest.raises(reprise.UnsupportedError):
            session.save()


def test_a_store_of_memory_alone():
    model = reprise.Model(store=reprise.StoreOptions())
    with model.session() as session:
        session.prefill(TEXT)
    with model.session() as session:
        report = session.prefill(TEXT)
        assert report.computed == 0 and report.tier == "memory"


def test_a_store_outlives_the_name_of_its_model(tmp_path):
    store = load(tmp_path / "store").store
    assert store.entries() == [] and store.stats.disk_budget > 0
