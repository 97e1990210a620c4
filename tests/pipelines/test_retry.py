"""Rejected sources and changed texts: just their rows are made anew, on a real local Ray."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray
from rich.console import Console

from curation.corpus import layout
from curation.corpus.known_sources import read_known_sources
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.parts import read_clips, read_table
from curation.corpus.schema import SELECTION
from curation.corpus.selection import read_verdicts
from curation.corpus.shards import read_index
from curation.corpus.store import Store
from curation.errors import UsageError
from curation.sources import list_sources
from curation.stations.caption_text import CaptionText
from curation.stations.station import Station
from pipelines import curate, river
from pipelines.again import noted_parts
from pipelines.cli import main
from pipelines.curation_config import RiverConfig
from pipelines.presets import tiny
from pipelines.ray_cluster import start_ray
from pipelines.rejects import Rejects
from pipelines.retry import Retries

RIVER = replace(tiny().river, sources_per_part=4)
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    start_ray(num_cpus=1)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name in NAMES:
        scenes = [(f"red/{name}", 60), (f"teal/{name}", 60)]
        make_video(folder / f"{name}.mp4", scenes, size=(160, 90), fps=24)
    return folder


class Corpus:
    """A corpus whose sources a list names; some of the films come later."""

    def __init__(self, folder: Path, films: Path, *, absent: str = "") -> None:
        self.store = Store(str(folder / "corpus"))
        self.sources = folder / "sources"
        self.sources.mkdir(parents=True)
        self.films = films
        self.texts = {name: {"caption": f"the film {name}"} for name in NAMES}
        for name in NAMES:
            if name not in absent:
                self.bring(name)

    def bring(self, name: str) -> None:
        (self.sources / f"{name}.mp4").write_bytes((self.films / f"{name}.mp4").read_bytes())

    def list(self) -> str:
        lines = [json.dumps({"uri": f"{n}.mp4", **self.texts[n]}) for n in NAMES]
        path = self.sources / "list.jsonl"
        path.write_text("\n".join(lines))
        return str(path)

    def measure(self, *, retry: bool = False) -> tuple[CorpusInfo, Rejects, str]:
        console = Console(file=io.StringIO(), width=200)
        how = curate.HowToRun(command="test", retry_failed=retry)
        info, rejects = curate.measure([self.list()], self.store, RIVER, console=console, how=how)
        return info, rejects, console.file.getvalue()  # type: ignore[attr-defined]

    def layers(self) -> dict[str, bytes]:
        """The bytes of every part, without the folder of the films in them."""
        names = self.store.files("layers", recursive=True)
        return {n: self.store.read(n) for n in names if n.endswith(".parquet")}

    def clips(self, *columns: str) -> list[dict[str, object]]:
        layers = read_corpus(self.store).layers
        return read_clips(self.store, layers, 0, ["uri", *columns]).to_pylist()


@pytest.fixture
def half(tmp_path: Path, films: Path) -> Corpus:
    """Curated while the films b and d were not there yet."""
    corpus = Corpus(tmp_path / "half", films, absent="bd")
    _, rejects, _ = corpus.measure()
    assert (rejects.counts, rejects.num_passing) == ({"not_found": 2}, 2)
    return corpus


def test_sources_that_came_later_are_read_and_all_is_as_if_they_had_been_there(
    half: Corpus, films: Path, tmp_path: Path
) -> None:
    half.bring("b")
    before = half.layers()
    _, rejects, _ = half.measure()
    assert rejects.num_passing == 2  # a plain run leaves them as they are
    assert half.layers() == before
    _, rejects, said = half.measure(retry=True)
    assert (rejects.num_read, rejects.num_passing) == (3, 1)
    assert "2 sources" in said
    half.bring("d")
    _, rejects, _ = half.measure(retry=True)
    assert (rejects.num_read, rejects.num_passing) == (4, 0)
    whole = Corpus(tmp_path / "whole", films)
    whole.measure()
    assert half.layers() == whole.layers()
    assert not noted_parts(half.store)


def test_a_run_that_was_killed_over_it_is_gone_on_with_by_a_plain_one(
    half: Corpus, films: Path, tmp_path: Path
) -> None:
    half.bring("b")
    half.bring("d")
    configured, info = curate.configure(RIVER), read_corpus(half.store)
    ledger = Ledger(half.store)
    Retries(ledger, configured.stations, info.layers, info.layers, 1).note_failed(
        {}, list_sources([half.list()])
    )
    job = curate.DecodeJob(half.store, configured.decoding, configured.layers)
    job.setup()
    job.run(0, True)  # what it put is on no record: the driver died with it
    job.close()
    half.measure()
    whole = Corpus(tmp_path / "whole", films)
    whole.measure()
    assert half.layers() == whole.layers()


def test_texts_of_a_later_list_reach_the_clips_of_their_sources_and_no_other_row(
    half: Corpus,
) -> None:
    before = half.layers()
    old = half.clips("licence", "caption", "caption_words")
    half.texts["a"] = {"caption": "another caption of a", "licence": "CC0-1.0"}
    half.texts["c"] = {"caption": ""}  # says nothing, and so changes nothing
    _, _, said = half.measure()
    assert "1 sources, 1 licence, 1 given_caption" in said
    new = half.clips("licence", "caption", "caption_words")
    assert [row for row in new if row["uri"].endswith("c.mp4")] == old[2:]
    assert [row["caption"] for row in new[:2]] == ["another caption of a"] * 2
    assert [(row["licence"], row["caption_words"]) for row in new[:2]] == [("CC0-1.0", 4)] * 2
    changed = {
        name.split("/")[1].split("@")[0]
        for name, data in half.layers().items()
        if before[name] != data
    }
    assert changed == {"captions", "caption_text"}
    assert "other texts" not in half.measure()[2]


def test_rejects_that_may_pass_are_told_last_with_an_exit_code_of_their_own(
    half: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["curate", half.list(), "--out", half.store.root, "--preset", "tiny"]
    assert main([*command, "--sources-per-part", "4", "--until", "select"]) == 3
    said = "".join(capsys.readouterr().out.split("funnel")[-1].split("\n"))
    assert "2 sources were rejected for reasons that may pass" in said
    assert "--retry-failed" in said
    assert "b.mp4" in said
    assert "d.mp4" in said


def test_a_dry_run_is_refused_as_the_run_is_and_names_what_would_be_tried_again(
    half: Corpus, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["curate", half.list(), "--out", half.store.root, "--preset", "tiny"]
    command += ["--sources-per-part", "4"]
    assert main([*command, "--until", "export"]) == 3
    before = {name: half.store.read(name) for name in half.store.files(recursive=True)}
    before.pop(".lock")
    capsys.readouterr()
    assert main([*command, "--retry-failed", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "tried again: 2 sources, 0 captions" in said
    assert [f"{name}.mp4" in said.split("tried again")[1] for name in NAMES] == [
        *(False, True, False, True)
    ]
    refused = {
        "--stations": (str(films), 1, "would lack 1 of 2 parts"),
        "--rule fps>=5": (half.list(), 1, "rules.rules: new fps>=5"),
        "--decode.sample-fps 3": (half.list(), 1, "layers"),
        "--stations --retry-failed": (half.list(), 2, "--retry-failed"),
    }
    for flags, (sources, code, says) in refused.items():
        asked = [*command, *flags.split()]
        asked[1] = sources
        told = []
        for more in ([], ["--dry-run"]):
            assert main([*asked, *more]) == code, flags
            told.append(capsys.readouterr().err)
        assert told[0] == told[1], flags
        assert says in told[0], told[0]
    after = {name: half.store.read(name) for name in before}
    assert after == before


def test_an_update_that_was_cut_off_leaves_a_list_that_is_read_again(half: Corpus) -> None:
    ledger = Ledger(half.store)
    ledger.mark_again(layout.SOURCES, [0])
    before = half.store.read(layout.sources(0))
    half.measure()
    assert half.store.read(layout.sources(0)) == before
    assert Ledger(half.store).states(layout.SOURCES, 1) == ["done"]


def test_layers_that_would_not_follow_are_named_before_any_row_is_made(half: Corpus) -> None:
    half.texts["a"] = {"caption": "another caption of a"}
    info, configured = read_corpus(half.store), curate.configure(replace(RIVER, stations=()))
    ledger = Ledger(half.store)
    retries = Retries(ledger, configured.stations, configured.layers, info.layers, 1)
    known = read_known_sources(ledger, 1)
    listed = list_sources([half.list()])
    count, parts = retries.other_texts(listed, known)
    assert (count["sources"], parts) == (1, [0])
    for retry_failed, what in ((False, "the texts of the list"), (True, "--retry-failed")):
        with pytest.raises(UsageError, match=f"{what}: .* caption_text, captions, which would not"):
            retries.check_none_left_behind(listed, known, retry_failed=retry_failed, renewed={})
    assert read_table(half.store, layout.sources(0))["given_caption"][0].as_py() == "the film a"


def test_clips_whose_film_was_away_are_named_and_cut_when_it_is_back(
    tmp_path: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Corpus(tmp_path / "away", films)
    command = ["curate", corpus.list(), "--out", corpus.store.root, "--preset", "tiny"]
    assert main([*command, "--sources-per-part", "4", "--until", "select"]) == 0
    (corpus.sources / "b.mp4").unlink()
    again = ["export", corpus.store.root, "--preset", "tiny"]
    capsys.readouterr()
    assert main(again) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "could not be cut for reasons that may pass; the same command with --retry-failed" in said
    )
    of_b = [c["clip_id"] for c in corpus.clips("clip_id") if str(c["uri"]).endswith("b.mp4")]
    assert all(f"{clip_id}:" in said for clip_id in of_b)
    assert main(["status", corpus.store.root]) == 0
    assert "2 more may be cut by `lavie export --retry-failed`" in capsys.readouterr().out
    assert main([*command, "--dry-run"]) == 0
    assert "2 clips that could not be cut may be" in capsys.readouterr().out
    corpus.bring("b")
    assert main(again) == 3
    assert main([*again, "--retry-failed"]) == 0
    assert main(["status", corpus.store.root]) == 0
    assert "may be cut" not in capsys.readouterr().out
    exported = read_index(corpus.store, "default")["clip_id"].to_pylist()
    assert set(of_b) <= set(exported)
    kept = read_table(
        corpus.store, f"{layout.selection('default')}/{layout.part_file(0)}", ["clip_id", "keep"]
    )
    assert sorted(exported) == sorted(kept.filter(kept["keep"])["clip_id"].to_pylist())
    assert main(["verify", corpus.store.root]) == 0


def test_a_source_that_is_another_file_now_is_refused_and_the_rest_of_the_delivery_is_curated(
    tmp_path: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Corpus(tmp_path / "changed", films, absent="d")
    command = ["curate", str(corpus.sources), "--out", corpus.store.root, "--preset", "tiny"]
    command += ["--until", "measure"]
    assert main(command) == 0
    before = corpus.layers()
    (corpus.sources / "b.mp4").write_bytes((films / "b.mp4").read_bytes() + b"\0")
    corpus.bring("d")
    capsys.readouterr()
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "1 sources were refused" in said
    assert "b.mp4" in said.split("refused")[1]
    assert "4 sources: 4 read" in said
    after = corpus.layers()
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)
    assert main(["status", corpus.store.root]) == 0
    assert "1 sources of the last run's list were refused" in capsys.readouterr().out
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "0 new, 4 known" in said
    assert "b.mp4: " in said.split("1 sources were refused")[1]


def test_a_rejected_source_that_is_another_file_now_is_read_when_it_is_tried_again(
    tmp_path: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late, whole = Corpus(tmp_path / "late", films), Corpus(tmp_path / "whole", films)
    film = (films / "b.mp4").read_bytes()
    (late.sources / "b.mp4").write_bytes(film[: len(film) // 2])  # its upload had not ended
    commands = [
        ["curate", str(corpus.sources), "--out", corpus.store.root, "--preset", "tiny"]
        for corpus in (late, whole)
    ]
    for command in commands:
        assert main([*command, "--until", "measure"]) == 0
    assert late.layers() != whole.layers()
    before = late.layers()
    late.bring("b")
    capsys.readouterr()
    assert main([*commands[0], "--until", "measure"]) == 3
    said = capsys.readouterr().out
    assert "1 sources that were rejected are other files now" in said
    assert f"{len(film) // 2} bytes then, {len(film)} now" in said.split("other files now")[1]
    assert late.layers() == before
    assert main([*commands[0], "--dry-run"]) == 0
    assert "1 sources that were rejected are other files now" in capsys.readouterr().out
    assert main([*commands[0], "--until", "measure", "--retry-failed"]) == 0
    assert late.layers() == whole.layers()
    sizes = read_table(late.store, layout.sources(0))["size_bytes"].to_pylist()
    assert sizes == read_table(whole.store, layout.sources(0))["size_bytes"].to_pylist()
    assert main([*commands[0], "--dry-run"]) == 0
    assert "other files" not in capsys.readouterr().out
    assert main(["verify", late.store.root]) == 0


class FailsOverB(CaptionText):
    """A station with a bug that one film brings out."""

    def __call__(self, clips: pa.Table) -> pa.Table:
        if "the film b" in clips["caption"].to_pylist():
            raise ZeroDivisionError("a sentence of no length")
        return super().__call__(clips)


def exported(store: Store) -> list[str]:
    index = read_index(store, "default", ["clip_id", "still_selected"])
    assert pc.all(index["still_selected"]).as_py()
    return sorted(index["clip_id"].to_pylist())


@pytest.mark.slow
def test_a_part_that_failed_is_left_out_by_all_that_follows_and_comes_in_when_it_is_mended(
    tmp_path: Path,
    films: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus, whole = Corpus(tmp_path / "gap", films), Corpus(tmp_path / "whole", films)
    tiny_run = ["--preset", "tiny", "--sources-per-part", "2"]
    command = ["curate", corpus.list(), "--out", corpus.store.root, *tiny_run]
    with monkeypatch.context() as patch:
        sound = river.stations

        def with_a_bug(config: RiverConfig) -> list[Station[Any]]:
            *others, last = sound(config)
            return [*others, FailsOverB(last.config)]

        patch.setattr(river, "stations", with_a_bug)
        assert main(command) == 1
    said = capsys.readouterr()
    gap = "1 of 2 parts (2 sources): part 0 without caption_text"
    assert f"leaves out {gap}" in caplog.text
    assert "caption_text of part 0: ZeroDivisionError: a sentence of no length" in said.err
    rows = [str(clip["uri"]) for clip in corpus.clips("clip_id")]
    assert len(rows) == 4
    layers = read_corpus(corpus.store).layers
    of_c_and_d = read_clips(corpus.store, layers, 1, ["clip_id"])["clip_id"].to_pylist()
    assert exported(corpus.store) == sorted(of_c_and_d)
    assert gap in corpus.store.read("reports/default/index.html").decode()
    tars = {n: corpus.store.read(n) for n in corpus.store.files("shards", recursive=True)}
    tars = {name: data for name, data in tars.items() if name.endswith(".tar")}

    for again, code in (("select", 1), ("export", 1), ("report", 1), ("verify", 1), ("status", 0)):
        preset = ["--preset", "tiny"] if again in ("select", "export", "report") else []
        assert main([again, corpus.store.root, *preset]) == code
        said = capsys.readouterr()
        assert "without caption_text" in said.out
        if again == "verify":
            assert "files are as they were written" in said.out

    assert main(command) == 0
    assert main(["curate", whole.list(), "--out", whole.store.root, *tiny_run]) == 0
    assert corpus.layers() == whole.layers()
    assert exported(corpus.store) == exported(whole.store)
    assert {name: corpus.store.read(name) for name in tars} == tars
    for made in (corpus, whole):
        assert main(["verify", made.store.root]) == 0
    said = capsys.readouterr()
    assert "without" not in said.out
    for part in range(2):  # but for the split: an exported clip keeps the one that it had
        columns = [c.name for c in SELECTION if c.name != "split"]
        own, other = (
            read_verdicts(made.store, "default", part, columns) for made in (corpus, whole)
        )
        assert own.equals(other)
