"""`lavie search` on a curated corpus whose embeddings a tiny CLIP made."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.corpus.gap import find_gap
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.parts import read_clips
from curation.corpus.store import Store
from curation.errors import MissingColumn
from curation.select.scan import Corpus
from curation.select.search import closest
from curation.stations.clip_model import ClipModel, ClipText
from curation.stations.embeddings import EmbeddingsConfig
from pipelines import cli, curate
from pipelines.jobs import StationJob
from pipelines.presets import tiny

Said = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def corpus(
    small_corpus: Path, tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Corpus:
    root = tmp_path_factory.mktemp("search") / "corpus"
    shutil.copytree(small_corpus, root)
    store, start = Store(str(root)), tiny().river
    model = EmbeddingsConfig(clip=ClipModel(architecture=str(tiny_clip_folder)))
    config = replace(start, stations=("embeddings", *start.stations), embeddings=model)
    river = curate.configure(config)
    info = read_corpus(store)
    info = CorpusInfo(num_parts=info.num_parts, layers=river.layers, settings=asdict(config))
    info.write(store)
    job = StationJob(store, river.stations[0], river.layers)
    job.setup()
    ledger = Ledger(store)
    for part in range(info.num_parts):
        ledger.record(job.run(part).commits)
    job.close()
    return Corpus(store, info, find_gap(ledger, info), threads=2)


@pytest.fixture(scope="module")
def clips(corpus: Corpus) -> list[dict]:
    columns = ["embedding", "keyframes", "uri", "start_s"]
    return [
        clip
        for part in range(corpus.info.num_parts)
        for clip in read_clips(corpus.store, corpus.info.layers, part, columns).to_pylist()
    ]


@pytest.fixture
def search(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*words: str) -> tuple[int, str]:
        code = cli.main(["search", str(corpus.store.root), *words])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def by_cosine(clips: list[dict], asked_D: np.ndarray, num: int) -> list[str]:
    """Ids of the closest clips, from all cosines at once."""
    vectors_ND = np.array([clip["embedding"] for clip in clips], np.float64)
    order = np.argsort(-(vectors_ND @ asked_D), kind="stable")[:num]
    return [clips[place]["clip_id"] for place in order]


def listed(told: str) -> list[str]:
    return [word for line in told.splitlines() for word in line.split() if len(word) == 36]


def test_clips_like_a_clip_come_closest_first_without_itself(
    search: Said, clips: list[dict]
) -> None:
    own = clips[7]
    others = [clip for clip in clips if clip["clip_id"] != own["clip_id"]]
    code, told = search("--like", own["clip_id"].upper(), "--num", "5")
    assert code == 0
    assert listed(told) == by_cosine(others, np.array(own["embedding"]), 5)


def test_a_text_is_embedded_by_the_clip_of_the_corpus(
    search: Said, clips: list[dict], tiny_clip_folder: Path
) -> None:
    asked_D = ClipText(ClipModel(architecture=str(tiny_clip_folder)))(["a red wall"])[0]
    code, told = search("--like", "a red wall", "--num", "4")
    assert code == 0
    assert listed(told) == by_cosine(clips, asked_D, 4)


def test_a_picture_finds_its_clip_and_the_sheet_shows_what_was_found(
    search: Said, clips: list[dict], tmp_path: Path
) -> None:
    image = next(clip for clip in clips if clip["uri"].endswith("picture-3.jpg"))
    (tmp_path / "asked").write_bytes(image["keyframes"][0])
    sheet = tmp_path / "sheet.jpg"
    code, told = search("--like", str(tmp_path / "asked"), "--num", "7", "--sheet", str(sheet))
    assert code == 0, told
    assert listed(told)[0] == image["clip_id"]
    assert "1.000" in told
    with Image.open(sheet) as found, Image.open(io.BytesIO(image["keyframes"][0])) as asked:
        assert found.size == (5 * 260 - 4, 2 * 260 - 4)
        left, top = (256 - asked.width) // 2, (256 - asked.height) // 2
        first = found.crop((left, top, left + asked.width, top + asked.height))
        pictures = [np.asarray(each.convert("L"), np.float64).ravel() for each in (first, asked)]
    assert np.corrcoef(*pictures)[0, 1] > 0.8  # of a fine texture, coded once more
    code, told = search("--like", "a", "--sheet", str(sheet))
    assert code == 2
    assert "is there already" in told


def test_what_cannot_be_asked_is_said(search: Said, corpus: Corpus, tmp_path: Path) -> None:
    wrong = {
        "00000000-0000-0000-0000-000000000000": "has no clip",
        "gone/photo.jpg": "there is no file",
        __file__: "unknown_format",
    }
    for asked, said in wrong.items():
        code, told = search("--like", asked)
        assert code == 2
        assert said in " ".join(told.split())
    assert search("--like", "a", "--num", "0")[0] == 2
    assert search("--like", "a", "--selection", "other")[0] == 2
    layers = {name: layer for name, layer in corpus.info.layers.items() if name != "embeddings"}
    bare = replace(corpus, info=replace(corpus.info, layers=layers))
    with pytest.raises(MissingColumn, match="no embeddings"):
        closest(bare, np.ones(16, np.float32), 3)


def test_only_what_a_selection_keeps_is_found(search: Said, clips: list[dict]) -> None:
    code, told = search("--like", "a red wall", "--selection", "default", "--num", "100")
    assert code == 0
    assert len(listed(told)) == len(clips)  # it keeps everything
