"""What a corpus holds at a glance."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation.corpus import layout
from curation.corpus.generations import read_plans, write_plan
from curation.corpus.ledger import Ledger, PartState
from curation.corpus.manifest import read_corpus, sealed
from curation.corpus.parts import read_table
from curation.corpus.selection import read_rules
from curation.corpus.store import Store
from curation.report import ReportConfig, write_report
from curation.select import parse_rule, rule_presets, select
from curation.select.rules import change_rules
from pipelines.cli import main
from pipelines.locking import locked
from pipelines.status import Layer, read_status
from pipelines.verify import verify


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


def test_an_export_that_was_begun_beside_finished_ones_is_called_unfinished(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = read_plans(store, "default")[-1]
    write_plan(store, plan | {"generation": 2, "export": "0" * 12})
    assert main(["status", store.root]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "shards: " in line]
    assert "shards: generation 2 is unfinished, 46 clips" in line
    assert line.endswith(f"; due: `lavie export {store.root} --selection default`")


def test_the_command_that_mends_a_selection_is_said(store: Store) -> None:
    info, ledger = read_corpus(store), Ledger(store)
    lacking = [{"part": 1, "num_sources": 4, "layers": ["captions"]}]
    rules = read_rules(store, "default") | {"missing": lacking}
    store.write("selections/default/rules.json", sealed(rules))
    select_again = f"`lavie select {store.root} --name default` with its rules"

    def advice() -> tuple[str, str]:
        (note,) = verify(store).notes
        return f"due: {read_status(store).selections[0].due}", note

    for line in advice():
        assert line.endswith(f"due: {select_again}")
    folder = layout.layer_folder(info.layers["captions"])
    ledger.reconcile(folder, info.num_parts)
    ledger.mark_again(folder, [1])
    for line in advice():
        assert line.endswith(
            f"due: the same `lavie curate`, which makes what is missing, then {select_again}"
        )


def test_parts_on_no_record_are_told_apart_and_not_called_counted(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a run leaves them that was killed before it wrote them down; verify says so too."""
    folder = layout.layer_folder(read_corpus(store).layers["probe"])
    for name in store.files(f"{folder}/{layout.COMMITTED}"):
        store.delete(name)
    status = read_status(store)
    assert status.num_unrecorded == status.info.num_parts == 4
    assert layer(store, "probe").states == {PartState.UNRECORDED: 4}
    assert main(["status", store.root]) == 0
    said = capsys.readouterr().out
    assert "16 sources: 0 read, 0 rejected, 16 not looked at yet, or on no record" in said
    assert f"`lavie verify {store.root} --repair`, which records them" in said
    assert "4 parts are on no record" in verify(store).unfinished[0].what
