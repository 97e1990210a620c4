"""Every byte of a corpus is compared with what was written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from curation.corpus import layout
from curation.corpus.known_sources import read_known_sources
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import read_corpus
from curation.corpus.store import Store
from curation.errors import CorpusError
from curation.export.outdated import write_record as write_facts
from curation.report import ReportConfig, write_report
from pipelines.again import Again, add_again
from pipelines.cli import main
from pipelines.findings import Findings, Kind
from pipelines.locking import locked
from pipelines.repair import repair
from pipelines.suspects import Suspects, write_suspects
from pipelines.verify import verify


@pytest.fixture
def store(small_corpus: Path, tmp_path: Path) -> Store:
    """A copy that a test may damage."""
    shutil.copytree(small_corpus, tmp_path / "corpus")
    return Store(str(tmp_path / "corpus"))


def folder_of(store: Store, name: str) -> str:
    return layout.layer_folder(read_corpus(store).layers[name])


def folder_of_name(store: Store, name: str) -> str:
    """Of the only layer of this name, whatever corpus.json says."""
    (layer_id,) = (one for one in store.folders(layout.LAYERS) if one.startswith(f"{name}@"))
    return layout.layer_folder(layer_id)


def path_of(store: Store, folder: str, part: int = 0) -> Path:
    return Path(store.path(f"{folder}/{layout.part_file(part)}"))


def names(found: Findings) -> set[str]:
    return {fault.name for fault in found.faults}


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_an_undamaged_corpus_has_no_fault_and_every_file_of_it_was_read(store: Store) -> None:
    found = verify(store)
    assert not found.faults
    assert not found.notes
    assert not found.unfinished
    files = store.files(recursive=True)
    beside = {"all.json", "plan.json"}  # records speak for themselves, the plan is in the manifest
    assert found.num_files >= len([name for name in files if Path(name).name not in beside])


@pytest.mark.parametrize("layer", ["probe", "scenes", "captions"])
def test_a_changed_byte_is_found_wherever_it_is(store: Store, layer: str) -> None:
    folder = folder_of(store, layer)
    path = path_of(store, folder, 1)
    whole = path.read_bytes()
    ends = [
        *range(8),
        *range(len(whole) - 12, len(whole)),
    ]  # magic, page header, footer, its length
    for position in {*ends, *range(0, len(whole), max(1, len(whole) // 150))}:
        flip(path, position)
        assert names(verify(store, only=frozenset({folder}))) == {f"{folder}/part-00001.parquet"}
        path.write_bytes(whole)
    assert not verify(store, only=frozenset({folder})).faults


@pytest.mark.parametrize("kind", ["sources", "layer", "selection"])
def test_a_part_that_was_truncated_emptied_swapped_or_deleted_is_named(
    store: Store, kind: str
) -> None:
    folder = {
        "sources": layout.SOURCES,
        "layer": folder_of(store, "keyframes"),
        "selection": layout.selection("default"),
    }[kind]
    only = frozenset({folder})
    first, second = path_of(store, folder, 0), path_of(store, folder, 1)
    bytes_of = first.read_bytes(), second.read_bytes()
    both = {f"{folder}/{first.name}", f"{folder}/{second.name}"}

    first.write_bytes(bytes_of[0][:-1])
    assert names(verify(store, only=only)) == {f"{folder}/{first.name}"}
    first.write_bytes(b"")
    assert names(verify(store, only=only)) == {f"{folder}/{first.name}"}
    first.write_bytes(bytes_of[1])
    second.write_bytes(bytes_of[0])
    assert names(verify(store, only=only)) == both
    second.unlink()
    first.unlink()
    found = verify(store, only=only)
    assert names(found) == both
    assert {fault.what for fault in found.faults} == {"missing"}
    assert {fault.kind for fault in found.faults} == {Kind(kind)}


@pytest.mark.parametrize(
    "name",
    [
        "corpus.json",
        "selections/default/rules.json",
        "selections/default/funnel.json",
        "sources/committed/all.json",
        "shards/default/manifest.json",
        "shards/default/plan.json",
        "shards/default/index.parquet",
    ],
)
def test_a_changed_byte_in_what_says_how_things_are_is_found(store: Store, name: str) -> None:
    path = Path(store.path(name))
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 12)):
        flip(path, position)
        found = verify(store)
        assert len(found.faults) == 1, (position, whole[position - 5 : position + 5])
        assert found.faults[0].name in (name, str(Path(name).parent))
        path.write_bytes(whole)


def test_a_damaged_tar_and_a_missing_one_are_named_with_what_is_wrong(store: Store) -> None:
    tars = [name for name in store.files("shards/default", recursive=True) if name.endswith(".tar")]
    flip(Path(store.path(tars[0])), 700)
    Path(store.path(tars[1])).unlink()
    found = verify(store)
    assert {(fault.name, fault.what.split(",")[0]) for fault in found.faults} == {
        (tars[0], "sha256 is not the manifest's"),
        (tars[1], "missing"),
    }


def test_reports_and_notes_are_read_and_repaired(store: Store) -> None:
    info = read_corpus(store)
    write_report(store, info, "default", ReportConfig())
    add_again(store, {1: Again(sources=(0,))})
    write_suspects(store, 1, Suspects(in_hand=2))
    known = read_known_sources(Ledger(store), info.num_parts)
    known.write(Ledger(store))
    write_facts(store, "default", {0: "a digest"})
    report = [f"reports/default/{n}" for n in ("index.html", "rejected_sources.csv")]
    report += ["reports/default/statistics.json"]
    notes = ["again/part-00001.json", "suspects/part-00001.json", "shards/default/facts.json"]
    notes += [name for name in store.files("sources") if layout.is_known_sources(name)]
    assert not verify(store).faults
    before = {name: store.read(name) for name in report}
    for name in (*report, *notes):
        path = Path(store.path(name))
        flip(path, path.stat().st_size // 2)
        assert names(verify(store)) == {name}
        kind = Kind.REPORT if name in report else Kind.NOTE
        assert {fault.kind for fault in verify(store).faults} == {kind}
        repaired = repair(store, verify(store), console=Console(quiet=True))
        assert not repaired.left.faults
        assert store.exists(name) == (name in report)
    assert {name: store.read(name) for name in report} == before
    store.write(layout.REMOVED, b"{}")
    assert main(["verify", store.root, "--repair"]) == 1


def test_what_is_unfinished_is_no_fault_and_not_called_well_unless_a_run_is_writing(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = folder_of(store, "captions")
    shutil.rmtree(store.path(captions))
    Path(store.path("shards/default/manifest.json")).unlink()
    Path(store.path("selections/default/rules.json")).unlink()
    found = verify(store)
    assert not found.faults
    assert [one.folder for one in found.unfinished] == [
        captions,
        "selections/default",
        "shards/default",
    ]
    assert main(["verify", store.root]) == 1
    said = f"finish it with `lavie export {store.root} --selection default`"
    assert said in " ".join(capsys.readouterr().out.split())
    with locked(store):
        assert main(["verify", store.root]) == 0
        assert "being written by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("last", "damaged"),
    [
        ("shards/default/manifest.json", ".tar"),
        ("shards/default/manifest.json", "index.parquet"),
        ("shards/default/manifest.json", "plan.json"),
        ("selections/default/rules.json", "part-00001.parquet"),
        ("selections/default/rules.json", "funnel.json"),
    ],
)
def test_bytes_are_compared_where_the_file_that_is_written_last_is_gone(
    store: Store, last: str, damaged: str
) -> None:
    folder = last.rpartition("/")[0]
    Path(store.path(last)).unlink()
    assert not verify(store).faults
    name = next(n for n in store.files(folder, recursive=True) if n.endswith(damaged))
    path = Path(store.path(name))
    flip(path, 0 if damaged == "plan.json" else 300)  # in a page, which has a checksum
    assert names(verify(store)) == {name}


def test_a_report_without_its_numbers_is_not_finished_and_comes_back(store: Store) -> None:
    write_report(store, read_corpus(store), "default", ReportConfig())
    numbers = Path(store.path("reports/default/statistics.json"))
    whole = numbers.read_bytes()
    numbers.unlink()
    assert [one.kind for one in verify(store).unfinished] == [Kind.REPORT]
    assert not repair(store, verify(store), console=Console(quiet=True)).left.unfinished
    assert numbers.read_bytes() == whole


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_damaged_or_lost_corpus_json_hides_no_other_fault(store: Store, is_gone: bool) -> None:
    path = Path(store.path("corpus.json"))
    if is_gone:
        path.unlink()
    else:
        flip(path, 10)
    captions = f"{folder_of_name(store, 'captions')}/part-00001.parquet"
    flip(Path(store.path(captions)), 100)
    Path(store.path("selections/default/part-00000.parquet")).unlink()
    tar = next(n for n in store.files("shards/default", recursive=True) if n.endswith(".tar"))
    flip(Path(store.path(tar)), 700)
    expected = {"corpus.json", captions, "selections/default/part-00000.parquet", tar}
    assert names(verify(store)) == expected
    assert main(["verify", store.root]) == 1


def test_parts_on_no_record_are_tested_by_their_own_checksums_and_it_is_said(store: Store) -> None:
    folder = folder_of(store, "probe")
    Path(store.path(f"{folder}/committed/all.json")).unlink()
    path = path_of(store, folder)
    path.write_bytes(path.read_bytes()[:-30])
    found = verify(store, only=frozenset({folder}))
    assert names(found) == {f"{folder}/{path.name}"}
    assert "on no record" in found.unfinished[0].what
    assert found.unfinished[0].kind is Kind.RECORD
    shutil.rmtree(store.path("selections/default/committed"))
    path_of(store, "selections/default", 1).unlink()
    (fault,) = verify(store, only=frozenset({"selections/default"})).faults
    assert (fault.part, fault.what) == (1, "missing")


def test_the_command_says_a_sentence_a_fault_and_fails(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", store.root]) == 0
    assert "files are as they were written" in capsys.readouterr().out
    flip(path_of(store, folder_of(store, "scenes"), 2), 100)
    path_of(store, layout.SOURCES, 0).unlink()
    assert main(["verify", store.root]) == 1
    said = capsys.readouterr().out
    assert f"{store.root}/sources/part-00000.parquet: missing" in said
    assert "part-00002.parquet: sha256 is not the record's, its bytes have changed" in said


def test_a_folder_without_a_corpus_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CorpusError, match="holds no corpus"):
        verify(Store(str(tmp_path)))
    for more in ([], ["--repair"]):
        assert main(["verify", str(tmp_path / "mistyped"), *more]) == 2
        assert "holds no corpus" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_corpus_on_an_object_store_is_read_too(
    store: Store, s3_bucket: str, tmp_path: Path, copied: Callable[[Store, Store], None]
) -> None:
    remote = Store(f"{s3_bucket}/corpus")
    copied(store, remote)
    assert not verify(remote).faults
    name = f"{folder_of(store, 'scenes')}/{layout.part_file(0)}"
    data = bytearray(store.read(name))
    data[50] ^= 1
    remote.write(name, bytes(data))
    assert names(verify(remote)) == {name}


@pytest.fixture
def copied() -> Callable[[Store, Store], None]:
    """Puts all files of one store into another."""

    def copy(source: Store, target: Store) -> None:
        for name in source.files(recursive=True):
            target.write(name, source.read(name))

    return copy
