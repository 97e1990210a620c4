"""Shards written anew: what changed is new, all else is byte for byte what it was; killed anywhere."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.corpus import layout
from curation.corpus.generations import (
    close_plan,
    delete_replaced,
    finished_generations,
    read_plans,
)
from curation.corpus.manifest import read_corpus
from curation.corpus.schema import LAYERS
from curation.corpus.shards import read_index, read_manifest, read_sample, verify_shards
from curation.corpus.store import Store
from curation.export import FactsOfToday, finish_shards, with_facts_of_today, without_clips


def refresh(store: Store) -> int:
    """Write what is outdated anew; returns how many shards that were."""
    info = read_corpus(store)
    today = FactsOfToday.read(store, info, "default", list(range(info.num_parts)))
    done = list(with_facts_of_today(store, "default", today, today.outdated_shards()))
    finish_shards(store, "default")
    delete_replaced(store, "default")
    return len(done)


def samples(store: Store) -> dict[str, tuple[bytes, dict, str]]:
    """clip_id -> media, facts but for the export's digest, caption; the index must say the same."""
    found = {}
    for row in read_index(store, "default").to_pylist():
        sample = read_sample(store, "default", row)
        assert (row["caption"] or "") == sample.caption == sample.facts["caption"]
        facts = {name: value for name, value in sample.facts.items() if name != "export"}
        found[row["clip_id"]] = (sample.media, facts, sample.caption)
    return found


def clips(store: Store, uri: str) -> dict[str, tuple[bytes, dict, str]]:
    return {k: sample for k, sample in samples(store).items() if sample[1]["uri"].endswith(uri)}


def captions_of(store: Store, words: str) -> dict[str, dict[int, object]]:
    """Column of the captions layer -> values for the clips of the first film."""
    return {"caption": {0: words, 1: words}, "captions": {0: [words], 1: [words]}}


def change_a(store: Store, change) -> None:
    folder = layout.layer_folder(read_corpus(store).layers["captions"])
    for column, values in captions_of(store, "another caption").items():
        change(store, folder, column, values)
    change(store, layout.SOURCES, "licence", {0: "CC0-1.0"})
    change(store, layout.SOURCES, "given_caption", {0: "another caption"})


def test_samples_get_todays_texts_and_media_and_other_tars_stay(store, change):
    before, files = samples(store), read_manifest(store, "default")["files"]
    change_a(store, change)
    assert refresh(store) == 1
    after, manifest = samples(store), read_manifest(store, "default")
    of_a = clips(store, "a.mp4")
    assert len(of_a) == 2
    for clip_id, (media, facts, caption) in of_a.items():
        assert media == before[clip_id][0]
        assert caption == "another caption"
        assert facts == before[clip_id][1] | {
            "licence": "CC0-1.0",
            "given_caption": "another caption",
            "caption": "another caption",
            "captions": ["another caption"],
        }
    assert {k: v for k, v in after.items() if k not in of_a} == {
        k: v for k, v in before.items() if k not in of_a
    }
    gone = {name for name in files if name not in manifest["files"] and name.endswith(".tar")}
    (old,) = gone
    assert not store.exists(f"shards/default/{old}")
    same = {name for name in files if "/" in name and name.rpartition(".")[0] + ".tar" != old}
    assert {n: manifest["files"][n]["sha256"] for n in same} == {
        n: files[n]["sha256"] for n in same
    }
    assert manifest["generations"][-1]["replaces"].keys() == {old.removesuffix(".tar")}
    assert list(verify_shards(store, "default")) == []
    assert refresh(store) == 0


def test_a_corpus_that_had_the_texts_from_the_start_has_the_same_samples(
    store, change, make_corpus, films
):
    change_a(store, change)
    captions = {"a.mp4": "another caption", "b.mp4": "the film b", "c.mp4": "the film c"}
    fresh = Store(str(make_corpus(captions, films)))
    change(fresh, layout.SOURCES, "licence", {0: "CC0-1.0"})
    refresh(fresh)
    refresh(store)
    # What these films' change left alone: the layer that is made of captions.
    not_followed = {column.name for column in LAYERS["caption_text"].columns} - {"clip_id"}

    def told(one: Store) -> dict[str, object]:
        found = {}
        for clip_id, (media, facts, caption) in samples(one).items():
            scores = [s for s in facts["scores"] if s["name"] not in not_followed]
            own = {name: facts[name] for name in facts.keys() - not_followed}
            found[clip_id] = (media, own | {"scores": scores}, caption)
        return found

    assert told(store) == told(fresh)


class Killed(Exception):
    pass


@pytest.mark.parametrize("num_changes", range(1, 10))
def test_killed_anywhere_each_sample_is_there_once_and_the_next_run_ends_it(
    store, change, monkeypatch, num_changes
):
    before, left = samples(store), [num_changes]
    change_a(store, change)
    change(store, layout.SOURCES, "author", {2: "somebody"})  # of the other shard

    def dying(name: str):
        done = getattr(Store, name)

        def act(self: Store, *arguments, **more):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return done(self, *arguments, **more)

        return act

    with monkeypatch.context() as patch:
        for name in ("write", "put_file", "delete"):
            patch.setattr(Store, name, dying(name))
        patch.setattr("curation.export.rewriting.THREADS", 1)
        with pytest.raises(Killed):
            refresh(store)
    if store.exists(layout.shard_manifest("default")):  # readers have all that it names
        assert samples(store).keys() == before.keys()
    last = read_plans(store, "default")[-1]
    if last["generation"] not in finished_generations(store, "default"):  # as the next export does
        close_plan(store, last)
    finish_shards(store, "default")
    assert samples(store).keys() == before.keys()
    delete_replaced(store, "default")
    assert samples(store).keys() == before.keys()
    refresh(store)
    after = samples(store)
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}
    assert {v[1]["licence"] for v in clips(store, "a.mp4").values()} == {"CC0-1.0"}
    assert {v[1]["author"] for v in clips(store, "c.mp4").values()} == {"somebody"}
    assert list(verify_shards(store, "default")) == []
    on_disk = {n for n in store.files("shards/default", recursive=True) if n.count("/") == 3}
    named = {n for n in read_manifest(store, "default")["files"] if "/" in n}
    assert on_disk == {f"shards/default/{n}" for n in named}


def test_a_takedown_comes_before_an_unfinished_change_of_texts(store, change):
    before = samples(store)
    change_a(store, change)
    info = read_corpus(store)
    today = FactsOfToday.read(store, info, "default", [0])
    list(with_facts_of_today(store, "default", today, today.outdated_shards()))  # not finished
    gone = set(clips(store, "c.mp4"))
    done = list(without_clips(store, "default", pa.array(sorted(gone))))
    assert len(done) == 1
    assert [plan.get("rewritten_for") for plan in read_plans(store, "default")] == [
        None,
        "texts",
        "takedown",
    ]
    finish_shards(store, "default", all_exported=False)
    after = samples(store)
    assert after.keys() == before.keys() - gone
    assert {v[1]["licence"] for v in clips(store, "a.mp4").values()} == {"CC0-1.0"}
