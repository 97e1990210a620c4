"""What a corpus holds at a glance."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation.corpus import layout
from curation.corpus.ledger import Ledger, PartState
from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_table
from curation.corpus.store import Store
from curation.report import ReportConfig, write_report
from curation.select import parse_rule, rule_presets, select
from curation.select.rules import change_rules
from pipelines.cli import main
from pipelines.locking import locked
from pipelines.status import Layer, read_status


@pytest.fixture
def store(small_corpus: Path, tmp_path: Path) -> Store:
    """A copy that a test may change."""
    shutil.copytree(small_corpus, tmp_path / "corpus")
    return Store(str(tmp_path / "corpus"))


def layer(store: Store, name: str) -> Layer:
    layer_id = read_corpus(store).layers[name]
    return next(layer for layer in read_status(store).layers if layer.name == layer_id)


def test_sources_clips_and_hours_are_those_of_the_parts(store: Store) -> None:
    info, status = read_corpus(store), read_status(store)
    parts = range(info.num_parts)
    probe = [read_table(store, layout.layer(info.layers["probe"], part)) for part in parts]
    scenes = [read_table(store, layout.layer(info.layers["scenes"], part)) for part in parts]
    assert status.num_sources == status.num_read == sum(table.num_rows for table in probe)
    assert status.num_clips == sum(table["scene_reject"].null_count for table in scenes)
    seconds = sum(sum(table["duration_s"].to_pylist()) for table in scenes)
    assert status.hours == pytest.approx(seconds / 3600, abs=0.001)


def test_it_is_told_without_reading_a_part(store: Store) -> None:
    before = read_status(store)
    for name in store.files(recursive=True):
        if layout.part_number(name) is not None:
            path = Path(store.path(name))
            path.write_bytes(bytes(path.stat().st_size))
    after = read_status(store)
    assert (after.num_clips, after.hours, after.rejects) == (
        before.num_clips,
        before.hours,
        before.rejects,
    )


def test_states_of_parts_are_counted(store: Store) -> None:
    info = read_corpus(store)
    folder = layout.layer_folder(info.layers["captions"])
    Path(store.path(f"{folder}/{layout.part_file(0)}")).unlink()
    Path(store.path(f"{folder}/{layout.part_file(1)}")).write_bytes(b"")
    Ledger(store).mark_again(folder, [2])
    states = layer(store, "captions").states
    assert (states[PartState.MISSING], states[PartState.DAMAGED], states[PartState.AGAIN]) == (
        1,
        1,
        1,
    )
    assert states[PartState.DONE] == info.num_parts - 3


def test_shards_and_report_of_other_verdicts_are_called_so(store: Store) -> None:
    info = read_corpus(store)
    write_report(store, info, "default", ReportConfig())
    (own,) = read_status(store).selections
    assert (own.shards.stands, own.report.stands) == ("current", "current")
    shards = Path(store.path("shards"))
    shards.rename(store.path("put-aside"))
    rules = change_rules(rule_presets.everything(), add=[parse_rule("duration_s<=1")])
    select(store, info, "default", rules)
    Path(store.path("put-aside")).rename(shards)
    (other,) = read_status(store).selections
    assert other.kept["clips"] < own.kept["clips"]
    assert (other.shards.stands, other.report.stands) == ("of other verdicts",) * 2
    for last in ("shards/default/manifest.json", "reports/default/statistics.json"):
        Path(store.path(last)).unlink()
    (cut_off,) = read_status(store).selections
    assert (cut_off.shards.stands, cut_off.report.stands) == ("unfinished",) * 2


def test_a_corpus_that_has_grown_or_has_other_layers_says_so_of_its_selections(
    store: Store,
) -> None:
    content = json.loads(store.read(layout.CORPUS))
    content.pop("digest")
    content["num_parts"] += 1
    store.write(layout.CORPUS, json.dumps(content, sort_keys=True, indent=1).encode() + b"\n")
    (selection,) = read_status(store).selections
    assert selection.stands == "lacks 1 parts that came later"


def test_a_writer_is_named_while_it_writes(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", store.root]) == 0
    assert "no run is writing it" in capsys.readouterr().out
    with locked(store):
        assert main(["status", store.root]) == 0
    said = capsys.readouterr().out
    assert "being written by lavie" in said
    assert "selection default: finished, keeps 46 clips" in said
    assert "shards: the selection's own, 46 clips" in said
    assert "report: none" in said


def test_a_dead_run_of_which_little_is_there_has_a_status(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(store.path("layers"))
    shutil.rmtree(store.path("selections"))
    shutil.rmtree(store.path("sources/committed"))
    assert main(["status", store.root]) == 0
    said = capsys.readouterr().out
    assert "0 clips" in said


def test_a_damaged_record_is_said_and_the_rest_shown(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = layout.layer_folder(read_corpus(store).layers["probe"])
    store.write(f"{folder}/committed/all.json", b"{}")
    assert main(["status", store.root]) == 0
    said = capsys.readouterr().out
    assert "all.json: its bytes are not those that were written" in said
    assert "selection default" in said
