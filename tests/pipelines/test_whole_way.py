"""The whole way: small films and pictures in, shards and a report out, killed and resumed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.dataset as pads
import pytest
from PIL import Image

from curation.corpus import layout
from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_table
from curation.corpus.schema import LAYERS, layer_schema
from curation.corpus.store import Store

NOT_COMPARED = {layout.LOCK}
SCENES = [("red", 60), ("teal", 72), ("gold", 66), ("red/2", 30)]  # the last is under 2 s


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Six good films, two pictures, and five files that must be rejected; a list gives captions."""
    folder = tmp_path_factory.mktemp("sources")
    for index in range(6):
        scenes = [(f"{look}/{index}", frames) for look, frames in SCENES]
        make_video(folder / f"film-{index}.mp4", scenes, size=(320, 180), fps=24)
    for index, colour in enumerate(("navy", "olive")):
        Image.effect_noise((400, 300), 60).convert("RGB").save(folder / f"{colour}-{index}.jpg")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is not a film\n" * 100)
    (folder / "cut-off.mp4").write_bytes((folder / "film-0.mp4").read_bytes()[:20_000])
    secret = folder.parent / "secret.txt"
    secret.write_text("canary-5f1d")
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n")
    os.mkfifo(folder / "pipe.mp4")
    names = sorted(path.name for path in folder.iterdir())
    lines = [
        json.dumps({"uri": name, "caption": f"a short film called {name}", "licence": "CC0-1.0"})
        for name in names
    ]
    (folder / "list.jsonl").write_text("\n".join(lines))
    return folder


def command(sources: Path, out: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pipelines", "curate", str(sources / "list.jsonl")),
        *("--out", out, "--preset", "tiny", *more),
    ]


