"""The preset `vimeo25m` from films to shards, by the real classes with tiny weights made on the spot.

With the files of `lavie weights fetch vimeo25m` only the numbers change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_clips
from curation.corpus.selection import read_funnel, read_verdicts
from curation.corpus.shards import read_index, read_manifest
from curation.corpus.store import Store
from curation.weights.catalog import GROUPS, missing

WIDTH = 16  # of the tiny CLIP's embeddings
GIVEN = "A slow pan over a painted wall in the evening light."

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # eight stations start their workers


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head with the layers of LAION's v2 (no activation between them), for the tiny CLIP."""
    import torch

    torch.manual_seed(0)
    sizes = {0: (WIDTH, 32), 2: (32, 16), 4: (16, 8), 6: (8, 4), 7: (4, 1)}
    state = {}
    for number, (wide, narrow) in sizes.items():
        layer = torch.nn.Linear(wide, narrow)
        state |= {f"layers.{number}.weight": layer.weight, f"layers.{number}.bias": layer.bias}
    state["layers.7.bias"] = torch.tensor([5.0])  # scores about 5, as the real head's are
    path = tmp_path_factory.mktemp("head") / "head.pth"
    torch.save({name: value.detach() for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """A list of two films of two scenes in 720 lines, captioned, and one of too few."""
    folder = tmp_path_factory.mktemp("films")
    options = {"preset": "ultrafast", "threads": "1"}
    for name, size in (("a", (1280, 720)), ("b", (1280, 720)), ("small", (640, 360))):
        scenes = [(f"red/{name}", 54), (f"teal/{name}", 54)]
        make_video(folder / f"{name}.mp4", scenes, size=size, options=options)
    rows = [{"uri": f"{name}.mp4", "caption": GIVEN} for name in ("a", "b", "small")]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "list.jsonl"


@pytest.fixture
def curate(
    listed: Path, tiny_clip_folder: Path, head: Path, tmp_path: Path
) -> Callable[..., Store]:
    """``curate(flag, ...)``: run the preset into a corpus; gives it."""
    gone = missing(w for w in GROUPS["vimeo25m"] if w in GROUPS["embedded"])
    if gone:
        pytest.skip(f"lavie weights fetch embedded: {gone[0].name} is not here")

    def run(*more: str) -> Store:
        clips = ("embeddings", "taxonomy", "alignment")
        flags = [(f"--{name}.clip.architecture", str(tiny_clip_folder)) for name in clips]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pipelines", "curate", str(listed)),
                *("--out", str(tmp_path / "corpus"), "--preset", "vimeo25m"),
                *(word for flag in flags for word in flag),
                *("--aesthetics.checkpoint", str(head)),
                *("--aesthetics.trained-on", tiny_clip_folder.name),
                *("--drop-rule", "clip_similarity"),  # of random weights it says nothing
                *("--export.x264-preset", "ultrafast"),
                *more,
            ],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return Store(str(tmp_path / "corpus"))

    return run


COLUMNS = (
    *("embedding_model", "embedding", "aesthetic_score", "text_area_share", "nsfw_score", "height"),
    *("category", "caption", "caption_engine", "caption_language", "clip_similarity"),
)


def test_the_preset_runs_from_films_to_shards_with_every_station_on(
    curate: Callable[..., Store], tiny_clip_folder: Path
) -> None:
    store = curate()
    info = read_corpus(store)
    rows = [
        row
        for part in range(info.num_parts)
        for row in read_clips(store, info.layers, part, COLUMNS).to_pylist()
    ]
    assert len(rows) == 6
    for row in rows:
        assert row["embedding_model"] == tiny_clip_folder.name
        assert len(row["embedding"]) == WIDTH
        assert 3.5 < row["aesthetic_score"] < 6.5
        assert 0 <= row["text_area_share"] <= 1
        assert 0 <= row["nsfw_score"] <= 1
        assert row["category"]
        assert row["caption"] == GIVEN
        assert (row["caption_engine"], row["caption_language"]) == ("given", "en")
        assert -1 <= row["clip_similarity"] <= 1
    verdicts = [
        verdict
        for part in range(info.num_parts)
        for verdict in read_verdicts(store, "default", part).to_pylist()
    ]
    failed = [set(verdict["failed_rules"]) for verdict in verdicts]
    small = [row["height"] == 360 for row in rows]
    assert [("short_side" in rules) for rules in failed] == small
    assert (
        sum(verdict["keep"] for verdict in verdicts)
        == read_funnel(store, "default")["kept"]["clips"]
    )
    kept = [verdict["clip_id"] for verdict in verdicts if verdict["keep"]]
    assert kept, "the tiny models should let clips through"
    assert sorted(read_index(store, "default")["clip_id"].to_pylist()) == sorted(kept)
    assert read_manifest(store, "default")["caption_engines"] == {"given": len(kept)}
    assert store.exists("reports/default/index.html")
