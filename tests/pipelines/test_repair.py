"""What is damaged is made anew, to the same bytes, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from rich.console import Console

from curation.corpus import layout
from curation.corpus.generations import read_plans, write_plan
from curation.corpus.ledger import Ledger, commit_part
from curation.corpus.manifest import canonical_json, read_corpus, sealed
from curation.corpus.parts import read_table, to_parquet
from curation.corpus.selection import read_rules
from curation.corpus.shards import read_index, read_sample
from curation.corpus.store import Store
from pipelines.cli import main
from pipelines.ray_cluster import start_ray
from pipelines.refresh import refresh_shards
from pipelines.remove import remove
from pipelines.repair import Repaired, lost_sources, repair
from pipelines.repair_shards import repair_shards
from pipelines.verify import verify

QUIET = Console(quiet=True)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    start_ray("local", num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture
def store(small_corpus: Path, tmp_path: Path) -> Store:
    """A copy that a test may damage."""
    shutil.copytree(small_corpus, tmp_path / "corpus")
    return Store(str(tmp_path / "corpus"))


def contents(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.files(recursive=True) if name != layout.LOCK}


def ages(store: Store) -> dict[str, int]:
    return {name: os.stat(store.path(name)).st_mtime_ns for name in contents(store)}


def part_of(store: Store, layer: str, part: int) -> str:
    return layout.layer(read_corpus(store).layers[layer], part)


def flip(store: Store, name: str, position: int) -> None:
    path = Path(store.path(name))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def repaired(store: Store) -> Repaired:
    return repair(store, verify(store), console=QUIET)


def test_damaged_layers_selection_and_shards_come_back_and_the_rest_is_not_written(
    store: Store,
) -> None:
    whole = contents(store)
    tars = sorted(name for name in whole if name.endswith(".tar"))
    rows = tars[1].replace(".tar", ".parquet")
    flip(store, part_of(store, "keyframes", 1), 5000)
    flip(store, part_of(store, "captions", 0), -1)
    Path(store.path(part_of(store, "scenes", 2))).write_bytes(b"")
    Path(store.path("selections/default/part-00001.parquet")).unlink()
    flip(store, "selections/default/funnel.json", 40)
    flip(store, tars[0], 600)
    Path(store.path(tars[-1])).unlink()
    flip(store, rows, 20)
    flip(store, "shards/default/plan.json", 30)
    flip(store, "shards/default/index.parquet", 300)
    before = ages(store)
    result = repaired(store)
    assert not result.said
    assert not result.left.faults
    assert contents(store) == whole
    after = ages(store)
    untouched = [part_of(store, "captions", 1), part_of(store, "caption_text", 0), tars[2]]
    assert [after[name] for name in untouched] == [before[name] for name in untouched]


def give_licence(store: Store, licence: str, uri: str) -> None:
    """As a later list does for one source, with what follows in the shards."""
    tables = {n: read_table(store, layout.sources(n)) for n in range(read_corpus(store).num_parts)}
    part = next(n for n, one in tables.items() if uri in one["uri"].to_pylist())
    table, row = tables[part], tables[part]["uri"].to_pylist().index(uri)
    licences = table["licence"].to_pylist()
    licences[row] = licence
    place = table.column_names.index("licence")
    table = table.set_column(place, table.schema.field("licence"), pa.array(licences, pa.string()))
    ledger = Ledger(store)
    ledger.record([commit_part(store, layout.SOURCES, part, table)])
    ledger.compact()
    refresh_shards(store, read_corpus(store), "default", console=QUIET)


def newest_shard(store: Store) -> tuple[str, list[dict[str, Any]]]:
    """Name and index rows of the first shard of the newest generation."""
    rows = read_index(store, "default").sort_by([("generation", "descending")]).to_pylist()
    shard = rows[0]["shard"]
    return f"shards/default/{shard}", [row for row in rows if row["shard"] == shard]


def without_one(store: Store, rows: list[dict[str, Any]]) -> None:
    remove(store, uris=[], clip_ids=[rows[0]["clip_id"]], console=QUIET)


def test_tars_that_were_written_anew_come_back_however_often_they_were(store: Store) -> None:
    """Each sample tells which export wrote its facts, and keeps it while it is copied."""
    info = read_corpus(store)
    for folder in (layout.SOURCES, *map(layout.layer_folder, info.layers.values())):
        Ledger(store).reconcile(folder, info.num_parts)
    index = read_index(store, "default").to_pylist()
    rows = [row for row in index if row["shard"] == index[0]["shard"]]
    uri = read_sample(store, "default", rows[-1]).facts["uri"]
    changes: list[Callable[[], None]] = [
        lambda: without_one(store, rows),
        lambda: give_licence(store, "CC0-1.0", uri),
        lambda: give_licence(store, "CC-BY-4.0", uri),
        lambda: without_one(store, newest_shard(store)[1]),
    ]
    exports = set()
    for change in changes:
        change()
        tar, rows = newest_shard(store)
        exports |= {row["facts_generation"] for row in rows}
        if change is changes[1]:
            continue  # its texts change once more before anything breaks
        whole = contents(store)
        flip(store, tar, rows[-1]["json_offset"] + 1)
        assert [fault.name for fault in verify(store).faults] == [tar]
        result = repaired(store)
        assert (result.said, result.left.faults) == ([], [])
        assert contents(store) == whole
    assert tar.startswith(f"shards/default/{rows[0]['bucket']}")
    assert exports == {1, 3, 4}
    Path(store.path(tar)).unlink()
    Path(store.path(tar.replace(".tar", ".parquet"))).unlink()
    for plan in ("plan.json", "plan-00002.json", "plan-00004.json"):
        flip(store, f"shards/default/{plan}", 30)
    assert repaired(store).left.faults == []
    assert contents(store) == whole


def test_a_sample_keeps_what_its_selection_said_of_it_when_it_is_cut_again(store: Store) -> None:
    """A later selection weighs all clips anew, and the tars of before stay as they are."""
    whole = contents(store)
    info = read_corpus(store)
    for part in range(info.num_parts):
        name = f"selections/default/{layout.part_file(part)}"
        table = read_table(store, name)
        place = table.column_names.index("sampling_weight")
        field = table.schema.field("sampling_weight")
        weights = pa.array([None if w is None else w * 3 for w in table[field.name].to_pylist()])
        store.write(name, to_parquet(table.set_column(place, field, weights.cast(field.type))))
    tars = sorted(name for name in whole if name.endswith(".tar"))
    flip(store, tars[0], 600)
    flip(store, tars[1].replace(".tar", ".parquet"), 20)
    repair_shards(store, info, "default", {}, console=QUIET, ray_address="local")
    assert {name: store.read(name) for name in whole if name.startswith("shards")} == {
        name: data for name, data in whole.items() if name.startswith("shards")
    }


def test_a_damaged_manifest_comes_back_from_the_shards_themselves(store: Store) -> None:
    whole = contents(store)
    flip(store, "shards/default/manifest.json", 100)
    assert not repaired(store).left.faults
    assert contents(store) == whole


def test_what_was_made_of_a_part_that_comes_out_otherwise_is_made_anew(store: Store) -> None:
    """As when a model answers otherwise the second time: here the record is of other bytes."""
    whole = contents(store)
    name, folder = part_of(store, "captions", 0), os.path.dirname(part_of(store, "captions", 0))
    table = read_table(store, name)
    ledger = Ledger(store)
    old = to_parquet(table.slice(0, table.num_rows))[:-1] + b"?"
    from curation.corpus.ledger import Commit, record_of

    record = record_of(folder, old, table)
    ledger.record([Commit(folder=folder, part=0, record=record)])
    ledger.compact()
    downstream = part_of(store, "caption_text", 0)
    other = part_of(store, "caption_text", 1)
    before = ages(store)
    result = repaired(store)
    assert any("came out with other bytes" in line for line in result.said)
    assert not result.left.faults
    after = ages(store)
    assert after[downstream] > before[downstream]
    assert after[other] == before[other]
    assert contents(store) == whole


def test_a_part_whose_source_is_gone_stays_as_it_is_and_is_named(
    store: Store, tmp_path: Path
) -> None:
    info = read_corpus(store)
    table = read_table(store, layout.sources(0))
    moved = tmp_path / "moved.mp4"
    uris = table["uri"].to_pylist()
    shutil.copy(uris[0].removeprefix("file://"), moved)
    renamed = table.set_column(
        table.column_names.index("uri"),
        table.schema.field("uri"),
        [[str(moved), *uris[1:]]],
    )
    store.write(layout.sources(0), to_parquet(renamed))
    shutil.rmtree(store.path("sources/committed"))
    assert lost_sources(store, info, 0, {}) == []
    moved.write_bytes(moved.read_bytes()[:-1] + b"!")
    assert lost_sources(store, info, 0, {}) == [str(moved)]
    moved.unlink()
    name = part_of(store, "keyframes", 0)
    flip(store, name, 5000)
    damaged = store.read(name)
    result = repaired(store)
    assert [fault.name for fault in result.left.faults] == [name]
    assert "cannot be made anew, since 1 of its sources" in "".join(result.said)
    assert store.read(name) == damaged


def test_a_lost_list_of_sources_and_a_damaged_corpus_json_are_said_to_be_beyond_repair(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(store.path(layout.sources(1))).unlink()
    assert main(["verify", store.root, "--repair"]) == 1
    assert "put them back from a copy" in " ".join(capsys.readouterr().out.split())
    flip(store, "corpus.json", 10)
    assert main(["verify", store.root, "--repair"]) == 1
    assert "put it back from a copy" in " ".join(capsys.readouterr().out.split())


def test_a_damaged_record_is_made_anew_from_the_parts_and_it_is_said(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = contents(store)
    folder = os.path.dirname(part_of(store, "probe", 0))
    flip(store, f"{folder}/committed/all.json", 50)
    assert main(["verify", store.root, "--repair"]) == 0
    assert "its record was damaged" in " ".join(capsys.readouterr().out.split())
    assert contents(store) == whole


def lose(store: Store, name: str) -> None:
    Path(store.path(name)).unlink()


@pytest.mark.parametrize(
    "names",
    [
        ["shards/default/manifest.json"],
        ["shards/default/manifest.json", "shards/default/index.parquet"],
        ["selections/default/rules.json"],
        ["sources/committed/all.json", "selections/default/committed/all.json"],
    ],
)
def test_files_that_are_written_last_come_back_where_they_are_gone(
    store: Store, names: list[str]
) -> None:
    whole = contents(store)
    for name in names:
        lose(store, name)
    assert main(["verify", store.root]) == 1
    assert main(["verify", store.root, "--repair"]) == 0
    assert contents(store) == whole


def test_a_plan_with_another_number_is_not_believed_when_its_selection_is_made_anew(
    store: Store,
) -> None:
    """As JSON it is whole: only the manifest knows that it was written otherwise."""
    whole = contents(store)
    plan = Path(store.path("shards/default/plan.json"))
    text = plan.read_text()
    plan.write_text(text.replace('"scenes@', '"scenes@9', 1))
    assert plan.read_text() != text
    lose(store, "selections/default/part-00001.parquet")
    result = repaired(store)
    assert (result.said, result.left.faults) == ([], [])
    assert contents(store) == whole


def test_damaged_rules_come_back_from_the_shards_with_what_else_is_damaged(store: Store) -> None:
    whole = contents(store)
    rules = Path(store.path("selections/default/rules.json"))
    rules.write_text(rules.read_text().replace("1", "2", 1))
    tar = min(name for name in whole if name.endswith(".tar"))
    flip(store, tar, 600)
    flip(store, part_of(store, "captions", 0), -1)
    result = repaired(store)
    assert (result.said, result.left.faults) == ([], [])
    assert contents(store) == whole


def test_rules_that_are_on_no_other_record_are_named_and_all_else_is_mended(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(store.path("shards"))
    whole = contents(store)
    flip(store, "selections/default/rules.json", 40)
    flip(store, part_of(store, "captions", 0), -1)
    lose(store, "sources/committed/all.json")
    assert main(["verify", store.root, "--repair"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "run `lavie select --name default` again with its rules" in said
    assert [fault.name for fault in verify(store).faults] == ["selections/default/rules.json"]
    after = contents(store)
    assert {name for name in whole if whole[name] != after[name]} == {
        "selections/default/rules.json"
    }
    assert main(["export", store.root]) == 1
    assert "`lavie select" in capsys.readouterr().err


def test_a_selection_that_cannot_be_made_anew_keeps_its_rules_and_stops_no_other_repair(
    store: Store,
) -> None:
    whole = contents(store)
    lose(store, layout.sources(1))
    flip(store, part_of(store, "scenes", 1), -1)
    lose(store, "selections/default/part-00001.parquet")
    flip(store, part_of(store, "caption_text", 0), -1)
    flip(store, "shards/default/plan.json", 30)
    result = repaired(store)
    said = "\n".join(result.said)
    assert "scenes" in said
    assert "selections/default: cannot be made anew" in said
    after = contents(store)
    for name in (part_of(store, "caption_text", 0), "shards/default/plan.json"):
        assert after[name] == whole[name]
    assert after["selections/default/rules.json"] == whole["selections/default/rules.json"]


def test_rules_and_manifest_that_are_gone_both_come_back_at_once(store: Store) -> None:
    whole = contents(store)
    store.delete("selections/default/rules.json")
    store.delete("shards/default/manifest.json")
    result = repaired(store)
    assert not result.said
    assert not result.left.faults
    assert not result.left.unfinished
    assert contents(store) == whole


def test_a_changed_digit_of_a_plan_is_noticed_without_its_manifest(store: Store) -> None:
    plan = "shards/default/plan.json"
    content = json.loads(store.read(plan))
    content["num_selected"] += 1
    store.write(plan, canonical_json(content))
    store.delete("shards/default/manifest.json")
    before = contents(store)
    result = repaired(store)
    assert plan in {fault.name for fault in result.left.faults}
    said = [line for line in result.said if plan in line]
    assert f"`lavie export {store.root} --selection default`" in said[0]
    assert contents(store) == before


def test_shards_of_an_export_that_was_cut_off_are_told_and_damaged_ones_taken_away(
    store: Store,
) -> None:
    whole = contents(store)
    first = read_plans(store, "default")[-1]
    write_plan(store, first | {"generation": 2, "export": "0" * 12, "buckets": {}})
    assert [one.folder for one in verify(store).unfinished] == ["shards/default"]
    bucket = next(iter(first["buckets"]))
    for kind in ("tar", "parquet"):
        store.write(f"shards/default/{bucket}/000099.{kind}", b"cut off")
    found = verify(store)
    assert [fault.name for fault in found.faults] == [f"shards/default/{bucket}/000099.parquet"]
    assert "generation 2 was begun; `lavie export " in found.unfinished[0].what
    result = repair(store, found, console=QUIET)
    assert not result.left.faults
    assert "taken away" in result.said[0]
    after = contents(store)
    assert after.pop("shards/default/plan-00002.json")
    assert after == whole


def test_rules_of_an_earlier_program_are_replayed_with_the_defaults_of_what_it_had_not(
    store: Store,
) -> None:
    rules = read_rules(store, "default")
    del rules["config"]["clusters"]["seed"]
    store.write("selections/default/rules.json", sealed(rules))
    part = f"selections/default/{layout.part_file(0)}"
    whole = store.read(part)
    flip(store, part, 50)
    result = repaired(store)
    assert not result.said
    assert not result.left.faults
    assert store.read(part) == whole
