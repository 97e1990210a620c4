"""Which parts were committed, and how they stand."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest

from curation.corpus import layout
from curation.corpus.ledger import COMPACTED_AT, Commit, Ledger, PartState, commit_part
from curation.corpus.manifest import sealed
from curation.corpus.schema import layer_schema
from curation.corpus.store import Store
from curation.errors import TornPart

FOLDER = "layers/probe@1-a"
DONE, MISSING, DAMAGED = PartState.DONE, PartState.MISSING, PartState.DAMAGED
AGAIN, UNRECORDED = PartState.AGAIN, PartState.UNRECORDED


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "corpus"))


def probe(*rejects: str | None) -> pa.Table:
    rows = [{"source_reject": reject} for reject in rejects]
    names = layer_schema("probe").names
    return pa.Table.from_pylist(
        [dict.fromkeys(names) | row for row in rows], schema=layer_schema("probe")
    )


def put(store: Store, part: int, *rejects: str | None) -> Commit:
    return commit_part(store, FOLDER, part, probe(*rejects))


def file_of(store: Store, part: int) -> Path:
    return Path(store.path(f"{FOLDER}/{layout.part_file(part)}"))


def records_on_disk(store: Store) -> list[str]:
    return [name.rpartition("/")[2] for name in store.files(f"{FOLDER}/committed")]


def test_the_record_is_the_digest_length_and_rows_of_the_bytes_that_lie_there(store: Store) -> None:
    ledger = Ledger(store)
    ledger.record([put(store, 0, None, "empty", "empty")])
    data = file_of(store, 0).read_bytes()
    record = ledger.records(FOLDER)[0]
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert (record.size_bytes, record.num_rows) == (len(data), 3)


def test_a_later_reader_knows_what_was_flushed_and_what_was_compacted(store: Store) -> None:
    writer = Ledger(store)
    writer.record([put(store, 0, None)])
    writer.flush()
    writer.record([put(store, 1, "empty")])
    writer.flush()
    assert records_on_disk(store) == ["000001.json", "000002.json"]
    assert Ledger(store).states(FOLDER, 3) == [DONE, DONE, MISSING]
    before = dict(Ledger(store).records(FOLDER))
    writer.compact()
    assert records_on_disk(store) == ["all.json"]
    assert Ledger(store).records(FOLDER) == before


def test_the_last_record_of_a_part_counts_however_often_it_was_made(store: Store) -> None:
    for reject in ("empty", "not_found", "no_video"):
        ledger = Ledger(store)
        ledger.record([put(store, 0, reject)])
        ledger.flush()
    assert Ledger(store).values(FOLDER, "source_reject") == Counter(no_video=1)


def test_files_left_by_a_kill_in_mid_compaction_change_nothing(store: Store) -> None:
    ledger = Ledger(store)
    ledger.record([put(store, 0, None)])
    ledger.flush()
    left = store.read(f"{FOLDER}/committed/000001.json")
    ledger.record([put(store, 1, None)])
    ledger.compact()
    expected = dict(Ledger(store).records(FOLDER))
    store.write(f"{FOLDER}/committed/000001.json", left)
    assert Ledger(store).records(FOLDER) == expected
    reader = Ledger(store)
    reader.records(FOLDER)
    reader.compact()
    assert records_on_disk(store) == ["all.json"]


def test_the_same_parts_give_the_same_record_in_whatever_order_they_were_written(
    tmp_path: Path,
) -> None:
    contents = []
    for order in ([0, 1, 2], [2, 0, 1]):
        store = Store(str(tmp_path / str(order)))
        ledger = Ledger(store)
        for part in order:
            ledger.record([put(store, part, None, "empty")])
            ledger.flush()
        ledger.compact()
        contents.append(store.read(f"{FOLDER}/committed/all.json"))
    assert contents[0] == contents[1]


def test_reasons_are_counted_over_all_parts_without_reading_one(store: Store) -> None:
    ledger = Ledger(store)
    ledger.record([put(store, 0, None, "empty"), put(store, 1, "empty", None, None)])
    ledger.flush()
    for part in (0, 1):
        file_of(store, part).write_bytes(b"")
    assert Ledger(store).values(FOLDER, "source_reject") == Counter({"": 3, "empty": 2})


def test_scenes_are_counted_with_their_seconds(store: Store) -> None:
    names = layer_schema("scenes").names
    rows = [
        {"duration_s": 1.5, "scene_reject": None},
        {"duration_s": 0.25, "scene_reject": "short"},
    ]
    table = pa.Table.from_pylist(
        [dict.fromkeys(names) | row for row in rows], schema=layer_schema("scenes")
    )
    commit = commit_part(store, "layers/scenes@1-a", 0, table)
    assert commit.record.counts == {
        "scene_reject=": 1,
        "scene_reject=short": 1,
        "duration_ms": 1750,
    }


def test_a_part_that_no_run_wrote_down_is_read_and_taken_into_the_record(store: Store) -> None:
    commit = put(store, 0, None, "empty")
    assert Ledger(store).states(FOLDER, 1) == [UNRECORDED]
    assert Ledger(store).reconcile(FOLDER, 1) == [DONE]
    assert Ledger(store).records(FOLDER) == {0: commit.record}


def test_a_part_on_no_record_that_is_not_whole_is_not_taken_into_it(store: Store) -> None:
    put(store, 0, None, "empty")
    file_of(store, 0).write_bytes(file_of(store, 0).read_bytes()[:-9])
    ledger = Ledger(store)
    assert ledger.reconcile(FOLDER, 1) == [DAMAGED]
    assert not ledger.records(FOLDER)


def test_a_part_of_another_length_than_was_written_shows_without_being_read(store: Store) -> None:
    ledger = Ledger(store)
    ledger.record([put(store, part, None) for part in range(3)])
    ledger.flush()
    file_of(store, 0).write_bytes(file_of(store, 0).read_bytes()[:-1])
    file_of(store, 1).write_bytes(b"")
    file_of(store, 2).unlink()
    assert Ledger(store).states(FOLDER, 3) == [DAMAGED, DAMAGED, MISSING]


def test_a_part_to_be_made_anew_stays_so_until_it_is_recorded_whatever_lies_there(
    store: Store,
) -> None:
    ledger = Ledger(store)
    ledger.record([put(store, 0, None)])
    ledger.flush()
    assert ledger.mark_again(FOLDER, [0, 1]) == {0}
    killed = Ledger(store)
    assert killed.states(FOLDER, 2) == [AGAIN, MISSING]
    other = put(store, 0, "empty")  # put, and the run is killed before it is written down
    assert Ledger(store).reconcile(FOLDER, 1) == [AGAIN]
    assert killed.differs(other)
    killed.record([other])
    killed.flush()
    assert Ledger(store).states(FOLDER, 1) == [DONE]
    assert not killed.differs(put(store, 0, "empty"))


@pytest.mark.parametrize("position", [0, 40, -30, -1])
def test_a_changed_byte_in_the_record_itself_is_noticed(store: Store, position: int) -> None:
    ledger = Ledger(store)
    ledger.record([put(store, 0, None)])
    ledger.compact()
    path = Path(store.path(f"{FOLDER}/committed/all.json"))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(TornPart, match=r"all\.json"):
        Ledger(store).records(FOLDER)


def test_a_long_run_keeps_few_files_of_the_record(store: Store) -> None:
    ledger = Ledger(store)
    commit = put(store, 0, None)
    for part in range(2 * COMPACTED_AT + 3):
        ledger.record([Commit(folder=FOLDER, part=part, record=commit.record)])
        ledger.flush()
    assert records_on_disk(store) == ["000001.json", "000002.json", "000003.json", "all.json"]
    assert sorted(Ledger(store).records(FOLDER)) == list(range(2 * COMPACTED_AT + 3))


def test_what_a_kill_in_mid_compaction_leaves_does_not_speak_over_what_came_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(store)
    ledger.record([put(store, 0, None)])
    ledger.flush()
    ledger.record([put(store, 0, "empty")])  # not written down yet
    monkeypatch.setattr(Store, "delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ledger.compact()
    assert "all.json" in records_on_disk(store)
    assert Ledger(store).values(FOLDER, "source_reject") == Counter(empty=1)


def test_a_reader_looks_again_where_the_record_was_compacted_under_its_eyes(store: Store) -> None:
    writer = Ledger(store)
    writer.record([put(store, 0, None)])
    writer.flush()
    listed = store.files(FOLDER, recursive=True)
    writer.compact()
    reader = Ledger(store)
    assert reader._load(FOLDER, listed).records == writer.records(FOLDER)


def test_the_record_of_an_older_version_is_read(store: Store) -> None:
    commit = put(store, 0, None, "empty")
    parts = {"00000": asdict(commit.record)}
    old = sealed({"format_version": 1, "parts": parts})
    store.write(f"{FOLDER}/committed/all.json", old)
    assert Ledger(store).records(FOLDER) == {0: commit.record}
    store.write(f"{FOLDER}/committed/all.json", old.replace(b'"num_rows": 2', b'"num_rows": 3'))
    with pytest.raises(TornPart):
        Ledger(store).records(FOLDER)