def curate(sources: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command in ``folder``, so that every run has the same command line."""
    return subprocess.run(
        command(sources, "corpus", *more),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=280,
    )


def contents(corpus: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(corpus)): path.read_bytes()
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and path.name not in NOT_COMPARED
    }


@pytest.fixture(scope="module")
def reference(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    done = curate(sources, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "corpus"


def test_every_source_is_read_or_rejected_with_its_reason(reference: Path) -> None:
    store = Store(str(reference))
    info = read_corpus(store)
    reasons: Counter[str | None] = Counter()
    for part in range(info.num_parts):
        reasons.update(
            read_table(store, layout.layer(info.layers["probe"], part))["source_reject"].to_pylist()
        )
    assert reasons.pop("undecodable", 0) + reasons.pop("truncated", 0) == 1
    assert reasons == {None: 8, "empty": 1, "unknown_format": 1, "playlist": 1, "not_regular": 1}


def test_nothing_of_the_file_behind_the_playlist_is_in_the_corpus(reference: Path) -> None:
    assert not [name for name, data in contents(reference).items() if b"canary-5f1d" in data]


def test_every_layer_holds_what_the_schema_declares(reference: Path) -> None:
    store = Store(str(reference))
    info = read_corpus(store)
    assert set(info.layers) == {"probe", "scenes", "keyframes", "captions", "caption_text"}
    for name, layer_id in info.layers.items():
        for part in range(info.num_parts):
            table = read_table(store, layout.layer(layer_id, part))
            assert table.schema.equals(layer_schema(name), check_metadata=False)
            docs = {field.name: field.metadata[b"doc"].decode() for field in table.schema}
            assert {
                column.name: column.doc for column in LAYERS[name].columns
            }.items() <= docs.items()


def test_in_is_kept_plus_rejected_plus_failed_at_every_step(reference: Path) -> None:
    store = Store(str(reference))
    info = read_corpus(store)
    parts = range(info.num_parts)
    scenes = sum(
        read_table(store, layout.layer(info.layers["scenes"], p), ["clip_id"]).num_rows
        for p in parts
    )
    assert scenes == 6 * len(SCENES) + 2
    verdicts = [
        row
        for p in parts
        for row in read_table(store, f"selections/default/{layout.part_file(p)}").to_pylist()
    ]
    kept = [row for row in verdicts if row["keep"]]
    assert len(verdicts) == scenes
    assert all(bool(row["failed_rules"]) != row["keep"] for row in verdicts)
    index = pads.dataset(reference / "shards/default/index.parquet").to_table()
    assert sorted(index["clip_id"].to_pylist()) == sorted(row["clip_id"] for row in kept)
    assert index["export_reject"].null_count == index.num_rows
    assert index.num_rows == 6 * 3 + 2


def test_the_shards_are_read_by_webdataset(reference: Path) -> None:
    import webdataset as wds

    tars = sorted(str(path) for path in (reference / "shards").rglob("*.tar"))
    samples = list(wds.WebDataset(tars, shardshuffle=False))
    assert len(samples) == 20
    for sample in samples:
        facts = json.loads(sample["json"])
        name = Path(facts["uri"]).name
        assert sample["txt"].decode() == f"a short film called {name}"
        if "jpg" in sample:
            Image.open(io.BytesIO(sample["jpg"])).verify()
        else:
            assert sample["mp4"][4:8] == b"ftyp"


def test_a_second_run_does_nothing_and_changes_no_byte(
    sources: Path, reference: Path, tmp_path: Path
) -> None:
    before = contents(reference)
    times = {name: (reference / name).stat().st_mtime_ns for name in before if "layers" in name}
    again = curate(sources, reference.parent)
    assert again.returncode == 0, again.stderr
    assert contents(reference) == before
    assert {name: (reference / name).stat().st_mtime_ns for name in times} == times


def grown(corpus: Path, films: Sequence[Path], *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command over films alone, into a corpus that there may be."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pipelines", "curate", *map(str, films)),
            *("--out", str(corpus), "--preset", "tiny", *more),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_a_corpus_grows_by_a_delivery_and_what_was_finished_stays(
    reference: Path, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(reference, corpus)
    before = contents(corpus)
    film = make_video(
        tmp_path / "new.mp4", [("teal/9", 60), ("gold/9", 66)], size=(320, 180), fps=24
    )

    refused = grown(corpus, [film], "--stations", "captions")
    assert refused.returncode == 1
    assert re.search(r"caption_text would lack 1 of \d+ parts", refused.stderr)
    refused = grown(corpus, [film], "--rule", "duration_s>=2.6")
    assert refused.returncode == 1
    assert "rules.rules: new duration_s>=2.6" in refused.stderr
    assert contents(corpus) == before  # both before any work

    done = grown(corpus, [film])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "generation 2 of the shards: 2 new clips in 1 new tars" in done.stdout
    assert "13 of the corpus's 14 sources are not in this list; they stay" in done.stdout
    after = contents(corpus)
    stay = [n for n in before if n.startswith("shards/") and n.endswith((".tar", "0.parquet"))]
    assert stay
    assert {name: after[name] for name in stay} == {name: before[name] for name in stay}
    index = pads.dataset(corpus / "shards/default/index.parquet").to_table()
    assert Counter(index["generation"].to_pylist()) == {1: 20, 2: 2}
    assert all(index["still_selected"].to_pylist())

    again = grown(corpus, [film])
    assert again.returncode == 0, again.stderr
    assert "no new shards" in again.stdout
    assert contents(corpus) == after


def children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def wait_for_parts(corpus: Path, number: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while len(list(corpus.glob("layers/scenes@*/part-*"))) < number:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run made no part"
        time.sleep(0.02)


def start(sources: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(sources, "corpus"),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "told.txt").open("wb"),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_run_that_is_told_to_end_ends_in_a_sentence_and_goes_on_to_the_same_bytes(
    sources: Path, reference: Path, tmp_path: Path, number: int, code: int, word: str
) -> None:
    import psutil

    process = start(sources, tmp_path)
    wait_for_parts(tmp_path / "corpus", 1, process)
    family = children(process.pid)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    told = (tmp_path / "told.txt").read_text().splitlines()
    assert told[-1] == f"{word}; run the same command again to go on"
    assert not [line for line in told if "Traceback" in line or "***" in line]
    here = [psutil.Process(p) for p in family if psutil.pid_exists(p)]
    assert psutil.wait_procs(here, timeout=60)[1] == []
    resumed = curate(sources, tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(tmp_path / "corpus") == contents(reference)


@pytest.mark.slow
def test_killing_the_driver_and_running_again_gives_the_same_bytes(
    sources: Path, reference: Path, tmp_path: Path
) -> None:
    import psutil

    process = start(sources, tmp_path)
    wait_for_parts(tmp_path / "corpus", 3, process)
    family = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("corpus/layers/scenes@*/part-*")
    }
    psutil.wait_procs([psutil.Process(p) for p in family if psutil.pid_exists(p)], timeout=30)
    resumed = curate(sources, tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert contents(tmp_path / "corpus") == contents(reference)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_killing_a_worker_in_mid_run_changes_no_byte(
    sources: Path, reference: Path, tmp_path: Path
) -> None:
    import psutil

    process = start(sources, tmp_path)
    wait_for_parts(tmp_path / "corpus", 1, process)
    workers = [p for p in children(process.pid) if psutil.Process(p).name().startswith("ray::Work")]
    assert workers, "no worker was found to kill"
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait(timeout=280) == 0
    assert contents(tmp_path / "corpus") == contents(reference)


def test_a_run_in_which_nothing_can_be_read_ends_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": "empty.mp4"}))
    done = curate(tmp_path, tmp_path)
    assert done.returncode == 1
    assert "none of the 1 sources could be read: empty" in done.stderr
